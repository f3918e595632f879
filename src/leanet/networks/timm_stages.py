"""Any timm backbone whose features come from a plain list of stages, run stage by stage.

timm (Wightman 2019, doi:10.5281/zenodo.4414861) can cut most convolutional and hierarchical
networks into a list of modules in execution order, some of which end a feature level. Those
modules are grouped here into stages, so that features can be steered between them without hooks.
Every network is run once when it is built, and refused if it does not keep what timm's table says:

- strides 2, 4, 8, 16, 32: ResNet and its kin (ResNeXt, Res2Net, SE-ResNet, ResNeSt, RegNet, NFNet,
  DPN), DenseNet, DLA, MobileNetV2 and V3, EfficientNet, GhostNet, RepVGG, MobileOne, MobileViT,
  CoAtNet, MaxViT; VGG and DarkNet have a stage of full size (stride 1) before these;
- strides 4, 8, 16, 32, thus without the point A1 of LEA-Net: ConvNeXt, PoolFormer, FastViT, PVT v2,
  DaViT, FocalNet, EdgeNeXt, and for one image size Swin and Swin v2;
- refused, tokens between the blocks: plain vision transformers (ViT, DeiT, EVA), Hiera, MViT, XCiT,
  Mixer, Twins. A class token travels beside the map there, and a stage hands on nothing but a map;
- refused, no list of modules: HRNet, Xception, NASNet, PiT; or a list that does not hold: Inception
  v3 and v4 (sides are not the image's by the stride), SelecSLS (several tensors between stages).
"""

from __future__ import annotations

import difflib
import socket
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import FeatureListNet
from timm.models._features import FeatureGetterNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from leanet.networks.blocks import StagedClassifier
from leanet.networks.weights import load_tensors, read_weights

HUB_SECONDS = 5.0  # until a hub that does not answer counts as out of reach
HELP = (
    "Give a file of them by --weights (save it on a machine with network), or begin with random "
    "ones: --pretrained false"
)
ADVICE = "choose one with plain stages: resnet18, mobilenetv3_small_100, regnetx_002, ..."


class TimmStages(StagedClassifier):
    """[B, in_chans, H, W] -> logits [B, num_outputs]: a timm backbone, global average, linear head.

    Stages are always [B, C, h, w], also for backbones that keep channels last inside. `img_size`
    is the side in px for families built for one size (Swin, ...; default: timm's own); all others
    take any size, and an `img_size` for them is an error. `weights` is a file of the backbone's
    weights under timm's names (other input channels are adapted, the head is left out);
    `pretrained` takes them from timm's hub. `dropout` stands before the head. `model_args` go to
    timm's model, for example `pad_type="same"` for MobileNets converted from TensorFlow.

    Raises ValueError for an unknown name, a family without steppable stages, an argument that the
    model does not take, weights that do not fit, or a hub that cannot be reached.
    """

    def __init__(
        self,
        name: str,
        in_chans: int = 3,
        num_outputs: int = 1,
        *,
        img_size: int | None = None,
        weights: Path | None = None,
        pretrained: bool = False,
        dropout: float = 0.0,
        **model_args: Any,
    ) -> None:
        super().__init__()
        if weights is not None and pretrained:
            raise ValueError("give either a weights file or pretrained=True, not both")
        if img_size is not None:
            model_args["img_size"] = img_size
        net = _feature_list(name, in_chans, pretrained=pretrained, model_args=model_args)
        if weights is not None:
            tensors = _rename(read_weights(weights), net)
            source = f"{weights} for timm model {name}"
            load_tensors(net, tensors, source=source, ignore_head=False)
        self.strides = tuple(net.feature_info.reduction())
        self.channels = tuple(net.feature_info.channels())
        self._inner_channels_last = net.output_fmt == "NHWC"
        self.stages = nn.ModuleList(_group(net))
        self.gates = nn.ModuleList(nn.Identity() for _ in self.channels)  # gates.py fills them
        self._check_stages(name, in_chans, _probe_size(name, img_size, self.strides))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.channels[-1], num_outputs)

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Run the modules up to feature level `index`, then its self-attention, if any."""
        if self._inner_channels_last and index > 0:
            x = x.permute(0, 2, 3, 1)  # [B, h, w, C]
        out: Tensor = self.stages[index](x)
        out = out.permute(0, 3, 1, 2) if self._inner_channels_last else out
        gated: Tensor = self.gates[index](out)
        return gated

    def head(self, x: Tensor) -> Tensor:
        """Global average, dropout, linear: [B, C, h, w] -> [B, num_outputs]."""
        logits: Tensor = self.fc(self.dropout(x.mean(dim=(2, 3))))
        return logits

    @torch.no_grad()
    def _check_stages(self, name: str, in_chans: int, side: int) -> None:
        """Run a black image once: timm's table of strides and channels must hold stage by stage."""
        self.eval()
        x = torch.zeros(1, in_chans, side, side)
        for index, (stride, channels) in enumerate(zip(self.strides, self.channels, strict=True)):
            expected = (1, channels, -(-side // stride), -(-side // stride))
            try:
                x = self.stage(index, x)
                got = str(tuple(x.shape)) if isinstance(x, Tensor) else f"a {type(x).__name__}"
            except RuntimeError as error:
                got = f"the error {str(error)!r}"
            if got != str(expected):
                raise ValueError(
                    f"timm model {name} cannot be run stage by stage: level {index} gives {got} "
                    f"for {side} px, not {expected}; {ADVICE}"
                )
        self.train()


def has_fixed_size(name: str) -> bool:
    """Whether the timm model is built for one image size (Swin, ...) and so takes `img_size`."""
    config = timm.get_pretrained_cfg(name)
    return config is not None and bool(config.fixed_input_size)


def hub_weights(name: str) -> dict[str, Tensor]:
    """The weights of a whole timm model from timm's hub, under timm's names.

    Raises ValueError if the hub cannot be reached.
    """
    return dict(_create(name, pretrained=True, model_args={}).state_dict())


def require_hub(name: str) -> None:
    """Raise ValueError where the weights of a timm model can be had neither from the cache of
    timm's hub nor from the network: the hub's own client goes on trying for a minute."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return  # timm says so at once, or takes them from elsewhere
    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, f), str) for f in files):
        return
    place = urlsplit(constants.ENDPOINT)
    if place.hostname is None or getproxies():
        return
    try:
        socket.create_connection((place.hostname, place.port or 443), HUB_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"the weights of timm model {name} cannot be downloaded: {place.hostname} cannot be "
            f"reached ({error}). {HELP}"
        ) from error


def _feature_list(
    name: str, in_chans: int, *, pretrained: bool, model_args: Mapping[str, Any]
) -> FeatureListNet:
    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names all"
        raise ValueError(f"timm knows no model {name!r}: {hint}")
    model_args = {"features_only": True, "in_chans": in_chans, **model_args}
    net = _create(name, pretrained=pretrained, model_args=model_args)
    if isinstance(net, EfficientNetFeatures | MobileNetV3Features):  # a list in all but name
        net = FeatureListNet(net, net.feature_info.out_indices, flatten_sequential=True)
    if isinstance(net, FeatureGetterNet):
        raise ValueError(
            f"timm model {name} has no list of stages that can be run one at a time: its features "
            f"come from a method of its own, as (some of) its blocks hand on tokens, not maps "
            f"[B, C, h, w] that could be steered; {ADVICE}"
        )
    if not isinstance(net, FeatureListNet) or net.concat:
        raise ValueError(
            f"timm model {name} has no list of stages that can be run one at a time "
            f"(timm taps it as {type(net).__name__}); {ADVICE}"
        )
    return net


def _create(name: str, *, pretrained: bool, model_args: Mapping[str, Any]) -> nn.Module:
    try:
        if pretrained:
            require_hub(name)
        net: nn.Module = timm.create_model(name, pretrained=pretrained, **model_args)
    except OSError as error:
        raise ValueError(
            f"the weights of timm model {name} cannot be downloaded ({error}). {HELP}"
        ) from error
    except (TypeError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"timm cannot build {name} as a network with {dict(model_args)}: {error}"
        ) from error
    return net


def _group(net: FeatureListNet) -> list[nn.Sequential]:
    """Cut the list of modules after every feature level.

    An in-place activation right behind a level is counted to that level: in timm it overwrites
    the level's features (MobileNetV3's stem), and here no stage may modify its input.
    """
    stages: list[nn.Sequential] = []
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in net.items():
        if stages and not modules and getattr(module, "inplace", False):
            stages[-1].add_module(name, module)
            continue
        modules[name] = module
        if name in net.return_layers:
            stages.append(nn.Sequential(modules))
            modules = OrderedDict()
    return stages


def _rename(tensors: Mapping[str, Tensor], net: FeatureListNet) -> dict[str, Tensor]:
    """Names of the whole model (blocks.0.conv.weight) into those of the list (blocks_0.conv...);
    layers behind the last feature level are left out."""
    renamed = {}
    for key, tensor in tensors.items():
        first, *rest = key.split(".")
        if first in net:
            renamed[key] = tensor
        elif rest and f"{first}_{rest[0]}" in net:
            renamed[".".join([f"{first}_{rest[0]}", *rest[1:]])] = tensor
    return renamed


def _probe_size(name: str, img_size: int | None, strides: tuple[int, ...]) -> int:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return 2 * max(strides)
    return img_size or int(config.input_size[-1])
