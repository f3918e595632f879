from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.data.folds import hold_out
from leanet.data.generated import sha256_of
from leanet.files import read_csv, read_json
from leanet.generation import gan_run as module
from leanet.generation.gan_run import GanOptions, find_split
from leanet.methods.gan import load_generator
from leanet.training import journal

Make = Callable[..., Path]


def test_the_run_folder_says_what_was_done(gan_run: Path, shapes: Path) -> None:
    config = yaml.safe_load((gan_run / "config.yaml").read_text())
    assert (config["method"], config["steps"], config["img_size"]) == ("gan", 30, 32)
    assert read_json(gan_run / "card.json")["parts"] == ["final"]
    assert (gan_run / "environment.json").exists()
    assert len(read_csv(gan_run / "samples.csv")) == 27
    assert {row["role"] for row in read_csv(gan_run / "folds.csv")} == {"train", "test"}
    assert len(journal.read(gan_run / "final" / "journal.jsonl")) == 2
    metrics = read_json(gan_run / "final" / "metrics.json")
    assert metrics["steps"] == 30
    assert metrics["kid_pixels_null"]["sd"] > 0
    assert (gan_run / "final" / "sheet.png").exists()
    assert not (gan_run / "final" / "checkpoint.safetensors").exists()
    assert not (gan_run / "cache").exists()


def test_test_and_held_out_images_are_never_learned_from(gan_run: Path, shapes: Path) -> None:
    found, _ = find_split(shapes, GanOptions(img_size=32))
    train = [i for i, sample in enumerate(found.samples) if sample.split != "test"]
    rest, held = hold_out(train, found.samples, 0.2, seed=0)
    known = read_json(gan_run / "final" / "generator.json")
    names = {
        i: sample.path.relative_to(found.root).as_posix() for i, sample in enumerate(found.samples)
    }
    assert set(known["trained_on"]) == {names[i] for i in rest}
    assert set(known["held_out"]) == {names[i] for i in held}
    assert all(sha256_of(found.root / name) == sha for name, sha in known["trained_on"].items())
    assert known["weights_sha256"] == sha256_of(gan_run / "final" / "weights.safetensors")
    assert load_generator(gan_run / "final" / "weights.safetensors")[1] == ["disc", "ok", "square"]


def test_every_fold_has_a_generator_that_has_not_seen_its_test(
    shapes: Path, tmp_path: Path, quick_gan: Make
) -> None:
    run = quick_gan(shapes, tmp_path / "run", folds=2, steps=2, look_every=2)
    assert read_json(run / "card.json")["parts"] == ["fold-0", "fold-1", "final"]
    rows = read_csv(run / "folds.csv")
    for part in ("fold-0", "fold-1"):
        known = read_json(run / part / "generator.json")
        seen = set(known["trained_on"]) | set(known["held_out"])
        assert seen == {r["path"] for r in rows if (r["fold"], r["role"]) == (part, "train")}
        assert not seen & {r["path"] for r in rows if (r["fold"], r["role"]) == (part, "test")}


def test_data_without_a_split_or_folds_is_refused(
    shapes: Path, tmp_path: Path, quick_gan: Make
) -> None:
    (tmp_path / "all").symlink_to(shapes.parent)
    with pytest.raises(ValueError, match=r"names no test images.*\n.*--folds 5 or --test_fraction"):
        quick_gan(tmp_path / "all", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_split_by_the_seed_is_that_of_the_classifier(shapes: Path) -> None:
    options = GanOptions(img_size=32, test_fraction=0.25, seed=3)
    found, prepared = find_split(shapes.parent, options)
    test = {s.path for s in found.samples if s.split == "test"}
    plain = module.scan(shapes.parent).samples
    _, expected = hold_out(range(len(plain)), plain, 0.25, seed=3)
    assert test == {plain[i].path for i in expected}
    assert prepared.test_fraction == 0.25


def test_only_some_classes(shapes: Path, tmp_path: Path, quick_gan: Make) -> None:
    run = quick_gan(shapes, tmp_path / "run", steps=2, look_every=2, only=("disc",))
    known = read_json(run / "final" / "generator.json")
    assert known["classes"] == ["disc"]
    assert {name.split("/")[0] for name in known["trained_on"]} == {"disc"}
    with pytest.raises(ValueError, match=r"disk: no training image.*did you mean disc"):
        quick_gan(shapes, tmp_path / "other", only=("disk",))


@pytest.mark.parametrize(
    ("earlier", "options", "message"),
    [
        ("refuse", {}, "holds an earlier run"),
        ("resume", {"lr": 1e-3}, "lr 0.0002 -> 0.001"),
    ],
)
def test_an_earlier_run_is_not_spoiled(
    gan_run: Path,
    shapes: Path,
    earlier: str,
    options: dict[str, Any],
    message: str,
    quick_gan: Make,
) -> None:
    with pytest.raises(ValueError, match=message):
        quick_gan(shapes, gan_run, earlier=earlier, snapshot_every=15, **options)


def test_resume_leaves_what_is_finished_and_overwrite_begins_anew(
    shapes: Path, tmp_path: Path, quick_gan: Make
) -> None:
    run = quick_gan(shapes, tmp_path / "run", steps=2, look_every=2)
    weights = run / "final" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    quick_gan(shapes, run, steps=2, look_every=2, earlier="resume")
    assert weights.stat().st_mtime_ns == before
    quick_gan(shapes, run, steps=3, look_every=3, earlier="overwrite")
    assert read_json(run / "final" / "metrics.json")["steps"] == 3


def test_a_foreign_folder_is_not_overwritten(shapes: Path, tmp_path: Path, quick_gan: Make) -> None:
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(ValueError, match="no run folder of leanet"):
        quick_gan(shapes, tmp_path, earlier="overwrite")


def test_generated_images_are_no_training_data_for_a_generator(
    tmp_path: Path, quick_gan: Make, make_shapes: Make
) -> None:
    data = make_shapes(tmp_path / "drawn", per_class=2)
    (data.parent / "generated.csv").write_text("file,class\n")
    with pytest.raises(ValueError, match="is a generated image"):
        quick_gan(data, tmp_path / "run")
