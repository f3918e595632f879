from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leanet.methods.cavga_monitor import CavgaFailedError, require_finite, warnings_of

HEALTHY: dict[str, Any] = {
    "train_kl": 0.2,
    "train_reconstruction": 0.55,
    "val_reconstruction": 0.56,
    "train_adversarial": 1.3,
    "d_real": 0.55,
    "d_fake": 0.45,
    "negative_share": 0.3,
}
UNLABELED = HEALTHY | {"attention": 0.8}
WEAK = HEALTHY | {
    "attention_normal": 0.9,
    "attention_anomalous": 0.2,
    "gate_open": 0.8,
    "accuracy": 0.97,
}


def training(entries: dict[str, Any], epochs: int = 8) -> list[dict[str, Any]]:
    """The first epoch is one of a start; then all are alike."""
    first = entries | {"train_reconstruction": 0.65}
    return [{"epoch": epoch, **(entries if epoch else first)} for epoch in range(epochs)]


def test_nothing_is_said_about_a_healthy_training() -> None:
    assert warnings_of(training(UNLABELED), weak=False) == []
    assert warnings_of(training(WEAK), weak=True) == []


def test_a_discriminator_at_balance_is_healthy() -> None:
    balance = {"d_real": 0.501, "d_fake": 0.5, "train_adversarial": 2 * math.log(2)}
    assert warnings_of(training(UNLABELED | balance), weak=False) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"d_real": 0.99, "d_fake": 0.01},
            ("discriminator has won", "0.990", "0.010", "--lr_disc"),
        ),
        ({"train_adversarial": 0.04}, ("discriminator has won", "loss 0.040")),
        ({"train_kl": 5e-4}, ("posterior collapse", "5.0e-04", "--kl_weight")),
        ({"train_reconstruction": 0.64}, ("hardly got better", "0.6500", "0.6400", "--epochs")),
        ({"val_reconstruction": 0.62}, ("worse than in training", "0.6200", "0.5500", "--w_adv")),
        ({"attention": 0.995}, ("saturated", "0.9950", "--w_ae")),
        ({"attention": 0.504}, ("not spread", "0.504", "--kl_weight")),
        ({"negative_share": 0.0}, ("never exceed 0.5", "share 0.000", "--w_ae")),
    ],
)
def test_an_ill_training_is_named_with_its_figure_and_a_remedy(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    (told,) = warnings_of(training(UNLABELED | changes), weak=False)
    assert [word for word in words if word not in told] == []
    assert "\n" not in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate_open": 0.0}, ("saw hardly an image", "0.000", "--w_c")),
        ({"accuracy": 0.88}, ("always saying normal", "0.880", "0.875")),
        ({"attention_anomalous": 0.895}, ("two attentions are equal", "0.900", "0.895")),
        (
            {"attention_normal": 0.996, "attention_anomalous": 0.004},
            ("both attentions are saturated", "0.9960", "0.0040"),
        ),
    ],
)
def test_an_ill_training_with_weak_labels_is_named(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    (told,) = warnings_of(training(WEAK | changes), weak=True)
    assert [word for word in words if word not in told] == []


def test_only_the_end_of_a_training_counts() -> None:
    late = training(UNLABELED, 4)
    early = training(UNLABELED | {"d_real": 0.999, "d_fake": 0.001}, 4)
    assert warnings_of([*early, *late], weak=False) == []
    assert len(warnings_of([*late, *early], weak=False)) == 1


def test_without_held_out_images_nothing_is_said_about_them() -> None:
    records = [{k: v for k, v in r.items() if "val" not in k} for r in training(UNLABELED)]
    assert warnings_of(records, weak=False) == []


def test_a_training_of_three_epochs_is_not_judged() -> None:
    assert warnings_of(training(UNLABELED | {"train_kl": 0.0}, 3), weak=False) == []


def test_channels_without_a_negative_weight_matter_only_where_the_map_needs_them() -> None:
    without = training(UNLABELED | {"negative_share": 0.0})
    assert len(warnings_of(without, weak=False, kind="R")) == 1
    assert warnings_of(without, weak=False, kind="D") == []  # its features are negative too
    assert warnings_of(without, weak=False, kind="R", norm="relu_max") == []
    assert warnings_of(training(WEAK | {"negative_share": 0.0}), weak=True) == []


def test_an_attention_at_half_is_told_only_where_half_is_the_start() -> None:
    half = training(UNLABELED | {"attention": 0.5})
    assert warnings_of(half, weak=False, norm="relu_max") == []


def test_accuracy_is_judged_against_the_normal_share_of_the_batches() -> None:
    records = training(WEAK | {"accuracy": 0.8})
    assert warnings_of(records, weak=True, majority=0.75) == []
    assert len(warnings_of(records, weak=True, majority=0.79)) == 1
    perfect = training(WEAK | {"accuracy": 1.0})
    assert warnings_of(perfect, weak=True, majority=0.99) == []


def epoch_values(step: int, **lost: float) -> dict[str, Tensor]:
    values = {name: torch.ones(3) for name in ("reconstruction", "kl", "loss")}
    for name, value in lost.items():
        values[name][step] = value
    return values


def test_a_lost_term_is_named_with_its_epoch_batch_and_files() -> None:
    files = [Path(f"{k}.png") for k in range(6)]
    values = epoch_values(1, kl=math.nan, loss=math.nan)
    with pytest.raises(CavgaFailedError) as caught:
        require_finite(values, [[0, 1], [4, 3], [2, 5]], files, epoch=4)
    assert str(caught.value) == (
        "the kl term became nan in epoch 5, batch 2 of 3 (4.png, 3.png); try a lower --lr and "
        "--lr_disc, or --precision 32-true"
    )


def test_the_first_lost_step_is_named_even_of_a_later_term() -> None:
    values = epoch_values(2, kl=math.nan) | {"reconstruction": torch.tensor([1.0, math.inf, 1.0])}
    with pytest.raises(CavgaFailedError, match=r"reconstruction term became inf .* batch 2 of 3"):
        require_finite(values, [[0], [1], [2]], [], epoch=0)


def test_finite_terms_pass() -> None:
    require_finite(epoch_values(0), [[0], [1], [2]], [], epoch=0)
