"""The options of ADFA and of CFA, which of them go together, and their presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from leanet.config import option
from leanet.methods import patches
from leanet.networks.adfa import Second
from leanet.ops.gate import CmaxOver
from leanet.ops.topk import Scale
from leanet.training.loop import StepSchedule


@dataclass(frozen=True, kw_only=True)
class Config(patches.Config):
    """Options of ADFA; "published" is what its authors' program does."""

    crop: Literal["none", "center"] = option(
        "center", "center looks at the middle 224/256 of each side only; the border stays unseen"
    )
    gamma_d: int = option(
        4, "descriptions have sum of feature channels / gamma_d channels (CFA: 1)"
    )
    gamma_c: int = option(1, "the bank is compressed by K-means to 1/gamma_c of its entries")
    eca: bool = option(True, "attention over the channels of a description (CFA: no)")
    eca_kernel: int = option(9, "channels that one weight of that attention looks at, odd")
    eca_factor: float = option(0.1, "most that attention adds to a channel, as a share of it")
    eca_second: Second = option(
        "max", "second look at a channel beside its mean: its maximum, or avg, its mean once more"
    )
    kl_weight: bool = option(
        True, "multiply the distances of an image by the KL divergence of bank and image (CFA: no)"
    )
    topk: Literal["soft", "hard"] = option(
        "soft", "weigh all entries of the bank by optimal transport, or take the k nearest (CFA)"
    )
    k: int = option(3, "neighbors in the bank")
    eps: float = option(0.1, "soft: regularization of the transport, > 0; near 0 = hard")
    cmax: CmaxOver = option(
        "image", "soft: largest cost over the image, or in training over the batch (published)"
    )
    topk_scale: Scale = option(
        "cmax", "soft, experimental: row scales eps by the nearest distances of each place instead"
    )
    block: int = option(128, "places worked on at a time: memory and speed, not the result")
    loss: Literal["adfa", "cfa"] = option(
        "adfa", "adfa: mean distance; cfa: spheres with a margin around the entries (CFA)"
    )
    nu: float = option(1e-3, "cfa: divides the loss")
    alpha: float = option(0.1, "cfa: margin around the sphere, in squared distance")
    radius: float = option(1e-5, "cfa: radius of the spheres, at the start if it is learned")
    radius_learnable: bool = option(False, "cfa: learn the radius (CFA: yes)")
    hard_negatives: int = option(3, "cfa: neighbors behind the k nearest that are pushed away")
    bank_mean: Literal["images", "batches"] = option(
        "images", "bank: mean over images, or mean of the means of batches (published)"
    )
    epochs: int = option(200, "upper limit; the last epoch counts, none is chosen (CFA: 30)")
    max_steps: int = option(3000, "upper limit of steps; 0 = none (published)")
    batch_size: int = option(10, "images per step, at least 2 (CFA: 4)")
    drop_last: bool = option(False, "leave out the last, smaller batch of an epoch (CFA: yes)")
    lr: float = option(1e-3, "step size of AdamW")
    weight_decay: float = option(5e-4, "how much AdamW shrinks weights, as a rate")
    amsgrad: bool = option(True, "AdamW divides by the largest second moment so far")
    lr_schedule: StepSchedule = option(
        "constant", "warmup_cosine: 10 % of the steps up from a tenth of lr, then down to it again"
    )
    score: Literal["sqrt", "softmin"] = option(
        "sqrt", "of a place: root of its distance, or nearest distance x its softmin share (CFA)"
    )
    image_score: Literal["max", "top_mean"] = option(
        "max", "of an image: largest pixel of the map, or the mean of the top_pixels largest"
    )
    top_pixels: int = option(100, "top_mean: so many pixels")

    def __post_init__(self) -> None:
        self._refuse_contradictions()
        self._refuse_idle()
        self._refuse_outside()

    @property
    def neighbors(self) -> int:
        """How many nearest entries hard top-k asks for in training."""
        return self.k + self.hard_negatives if self.loss == "cfa" else self.k

    def _refuse_contradictions(self) -> None:
        if self.topk == "soft" and (self.loss == "cfa" or self.score == "softmin"):
            raise ValueError(
                f"loss {self.loss} and score {self.score}: cfa and softmin need the single nearest "
                "neighbors; give --topk hard, or --loss adfa --score sqrt"
            )
        if self.kl_weight and self.gamma_c > 1:
            raise ValueError(
                f"gamma_c {self.gamma_c}: a compressed bank has no entry of its own for each place,"
                " which kl_weight compares; give --kl_weight false or --gamma_c 1"
            )

    def _refuse_idle(self) -> None:
        """Options that the other choices have no use for must stand at their defaults."""
        rules = {
            "eca false": (not self.eca, ("eca_kernel", "eca_factor", "eca_second")),
            "topk hard": (self.topk == "hard", ("eps", "cmax", "topk_scale")),
            "topk_scale row": (self.topk_scale == "row", ("cmax",)),
            "loss adfa": (
                self.loss == "adfa",
                ("nu", "alpha", "radius", "radius_learnable", "hard_negatives"),
            ),
            "image_score max": (self.image_score == "max", ("top_pixels",)),
        }
        defaults: dict[str, Any] = {field.name: field.default for field in fields(type(self))}
        for choice, (made, idle) in rules.items():
            used = [name for name in idle if made and getattr(self, name) != defaults[name]]
            if used:
                raise ValueError(
                    f"{', '.join(used)}: {choice} has no use for it; leave it out or choose "
                    f"another {choice.split()[0]}"
                )

    def _refuse_outside(self) -> None:
        """Numbers outside their ranges."""
        least = {
            **dict.fromkeys(("gamma_d", "gamma_c", "eca_kernel", "k", "block", "epochs"), 1),
            **dict.fromkeys(("hard_negatives", "max_steps"), 0),
            "batch_size": 2,
            "top_pixels": 1,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} {getattr(self, name)}: give at least {low}")
        if self.eca_kernel % 2 == 0:
            raise ValueError(f"eca_kernel {self.eca_kernel}: give an odd number of channels")
        for name in ("eps", "nu", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: give a positive number")
        for name in ("eca_factor", "alpha", "radius", "weight_decay", "blur_sigma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: give at least 0")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction {self.val_fraction}: give a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class CfaConfig(Config):
    """Options of CFA: those of ADFA with other defaults."""

    gamma_d: int = option(
        1, "descriptions have sum of feature channels / gamma_d channels (ADFA: 4)"
    )
    eca: bool = option(False, "attention over the channels of a description (ADFA: yes)")
    kl_weight: bool = option(
        False,
        "multiply the distances of an image by the KL divergence of bank and image (ADFA: yes)",
    )
    topk: Literal["soft", "hard"] = option(
        "hard", "weigh all entries of the bank by optimal transport (ADFA), or take the k nearest"
    )
    loss: Literal["adfa", "cfa"] = option(
        "cfa", "adfa: mean distance (ADFA); cfa: spheres with a margin around the entries"
    )
    radius_learnable: bool = option(True, "cfa: learn the radius")
    epochs: int = option(30, "upper limit; the last epoch counts, none is chosen (ADFA: 200)")
    max_steps: int = option(0, "upper limit of steps; 0 = none")
    batch_size: int = option(4, "images per step, at least 2 (ADFA: 10)")
    drop_last: bool = option(True, "leave out the last, smaller batch of an epoch (ADFA: no)")
    score: Literal["sqrt", "softmin"] = option(
        "softmin",
        "of a place: root of its distance (ADFA), or nearest distance x its softmin share",
    )


DIFFERENT: dict[str, Any] = {  # what makes CFA of ADFA
    of_cfa.name: of_cfa.default
    for of_adfa, of_cfa in zip(fields(Config), fields(CfaConfig), strict=True)
    if of_adfa.default != of_cfa.default
}
_TNVISION: dict[str, Any] = {
    "crop": "none",
    "gamma_d": 1,
    "kl_weight": False,
    "topk": "hard",
    "loss": "cfa",
    "score": "softmin",
    "blur_sigma": 0.0,
    "image_score": "top_mean",
    "weight_decay": 1e-4,
    "amsgrad": False,
    "lr_schedule": "warmup_cosine",
    "epochs": 3000,  # never reached: the steps end it
    "batch_size": 2,
}
_OFFICIAL = {"cmax": "batch", "bank_mean": "batches", "max_steps": 0, "val_fraction": 0.0}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": _OFFICIAL,
    "paper": _OFFICIAL,
    "tnvision": _TNVISION,
    "cfa": DIFFERENT,
}
_CFA_OFFICIAL = {"bank_mean": "batches", "val_fraction": 0.0}
CFA_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": _CFA_OFFICIAL,
    "paper": _CFA_OFFICIAL,
    "resize": {"crop": "none"},
    "tnvision": {  # that of ADFA without attention over channels
        **_TNVISION,
        "radius_learnable": False,
        "max_steps": 3000,
        "drop_last": False,
    },
}
