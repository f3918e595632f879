from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.inference.cam_targets import Target
from leanet.inference.pixel_gradients import input_x_grad, integrated_gradients


def images(count: int = 2, side: int = 6, seed: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


class Two(nn.Module):
    """Reads image and map; not linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.map = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, image: Tensor, anomaly_map: Tensor) -> Tensor:
        f = torch.tanh(self.norm(self.image(image) * (1 + self.map(anomaly_map))))
        logits: Tensor = self.fc(f.square().mean(dim=(2, 3)))
        return logits


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 2, bias=False))


def test_a_linear_score_is_split_into_weight_times_pixel() -> None:
    network, x = linear(), images()
    (found,) = input_x_grad(network, (x,), target=Target(which=1))
    weight = network[1].weight[1].reshape(3, 6, 6)  # type: ignore[index]
    torch.testing.assert_close(found.map, (weight * x).sum(dim=1, keepdim=True))
    torch.testing.assert_close(found.map.sum(dim=(1, 2, 3)), found.score)
    (integrated,) = integrated_gradients(network, (x,), target=Target(which=1), steps=1)
    torch.testing.assert_close(integrated.map, found.map)


def test_integrated_gradients_of_all_inputs_sum_to_the_change_of_the_score() -> None:
    network, inputs = Two().eval(), (images(), images(seed=2, channels=1))
    target = Target(which=1)
    start = (torch.zeros_like(inputs[0]), torch.full_like(inputs[1], 0.3))
    found = integrated_gradients(network, inputs, target=target, reference=start, steps=200)
    change = network(*inputs)[:, 1] - network(*start)[:, 1]
    total = sum(one.map.sum(dim=(1, 2, 3)) for one in found)
    torch.testing.assert_close(total, change.detach(), rtol=1e-3, atol=1e-4)


def test_they_are_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    network, inputs = Two().eval(), (images(), images(seed=2, channels=1))
    found = integrated_gradients(network, inputs, target=Target(which=2), steps=64)
    expected = captum.IntegratedGradients(network).attribute(
        inputs, target=2, n_steps=64, method="riemann_middle"
    )
    for one, other in zip(found, expected, strict=True):
        reference = other.sum(dim=1, keepdim=True).float()
        torch.testing.assert_close(one.map, reference.detach(), rtol=1e-4, atol=1e-5)


def test_every_input_has_a_map_of_its_own() -> None:
    network, inputs = Two().eval(), (images(), images(seed=2, channels=1))
    image, anomaly_map = input_x_grad(network, inputs)
    assert (image.layer, anomaly_map.layer) == ("input0", "input1")
    assert image.map.shape == anomaly_map.map.shape == (2, 1, 6, 6)
    unread, _ = input_x_grad(
        network, inputs, target=lambda out: network.map(inputs[1]).sum((1, 2, 3))
    )
    assert unread.map.abs().max() == 0


def test_the_class_is_that_of_the_inputs_along_the_whole_way() -> None:
    class Switch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            light = x.mean(dim=(1, 2, 3))
            return torch.stack([0.3 - light, light - 0.3], dim=1)  # class 0 at the dark start

    x = torch.full((1, 3, 2, 2), 0.8)
    (found,) = integrated_gradients(Switch(), (x,))
    assert found.classes is not None
    assert found.classes.tolist() == [1]
    assert float(found.map.sum()) == pytest.approx(0.8, abs=1e-5)


def test_mode_and_gradients_of_the_network_stay() -> None:
    network, inputs = Two().train(), (images(), images(seed=2, channels=1))
    with torch.inference_mode():
        input_x_grad(network, (inputs[0] + 0, inputs[1] + 0))
    assert network.training
    assert all(weight.grad is None for weight in network.parameters())
    assert inputs[0].grad is None


def test_a_number_of_steps_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="steps 0"):
        integrated_gradients(linear(), (images(),), steps=0)


def test_a_score_without_any_gradient_gives_empty_maps() -> None:
    (found,) = input_x_grad(
        linear(), (images(),), target=lambda out: functional.relu(out[:, 0] * 0)
    )
    assert found.map.abs().max() == 0
