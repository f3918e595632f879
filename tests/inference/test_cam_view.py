from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import write_image
from leanet.files import read_json
from leanet.inference import cam_panels
from leanet.inference.cam_panels import Look, Shown
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.inference.cam_view import draw_cams, to_text
from leanet.inference.panels import Panel
from leanet.inference.run_images import RunImages
from leanet.methods.classes import ClassDetector
from leanet.methods.classifier import Classifier
from leanet.methods.store import load_detector
from leanet.methods.supervised import Normalize
from leanet.networks.cnn import CNN
from leanet.networks.resnet import ResNet

SIDE, NAMES = 64, ("blotch", "good", "stripe")


def several(normal: int | None = 1) -> ClassDetector:
    torch.manual_seed(0)
    return ClassDetector(Normalize((0.5,) * 3, (0.25,) * 3), CNN(3, 3), SIDE, NAMES, normal).eval()


def two() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Normalize((0, 0, 0), (1, 1, 1)), CNN(3, 1), SIDE).eval()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    names = ("in/a.png", "in/b.png", "in/sub/a.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))
    return [tmp_path / name for name in names]


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """What would be drawn; nothing is."""
    drawn: list[Panel] = []
    monkeypatch.setattr(cam_panels.panels, "save", lambda panel, path: drawn.append(panel))
    return drawn


def draw(detector: Any, files: list[Path], **options: Any) -> list[Shown]:
    own = {key: options.pop(key) for key in list(options) if key in CamOptions.__annotations__}
    ways = {key: options.pop(key, None) for key in ("threshold", "tell")}
    explainer = Explainer(
        detector, CamOptions(**own), threshold=ways["threshold"], tell=ways["tell"] or print
    )
    out = options.pop("out", files[0].parents[1] / "out")
    return draw_cams(explainer, files, out, **options)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_every_image_gets_its_maps_and_a_panel_under_its_place(files: list[Path]) -> None:
    shown = draw(several(), files, methods="grad_cam,layer_cam", batch_size=2)
    out = files[0].parents[1] / "out"
    found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    places = ("a", "b", "sub/a")
    keys = ("grad_cam-stage4", "layer_cam-stage3", "layer_cam-stage4")
    assert found == sorted([
        *(f"cams/{key}/{place}.npz" for key in keys for place in places),
        *(f"panels/{place}.png" for place in places), "cams.json"])  # fmt: skip
    with Image.open(shown[0].panel) as picture:
        assert picture.format == "PNG"
    assert to_text(shown).splitlines()[0].startswith("grad_cam-stage4: 32 px per cell, raw values ")


def test_files_are_raw_whatever_the_look(files: list[Path], panels: list[Panel]) -> None:
    first = draw(several(), files)
    raw = arrays(first[0].maps["grad_cam-stage4"])["map"]
    again = draw(several(), files, look=Look(scale="image", cmap="jet", blend="flat"),
                 overwrite=True)  # fmt: skip
    assert np.array_equal(arrays(again[0].maps["grad_cam-stage4"])["map"], raw)
    assert (panels[-1].rows[0].cmap, panels[-1].blend, panels[-1].rows[0].signed) == (
        "jet", "flat", False)  # fmt: skip
    assert panels[0].rows[0].signed


def test_a_panel_shows_every_map_with_class_and_cell(
    files: list[Path], panels: list[Panel]
) -> None:
    draw(several(), files[:1], methods="grad_cam,layer_cam", eigen_smooth=True)
    (panel,) = panels
    assert [row.name for row in panel.rows] == [
        "grad_cam, stage4", "layer_cam, stage4", "layer_cam, stage3"]  # fmt: skip
    assert [row.signed for row in panel.rows] == [True, False, False]
    text = " ".join(panel.rows[2].details)
    assert "4 x 4 cells, 16 px per cell" in text
    assert "of the energy" in text
    assert panel.rows[0].unit.startswith("logit of ")
    assert "probability" in panel.verdict
    assert panel.image.shape == (40, 36, 3)


def test_cams_json_says_what_was_asked_and_what_came_out(
    files: list[Path], panels: list[Panel]
) -> None:
    shown = draw(several(), files, run="leaves")
    facts = read_json(files[0].parents[1] / "out" / "cams.json")
    assert (facts["run"], facts["classes"], facts["target"]) == ("leaves", [*NAMES], "logit")
    assert facts["methods"] == [{"method": "grad_cam", "layer": "stage4"}]
    assert facts["comparable"] == ["grad_cam"]
    for row, one in zip(facts["images"], shown, strict=True):
        found = row["maps"]["grad_cam-stage4"]
        heat = arrays(files[0].parents[1] / "out" / found["file"])["map"]
        assert (found["min"], found["max"]) == (heat.min(), heat.max())
        assert row["path"] == one.path.as_posix()
        assert row["predicted"] == one.predicted == found["class"]
        assert one.verdict == ""  # no threshold was given


def test_two_classes_have_a_verdict(files: list[Path], panels: list[Panel]) -> None:
    shown = draw(two(), files, threshold=-1e9)
    assert [one.verdict for one in shown] == ["anomalous"] * 3
    assert panels[0].alarm
    assert "threshold -1e+09" in panels[0].verdict
    shown = draw(two(), files, threshold=1e9, overwrite=True)
    assert shown[0].facts["maps"]["grad_cam-stage4"]["class"] == "normal"
    assert not panels[-1].alarm


def test_the_images_of_the_run_give_the_scale(files: list[Path], panels: list[Panel]) -> None:
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    detector = several()
    explainer = Explainer(detector, CamOptions())
    draw(detector, files, images=RunImages(images, torch.zeros(5, dtype=torch.bool)))
    maps = explainer.explain(images)["grad_cam-stage4"].map  # type: ignore[union-attr]
    expected = maps.abs().quantile(0.995, interpolation="lower")
    for panel in panels:
        scale = panel.rows[0].scale
        assert scale.top == pytest.approx(float(expected), rel=0.02)
        assert scale.words.endswith("on 5 images of the run")


@pytest.mark.usefixtures("panels")
def test_true_classes_can_be_explained_on_the_scale_of_the_run(
    files: list[Path], tmp_path: Path
) -> None:
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    explainer = Explainer(several(), CamOptions(), which="true")
    explainer.true = dict.fromkeys(files, 2)
    known = RunImages(images, torch.zeros(3, dtype=torch.bool))
    shown = draw_cams(explainer, files, tmp_path / "out", images=known)
    assert [one.facts["maps"]["grad_cam-stage4"]["class"] for one in shown] == ["stripe"] * 3
    assert explainer.which == "true"


def test_lea_net_s_pictures_say_what_the_map_does(
    lea_run: Path, files: list[Path], panels: list[Panel]
) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    known = RunImages(images, torch.tensor([True, False, True]))
    detector = load_detector(lea_run / "final")
    shown = draw(detector, files, images=known, threshold=0.0, layer="point3")
    for one, panel in zip(shown, panels, strict=True):
        assert one.facts["map_reference"] == "the mean map of 2 normal images"
        assert f"{one.facts['map_effect']:+.3g}" in panel.notes[0]
        assert one.facts["map_exchanged"] is not None
    alone = draw(detector, files[:1], layer="point3", overwrite=True)
    assert alone[0].facts["map_reference"] == "zeros"
    assert alone[0].facts["map_exchanged"] is None
    assert read_json(files[0].parents[1] / "out" / "cams.json")["map_source"] == "stored"


def test_a_smoothing_that_leaves_most_out_is_told(
    files: list[Path], panels: list[Panel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanet.inference.cam_view.LITTLE_ENERGY", 1.1)
    told: list[str] = []
    draw(several(), files, eigen_smooth=True, tell=told.append)
    assert told == [told[0]]
    assert told[0].startswith("grad_cam-stage4: in 3 of 3 image(s)")


@pytest.mark.usefixtures("panels")
def test_self_attention_is_drawn_as_well(files: list[Path]) -> None:
    from leanet.networks.gates import Gates, attach

    torch.manual_seed(0)
    network = ResNet(18, 3, 3)
    attach(network, Gates("simam", stages=(3,)), "resnet18")
    detector = ClassDetector(Normalize((0,) * 3, (1,) * 3), network, SIDE, NAMES, 1).eval()
    draw(detector, files[:1])
    assert (files[0].parents[1] / "out" / "gates" / "a.png").exists()


@pytest.mark.usefixtures("panels")
def test_earlier_maps_are_kept_unless_told_otherwise(files: list[Path]) -> None:
    draw(several(), files[:1])
    with pytest.raises(ValueError, match="--overwrite"):
        draw(several(), files[:1])
    draw(several(), files[:1], overwrite=True)


@pytest.mark.usefixtures("panels")
def test_images_are_never_overwritten_by_their_panels(files: list[Path]) -> None:
    (files[0].parent / "panels").mkdir()
    inside = files[0].parent / "panels" / "a.png"
    inside.write_bytes(files[0].read_bytes())
    with pytest.raises(ValueError, match="another --out"):
        draw(several(), [inside], out=files[0].parent)


@pytest.mark.usefixtures("panels")
def test_unreadable_images_stop_at_the_end_or_are_left_out(files: list[Path]) -> None:
    files[1].write_text("no image")
    with pytest.raises(UnreadableImagesError, match=r"b\.png"):
        draw(several(), files)
    told: list[str] = []
    shown = draw(several(), files, skip_bad=True, overwrite=True, tell=told.append)
    assert [one.path.name for one in shown] == ["a.png", "a.png"]
    assert "b.png" in told[0]
