from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from leanet.inference.localization_figures import (
    ALL,
    Collected,
    Row,
    Seen,
    csv_row,
    facts,
    figure_rows,
    image_rows,
)
from leanet.ops.pixels import PixelCounts
from leanet.records import ANOMALOUS, Sample

EDGES = np.linspace(0.005, 0.995, 100)  # between the values, which have two digits


def heats(num: int = 12) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Maps that are higher in their masks, with two digits."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(num):
        mask = np.zeros((8, 8), dtype=bool)
        mask[: 2 + k % 3, :3] = True
        heat = np.round(0.7 * rng.random((8, 8)) + 0.25 * mask, 2)
        found.append((heat, mask))
    return found


def collected(energies: list[float] | None = None, per_group: int = 2) -> Collected:
    found = Collected(edges={"cam": EDGES})
    for k, (heat, mask) in enumerate(heats()):
        counts = PixelCounts(EDGES)
        counts.add(heat, mask)
        found.counts["cam"].append(counts)
        energy = (energies or [0.5] * 12)[k]
        found.seen["cam"].append(Seen(energy=energy, pointing=float(k % 2)))
        path = Path("tiles") / f"{k}.png"
        group = f"tile{k // per_group}"
        found.samples.append(Sample(path=path, label=ANOMALOUS, kind="crack", group=group))
        found.areas.append(float(mask.mean()))
        found.right.append(k < 9)
    return found


def rows(found: Collected) -> dict[tuple[str, str], Row]:
    return {(row.subset, row.measure): row for row in figure_rows(found, seed=0, resamples=200)}


def test_pixel_figures_are_those_of_all_pixels_pooled() -> None:
    score = np.concatenate([heat.ravel() for heat, _ in heats()])
    truth = np.concatenate([mask.ravel() for _, mask in heats()])
    found = rows(collected())
    exact = roc_auc_score(truth, score)
    assert found[ALL, "pixel_auroc"].figure.mean == pytest.approx(exact, abs=1e-6)
    exact = average_precision_score(truth, score)
    assert found[ALL, "pixel_ap"].figure.mean == pytest.approx(exact, abs=1e-6)


def test_the_interval_of_a_pixel_figure_holds_it() -> None:
    figure = rows(collected())[ALL, "pixel_auroc"].figure
    assert figure.interval.low < figure.mean < figure.interval.high


def test_images_of_one_group_are_drawn_together() -> None:
    energies = [0.1] * 6 + [0.9] * 6
    apart = rows(collected(energies, per_group=1))[ALL, "energy"].figure.interval
    together = rows(collected(energies, per_group=2))[ALL, "energy"].figure.interval
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_with_too_few_groups_there_is_no_interval_and_nothing_is_informative() -> None:
    found = rows(collected(per_group=3))  # four groups
    for measure in ("energy", "pixel_auroc"):
        assert found[ALL, measure].figure.mean > 0
        assert np.isnan(found[ALL, measure].figure.interval.low)
        assert csv_row(found[ALL, measure])["low"] is None


def test_energy_over_chance_is_energy_less_the_area() -> None:
    found = collected()
    expected = np.mean([0.5 - area for area in found.areas])
    figure = rows(found)[ALL, "energy_over_chance"].figure
    assert figure.mean == pytest.approx(expected)
    plain = rows(collected())[ALL, "energy"]
    assert figure.mean == pytest.approx(plain.figure.mean - plain.chance)


def test_subsets_that_hold_all_images_are_left_out() -> None:
    subsets = {subset for subset, _ in rows(collected())}
    assert subsets == {ALL, "right", "wrong"}


def test_a_row_on_disk_has_its_interval_and_nothing_where_it_is_undefined() -> None:
    nothing = rows(collected([float("nan")] * 12))[ALL, "energy"]
    cells = csv_row(nothing)
    assert cells["mean"] is None
    assert cells["low"] is None
    assert cells["no_evidence"] == 12
    assert cells["images"] == 0


def test_right_for_another_reason_is_a_right_answer_with_less_energy_than_area() -> None:
    found = collected([0.01] * 4 + [float("nan")] + [0.9] * 7)
    marked = [row["right_for_another_reason"] for row in image_rows(found)]
    assert marked == [1] * 5 + [0] * 7
    assert facts(found, [], tolerance=0, seed=0)["right_for_another_reason"] == {"cam": 5}
    assert facts(found, [], tolerance=0, seed=0)["groups"] == 6
