"""The options of CAVGA, and which of them go together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from leanet.config import option
from leanet.data.weak import WeakSplit
from leanet.networks.cavga import Kind, Latent, Layer, Path, has_closed_form
from leanet.networks.dcgan import DiscHead
from leanet.ops.cavga import Normalization

Variant = Literal["R_u", "R_w", "D_u", "D_w"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of CAVGA. [P] marks what the paper says; the rest it leaves open."""

    variant: Variant = option(
        "R_u", "R: ResNet-18, D: DC-GAN layers; u: normal images alone, w: a few anomalous ones too"
    )
    latent: Latent = option("conv", "conv: spatial latent [P]; flat: one vector (ablation) [P]")
    latent_channels: int = option(128, "channels of the latent")
    stem_pool: bool = option(True, "R: max-pool behind the first layer; without, twice as fine")
    weights: str | None = option(None, "R: weight file (safetensors, pt) for the ResNet-18 encoder")
    pretrained: bool = option(False, "R: ImageNet weights from timm's hub (needs a network) [P]")
    dcgan_weights: str | None = option(
        None, "run of `fit dcgan` or weight file to start from; for R the discriminator alone [P]"
    )
    attention_norm: Normalization = option(
        "sigmoid", "from the raw map to [0, 1]: sigmoid, or relu_max (by each image's largest)"
    )
    attention_path: Literal["auto", "autograd"] = option(
        "auto", "auto: in closed form where there is one; autograd: always by double backward"
    )
    attention_layer: Layer = option(
        "last", "features that attention is computed from; previous: grid twice as fine"
    )
    recon: Literal["bce", "mse"] = option("bce", "distance of image and reconstruction")
    kl_weight: float = option(1.0, "of the KL divergence beside the reconstruction [P]")
    kl_reduction: Literal["element_mean", "image_sum"] = option(
        "element_mean", "image_sum keeps attention from expanding"
    )
    w_r: float = option(1.0, "weight of reconstruction and KL [P]")
    w_adv: float = option(1.0, "weight of the adversarial loss [P]; 0 = no discriminator")
    w_ae: float = option(0.01, "u: weight of the attention expansion loss [P]")
    w_c: float = option(0.001, "w: weight of the classification [P]")
    w_cga: float = option(0.01, "w: weight of the complementary guided attention loss [P]")
    adv_mode: Literal["nonsaturating", "saturating"] = option(
        "nonsaturating", "form of the generator's adversarial loss"
    )
    anomaly_map: Literal["attention", "error"] = option(
        "attention", "map: from the attention [P], or |x - reconstruction| pixel by pixel"
    )
    weak_map: Literal["ca", "one_minus_cn"] = option(
        "ca", "w: map = attention of the anomalous class, or what that of the normal one lacks"
    )
    weak_fraction: float = option(0.02, "w: share of all anomalous images to learn from [P]")
    weak_test_split: bool = option(
        False,
        "u: leave out the test images that weak variants learn from, to compare with them",
    )
    recon_on_anomalous: bool = option(False, "w: reconstruct the anomalous images as well")
    head_hidden: int = option(0, "w: width of a hidden layer of the classifier; 0 = none [P]")
    latent_draws: int = option(
        4, "draws of the latent that a test image's reconstruction is the mean of; 0 = from mu"
    )
    score: Literal["mean", "max"] = option("mean", "how |x - reconstruction| becomes the score")
    disc_head: DiscHead = option(
        "mean_logit", "discriminator: mean over its logits, or an image reduced to 64 px (resize64)"
    )
    flip: bool = option(False, "mirror training images left-right at random")
    rotate90: bool = option(False, "turn training images by quarter turns at random")
    lr: float = option(1e-4, "step size of Adam for encoder, latent, decoder and classifier")
    lr_disc: float = option(1e-4, "step size of Adam for the discriminator")
    batch_size: int = option(16, "images per step, at least 8 for BatchNorm")
    epochs: int = option(150, "length; the last epoch counts, none is chosen")
    min_steps: int = option(3000, "at least so many steps, whatever epochs says")
    val_fraction: float = option(0.1, "share of the training normals held out for the limits")

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(
                f"variant {self.variant!r}: allowed are {', '.join(get_args(Variant))}"
            )
        self._refuse_idle()
        self._refuse_negative()
        if self.attention_norm == "minmax":
            raise ValueError(
                "attention_norm minmax stretches every map to [0, 1], so nothing can be learned "
                "from it; use sigmoid or relu_max"
            )
        if self.weights is not None and self.pretrained:
            raise ValueError("give either a file with --weights or --pretrained, not both")
        if not 0 < self.weak_fraction <= 1:
            raise ValueError(f"weak_fraction {self.weak_fraction}: give a share in (0, 1]")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction {self.val_fraction}: give a share in [0, 1)")
        if self.latent_channels < 1 or self.head_hidden < 0 or self.latent_draws < 0:
            raise ValueError(
                f"latent_channels {self.latent_channels}, head_hidden {self.head_hidden}, "
                f"latent_draws {self.latent_draws}: give at least 1, 0 and 0"
            )
        if self.epochs < 1 or self.min_steps < 0 or self.batch_size < 4:
            raise ValueError(
                f"epochs {self.epochs}, min_steps {self.min_steps}, batch_size {self.batch_size}: "
                "give at least 1, 0 and 4"
            )
        if not (self.lr > 0 and self.lr_disc > 0):
            raise ValueError(f"lr {self.lr} and lr_disc {self.lr_disc} must be positive")

    @property
    def kind(self) -> Kind:
        """R or D."""
        return "R" if self.variant.startswith("R") else "D"

    @property
    def weak(self) -> bool:
        """Whether it learns from a few anomalous images too."""
        return self.variant.endswith("w")

    @property
    def weak_split(self) -> WeakSplit | None:
        """What becomes of the test set for the sake of weak labels; None = nothing."""
        used = self.weak or self.weak_test_split
        return WeakSplit(self.weak_fraction, learn=self.weak) if used else None

    @property
    def path(self) -> Path:
        """How attention is computed."""
        closed = has_closed_form(
            weak=self.weak, head_hidden=self.head_hidden, layer=self.attention_layer
        )
        return "closed" if closed and self.attention_path == "auto" else "autograd"

    def _refuse_negative(self) -> None:
        """A term with a negative weight would be driven up."""
        given = {name: getattr(self, name) for name in _WEIGHTS}
        wrong = [f"{name} {value}" for name, value in given.items() if not 0 <= value < math.inf]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: give weights of at least 0")

    def _refuse_idle(self) -> None:
        """Options that this variant has no use for must stand at their defaults."""
        idle = {"w_ae", "weak_test_split"} if self.weak else set(_WEAK_ONLY)
        idle |= {"weak_map"} if self.anomaly_map == "error" else set()
        if not self.weak and self.weak_test_split:
            idle -= {"weak_fraction"}
        if self.kind == "D":
            idle |= {"stem_pool", "weights", "pretrained"}
        defaults: dict[str, Any] = {field.name: field.default for field in fields(Config)}
        used = sorted(name for name in idle if getattr(self, name) != defaults[name])
        if used:
            raise ValueError(
                f"{', '.join(used)}: variant {self.variant} has no use for it; leave it out or "
                "take another --variant"
            )


_WEIGHTS = ("w_r", "w_adv", "w_ae", "w_c", "w_cga", "kl_weight")
_WEAK_ONLY = ("w_c", "w_cga", "weak_map", "weak_fraction", "recon_on_anomalous", "head_hidden")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"pretrained": True},
    "short": {"w_adv": 0.01, "kl_weight": 0.1, "lr": 5e-4, "epochs": 30, "min_steps": 300},
    "one_class": {"variant": "D_u", "batch_size": 64, "epochs": 30, "min_steps": 0},
}
