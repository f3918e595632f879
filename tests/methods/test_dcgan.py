from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.data.cache import Cache
from leanet.methods import cavga, dcgan
from leanet.methods.dcgan import PRESETS, Config, Trained, save_dcgan, train
from leanet.methods.dcgan_monitor import DcganFailedError
from leanet.networks import dcgan as networks
from leanet.networks.dcgan_weights import load_dcgan
from leanet.runtime import Runtime, make_runtime
from leanet.training import journal

NUM_IMAGES = 10
Go = Callable[..., Trained]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the channels, an eighth of the looks: quicker."""
    monkeypatch.setattr(networks, "CHANNELS", (4, 8, 16, 32))
    monkeypatch.setattr("leanet.methods.dcgan_monitor.IMAGES_PER_LOOK", 8)


def squares(num_images: int = NUM_IMAGES) -> Cache:
    """A square of some color somewhere on grey."""
    rng = np.random.default_rng(0)
    array = np.full((num_images, 3, 64, 64), 128, np.uint8)
    for image in array:
        y, x = rng.integers(0, 40, 2)
        image[:, y : y + 24, x : x + 24] = rng.integers(0, 256, (3, 1, 1))
    return Cache(array, torch.device("cpu"))


@pytest.fixture
def go(runtime: Runtime, tmp_path: Path) -> Go:
    """Two epochs of two batches in a folder below the test's."""

    def run(folder: str = "a", show: Any = lambda *given: None, **options: Any) -> Trained:
        config = Config(**{"epochs": 2, "batch_size": 4, **options})
        return train(config, squares(), tmp_path / folder, runtime, show=show)

    return run


def weights(trained: Trained) -> dict[str, Tensor]:
    return {
        **{f"g.{name}": t for name, t in trained.generator.state_dict().items()},
        **{f"d.{name}": t for name, t in trained.discriminator.state_dict().items()},
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def timeless(records: list[journal.Record]) -> list[journal.Record]:
    return [{key: v for key, v in one.items() if key != "seconds"} for one in records]


def game(runtime: Runtime, folder: Path) -> dcgan._Game:
    return dcgan._game(Config(batch_size=4), squares(), folder, runtime, "dcgan")


def test_an_epoch_is_a_line_of_the_journal_without_the_incomplete_batch(go: Go) -> None:
    trained = go()
    assert [record["step"] for record in trained.records] == [2, 4]
    assert set(trained.records[0]) == {
        *("epoch", "step", "d_loss", "g_loss", "d_real", "d_fake", "diversity", "seconds")
    }
    assert all(math.isfinite(value) for one in trained.records for value in one.values())
    assert not trained.generator.training
    assert trained.drawn.shape == (8, 3, 64, 64)


def test_a_step_follows_the_two_losses(runtime: Runtime, tmp_path: Path) -> None:
    """Replayed by hand, with logarithms of probabilities instead of logits."""
    ours, plain = game(runtime, tmp_path), game(runtime, tmp_path)
    players, (generator, discriminator) = dcgan._players(ours), dcgan._players(plain).networks
    real = torch.rand(4, 3, 64, 64) * 2 - 1
    told = dcgan._step(ours, players, real, step=0)
    adams = [
        torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999))
        for network in (generator, discriminator)
    ]
    noise = torch.randn(4, 100, 1, 1, generator=runtime.generator("dcgan", "noise", 0))
    fake = generator(noise)
    p_real, p_fake = discriminator(real).sigmoid(), discriminator(fake.detach()).sigmoid()
    d_loss = -(p_real.log().mean() + (1 - p_fake).log().mean())
    d_loss.backward()
    adams[1].step()
    g_loss = -discriminator(fake).sigmoid().log().mean()
    g_loss.backward()
    adams[0].step()
    expected = {"d_loss": d_loss, "g_loss": g_loss, "d_real": p_real, "d_fake": p_fake}
    for name, value in expected.items():
        assert told[name] == pytest.approx(float(value.detach().mean()), rel=1e-4), name
    for mine, theirs in zip(players.networks, (generator, discriminator), strict=True):
        pairs = zip(mine.parameters(), theirs.parameters(), strict=True)
        apart = torch.cat([(a - b).abs().flatten() for a, b in pairs])
        # Adam's first step is lr times the sign of the gradient, which rounding turns where it is 0
        assert apart.max() <= 2 * 2e-4 * 1.01
        assert (apart > 2e-5).float().mean() < 1e-3


def test_a_step_trains_every_layer_of_both_and_unfreezes_again(
    runtime: Runtime, tmp_path: Path
) -> None:
    one = game(runtime, tmp_path)
    players = dcgan._players(one)
    before = [[p.detach().clone() for p in net.parameters()] for net in players.networks]
    dcgan._step(one, players, torch.rand(4, 3, 64, 64) * 2 - 1, step=0)
    for old, network in zip(before, players.networks, strict=True):
        new = list(network.parameters())
        assert not any(torch.equal(a, b) for a, b in zip(old, new, strict=True))
        assert all(p.requires_grad for p in new)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_killed_and_resumed_is_the_same_to_the_bit(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = go("whole")
    monkeypatch.setattr(dcgan, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    step = dcgan._step

    def killing(game: Any, players: Any, real: Tensor, number: int) -> dict[str, float]:
        if number == killed_at:
            raise KeyboardInterrupt
        return step(game, players, real, number)

    monkeypatch.setattr(dcgan, "_step", killing)
    with pytest.raises(KeyboardInterrupt):
        go("killed")
    monkeypatch.setattr(dcgan, "_step", step)
    resumed = go("killed")
    assert equal(weights(whole), weights(resumed))
    assert timeless(whole.records) == timeless(resumed.records)
    on_disk = journal.read(tmp_path / "killed" / "journal.jsonl")
    assert timeless(on_disk) == timeless(whole.records)
    last = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "killed")]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_another_seed_is_another_training(go: Go, tmp_path: Path) -> None:
    first = go("a", epochs=1)
    other = make_runtime("cpu", "32-true", seed=1)
    config = Config(epochs=1, batch_size=4)
    second = train(config, squares(), tmp_path / "b", other, show=lambda *given: None)
    assert not equal(weights(first), weights(second))


def test_sheets_and_snapshots_come_when_they_are_due(go: Go, tmp_path: Path) -> None:
    shown: list[int] = []
    trained = go(epochs=3, sheet_every=2, snapshot_every=3, show=lambda n, drawn: shown.append(n))
    assert shown == [2]
    assert [p.name for p in (tmp_path / "a").glob("snap*")] == ["snapshot-003.safetensors"]
    again = networks.Discriminator()
    load_dcgan(
        tmp_path / "a" / "snapshot-003.safetensors",
        encoder=None,
        decoder=None,
        discriminator=again,
    )
    assert equal(again.state_dict(), trained.discriminator.state_dict())


def test_what_was_trained_is_what_is_loaded(go: Go, tmp_path: Path) -> None:
    trained = go(epochs=1)
    save_dcgan(tmp_path / "weights.safetensors", trained.generator, trained.discriminator)
    encoder, decoder = networks.Encoder(), networks.Decoder()
    load_dcgan(tmp_path, encoder=encoder, decoder=decoder, discriminator=None)
    assert equal(encoder.state_dict(), trained.discriminator.body.state_dict())
    assert equal(decoder.state_dict(), trained.generator.body.state_dict())


def test_cavga_starts_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHANNELS", (64, 128, 256, 512))
    generator, discriminator = networks.Generator(), networks.Discriminator()
    save_dcgan(tmp_path / "weights.safetensors", generator, discriminator)
    config = cavga.Config(variant="D_u", pretrained=False, dcgan_weights=str(tmp_path))
    network, judge = cavga.build_network(config, 64), networks.Discriminator()
    remarks = cavga.start_weights(config, network, judge)
    assert equal(network.encoder.state_dict(), discriminator.body.state_dict())
    assert equal(network.decoder.state_dict(), generator.body.state_dict())
    assert equal(judge.state_dict(), discriminator.state_dict())
    assert "dcgan_weights" in remarks
    alone = cavga.Config(variant="D_u", pretrained=False)
    assert "start at random" in str(cavga.start_weights(alone, network, judge))


def test_a_lost_loss_ends_the_training_with_its_place(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgan, "generator_loss", lambda logit: logit.mean() * math.nan)
    with pytest.raises(DcganFailedError, match="g_loss became nan in epoch 1, batch 1 of 2"):
        go()


def test_a_discriminator_that_wins_ends_the_training(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgan, "discriminator_loss", lambda real, fake: 0 * real.mean())
    monkeypatch.setattr("leanet.methods.dcgan_monitor.STEPS_UNTIL_LOST", 4)
    with pytest.raises(DcganFailedError, match=r"won: .* for 4 steps on end, after 4 of 4 steps"):
        go()


def test_fewer_images_than_a_batch_make_one_batch(runtime: Runtime, tmp_path: Path) -> None:
    config = Config(epochs=2)
    trained = train(config, squares(3), tmp_path, runtime, show=lambda *given: None)
    assert [record["step"] for record in trained.records] == [1, 2]
    with pytest.raises(ValueError, match=r"1 image\(s\): a DC-GAN needs two"):
        train(config, squares(1), tmp_path, runtime, show=lambda *given: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "at least 1 epoch"),
        ({"batch_size": 1}, "2 images per batch"),
        ({"sheet_every": -1}, "sheet_every -1"),
        ({"lr": 0.0}, "lr 0.0.* positive"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**options)


def test_the_preset_is_the_classic_recipe() -> None:
    config = Config(**PRESETS["dcgan64"])
    assert (config.epochs, config.batch_size, config.lr) == (25, 128, 2e-4)
    assert config.lr_discriminator == 2e-4
    adam = dcgan._adam(nn.Linear(1, 1), config.lr)
    assert adam.param_groups[0]["betas"] == (0.5, 0.999)
