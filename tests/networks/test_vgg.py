import pytest
import torch
import torchvision
from torch import Tensor, nn

from leanet.networks.vgg import VGG


class Noted(nn.Module):
    """A gate that keeps the last features it saw."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.seen = channels, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return 0.5 * x


@pytest.mark.parametrize("depth", [16, 19])
def test_the_convolutions_are_those_of_torchvision(depth: int) -> None:
    network = VGG(depth, hidden=4).eval()
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"vgg{depth}")(weights=None)
    reference = reference.features.to_empty(device="cpu").eval()
    own = [p for name, p in network.named_parameters() if name.startswith("blocks")]
    with torch.no_grad():
        for parameter, theirs in zip(own, reference.parameters(), strict=True):
            theirs.copy_(parameter)
        x = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(network.features(x)[-1], reference(x))


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize("depth", [16, 19])
def test_the_taps_have_the_published_shapes(depth: int, side: int) -> None:
    with torch.device("meta"):
        features = VGG(depth).features(torch.empty(1, 3, side, side))
    expected = [(c, side // 2**p) for p, c in enumerate((64, 128, 256, 512, 512), start=1)]
    assert [(f.shape[1], f.shape[2]) for f in features] == expected


def test_the_head_reads_8_x_8_positions_untouched_and_repeats_fewer() -> None:
    network = VGG(16, num_outputs=2, hidden=6).eval()
    full, quarter = torch.rand(2, 512, 8, 8), torch.rand(2, 512, 4, 4)

    def dense(x: Tensor) -> Tensor:
        hidden = (x.flatten(1) @ network.fc1.weight.T + network.fc1.bias).relu()
        hidden = (hidden @ network.fc2.weight.T + network.fc2.bias).relu()
        return hidden @ network.fc.weight.T + network.fc.bias

    repeated = quarter.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(network.head(full), dense(full), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.head(quarter), dense(repeated), rtol=1e-4, atol=1e-5)


def test_a_gate_sits_between_the_last_activation_and_the_pool_of_every_block() -> None:
    network = VGG(16, hidden=4, gate=Noted).eval()
    assert [gate.channels for gate in network.gates] == [64, 128, 256, 512, 512]
    tap = network.stage(0, torch.rand(1, 3, 32, 32))
    seen = network.gates[0].seen
    assert isinstance(seen, Tensor)
    assert seen.shape == (1, 64, 32, 32)
    assert seen.min() == 0
    torch.testing.assert_close(tap, 0.5 * nn.functional.max_pool2d(seen, 2))


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VGG depth 11 .*\[16, 19\]"):
        VGG(11)
