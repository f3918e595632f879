"""Guided attention: the map says where to look and what to expect, the labels where it errs.

LEA-Net's external attention (networks/leanet.py) multiplies features by 1 + M, and M, the sigmoid
of features that are never negative, is nearly flat: a gain that the next layer divides out again.
Here the attention is a softmax over the places of the map x itself,

    M = h w softmax(x / T)                  mean 1, so that it moves weight and adds none
    f_p <- M_p f_p                          before the global average pooling of each stage p

so that the pooled features phi are those of the places that look unusual. And the map's own score
z, standardized by normal images, is where the decision begins:

    log-odds = t z + a e + v . phi + b            t, a, v, b: `leanet.ops.correction`

The classifier's stages are frozen: what is learned from few labels is t, a, v and b alone, and they
have one best value. e, standardized like z, is the logit of a copy of the classifier that was
fine-tuned with the labels (methods/tuned.py), which pays where they are many: e = 0 without one.
The pieces are those of attention pooling (Ilse et al. 2018, arXiv:1802.04712),
with attention that needs no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.networks.blocks import StagedClassifier
from leanet.networks.leanet import LEAOutput
from leanet.networks.prior import MapPrior
from leanet.ops.correction import Correction

STRIDES = (8, 16, 32)  # of the stages that are pooled


class GuidedNet(nn.Module):
    """Frozen stages of a classifier, pooled where the map points, and a corrected map score.

    Args:
        adn: classifier of the image; its head is not used.
        prior: gives z.
        strides: of the stages to pool (the last of each); the map is looked at on the grid of the
            first one.
        temperature: T, in SDs of the map's places on normal images; infinity is plain pooling.
        tuned: the fine-tuned copy, whose head is a linear layer on the means of the last stage.

    Attributes:
        points: of the pooled stages, as LEA-Net counts them (stride 8 is point 2, A3).
        explained: the layers for class activation maps, which all lead to the logit directly.
        place_mean, place_sd: of the map's places on normal images.

    Raises:
        ValueError: a stride that the classifier does not have, or T <= 0.
    """

    aan = None
    place_mean: Tensor
    place_sd: Tensor
    trust: Tensor
    joined: Tensor
    tuned_level: Tensor
    tuned_spread: Tensor
    feature_mean: Tensor
    feature_spread: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        adn: StagedClassifier,
        prior: MapPrior,
        strides: Sequence[int] = STRIDES,
        *,
        temperature: float = 0.5,
        tuned: StagedClassifier | None = None,
    ) -> None:
        super().__init__()
        if lacking := [stride for stride in strides if stride not in adn.strides]:
            raise ValueError(
                f"guided attention reads features of stride {', '.join(map(str, strides))}; the "
                f"classifier has {', '.join(map(str, adn.strides))}, none of {lacking[0]}"
            )
        if not temperature > 0:
            raise ValueError(f"temperature {temperature}: give a number > 0")
        self.adn, self.prior = adn.requires_grad_(False).eval(), prior
        last = len(adn.strides) - 1
        self.stages = [last - adn.strides[::-1].index(stride) for stride in strides]
        self.points = tuple(stride.bit_length() - 2 for stride in strides)
        self.explained = tuple(f"stage{stage}" for stage in self.stages)
        self.temperature = temperature
        width = sum(adn.channels[stage] for stage in self.stages)
        self.tuned: StagedClassifier | None = None
        for name in ("place_mean", "bias", "joined", "tuned_level"):
            self.register_buffer(name, torch.zeros(()))
        for name in ("place_sd", "trust", "tuned_spread"):
            self.register_buffer(name, torch.ones(()))
        for name in ("feature_mean", "weight"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("feature_spread", torch.ones(width))
        if tuned is not None:
            self.join(tuned)

    def join(self, tuned: StagedClassifier) -> None:
        """Let a fine-tuned copy of the classifier have a say.

        Raises ValueError for another kind of head than a linear layer on the channels' means."""
        if not has_linear_head(tuned):
            raise ValueError(f"{type(tuned).__name__} has no linear head on the channels' means")
        self.tuned = tuned.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> GuidedNet:
        """Stays in evaluation mode: the statistics of BatchNorm are frozen as well."""
        return super().train(False)

    def forward(self, image: Tensor, anomaly_map: Tensor) -> LEAOutput:
        """Classifier's input [B, 3, H, W], network map [B, 1, H, W] in [0, 1] -> logits [B, 1],
        attention M_p, features before and after it, and the map's score z [B]."""
        return self.judge(self.look(image), anomaly_map, self.ask(image))

    def judge(
        self, before: Sequence[Tensor], anomaly_map: Tensor, tuned: Tensor | None
    ) -> LEAOutput:
        """What `forward` gives, from features that `look` has given and what `ask` has."""
        attention = self.attend(anomaly_map, before)
        after = [f * m for f, m in zip(before, attention, strict=True)]
        phi = (pool(after) - self.feature_mean) / self.feature_spread
        z = self.prior(anomaly_map)
        logit = self.trust * z + phi @ self.weight + self.bias
        if tuned is not None:
            logit = logit + self.joined * tuned.mean(dim=(1, 2, 3))
        return LEAOutput(logit[:, None], None, attention, tuple(before), tuple(after), z, tuned)

    def ask(self, image: Tensor) -> Tensor | None:
        """What the fine-tuned copy says at each place [B, 1, h, w]; the mean is e. None without."""
        if self.tuned is None:
            return None
        f = self.tuned.features(image)[-1]
        fc = cast(nn.Linear, self.tuned.fc)
        said = functional.conv2d(f, fc.weight[:, :, None, None], fc.bias)
        return (said - self.tuned_level) / self.tuned_spread

    def look(self, image: Tensor) -> list[Tensor]:
        """Features f_p [B, K_p, H_p, W_p] of the pooled stages, in order."""
        features: list[Tensor] = []
        f = image
        for index in range(max(self.stages) + 1):
            f = self.adn.stage(index, f)
            if index in self.stages:
                features.append(f)
        return features

    def attend(self, anomaly_map: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Network map [B, 1, H, W] -> M_p [B, 1, H_p, W_p] for each of the features, mean 1."""
        places = self.places(anomaly_map, features[0])
        unusual = (places - self.place_mean) / (self.place_sd * self.temperature)
        flat = unusual.flatten(1)
        fine = (flat.softmax(dim=1) * flat.shape[1]).view_as(places)
        return tuple(_shrink(fine, f.shape[-2:]) for f in features)

    def places(self, anomaly_map: Tensor, features: Tensor) -> Tensor:
        """Network map [B, 1, H, W] on the grid of the first features, [B, 1, h, w]."""
        return _shrink(anomaly_map, features.shape[-2:])

    @torch.no_grad()
    def get_used_to(self, places: Tensor) -> None:
        """Take mean and SD from the places [N, h w] of normal images' maps."""
        self.place_mean.copy_(places.double().mean())
        self.place_sd.copy_(places.double().std().clamp(min=1e-6))

    @torch.no_grad()
    def get_used_to_tuned(self, level: float, spread: float) -> None:
        """Of the fine-tuned copy's logit: its level on normal images, and their spread."""
        self.tuned_level.fill_(level)
        self.tuned_spread.fill_(spread)

    @torch.no_grad()
    def take(self, correction: Correction) -> None:
        """Put in what was learned from the labels."""
        values = zip(
            ("feature_mean", "feature_spread", "weight"),
            (correction.mean, correction.spread, correction.weight),
            strict=True,
        )
        for name, value in values:
            getattr(self, name).copy_(torch.as_tensor(value))
        self.trust.fill_(float(correction.trust[0]))
        self.joined.fill_(float(correction.trust[1]) if len(correction.trust) > 1 else 0.0)
        self.bias.fill_(correction.bias)

    def evidence(self, output: LEAOutput) -> Tensor:
        """What each place adds to the log-odds, beside what the map expects [B, 1, h, w]; its mean
        is the correction without bias. A place without attention adds nothing, but by what the
        fine-tuned copy says of it."""
        widths = [f.shape[1] for f in output.after]
        factors = torch.split(self.weight / self.feature_spread, widths)
        means = torch.split(self.feature_mean, widths)
        told = []
        for f, m, mean, factor in zip(output.after, output.attention, means, factors, strict=True):
            usual = m / m.mean(dim=(2, 3), keepdim=True) * mean.view(-1, 1, 1)
            told.append(((f - usual) * factor.view(-1, 1, 1)).sum(dim=1, keepdim=True))
        size = told[0].shape[-2:]
        if output.tuned is not None:
            told.append(self.joined * output.tuned)
        return torch.stack([_enlarge(one, size) for one in told]).sum(dim=0)

    def named_strengths(self) -> dict[str, float]:
        """None: M itself multiplies."""
        return {}


def has_linear_head(network: StagedClassifier) -> bool:
    """Whether the logit is one linear layer on the means of the last stage's channels."""
    fc = getattr(network, "fc", None)
    return isinstance(fc, nn.Linear) and fc.in_features == network.channels[-1]


def pool(features: Sequence[Tensor]) -> Tensor:
    """Features [B, K_p, H_p, W_p] -> their means over the places, side by side [B, sum of K_p]."""
    return torch.cat([f.mean(dim=(2, 3)) for f in features], dim=1)


def _shrink(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Means over the area of each place."""
    return functional.adaptive_avg_pool2d(planes, (int(size[0]), int(size[1])))


def _enlarge(planes: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(planes, (int(size[0]), int(size[1])), mode="nearest")
