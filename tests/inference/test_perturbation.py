from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from leanet.inference import perturbation
from leanet.inference.cam import cam
from leanet.inference.cam_targets import Target
from leanet.inference.perturbation import ablation_cam, score_cam
from leanet.networks.resnet import ResNet


def images(count: int = 2, side: int = 16, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Tiny(nn.Module):
    def __init__(self, channels: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, channels, 4, stride=4), nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(functional.relu(self.conv(x)).mean(dim=(2, 3)))
        return logits


def same(image: Tensor) -> tuple[Tensor, ...]:
    return (image,)


@torch.no_grad()
def test_score_cam_by_its_definition() -> None:
    network, x = Tiny(), images(1)
    found = score_cam(network, x, same, layer="conv", target=Target(which=1), batch_size=2)
    blurred = torch.from_numpy(ndimage.gaussian_filter(
        x.numpy(), (0, 0, 0.8, 0.8), mode="mirror"))  # fmt: skip
    activations = network.conv(x)
    expected = torch.zeros(4, 4)
    for channel in activations[0]:
        large = functional.interpolate(channel[None, None], (16, 16), mode="bilinear")
        mask = (large - large.min()) / (large.max() - large.min())
        weight = network(mask * x + (1 - mask) * blurred)[0, 1] - network(blurred)[0, 1]
        expected += weight * channel
    torch.testing.assert_close(found.map[0, 0], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_ablation_cam_by_its_definition() -> None:
    network, x = Tiny(), images(2)
    found = ablation_cam(network, (x,), layer="conv", target=Target(which=1), batch_size=3)
    activations = network.conv(x)
    for k in range(2):
        expected = torch.zeros(4, 4)
        for c in range(5):
            less = activations[k : k + 1].clone()
            less[:, c] = 0
            without = network.fc(functional.relu(less).mean(dim=(2, 3)))[0, 1]
            expected += (network(x)[k, 1] - without) * activations[k, c]
        torch.testing.assert_close(found.map[k, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_the_map_follows_the_head_and_keeps_score_and_classes(name: str) -> None:
    network, x = Tiny(), images()

    def found(target: Target) -> perturbation.CAM:
        if name == "score_cam":
            return score_cam(network, x, same, layer="conv", target=target)
        return ablation_cam(network, (x,), layer="conv", target=target)

    plain = found(Target())
    expected = cam(network, (x,), layer="conv")
    assert plain.classes is not None
    assert expected.classes is not None
    assert torch.equal(plain.classes, expected.classes)
    torch.testing.assert_close(plain.score, expected.score)
    assert (plain.layer, plain.stride, plain.map.shape) == ("conv", (4, 4), (2, 1, 4, 4))
    with torch.no_grad():
        for weight in network.fc.parameters():
            weight *= 10
    torch.testing.assert_close(found(Target()).map, 10 * plain.map, rtol=1e-3, atol=1e-5)


def test_the_class_is_that_of_the_unchanged_image() -> None:
    network, x = Tiny(), images(3)
    classes = cam(network, (x,), layer="conv").classes
    assert classes is not None
    for target in (Target(), Target(which=classes)):
        torch.testing.assert_close(
            score_cam(network, x, same, layer="conv", target=target).map,
            score_cam(network, x, same, layer="conv", target=Target(which=classes)).map,
        )


def test_stages_can_be_ablated_and_are_put_back() -> None:
    torch.manual_seed(0)
    network, x = ResNet(18, num_outputs=2), images(1, 32)
    found = ablation_cam(network, (x,), layer="stage4", batch_size=128)
    assert found.map.shape == (1, 1, 1, 1)
    assert "stage" not in vars(network)
    assert network.training


def test_a_stored_map_stays_and_another_is_made_anew() -> None:
    class Two(Tiny):
        def forward(self, x: Tensor, anomaly_map: Tensor | None = None) -> Tensor:
            assert anomaly_map is not None
            return super().forward(x) * (1 + anomaly_map.mean(dim=(1, 2, 3))[:, None])

    network, x = Two(), images()
    seen: list[Tensor] = []

    def prepare(image: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        plane = planes[0] if planes else image.mean(dim=1, keepdim=True)
        seen.append(plane)
        return image, plane

    stored = images(seed=4)[:, :1]
    score_cam(network, x, prepare, layer="conv", planes=(stored,))
    assert all(any(torch.equal(one, row) for row in stored) for plane in seen[1:] for one in plane)
    seen.clear()
    score_cam(network, x, prepare, layer="conv")
    assert not torch.equal(seen[2][0], seen[2][1])


def test_a_slow_job_is_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturbation, "SECONDS_WORTH_A_WORD", 0.0)
    told: list[str] = []
    ablation_cam(Tiny(), (images(),), layer="conv", batch_size=2, tell=told.append)
    assert len(told) == 1
    assert told[0].startswith("ablation_cam: 10 forward passes, about ")


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 0"):
        ablation_cam(Tiny(), (images(),), layer="conv", batch_size=0)
