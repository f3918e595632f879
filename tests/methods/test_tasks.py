"""What the six tasks show a network, want of it, and make of its answer."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from leanet.methods.tasks import (
    Question,
    Task,
    answer,
    decode_colors,
    default_metric,
    encode_colors,
    error_map,
    in_rgb,
    in_task_space,
    network_input,
    num_channels,
    spoil,
    target,
    views,
)
from leanet.ops.color import rgb_to_lab
from leanet.ops.corruption import coarsen

TASKS: tuple[Task, ...] = get_args(Task)
DRAWING: tuple[Task, ...] = ("denoise", "inpaint")
SIDE = 32


def question(task: Task, **changes: Any) -> Question:
    return Question(**({"task": task, "metric": default_metric(task)} | changes))


def pictures(count: int = 3) -> Tensor:
    raw = np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    return torch.from_numpy(raw).float() / 255


def seen(asked: Question, image: Tensor) -> list[Tensor]:
    return [view.seen for view in views(asked, in_task_space(asked.task, image))]


def test_decoding_is_the_inverse_of_encoding() -> None:
    lab = rgb_to_lab(pictures())
    encoded = encode_colors(lab)
    assert encoded.shape == (3, 2, SIDE, SIDE)
    assert 0 < encoded.min() < encoded.max() < 1
    torch.testing.assert_close(decode_colors(encoded), lab[:, 1:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_input_and_target_have_the_channels_of_the_task(task: Task) -> None:
    image = in_task_space(task, pictures())
    given, wanted = network_input(task, image), target(task, image)
    assert (given.shape[1], wanted.shape[1]) == num_channels(task)
    assert 0 <= given.min() < given.max() <= 1
    assert 0 <= wanted.min() < wanted.max() <= 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", ["ciede2000", "l1", "l2"])
def test_the_right_answer_is_no_error(task: Task, metric: Any) -> None:
    image = in_task_space(task, pictures())
    right = target(task, image)
    torch.testing.assert_close(answer(task, image, right), image, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(in_rgb(task, image), pictures(), rtol=1e-4, atol=1e-4)
    errors = error_map(question(task, metric=metric), image, right)
    assert errors.shape == (3, 1, SIDE, SIDE)
    assert errors.abs().max() < 1e-4


def test_colorization_keeps_the_lightness_of_the_original() -> None:
    lab = rgb_to_lab(pictures())
    painted = answer("colorization", lab, torch.rand(3, 2, SIDE, SIDE))
    assert torch.equal(painted[:, 0], lab[:, 0])
    assert not torch.equal(painted[:, 1:], lab[:, 1:])


def test_color_differences_agree_with_scikit_image_and_the_others_with_numpy() -> None:
    image, output = pictures(), pictures().flip(0)
    first, second = (planes.permute(0, 2, 3, 1).double().numpy() for planes in (image, output))
    expected = {
        "ciede2000": deltaE_ciede2000(rgb2lab(first), rgb2lab(second)),
        "l1": np.abs(first - second).mean(axis=-1),
        "l2": np.sqrt(((first - second) ** 2).mean(axis=-1)),
    }
    for metric, wanted in expected.items():
        got = error_map(question("denoise", metric=metric), image, output)[:, 0].numpy()
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-3)


def test_the_table_gives_the_distances() -> None:
    assert {task: default_metric(task) for task in TASKS} == {
        "colorization": "ciede2000",
        "reconstruction": "l1",
        "denoise": "l1",
        "self-resolution": "l1",
        "rotation": "l1",
        "inpaint": "l1",
    }


@pytest.mark.parametrize("task", TASKS)
def test_training_spoils_what_maps_are_made_of_too(task: Task) -> None:
    image = pictures()
    torch.manual_seed(0)
    spoiled = spoil(task, image)
    assert torch.equal(spoiled, image) == (task in ("colorization", "reconstruction"))
    torch.manual_seed(0)
    assert torch.equal(spoil(task, image), spoiled)
    fixed = task in ("colorization", "reconstruction", "self-resolution")
    assert torch.equal(spoil(task, image), spoiled) == fixed


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("masks", ["random", "complementary"])
def test_the_weights_of_all_views_add_up_to_one(task: Task, masks: Any) -> None:
    asked = question(task, inpaint_masks=masks, draws=3)
    weights = [view.weight for view in views(asked, in_task_space(task, pictures()))]
    total = sum((torch.as_tensor(w).expand(1, 1, SIDE, SIDE) for w in weights), torch.zeros(()))
    torch.testing.assert_close(total, torch.ones(1, 1, SIDE, SIDE))
    several = {"denoise": 3, "rotation": 4, "inpaint": 3 if masks == "random" else 4}
    assert len(weights) == several.get(task, 1)


def test_rotation_looks_from_all_sides_and_self_resolution_once() -> None:
    image = pictures()
    turned = seen(question("rotation"), image)
    for quarter, view in enumerate(turned):
        assert np.array_equal(view.numpy(), np.rot90(image.numpy(), quarter, (2, 3)))
    (coarse,) = seen(question("self-resolution"), image)
    assert torch.equal(coarse, coarsen(image))


def test_complementary_holes_hide_what_they_are_asked_about() -> None:
    asked = question("inpaint", inpaint_masks="complementary")
    for view, weight in views(asked, torch.ones(2, 3, SIDE, SIDE)):
        assert isinstance(weight, Tensor)
        assert torch.equal(view, 1 - weight.expand_as(view))


@pytest.mark.parametrize("task", DRAWING)
def test_draws_depend_on_the_image_and_the_seed_alone(task: Task) -> None:
    image, asked = pictures(), question(task, seed=5)
    torch.manual_seed(1)
    first = seen(asked, image)
    assert all(torch.equal(a, b) for a, b in zip(first, seen(asked, image), strict=True))
    for k, one in enumerate(image):  # alone, and in another place of another batch
        alone = seen(asked, one[None])
        moved = seen(asked, torch.stack([image[0], one]))
        for view, by_itself, elsewhere in zip(first, alone, moved, strict=True):
            assert torch.equal(view[k], by_itself[0])
            assert torch.equal(view[k], elsewhere[1])
    assert not torch.equal(seen(question(task, seed=6), image)[0], first[0])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("task", DRAWING)
def test_the_same_place_in_another_image_is_spoiled_otherwise(task: Task) -> None:
    grey = torch.full((2, 3, SIDE, SIDE), 0.5)
    grey[1, 0, 0, 0] = 0
    spoiled = seen(question(task), grey)[0]
    assert not torch.equal(spoiled[0, :, 1:], spoiled[1, :, 1:])


@pytest.mark.parametrize("task", TASKS)
def test_making_maps_does_not_touch_the_global_stream(task: Task) -> None:
    before = torch.get_rng_state()
    seen(question(task), pictures())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_map_needs_at_least_one_draw() -> None:
    with pytest.raises(ValueError, match="draws is 0"):
        question("denoise", draws=0)
