import pytest
import torch
from torch import nn

from leanet.networks.reconstructors import RECONSTRUCTORS, build_reconstructor
from leanet.networks.unet import UNet

THREE_TO_THREE = {
    "unet": 28_267_011,
    "ae": 29_184_675,
    "segnet": 53_088_579,
    "unetres": 29_874_339,
}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("model", RECONSTRUCTORS)
def test_the_parameter_counts_are_those_of_the_specification(model: str) -> None:
    with torch.device("meta"):
        network = build_reconstructor(model, 3, 3, img_size=256)
    assert count(network) == THREE_TO_THREE[model]


def test_the_color_network_of_the_paper_has_its_count() -> None:
    with torch.device("meta"):
        network = build_reconstructor("unet", 1, 2, img_size=256)
    assert count(network) == 28_264_450


@pytest.mark.parametrize("model", RECONSTRUCTORS)
@pytest.mark.parametrize(("in_chans", "out_chans"), [(1, 2), (3, 3)])
@pytest.mark.parametrize("img_size", [32, 64, 96, 160])
def test_every_task_and_every_multiple_of_32_runs_and_learns(
    model: str, in_chans: int, out_chans: int, img_size: int
) -> None:
    network = build_reconstructor(model, in_chans, out_chans, img_size=img_size, base=4)
    out = network(torch.rand(2, in_chans, img_size, img_size))
    assert out.shape == (2, out_chans, img_size, img_size)
    assert 0 < out.min() < out.max() < 1
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("model", RECONSTRUCTORS)
def test_a_narrow_network_learns_to_draw_a_picture(model: str) -> None:
    torch.manual_seed(0)
    network = build_reconstructor(model, 1, 1, img_size=32, base=4)
    target = torch.rand(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = (network(target) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]  # a gray picture stops at 0.8


def test_depth_base_and_dropout_reach_the_u_net() -> None:
    network = build_reconstructor("unet", 1, 2, img_size=96, base=6, dropout=0.5)
    assert isinstance(network, UNet)
    assert network.depth == 5
    assert network.out.in_channels == 12
    assert any(isinstance(module, nn.Dropout) for module in network.modules())


@pytest.mark.parametrize("model", RECONSTRUCTORS)
@pytest.mark.parametrize("img_size", [0, 16, 100, 250])
def test_a_size_that_does_not_fit_is_refused(model: str, img_size: int) -> None:
    with pytest.raises(ValueError, match=f"img_size {img_size} .*multiple of 32 px"):
        build_reconstructor(model, 3, 3, img_size=img_size)


def test_other_mistakes_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"unet, ae, segnet, unetres \(did you mean segnet"):
        build_reconstructor("segnett", 3, 3, img_size=64)
    with pytest.raises(ValueError, match="base 7 channels: choose an even number"):
        build_reconstructor("ae", 3, 3, img_size=64, base=7)
    with pytest.raises(ValueError, match=r"dropout 0.5 for ae: only unet"):
        build_reconstructor("ae", 3, 3, img_size=64, dropout=0.5)
