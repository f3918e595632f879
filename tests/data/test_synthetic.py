from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp

from leanet.data import synthetic
from leanet.data.cache import Cache
from leanet.data.surfaces import render
from leanet.data.synthetic import (
    CLEAN,
    NUISANCE,
    Made,
    make,
    parse_kinds,
    per_kind,
    read_textures,
    training_set,
    unpack,
)
from leanet.ops.synthetic import Synthetic
from leanet.records import ANOMALOUS, NORMAL
from leanet.runtime import derived_seed

SIDE = 24
PICTURES = [render("leaf", np.random.default_rng(k), SIDE)[0].transpose(2, 0, 1) for k in range(8)]
ARRAY = np.rint(np.stack(PICTURES) * 255).astype(np.uint8)
IMAGES = Cache(ARRAY, torch.device("cpu"))


def streams(seed: int = 0) -> Callable[[str], torch.Generator]:
    return lambda kind: torch.Generator().manual_seed(derived_seed(seed, kind))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "FEWEST", 10)


def made(
    kinds: tuple[str, ...], normals: tuple[int, ...] = (0, 2, 3, 7), seed: int = 0
) -> list[Made]:
    return list(training_set(IMAGES, normals, kinds, streams(seed)))


def test_every_anomaly_has_a_normal_counterpart() -> None:
    found = made(("color", "cutpaste", "perlin"))
    assert Counter(one.kind for one in found) == {
        "synthetic-color": 10,
        NUISANCE: 10,
        "synthetic-cutpaste": 10,
        "synthetic-perlin": 10,
        CLEAN: 20,
    }
    assert {one.kind for one in found if one.label == NORMAL} == {NUISANCE, CLEAN}
    for one in found:
        assert one.image.shape == (3, SIDE, SIDE)
        assert one.image.dtype == torch.uint8
        assert bool(one.mask.sum() > 0) is (one.label == ANOMALOUS)


def test_only_the_given_normal_images_are_sources_and_all_of_them_are() -> None:
    found = made(("cutpaste",))
    assert {one.source for one in found} == {0, 2, 3, 7}
    counts = Counter(one.source for one in found if one.label == ANOMALOUS)
    assert max(counts.values()) - min(counts.values()) <= 1
    for one in found:
        source = torch.from_numpy(ARRAY[one.source])
        if one.kind == CLEAN:
            assert torch.equal(one.image, source)
        outside = (one.mask == 0).expand(3, -1, -1)
        assert torch.equal(one.image[outside], source[outside])


def test_light_changes_as_much_as_color_does() -> None:
    found = made(("color",))
    severities = {label: [one.severity for one in found if one.label == label] for label in (0, 1)}
    assert ks_2samp(severities[0], severities[1]).pvalue > 0.05


def test_half_of_the_discolored_images_stand_under_changed_light() -> None:
    found = [one for one in made(("color",)) if one.label == ANOMALOUS]
    lit = []
    for one in found:
        outside = (one.mask == 0).expand(3, -1, -1)
        source = torch.from_numpy(ARRAY[one.source])
        lit.append(not torch.equal(one.image[outside], source[outside]))
    assert sum(lit) == 5


def test_the_same_streams_make_the_same_bytes() -> None:
    first, again, other = (made(("color", "perlin"), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [one.source for one in first] == [one.source for one in again]
    assert not all(torch.equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_a_single_normal_image_is_enough() -> None:
    assert len(made(("color", "perlin"), normals=(1,))) == 40


def test_without_normal_images_there_is_nothing_to_spoil() -> None:
    with pytest.raises(ValueError, match="there are none"):
        made(("color",), normals=())


def test_how_many_are_made() -> None:
    assert per_kind(4, ["color"]) == 10
    assert per_kind(50, ["color"]) == 50
    assert per_kind(10_000, ["color", "perlin", "cutpaste"]) == 200


def test_kinds_come_with_commas() -> None:
    assert parse_kinds("") == ()
    assert parse_kinds(" color ,perlin") == ("color", "perlin")
    with pytest.raises(ValueError, match=r"'colour' \(did you mean color\?\); allowed: color,"):
        parse_kinds("colour")
    with pytest.raises(ValueError, match="name each kind once"):
        parse_kinds("color,color")


def test_what_could_not_be_changed_counts_as_clean() -> None:
    image = torch.zeros(2, 3, 4, 4)
    mask = torch.ones(2, 1, 4, 4)
    both = list(unpack(Synthetic(image, mask, torch.tensor([0.0, 5.0]), "color"), [4, 5]))
    assert [(one.label, one.kind) for one in both] == [
        (NORMAL, CLEAN),
        (ANOMALOUS, "synthetic-color"),
    ]
    assert [float(one.mask.sum()) for one in both] == [0.0, 16.0]


def test_a_folder_of_textures_is_read_and_used(tmp_path: Path) -> None:
    for k, shade in enumerate(((255, 0, 0), (250, 0, 0))):
        Image.new("RGB", (40, 30), shade).save(tmp_path / f"{k}.png")
    textures = read_textures(tmp_path, SIDE)
    assert textures.shape == (2, 3, SIDE, SIDE)
    assert float(textures[:, 1:].max()) == 0
    image = IMAGES.take([0]).float() / 255
    spoiled = make("perlin", image, torch.Generator().manual_seed(0), textures=textures)
    change = (spoiled.image - image)[0, 0][spoiled.mask[0, 0] > 0]
    assert (change > 0).all()  # redder
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images to take textures from"):
        read_textures(tmp_path / "empty", SIDE)
