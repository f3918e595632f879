import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from leanet.networks import timm_stages
from leanet.networks.timm_stages import TimmStages, hub_weights, require_hub

NAMES = [
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "convnext_atto",
    "regnetx_002",
    "densenet121",
]


def timm_features(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(5)
    return timm.create_model(name, features_only=True, **kwargs).eval()


@pytest.mark.parametrize("in_chans", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_stages_give_the_features_of_timm(name: str, in_chans: int) -> None:
    reference = timm_features(name, in_chans=in_chans)
    torch.manual_seed(5)
    network = TimmStages(name, in_chans).eval()
    x = torch.rand(2, in_chans, 64, 64)
    with torch.no_grad():
        expected = reference(x)
        features = network.features(x)
    assert network.strides == tuple(reference.feature_info.reduction())
    assert network.channels == tuple(reference.feature_info.channels())
    assert len(features) == len(expected)
    for feature, reference_feature in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, reference_feature, rtol=1e-6, atol=1e-6)


def test_a_backbone_with_channels_last_inside_gives_channels_first() -> None:
    args: dict[str, Any] = {
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 12,
        "depths": (1, 1, 1, 1),
    }
    reference = timm_features("swin_tiny_patch4_window7_224", **args)
    torch.manual_seed(5)
    network = TimmStages("swin_tiny_patch4_window7_224", **args).eval()
    assert network.strides == (4, 8, 16, 32)
    x = torch.rand(2, 3, 64, 64)
    for feature, expected in zip(network.features(x), reference(x), strict=True):
        torch.testing.assert_close(feature, expected.permute(0, 3, 1, 2))


def test_no_stage_overwrites_the_features_before_it() -> None:
    network = TimmStages("nf_regnet_b0").eval()
    features = network.features(torch.rand(1, 3, 64, 64))
    for index, feature in enumerate(features[:-1]):
        before = feature.clone()
        network.stage(index + 1, feature)
        assert torch.equal(feature, before)


def test_the_head_is_a_linear_layer_on_the_average() -> None:
    network = TimmStages("mobilenetv3_small_050", num_outputs=2).eval()
    x = torch.randn(2, network.channels[-1], 3, 3)
    expected = x.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.head(x), expected)


@pytest.mark.parametrize(("in_chans", "name"), [(3, "convnext_atto"), (1, "mobilenetv2_050")])
def test_a_file_of_the_whole_model_fits(in_chans: int, name: str, tmp_path: Path) -> None:
    source = timm.create_model(name, in_chans=in_chans, pretrained=False).eval()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = TimmStages(name, in_chans, weights=tmp_path / "w.safetensors").eval()
    reference = timm_features(
        name,
        in_chans=in_chans,
        pretrained=True,
        pretrained_cfg_overlay={
            "file": str(tmp_path / "w.safetensors"),
            "input_size": (in_chans, 64, 64),
        },
    )
    x = torch.rand(1, in_chans, 64, 64)
    for feature, expected in zip(network.features(x), reference(x), strict=True):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("name", ["seresnet18", "seresnet50"])
def test_networks_with_gates_of_timm_s_own_load_their_own_file(name: str, tmp_path: Path) -> None:
    source = timm.create_model(name).eval()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = TimmStages(name, weights=tmp_path / "w.safetensors").eval()
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network.features(x)[-1], source.forward_features(x))
    with pytest.raises(ValueError, match=r"unexpected: layer1\.0\.se\.fc1\.bias"):
        TimmStages(name.removeprefix("se"), weights=tmp_path / "w.safetensors")


def test_an_rgb_file_serves_a_map_network_as_in_timm(tmp_path: Path) -> None:
    save_file(timm.create_model("mobilenetv2_050").state_dict(), tmp_path / "w.safetensors")
    network = TimmStages("mobilenetv2_050", 1, weights=tmp_path / "w.safetensors").eval()
    rgb = TimmStages("mobilenetv2_050", 3, weights=tmp_path / "w.safetensors").eval()
    x = torch.rand(1, 1, 64, 64)
    expected = rgb.stage(0, x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network.stage(0, x), expected, rtol=1e-4, atol=1e-5)


def test_the_file_of_another_model_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"for timm model resnet18 do not fit: .*unexpected: layer1\.2\."
    ):
        TimmStages("resnet18", weights=tmp_path / "w.safetensors")


def test_model_arguments_reach_timm() -> None:
    network = TimmStages("mobilenetv2_050", pad_type="same").eval()
    plain = TimmStages("mobilenetv2_050").eval()
    plain.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(network.stage(0, x), plain.stage(0, x), atol=1e-3)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean.*mobilenetv2_100"):
        TimmStages("mobilenet_v2_100")
    with pytest.raises(ValueError, match=r"timm\.list_models"):
        TimmStages("????")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "hand on tokens"),
        ("vit_small_patch16_224", "hand on tokens"),
        ("hrnet_w18_small", "HighResolutionNetFeatures"),
    ],
)
def test_families_without_a_list_of_stages_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"no list of stages.*{reason}.*choose one with plain"):
        TimmStages(name)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (2, 4, 8, 16, 32)),
        ("mobilenetv3_small_100", (2, 4, 8, 16, 32)),
        ("mobilenetv2_100", (2, 4, 8, 16, 32)),
        ("efficientnet_b0", (2, 4, 8, 16, 32)),
        ("regnetx_002", (2, 4, 8, 16, 32)),
        ("densenet121", (2, 4, 8, 16, 32)),
        ("darknet17", (1, 2, 4, 8, 16, 32)),
        ("convnext_tiny", (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", (4, 8, 16, 32)),
    ],
)
def test_the_families_have_the_strides_that_the_description_says(
    name: str, strides: tuple[int, ...]
) -> None:
    assert TimmStages(name).strides == strides


def test_stages_that_hand_on_more_than_a_tensor_are_refused() -> None:
    with pytest.raises(ValueError, match="level 1 gives a list"):
        TimmStages("selecsls42")


def test_arguments_that_the_model_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="img_size"):
        TimmStages("resnet18", img_size=64)
    with pytest.raises(ValueError, match="pad_typ"):
        TimmStages("resnet18", pad_typ="same")
    with pytest.raises(ValueError, match="not both"):
        TimmStages("resnet18", weights=Path("w.safetensors"), pretrained=True)


def test_a_hub_out_of_reach_is_an_error_that_tells_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("cannot find the file on the hub")

    monkeypatch.setattr(timm_stages, "require_hub", lambda name: None)
    monkeypatch.setattr(timm, "create_model", absent)
    with pytest.raises(ValueError, match=r"find the file on the hub.*file of them by --we"):
        TimmStages("resnet18", pretrained=True)


def unreachable(*args: Any, **options: Any) -> Any:
    raise OSError("no route to host")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without network, proxy and stored files."""
    monkeypatch.setattr(timm_stages, "getproxies", dict)
    monkeypatch.setattr(timm_stages, "try_to_load_from_cache", lambda *file: None)
    monkeypatch.setattr(socket, "create_connection", unreachable)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("ask", [
    require_hub, hub_weights, lambda name: TimmStages(name, pretrained=True)
])  # fmt: skip
def test_a_hub_out_of_reach_is_told_at_once(ask: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match=r"no route to host.*file of them by --weights"):
        ask("resnet18.a1_in1k")


@pytest.mark.usefixtures("offline")
def test_what_the_hub_does_not_have_is_no_matter_of_the_network() -> None:
    require_hub("cnn")
    with pytest.raises(ValueError, match="timm cannot build cnn"):
        hub_weights("cnn")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("way", ["getproxies", "try_to_load_from_cache"])
def test_a_proxy_or_a_stored_file_is_left_to_the_hub(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm_stages, way, lambda *args: "/somewhere")
    require_hub("resnet18.a1_in1k")
