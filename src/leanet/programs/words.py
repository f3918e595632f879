"""The words of the original programs' command line, in the words of ours.

Names of networks and input methods, attention points, strengths, the GPU and the folds: each
function turns what a user wrote into what our networks take, or refuses it with what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

from leanet.config import UsageError, nearest
from leanet.programs.flags import InputMethod

POINTS: Final = range(5)
Points: TypeAlias = tuple[int, ...] | Literal["auto"]


class Classifier(NamedTuple):
    """Our name of an ADN, and the paper's step size for it (ours where the paper has none)."""

    name: str
    lr: float


ADNS: Final = {
    "ResNet18": Classifier("resnet18", 1e-4),
    "ResNet50": Classifier("resnet50", 1e-4),
    "VGG16": Classifier("vgg16", 1e-5),
    "VGG19": Classifier("vgg19", 1e-5),
    "CNN": Classifier("cnn", 1e-4),
}
TIMM_LR: Final = 1e-4
AANS: Final = {"MobileNet": "mobilenet", "ResNet": "resnet", "Direct": "direct"}
AdnInput = Literal["image", "map", "4_channel", "attentioned", "multiplied"]
ADN_INPUTS: Final[dict[InputMethod, AdnInput]] = {
    "img_and_attMap": "image",
    "img_only": "image",
    "attMap_only": "map",
    "4_channel": "4_channel",
    "attMap_to_img": "attentioned",
    "multiply": "multiplied",
}


def classifier(name: str) -> Classifier:
    """The ADN that `--model_ADN` names.

    >>> classifier("VGG16"), classifier("timm:resnet26")
    (Classifier(name='vgg16', lr=1e-05), Classifier(name='timm/resnet26', lr=0.0001))
    """
    if name.startswith("timm:"):
        return Classifier("timm/" + name.removeprefix("timm:"), TIMM_LR)
    if name not in ADNS:
        raise UsageError(f"--model_ADN {name}{nearest(name, ADNS)}: {_allowed(ADNS)}, timm:NAME")
    return ADNS[name]


def attention_network(name: str) -> str:
    """The AAN that `--model_AAN` names.

    >>> attention_network("Direct")
    'direct'
    """
    if name.startswith("timm:"):
        return "timm/" + name.removeprefix("timm:")
    if name not in AANS:
        raise UsageError(f"--model_AAN {name}{nearest(name, AANS)}: {_allowed(AANS)}, timm:NAME")
    return AANS[name]


def parse_points(words: Iterable[int | str]) -> tuple[Points, bool]:
    """The attention points that some words name, ascending, and whether one stood there twice.

    No word, and `None` alone, mean no attention.

    Raises:
        UsageError: an unknown word, or `None` or `auto` beside others.

    >>> parse_points([3, "0", 3]), parse_points(["None"]), parse_points(["auto"])
    (((0, 3), True), ((), False), ('auto', False))
    """
    named = [str(word) for word in words]
    allowed = [str(point) for point in POINTS]
    unknown = [word for word in named if word not in (*allowed, "None", "auto")]
    if unknown:
        raise UsageError(
            f"--attention_points {' '.join(named)}: {', '.join(unknown)} is no attention point; "
            f"allowed are {', '.join(allowed)} (A1 to A5), None, auto"
        )
    for alone in ("None", "auto"):
        if alone in named and set(named) != {alone}:
            raise UsageError(
                f"--attention_points {' '.join(named)}: {alone} stands alone or not at all; "
                f"leave out {alone} or the others"
            )
    if "auto" in named:
        return "auto", False
    points = sorted({int(word) for word in named if word != "None"})
    return tuple(points), len(named) > max(len(points), 1)


def parse_strength(text: str) -> tuple[float, bool]:
    """The start of w, and whether it is learned.

    >>> parse_strength("paper"), parse_strength("program"), parse_strength("learn:0.5")
    ((1.0, False), (0.0, True), (0.5, True))
    """
    if text in ("paper", "program"):
        return (1.0, False) if text == "paper" else (0.0, True)
    word, _, number = text.partition(":")
    try:
        if word not in ("learn", "fixed"):
            raise ValueError
        return float(number), word == "learn"
    except ValueError:
        raise UsageError(
            f"--attention_strength {text}: allowed are paper, program, learn:W and fixed:W with a "
            "number W, for example learn:0.5"
        ) from None


def gpu_index(asked: int | None, num_gpus: int) -> int | None:
    """The GPU to compute on, None = the CPU.

    Raises:
        UsageError: the machine has no GPU of this index.

    >>> gpu_index(None, 0), gpu_index(None, 2), gpu_index(-1, 2), gpu_index(1, 2)
    (None, 0, None, 1)
    """
    if asked is None:
        return 0 if num_gpus else None
    if asked == -1:
        return None
    if not 0 <= asked < num_gpus:
        listed = ", ".join(map(str, range(num_gpus)))
        there = f"this machine has {listed}" if num_gpus else "this machine has none"
        raise UsageError(f"--GPU {asked}: {there}; -1 is the CPU")
    return asked


def chosen_folds(asked: Collection[int], num_folds: int) -> tuple[int, ...]:
    """The folds to run, counted from 1; all of them if none is named.

    Raises:
        UsageError: a fold that does not exist.
    """
    missing = [str(fold) for fold in asked if not 1 <= fold <= num_folds]
    if missing:
        raise UsageError(f"--fold {', '.join(missing)}: allowed are 1 to {num_folds}")
    return tuple(sorted(set(asked))) or tuple(range(1, num_folds + 1))


def _allowed(names: Iterable[str]) -> str:
    return f"allowed are {', '.join(names)}"
