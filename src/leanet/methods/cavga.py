"""CAVGA: where does the network's attention to normal things end?

A variational autoencoder with a spatial latent learns normal images, against a discriminator, and
its own attention is trained to cover the whole of every normal image. Where attention is missing in
a new image, there is the anomaly (Venkataramanan et al. 2020, arXiv:1911.08616). The weak variants
also learn from a few images that are labeled anomalous, without masks: a classifier on the latent,
whose attention to the normal class is to cover normal images, and to the anomalous class to leave
them alone.

The network is in `leanet.networks.cavga`, its losses in `leanet.ops.cavga`, the training of the two
players in `leanet.methods.cavga_training`. No authors' code exists; what the paper leaves open is a
documented option (`leanet.methods.cavga_config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leanet.data.loader import Part, Source
from leanet.data.pretraining import leak_remark, leaked
from leanet.data.scan import relative_name
from leanet.data.weak import draw_weak
from leanet.methods.cavga_config import PRESETS, Config
from leanet.methods.cavga_monitor import warnings_of
from leanet.methods.cavga_training import Game, train_players
from leanet.methods.normal_limits import map_quantiles, split_normals
from leanet.methods.recipe import (
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.networks.cavga import Cavga, Inside, require_side
from leanet.networks.dcgan import Decoder, Discriminator, Encoder
from leanet.networks.dcgan_weights import load_dcgan
from leanet.networks.timm_stages import hub_weights
from leanet.networks.weights import load_tensors, read_weights
from leanet.ops.cavga import attention, honest_limits, missing, normalized
from leanet.ops.metrics import Threshold, choose_threshold
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL, Fold, Prediction, Sample
from leanet.runtime import Runtime

__all__ = ["PRESETS", "CavgaDetector", "Config", "build", "train"]

WEAK_SHARE = 1 / 8  # of a batch: anomalous images, drawn again and again
PAPER_MAP_THRESHOLD, HONEST_MAP_QUANTILE = 0.5, 0.995
HUB_ENCODER = "resnet18.tv_in1k"


class CavgaDetector(DetectorModule):
    """Detector: score [B] = |image - reconstruction|; map [B, 1, S, S] in [0, 1]: what attention
    lacks (u), or the attention of the anomalous class (w), or, with `anomaly_map` error, that
    difference pixel by pixel.

    parts: `normalized`, the score on a scale on which 0.5 is the 0.99 quantile of held-out normals;
    of the weak variants `classifier`, the logit of anomalous.
    """

    map_top = 1.0
    noise: Tensor

    def __init__(self, config: Config, img_size: int, limits: tuple[float, float]) -> None:
        super().__init__()
        self.config, self.img_size, self.limits = config, img_size, limits
        self.network: Cavga = build_network(config, img_size)
        if config.anomaly_map == "attention":
            self.map_unit, self.map_grid = "attention", self.network.map_grid
            self.map_thresholds = {"paper": PAPER_MAP_THRESHOLD}
        else:
            self.map_unit, self.map_thresholds = "L1", {}
        self.logits = ("classifier",) if config.weak else ()
        fixed = torch.Generator().manual_seed(0)
        shape = (config.latent_draws, *self.network.latent_shape)
        self.register_buffer("noise", torch.randn(shape, generator=fixed), persistent=False)

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        inside = self.network(image)
        error = (image - self._rebuilt(inside)).abs()
        each = error.flatten(1)
        score = each.mean(dim=1) if self.config.score == "mean" else each.amax(dim=1)
        parts = {"normalized": normalized(score, *self.limits)}
        if inside.classes is not None:
            parts["classifier"] = inside.classes[:, 1].float() - inside.classes[:, 0].float()
        if self.config.anomaly_map == "error":
            return Prediction(score, error.mean(dim=1, keepdim=True), parts=parts)
        grid = self._anomaly(inside.attention.float())
        size = (self.img_size, self.img_size)
        anomaly_map = F.interpolate(grid, size, mode="bilinear", align_corners=False)
        return Prediction(score, anomaly_map, parts=parts)

    def prepare(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, S, S] in [0, 1] -> what the network is given."""
        return (image,) if self.config.weak else super().prepare(image)

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        """Logit of anomalous [B, 1] from an `Inside`."""
        if not self.config.weak or head:
            return super().logits_of(output, head)
        classes: Tensor = output.classes
        return classes[:, 1:] - classes[:, :1]

    def extra(self) -> dict[str, Any]:
        """Limits of normal scores and the working points of the map."""
        return {"limits": self.limits, "map_thresholds": self.map_thresholds}

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The reconstruction, RGB [B, 3, S, S], and attention [B, 1, h, w] in [0, 1] on its own
        grid; of the weak variants that of each class."""
        inside = self.network(image)
        covered = attention(inside.attention.float(), self.config.attention_norm)
        names = ("attention_normal", "attention_anomalous") if self.config.weak else ("attention",)
        maps = {name: covered[:, k : k + 1] for k, name in enumerate(names)}
        return {"reconstruction": self._rebuilt(inside), **maps}

    def _rebuilt(self, inside: Inside) -> Tensor:
        """Reconstructions [B, 3, S, S] in [0, 1].

        The decoder has only ever seen noisy latents, and its BatchNorms hold their statistics: fed
        with mu it misses the contrast. So a few draws are averaged, the same for every image.
        """
        if not len(self.noise):
            return inside.logits.float().sigmoid()
        sd = (inside.logvar / 2).exp()
        drawn = [self.network.decode(inside.mu + noise[None] * sd) for noise in self.noise]
        return torch.stack([logits.float().sigmoid() for logits in drawn]).mean(dim=0)

    def _anomaly(self, raw: Tensor) -> Tensor:
        """Raw maps [B, 1 or 2, h, w] -> anomaly map [B, 1, h, w]."""
        how = self.config.attention_norm
        if self.config.weak and self.config.weak_map == "ca":
            return attention(raw[:, 1:], how)
        return missing(raw[:, :1], how)


def build(config: Config, img_size: int, extra: dict[str, Any]) -> CavgaDetector:
    """The detector with random weights; `extra` as `CavgaDetector.extra` gives it."""
    low, high = extra.get("limits", (0.0, 1.0))
    detector = CavgaDetector(config, img_size, (low, high))
    detector.map_thresholds = dict(extra.get("map_thresholds", detector.map_thresholds))
    return detector


def build_network(config: Config, img_size: int) -> Cavga:
    """The network that the options describe, with random weights."""
    return Cavga(
        config.kind,
        config.latent,
        img_size,
        latent_channels=config.latent_channels,
        stem_pool=config.stem_pool,
        weak=config.weak,
        head_hidden=config.head_hidden,
        path=config.path,
        layer=config.attention_layer,
    )


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train on the normal images of `fold.train`; the weak variants on a few anomalous ones too.

    Raises:
        ValueError: an image side or weights that do not fit; a weak variant without anomalous
            images to learn from; a term that became NaN.
    """
    require_side(config.kind, data.img_size, config.stem_pool)
    rest, held = split_normals(fold, data, runtime.seed, experience, config.val_fraction)
    weak = _weak_images(config, fold, data, runtime.seed)
    with runtime.seeded(fold.name, "cavga"):
        detector = build(config, data.img_size, {}).to(runtime.device)
        discriminator = Discriminator(config.disc_head)
    remarks = start_weights(config, detector.network, discriminator)
    if config.dcgan_weights is not None:
        _tell_leaks(Path(config.dcgan_weights), [data.samples[i] for i in fold.test], remarks)
    if weak:
        names = [relative_name(data.samples[i].path, data.root) for i in weak]
        remarks["weak_images"] = names
    game = Game(
        config=config,
        source=_source(data, rest, weak),
        held=_source(data, held),
        runtime=runtime,
        name=fold.name,
        files=tuple(sample.path for sample in data.samples),
    )
    records = train_players(game, detector.network, discriminator, folder)
    health = warnings_of(
        records,
        config.weak,
        kind=config.kind,
        norm=config.attention_norm,
        majority=1 - max(1, round(WEAK_SHARE * config.batch_size)) / config.batch_size,
    )
    remarks["notices"] += health
    for notice in remarks["notices"]:
        say_once(f"{fold.name}: {notice}")
    detector.eval()
    remarks["threshold_in_sample"] = not held and experience is None
    held_out, thresholds = _limit(detector, data, held or rest, experience)
    return Trained(detector, held_out, len(records), remarks, thresholds)


def _limit(
    detector: CavgaDetector,
    data: Material,
    normals: tuple[int, ...],
    experience: Experience | None,
) -> tuple[HeldOut, dict[str, Threshold]]:
    """Set the limits of scores and map by normal images; the scores that they come from, those of
    cross-validation where there are some, and the working points."""
    (limit,) = map_quantiles(detector, data, normals, (HONEST_MAP_QUANTILE,))
    detector.map_thresholds["honest"] = limit
    if experience is not None:
        detector.limits = _limits_of(experience.held_out, data)
        return experience.held_out, _thresholds(experience.held_out, data)
    scores = score_images(detector, data.images, normals)
    detector.limits = honest_limits(scores["score"])
    scores["normalized"] = normalized(torch.tensor(scores["score"]), *detector.limits).tolist()
    thresholds = _thresholds(HeldOut(normals, scores), data)
    thresholds["score"] = Threshold(detector.limits[1], "honest", len(normals), 0)
    return HeldOut(normals, scores), thresholds


def start_weights(config: Config, network: Cavga, discriminator: Discriminator) -> dict[str, Any]:
    """Load what the options name, in place; returns remarks (JSON) on what the start was.

    Raises:
        ValueError: weights that do not fit, or a hub that cannot be reached.
    """
    remarks: dict[str, Any] = {}
    notices = []
    if config.weights is not None or config.pretrained:
        file = None if config.weights is None else Path(config.weights)
        tensors = hub_weights(HUB_ENCODER) if file is None else read_weights(file)
        body = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
        load_tensors(network.encoder, body, source=str(file or HUB_ENCODER), ignore_head=False)
        remarks["encoder"] = str(file or HUB_ENCODER)
    elif config.kind == "R":
        notices.append("the encoder starts at random; the paper's knows ImageNet (--weights FILE)")
    if config.dcgan_weights is not None:
        own = config.kind == "D"
        report = load_dcgan(
            Path(config.dcgan_weights),
            encoder=network.encoder if isinstance(network.encoder, Encoder) and own else None,
            decoder=network.decoder if isinstance(network.decoder, Decoder) and own else None,
            discriminator=discriminator,
        )
        remarks["dcgan_weights"] = report.text()
    else:
        notices.append(
            "the DC-GAN layers start at random; the paper's know faces (--dcgan_weights RUN)"
        )
    return remarks | {"notices": notices}


def _tell_leaks(weights: Path, test: Sequence[Sample], remarks: dict[str, Any]) -> None:
    """Note how many of the test images the weights have been pretrained on."""
    if test:
        remarks["dcgan_leaked"] = leaked(weights, test)
        if remarks["dcgan_leaked"] != 0:
            remarks["notices"].append(leak_remark(weights, test))


def _weak_images(config: Config, fold: Fold, data: Material, seed: int) -> tuple[int, ...]:
    """The anomalous images of the training part to learn from."""
    if not config.weak:
        return ()
    anomalous = [i for i in fold.train if data.labels[i] == ANOMALOUS]
    if not anomalous:
        raise ValueError(
            f"variant {config.variant} learns from a few anomalous images, and the training part "
            "has none; as a source of maps, and without such images, take R_u or D_u"
        )
    if data.weak_moved:
        return tuple(anomalous)
    return draw_weak(data.samples, anomalous, config.weak_fraction, seed)


def _source(data: Material, indices: Sequence[int], weak: tuple[int, ...] = ()) -> Source:
    extra = (Part(weak, WEAK_SHARE),) if weak else ()
    return Source(images=data.images, labels=data.labels, indices=tuple(indices), extra=extra)


def _limits_of(held_out: HeldOut, data: Material) -> tuple[float, float]:
    pairs = zip(held_out.indices, held_out.scores["score"], strict=True)
    return honest_limits([score for i, score in pairs if data.labels[i] == NORMAL])


def _thresholds(held_out: HeldOut, data: Material) -> dict[str, Threshold]:
    """Working points from held-out scores; on the normalized scale it is always 0.5."""
    labels = [data.labels[i] for i in held_out.indices]
    chosen = {name: choose_threshold(labels, own) for name, own in held_out.scores.items()}
    counts = labels.count(NORMAL), labels.count(ANOMALOUS)
    return {**chosen, "normalized": Threshold(0.5, "honest", *counts)}
