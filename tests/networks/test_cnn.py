import pytest
import torch
from torch import Tensor, nn

from leanet.networks.cnn import CNN


class Half(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


@pytest.mark.parametrize("side", [128, 256])
def test_the_taps_have_the_published_shapes(side: int) -> None:
    with torch.device("meta"):
        features = CNN().eval().features(torch.empty(1, 3, side, side))
    expected = [(c, side // 2**p) for p, c in enumerate((64, 128, 256, 512, 512), start=1)]
    assert [(f.shape[1], f.shape[2]) for f in features] == expected


def test_a_stage_is_convolution_norm_activation_and_gate() -> None:
    network = CNN(gate=Half).eval()
    assert [gate.channels for gate in network.gates] == [64, 128, 256, 512, 512]
    x = torch.rand(1, 3, 32, 32)
    conv, norm = network.convs[0][0], network.convs[0][1]  # type: ignore[index]
    assert torch.equal(network.stage(0, x), 0.5 * norm(conv(x)).relu())


def test_the_head_is_linear_in_8_x_8_positions() -> None:
    network = CNN(num_outputs=2).eval()
    x = torch.rand(2, 512, 16, 16)
    averaged = x.reshape(2, 512, 8, 2, 8, 2).mean(dim=(3, 5)).flatten(1)
    expected = averaged @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.head(x), expected, rtol=1e-4, atol=1e-5)
