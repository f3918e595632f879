"""The options: what they refuse, and what the presets are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from leanet.methods.adfa_config import CFA_PRESETS, PRESETS, CfaConfig, Config

HARD: dict[str, Any] = {"topk": "hard"}
CFA: dict[str, Any] = {**HARD, "loss": "cfa"}


def test_the_presets_are_those_of_the_table() -> None:
    made = {name: Config(**values) for name, values in PRESETS.items()}
    columns = {
        "default": (4, True, True, "soft", "image", "adfa", "sqrt", 4.0, 200, 3000, 10, True),
        "official": (4, True, True, "soft", "batch", "adfa", "sqrt", 4.0, 200, 0, 10, True),
        "tnvision": (1, True, False, "hard", "image", "cfa", "softmin", 0, 3000, 3000, 2, False),
        "cfa": (1, False, False, "hard", "image", "cfa", "softmin", 4.0, 30, 0, 4, True),
    }
    rows = "gamma_d eca kl_weight topk cmax loss score blur_sigma epochs max_steps batch_size"
    for name, column in columns.items():
        given = tuple(getattr(made[name], row) for row in [*rows.split(), "amsgrad"])
        assert given == column, name
    assert made["paper"] == made["official"]
    assert [name for name, one in made.items() if one.crop == "none"] == ["tnvision"]
    assert (made["tnvision"].image_score, made["tnvision"].top_pixels) == ("top_mean", 100)
    assert (made["tnvision"].weight_decay, made["cfa"].weight_decay) == (1e-4, 5e-4)
    assert made["tnvision"].lr_schedule == "warmup_cosine"
    assert [made[name].radius_learnable for name in ("tnvision", "cfa")] == [False, True]
    assert (made["official"].val_fraction, made["official"].bank_mean) == (0, "batches")
    assert {name for name, one in made.items() if one.drop_last} == {"cfa"}


def test_cfa_is_adfa_with_other_defaults() -> None:
    assert dataclasses.asdict(CfaConfig()) == dataclasses.asdict(Config(**PRESETS["cfa"]))
    assert CfaConfig(**CFA_PRESETS["resize"]) == CfaConfig(crop="none")
    tnvision = Config(**PRESETS["tnvision"], eca=False)
    assert dataclasses.asdict(CfaConfig(**CFA_PRESETS["tnvision"])) == dataclasses.asdict(tnvision)


@pytest.mark.parametrize("options", [{"loss": "cfa"}, {"score": "softmin"}])
def test_single_neighbors_need_hard_top_k(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give --topk hard, or --loss adfa --score sqrt"):
        Config(**options)
    Config(**HARD, **options)


def test_a_compressed_bank_has_no_kl_weight() -> None:
    with pytest.raises(ValueError, match=r"gamma_c 2: .*give --kl_weight false or --gamma_c 1"):
        Config(gamma_c=2)
    Config(gamma_c=2, kl_weight=False)


@pytest.mark.parametrize(
    ("choice", "options", "idle"),
    [
        ("eca false", {"eca": False}, {"eca_kernel": 5}),
        ("eca false", {"eca": False}, {"eca_factor": 0.2}),
        ("eca false", {"eca": False}, {"eca_second": "avg"}),
        ("topk hard", HARD, {"eps": 0.2}),
        ("topk hard", HARD, {"cmax": "batch"}),
        ("topk hard", HARD, {"topk_scale": "row"}),
        ("topk_scale row", {"topk_scale": "row"}, {"cmax": "batch"}),
        ("loss adfa", HARD, {"nu": 0.1}),
        ("loss adfa", HARD, {"alpha": 0.2}),
        ("loss adfa", HARD, {"radius": 0.1}),
        ("loss adfa", HARD, {"radius_learnable": True}),
        ("loss adfa", HARD, {"hard_negatives": 1}),
        ("image_score max", {}, {"top_pixels": 10}),
    ],
)
def test_an_option_without_effect_is_refused(
    choice: str, options: dict[str, Any], idle: dict[str, Any]
) -> None:
    (name,) = idle
    with pytest.raises(ValueError, match=f"^{name}: {choice} has no use for it"):
        Config(**options, **idle)


@pytest.mark.parametrize(
    "options",
    [
        {"gamma_d": 0},
        {"gamma_c": 0},
        {"eca_kernel": 8},
        {"k": 0},
        {"eps": 0.0},
        {"block": 0},
        {**CFA, "nu": 0.0},
        {**CFA, "alpha": -0.1},
        {**CFA, "radius": -1.0},
        {**CFA, "hard_negatives": -1},
        {"epochs": 0},
        {"max_steps": -1},
        {"batch_size": 1},
        {"lr": 0.0},
        {"weight_decay": -1.0},
        {"blur_sigma": -1.0},
        {"image_score": "top_mean", "top_pixels": 0},
        {"val_fraction": 1.0},
    ],
)
def test_a_number_outside_its_range_is_refused(options: dict[str, Any]) -> None:
    name = list(options)[-1]
    with pytest.raises(ValueError, match=f"{name} .*: give"):
        Config(**options)


def test_the_neighbors_of_training_include_those_pushed_away() -> None:
    assert Config(**CFA, k=2, hard_negatives=4).neighbors == 6
    assert Config(**HARD, k=2).neighbors == 2
