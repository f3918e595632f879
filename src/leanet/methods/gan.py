"""GAN: learn from some images per class to draw more of them.

Two networks against each other have a rhythm of their own, so this file has its own loop: one step
of the discriminator and one of the generator per batch, hinge losses, the same random changes
(DiffAugment) on everything that the discriminator ever sees, and for the generator a term that
pushes two images of one class apart (mode seeking, Mao et al. 2019, arXiv:1903.05628). What draws
images in the end is a moving average of the generator.

Everything random in a step is a function of (seed, name, step), so a run that was killed and goes
on from its checkpoint ends, on the CPU, with the same weights to the bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanet.config import option
from leanet.data.cache import Cache, images_in_unit_range
from leanet.methods.gan_monitor import Monitor, Pool, early_stop, require_healthy
from leanet.networks.gan import GROUP, NOISE, Discriminator, Generator
from leanet.ops.diffaugment import Policy, diff_augment
from leanet.ops.kid import Kid
from leanet.progress import Progress
from leanet.runtime import Runtime
from leanet.training import checkpoint, journal
from leanet.training.loop import CHECKPOINT, JOURNAL, SECONDS_BETWEEN_CHECKPOINTS

CHANGES = ("translation", "cutout", "color")
R1_EVERY = 16
SNAPSHOT = "snapshot-{:06d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the GAN; the side of its images is `img_size`."""

    width: int = option(8, "channels of the generator's finest grid at 64 px: 8, 16, 32 or 64")
    steps: int = option(3000, "batches; from about 3,000 for 64 px")
    batch_size: int = option(16, "images per step, a multiple of 4")
    lr: float = option(2e-4, "step size of Adam for the generator")
    lr_discriminator: float = option(4e-4, "step size of Adam for the discriminator")
    ema: float = option(0.999, "decay of the moving average that draws images; ramped from 0")
    mode_seeking: float = option(
        0.02, "weight of the term against all images of a class alike; 0 = without"
    )
    r1: float = option(0.0, "weight of the gradient penalty on real images; 0 = without")
    policy: tuple[str, ...] = option(
        ("translation", "cutout"), "random changes of what the discriminator sees (DiffAugment)"
    )
    nuisance: Literal["none", "color"] = option(
        "none", "color: colors say nothing about a class, so the changes may change them too"
    )
    flip: Literal["none", "horizontal", "both"] = option(
        "none", "mirror images at random: left-right, or also up-down, if the product allows it"
    )
    only: tuple[str, ...] = option((), "classes to learn; none named = all")
    val_fraction: float = option(
        0.2, "share of the training images left out to watch the training and to judge the images"
    )
    look_every: int = option(100, "steps between two looks at the images (a journal line each)")
    snapshot_every: int = option(0, "keep the generator every so many steps; 0 = the last only")

    def __post_init__(self) -> None:
        if self.batch_size < GROUP or self.batch_size % GROUP:
            raise ValueError(f"batch_size {self.batch_size}: give a multiple of {GROUP}")
        if self.steps < 1 or self.look_every < 1 or self.snapshot_every < 0:
            raise ValueError(
                f"steps {self.steps}, look_every {self.look_every}, snapshot_every "
                f"{self.snapshot_every}: give at least 1, 1 and 0"
            )
        if self.snapshot_every % self.look_every:
            raise ValueError(
                f"snapshot_every {self.snapshot_every}: give a multiple of look_every "
                f"{self.look_every}"
            )
        if self.width < 8 or self.width & (self.width - 1):
            raise ValueError(f"width {self.width}: give a power of two from 8 on")
        if unknown := sorted(set(self.policy) - set(CHANGES)):
            raise ValueError(f"policy {', '.join(unknown)}: allowed are {', '.join(CHANGES)}")


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"img_size": 64, "width": 8},
    "small": {"img_size": 64, "width": 16},
    "medium": {"img_size": 128, "width": 32, "steps": 20000},
    "large": {"img_size": 256, "width": 32, "steps": 20000},
}


class Trained(NamedTuple):
    """The generator that draws (the moving average), the journal, why training stopped
    before its time ("" = it did not), and the KID of training against held-out images."""

    generator: Generator
    records: list[journal.Record]
    stopped: str
    null: Kid | None


class _Players(NamedTuple):
    """The networks, and networks and optimisers as Fabric wraps them."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]  # bare, for checkpoints
    play: tuple[Any, Any]  # generator, discriminator
    update: tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _Game:
    """What stays the same over a training."""

    config: Config
    pool: Pool
    images: Cache
    runtime: Runtime
    name: str


def train(
    config: Config, pool: Pool, images: Cache, folder: Path, runtime: Runtime, name: str = "gan"
) -> Trained:
    """Train on `pool.train` of the cached images; `name` seeds the draws.

    Goes on from the checkpoint in `folder` if there is one.

    Raises:
        GanFailedError: NaN, a discriminator that has won, images all alike; says which.
    """
    game = _Game(config=config, pool=pool, images=images, runtime=runtime, name=name)
    players = _players(game)
    monitor = Monitor(pool, images, runtime, name)
    done = _resume(players, folder)
    records = journal.rewind(folder / JOURNAL, math.ceil(done / config.look_every))
    stopped, saved = early_stop(records, config.steps), time.monotonic()
    with Progress(name, total=config.steps) as bar:
        bar.skip_to(done)
        while done < config.steps and not stopped:
            until = min(done - done % config.look_every + config.look_every, config.steps)
            means = _stretch(game, players, range(done, until), bar)
            done = until
            look = monitor.look(players.ema, players.discriminator)
            records.append({"step": done, **means, **look})
            journal.append(folder / JOURNAL, records[-1])
            require_healthy(records[-1], config.steps)
            stopped = early_stop(records, config.steps)
            if config.snapshot_every and done % config.snapshot_every == 0:
                save_generator(folder / SNAPSHOT.format(done), config, pool.classes, players.ema)
            if done == config.steps or stopped or _is_due(saved):
                _save(players, done, folder)
                saved = time.monotonic()
    return Trained(players.ema.eval(), records, stopped, monitor.null)


def save_generator(
    path: Path, config: Config, classes: Sequence[str], generator: Generator
) -> None:
    """Write a generator and what is needed to build it again."""
    metadata = {
        "network": "gan generator",
        "img_size": generator.side,
        "width": config.width,
        "classes": list(classes),
    }
    checkpoint.save(path, generator.state_dict(), metadata)


def load_generator(path: Path, device: torch.device | str = "cpu") -> tuple[Generator, list[str]]:
    """A generator and its classes, as `save_generator` wrote them.

    Raises:
        ValueError: the file holds something else.
    """
    tensors, metadata = checkpoint.load(path)
    if metadata.get("network") != "gan generator":
        raise ValueError(f"{path} holds no generator; give the weights of a run of `fit gan`")
    generator = Generator(metadata["img_size"], metadata["width"], len(metadata["classes"]))
    generator.load_state_dict(tensors)
    return generator.to(device).eval(), metadata["classes"]


def ema_decay(step: int, limit: float) -> float:
    """Of the moving average at a step: low at first, so that it forgets the initial weights.

    >>> ema_decay(0, 0.999), ema_decay(10**6, 0.999)
    (0.1, 0.999)
    """
    return min(limit, (1 + step) / (10 + step))


def draw_labels(batch_size: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Classes [B] in groups of four alike, each group's drawn evenly."""
    groups = torch.randint(num_classes, (batch_size // GROUP,), generator=generator)
    return groups.repeat_interleave(GROUP)


def mode_seeking(image: Tensor, noise: Tensor) -> Tensor:
    """1 / (r + 0.01), r = how far neighbors (0 and 1, 2 and 3, ...) of one class are apart as
    images [B, 3, S, S] in [0, 1], relative to how far their noise [B, Z] is."""
    apart = (image[0::2] - image[1::2]).abs().mean()
    return 1 / (apart / (noise[0::2] - noise[1::2]).abs().mean() + 0.01)


def _stretch(game: _Game, players: _Players, steps: range, bar: Progress) -> dict[str, float]:
    """Train for some steps; the means of what was measured meanwhile."""
    players.generator.train()
    players.discriminator.train()
    sums: dict[str, Tensor] = {}
    for step in steps:
        draw = game.runtime.generator(game.name, "step", step)
        losses = _train_discriminator(game, players, draw, step) | _train_generator(
            game, players, draw
        )
        _average(players, ema_decay(step, game.config.ema))
        for key, value in losses.items():
            sums[key] = sums.get(key, torch.zeros(())) + value.detach().float().cpu()
        bar.advance()
    return {key: float(total) / len(steps) for key, total in sums.items()}


def _train_discriminator(
    game: _Game, players: _Players, draw: torch.Generator, step: int
) -> dict[str, Tensor]:
    config, (generator, discriminator) = game.config, players.play
    label = draw_labels(config.batch_size, len(game.pool.classes), draw)
    real = 2 * _real_images(game, label, draw) - 1
    noise, fake_label = _noise(game, draw)
    with torch.no_grad():
        fake = 2 * generator(noise, fake_label) - 1
    policy, label = _policy(config), label.to(real.device)
    fake_score = discriminator(diff_augment(fake, policy, draw), fake_label).float()
    penalize = config.r1 > 0 and step % R1_EVERY == 0
    seen = diff_augment(real, policy, draw).requires_grad_(penalize)
    real_score = discriminator(seen, label).float()
    loss = F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()
    total = loss
    if penalize:
        (slope,) = torch.autograd.grad(real_score.sum(), seen, create_graph=True)
        total = loss + config.r1 / 2 * R1_EVERY * slope.square().sum(dim=(1, 2, 3)).mean()
    _update(game, players, 1, total)
    return {"d_loss": loss, "d_real": real_score.mean(), "d_fake": fake_score.mean()}


def _train_generator(game: _Game, players: _Players, draw: torch.Generator) -> dict[str, Tensor]:
    config, (generator, discriminator) = game.config, players.play
    noise, label = _noise(game, draw)
    players.discriminator.requires_grad_(False)
    fake = generator(noise, label)
    score = discriminator(diff_augment(2 * fake - 1, _policy(config), draw), label).float()
    loss = -score.mean()
    seeking = mode_seeking(fake.float(), noise)
    _update(game, players, 0, loss + config.mode_seeking * seeking)
    players.discriminator.requires_grad_(True)
    return {"g_loss": loss, "mode_seeking": seeking}


def _update(game: _Game, players: _Players, which: int, loss: Tensor) -> None:
    optimizer = players.update[which]
    optimizer.zero_grad(set_to_none=True)
    game.runtime.fabric.backward(loss)
    optimizer.step()


def _noise(game: _Game, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise [B, Z] and classes [B] of images to generate."""
    batch_size, device = game.config.batch_size, game.runtime.device
    label = draw_labels(batch_size, len(game.pool.classes), draw)
    return torch.randn(batch_size, NOISE, generator=draw).to(device), label.to(device)


def _real_images(game: _Game, label: Tensor, draw: torch.Generator) -> Tensor:
    """Training images [B, 3, S, S] in [0, 1] of these classes, no two of a group the same where a
    class has four, mirrored at random if the product allows it."""
    chosen: list[int] = []
    for kind in label[::GROUP].tolist():
        own = game.pool.train[kind]
        order = torch.randperm(len(own), generator=draw).tolist()
        chosen += [own[order[k % len(own)]] for k in range(GROUP)]
    image = images_in_unit_range(game.images.take(chosen))
    for axis in {"none": (), "horizontal": (3,), "both": (3, 2)}[game.config.flip]:
        mirrored = torch.rand(len(chosen), 1, 1, 1, generator=draw).to(image.device) < 0.5
        image = torch.where(mirrored, image.flip(axis), image)
    return image


def _policy(config: Config) -> Policy:
    """The strengths of the changes: those that are on, at their usual ones."""
    color = "color" in config.policy or config.nuisance == "color"
    return Policy(
        translation=0.125 * ("translation" in config.policy),
        cutout=0.5 * ("cutout" in config.policy),
        color=1.0 * color,
    )


@torch.no_grad()
def _average(players: _Players, decay: float) -> None:
    pairs = zip(players.ema.parameters(), players.generator.parameters(), strict=True)
    for mean, new in pairs:
        mean.lerp_(new, 1 - decay)


def _players(game: _Game) -> _Players:
    config, runtime, side = game.config, game.runtime, game.images.array.shape[-1]
    with runtime.seeded(game.name, "gan"):
        generator = Generator(side, config.width, len(game.pool.classes))
        discriminator = Discriminator(side, config.width, len(game.pool.classes))
    for network in (generator, discriminator):  # convolutions are faster with channels last
        network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(generator).requires_grad_(False)
    optimizers = (_adam(generator, config.lr), _adam(discriminator, config.lr_discriminator))
    first = runtime.fabric.setup(generator, optimizers[0])
    second = runtime.fabric.setup(discriminator, optimizers[1])
    play, update = (first[0], second[0]), (first[1], second[1])
    return _Players(generator, discriminator, ema, optimizers, play, update)


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr, betas=(0.0, 0.99), fused=True)


def _is_due(saved: float) -> bool:
    return time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS


def _save(players: _Players, done: int, folder: Path) -> None:
    tensors = {
        **checkpoint.under("generator", players.generator.state_dict()),
        **checkpoint.under("discriminator", players.discriminator.state_dict()),
        **checkpoint.under("ema", players.ema.state_dict()),
        **checkpoint.under("adam_g", checkpoint.optimizer_tensors(players.optimizers[0])),
        **checkpoint.under("adam_d", checkpoint.optimizer_tensors(players.optimizers[1])),
    }
    checkpoint.save(folder / CHECKPOINT, tensors, {"step": done})


def _resume(players: _Players, folder: Path) -> int:
    """Put back what `_save` wrote; the number of steps that were done."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    tensors, metadata = checkpoint.load(path)
    players.generator.load_state_dict(checkpoint.below("generator", tensors))
    players.discriminator.load_state_dict(checkpoint.below("discriminator", tensors))
    players.ema.load_state_dict(checkpoint.below("ema", tensors))
    checkpoint.load_optimizer(players.optimizers[0], checkpoint.below("adam_g", tensors))
    checkpoint.load_optimizer(players.optimizers[1], checkpoint.below("adam_d", tensors))
    return int(metadata["step"])
