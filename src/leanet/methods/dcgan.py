"""DC-GAN: pretrain a generator and a discriminator on any images (Radford et al. 2016,
arXiv:1511.06434).

Nobody needs its pictures: CAVGA starts from its layers (`leanet fit cavga --dcgan_weights RUN`).
The choices are those of the classic recipe: 64 px, Adam 2e-4 with betas 0.5 and 0.999, batches of
128, 25 epochs, real and generated images in separate passes of the discriminator (BatchNorm would
otherwise tell it which is which), and a generator that raises log D instead of lowering log(1 - D).

Everything random in a step is a function of (seed, name, epoch or step), so a run that was killed
and goes on from its checkpoint ends, on the CPU, with the same weights to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leanet.config import option
from leanet.data.cache import Cache, images_in_unit_range
from leanet.methods.dcgan_monitor import Monitor, require_finite, require_healthy
from leanet.networks.dcgan import NOISE, SIDE, Discriminator, Generator
from leanet.ops.cavga import discriminator_loss, generator_loss
from leanet.progress import Progress
from leanet.runtime import Runtime
from leanet.training import checkpoint, journal
from leanet.training.loop import CHECKPOINT, JOURNAL

SECONDS_BETWEEN_CHECKPOINTS = 60.0  # of 75 MB
BETAS = (0.5, 0.999)
PLAYERS = ("generator", "discriminator")
SNAPSHOT = "snapshot-{:03d}.safetensors"
Show = Callable[[int, Tensor], None]  # finished epochs, drawn images [B, 3, 64, 64] in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the DC-GAN."""

    epochs: int = option(25, "passes over all images")
    batch_size: int = option(128, "images per step; fewer images make one batch of all")
    lr: float = option(2e-4, "step size of Adam for the generator")
    lr_discriminator: float = option(2e-4, "step size of Adam for the discriminator")
    sheet_every: int = option(5, "draw a contact sheet every so many epochs; 0 = at the end only")
    snapshot_every: int = option(0, "keep the weights every so many epochs; 0 = the last only")

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs {self.epochs}, batch_size {self.batch_size}: give at least 1 epoch and 2 "
                "images per batch (batch norm compares them)"
            )
        if min(self.sheet_every, self.snapshot_every) < 0:
            raise ValueError(
                f"sheet_every {self.sheet_every}, snapshot_every {self.snapshot_every}: give 0 "
                "(never) or more"
            )
        if not (self.lr > 0 and self.lr_discriminator > 0):
            raise ValueError(
                f"lr {self.lr}, lr_discriminator {self.lr_discriminator}: give positive ones"
            )


PRESETS: dict[str, dict[str, Any]] = {
    "dcgan64": {"epochs": 25, "batch_size": 128, "lr": 2e-4, "lr_discriminator": 2e-4},
}


class Trained(NamedTuple):
    """Both networks in evaluation mode, what the generator draws of 64 fixed noises
    [64, 3, 64, 64] in [0, 1], and the journal."""

    generator: Generator
    discriminator: Discriminator
    drawn: Tensor
    records: list[journal.Record]


class _Players(NamedTuple):
    """Generator and discriminator in this order: bare, and as Fabric wraps them."""

    networks: tuple[Generator, Discriminator]
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    play: tuple[Any, Any]
    update: tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _Game:
    """What stays the same over a training."""

    config: Config
    images: Cache
    folder: Path
    runtime: Runtime
    name: str
    batch_size: int
    per_epoch: int  # steps


@dataclass
class _State:
    """Steps done, sums over those of the epoch, and when the last checkpoint was written."""

    done: int
    sums: dict[str, float]
    saved: float


def train(
    config: Config,
    images: Cache,
    folder: Path,
    runtime: Runtime,
    *,
    show: Show,
    name: str = "dcgan",
) -> Trained:
    """Train on all cached images [N, 3, 64, 64]; `name` seeds the draws.

    Goes on from the checkpoint in `folder` if there is one.

    Raises:
        ValueError: fewer than two images.
        DcganFailedError: NaN, a discriminator that has won, images all alike; says which.
    """
    game = _game(config, images, folder, runtime, name)
    players = _players(game)
    monitor = Monitor(images, runtime, name)
    state, total = _resume(players, folder), config.epochs * game.per_epoch
    records = journal.rewind(folder / JOURNAL, state.done // game.per_epoch)
    with Progress(name, total=total) as bar:
        bar.skip_to(state.done)
        while state.done < total:
            record = _train_epoch(game, players, state, bar)
            look, drawn = monitor.look(players.networks[0])
            records.append(record | look)
            journal.append(folder / JOURNAL, records[-1])
            require_healthy(records, total)
            _keep(game, players, len(records), drawn, show)
            state.sums = {}
            if state.done == total or _is_due(state):
                _save(players, state, folder)
    generator, discriminator = players.networks
    return Trained(generator.eval(), discriminator.eval(), monitor.look(generator)[1], records)


def save_dcgan(path: Path, generator: Generator, discriminator: Discriminator) -> None:
    """Write both networks into one file, for `networks.dcgan_weights.load_dcgan`."""
    tensors = {
        **checkpoint.under("generator", generator.state_dict()),
        **checkpoint.under("discriminator", discriminator.state_dict()),
    }
    checkpoint.save(path, tensors, {"network": "dcgan", "img_size": SIDE})


def _train_epoch(game: _Game, players: _Players, state: _State, bar: Progress) -> journal.Record:
    """Train until the end of the epoch that `state` is in; the means of what was measured."""
    started, epoch = time.monotonic(), state.done // game.per_epoch
    draw = game.runtime.generator(game.name, "order", epoch)
    order = torch.randperm(len(game.images), generator=draw).tolist()
    for network in players.networks:
        network.train()
    for batch in range(state.done % game.per_epoch, game.per_epoch):
        if batch and _is_due(state):
            _save(players, state, game.folder)
        chosen = order[batch * game.batch_size : (batch + 1) * game.batch_size]
        real = 2 * images_in_unit_range(game.images.take(chosen)) - 1
        losses = _step(game, players, real, state.done)
        require_finite(losses, f"in epoch {epoch + 1}, batch {batch + 1} of {game.per_epoch}")
        state.sums = {key: state.sums.get(key, 0.0) + value for key, value in losses.items()}
        state.done += 1
        bar.advance(note=f"D {losses['d_loss']:.2f}, G {losses['g_loss']:.2f}")
    means = {key: total / game.per_epoch for key, total in state.sums.items()}
    seconds = round(time.monotonic() - started, 3)
    return {"epoch": epoch, "step": state.done, **means, "seconds": seconds}


def _step(game: _Game, players: _Players, real: Tensor, step: int) -> dict[str, float]:
    """One update of the discriminator and one of the generator, on real images [B, 3, 64, 64]."""
    generator, discriminator = players.play
    draw = game.runtime.generator(game.name, "noise", step)
    fake = generator(torch.randn(len(real), NOISE, 1, 1, generator=draw).to(real.device))
    real_logit, fake_logit = discriminator(real).float(), discriminator(fake.detach()).float()
    d_loss = discriminator_loss(real_logit, fake_logit)
    _update(game, players, 1, d_loss)
    players.networks[1].requires_grad_(False)
    g_loss = generator_loss(discriminator(fake).float())
    _update(game, players, 0, g_loss)
    players.networks[1].requires_grad_(True)
    told = {
        "d_loss": d_loss,
        "g_loss": g_loss,
        "d_real": real_logit.sigmoid().mean(),
        "d_fake": fake_logit.sigmoid().mean(),
    }
    return dict(zip(told, torch.stack(list(told.values())).tolist(), strict=True))


def _update(game: _Game, players: _Players, which: int, loss: Tensor) -> None:
    optimizer = players.update[which]
    optimizer.zero_grad(set_to_none=True)
    game.runtime.fabric.backward(loss)
    optimizer.step()


def _keep(game: _Game, players: _Players, epoch: int, drawn: Tensor, show: Show) -> None:
    """Contact sheet and weights of a finished epoch, where they are due."""
    config = game.config
    if config.sheet_every and epoch % config.sheet_every == 0:
        show(epoch, drawn)
    if config.snapshot_every and epoch % config.snapshot_every == 0:
        save_dcgan(game.folder / SNAPSHOT.format(epoch), *players.networks)


def _game(config: Config, images: Cache, folder: Path, runtime: Runtime, name: str) -> _Game:
    if len(images) < 2:
        raise ValueError(f"{len(images)} image(s): a DC-GAN needs two, and is worth it from 1,000")
    size = min(config.batch_size, len(images))
    return _Game(
        config=config,
        images=images,
        folder=folder,
        runtime=runtime,
        name=name,
        batch_size=size,
        per_epoch=len(images) // size,
    )


def _players(game: _Game) -> _Players:
    runtime = game.runtime
    with runtime.seeded(game.name, "weights"):
        networks = Generator(), Discriminator()
    for network in networks:  # convolutions are faster with channels last
        network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rates = (game.config.lr, game.config.lr_discriminator)
    optimizers = _adam(networks[0], rates[0]), _adam(networks[1], rates[1])
    first = runtime.fabric.setup(networks[0], optimizers[0])
    second = runtime.fabric.setup(networks[1], optimizers[1])
    return _Players(networks, optimizers, (first[0], second[0]), (first[1], second[1]))


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr, betas=BETAS, fused=True)


def _is_due(state: _State) -> bool:
    return time.monotonic() - state.saved > SECONDS_BETWEEN_CHECKPOINTS


def _save(players: _Players, state: _State, folder: Path) -> None:
    tensors: checkpoint.State = {}
    for name, network, adam in zip(PLAYERS, players.networks, players.optimizers, strict=True):
        tensors |= checkpoint.under(name, network.state_dict())
        tensors |= checkpoint.under(f"adam_{name}", checkpoint.optimizer_tensors(adam))
    checkpoint.save(folder / CHECKPOINT, tensors, {"step": state.done, "sums": state.sums})
    state.saved = time.monotonic()


def _resume(players: _Players, folder: Path) -> _State:
    """Put back what `_save` wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.exists():
        return _State(0, {}, time.monotonic())
    tensors, metadata = checkpoint.load(path)
    for name, network, adam in zip(PLAYERS, players.networks, players.optimizers, strict=True):
        network.load_state_dict(checkpoint.below(name, tensors))
        checkpoint.load_optimizer(adam, checkpoint.below(f"adam_{name}", tensors))
    return _State(metadata["step"], metadata["sums"], time.monotonic())
