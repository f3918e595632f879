from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.cache import Cache
from leanet.methods import gan
from leanet.methods.gan import (
    PRESETS,
    Config,
    draw_labels,
    load_generator,
    mode_seeking,
    save_generator,
    train,
)
from leanet.methods.gan_monitor import Pool
from leanet.networks.gan import NOISE, Discriminator
from leanet.ops.diffaugment import Policy, diff_augment
from leanet.runtime import Runtime, make_runtime
from leanet.training import journal

SIDE, PER_CLASS = 32, 8
POOL = Pool(
    classes=("blue", "green", "red"),
    train=tuple(tuple(range(PER_CLASS * k, PER_CLASS * k + 6)) for k in range(3)),
    held=tuple(tuple(range(PER_CLASS * k + 6, PER_CLASS * (k + 1))) for k in range(3)),
)


def shapes(per_class: int = PER_CLASS) -> Cache:
    """Squares of the color of their class somewhere on grey, uint8 [3 n, 3, 32, 32]."""
    rng = np.random.default_rng(0)
    array = np.full((3 * per_class, 3, SIDE, SIDE), 128, np.uint8)
    for index, image in enumerate(array):
        (y, x), side = rng.integers(4, 14, 2), rng.integers(10, 16)
        image[:, y : y + side, x : x + side] = 40
        image[2 - index // per_class, y : y + side, x : x + side] = 220
    return Cache(array, torch.device("cpu"))


def quick(**options: Any) -> Config:
    return Config(**{"steps": 12, "look_every": 4, "batch_size": 8, **options})


@pytest.fixture
def go(runtime: Runtime, tmp_path: Path) -> Callable[..., gan.Trained]:
    """Train for a few steps in a folder below the test's."""

    def run(folder: str = "a", **options: Any) -> gan.Trained:
        return train(quick(**options), POOL, shapes(), tmp_path / folder, runtime)

    return run


def weights(trained: gan.Trained) -> dict[str, Tensor]:
    return trained.generator.state_dict()


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_thirty_tiny_steps_end_finite(go: Callable[..., gan.Trained]) -> None:
    trained = go(steps=30, look_every=10, r1=1.0, policy=("translation", "cutout", "color"))
    assert [record["step"] for record in trained.records] == [10, 20, 30]
    assert all(math.isfinite(value) for one in trained.records for value in one.values())
    assert all(tensor.isfinite().all() for tensor in weights(trained).values())
    assert trained.stopped == ""


def test_the_gradient_reaches_every_parameter(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = gan._Game(config=quick(), pool=POOL, images=shapes(), runtime=runtime, name="gan")
    players = gan._players(game)
    reached: dict[int, set[int]] = {0: set(), 1: set()}
    networks = (players.generator, players.discriminator)

    def update(game: Any, players: Any, which: int, loss: Tensor) -> None:
        networks[which].zero_grad()
        loss.backward()
        for k, parameter in enumerate(networks[which].parameters()):
            if parameter.grad is not None and parameter.grad.abs().sum() > 0:
                reached[which].add(k)

    monkeypatch.setattr(gan, "_update", update)
    for step in range(6):
        draw = runtime.generator("test", step)
        gan._train_discriminator(game, players, draw, step)
        gan._train_generator(game, players, draw)
    for which, network in enumerate(networks):
        assert reached[which] == set(range(len(list(network.parameters()))))


def test_a_step_of_one_player_leaves_the_other_alone(runtime: Runtime) -> None:
    game = gan._Game(config=quick(), pool=POOL, images=shapes(), runtime=runtime, name="gan")
    players = gan._players(game)

    def parameters() -> tuple[list[Tensor], ...]:
        pair = (players.generator, players.discriminator)
        return tuple([p.detach().clone() for p in one.parameters()] for one in pair)

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(map(torch.equal, a, b))

    before = parameters()
    gan._train_discriminator(game, players, runtime.generator("x"), 0)
    between = parameters()
    gan._train_generator(game, players, runtime.generator("x"))
    after = parameters()
    assert [same(a, b) for a, b in zip(before, between, strict=True)] == [True, False]
    assert [same(a, b) for a, b in zip(between, after, strict=True)] == [False, True]
    assert all(p.requires_grad for p in players.discriminator.parameters())


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_and_resumed_is_the_same_to_the_bit(
    go: Callable[..., gan.Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = go("whole")
    monkeypatch.setattr(gan, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    looks = 0

    def killing(self: Any, *players: Any) -> journal.Record:
        nonlocal looks
        looks += 1
        if looks > killed_at:
            raise KeyboardInterrupt
        return look(self, *players)

    look = gan.Monitor.look
    monkeypatch.setattr(gan.Monitor, "look", killing)
    with pytest.raises(KeyboardInterrupt):
        go("killed")
    monkeypatch.setattr(gan.Monitor, "look", look)
    resumed = go("killed")
    assert equal(weights(whole), weights(resumed))
    assert whole.records == resumed.records
    assert journal.read(tmp_path / "killed" / "journal.jsonl") == whole.records
    last = [tmp_path / name / "checkpoint.safetensors" for name in ("whole", "killed")]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_finished_training_is_not_trained_further(go: Callable[..., gan.Trained]) -> None:
    assert equal(weights(go()), weights(go()))


def test_what_draws_is_a_mean_of_what_was_trained(
    go: Callable[..., gan.Trained], tmp_path: Path
) -> None:
    trained = go()
    tensors, _ = gan.checkpoint.load(tmp_path / "a" / "checkpoint.safetensors")
    raw, mean = (gan.checkpoint.below(name, tensors) for name in ("generator", "ema"))
    assert equal(mean, weights(trained))
    assert not equal(raw, mean)


def test_other_seeds_and_names_draw_other_weights(tmp_path: Path) -> None:
    def at(seed: int, name: str) -> dict[str, Tensor]:
        folder = tmp_path / f"{seed}{name}"
        runtime = make_runtime("cpu", "32-true", seed)
        return weights(train(quick(steps=2), POOL, shapes(), folder, runtime, name))

    assert not equal(at(0, "a"), at(1, "a"))
    assert not equal(at(0, "a"), at(0, "b"))


def test_both_players_see_the_same_policy(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def change(image: Tensor, policy: Policy, draw: torch.Generator) -> Tensor:
        seen.append(policy)
        return diff_augment(image, policy, draw)

    monkeypatch.setattr(gan, "diff_augment", change)
    game = gan._Game(
        config=quick(policy=("cutout",)), pool=POOL, images=shapes(), runtime=runtime, name="gan"
    )
    players = gan._players(game)
    gan._train_discriminator(game, players, runtime.generator("x"), 0)
    gan._train_generator(game, players, runtime.generator("x"))
    assert seen == 3 * [(0.0, 0.5, 0.0)]  # generated and real for D, generated for G


def test_colors_are_left_alone_unless_they_are_a_nuisance() -> None:
    assert gan._policy(Config()) == (0.125, 0.5, 0.0)
    assert gan._policy(Config(nuisance="color")) == (0.125, 0.5, 1.0)


def test_labels_come_in_groups_of_four_of_every_class() -> None:
    label = draw_labels(400, 3, torch.Generator().manual_seed(0)).view(-1, 4)
    assert (label == label[:, :1]).all()
    assert label.unique().tolist() == [0, 1, 2]


def test_real_images_are_training_images_of_the_class_and_differ_in_a_group(
    runtime: Runtime,
) -> None:
    images = shapes()
    game = gan._Game(config=quick(), pool=POOL, images=images, runtime=runtime, name="gan")
    drawn = gan._real_images(game, torch.tensor([2, 2, 2, 2]), runtime.generator("x"))
    pixels = (drawn * 255).round().byte()
    found = [
        int((torch.from_numpy(images.array) == one).all(dim=(1, 2, 3)).nonzero()[0])
        for one in pixels
    ]
    assert len(set(found)) == 4
    assert set(found) <= set(POOL.train[2])


def test_flips_mirror_some_images(runtime: Runtime) -> None:
    def drawn(flip: Any) -> Tensor:
        config = quick(flip=flip)
        game = gan._Game(config=config, pool=POOL, images=shapes(), runtime=runtime, name="g")
        return gan._real_images(game, torch.zeros(64, dtype=torch.long), runtime.generator("x"))

    plain, both = drawn("none"), drawn("both")
    assert plain.shape == both.shape
    assert not torch.equal(plain, both)


def test_mode_seeking_is_smaller_for_images_that_differ_more() -> None:
    noise, image = torch.randn(8, NOISE), torch.rand(8, 3, 4, 4)
    apart = (image[0::2] - image[1::2]).abs().mean()
    ratio = apart / (noise[0::2] - noise[1::2]).abs().mean()
    assert float(mode_seeking(image, noise)) == pytest.approx(float(1 / (ratio + 0.01)))
    assert mode_seeking(0.5 * image, noise) > mode_seeking(image, noise)
    assert float(mode_seeking(torch.zeros(8, 3, 4, 4), noise)) == pytest.approx(100)


def test_the_gradient_penalty_changes_the_training(go: Callable[..., gan.Trained]) -> None:
    assert not equal(weights(go("a", r1=10.0)), weights(go("b")))


def test_snapshots_are_kept_and_load(go: Callable[..., gan.Trained], tmp_path: Path) -> None:
    trained = go(snapshot_every=4)
    names = sorted(path.name for path in (tmp_path / "a").glob("snapshot-*"))
    assert names == [f"snapshot-{step:06d}.safetensors" for step in (4, 8, 12)]
    loaded, classes = load_generator(tmp_path / "a" / names[-1])
    assert classes == list(POOL.classes)
    assert equal(loaded.state_dict(), weights(trained))


def test_a_file_that_holds_no_generator_is_refused(tmp_path: Path) -> None:
    gan.checkpoint.save(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no generator"):
        load_generator(tmp_path / "x.safetensors")


def test_saving_and_loading_draws_the_same(go: Callable[..., gan.Trained], tmp_path: Path) -> None:
    trained = go(steps=2)
    save_generator(tmp_path / "w.safetensors", quick(), POOL.classes, trained.generator)
    loaded, _ = load_generator(tmp_path / "w.safetensors")
    noise, label = torch.randn(3, NOISE), torch.tensor([0, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(loaded(noise, label), trained.generator(noise, label))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6}, "multiple of 4"),
        ({"steps": 0}, "at least 1"),
        ({"width": 12}, "power of two"),
        ({"policy": ("rotation",)}, "rotation: allowed are translation, cutout, color"),
        ({"snapshot_every": 5, "look_every": 4}, "multiple of look_every"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**options)


def test_every_preset_builds(runtime: Runtime) -> None:
    for preset in PRESETS.values():
        values = dict(preset)
        with torch.device("meta"):
            Discriminator(values.pop("img_size"), values["width"], 2)
        Config(**values)


@pytest.mark.slow
def test_two_thousand_steps_draw_the_class_that_was_asked_for(
    runtime: Runtime, tmp_path: Path
) -> None:
    # with the default weights these hard-edged squares collapse, and the training is stopped
    config = Config(steps=2000, look_every=100, mode_seeking=0.2, r1=1.0)
    trained = train(config, POOL, shapes(), tmp_path, runtime)
    with torch.no_grad():
        for label in range(3):
            noise = torch.randn(100, NOISE, generator=torch.Generator().manual_seed(label))
            image = trained.generator(noise, torch.full((100,), label))
            colored = (image - 0.5).amax(dim=(2, 3)).argmax(dim=1)  # the brightest channel
            assert (colored == 2 - label).double().mean() >= 0.9
