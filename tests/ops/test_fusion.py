from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from leanet.ops.fusion import Fusion, fit_fusion, fuse
from leanet.ops.metrics import auroc

Parts = dict[str, np.ndarray]


def draw(
    num_normal: int, num_anomalous: int, gains: dict[str, float], seed: int = 0
) -> tuple[Parts, np.ndarray]:
    """Parts whose anomalous scores lie `gain` standard deviations above the normal ones."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [num_normal, num_anomalous])
    return {name: rng.normal(gain * label) for name, gain in gains.items()}, label


def fused(fusion: Fusion, parts: Parts) -> np.ndarray:
    return fuse(fusion, {name: torch.from_numpy(part) for name, part in parts.items()}).numpy()


def standardized(fusion: Fusion, parts: Parts) -> np.ndarray:
    columns = np.stack([parts[name] for name in fusion.names], axis=1)
    return np.arcsinh((columns - np.array(fusion.location)) / np.array(fusion.scale))


def test_without_anomalies_the_score_is_the_mean_of_standardized_parts() -> None:
    parts, label = draw(101, 0, {"adn": 0, "aan": 0, "map": 0})
    fusion = fit_fusion(parts, label)
    assert fusion.weights == pytest.approx((1 / 3,) * 3)
    assert fusion.bias == 0.0
    np.testing.assert_allclose(fused(fusion, parts), standardized(fusion, parts).mean(1))


def test_location_and_scale_come_from_the_normals_alone() -> None:
    parts, label = draw(2001, 300, {"map": 30.0})
    parts["map"] = 5 + 2 * parts["map"]
    fusion = fit_fusion(parts, label)
    assert fusion.location[0] == np.median(parts["map"][label == 0])
    assert fusion.scale[0] == pytest.approx(2.0, rel=0.05)


def test_a_useless_part_loses_its_weight_as_anomalies_come_in() -> None:
    gains = {"useless": 0.0, "map": 2.5}
    share = []
    for num_anomalous in (0, 1, 10, 200):
        weights = fit_fusion(*draw(200, num_anomalous, gains)).weights
        share.append(weights[0] / sum(weights))
    assert share[0] == 0.5
    assert sorted(share, reverse=True) == share
    assert share[-1] < 0.05


def test_a_part_that_points_the_wrong_way_gets_no_negative_weight() -> None:
    fusion = fit_fusion(*draw(200, 200, {"wrong": -2.0, "map": 2.0}))
    assert fusion.weights[0] == 0.0
    assert fusion.weights[1] > 0.5


def test_the_fit_is_the_optimum_another_solver_finds() -> None:
    parts, label = draw(80, 12, {"adn": 1.0, "aan": 2.0, "map": 1.5})
    fusion = fit_fusion(parts, label, strength=2.0)
    z, sign = standardized(fusion, parts), 2.0 * label - 1

    def objective(point: np.ndarray) -> float:
        margin = sign * (z @ point[:3] + point[3])
        return float(np.log1p(np.exp(-margin)).sum() + np.sum((point[:3] - 1 / 3) ** 2))

    start = np.zeros(4)
    other = minimize(
        objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}
    )
    np.testing.assert_allclose([*fusion.weights, fusion.bias], other.x, atol=1e-5)


def test_with_many_anomalies_it_is_a_plain_logistic_regression() -> None:
    parts, label = draw(3000, 3000, {"adn": 1.0, "map": 0.5})
    fusion = fit_fusion(parts, label)
    model = LogisticRegression(C=1e9).fit(standardized(fusion, parts), label)
    assert fusion.weights == pytest.approx(model.coef_[0], rel=0.01)


def test_the_fused_score_never_falls_when_a_part_rises() -> None:
    parts, label = draw(60, 6, {"adn": 1.0, "aan": -0.5, "map": 2.0})
    fusion = fit_fusion(parts, label)
    ladder = np.concatenate([-np.logspace(6, -6, 200), np.logspace(-6, 6, 200)])
    for name in parts:
        others = {other: np.zeros_like(ladder) for other in parts}
        for dtype in (np.float32, np.float64):
            score = fused(fusion, {k: v.astype(dtype) for k, v in {**others, name: ladder}.items()})
            assert np.all(np.diff(score) >= 0), name


def test_units_and_zero_points_of_the_parts_do_not_matter() -> None:
    gains = {"adn": 1.0, "aan": 2.0, "map": 1.5}
    for num_anomalous in (0, 3, 40):
        parts, label = draw(90, num_anomalous, gains)
        changed = {
            "adn": 1e-3 * parts["adn"],
            "aan": 40 + parts["aan"],
            "map": 7 * parts["map"] - 9,
        }
        plain, other = fit_fusion(parts, label), fit_fusion(changed, label)
        np.testing.assert_allclose(fused(plain, parts), fused(other, changed), atol=1e-6)


def test_a_runaway_part_does_not_outvote_the_others() -> None:
    parts, label = draw(100, 0, {"adn": 0, "aan": 0, "map": 0})
    fusion = fit_fusion(parts, label)
    calm = {"adn": torch.tensor([1e4]), "aan": torch.zeros(1), "map": torch.zeros(1)}
    agreed = {name: torch.tensor([30.0]) for name in parts}
    assert fuse(fusion, agreed) > fuse(fusion, calm)


@pytest.mark.parametrize("num_anomalous", [1, 5, 20])
def test_few_labels_give_a_score_near_the_best_of_parts_and_mean(num_anomalous: int) -> None:
    settings = [
        {"adn": 1.0, "aan": 2.5, "map": 3.0},
        {"adn": 0.0, "aan": 2.5, "map": 2.5},
        {"adn": 1.5, "aan": 1.5, "map": 1.5},
    ]
    for gains in settings:
        shortfall = []
        for seed in range(10):
            fusion = fit_fusion(*draw(100, num_anomalous, gains, seed))
            parts, label = draw(300, 300, gains, seed + 1000)
            z = standardized(fusion, parts)
            rivals = [auroc(label, part) for part in (*parts.values(), z.mean(1))]
            shortfall.append(max(rivals) - auroc(label, fused(fusion, parts)))
        assert np.mean(shortfall) < 0.01, gains


def test_parts_without_spread_are_harmless() -> None:
    label = np.repeat([0, 1], [20, 5])
    parts = {
        "constant": np.full(25, 0.3),
        "silent on normals": np.repeat([0.0, 2.0], [20, 5]),
        "nearly silent": np.where(np.arange(25) == 3, 1.0, 0.0),
    }
    fusion = fit_fusion(parts, label)
    score = fused(fusion, parts)
    assert np.isfinite(score).all()
    assert auroc(label, score) == 1.0
    np.testing.assert_array_equal(standardized(fusion, parts)[:, 0], 0.0)
    single = fit_fusion({"only": [4.0]}, [0])
    assert (single.location, single.scale) == ((4.0,), (1.0,))


def test_a_fusion_survives_json() -> None:
    fusion = fit_fusion(*draw(30, 4, {"adn": 1.0, "map": 2.0}))
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict()))) == fusion


def test_single_and_batched_images_score_alike_and_extra_parts_do_not_matter() -> None:
    fusion = fit_fusion(*draw(30, 4, {"adn": 1.0, "map": 2.0}))
    batch = {name: torch.linspace(-3, 3, 8) for name in ("map", "extra", "adn")}
    whole = fuse(fusion, batch)
    assert whole.shape == (8,)
    for i in range(8):
        one = fuse(fusion, {name: part[i : i + 1] for name, part in batch.items()})
        torch.testing.assert_close(one, whole[i : i + 1])


def test_what_cannot_be_fused_is_refused_with_the_names() -> None:
    fusion = fit_fusion(*draw(30, 4, {"adn": 1.0, "map": 2.0}))
    with pytest.raises(ValueError, match="'map'"):
        fuse(fusion, {"adn": torch.zeros(2)})
    with pytest.raises(ValueError, match="did you mean weights"):
        Fusion.from_dict({**fusion.to_dict(), "weight": [1.0]})
    values = fusion.to_dict()
    del values["scale"]
    with pytest.raises(ValueError, match="'scale' is missing"):
        Fusion.from_dict(values)
    with pytest.raises(ValueError, match="per name"):
        Fusion.from_dict({**fusion.to_dict(), "names": ["adn"]})
    with pytest.raises(ValueError, match="weights"):
        Fusion.from_dict({**fusion.to_dict(), "weights": [-1.0, 1.0]})


@pytest.mark.parametrize(
    ("parts", "label", "message"),
    [
        ({}, [0, 1], "at least one part"),
        ({"a": [1.0]}, [0, 1], "one shape"),
        ({"a": [1.0, 2.0]}, [1, 1], "normal"),
        ({"a": [1.0, 2.0]}, [0, 2], "labels"),
        ({"a": [1.0, math.nan]}, [0, 1], "'a'"),
    ],
)
def test_held_out_scores_that_make_no_sense_are_refused(
    parts: Parts, label: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_fusion(parts, label)


def test_a_strength_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="strength"):
        fit_fusion({"a": [1.0, 2.0]}, [0, 1], strength=0.0)
