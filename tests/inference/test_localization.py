from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import read_image, read_mask, write_image
from leanet.files import read_csv
from leanet.inference.localization import FACTS, IMAGES, TABLE, localization, to_text
from leanet.inference.localization_figures import ALL, Row
from leanet.inference.overlay import upsampled
from leanet.inference.subject import EDGES, INFORMATIVE, NOT_INFORMATIVE, RANDOM, Subject
from leanet.records import Sample

CPU = torch.device("cpu")
Key = tuple[str, str, str]


def judged(subject: Subject, samples: Sequence[Sample], out: Path, **more: int) -> dict[Key, Row]:
    rows = localization(subject, samples, out=out, device=CPU, **{"resamples": 40, **more})
    return {(row.method, row.subset, row.measure): row for row in rows}


def test_the_planted_truth_points_at_the_patch_and_the_lie_elsewhere(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows = judged(make_looker(), make_patches(), tmp_path / "out")
    assert rows["truth", ALL, "pointing"].figure.mean == 1
    assert rows["truth", ALL, "energy"].figure.mean == pytest.approx((3.5 / 4) ** 2)  # smeared
    assert rows["truth", ALL, "energy"].verdict == INFORMATIVE
    assert rows["lie", ALL, "energy"].figure.mean == 0
    assert rows["lie", ALL, "energy"].verdict == NOT_INFORMATIVE
    assert rows["truth", ALL, "energy"].chance == pytest.approx(16 / 256)
    assert rows[RANDOM, ALL, "energy"].figure.mean == pytest.approx(16 / 256, abs=0.03)


def test_normal_images_are_left_out(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows = judged(make_looker(), make_patches(num=12), tmp_path / "out")
    assert rows["truth", ALL, "energy"].figure.images == 12


def test_the_pixel_figure_is_that_of_all_pixels_pooled(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    def brightness(images: torch.Tensor, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        return {"truth": images[..., ::2, ::2].mean(dim=1, keepdim=True)}

    samples = [one for one in make_patches(missed=4) if one.mask]
    rows = judged(make_looker(maps=brightness, redrawn={}), samples, tmp_path / "out")
    scores, truths = [], []
    for one in samples:
        heat = read_image(one.path)[::2, ::2].mean(axis=2) / 255
        scores.append(upsampled(heat, (16, 16)).ravel())
        assert one.mask is not None
        truths.append(read_mask(one.mask).ravel())
    expected = roc_auc_score(np.concatenate(truths), np.concatenate(scores))
    found = rows["truth", ALL, "pixel_auroc"].figure
    assert found.mean == pytest.approx(expected, abs=2e-3)
    assert found.interval.low <= found.mean <= found.interval.high


def test_only_comparable_methods_have_pixel_figures(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows = judged(make_looker(), make_patches(), tmp_path / "out")
    pooled = {method for method, _, measure in rows if measure == "pixel_auroc"}
    assert {"truth", "truth, random weights", RANDOM, EDGES} < pooled
    assert "lie" not in pooled
    assert "lie, random weights" not in pooled


def test_kinds_sizes_and_right_and_wrong_images_are_shown_apart(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows = judged(make_looker(), make_patches(num=8, missed=3), tmp_path / "out")
    images = {s: rows["truth", s, "energy"].figure.images for m, s, _ in rows if m == "truth"}
    assert images == {ALL: 8, "kind: patch": 4, "kind: spot": 4, "right": 5, "wrong": 3}


def test_a_map_without_positive_values_is_counted_apart(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    def nothing(images: torch.Tensor, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        heat = torch.zeros(len(images), 1, 4, 4)
        heat[:, :, 0, 0] = torch.tensor([1.0 if one.kind == "spot" else 0.0 for one in samples])[
            :, None
        ]
        return {"truth": heat - 0.0}

    rows = judged(make_looker(maps=nothing, redrawn={}), make_patches(num=8), tmp_path / "out")
    energy = rows["truth", ALL, "energy"]
    assert energy.no_evidence == 4
    assert energy.figure.images == 4
    assert energy.figure.mean > 0


def test_a_right_answer_without_energy_in_the_mask_is_right_for_another_reason(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    judged(make_looker(), make_patches(num=8, missed=3), tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    assert facts["right_for_another_reason"]["lie"] == 5
    assert facts["right_for_another_reason"]["truth"] == 0
    marked = [
        row
        for row in read_csv(tmp_path / IMAGES)
        if row["method"] == "lie" and row["right_for_another_reason"] == "1"
    ]
    assert {row["right"] for row in marked} == {"1"}
    assert len(marked) == 5


def test_a_tolerance_forgives_a_near_miss(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    samples = make_patches()
    strict = judged(make_looker(), samples, tmp_path / "a")
    wide = judged(make_looker(), samples, tmp_path / "b", tolerance=30)
    assert strict["lie", ALL, "pointing"].figure.mean == 0
    assert wide["lie", ALL, "pointing"].figure.mean == 1


def test_every_figure_is_on_disk_and_in_the_text(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows = judged(make_looker(), make_patches(), tmp_path)
    table = read_csv(tmp_path / TABLE)
    assert len(table) == len(rows)
    facts = json.loads((tmp_path / FACTS).read_text())
    assert facts["images"] == 12
    assert facts["groups"] == 6
    assert "energy" in facts["informative"]["truth"]
    text = to_text(list(rows.values()))
    assert "12 images; the masks cover 6.2 % of them" in text
    assert "shows what the score reacts to, not where the defect is" in text


def test_the_result_does_not_depend_on_the_size_of_batches(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    samples = make_patches()
    first = judged(make_looker(), samples, tmp_path / "a", batch_size=3)
    assert first == judged(make_looker(), samples, tmp_path / "b", batch_size=16)


def test_images_without_masks_and_masks_of_another_size_are_refused(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    samples = make_patches()
    with pytest.raises(ValueError, match="none of these images has a mask"):
        judged(make_looker(), [one for one in samples if not one.mask], tmp_path / "out")
    assert samples[0].mask is not None
    write_image(samples[0].mask, np.full((9, 9, 3), 255, dtype=np.uint8))
    with pytest.raises(ValueError, match="is 9x9 pixels and its image 16x16"):
        judged(make_looker(), samples, tmp_path / "out")


def test_unreadable_masks_stop_it_or_are_left_out(
    make_looker: Callable[..., Subject], make_patches: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    samples = make_patches()
    assert samples[0].mask is not None
    samples[0].mask.write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError):
        judged(make_looker(), samples, tmp_path / "out")
    told = list[str]()
    rows = localization(
        make_looker(),
        samples,
        out=tmp_path / "out",
        device=CPU,
        resamples=9,
        skip_bad=True,
        tell=told.append,
    )
    assert rows[0].figure.images == 11
    assert "left out 1 unreadable image" in told[0]
