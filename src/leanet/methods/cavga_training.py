"""How CAVGA learns: two players, in turns, on one screen.

Per batch: a forward pass; a step of the discriminator on real images and reconstructions, in two
passes; a step of the generator's side (encoder, latent, decoder, head), for which the discriminator
is held still. Each player has an optimizer of its own: with one for both, the generator would help
the discriminator.

Everything random in a step is a function of (seed, name, epoch, step), so a run that was killed and
goes on from its checkpoint ends, on the CPU, with the same weights to the bit.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanet.data.loader import Source, epoch_order
from leanet.methods.cavga_config import Config
from leanet.methods.cavga_monitor import require_finite
from leanet.networks.cavga import Cavga, Inside
from leanet.networks.dcgan import Discriminator
from leanet.ops import cavga as terms
from leanet.progress import Progress
from leanet.records import NORMAL, Batch
from leanet.runtime import Runtime
from leanet.training import checkpoint, journal
from leanet.training.loop import CHECKPOINT, JOURNAL, SECONDS_BETWEEN_CHECKPOINTS

LOSSES = (  # these are in the journal as train_...
    *("loss", "reconstruction", "kl", "adversarial", "generator"),
    *("expansion", "guidance", "classification"),
)


Terms = dict[str, Tensor]  # name of a loss or a figure -> its value in a step


class Players(NamedTuple):
    """Networks and optimizers, bare, and as Fabric wraps them: generator's side, discriminator."""

    network: Cavga
    discriminator: Discriminator
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    play: tuple[Any, Any]
    update: tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Game:
    """What stays the same over a training; `held` are the normals that are only looked at."""

    config: Config
    source: Source
    held: Source
    runtime: Runtime
    name: str
    files: tuple[Path, ...]


def train_players(
    game: Game, network: Cavga, discriminator: Discriminator, folder: Path
) -> list[journal.Record]:
    """Train both in place and return the journal; goes on from the checkpoint in `folder`.

    Raises:
        CavgaFailedError: a term became NaN or infinite; says which, when, and on which files.
    """
    players, config = set_up(game, network, discriminator), game.config
    done, last = _resume(players, folder), num_epochs(config, game.source)
    records, saved = journal.rewind(folder / JOURNAL, done), time.monotonic()
    with Progress(game.name, total=last) as bar:
        bar.skip_to(done)
        while done < last:
            started = time.monotonic()
            order = epoch_order(
                game.source,
                config.batch_size,
                game.runtime.generator(game.name, "order", done),
            )
            record: journal.Record = {"epoch": done, **_epoch(game, players, order, done)}
            record |= look(game, players)
            records.append(record | {"seconds": round(time.monotonic() - started, 3)})
            journal.append(folder / JOURNAL, records[-1])
            done += 1
            if done == last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                _save(players, done, folder)
                saved = time.monotonic()
            bar.advance(note=f"loss {record['train_loss']:.4f}")
    return records


def num_epochs(config: Config, source: Source) -> int:
    """Epochs of a training: as many as `epochs`, and enough for `min_steps`."""
    steps = len(epoch_order(source, config.batch_size, torch.Generator()))
    return max(config.epochs, math.ceil(config.min_steps / steps))


def set_up(game: Game, network: Cavga, discriminator: Discriminator) -> Players:
    """Both players with their optimizers, on the device."""
    config, runtime = game.config, game.runtime
    for module in (network, discriminator):
        module.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = (
        torch.optim.Adam(network.parameters(), config.lr, betas=(0.9, 0.999), fused=True),
        torch.optim.Adam(discriminator.parameters(), config.lr_disc, (0.5, 0.999), fused=True),
    )
    first = runtime.fabric.setup(network, optimizers[0])
    second = runtime.fabric.setup(discriminator, optimizers[1])
    play, update = (first[0], second[0]), (first[1], second[1])
    return Players(network, discriminator, optimizers, play, update)


def train_step(game: Game, players: Players, batch: Batch, draw: torch.Generator) -> Terms:
    """One step of each player."""
    image, normal = augmented(game.config, batch.image, draw), batch.label == NORMAL
    shape = players.network.latent_shape
    noise = torch.randn(len(image), *shape, generator=draw).to(image.device)
    inside: Inside = players.play[0](image, noise)
    seen = torch.ones_like(normal) if game.config.recon_on_anomalous else normal
    values: Terms = {}
    if game.config.w_adv:
        real, rebuilt = 2 * image[seen] - 1, 2 * inside.logits[seen].sigmoid() - 1
        values = discriminator_step(game, players, real, rebuilt.detach())
    return values | generator_step(game, players, image, batch.label, inside)


def discriminator_step(game: Game, players: Players, real: Tensor, rebuilt: Tensor) -> Terms:
    """A step of the discriminator on images [B, 3, S, S] in [-1, 1], in two passes: BatchNorm is
    not to see real and rebuilt images together."""
    judge = players.play[1]
    real_logit, fake_logit = judge(real).float(), judge(rebuilt).float()
    loss = terms.discriminator_loss(real_logit, fake_logit)
    _update(game, players, 1, loss)
    means = {"d_real": real_logit.sigmoid().mean(), "d_fake": fake_logit.sigmoid().mean()}
    return {"adversarial": loss, **means}


def generator_step(
    game: Game, players: Players, image: Tensor, label: Tensor, inside: Inside
) -> Terms:
    """A step of the generator's side on what its forward pass has made of the images."""
    config, normal = game.config, label == NORMAL
    seen = torch.ones_like(normal) if config.recon_on_anomalous else normal
    logits = inside.logits[seen].float()
    values = {
        "reconstruction": terms.reconstruction(logits, image[seen], config.recon),
        "kl": terms.kl(inside.mu[seen].float(), inside.logvar[seen].float(), config.kl_reduction),
    }
    total = config.w_r * (values["reconstruction"] + config.kl_weight * values["kl"])
    if config.w_adv:
        players.discriminator.requires_grad_(False)
        fake_logit = players.play[1](2 * logits.sigmoid() - 1).float()
        players.discriminator.requires_grad_(True)
        values["generator"] = terms.generator_loss(fake_logit, config.adv_mode)
        total = total + config.w_adv * values["generator"]
    raw = inside.attention.float()
    if inside.classes is None:
        values["expansion"] = terms.expansion(terms.missing(raw, config.attention_norm))
        total = total + config.w_ae * values["expansion"]
        values["attention"] = 1 - values["expansion"]
    else:
        weak = _weak_terms(config, raw, inside.classes.float(), label)
        total = total + config.w_c * weak["classification"] + config.w_cga * weak["guidance"]
        values |= weak
    _update(game, players, 0, total)
    values |= {"map_low": raw.min(), "map_high": raw.max()}
    return {"loss": total, **values}


def _weak_terms(config: Config, raw: Tensor, classes: Tensor, label: Tensor) -> Terms:
    """Classification and guidance, and how they fare."""
    gate, how = terms.open_gate(classes, label), config.attention_norm
    lack_normal, anomalous = terms.missing(raw[:, :1], how), terms.attention(raw[:, 1:], how)
    return {
        "classification": F.cross_entropy(classes, label.long()),
        "guidance": terms.guidance(lack_normal, anomalous, gate),
        "attention_normal": 1 - lack_normal.mean(),
        "attention_anomalous": anomalous.mean(),
        "gate_open": gate.float().mean(),
        "accuracy": (classes.argmax(dim=1) == label).float().mean(),
    }


@torch.no_grad()
def look(game: Game, players: Players) -> dict[str, float]:
    """Share of negative channel weights, and, of the held-out normals, the reconstruction loss and
    the mean attention (of the normal class)."""
    players.network.eval()
    record: dict[str, float] = {}
    if players.network.path == "closed":
        record["negative_share"] = float(terms.dark_share(players.network.alpha())[0])
    sums, draw = torch.zeros(2), game.runtime.generator(game.name, "look")
    for indices, batch in game.held.ordered(game.config.batch_size):
        inside: Inside = players.play[0](batch.image, _look_noise(game, players, batch, draw))
        raw = inside.attention[:, :1].float()
        loss = terms.reconstruction(inside.logits.float(), batch.image, game.config.recon)
        covered = terms.attention(raw, game.config.attention_norm).mean()
        sums += len(indices) * torch.stack([loss, covered]).cpu()
    if game.held.indices:
        loss, covered = (sums / len(game.held.indices)).tolist()
        record |= {"val_reconstruction": loss, "val_attention": covered}
    return record


def _look_noise(game: Game, players: Players, batch: Batch, draw: torch.Generator) -> Tensor | None:
    """The same in every epoch, and none where test images are reconstructed without."""
    if not game.config.latent_draws:
        return None
    shape = (len(batch.image), *players.network.latent_shape)
    return torch.randn(shape, generator=draw).to(batch.image.device)


def augmented(config: Config, image: Tensor, draw: torch.Generator) -> Tensor:
    """Images [B, 3, S, S], each mirrored or turned at random as the options allow."""
    if config.flip:
        mirrored = torch.rand(len(image), 1, 1, 1, generator=draw).to(image.device) < 0.5
        image = torch.where(mirrored, image.flip(3), image)
    if config.rotate90:
        turns = torch.randint(4, (len(image),), generator=draw).tolist()
        image = torch.stack([one.rot90(k, (1, 2)) for one, k in zip(image, turns, strict=True)])
    return image


def _epoch(game: Game, players: Players, order: list[list[int]], epoch: int) -> dict[str, float]:
    """One epoch; the means of all terms over its steps."""
    players.network.train()
    players.discriminator.train()
    steps: dict[str, list[Tensor]] = {}
    for number, indices in enumerate(order):
        draw = game.runtime.generator(game.name, "step", epoch, number)
        for key, value in train_step(game, players, game.source.batch(indices), draw).items():
            steps.setdefault(key, []).append(value.detach())
    stacked = {key: torch.stack(values).float().cpu() for key, values in steps.items()}
    require_finite(stacked, order, game.files, epoch)
    return {f"train_{k}" if k in LOSSES else k: _over(k, v) for k, v in stacked.items()}


def _over(key: str, steps: Tensor) -> float:
    extremes = {"map_low": steps.min(), "map_high": steps.max()}
    return float(extremes.get(key, steps.mean()))


def _update(game: Game, players: Players, which: int, loss: Tensor) -> None:
    optimizer = players.update[which]
    optimizer.zero_grad(set_to_none=True)
    game.runtime.fabric.backward(loss)
    optimizer.step()


def _parts(players: Players) -> dict[str, nn.Module]:
    return {"network": players.network, "discriminator": players.discriminator}


def _save(players: Players, done: int, folder: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for (name, module), optimizer in zip(_parts(players).items(), players.optimizers, strict=True):
        tensors |= checkpoint.under(name, module.state_dict())
        tensors |= checkpoint.under(f"adam_{name}", checkpoint.optimizer_tensors(optimizer))
    checkpoint.save(folder / CHECKPOINT, tensors, {"epoch": done})


def _resume(players: Players, folder: Path) -> int:
    """Put back what `_save` wrote; the number of epochs that were done."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    tensors, metadata = checkpoint.load(path)
    for (name, module), optimizer in zip(_parts(players).items(), players.optimizers, strict=True):
        module.load_state_dict(checkpoint.below(name, tensors))
        checkpoint.load_optimizer(optimizer, checkpoint.below(f"adam_{name}", tensors))
    return int(metadata["epoch"])
