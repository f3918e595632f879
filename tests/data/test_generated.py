from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from leanet.data.generated import (
    generated_folder,
    read_generated,
    refuse_generated,
    refuse_leak,
    sha256_of,
)
from leanet.data.images import write_image
from leanet.files import write_csv, write_json
from leanet.records import Sample


def picture(path: Path, value: int) -> Path:
    write_image(path, np.full((4, 4, 3), value, np.uint8))
    return path


def samples(root: Path) -> list[Sample]:
    paths = [picture(root / f"{index}.png", index) for index in range(6)]
    return [Sample(path=path, label=0, kind="good") for path in paths]


def generated(place: Path, learned: list[Sample], kinds: tuple[str, ...] = ("good",)) -> Path:
    rows = []
    for kind in kinds:
        picture(place / kind / "00000.png", 200)
        rows.append({"file": f"{kind}/00000.png", "class": kind})
    write_csv(place / "generated.csv", rows)
    known = {sample.path.name: sha256_of(sample.path) for sample in learned}
    write_json(place / "generator.json", {"trained_on": known})
    return place


def test_one_generator_serves_every_part(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    place = generated(tmp_path / "g", real[:2], ("good", "scratch"))
    found = read_generated(place, "fold-3")
    assert found.paths == (place / "good" / "00000.png", place / "scratch" / "00000.png")
    assert found.kinds == ("good", "scratch")
    assert found.trained_on == {sha256_of(s.path): s.path.name for s in real[:2]}


def test_every_fold_gets_the_images_of_its_own_generator(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    generated(tmp_path / "g" / "fold-0", real[:2])
    generated(tmp_path / "g" / "fold-1", real[2:])
    assert set(read_generated(tmp_path / "g", "fold-1").trained_on.values()) == {
        s.path.name for s in real[2:]
    }
    with pytest.raises(ValueError, match=r"no final/generated\.csv"):
        read_generated(tmp_path / "g", "final")


def test_a_folder_without_generated_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leanet generate"):
        read_generated(tmp_path)
    generated(tmp_path, [], ())
    with pytest.raises(ValueError, match="lists no images"):
        read_generated(tmp_path)


def test_a_generator_that_knows_only_training_images_passes(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    refuse_leak(read_generated(generated(tmp_path / "g", real[:4])), real, (4, 5))


def test_a_generator_that_has_seen_a_test_image_is_refused_with_its_name(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    known = read_generated(generated(tmp_path / "g", real[:5]))
    with pytest.raises(ValueError, match=r"learned from .*real/4\.png"):
        refuse_leak(known, real, (4, 5))


def test_a_copied_and_renamed_test_image_is_found(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    known = read_generated(generated(tmp_path / "g", real[:5]))
    copy = tmp_path / "elsewhere.png"
    shutil.copy(real[4].path, copy)
    with pytest.raises(ValueError, match=r"elsewhere\.png"):
        refuse_leak(known, [Sample(path=copy, label=0)], (0,))


def test_a_generated_image_among_the_samples_is_refused_with_its_name(tmp_path: Path) -> None:
    real = samples(tmp_path / "real")
    place = generated(tmp_path / "g" / "fold-0", real[:2])
    refuse_generated(real)
    mixed = [*real, Sample(path=place / "good" / "00000.png", label=0)]
    with pytest.raises(ValueError, match=r"good/00000\.png is a generated image"):
        refuse_generated(mixed)
    with pytest.raises(ValueError, match="may train, and never validate or test"):
        refuse_leak(read_generated(place), mixed, (len(mixed) - 1,))


def test_the_folder_of_a_generated_image_is_found_at_any_depth(tmp_path: Path) -> None:
    place = generated(tmp_path / "g", [])
    assert generated_folder(place / "good") == place
    assert generated_folder(place / "good" / "deeper") == place
    assert generated_folder(tmp_path) is None
