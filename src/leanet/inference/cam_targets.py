"""What a map explains: the score of a class, made of what a network gave.

    logit      z_c
    margin     z_c minus the highest other logit: why this and not that
    log_prob   log softmax(z)_c: its gradients vanish where the network is sure
    score      the anomaly score: 1 - p(normal), or the logit itself of a network with one

A network with a single logit z has the classes normal (0) with the logit -z and anomalous (1) with
the logit z; then logit and margin are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from leanet.config import nearest

Kind = Literal["logit", "margin", "log_prob", "score"]
Which = str | int | Tensor  # "predicted", "true", a name, an index, or one index per image [B]
TWO_CLASSES = ("normal", "anomalous")


def first_tensor(output: Any) -> Tensor:
    """The logits of networks that give them alone, or first."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the network gave a {type(output).__name__}; say with logits_of= which part of it "
            "are the logits [B, K]"
        )
    return output


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A score [B] of what a network gives.

    `which` class: "predicted", "true" (needs `true` [B]), one of `names`, an index for all images,
    or a tensor [B] of indices. `normal` is the index of the normal class, for the kind "score".
    """

    kind: Kind = "logit"
    which: Which = "predicted"
    names: tuple[str, ...] = ()
    true: Tensor | None = None
    normal: int | None = None
    logits_of: Callable[[Any], Tensor] = first_tensor

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"target {self.kind!r} is not known; allowed: {', '.join(get_args(Kind))}, or a "
                "function of the network's output"
            )

    def classes(self, output: Any) -> Tensor:
        """The class [B] that is explained, of every image."""
        logits = two_sided(self.logits_of(output))
        return choose(self.which, logits, self.names, self.true)

    def score(self, output: Any, classes: Tensor) -> Tensor:
        """The score [B] of these classes, float32 (or the logits' float64)."""
        given = self.logits_of(output)
        if given.ndim != 2:
            raise ValueError(f"logits must be [B, K], not {list(given.shape)}; see logits_of=")
        if self.kind == "score":
            return self._anomaly(_wide(given))
        logits = two_sided(given)
        own = logits.gather(1, classes[:, None])[:, 0]
        if self.kind == "logit":
            return own
        if self.kind == "margin":
            others = logits.scatter(1, classes[:, None], -torch.inf).amax(dim=1)
            return own if given.shape[1] == 1 else own - others
        if given.shape[1] == 1:
            return functional.logsigmoid(own)
        return functional.log_softmax(logits, dim=1).gather(1, classes[:, None])[:, 0]

    def name(self, index: int) -> str:
        """What a class is called."""
        return self.names[index] if index < len(self.names) else str(index)

    def _anomaly(self, logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return logits[:, 0]
        if self.normal is None:
            raise ValueError(
                "target score needs to know which class is the normal one; take logit or margin"
            )
        return 1 - logits.softmax(dim=1)[:, self.normal]


Asked = str | Target | Callable[[Any], Tensor]
"""A kind of score of the predicted class, a target, or a function of the output that gives [B]."""


def as_target(asked: Asked) -> Target | Callable[[Any], Tensor]:
    """A word as the target that it stands for.

    Raises:
        ValueError: no such kind.
    """
    return Target(kind=asked) if isinstance(asked, str) else asked  # type: ignore[arg-type]


def fix(asked: Asked, classes: Tensor | None) -> Target | Callable[[Any], Tensor]:
    """The same for these classes [B], whatever a network will say; None for a function."""
    target = as_target(asked)
    if isinstance(target, Target) and classes is not None:
        return dataclasses.replace(target, which=classes)
    return target


def rows_of(
    target: Target | Callable[[Any], Tensor], rows: Tensor
) -> Target | Callable[[Any], Tensor]:
    """A target with fixed classes [B], for a batch of such rows [N] of the images."""
    if isinstance(target, Target) and isinstance(target.which, Tensor):
        return dataclasses.replace(target, which=target.which[rows.to(target.which.device)])
    return target


def repeated(
    target: Target | Callable[[Any], Tensor], times: int
) -> Target | Callable[[Any], Tensor]:
    """A target with fixed classes [B], for the same images several times in a row."""
    if isinstance(target, Target) and isinstance(target.which, Tensor):
        return dataclasses.replace(target, which=target.which.repeat(times))
    return target


def two_sided(logits: Tensor) -> Tensor:
    """One logit z [B, 1] as those of normal and anomalous [B, 2], (-z, z); others [B, K] as they
    are; both in float32 at least."""
    logits = _wide(logits)
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def choose(which: Which, logits: Tensor, names: Sequence[str], true: Tensor | None) -> Tensor:
    """The class index [B] for logits [B, K].

    Raises:
        ValueError: an unknown name, an index outside 0 to K - 1, or "true" without true classes.
    """
    if isinstance(which, str) and which == "predicted":
        return logits.detach().argmax(dim=1)
    if isinstance(which, str) and which == "true":
        if true is None:
            raise ValueError("the true class of these images is not known; take predicted")
        which = true
    if isinstance(which, str):
        which = class_index(which, names)
    index = torch.as_tensor(which, device=logits.device).long()
    if index.shape not in ((), (len(logits),)):
        raise ValueError(f"classes: give one for all or {len(logits)}, not {list(index.shape)}")
    index = index.expand(len(logits))
    if ((index < 0) | (index >= logits.shape[1])).any():
        raise ValueError(f"class {which}: give an index from 0 to {logits.shape[1] - 1}")
    return index


def class_index(name: str, names: Sequence[str]) -> int:
    """The index of a class by its name, or by a number that is no name.

    >>> class_index("rust", ["good", "rust"]), class_index("1", ["good", "rust"])
    (1, 1)

    Raises:
        ValueError: no such class.
    """
    if name in names:
        return list(names).index(name)
    if name.isdigit():
        return int(name)
    raise ValueError(
        f"class {name!r} is not known{nearest(name, names)}; give predicted, true, an index, or "
        f"one of {', '.join(names) or 'the names (this network has none)'}"
    )


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
