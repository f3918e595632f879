from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leanet.data.cache import UnreadableImagesError
from leanet.files import read_csv
from leanet.inference.faithfulness import (
    FACTS,
    IMAGES,
    MEASURES,
    PICTURE,
    TABLE,
    Row,
    Settings,
    faithfulness,
    stratified,
    to_text,
)
from leanet.inference.subject import INFORMATIVE, NOT_INFORMATIVE, RANDOM, Subject
from leanet.records import Sample

CPU = torch.device("cpu")
QUICK = Settings(steps=10, shares=(0.1, 0.3, 0.5), reference="mean", resamples=40, batch_size=5)


@pytest.fixture
def patches(make_patches: Callable[..., list[Sample]]) -> list[Sample]:
    """Defective ones only: of a dark image the network says that nothing is there, and taking
    pixels away cannot change its mind."""
    return [one for one in make_patches(num=12) if one.mask is not None]


def measured(
    subject: Subject, samples: Sequence[Sample], out: Path, settings: Settings = QUICK
) -> dict[tuple[str, str], Row]:
    rows = faithfulness(subject, samples, out=out, device=CPU, settings=settings)
    return {(row.method, row.measure): row for row in rows}


def test_the_planted_truth_is_informative_and_a_lie_is_not(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    rows = measured(make_looker(), patches, tmp_path / "out")
    assert rows["truth", "road"].verdict == INFORMATIVE
    assert rows["lie", "road"].verdict == NOT_INFORMATIVE
    assert rows[RANDOM, "road"].verdict == ""
    assert rows["truth", "road"].figure.mean > 0.15
    assert abs(rows[RANDOM, "road"].figure.mean) < 0.1
    assert rows["truth", "deletion"].figure.mean < rows["lie", "deletion"].figure.mean
    assert rows["truth", "insertion"].figure.mean > rows["lie", "insertion"].figure.mean
    assert rows["truth", "drop"].figure.mean < rows["lie", "drop"].figure.mean


def test_a_map_that_is_always_the_same_is_not_stable_under_a_mirror(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    rows = measured(make_looker(), patches, tmp_path / "out")
    assert rows["truth", "stability"].figure.mean < 1

    def follows(images: torch.Tensor, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        return {"truth": images.mean(dim=1, keepdim=True)}

    rows = measured(make_looker(maps=follows, redrawn={}), patches, tmp_path / "other")
    assert rows["truth", "stability"].figure.mean > 0.99


def test_every_figure_is_on_disk(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    rows = measured(make_looker(), patches, tmp_path)
    table = read_csv(tmp_path / TABLE)
    assert len(table) == len(rows)
    first = next(row for row in table if row["method"] == "truth" and row["measure"] == "deletion")
    figure = rows["truth", "deletion"].figure
    assert float(first["mean"]) == figure.mean
    assert (float(first["low"]), float(first["high"])) == tuple(figure.interval)
    assert first["better"] == "lower"
    per_image = [row for row in read_csv(tmp_path / IMAGES) if row["method"] == "truth"]
    assert np.mean([float(row["deletion"]) for row in per_image]) == pytest.approx(figure.mean)
    facts = json.loads((tmp_path / FACTS).read_text())
    assert facts["images"] == 12
    assert facts["groups"] == 6
    assert facts["removed"] == "image"
    assert len(facts["curves"]["truth"]["deletion"]) == QUICK.steps + 1
    assert len(facts["curves"]["truth"]["road_morf"]) == len(QUICK.shares)


def test_the_maps_change_as_weights_are_drawn_anew(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    measured(make_looker(), patches, tmp_path)
    parts = json.loads((tmp_path / FACTS).read_text())["randomization"]["truth"]
    assert parts["head"]["mean"] == pytest.approx(1)
    assert parts["all"]["mean"] < 0


def test_the_picture_of_the_curves_can_be_opened(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    measured(make_looker(), patches, tmp_path)
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.width > 1500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_without_random_weights_there_is_no_verdict(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    rows = measured(make_looker(redrawn={}), patches, tmp_path)
    assert {row.verdict for row in rows.values()} == {""}


def test_the_result_does_not_depend_on_the_size_of_batches(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    one = Settings(steps=4, shares=(0.3,), reference="mean", resamples=40, batch_size=1)
    all_at_once = Settings(steps=4, shares=(0.3,), reference="mean", resamples=40, batch_size=12)
    first = measured(make_looker(), patches, tmp_path / "a", one)
    second = measured(make_looker(), patches, tmp_path / "b", all_at_once)
    for key, row in first.items():
        if not key[1].startswith("road"):  # whose noise is drawn per batch
            assert row.figure.mean == pytest.approx(second[key].figure.mean, rel=1e-5)


def test_the_text_has_all_methods_and_measures(
    make_looker: Callable[..., Subject], patches: list[Sample], tmp_path: Path
) -> None:
    text = to_text(list(measured(make_looker(), patches, tmp_path).values()))
    head, *lines = text.splitlines()
    assert all(measure in head for measure in MEASURES)
    assert lines[0].startswith("truth ")
    assert "*" in lines[0]


def test_samples_are_drawn_evenly_over_kinds(make_patches: Callable[..., list[Sample]]) -> None:
    samples = make_patches(num=8)
    chosen = stratified(samples, 8, seed=0)
    assert sorted(one.kind for one in chosen) == ["good"] * 4 + ["patch"] * 2 + ["spot"] * 2
    assert chosen == stratified(samples, 8, seed=0)
    assert chosen != stratified(samples, 8, seed=1)
    assert stratified(samples, 99, seed=0) == samples
    with pytest.raises(ValueError, match="there must be samples"):
        stratified([], 5, seed=0)


def test_earlier_results_and_unreadable_images_are_refused(
    make_looker: Callable[..., Subject],
    patches: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(make_looker(), patches[:2], tmp_path / "out")
    with pytest.raises(ValueError, match="holds earlier results"):
        measured(make_looker(), patches[:2], tmp_path / "out")
    patches[0].path.write_bytes(b"no image")
    with monkeypatch.context() as nothing_is_measured:
        nothing_is_measured.setattr("leanet.inference.faithfulness._measure", None)
        with pytest.raises(UnreadableImagesError):
            measured(make_looker(), patches[:2], tmp_path / "new")
    told = list[str]()
    faithfulness(
        make_looker(),
        patches[:3],
        out=tmp_path / "new",
        device=CPU,
        settings=QUICK,
        skip_bad=True,
        tell=told.append,
    )
    assert "left out 1 unreadable image" in told[0]
