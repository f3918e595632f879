import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leanet.networks.abn import ABN, START_BIAS, start_branch
from leanet.networks.attention import Start
from leanet.networks.resnet import ResNet
from leanet.networks.weights import load_tensors


def images(batch: int = 2, side: int = 32) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(5))


def network(start: Start = "paper", depth: int = 18) -> ABN:
    """In evaluation mode, with BatchNorm statistics that are not at rest."""
    torch.manual_seed(2)
    built = ABN(depth, 3, 4, stem="small", start=start)
    with torch.no_grad():
        built.attend(images(4, 16))
    return built.eval()


def test_forward_gives_the_logits_of_the_perception_branch() -> None:
    net, x = network(), images()
    out = net.attend(x)
    assert torch.equal(net(x), out.logits)
    assert out.logits.shape == out.branch_logits.shape == (2, 4)
    assert out.map.shape == (2, 1, 8, 8)  # stage 3 of the small stem has stride 4
    assert 0 < out.map.min() < out.map.max() < 1


def test_it_is_its_formula() -> None:
    net, x = network(), images()
    for index in range(4):
        x = net.stage(index, x)
    branch = net.branch
    q = branch.bn_classes(branch.conv(branch.bn(branch.layer4(x)))).clamp(min=0)
    logits = torch.einsum("bchw,kc->bkhw", q, branch.conv_logits.weight[:, :, 0, 0]).mean((2, 3))
    z = F.conv2d(q, branch.conv_map.weight, padding=1)
    z = z / torch.sqrt(branch.bn_map.running_var + 1e-5) - branch.bn_map.running_mean / torch.sqrt(
        branch.bn_map.running_var + 1e-5
    )
    attention = 1 / (1 + torch.exp(-z))
    out = net.attend(images())
    torch.testing.assert_close(out.branch_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.map, attention, rtol=1e-4, atol=1e-5)
    features = net.layer4(x + x * attention)
    torch.testing.assert_close(out.logits, net.fc(features.mean((2, 3))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [4, 8, 32])
def test_a_given_map_takes_the_place_of_its_own(side: int) -> None:
    net, x = network(), images()
    given = torch.rand(2, 1, side, side)
    out, own = net.attend(x, given), net.attend(x)
    pooled = F.adaptive_avg_pool2d(given, 8)
    torch.testing.assert_close(out.map, pooled)
    assert torch.equal(out.branch_logits, own.branch_logits)
    assert not torch.allclose(out.logits, own.logits, atol=1e-4)
    torch.testing.assert_close(net.attend(x, own.map).logits, own.logits)


def test_a_black_map_is_the_plain_network() -> None:
    net, x = network(), images()
    plain = ResNet(18, 3, 4, stem="small").eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if "branch" not in k})
    torch.testing.assert_close(net.attend(x, torch.zeros(2, 1, 8, 8)).logits, plain(x))


def test_the_starts_are_half_and_nearly_nothing() -> None:
    means = {}
    for start in ("paper", "identity"):
        net = network(start).train()  # type: ignore[arg-type]
        means[start] = net.attend(images()).map.mean().item()
    assert START_BIAS == -4
    assert 0.4 < means["paper"] < 0.6
    assert 0.01 < means["identity"] < 0.05


def test_plain_weights_fill_the_branch_too() -> None:
    torch.manual_seed(9)
    plain, net = ResNet(18, 3, 10, stem="small"), network()
    plain(images(4, 16))  # moves the statistics
    report = load_tensors(net, plain.state_dict(), source="plain")
    assert set(report.skipped) == {"fc.weight", "fc.bias"}
    assert {name.split(".")[0] for name in report.kept} == {"branch", "fc"}
    start_branch(net)
    for key, tensor in plain.layer4.state_dict().items():
        assert torch.equal(net.branch.layer4.state_dict()[key], tensor)
    assert net.branch.layer4[0].conv1.stride == (1, 1)  # type: ignore[union-attr, operator]


def test_both_losses_teach_the_branch() -> None:
    net = network().train()
    out = net.attend(images())
    for logits, others in ((out.logits, {"branch.conv_logits.weight"}),
                           (out.branch_logits, {"branch.conv_map.weight", "branch.bn_map.weight",
                                                "branch.bn_map.bias"})):  # fmt: skip
        net.zero_grad()
        F.cross_entropy(logits, torch.tensor([0, 3])).backward(retain_graph=True)
        branch = {n: p.grad for n, p in net.named_parameters() if n.startswith("branch")}
        assert {name for name, grad in branch.items() if grad is None} == others


def test_what_a_resnet_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="ResNet depth 101"):
        ABN(101)
