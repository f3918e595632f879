from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from leanet.files import read_json
from leanet.inference.gates_view import GatesView, capture_gates, find_gates
from leanet.networks import gates as modules
from leanet.networks.abn import ABN
from leanet.networks.blocks import SelfAttention
from leanet.networks.resnet import ResNet


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def network(name: str, stages: tuple[int, ...] = (2, 3)) -> ResNet:
    torch.manual_seed(0)
    net = ResNet(18, 3, 3)
    modules.attach(net, modules.Gates(name, stages=stages), "resnet18")
    return net


@pytest.mark.parametrize(
    ("name", "over_places", "over_channels"),
    [("se", 0, 4), ("eca", 0, 4), ("srm", 0, 4), ("simam", 4, 0), ("cbam", 4, 4)],
)
def test_every_kind_of_gate_is_found(name: str, over_places: int, over_channels: int) -> None:
    net = network(name)
    gates = capture_gates(net, (images(),))
    assert (len(gates.places), len(gates.channels)) == (over_places, over_channels)
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_gate_is_what_the_module_multiplies_by() -> None:
    net = network("cbam").eval()
    gates = capture_gates(net, (images(),))
    seen: list[tuple[Tensor, Tensor]] = []
    block = "layer2.1.gate.spatial"
    module = dict(net.named_modules())[block]
    assert isinstance(module, SelfAttention)
    handle = module.register_forward_hook(lambda m, given, out: seen.append((given[0], out)))
    with torch.no_grad():
        net(images())
    handle.remove()
    given, out = seen[0]
    torch.testing.assert_close(given * gates.places[block][:, None], out)


def test_abn_s_map_is_shown() -> None:
    torch.manual_seed(0)
    net = ABN(18, 3, 3).eval()
    gates = capture_gates(net, (images(),))
    torch.testing.assert_close(gates.places["branch"], 1 + net.attend(images()).map[:, 0].detach())


def test_a_plain_network_has_none(tmp_path: Path) -> None:
    net = ResNet(18)
    assert find_gates(net) == {}
    view = GatesView(net, tmp_path)
    view.see((images(),), images(), [Path("a.png"), Path("b.png")], ["x", "y"])
    view.finish()
    assert list(tmp_path.iterdir()) == []


def test_pictures_for_every_image_and_means_over_the_images_of_a_class(tmp_path: Path) -> None:
    net, x = network("cbam", (3,)).eval(), images(3)
    view = GatesView(net, tmp_path)
    view.see((x[:2],), x[:2], [Path("a.png"), Path("in/b.png")], ["rust", "good"])
    view.see((x[2:],), x[2:], [Path("c.png")], ["rust"])
    view.finish()
    for name in ("a.png", "in/b.png", "c.png", "channels.png"):
        with Image.open(tmp_path / "gates" / name) as picture:
            assert picture.width > 400
    facts = read_json(tmp_path / "gates" / "channels.json")
    assert (facts["classes"], facts["images"]) == (["good", "rust"], [1, 2])
    block = "layer3.0.gate.channel"
    gates = capture_gates(net, (x,)).channels[block]
    expected = torch.stack([gates[1], gates[[0, 2]].mean(dim=0)])
    torch.testing.assert_close(torch.tensor(facts["gates"][block]), expected)


def test_channel_gates_alone_make_one_picture(tmp_path: Path) -> None:
    view = GatesView(network("se", (3,)), tmp_path)
    view.see((images(),), images(), [Path("a.png"), Path("b.png")], ["rust", "good"])
    view.finish()
    assert sorted(file.name for file in (tmp_path / "gates").iterdir()) == [
        "channels.json", "channels.png"]  # fmt: skip
