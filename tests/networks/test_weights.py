from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models._manipulate import adapt_input_conv as timm_adapt_input_conv
from torch import Tensor, nn

from leanet.networks.attention import ECA, SqueezeExcite, Start, self_attention
from leanet.networks.resnet import ResNet
from leanet.networks.weights import adapt_input_conv, load_weights, read_weights


def network(in_chans: int = 3, num_outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_chans, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_outputs),
    )


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_saved_network_loads_completely(name: str, tmp_path: Path) -> None:
    source, target = network(), network()
    report = load_weights(target, saved(source.state_dict(), tmp_path / name))
    assert set(report.loaded) == set(source.state_dict())
    assert report.skipped == ()
    for key, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[key])


def test_weights_inside_a_checkpoint_are_found(tmp_path: Path) -> None:
    source = network()
    torch.save({"epoch": 3, "state_dict": source.state_dict()}, tmp_path / "checkpoint.pt")
    assert set(read_weights(tmp_path / "checkpoint.pt")) == set(source.state_dict())


def test_another_head_keeps_its_own_weights(tmp_path: Path) -> None:
    target = network(num_outputs=2)
    before = target.state_dict()["4.weight"].clone()
    path = saved(network().state_dict(), tmp_path / "w.safetensors")
    report = load_weights(target, path)
    assert set(report.skipped) == set(report.kept) == {"4.weight", "4.bias"}
    assert torch.equal(target.state_dict()["4.weight"], before)
    with pytest.raises(ValueError, match=r"2 shape: 4\.weight \(10, 4\) for \(2, 4\)"):
        load_weights(target, path, ignore_head=False)


def test_a_head_of_other_features_or_in_part_is_a_difference(tmp_path: Path) -> None:
    tensors = {**network().state_dict(), "4.weight": torch.zeros(10, 6)}
    with pytest.raises(ValueError, match=r"1 shape: 4\.weight \(10, 6\) for \(10, 4\)"):
        load_weights(network(), saved(tensors, tmp_path / "features.safetensors"))
    tensors = network().state_dict()
    del tensors["4.bias"]
    with pytest.raises(ValueError, match=r"1 missing: 4\.bias"):
        load_weights(network(num_outputs=2), saved(tensors, tmp_path / "part.safetensors"))


def test_a_file_without_head_and_batch_counters_loads(tmp_path: Path) -> None:
    tensors = network().state_dict()
    for name in ["4.weight", "4.bias", "1.num_batches_tracked"]:
        del tensors[name]
    report = load_weights(network(), saved(tensors, tmp_path / "w.safetensors"))
    assert set(report.loaded) == set(tensors)
    assert set(report.kept) == {"4.weight", "4.bias"}


def test_counters_are_all_there_or_all_absent(tmp_path: Path) -> None:
    tensors = ResNet(18).state_dict()
    del tensors["layer1.0.bn1.num_batches_tracked"]
    with pytest.raises(ValueError, match=r"1 missing: layer1\.0\.bn1\.num_batches_tracked"):
        load_weights(ResNet(18), saved(tensors, tmp_path / "w.safetensors"))


def test_a_renamed_tensor_is_named_on_both_sides(tmp_path: Path) -> None:
    tensors = ResNet(18).state_dict()
    tensors["layer2.0.shortcut.0.weight"] = tensors.pop("layer2.0.downsample.0.weight")
    with pytest.raises(ValueError) as error:
        load_weights(ResNet(18), saved(tensors, tmp_path / "w.safetensors"))
    assert str(error.value).endswith(
        "do not fit: 1 missing: layer2.0.downsample.0.weight; "
        "1 unexpected: layer2.0.shortcut.0.weight"
    )


def test_ten_differences_of_each_kind_are_named(tmp_path: Path) -> None:
    tensors = {f"backbone.{name}": tensor for name, tensor in ResNet(18).state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_weights(ResNet(18), saved(tensors, tmp_path / "w.safetensors"))
    missing, unexpected = str(error.value).split("missing: ")[1].split("; ")
    assert len(missing.split(", ")) == len(unexpected.split(", ")) == 10
    assert unexpected.startswith("122 unexpected: backbone.")


@pytest.mark.parametrize("in_chans", [1, 2, 4, 5, 6])
def test_other_input_channels_are_adapted_as_timm_does(in_chans: int, tmp_path: Path) -> None:
    source, target = network(), network(in_chans)
    load_weights(target, saved(source.state_dict(), tmp_path / "w.safetensors"))
    expected = timm_adapt_input_conv(in_chans, source.state_dict()["0.weight"])
    torch.testing.assert_close(target.state_dict()["0.weight"], expected)


def test_one_channel_gives_what_a_gray_image_gave() -> None:
    weight, gray = torch.randn(4, 3, 3, 3), torch.rand(1, 1, 8, 8)
    of_rgb = torch.conv2d(gray.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(torch.conv2d(gray, adapt_input_conv(weight, 1)), of_rgb)


def test_differing_names_and_shapes_are_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    tensors = network().state_dict()
    tensors["1.extra"] = tensors.pop("1.weight")
    tensors["0.bias"] = torch.zeros(7)
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_weights(target, saved(tensors, tmp_path / "w.safetensors"))
    assert "1 missing: 1.weight; 1 unexpected: 1.extra" in str(error.value)
    assert "1 shape: 0.bias (7,) for (4,)" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_self_attention_that_the_file_lacks_keeps_its_start(tmp_path: Path) -> None:
    source, target = ResNet(18), ResNet(18, gate=self_attention("cbam", identity_start=True))
    report = load_weights(target, saved(source.state_dict(), tmp_path / "w.safetensors"))
    assert {name.split(".")[2] for name in report.kept} == {"gate"}
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(target.eval()(x), source.eval()(x))


def test_self_attention_in_the_file_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    source, target = ResNet(18, gate=self_attention("eca")), ResNet(18, gate=self_attention("eca"))
    tensors = source.state_dict()
    report = load_weights(target, saved(tensors, tmp_path / "w.safetensors"))
    assert set(report.loaded) == set(tensors)
    assert torch.equal(target.state_dict()["layer1.0.gate.conv.weight"],
                       tensors["layer1.0.gate.conv.weight"])  # fmt: skip
    del tensors["layer1.0.gate.conv.weight"]
    with pytest.raises(ValueError, match=r"1 missing: layer1\.0\.gate\.conv\.weight"):
        load_weights(target, saved(tensors, tmp_path / "w.safetensors"))


def test_attention_in_the_file_alone_is_a_difference(tmp_path: Path) -> None:
    tensors = ResNet(18, gate=self_attention("eca")).state_dict()
    with pytest.raises(ValueError, match=r"8 unexpected: layer1\.0\.gate\.conv\.weight"):
        load_weights(ResNet(18), saved(tensors, tmp_path / "w.safetensors"))


def eca(start: Start = "paper") -> ResNet:
    return ResNet(18, gate=lambda channels: ECA(channels, start=start))


def test_timm_s_network_with_gates_is_ours_by_weights_and_output(tmp_path: Path) -> None:
    """seresnet18 of timm: 16 times fewer hidden units but at least 8, with biases."""
    theirs = timm.create_model("seresnet18", num_classes=5).eval()
    ours = ResNet(18, num_outputs=5, gate=lambda c: SqueezeExcite(c, 16, min_hidden=8)).eval()
    report = load_weights(ours, saved(theirs.state_dict(), tmp_path / "w.safetensors"))
    assert len(report.loaded) == len(theirs.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_eca_of_timm_is_ours_by_weights_and_output(tmp_path: Path) -> None:
    args = {"num_classes": 5, "block_args": {"attn_layer": "eca"}}
    theirs = timm.create_model("resnet18", **args).eval()
    path, ours = saved(theirs.state_dict(), tmp_path / "w.safetensors"), eca().eval()
    load_weights(ours, path)
    x = torch.rand(2, 3, 64, 64)
    expected = theirs.forward_features(x)
    torch.testing.assert_close(ours.features(x)[-1], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="'identity', which doubles them: choose the start 'paper"):
        load_weights(eca("identity"), path)


def test_a_pickled_object_is_refused_without_running_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="no file of plain tensors"):
        read_weights(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_absent_broken_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weight file at"):
        read_weights(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_weights(tmp_path / "broken.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"abc")
    with pytest.raises(ValueError, match="no file of plain tensors"):
        read_weights(tmp_path / "broken.pth")
    torch.save({"epoch": 3}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match="holds no state dictionary"):
        read_weights(tmp_path / "foreign.pth")


def test_a_module_without_weights_is_refused(tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="ReLU has no weights"):
        load_weights(nn.ReLU(), path)
