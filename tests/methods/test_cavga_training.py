"""Two players in turns: who moves when, what each one sees, and that a stop leaves no trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.data.cache import Cache
from leanet.data.loader import Part, Source
from leanet.methods import cavga_training
from leanet.methods.cavga import build_network
from leanet.methods.cavga_config import Config
from leanet.methods.cavga_monitor import CavgaFailedError
from leanet.methods.cavga_training import (
    Game,
    Players,
    augmented,
    discriminator_step,
    generator_step,
    num_epochs,
    set_up,
    train_players,
    train_step,
)
from leanet.networks.cavga import Cavga
from leanet.networks.dcgan import Discriminator
from leanet.ops import cavga as terms
from leanet.records import ANOMALOUS, NORMAL, Batch
from leanet.runtime import Runtime
from leanet.training import journal

SIDE, NORMALS, WEAK, HELD = 32, range(12), (12, 13), range(14, 18)
LABELS = (*(NORMAL for _ in NORMALS), *(ANOMALOUS for _ in WEAK), *(NORMAL for _ in HELD))
U = ("reconstruction", "kl", "generator", "expansion")
W = ("reconstruction", "kl", "generator", "guidance", "classification")


def quick(variant: Any = "D_u", **options: Any) -> Config:
    known = {"latent_channels": 4, "batch_size": 6, "epochs": 2, "min_steps": 0}
    return Config(variant=variant, **{**known, **options})


def pictures() -> Cache:
    """Smooth pictures of two colors; the anomalous ones have a white square."""
    rng = np.random.default_rng(0)
    array = np.zeros((len(LABELS), 3, SIDE, SIDE), np.uint8)
    for image, label in zip(array, LABELS, strict=True):
        shade = rng.integers(40, 120, (2, 2)).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)
        image[:] = np.stack([shade, 2 * shade, 100 + 0 * shade])
        if label == ANOMALOUS:
            image[:, 8:16, 8:16] = 255
    return Cache(array, torch.device("cpu"))


def new_game(config: Config, runtime: Runtime, held: bool = False) -> Game:
    extra = (Part(WEAK, 1 / 8),) if config.weak else ()
    whole = {"images": pictures(), "labels": LABELS}
    return Game(
        config=config,
        source=Source(**whole, indices=tuple(NORMALS), extra=extra),
        held=Source(**whole, indices=tuple(HELD) if held else ()),
        runtime=runtime,
        name="final",
        files=tuple(Path(f"{k}.png") for k in range(len(LABELS))),
    )


def new_players(game: Game) -> Players:
    torch.manual_seed(0)
    network, discriminator = build_network(game.config, SIDE), Discriminator()
    return set_up(game, network.train(), discriminator.train())


def batch_of(game: Game) -> Batch:
    """Four normal images, and, for the weak variants, two anomalous ones."""
    return game.source.batch([0, 1, 2, 3, *(WEAK if game.config.weak else ())])


def moves(game: Game, players: Players) -> tuple[Tensor, Tensor, Batch, Any]:
    """Real and rebuilt images in [-1, 1], the batch, and the forward pass behind them."""
    batch = batch_of(game)
    noise = torch.randn(
        len(batch.label), *players.network.latent_shape, generator=game.runtime.generator("x")
    )
    inside = players.play[0](batch.image, noise)
    return 2 * batch.image - 1, 2 * inside.logits.sigmoid() - 1, batch, inside


def numbers(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(module.named_parameters()))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def judged(players: Players, image: Tensor) -> float:
    """Mean probability D as in training, without a trace in its norms."""
    return float(copy.deepcopy(players.discriminator)(image).sigmoid().mean())


# the two steps


def test_the_players_share_no_parameter_and_have_an_optimizer_each(runtime: Runtime) -> None:
    players = new_players(new_game(quick("D_w"), runtime))
    sides = [
        {id(p) for group in one.param_groups for p in group["params"]} for one in players.optimizers
    ]
    assert sides[0] == {id(p) for p in players.network.parameters()}
    assert sides[1] == {id(p) for p in players.discriminator.parameters()}
    assert sides[0].isdisjoint(sides[1])
    assert [one.defaults["betas"] for one in players.optimizers] == [(0.9, 0.999), (0.5, 0.999)]


def test_a_step_of_the_discriminator_leaves_the_other_side_alone_and_lowers_d_of_fakes(
    runtime: Runtime,
) -> None:
    game = new_game(quick(lr_disc=1e-3), runtime)
    players = new_players(game)
    real, rebuilt, _, _ = moves(game, players)
    state = copy.deepcopy(players.network.state_dict())
    opponent, before = numbers(players.discriminator), judged(players, rebuilt)
    values = discriminator_step(game, players, real, rebuilt.detach())
    assert equal(players.network.state_dict(), state)
    assert all(parameter.grad is None for parameter in players.network.parameters())
    assert not equal(numbers(players.discriminator), opponent)
    assert judged(players, rebuilt) < before
    assert float(values["d_fake"].detach()) == pytest.approx(before, abs=1e-6)


def test_a_step_of_the_generating_side_leaves_the_discriminator_alone_and_raises_d_of_fakes(
    runtime: Runtime,
) -> None:
    for mode in ("nonsaturating", "saturating"):
        game = new_game(quick(w_r=0.0, w_ae=0.0, adv_mode=mode, lr=1e-3), runtime)
        players = new_players(game)
        _, rebuilt, batch, inside = moves(game, players)
        opponent, own = numbers(players.discriminator), numbers(players.network)
        before = judged(players, rebuilt)
        generator_step(game, players, batch.image, batch.label, inside)
        assert equal(numbers(players.discriminator), opponent)
        assert all(parameter.grad is None for parameter in players.discriminator.parameters())
        assert all(parameter.requires_grad for parameter in players.discriminator.parameters())
        assert not equal(numbers(players.network), own)
        assert judged(players, moves(game, players)[1]) > before


def test_the_discriminator_sees_real_and_rebuilt_images_apart_and_the_rebuilt_once_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = new_game(quick(), runtime)
    players, seen = new_players(game), list[Tensor]()
    players.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = batch_of(game)
    train_step(game, players, batch, runtime.generator("x"))
    assert len(seen) == 3
    torch.testing.assert_close(seen[0], 2 * batch.image - 1)
    assert not seen[1].requires_grad
    assert seen[2].requires_grad
    torch.testing.assert_close(seen[1], seen[2].detach())
    assert all(one.min() >= -1 and one.max() <= 1 for one in seen)


@pytest.mark.parametrize("variant", ["D_u", "D_w"])
def test_the_loss_is_the_weighted_sum_of_its_terms(runtime: Runtime, variant: Any) -> None:
    own = {"w_ae": 7.0} if variant == "D_u" else {"w_c": 5.0, "w_cga": 7.0}
    game = new_game(quick(variant, w_r=2.0, kl_weight=0.5, w_adv=3.0, **own), runtime)
    _, _, batch, inside = moves(game, players := new_players(game))
    found = generator_step(game, players, batch.image, batch.label, inside)
    values = {name: float(value.detach()) for name, value in found.items()}
    expected = 2 * (values["reconstruction"] + 0.5 * values["kl"]) + 3 * values["generator"]
    if variant == "D_u":
        expected += 7 * values["expansion"]
        assert values["attention"] == pytest.approx(1 - values["expansion"])
    else:
        expected += 5 * values["classification"] + 7 * values["guidance"]
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert set(U) <= set(values) if variant == "D_u" else "expansion" not in values
    assert set(W) <= set(values) if variant == "D_w" else "guidance" not in values


def test_the_default_weights_are_those_of_the_paper() -> None:
    config = Config()
    assert (config.w_r, config.w_adv, config.w_ae) == (1, 1, 0.01)
    assert (config.w_c, config.w_cga) == (0.001, 0.01)


@pytest.mark.parametrize("everything", [False, True])
def test_a_weak_step_rebuilds_normal_images_and_classifies_all(
    runtime: Runtime, everything: bool
) -> None:
    game = new_game(quick("D_w", recon_on_anomalous=everything), runtime)
    players, seen = new_players(game), list[Tensor]()
    players.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    _, _, batch, inside = moves(game, players)
    rows = slice(None) if everything else slice(0, 4)
    found = {
        name: value.detach()
        for name, value in generator_step(game, players, batch.image, batch.label, inside).items()
    }
    logits, classes = inside.logits.detach(), inside.classes.detach()
    rebuilt = terms.reconstruction(logits[rows], batch.image[rows])
    torch.testing.assert_close(found["reconstruction"], rebuilt)
    torch.testing.assert_close(found["kl"], terms.kl(inside.mu[rows], inside.logvar[rows]).detach())
    assert [len(one) for one in seen] == [len(logits[rows])]
    probability = classes.softmax(dim=1)[:, 1]  # of anomalous
    log_loss = nn.functional.binary_cross_entropy(probability, batch.label)
    torch.testing.assert_close(found["classification"], log_loss)
    raw = inside.attention.detach()
    gate = ((classes[:, 0] >= classes[:, 1]) & (batch.label == NORMAL)).float()
    per_image = (1 - raw[:, 0].sigmoid() + raw[:, 1].sigmoid()).mean(dim=(1, 2))
    torch.testing.assert_close(found["guidance"], (gate * per_image).sum() / len(gate))
    assert float(found["gate_open"]) == pytest.approx(float(gate.mean()))


def test_a_step_by_double_backward_changes_the_weights_as_the_closed_form_does(
    runtime: Runtime,
) -> None:
    found = []
    for path in ("auto", "autograd"):
        game = new_game(quick("D_w", attention_path=path, w_cga=10.0), runtime)
        _, _, batch, inside = moves(game, players := new_players(game))
        generator_step(game, players, batch.image, batch.label, inside)
        found.append({n: p.grad for n, p in players.network.named_parameters()})
    for name, expected in found[0].items():
        assert expected is not None
        torch.testing.assert_close(found[1][name], expected, rtol=1e-3, atol=1e-6)


# whole trainings


@pytest.fixture
def go(runtime: Runtime, tmp_path: Path) -> Callable[..., tuple[Players, list[journal.Record]]]:
    """Train in a folder below the test's."""

    def run(folder: str = "a", **options: Any) -> tuple[Players, list[journal.Record]]:
        game = new_game(quick(**options), runtime, held=True)
        torch.manual_seed(0)
        network, discriminator = build_network(game.config, SIDE), Discriminator()
        records = train_players(game, network, discriminator, tmp_path / folder)
        return Players(network, discriminator, (), (), ()), records  # type: ignore[arg-type]

    return run


COMMON = {
    *("epoch", "seconds", "train_loss", "train_reconstruction", "train_kl", "train_adversarial"),
    *("train_generator", "d_real", "d_fake", "negative_share", "map_low", "map_high"),
    *("val_reconstruction", "val_attention"),
}


@pytest.mark.parametrize(
    ("variant", "own"),
    [
        ("D_u", {"train_expansion", "attention"}),
        (
            "D_w",
            {"train_guidance", "train_classification", "attention_normal", "attention_anomalous"}
            | {"gate_open", "accuracy"},
        ),
    ],
)
def test_the_journal_tells_every_term_of_every_epoch(
    go: Any, tmp_path: Path, variant: str, own: set[str]
) -> None:
    _, records = go(variant=variant, epochs=1)
    assert [record["epoch"] for record in records] == [0]
    assert journal.read(tmp_path / "a" / "journal.jsonl") == records
    for record in records:
        assert set(record) == COMMON | own
        assert all(math.isfinite(value) for value in record.values())
        for name in ("d_real", "d_fake", "negative_share", "val_attention"):
            assert 0 <= record[name] <= 1
        assert record["map_low"] <= record["map_high"]


@pytest.mark.slow  # writes checkpoints of 100 MB
def test_stopped_and_resumed_is_the_same_to_the_bit(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"variant": "D_w", "batch_size": 14, "flip": True, "rotate90": True}
    whole, records = go("whole", **options)
    monkeypatch.setattr(cavga_training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    look, looks = cavga_training.look, list[int]()

    def stopping(*given: Any) -> dict[str, float]:
        looks.append(1)
        if len(looks) > 1:
            raise KeyboardInterrupt
        return look(*given)

    monkeypatch.setattr(cavga_training, "look", stopping)
    with pytest.raises(KeyboardInterrupt):
        go("stopped", **options)
    monkeypatch.setattr(cavga_training, "look", look)
    resumed, again = go("stopped", **options)
    assert equal(whole.network.state_dict(), resumed.network.state_dict())
    assert equal(whole.discriminator.state_dict(), resumed.discriminator.state_dict())
    last = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "stopped")]
    assert last[0].read_bytes() == last[1].read_bytes()
    for one, two in zip(records, again, strict=True):
        assert one | {"seconds": 0} == two | {"seconds": 0}


def test_a_term_that_is_lost_ends_the_run_and_names_epoch_batch_and_files(
    runtime: Runtime, tmp_path: Path
) -> None:
    game = new_game(quick(), runtime)
    network = build_network(game.config, SIDE)
    nn.init.constant_(network.logvar.bias, math.nan)
    with pytest.raises(CavgaFailedError, match=r"epoch 1, batch 1 of 2 \((\d+\.png(, )?){6}\)"):
        train_players(game, network, Discriminator(), tmp_path)


def test_training_takes_the_epochs_asked_for_or_the_steps_if_they_are_more(
    runtime: Runtime,
) -> None:
    source = new_game(quick(), runtime).source  # two batches of six
    assert num_epochs(quick(epochs=3, min_steps=0), source) == 3
    assert num_epochs(quick(epochs=3, min_steps=7), source) == 4
    assert num_epochs(Config(), source) == 3000


def test_every_weak_batch_holds_an_eighth_of_anomalous_images(
    go: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = []

    def watched(game: Game, players: Players, batch: Batch, draw: torch.Generator) -> Any:
        labels.append(batch.label.sum())
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(cavga_training, "train_step", watched)
    go(variant="D_w", batch_size=6, epochs=1)
    assert torch.stack(labels).tolist() == [1, 1]


# augmentation


@pytest.mark.parametrize(
    ("options", "variety"), [({}, 1), ({"flip": True}, 2), ({"rotate90": True}, 4)]
)
def test_images_are_mirrored_and_turned_as_asked(
    runtime: Runtime, options: dict[str, bool], variety: int
) -> None:
    one = torch.rand(3, 8, 8, generator=runtime.generator("image"))
    image = one.expand(32, 3, 8, 8)
    drawn = augmented(quick(**options), image, runtime.generator("x"))
    allowed = [one, one.flip(2)] if "flip" in options else [one.rot90(k, (1, 2)) for k in range(4)]
    kinds = {next(k for k, a in enumerate(allowed) if torch.equal(a, b)) for b in drawn}
    assert len(kinds) == variety
    assert torch.equal(drawn, augmented(quick(**options), image, runtime.generator("x")))


# sixty steps


@pytest.mark.slow
def test_sixty_steps_rebuild_better_and_look_at_more_of_the_normal_images(
    runtime: Runtime, tmp_path: Path
) -> None:
    rng, side = np.random.default_rng(0), 64
    array = np.full((24, 3, side, side), 30, np.uint8)
    for image in array:
        y, x = rng.integers(8, 24, 2)
        image[:, y : y + 28, x : x + 28] = np.array([220, 120, 60])[:, None, None]
    config = quick(batch_size=8, epochs=20, latent_channels=128)
    whole = {"images": Cache(array, torch.device("cpu")), "labels": (NORMAL,) * 24}
    game = Game(
        config=config,
        source=Source(**whole, indices=tuple(range(24))),
        held=Source(**whole, indices=()),
        runtime=runtime,
        name="final",
        files=(),
    )
    torch.manual_seed(0)
    network = Cavga("D", "conv", side)
    records = train_players(game, network, Discriminator(), tmp_path)
    assert len(records) == 20  # of three steps
    assert records[-1]["train_reconstruction"] < 0.97 * records[0]["train_reconstruction"]
    assert records[-1]["attention"] > records[0]["attention"] + 0.02
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())
