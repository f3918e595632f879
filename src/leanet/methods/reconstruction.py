"""Reconstruction: what would this picture look like if it were normal?

Phase 1 of LEA-Net (Katafuchi & Tokunaga, arXiv 2109.05493). A network learns from *normal* images
to give back an image of which it sees a part only: its lightness, a noisy, coarse, turned or
pierced copy (`leanet.methods.tasks`). Anomalies it has not learned to repair; the difference to the
original is the anomaly map, and its mean the image score.

Different from the paper and its programs: the network is half as wide (`base` 32; `--preset paper`
has 64 and 500 epochs), early stopping looks at held-out normals and restores the best weights, and
the corruption of maps repeats from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from leanet.config import option
from leanet.data.folds import hold_out
from leanet.data.loader import Source
from leanet.methods.recipe import (
    INFERENCE_BATCH,
    DetectorModule,
    Experience,
    HeldOut,
    Material,
    Trained,
    score_images,
)
from leanet.methods.tasks import (
    MAP_UNITS,
    InpaintMasks,
    Question,
    Task,
    answer,
    default_metric,
    error_map,
    in_rgb,
    in_task_space,
    network_input,
    num_channels,
    spoil,
    target,
    views,
)
from leanet.networks.reconstructors import build_reconstructor
from leanet.ops.color import fancy_pca, fancy_pca_shift, rgb_principal_components
from leanet.ops.maps import MapReduction, fit_scale, map_score
from leanet.progress import say_once
from leanet.records import NORMAL, Batch, Fold, Prediction
from leanet.runtime import Runtime
from leanet.training.loop import Job, Loss, Schedule, best_epoch, fit, mean_losses

Model = Literal["unet", "ae", "segnet", "unetres"]

FEWEST_FOR_HOLD_OUT = 20  # with fewer training normals all of them train
SKIPPING: tuple[Model, ...] = ("unet", "unetres")  # hand features past the bottleneck
LITTLE_SHIFT = 1.0  # grey levels


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of a reconstructor."""

    task: Task = option("reconstruction", "what the network is asked to restore")
    model: Model = option(
        "ae", "unet (the paper's), ae (no skips), segnet, unetres (ae with skips at every size)"
    )
    epochs: int = option(100, "upper limit; early stopping may end sooner")
    batch_size: int = option(16, "images per step")
    lr: float = option(1e-3, "step size of Adam")
    lr_schedule: Literal["constant", "cosine"] = option("constant", "course of the step size")
    patience: int = option(20, "epochs without improvement before stopping; 0 = never stop early")
    val_fraction: float = option(0.1, "share of the training normals held out to stop on")
    monitor: Literal["val", "train"] = option(
        "val", "loss to stop on: of held-out normals where there are any, or of the training"
    )
    base: int = option(32, "channels of the network's first stage; the paper's Table 9 has 64")
    dropout: float = option(0.0, "dropout in the first three decoder layers of unet")
    loss: Literal["mse", "bce", "l1"] = option("mse", "distance of the answer and the truth")
    pca_sigma: float = option(
        0.1, "SD of the fancy PCA color shift in training, colorization only; 0 = none"
    )
    pca_form: Literal["variance", "std"] = option(
        "variance", "shift by eigenvalues (Krizhevsky 2012) or by their square roots"
    )
    map_metric: Literal["auto", "ciede2000", "l1", "l2"] = option(
        "auto", "distance in the map; auto = ciede2000 for colorization, l1 for the other tasks"
    )
    draws: int = option(4, "corruptions that a map of denoise or inpaint is the mean of")
    inpaint_masks: InpaintMasks = option(
        "random", "holes while maps are made; complementary: each pixel once, error under the holes"
    )
    map_score: MapReduction = option("mean", "how a map becomes an image score")
    map_quantile: float = option(0.999, "of the training normals' pixels: the unit s of the map")
    map_headroom: float = option(4.0, "h: a steered network sees clip(map / (h s), 0, 1)")

    def __post_init__(self) -> None:
        if not 0 < self.map_quantile <= 1 or self.map_headroom <= 0:
            raise ValueError(
                f"map_quantile {self.map_quantile} must lie in (0, 1] and map_headroom "
                f"{self.map_headroom} be > 0"
            )
        question_of(self, seed=0)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"base": 64, "epochs": 500, "lr": 1e-3, "lr_schedule": "constant"}
}


class Normals(NamedTuple):
    """Normal images to train on, to stop on, and for how long where nothing is held out."""

    rest: tuple[int, ...]
    held: tuple[int, ...] = ()
    epochs: int | None = None


class Fitted(NamedTuple):
    """A reconstructor, after how many epochs it was best, and remarks (JSON)."""

    detector: Reconstructor
    epochs: int
    remarks: dict[str, Any]


class Reconstructor(DetectorModule):
    """Detector: score [B] and map [B, 1, S, S], both in `map_unit` (dE00, L1 or L2)."""

    def __init__(
        self,
        network: nn.Module,
        question: Question,
        img_size: int,
        how: MapReduction = "mean",
        map_top: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.question, self.img_size = network, question, img_size
        self.how, self.map_top = how, map_top
        self.pca: dict[str, Any] | None = None  # of the training normals, for the record
        self.map_unit = MAP_UNITS[question.metric]

    def forward(self, image: Tensor) -> Prediction:
        """Images [B, 3, S, S] in [0, 1] -> Prediction."""
        image = in_task_space(self.question.task, image)
        errors = [weight * error_map(self.question, image, o) for o, weight in self._outputs(image)]
        anomaly_map = sum(errors[1:], start=errors[0])
        return Prediction(map_score(anomaly_map, self.how), anomaly_map)

    def restore(self, image: Tensor) -> Tensor:
        """Images as the network would have them, in the space of the task, [B, 3, S, S]."""
        task = self.question.task
        answers = [weight * answer(task, image, o) for o, weight in self._outputs(image)]
        return sum(answers[1:], start=answers[0])

    def extra(self) -> dict[str, Any]:
        """Top of the display scale, seed of the draws, colors of the training normals."""
        return {"map_top": self.map_top, "seed": self.question.seed, "pca": self.pca}

    def explain(self, image: Tensor) -> dict[str, Tensor]:
        """The restored image, RGB [B, 3, S, S]; the mean one where several views are looked at."""
        task = self.question.task
        return {"repainted": in_rgb(task, self.restore(in_task_space(task, image)))}

    def _outputs(self, image: Tensor) -> list[tuple[Tensor, float | Tensor]]:
        """What the network makes of every view, and its weight."""
        task = self.question.task
        return [
            (self.network(network_input(task, seen)), weight)
            for seen, weight in views(self.question, image)
        ]


def question_of(config: Config, seed: int) -> Question:
    """What the options ask for; `seed` is that of the draws."""
    metric = default_metric(config.task) if config.map_metric == "auto" else config.map_metric
    return Question(
        task=config.task,
        metric=metric,
        draws=config.draws,
        inpaint_masks=config.inpaint_masks,
        seed=seed,
    )


def build(config: Config, img_size: int, extra: dict[str, Any]) -> Reconstructor:
    """The detector with random weights; `extra` as `Reconstructor.extra` gives it."""
    question = question_of(config, seed=extra.get("seed", 0))
    network = build_network(config, img_size)
    detector = Reconstructor(network, question, img_size, config.map_score, extra["map_top"])
    detector.pca = extra.get("pca")
    return detector


def build_network(config: Config, img_size: int) -> nn.Module:
    """The network that `config.model` names, with random weights."""
    return build_reconstructor(
        config.model,
        *num_channels(config.task),
        img_size=img_size,
        base=config.base,
        dropout=config.dropout,
    )


def train(
    config: Config,
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
    experience: Experience | None = None,
) -> Trained:
    """Train on the normal images of `fold.train`; the anomalous ones are not looked at."""
    normals = tuple(i for i in fold.train if data.labels[i] == NORMAL)
    if experience is None:
        parts = split_normals(config, normals, data, runtime)
    else:
        parts = Normals(normals, epochs=experience.epochs)
    detector, epochs, remarks = train_on(config, parts, data, folder, runtime, name=fold.name)
    detector.map_top = display_top(config, detector, data, parts.held or normals)
    if experience is not None:
        return Trained(detector, experience.held_out, epochs, remarks)
    unseen = parts.held or normals
    scores = score_images(detector, data.images, unseen)
    remarks["threshold_in_sample"] = not parts.held
    return Trained(detector, HeldOut(unseen, scores), epochs, remarks)


@torch.inference_mode()
def display_top(
    config: Config, detector: Reconstructor, data: Material, normals: Sequence[int]
) -> float:
    """Where the color scale of heat maps ends: a high quantile of normal pixels."""
    source = Source(images=data.images, labels=data.labels, indices=tuple(normals))
    maps = (detector(batch.image).map for _, batch in source.ordered(INFERENCE_BATCH))
    scale = fit_scale((anomaly_map.cpu() for anomaly_map in maps), config.map_quantile)
    return scale.divisor


def split_normals(
    config: Config, normals: Sequence[int], data: Material, runtime: Runtime
) -> Normals:
    """The normals in two parts; nothing is held out of fewer than 20."""
    if len(normals) < FEWEST_FOR_HOLD_OUT or config.val_fraction == 0:
        return Normals(tuple(normals))
    rest, held = hold_out(normals, data.samples, config.val_fraction, seed=runtime.seed)
    return Normals(tuple(rest), tuple(held))


def train_on(
    config: Config,
    normals: Normals,
    data: Material,
    folder: Path,
    runtime: Runtime,
    *,
    name: str,
) -> Fitted:
    """Train on these normals; what is worth knowing beforehand is told on standard error."""
    with runtime.seeded(name, "colorizer"):  # for every task, as measured results began with it
        extra = {"map_top": 0.0, "seed": runtime.seed}
        detector = build(config, data.img_size, extra).to(runtime.device)
    source = Source(images=data.images, labels=data.labels, indices=normals.rest)
    held = Source(images=data.images, labels=data.labels, indices=normals.held)
    shift = ColorShift.of(config, source)
    detector.pca = None if shift is None else shift.to_dict()
    remarks = _remarks(config, shift)
    loss = _loss(config, detector.question, shift)
    validated = bool(normals.held) and config.monitor == "val"
    schedule = Schedule(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        patience=config.patience,
        monitor="" if normals.epochs else "val_loss" if validated else "train_loss",
        stop_at=normals.epochs,
    )
    job = Job(
        name=name,
        network=detector.network,
        loss=loss,
        source=source,
        schedule=schedule,
        validate=partial(mean_losses, loss=loss, source=held, batch_size=config.batch_size)
        if normals.held
        else None,
        files=[sample.path for sample in data.samples],
    )
    records = fit(job, runtime, folder)
    detector.eval()
    return Fitted(detector, best_epoch(records, schedule.monitor) + 1, remarks)


@dataclass(frozen=True)
class ColorShift:
    """Fancy PCA of the training normals: what images are shifted by in training."""

    eigenvalues: Tensor
    eigenvectors: Tensor
    config: Config

    @classmethod
    def of(cls, config: Config, source: Source) -> ColorShift | None:
        """None for tasks and options without such a shift."""
        if config.task != "colorization" or config.pca_sigma <= 0:
            return None
        pixels = (batch.image for _, batch in source.ordered(config.batch_size))
        return cls(*rgb_principal_components(pixels), config)

    def grey_levels(self) -> float:
        """SD of the shift, of the 256 levels of 8 bits."""
        values, vectors, config = self.eigenvalues, self.eigenvectors, self.config
        return float(
            fancy_pca_shift(values, vectors, config.pca_sigma, form=config.pca_form).norm()
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the eigenvectors are columns."""
        values, vectors = self.eigenvalues.tolist(), self.eigenvectors.tolist()
        return {"eigenvalues": values, "eigenvectors": vectors}

    def __call__(self, image: Tensor) -> Tensor:
        """Images [B, 3, S, S], each with another draw."""
        alpha = torch.randn(len(image), 3).to(image) * self.config.pca_sigma
        form = self.config.pca_form
        return fancy_pca(image, self.eigenvalues, self.eigenvectors, alpha=alpha, form=form)


def _remarks(config: Config, shift: ColorShift | None) -> dict[str, Any]:
    """What is worth knowing before the training; it is also said."""
    remarks: dict[str, Any] = {}
    notices = []
    if shift is not None:
        remarks["color_shift"] = levels = shift.grey_levels()
        say_once(f"fancy PCA shifts colors by {levels:.1f} grey levels (SD)")
        if levels < LITTLE_SHIFT:
            notices.append(
                f"fancy PCA hardly changes these images ({levels:.2f} grey levels); "
                "--pca_form std or a higher --pca_sigma shifts more"
            )
    if config.task == "reconstruction" and config.model in SKIPPING:
        notices.append(
            f"model {config.model} hands the image past its bottleneck, which makes plain "
            "reconstruction easy for anomalies too; model ae has no such way"
        )
    for notice in notices:
        say_once(notice)
    return remarks | ({"notices": notices} if notices else {})


def _loss(config: Config, question: Question, shift: ColorShift | None) -> Loss:
    """Distance of answer and truth: in training for one drawn corruption, else for those that
    maps are made with."""
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy,
        "l1": functional.l1_loss,
    }
    distance, task = distances[config.loss], config.task

    def loss(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if network.training:
            shifted = batch.image if shift is None else shift(batch.image)
            image = in_task_space(task, shifted)
            seen = [spoil(task, image)]
        else:
            image = in_task_space(task, batch.image)
            seen = [view.seen for view in views(question, image)]
        wanted = target(task, image).clamp(0, 1)
        losses = [distance(network(network_input(task, one)).float(), wanted) for one in seen]
        return {"loss": torch.stack(losses).mean()}

    return loss
