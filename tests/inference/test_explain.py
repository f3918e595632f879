from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

import leanet
from leanet.data.cache import UnreadableImagesError
from leanet.data.images import write_image
from leanet.files import read_json
from leanet.inference import explain as module
from leanet.inference.explain import Explained, explain, run_names, to_text
from leanet.inference.feature_view import View, shared_scale
from leanet.methods.store import load_detector
from leanet.ops.maps import MapScale
from leanet.records import Prediction

SIDE = 16
CPU = torch.device("cpu")


class Painter:
    """Score: the mean red; map: red; shows the green image. No attention."""

    img_size = SIDE
    map_unit: str | None = "dE00"
    map_top = 0.5

    def __call__(self, image: Tensor) -> Prediction:
        return Prediction(image[:, 0].mean(dim=(1, 2)), image[:, :1])

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        return {"repainted": image * torch.tensor([0.0, 1.0, 0.0])[:, None, None]}


class Steered(Painter):
    """Attention points with w: M is red, the features are green."""

    scale = MapScale(divisor=0.25, headroom=4.0)

    def __init__(self, **strengths: float) -> None:
        self.strengths = strengths

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        pictures = super().explain(image)
        for k, (name, w) in enumerate(self.strengths.items()):
            small = functional.avg_pool2d(image, 2 ** (k + 1))
            attention, before = small[:, :1], small[:, 1:2]
            pictures |= {
                f"attention {name}": attention,
                f"before {name}": before,
                f"after {name}": before * (1 + w * attention),
                f"strength {name}": torch.full((len(image), 1, 1, 1), w),
            }
        return pictures


class Guided(Painter):
    """M is red over its mean, the features are green, and there is no w."""

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        pictures: dict[str, Tensor] = {}
        for k, name in enumerate(("A3", "A4")):
            small = functional.avg_pool2d(image, 2 ** (k + 1))
            red, before = small[:, :1], small[:, 1:2]
            attention = red / red.mean(dim=(2, 3), keepdim=True)
            after = attention * before
            pictures |= {f"attention {name}": attention, f"before {name}": before,
                         f"after {name}": after}  # fmt: skip
        return {**pictures, "evidence": image[:, 1:2] - 0.75}


class Classifier(Painter):
    """No map, nothing to show."""

    map_unit = None

    def __call__(self, image: Tensor) -> Prediction:
        return Prediction(super().__call__(image).score)

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "in" / name, rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    return tmp_path / "in"


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[View]:
    """What would be drawn; nothing is."""
    drawn: list[View] = []
    monkeypatch.setattr(module, "save", lambda view, path: drawn.append(view))
    return drawn


def run(detector: Any, folder: Path, **options: Any) -> list[Explained]:
    paths = options.pop("paths", sorted(folder.rglob("*.png")))
    values = {"out": folder.parent / "out", "threshold": 0.5, "device": CPU, "tell": quiet}
    return explain(detector, paths, **{**values, **options})


def quiet(text: str) -> None:
    """Print nothing."""


def load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def as_seen(path: Path) -> Tensor:
    with Image.open(path) as file:
        small = np.asarray(file.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return torch.from_numpy(small.transpose(2, 0, 1).copy())[None].float() / 255


def test_every_image_gets_a_picture_and_its_arrays_under_its_place(folder: Path) -> None:
    explained = run(Steered(A4=1.0), folder)
    out = folder.parent / "out"
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert files == [
        "arrays/a.npz", "arrays/b.npz", "arrays/sub/a.npz", "explain.json",
        "figures/a.png", "figures/b.png", "figures/sub/a.png"]  # fmt: skip
    assert [one.path.name for one in explained] == ["a.png", "b.png", "a.png"]
    with Image.open(explained[0].figure) as picture:
        assert picture.format == "PNG"


@pytest.mark.usefixtures("views")
def test_the_arrays_are_those_of_the_detector(folder: Path) -> None:
    detector = Steered(A1=1.0, A4=-0.5)
    for one in run(detector, folder):
        image, arrays = as_seen(one.path), load(one.arrays)
        expected = {"map": detector(image).map, **detector.explain(image)}
        assert set(arrays) == {"image", *expected}
        assert np.array_equal(arrays["image"].transpose(2, 0, 1) / np.float32(255), image[0])
        for name, value in expected.items():
            assert value is not None
            plane = value[0] if len(value[0]) == 3 else value[0, 0]
            assert arrays[name].dtype == np.float32
            assert np.allclose(arrays[name], plane, rtol=0, atol=1e-7), name


@pytest.mark.usefixtures("views")
def test_the_score_and_the_verdict_are_those_of_predict(folder: Path, tmp_path: Path) -> None:
    from leanet.inference.predict import predict
    from leanet.ops.working_point import WorkingPoint

    detector, paths = Steered(A4=1.0), sorted(folder.rglob("*.png"))
    explained = run(detector, folder, threshold=0.499)
    at = WorkingPoint(0.499)
    judged = predict(detector, paths, point=at, out=tmp_path / "p", device=CPU, heatmaps=False)
    assert [one.verdict for one in explained] == [one.verdict for one in judged]
    assert [one.score for one in explained] == pytest.approx([one.score for one in judged])


@pytest.mark.usefixtures("views")
def test_explain_json_says_what_each_attention_does(folder: Path) -> None:
    explained = run(Steered(A2=0.5), folder, name="leaves")
    facts = read_json(folder.parent / "out" / "explain.json")
    assert (facts["run"], facts["map_unit"], facts["threshold"]) == ("leaves", "dE00", 0.5)
    for row, one in zip(facts["images"], explained, strict=True):
        arrays, point = load(folder.parent / "out" / row["arrays"]), row["points"][0]
        attention = arrays["attention A2"].astype(np.float64)
        assert (point["run"], point["point"], point["strength"]) == ("leaves", "A2", 0.5)
        assert point["attention_mean"] == pytest.approx(attention.mean(), abs=1e-6)
        assert point["attention_sd"] == pytest.approx(attention.std(), abs=1e-6)
        assert point["gain"] == pytest.approx(
            [1 + 0.5 * attention.min(), 1 + 0.5 * attention.max()]
        )
        ends = shared_scale(arrays["before A2"], arrays["after A2"])
        assert (point["features_min"], point["features_max"]) == ends
        assert row["score"] == one.score
        assert folder.parent / "out" / row["figure"] == one.figure


def test_the_map_has_one_scale_for_all_images_with_s_inside_it(
    folder: Path, views: list[View]
) -> None:
    run(Steered(A4=1.0), folder)
    for view in views:
        assert [photo.name for photo in view.photos] == ["image", "repainted", "map"]
        scale = view.photos[-1].scale
        assert scale is not None
        assert (scale.low, scale.mark, scale.high, scale.unit) == (0, 0.25, 0.3125, "ΔE₀₀")


def test_several_points_of_one_network_are_said_to_act_together(
    folder: Path, views: list[View]
) -> None:
    run(Steered(A1=1.0, A2=1.0), folder)
    run(Steered(A1=1.0), folder, overwrite=True, out=folder.parent / "single")
    several, single = (" ".join(views[k].notes) for k in (0, -1))
    assert "five networks with one point each" in several
    assert "five networks" not in single
    assert "scale per column" in single


def test_other_runs_become_further_columns_and_their_arrays_bear_their_names(
    folder: Path, views: list[View]
) -> None:
    other = Steered(A5=0.25)
    other.img_size = 2 * SIDE
    explained = run(Steered(A4=1.0), folder, name="first", also={"second": other})
    assert [(p.run, p.name, p.strength) for p in views[0].points] == [
        ("first", "A4", 1.0), ("second", "A5", 0.25)]  # fmt: skip
    assert views[0].points[1].before.shape == (SIDE, SIDE)
    assert "Image and map are those of first." in views[0].notes
    assert not any("five networks" in note for note in views[0].notes)
    arrays = load(explained[0].arrays)
    assert arrays["second/attention A5"].shape == (SIDE, SIDE)
    assert arrays["attention A4"].shape == (SIDE // 2, SIDE // 2)


@pytest.mark.parametrize(
    ("detector", "shown"),
    [(Classifier(), ["image"]), (Painter(), ["image", "repainted", "map"])],
)
def test_a_detector_without_attention_shows_what_there_is_and_says_so(
    detector: Any, shown: list[str], folder: Path, views: list[View]
) -> None:
    explained = run(detector, folder)
    assert [photo.name for photo in views[0].photos] == shown
    assert views[0].points == []
    assert "no attention points" in views[0].notes[0]
    assert explained[0].points == []
    assert to_text(explained) == "this detector has no attention points"


def test_another_run_without_attention_is_said_to_have_none(
    folder: Path, views: list[View]
) -> None:
    run(Steered(A4=1.0), folder, name="first", also={"plain": Classifier()})
    assert views[0].notes[-1] == (
        "Image and map are those of first. plain has no attention points."
    )


def test_planes_that_belong_to_no_point_are_shown_beside_the_image(
    folder: Path, views: list[View]
) -> None:
    class Lonely(Painter):
        def explain(self, image: Tensor) -> dict[str, Tensor]:
            return {"attention": image[:, :1], "residual": image[:, 1:2]}

    run(Lonely(), folder)
    photos = {photo.name: photo for photo in views[0].photos}
    assert list(photos) == ["image", "map", "attention", "residual"]
    attention, residual = photos["attention"].scale, photos["residual"].scale
    assert attention is not None
    assert residual is not None
    assert (attention.low, attention.high) == (0, 1)
    assert residual.high == pytest.approx(photos["residual"].array.max())
    assert views[0].points == []


def test_guided_attention_is_shown_as_what_it_is(folder: Path, views: list[View]) -> None:
    explained = run(Guided(), folder)
    facts, arrays = explained[0].points[0], load(explained[0].arrays)
    assert facts["strength"] is None
    ends = arrays["attention A3"].min(), arrays["attention A3"].max()
    assert facts["gain"] == pytest.approx(ends)
    assert views[0].notes == [module.GUIDED_NOTE]
    photos = {photo.name: photo for photo in views[0].photos}
    assert list(photos) == ["image", "map", "evidence"]
    evidence = photos["evidence"].scale
    assert evidence is not None
    assert (evidence.low, evidence.high) == (-evidence.high, np.abs(arrays["evidence"]).max())
    assert re.fullmatch(
        r"A3: M 1\.000 on average, spatial SD 0\.\d{3}\nA4: M 1\.000.*", to_text(explained)
    )


@pytest.mark.usefixtures("views")
def test_the_summary_averages_over_the_images(folder: Path) -> None:
    explained = run(Steered(A4=0.5), folder)
    means = [one.points[0]["attention_mean"] for one in explained]
    sds = [one.points[0]["attention_sd"] for one in explained]
    expected = f"A4: w 0.5, M {np.mean(means):.3f} on average, spatial SD {np.mean(sds):.3f}"
    assert to_text(explained) == expected


@pytest.mark.usefixtures("views")
def test_earlier_explanations_are_kept_unless_told_otherwise(folder: Path) -> None:
    run(Painter(), folder)
    with pytest.raises(ValueError, match="--overwrite"):
        run(Painter(), folder)
    assert len(run(Painter(), folder, overwrite=True)) == 3


@pytest.mark.usefixtures("views")
def test_images_are_never_overwritten_by_their_pictures(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    (folder / "figures").mkdir()
    write_image(folder / "figures" / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="another --out"):
        run(Painter(), folder, out=folder)
    assert {path: path.read_bytes() for path in before} == before


def test_unreadable_images_stop_at_the_end_or_are_left_out(folder: Path, views: list[View]) -> None:
    (folder / "b.png").write_text("no image")
    with pytest.raises(UnreadableImagesError, match=r"b\.png"):
        run(Steered(A4=1.0), folder, also={"other": Steered(A5=1.0)})
    assert len(views) == 2
    assert not (folder.parent / "out" / "explain.json").exists()
    told: list[str] = []
    assert len(run(Painter(), folder, skip_bad=True, tell=told.append)) == 2
    assert "b.png" in told[0]


@pytest.mark.usefixtures("views")
def test_a_detector_with_damaged_weights_is_named_with_the_image(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"after A4.* of .*a\.png is not finite"):
        run(Steered(A4=float("inf")), folder)


def test_runs_are_called_by_their_folders_or_by_their_paths(tmp_path: Path) -> None:
    assert run_names([tmp_path / "x" / "a4", tmp_path / "a5"]) == ["a4", "a5"]
    same = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert run_names(same) == [str(path) for path in same]
    with pytest.raises(ValueError, match="twice"):
        run_names([tmp_path / "a", tmp_path / "b" / ".." / "a"])


# --- a trained LEA-Net ---------------------------------------------------------------------------


def test_attention_multiplies_the_features_of_a_trained_network(
    lea_run: Path, toy: Path, tmp_path: Path
) -> None:
    images = sorted((toy / "Positive").rglob("*.png"))[:2]
    explained = leanet.explain(lea_run, images, tmp_path / "out", device="cpu")
    detector = load_detector(lea_run / "final")
    for one in explained:
        arrays = load(one.arrays)
        before, after = arrays["before A4"], arrays["after A4"]
        attention, w = arrays["attention A4"], arrays["strength A4"]
        assert before.shape == attention.shape == after.shape
        assert np.allclose(before * (1 + w * attention), after, rtol=1e-4, atol=1e-5)
        assert one.points[0]["strength"] == 1.0
        assert 1 < one.points[0]["gain"][0] <= one.points[0]["gain"][1] < 2
        small = torch.from_numpy(arrays["image"].transpose(2, 0, 1).copy())[None].float() / 255
        with torch.inference_mode():
            anomaly_map, pictures = detector(small).map, detector.explain(small)
        assert anomaly_map is not None
        assert np.allclose(arrays["map"], anomaly_map[0, 0], atol=1e-4)
        assert np.allclose(after, pictures["after A4"][0, 0], atol=1e-5)


def test_a_run_with_itself_by_another_name_has_the_same_columns_twice(
    lea_run: Path, toy: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    for entry in lea_run.iterdir():
        (tmp_path / "copy" / entry.name).symlink_to(entry)
    image = next((toy / "Positive").rglob("*.png"))
    both = leanet.explain(
        lea_run, [image], tmp_path / "out", also=[tmp_path / "copy"], device="cpu"
    )
    first, second = both[0].points
    assert (first["run"], second["run"]) == ("leanet", "copy")
    assert {**first, "run": ""} == {**second, "run": ""}


@pytest.mark.parametrize("other", ["run", "also"])
def test_an_unfinished_run_is_refused(other: str, lea_run: Path, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("method: leanet\n")
    run, also = (tmp_path / "half", []) if other == "run" else (lea_run, [tmp_path / "half"])
    with pytest.raises(ValueError, match="not finished"):
        leanet.explain(run, [toy], tmp_path / "out", also=also, device="cpu")


def test_a_missing_image_is_named(lea_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.png does not exist"):
        leanet.explain(lea_run, [tmp_path / "none.png"], tmp_path / "out", device="cpu")


def test_the_verb_prints_what_the_attention_does(
    lea_run: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leanet.cli import main

    image = next((toy / "Positive").rglob("*.png"))
    words: list[str] = ["explain", str(lea_run), str(image), f"--out={tmp_path / 'o'}"]
    assert main([*words, "--device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "A4: w 1, M " in printed
    assert "1 picture(s) in" in printed
    assert json.loads((tmp_path / "o" / "explain.json").read_text())["images"]
