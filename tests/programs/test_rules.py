"""What the flags mean together: settled, refused or told."""

from __future__ import annotations

from typing import Any

import pytest

from leanet.config import UsageError
from leanet.programs.flags import Phase1, Phase2
from leanet.programs.rules import Settled1, Settled2, settle_phase1, settle_phase2


def one(**flags: Any) -> Settled1:
    given = {"save_path": "out", "dataset": "in", "task": "colorization", "model": "Unet"}
    return settle_phase1(Phase1(**{**given, **flags}))


def two(**flags: Any) -> Settled2:
    return settle_phase2(Phase2(**{"save_path": "out", "dataset": "in", **flags}))


# --- phase 1 ------------------------------------------------------------------------------------


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(UsageError, match="missing: --save_path, --dataset, --task, --model;"):
        settle_phase1(Phase1())


@pytest.mark.parametrize(
    ("loss", "taken", "told"),
    [
        (None, "mse", ("notice: --loss is not given: MSE",)),
        ("MSE", "mse", ("notice: MSE is the mean squared error; the original's MSE was L1",)),
        ("L1", "l1", ()),
        ("BCE", "bce", ()),
    ],
)
def test_a_loss_is_what_its_name_says(loss: str | None, taken: str, told: tuple[str, ...]) -> None:
    settled = one(loss=loss)
    assert settled.loss == taken
    assert len(settled.notices) == len(told)
    assert all(line.startswith(start) for line, start in zip(settled.notices, told, strict=True))


def test_the_distance_follows_the_task_unless_named() -> None:
    assert one().metric == "ciede2000"
    assert one(task="inpaint").metric == "l1"
    assert one(task="inpaint", map_metric="ciede2000").metric == "ciede2000"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"task": "rotation", "model": "AE"}, "only where the object has an upright pose"),
        ({"task": "denoise", "pca_sigma": 0.2}, "do nothing for denoise"),
    ],
)
def test_a_doubtful_choice_is_told(flags: dict[str, Any], told: str) -> None:
    (line,) = one(loss="L1", **flags).notices
    assert line.startswith("notice: ")
    assert told in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"img_size": 100}, "--img_size 100: give a multiple of 32, for example 96 or 128"),
        ({"img_size": 0}, "--img_size 0: give a multiple of 32, for example 32 or 64"),
        ({"batch_size": 1}, "at least 2 images per batch"),
        ({"epochs": 0}, "1 epoch"),
        ({"lr": 0.0}, "positive step size"),
        ({"lr": float("nan")}, "positive step size"),
        ({"n_splits": 1}, "at least 2 folds"),
        ({"map_quantile": 0.0}, "--map_quantile 0"),
        ({"map_headroom": -1.0}, "positive headroom"),
        ({"map_mode": "out_of_fold", "inner_splits": 1}, "at least 2 parts"),
        ({"num_workers": 0}, "at least 1"),
    ],
)
def test_an_impossible_value_of_phase_1_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        one(**flags)


# --- phase 2 ------------------------------------------------------------------------------------


def test_the_bare_command_settles_what_the_original_left_open() -> None:
    settled = two()
    assert (settled.adn, settled.aan, settled.adn_input) == ("resnet18", "mobilenet", "image")
    assert (settled.points, settled.heads, settled.lr) == ((0,), ("ADN", "AAN"), 1e-4)
    assert (settled.strength, settled.learn_strength) == (1.0, False)
    assert settled.val_fraction == 0.2
    assert [line.split(":")[1] for line in settled.notices] == [
        " --lr is not given", " --attention_points is not given",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "method", ["img_only", "attMap_only", "4_channel", "attMap_to_img", "multiply"]
)
def test_one_input_leaves_one_head(method: str) -> None:
    settled = two(input_method=method, lr=1e-4)
    assert (settled.heads, settled.aan, settled.points) == (("ADN",), "none", ())
    assert settled.notices == (
        f"notice: --input_method {method} leaves one head: --output_method ADN_only",
    )
    assert two(input_method=method, lr=1e-4, output_method="ADN_only").notices == ()
    with pytest.raises(UsageError, match="the attention network has no head"):
        two(input_method=method, output_method="AAN_and_ADN")


def test_direct_attention_has_no_head() -> None:
    settled = two(model_AAN="Direct", attention_points=(2,), lr=1e-4)
    assert (settled.heads, settled.aan) == (("ADN",), "direct")
    assert settled.notices == (
        "notice: --model_AAN Direct leaves one head: --output_method ADN_only",
    )
    with pytest.raises(UsageError, match="with --model_AAN Direct"):
        two(model_AAN="Direct", output_method="AAN_and_ADN")


@pytest.mark.parametrize("points", [(), ("None",)])
def test_no_point_means_no_attention(points: tuple[str, ...]) -> None:
    assert two(attention_points=points).points == ()


def test_an_attention_network_with_nothing_to_do_is_told() -> None:
    settled = two(attention_points=(), output_method="ADN_only", lr=1e-4)
    assert "idle" in settled.notices[0]


def test_points_given_twice_are_merged_and_told() -> None:
    settled = two(attention_points=(3, 0, 3), lr=1e-4)
    assert settled.points == (0, 3)
    assert "names a point twice; taken: 0, 3" in settled.notices[0]


def test_points_without_attention_are_told_and_auto_is_refused() -> None:
    settled = two(input_method="img_only", attention_points=(2,), output_method="ADN_only", lr=1.0)
    assert "has no attention points" in settled.notices[0]
    with pytest.raises(UsageError, match="nothing to choose"):
        two(input_method="img_only", attention_points=("auto",))
    assert two(attention_points=("auto",)).points == "auto"


@pytest.mark.parametrize(("adn", "lr"), [("VGG16", 1e-5), ("VGG19", 1e-5), ("CNN", 1e-4)])
def test_the_step_size_follows_the_classifier_and_is_told(adn: str, lr: float) -> None:
    settled = two(model_ADN=adn, attention_points=(0,))
    assert settled.lr == lr
    assert settled.notices == (f"notice: --lr is not given: {lr:g} for {adn}",)


def test_a_high_step_size_for_a_vgg_is_warned_of() -> None:
    settled = two(model_ADN="VGG16", lr=1e-4, attention_points=(0,))
    assert settled.lr == 1e-4
    assert settled.notices[0].startswith("warning: --lr 0.0001 is high for VGG16")
    assert two(model_ADN="VGG16", lr=1e-5, attention_points=(0,)).notices == ()
    assert two(model_ADN="ResNet18", lr=1e-4, attention_points=(0,)).notices == ()


@pytest.mark.parametrize(
    ("early_stop", "given", "share"),
    [("val", None, 0.2), ("train", None, 0.0), ("none", None, 0.0), ("none", 0.1, 0.1)],
)
def test_images_are_held_out_only_to_stop_on_unless_asked_for(
    early_stop: str, given: float | None, share: float
) -> None:
    assert two(early_stop=early_stop, val_fraction=given).val_fraction == share


def test_a_choice_of_the_point_needs_held_out_images() -> None:
    assert two(attention_points=("auto",), early_stop="none").val_fraction == 0.2
    with pytest.raises(UsageError, match="or to choose by"):
        two(attention_points=("auto",), early_stop="none", val_fraction=0.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"val_fraction": 0.0}, "leaves nothing to stop on"),
        ({"val_fraction": 1.0}, "at least 0, below 1"),
        ({"keep_positive": 0.0}, "above 0, at most 1"),
        ({"keep_positive": 1.5}, "above 0, at most 1"),
        ({"aan_weight": -1.0}, "not negative"),
        ({"w_lr_mult": 0.0}, "step size of w is positive"),
        ({"weights": "a", "pretrained": True}, "not both"),
        ({"model_ADN": "timm:resnet26", "additional_module": "SE"}, "is not for timm:resnet26"),
        ({"img_size": 48}, "a multiple of 32"),
        ({"n_splits": 0}, "at least 1"),
        ({"save_path": None}, "missing: --save_path"),
    ],
)
def test_an_impossible_value_of_phase_2_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        two(**flags)
