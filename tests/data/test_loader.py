from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from leanet.data import loader
from leanet.data.cache import Cache
from leanet.data.images import UnreadableImageError
from leanet.data.loader import Joined, Loaded, Part, Source, epoch_order, stream

CPU = torch.device("cpu")


def source(num_normal: int, num_anomalous: int = 0, first: int = 0) -> Source:
    """`first` samples that do not belong to it, then normal and anomalous ones; pixel = index."""
    count = first + num_normal + num_anomalous
    pixels = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 3, 4, 4)
    )
    maps = np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), "f4")
    return Source(
        images=Cache(np.ascontiguousarray(pixels), CPU),
        labels=(1,) * first + (0,) * num_normal + (1,) * num_anomalous,
        indices=tuple(range(first, count)),
        maps=Cache(maps, CPU),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(order: list[list[int]]) -> list[int]:
    return [index for batch in order for index in batch]


# Source and epoch_order


def test_image_label_and_map_of_a_batch_belong_together() -> None:
    batch = source(6, 3, first=2).batch([10, 3, 8])
    assert batch.image.shape == (3, 3, 4, 4)
    assert (batch.image[:, 0, 0, 0] * 255).round().tolist() == [10, 3, 8]
    assert batch.label.tolist() == [1.0, 0.0, 1.0]
    assert batch.anomaly_map is not None
    assert batch.anomaly_map[:, 0, 1, 1].tolist() == [10, 3, 8]


def test_without_maps_a_batch_has_none() -> None:
    part = source(3)
    batch = Source(images=part.images, labels=part.labels, indices=part.indices).batch([0])
    assert batch.anomaly_map is None


def test_the_ordered_way_gives_every_sample_once_in_order() -> None:
    chosen, batches = zip(*source(7, first=2).ordered(3), strict=True)
    assert chosen == ((2, 3, 4), (5, 6, 7), (8,))
    assert [len(batch.image) for batch in batches] == [3, 3, 1]


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17])
def test_an_epoch_has_every_sample_once(count: int, balance: Any) -> None:
    part = source(count, 3, first=2)
    order = epoch_order(part, 4, generator(), balance)
    assert sorted(flat(order)) == list(part.indices)


@pytest.mark.parametrize("count", range(1, 20))
def test_no_batch_of_one_is_left_over(count: int) -> None:
    sizes = [len(batch) for batch in epoch_order(source(count), 4, generator())]
    assert count == 1 or min(sizes) > 1
    assert max(sizes) <= 5
    assert sum(sizes) == count


def test_the_order_depends_on_the_generator_alone() -> None:
    part = source(20, 5)
    order = epoch_order(part, 4, generator(3))
    torch.rand(7)
    torch.manual_seed(1)
    assert epoch_order(part, 4, generator(3)) == order
    assert epoch_order(part, 4, generator(4)) != order
    again = generator(3)
    epoch_order(part, 4, again)
    assert epoch_order(part, 4, again) != order  # another epoch of one generator


def test_drawing_an_order_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    epoch_order(source(20, 2), 8, generator(), "batches")
    assert torch.equal(torch.get_rng_state(), before)


def test_balanced_batches_are_a_quarter_anomalous() -> None:
    part = source(48, 3, first=2)
    order = epoch_order(part, 16, generator(), "batches")
    assert [sum(part.labels[i] for i in batch) for batch in order] == [4] * 4
    assert {len(batch) for batch in order} == {16}
    drawn = Counter(flat(order))
    assert [drawn[i] for i in range(2, 50)] == [1] * 48  # every normal sample once
    shares = [drawn[i] for i in range(50, 53)]
    assert sum(shares) == 16
    assert max(shares) - min(shares) <= 1


def test_a_small_batch_has_at_least_one_anomalous_sample() -> None:
    part = source(6, 1)
    order = epoch_order(part, 2, generator(), "batches")
    assert all(sum(part.labels[i] for i in batch) == 1 for batch in order)


@pytest.mark.parametrize(("normal", "anomalous"), [(9, 3), (4, 8), (6, 0), (0, 6)])
def test_where_defects_are_not_rarer_balancing_changes_nothing(normal: int, anomalous: int) -> None:
    part = source(normal, anomalous)
    balanced = epoch_order(part, 4, generator(), "batches")
    assert balanced == epoch_order(part, 4, generator(), "none")


# extra images


def with_extra(
    num_normal: int, num_anomalous: int, num_extra: int, share: float, *more: Part
) -> Source:
    """Extra images are numbered after the others; theirs are normal and anomalous in turn."""
    part = source(num_normal, num_anomalous)
    first = len(part.labels)
    numbers = tuple(range(first, first + num_extra))
    labels = part.labels + tuple(k % 2 for k in range(num_extra))
    pixels = np.arange(first, first + num_extra, dtype=np.uint8)[:, None, None, None]
    images = Joined([part.images, Cache(np.tile(pixels, (1, 3, 4, 4)), CPU)])  # type: ignore[list-item]
    return replace(
        part, images=images, labels=labels, maps=None, extra=(Part(numbers, share), *more)
    )


@pytest.mark.parametrize("balance", ["none", "batches"])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_extra_images_take_their_share_of_every_batch(share: float, balance: Any) -> None:
    part = with_extra(60, 4, 10, share)
    order = epoch_order(part, 16, generator(), balance)
    for batch in order:
        assert len(batch) == 16
        assert sum(i >= 64 for i in batch) == round(16 * share)
        if balance == "batches":  # a quarter of the real ones
            assert sum(i < 64 and part.labels[i] for i in batch) == round(16 * (1 - share) / 4)


@pytest.mark.parametrize("balance", ["none", "batches"])
@pytest.mark.parametrize("count", [2, 7, 16, 17, 33, 64])
def test_there_are_as_many_steps_as_without_extra_images(count: int, balance: Any) -> None:
    part = with_extra(count, 2, 5, 0.5)
    steps = len(epoch_order(replace(part, extra=()), 16, generator(), balance))
    assert len(epoch_order(part, 16, generator(), balance)) == steps


def test_real_images_appear_once_at_most_and_others_every_epoch() -> None:
    part, stream = with_extra(64, 0, 8, 0.5), generator()
    epochs = [epoch_order(part, 16, stream) for _ in range(2)]
    seen = [{i for i in flat(order) if i < 64} for order in epochs]
    assert [len([i for i in flat(order) if i < 64]) for order in epochs] == [32, 32]
    assert [len(one) for one in seen] == [32, 32]
    assert seen[0] != seen[1]


def test_every_extra_image_is_drawn_as_often_as_any_other() -> None:
    part = with_extra(64, 0, 6, 0.25)
    drawn = Counter(i for i in flat(epoch_order(part, 16, generator())) if i >= 64)
    assert sum(drawn.values()) == 16
    assert len(drawn) == 6
    assert max(drawn.values()) - min(drawn.values()) <= 1


def test_two_sets_of_extra_images_keep_their_shares_apart() -> None:
    part = with_extra(64, 0, 8, 0.25, Part((0, 1), 0.5))
    for batch in epoch_order(part, 16, generator()):
        assert sum(i >= 64 for i in batch) == 4
        assert sum(i in (0, 1) for i in batch) >= 8


def test_the_order_with_extra_images_depends_on_the_generator_alone() -> None:
    part = with_extra(30, 3, 5, 0.25)
    assert epoch_order(part, 8, generator(1), "batches") == epoch_order(
        part, 8, generator(1), "batches"
    )
    assert epoch_order(part, 8, generator(1)) != epoch_order(part, 8, generator(2))


def test_without_real_anomalies_the_extra_ones_are_there() -> None:
    part = with_extra(32, 0, 8, 0.5)
    order = epoch_order(part, 8, generator(), "batches")
    assert all(any(part.labels[i] for i in batch) for batch in order)


def test_tiny_batches_have_two_real_images_and_one_more() -> None:
    order = epoch_order(with_extra(6, 1, 3, 0.25), 2, generator(), "batches")
    assert {sum(i >= 7 for i in batch) for batch in order} == {1}


def test_several_caches_are_numbered_one_after_the_other() -> None:
    caches = [Cache(np.arange(a, b)[:, None], CPU) for a, b in ((0, 3), (3, 4), (4, 9))]
    both = Joined(caches)
    assert len(both) == 9
    assert both.take([8, 0, 3, 4, 2, 0]).flatten().tolist() == [8, 0, 3, 4, 2, 0]
    assert both.take([1, 2]).flatten().tolist() == [1, 2]


def test_a_batch_of_both_pairs_pixels_and_labels() -> None:
    batch = with_extra(4, 1, 4, 0.5).batch([8, 0, 4, 5])
    assert (batch.image[:, 0, 0, 0] * 255).round().tolist() == [8, 0, 4, 5]
    assert batch.label.tolist() == [1.0, 0.0, 1.0, 0.0]


# stream


def color(k: int) -> tuple[int, int, int]:
    return (3 * k, 250 - 3 * k, k)


def files(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[Path]:
    paths = []
    for k in range(count):
        paths.append(folder / f"{k}.png")
        Image.new("RGB", (10 + k, 20), color(k)).save(paths[-1])
        if k in bad:
            paths[-1].write_bytes(b"no image")
    return paths


def streamed(paths: list[Path], batch_size: int) -> tuple[list[Loaded], list[UnreadableImageError]]:
    bad: list[UnreadableImageError] = []
    return list(stream(paths, 8, batch_size=batch_size, bad=bad)), bad


def test_a_stream_keeps_the_order_and_pairs_paths_with_pixels(tmp_path: Path) -> None:
    paths = files(tmp_path, 11)
    loaded, bad = streamed(paths, 4)
    assert bad == []
    assert [len(one.paths) for one in loaded] == [4, 4, 3]
    assert [path for one in loaded for path in one.paths] == paths
    pixels = torch.cat([one.image for one in loaded])
    assert pixels.shape == (11, 3, 8, 8)
    assert (pixels[:, :, 0, 0] * 255).round().tolist() == [list(color(k)) for k in range(11)]
    assert [size for one in loaded for size in one.sizes] == [(20, 10 + k) for k in range(11)]


def test_slow_files_do_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path, 6)
    read = loader.read_image

    def slow(path: Path) -> NDArray[np.uint8]:
        time.sleep(0.05 if path in (paths[0], paths[3]) else 0)
        return read(path)

    monkeypatch.setattr(loader, "read_image", slow)
    assert [path for one in streamed(paths, 2)[0] for path in one.paths] == paths


@pytest.mark.parametrize("bad", [(0,), (2, 3), (6,), (5, 6), (3, 4, 5, 6), (0, 6)])
def test_unreadable_files_are_collected_and_no_good_one_is_lost(
    tmp_path: Path, bad: tuple[int, ...]
) -> None:
    paths = files(tmp_path, 7, bad)
    good = [path for k, path in enumerate(paths) if k not in bad]
    loaded, errors = streamed(paths, 3)
    assert [path for one in loaded for path in one.paths] == good
    assert [error.path for error in errors] == [paths[k] for k in bad]
    assert [len(one.paths) for one in loaded[:-1]] == [3] * (len(loaded) - 1)


def test_only_unreadable_files_give_no_batch(tmp_path: Path) -> None:
    loaded, errors = streamed(files(tmp_path, 3, (0, 1, 2)), 2)
    assert loaded == []
    assert len(errors) == 3


def test_no_files_give_no_batch() -> None:
    assert streamed([], 4) == ([], [])


def test_files_are_decoded_ahead_but_not_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, begun, lock = files(tmp_path, 40), [], threading.Lock()
    read = loader.read_image

    def spy(path: Path) -> NDArray[np.uint8]:
        with lock:
            begun.append(path)
        return read(path)

    monkeypatch.setattr(loader, "read_image", spy)
    batches = stream(paths, 8, batch_size=4, bad=[])
    for done in range(1, 5):
        next(batches)
        deadline = time.monotonic() + 10
        while len(begun) < 4 * done + 8 and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.02)  # for what should not come
        assert len(begun) == 4 * done + 8  # what was given, and two batches
    batches.close()
    time.sleep(0.02)
    assert len(begun) < 40


def test_another_error_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> NDArray[np.uint8]:
        raise MemoryError("too large")

    monkeypatch.setattr(loader, "read_image", broken)
    with pytest.raises(MemoryError, match="too large"):
        streamed(files(tmp_path, 2), 2)
