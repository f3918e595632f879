from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from leanet.data.images import read_image
from leanet.data.pretraining import leaked
from leanet.data.scan import scan
from leanet.files import read_csv, read_json
from leanet.generation import dcgan_run as module
from leanet.generation.dcgan_run import DcganOptions, fit_dcgan
from leanet.methods.dcgan import Config
from leanet.networks import dcgan
from leanet.networks.dcgan_weights import load_dcgan
from leanet.training import journal

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the channels, an eighth of the looks: quicker."""
    monkeypatch.setattr(dcgan, "CHANNELS", (4, 8, 16, 32))
    monkeypatch.setattr("leanet.methods.dcgan_monitor.IMAGES_PER_LOOK", 8)


def quick(data: Path, out: Path, *, earlier: str = "refuse", **options: Any) -> tuple[Path, str]:
    """Two epochs of batches of 8; the run, and what it told."""
    told: list[str] = []
    names = DcganOptions.__dataclass_fields__
    own = {key: options.pop(key) for key in list(options) if key in names}
    values: dict[str, Any] = {"device": "cpu", "precision": "32-true", **own}
    config = Config(**{"epochs": 2, "batch_size": 8, "sheet_every": 1, **options})
    run = fit_dcgan(data, out, DcganOptions(**values), config, earlier=earlier, tell=told.append)
    return run, "\n".join(told)


def test_the_run_folder_says_what_was_done(shapes: Path, tmp_path: Path) -> None:
    run, told = quick(shapes.parent, tmp_path / "run")
    assert sorted(file.name for file in run.iterdir()) == [
        *("card.json", "config.yaml", "environment.json", "images.csv", "journal.jsonl"),
        *("sheet-001.png", "sheet-002.png", "sheet.png", "weights.safetensors"),
    ]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["method"], config["epochs"], config["limit"]) == ("dcgan", 2, None)
    card = read_json(run / "card.json")
    assert (card["method"], card["img_size"], card["images"], card["steps"]) == ("dcgan", 64, 27, 6)
    assert len(journal.read(run / "journal.jsonl")) == 2
    assert read_image(run / "sheet.png").shape[1] == 16 * (128 + 4) + 4  # px, sixteen in a row
    assert "learns from 27 of 27 images on cpu" in told
    assert "nearly all alike, as at the very start" in told


def test_its_weights_serve_and_it_knows_what_it_has_seen(shapes: Path, tmp_path: Path) -> None:
    run, told = quick(shapes, tmp_path / "run")  # the table, which has a test part
    assert "24 of 24 images" in told
    assert "3 of a test part" in told
    samples = scan(shapes, normal_required=False).samples
    assert leaked(run, [one for one in samples if one.split == "test"]) == 0
    assert leaked(run / "weights.safetensors", samples) == 24
    report = load_dcgan(
        run, encoder=dcgan.Encoder(), decoder=dcgan.Decoder(), discriminator=dcgan.Discriminator()
    )
    assert report.kept == ()
    assert {name.split(".")[1] for name in report.skipped} == {"first"}


def test_a_limit_draws_some_images_with_the_seed(shapes: Path, tmp_path: Path) -> None:
    def seen(folder: str, **options: Any) -> list[str]:
        run, told = quick(shapes, tmp_path / folder, limit=5, epochs=1, **options)
        assert "learns from 5 of 24" in told
        return [row["path"] for row in read_csv(run / "images.csv")]

    first = seen("a")
    assert len(set(first)) == 5
    assert first == seen("b")
    assert first != seen("c", seed=1)


def test_an_unreadable_image_stops_or_is_left_out(
    tmp_path: Path, make_shapes: Callable[..., Path]
) -> None:
    data = make_shapes(tmp_path / "data", per_class=1).parent
    (data / "ok" / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 unreadable image.*bad.png.*--skip_bad"):
        quick(data, tmp_path / "run")
    run, told = quick(data, tmp_path / "other", skip_bad=True, epochs=1)
    assert "left out 1 unreadable image(s)" in told
    assert len(read_csv(run / "images.csv")) == read_json(run / "card.json")["images"] == 6


def test_resume_leaves_what_is_finished_and_overwrite_begins_anew(
    shapes: Path, tmp_path: Path
) -> None:
    run, _ = quick(shapes, tmp_path / "run", epochs=1)
    before = (run / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(ValueError, match="holds an earlier run; use --resume"):
        quick(shapes, run, epochs=1)
    with pytest.raises(ValueError, match="epochs 1 -> 2"):
        quick(shapes, run, epochs=2, earlier="resume")
    _, told = quick(shapes, run, epochs=1, earlier="resume")
    assert "finished before" in told
    assert (run / "weights.safetensors").stat().st_mtime_ns == before
    quick(shapes, run, epochs=2, earlier="overwrite")
    assert read_json(run / "card.json")["epochs"] == 2


def test_a_killed_run_goes_on(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanet.methods.dcgan.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    whole, _ = quick(shapes, tmp_path / "whole")
    show = module._show

    def killing(out: Path, drawn: torch.Tensor, epoch: int | None = None) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        show(out, drawn, epoch)

    monkeypatch.setattr(module, "_show", killing)
    with pytest.raises(KeyboardInterrupt):
        quick(shapes, tmp_path / "killed")
    monkeypatch.setattr(module, "_show", show)
    killed, _ = quick(shapes, tmp_path / "killed", earlier="resume")
    for name in ("weights.safetensors", "sheet.png", "images.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_foreign_folder_is_not_overwritten(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(ValueError, match="no run folder of leanet"):
        quick(shapes, tmp_path, earlier="overwrite")


def test_generated_images_are_refused(tmp_path: Path, make_shapes: Callable[..., Path]) -> None:
    data = make_shapes(tmp_path / "drawn", per_class=1).parent
    (data / "generated.csv").write_text("file,class\n")
    with pytest.raises(ValueError, match=r"holds generated images"):
        quick(data, tmp_path / "run")


def test_a_limit_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="limit 1: give at least 2"):
        DcganOptions(limit=1)
