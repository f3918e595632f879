from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet.data.generated import read_generated, refuse_leak
from leanet.data.images import read_image
from leanet.files import read_csv, read_json
from leanet.generation import generate as module
from leanet.generation.draw import image_seed
from leanet.generation.gan_run import GanOptions, find_split
from leanet.generation.generate import GenerateOptions, generate

Make = Callable[..., Path]
HEADER = ["file", "class", "seed", "nearest", "distance", "flags"]


def draw(run: Path, out: Path, **options: Any) -> Path:
    overwrite = options.pop("overwrite", False)
    given = GenerateOptions(**{"per_class": 6, "device": "cpu", **options})
    return generate(run, out, given, overwrite=overwrite, tell=lambda text: None)


@pytest.fixture(scope="module")
def drawn(gan_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(gan_run, tmp_path_factory.mktemp("drawn") / "g")


def test_there_is_a_folder_per_class_and_a_row_per_image(drawn: Path, gan_run: Path) -> None:
    rows = read_csv(drawn / "generated.csv")
    assert list(rows[0]) == HEADER
    assert len(rows) == 18
    learned = set(read_json(gan_run / "final" / "generator.json")["trained_on"])
    for row in rows:
        assert read_image(drawn / row["file"]).shape == (32, 32, 3)
        assert row["file"].startswith(row["class"] + "/")
        assert row["nearest"] in learned
        assert float(row["distance"]) > 0
    assert rows[0]["seed"] == str(image_seed(0, "disc", 0))


def test_the_sheets_show_generated_and_real_images(drawn: Path) -> None:
    for name in ("disc", "ok", "square"):
        page = read_image(drawn / f"sheet-{name}.png")
        assert page.shape[1] == 10 * (96 + 4) + 4
        assert np.array_equal(page[4:100:3, 4:100:3], read_image(drawn / name / "00000.png"))
    assert read_image(drawn / "closest.png").shape[1] == 6 * (2 * 96 + 4) + 4


def test_the_quality_stands_with_its_space_and_its_null(drawn: Path) -> None:
    quality = read_json(drawn / "quality.json")
    assert quality["space"] == {"name": "16x16 pixel means", "sha256": None}
    assert quality["images"] == {"disc": 6, "ok": 6, "square": 6}
    assert set(quality["kid"]) == {"pooled", "disc", "ok", "square"}
    assert quality["kid"]["pooled"]["null_sd"] > 0
    assert set(quality["memorization"]) == {"16x16 pixel means"}
    assert quality["dropped_copies"] == 0


def test_a_larger_set_holds_the_smaller_one_and_equal_seeds_draw_alike(
    gan_run: Path, drawn: Path, tmp_path: Path
) -> None:
    larger = draw(gan_run, tmp_path / "larger", per_class=8)
    other = draw(gan_run, tmp_path / "other", seed=1)
    for row in read_csv(drawn / "generated.csv"):
        one = read_image(drawn / row["file"])
        assert np.array_equal(one, read_image(larger / row["file"]))
        assert not np.array_equal(one, read_image(other / row["file"]))


def test_the_images_serve_the_split_that_the_generator_was_trained_for(
    drawn: Path, shapes: Path
) -> None:
    found, _ = find_split(shapes, GanOptions(img_size=32))
    generated = read_generated(drawn, "final")
    assert len(generated.paths) == 18
    unseen = [i for i, sample in enumerate(found.samples) if sample.split == "test"]
    refuse_leak(generated, found.samples, unseen)
    with pytest.raises(ValueError, match="has learned from"):
        refuse_leak(generated, found.samples, range(len(found.samples)))


def test_fold_by_fold(shapes: Path, tmp_path: Path, quick_gan: Make) -> None:
    run = quick_gan(shapes, tmp_path / "run", folds=2, steps=2, look_every=2)
    out = draw(run, tmp_path / "g", per_class=2)
    assert not (out / "generated.csv").exists()
    found, _ = find_split(shapes, GanOptions(img_size=32))
    index = {s.path.relative_to(found.root).as_posix(): i for i, s in enumerate(found.samples)}
    rows = read_csv(run / "folds.csv")
    test = {
        part: [index[r["path"]] for r in rows if (r["fold"], r["role"]) == (part, "test")]
        for part in ("fold-0", "fold-1")
    }
    refuse_leak(read_generated(out, "fold-0"), found.samples, test["fold-0"])
    with pytest.raises(ValueError, match="has learned from"):
        refuse_leak(read_generated(out, "fold-0"), found.samples, test["fold-1"])


def test_a_snapshot_draws_other_images(gan_run: Path, drawn: Path, tmp_path: Path) -> None:
    early = draw(gan_run, tmp_path / "early", step=15)
    name = read_csv(early / "generated.csv")[0]["file"]
    assert not np.array_equal(read_image(early / name), read_image(drawn / name))
    with pytest.raises(ValueError, match="--snapshot_every"):
        draw(gan_run, tmp_path / "none", step=7)


def replaying(folder: Path) -> Any:
    """Stands in for `draw_images`: training images instead of new ones, for two of six."""

    def draw_images(generator: Any, classes: list[str], per_class: int, seed: int) -> Any:
        drawn = {}
        root = Path(read_json(folder / "generator.json")["root"])
        known = list(read_json(folder / "generator.json")["trained_on"])
        for name in classes:
            image = torch.randint(256, (per_class, 3, 32, 32), dtype=torch.uint8)
            for k, path in enumerate([path for path in known if path.startswith(name)][:2]):
                image[k] = torch.from_numpy(read_image(root / path)).permute(2, 0, 1)
            drawn[name] = image
        return drawn

    return draw_images


def test_copies_are_flagged_warned_about_and_left_out_on_request(
    gan_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "draw_images", replaying(gan_run / "final"))
    kept = draw(gan_run, tmp_path / "kept")
    flags = [row["flags"] for row in read_csv(kept / "generated.csv")]
    assert flags == 3 * ["copy", "copy", "", "", "", ""]
    assert "33% copies" in read_json(kept / "quality.json")["warnings"][0]
    left = draw(gan_run, tmp_path / "left", drop_copies=True)
    assert len(read_csv(left / "generated.csv")) == 12
    assert len(list(left.glob("*/*.png"))) == 12
    assert read_json(left / "quality.json")["dropped_copies"] == 6


def test_an_earlier_folder_is_replaced_on_request_only(gan_run: Path, tmp_path: Path) -> None:
    out = draw(gan_run, tmp_path / "g", per_class=3)
    with pytest.raises(ValueError, match="holds generated images; use --overwrite"):
        draw(gan_run, out, per_class=2)
    draw(gan_run, out, per_class=2, overwrite=True)
    assert len(list(out.glob("disc/*.png"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other files"):
        draw(gan_run, tmp_path / "mine", overwrite=True)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run of `leanet fit gan`"):
        draw(tmp_path, tmp_path / "g")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 1}, "at least 2 images"),
        ({"features": "a", "features_run": "b"}, "not both"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerateOptions(**options)
