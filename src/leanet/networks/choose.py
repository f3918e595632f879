"""Networks by name: the classifiers (ADN) and the readers of the anomaly map (AAN) of LEA-Net.

The tables are all there is to it: a new network is one more line. `timm/NAME` is any timm backbone
that can be run stage by stage (timm_stages.py says which those are).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from leanet.config import nearest
from leanet.networks.aan import DirectAAN, MobileNetAAN, ResNetAAN
from leanet.networks.abn import ABN
from leanet.networks.attention import self_attention as find_gate
from leanet.networks.blocks import Staged, StagedClassifier
from leanet.networks.cnn import CNN
from leanet.networks.gates import RESNETS, Gates, attach, name_places, resolve
from leanet.networks.resnet import ResNet, Stem
from leanet.networks.timm_stages import TimmStages, has_fixed_size
from leanet.networks.vgg import VGG

TIMM = "timm/"
PLAIN = Gates()


class ADN(NamedTuple):
    """build: (in_chans, num_outputs, gate=) -> network; lr: step size of Adam in the LEA-Net paper,
    or ours where the paper has none."""

    build: Callable[..., StagedClassifier]
    lr: float


ADNS: dict[str, ADN] = {
    "resnet18": ADN(partial(ResNet, 18), 1e-4),
    "resnet34": ADN(partial(ResNet, 34), 1e-4),
    "resnet50": ADN(partial(ResNet, 50), 1e-4),
    "resnet18_stem_conv": ADN(partial(ResNet, 18, stem_conv=True), 1e-4),
    "vgg16": ADN(partial(VGG, 16), 1e-5),
    "vgg19": ADN(partial(VGG, 19), 1e-5),
    "cnn": ADN(CNN, 1e-4),
}
TIMM_LR = 1e-4
AANS: dict[str, Callable[..., Staged]] = {
    "resnet": ResNetAAN,
    "mobilenet": MobileNetAAN,
    "direct": lambda in_chans, num_outputs: DirectAAN(in_chans),
}
"""Name -> network, called with in_chans and num_outputs."""


def build_adn(  # noqa: PLR0913 - what there is to say about a classifier, by name
    name: str,
    in_chans: int = 3,
    num_outputs: int = 1,
    *,
    gates: Gates = PLAIN,
    self_attention: str = "none",
    identity_start: bool = False,
    stem: Stem = "normal",
    dropout: float = 0.0,
    img_size: int | None = None,
    **model_args: Any,
) -> StagedClassifier:
    """The classifier `name` of images [B, in_chans, H, W], with random weights.

    `gates` says which self-attention stands where (gates.py). `self_attention` is the older way,
    that of LEA-Net: a name of attention.py for every block (se with ratio 8 and biases), where
    `identity_start` is for networks that load trained weights; give one of the two. Neither changes
    the other weights that a seed gives. `stem` is a ResNet's. `dropout` is the share of features
    that the last layer does not see while it learns. `img_size` is the side in px, needed by
    timm's families of one fixed size only. `model_args` are those of `TimmStages` and of timm's
    models.

    Raises ValueError for an unknown name, for what the network does not take, and all that
    `TimmStages` refuses.
    """
    if name not in ADNS and not name.startswith(TIMM):
        raise _unknown("ADN", name, ADNS)
    gates = resolve(gates, name)
    _check_adn(name, gates, self_attention, stem, model_args)
    if name.startswith(TIMM):
        network: StagedClassifier = _timm(
            name, in_chans, num_outputs, img_size, dropout=dropout, **model_args
        )
    elif gates.name == "abn":
        network = ABN(
            RESNETS[name], in_chans, num_outputs, start=gates.start, stem=stem, dropout=dropout
        )
    else:
        options: dict[str, Any] = {"stem": stem} if stem != "normal" else {}
        gate = find_gate(self_attention, identity_start=identity_start)
        network = ADNS[name].build(in_chans, num_outputs, gate=gate, dropout=dropout, **options)
    attach(network, gates, name)
    name_places(network)
    return network


def build_aan(
    name: str, in_chans: int = 1, num_outputs: int = 1, *, img_size: int | None = None
) -> Staged:
    """The network `name` for anomaly maps [B, in_chans, H, W], with random weights.

    `direct` has no weights and no head. `img_size` as for `build_adn`.

    Raises ValueError for an unknown name, and all that `TimmStages` refuses.
    """
    if name.startswith(TIMM):
        return _timm(name, in_chans, num_outputs, img_size)
    if name not in AANS:
        raise _unknown("AAN", name, AANS)
    return AANS[name](in_chans, num_outputs)


def paper_lr(adn: str) -> float:
    """The step size of Adam for this classifier in the LEA-Net paper.

    Raises ValueError for an unknown name.

    >>> paper_lr("vgg16"), paper_lr("resnet18"), paper_lr("timm/convnext_tiny")
    (1e-05, 0.0001, 0.0001)
    """
    if adn.startswith(TIMM):
        return TIMM_LR
    if adn not in ADNS:
        raise _unknown("ADN", adn, ADNS)
    return ADNS[adn].lr


def _check_adn(
    name: str, gates: Gates, self_attention: str, stem: str, model_args: Mapping[str, Any]
) -> None:
    """Refuse what the network `name` does not take."""
    if self_attention != "none" and gates.name != "none":
        raise ValueError(
            f"self-attention {self_attention!r} and gates {gates.name!r}: give one of the two"
        )
    if self_attention != "none" and name.startswith(TIMM):
        raise ValueError(
            f"self-attention {self_attention!r} for {name}: timm's blocks have no common place "
            f"for it; use one of {', '.join(ADNS)}, or a timm model that has its own, for "
            f"example timm/seresnet50"
        )
    if stem != "normal" and name not in RESNETS:
        raise ValueError(
            f"stem {stem!r} for {name}: only {', '.join(RESNETS)} have another stem than 'normal'"
        )
    if model_args and not name.startswith(TIMM):
        raise ValueError(
            f"{name} takes no arguments ({', '.join(model_args)}): only timm/NAME does"
        )


def _timm(
    name: str, in_chans: int, num_outputs: int, img_size: int | None, **model_args: Any
) -> TimmStages:
    model = name.removeprefix(TIMM)
    side = img_size if has_fixed_size(model) else None
    return TimmStages(model, in_chans, num_outputs, img_size=side, **model_args)


def _unknown(kind: str, name: str, allowed: Iterable[str]) -> ValueError:
    return ValueError(
        f"{kind} {name!r} is not known: "
        f"allowed are {', '.join(allowed)} and timm/NAME{nearest(name, allowed)}"
    )
