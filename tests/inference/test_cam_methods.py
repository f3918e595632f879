from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leanet.inference.cam import cam
from leanet.inference.cam_methods import METHODS, Wanted, maps_of, plan
from leanet.inference.cam_targets import Target
from leanet.inference.pixel_gradients import input_x_grad
from leanet.networks.cnn import CNN
from leanet.ops.cam import FORMULAS


def network() -> CNN:
    torch.manual_seed(0)
    return CNN(3, 4).eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_every_formula_is_in_the_table_with_its_own_words() -> None:
    for name, formula in FORMULAS.items():
        assert METHODS[name].kind == "layer"
        assert (METHODS[name].formula, METHODS[name].comparable) == (
            formula.formula,
            formula.comparable,
        )


def test_the_default_layer_is_the_last_and_layer_cam_also_looks_a_stage_before() -> None:
    found = plan(network(), (images(),), ["grad_cam", "layer_cam", "input_x_grad"], [])
    assert found == [
        Wanted("grad_cam", "stage4"),
        Wanted("layer_cam", "stage4"),
        Wanted("layer_cam", "stage3"),
        Wanted("input_x_grad"),
    ]


def test_named_layers_are_for_all_methods_and_methods_count_once() -> None:
    methods = ["grad_cam", "grad_cam", "hires_cam"]
    found = plan(network(), (images(),), methods, ["stage2", "convs.1"])
    assert [one.key for one in found] == [
        "grad_cam-stage2", "grad_cam-convs.1", "hires_cam-stage2", "hires_cam-convs.1"]  # fmt: skip


@pytest.mark.parametrize(
    ("methods", "layers", "told"),
    [(["gradcam"], [], "did you mean grad_cam"), (["grad_cam"], ["stage9"], "three|nearest")],
)
def test_unknown_names_are_refused(methods: list[str], layers: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(network(), (images(),), methods, layers)


def test_several_methods_at_once_are_those_one_by_one() -> None:
    net, x, target = network(), images(), Target(which=2)
    wanted = plan(net, (x,), ["grad_cam", "layer_cam", "eigen_cam", "input_x_grad"], [])
    found = maps_of(net, (x,), target, wanted)
    assert list(found) == [
        "grad_cam-stage4", "layer_cam-stage4", "layer_cam-stage3", "eigen_cam-stage4",
        "input_x_grad-image"]  # fmt: skip
    for one in wanted[:-1]:
        expected = cam(net, (x,), layer=one.layer, method=one.method, target=target).map
        torch.testing.assert_close(found[one.key].map, expected, rtol=1e-4, atol=1e-7)
    expected = input_x_grad(net, (x,), target=target)[0].map
    torch.testing.assert_close(found["input_x_grad-image"].map, expected)
    assert found["input_x_grad-image"].layer == "image"


def test_eigen_smooth_is_for_all_of_them() -> None:
    net, x = network(), images()
    found = maps_of(net, (x,), "logit", plan(net, (x,), ["layer_cam"], []), eigen_smooth=True)
    assert all(one.energy is not None for one in found.values())
