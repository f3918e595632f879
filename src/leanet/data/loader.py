"""From cached arrays to batches (training), and from files to batches (prediction).

Two ways, both without worker processes: `Source` draws shuffled or ordered batches from caches,
every epoch's order being a function of a generator alone, so that a resumed run sees the same
batches; `stream` decodes files ahead of the network with a few threads and a bounded queue, so that
memory does not grow with the number of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leanet.data.cache import READER_THREADS, Cache, images_in_unit_range
from leanet.data.images import UnreadableImageError, read_image, resize_image
from leanet.records import ANOMALOUS, Batch

Balance = Literal["none", "loss", "batches"]
ANOMALOUS_SHARE = 0.25  # of each batch under balance "batches"


class Joined:
    """Several caches of equally shaped arrays, numbered one after the other."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self.caches, self.device = tuple(caches), caches[0].device
        self._starts = np.cumsum([0, *(len(cache) for cache in caches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, indices: Sequence[int]) -> Tensor:
        """The arrays of these numbers, [B, ...], on the device."""
        numbers = np.asarray(indices)
        found = np.searchsorted(self._starts, numbers, side="right") - 1
        parts, places = [], []
        for k, cache in enumerate(self.caches):
            (place,) = np.nonzero(found == k)
            if place.size:
                parts.append(cache.take((numbers[place] - self._starts[k]).tolist()))
                places.append(place)
        if len(parts) == 1:
            return parts[0]
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return torch.cat(parts)[order.to(self.device)]


class Part(NamedTuple):
    """Images that `share` of every batch is drawn from, beside the others."""

    indices: tuple[int, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class Source:
    """Part of a data set, ready to be drawn from: `indices` point into the caches, and so do those
    of `extra`, which are drawn in training only."""

    images: Cache | Joined
    labels: tuple[int, ...]  # of all samples of the caches
    indices: tuple[int, ...]
    maps: Cache | None = None
    extra: tuple[Part, ...] = ()

    def batch(self, indices: Sequence[int]) -> Batch:
        """The batch of these samples."""
        image = images_in_unit_range(self.images.take(indices))
        label = torch.tensor([float(self.labels[i]) for i in indices], device=image.device)
        anomaly_map = None if self.maps is None else self.maps.take(indices)
        return Batch(image.contiguous(memory_format=torch.channels_last), label, anomaly_map)

    def ordered(self, batch_size: int) -> Iterator[tuple[tuple[int, ...], Batch]]:
        """All samples once, in order, with their indices."""
        for start in range(0, len(self.indices), batch_size):
            chosen = self.indices[start : start + batch_size]
            yield chosen, self.batch(chosen)

    def num_anomalous(self) -> int:
        """How many of this part are anomalous."""
        return sum(self.labels[i] == ANOMALOUS for i in self.indices)


def epoch_order(
    source: Source, batch_size: int, generator: torch.Generator, balance: Balance = "none"
) -> list[list[int]]:
    """The batches of one epoch: every sample once, shuffled.

    A last batch of one is merged into the batch before (batch norm cannot train on it). With
    balance "batches" the anomalous samples are spread over the batches and drawn again, with
    replacement, until they make up a quarter of each.

    Extra images take their share of every batch. There are as many batches as without them, so the
    others appear once at most: which of them, changes from epoch to epoch.
    """
    counts = [max(1, round(part.share * batch_size)) for part in source.extra]
    room = max(2, batch_size - sum(counts))
    batches = _real_order(source, room, generator, balance)
    if not source.extra:
        return batches
    steps = len(_real_order(source, batch_size, torch.Generator(), balance))
    batches = batches[:steps]
    for part, count in zip(source.extra, counts, strict=True):
        drawn = _cycled(part.indices, count * len(batches), generator)
        for k, batch in enumerate(batches):
            batch += drawn[k * count : (k + 1) * count]
    return batches


def _real_order(
    source: Source, batch_size: int, generator: torch.Generator, balance: Balance
) -> list[list[int]]:
    """The batches of an epoch without the extra images."""
    normal = [i for i in source.indices if source.labels[i] != ANOMALOUS]
    anomalous = [i for i in source.indices if source.labels[i] == ANOMALOUS]
    share = len(anomalous) / max(len(source.indices), 1)
    if balance != "batches" or not anomalous or not normal or share >= ANOMALOUS_SHARE:
        return _split(_shuffled(source.indices, generator), batch_size)
    per_batch = max(1, round(batch_size * ANOMALOUS_SHARE))
    batches = _split(_shuffled(normal, generator), batch_size - per_batch)
    drawn = _cycled(anomalous, per_batch * len(batches), generator)
    return [batch + drawn[k * per_batch : (k + 1) * per_batch] for k, batch in enumerate(batches)]


def _shuffled(indices: Sequence[int], generator: torch.Generator) -> list[int]:
    return [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]


def _cycled(indices: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """`count` draws in which every index appears as often as any other, give or take one."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += _shuffled(indices, generator)
    return drawn[:count]


def _split(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    batches = [list(indices[k : k + batch_size]) for k in range(0, len(indices), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches


class Loaded(NamedTuple):
    """A batch read from files: paths, images [B, 3, S, S] in [0, 1], and the original sizes
    (height, width)."""

    paths: tuple[Path, ...]
    image: Tensor
    sizes: tuple[tuple[int, int], ...]


Decoded = tuple[np.ndarray[Any, Any], tuple[int, int]]


def stream(
    paths: Sequence[Path],
    size: int,
    *,
    batch_size: int,
    bad: list[UnreadableImageError],
) -> Iterator[Loaded]:
    """Decode files ahead of the caller, at most two batches at a time.

    Unreadable files are appended to `bad` and left out of the batches: the caller decides whether
    that is an error.
    """

    def decode(path: Path) -> Decoded | UnreadableImageError:
        try:
            image = read_image(path)
        except UnreadableImageError as error:
            return error
        return resize_image(image, size), (image.shape[0], image.shape[1])

    with ThreadPoolExecutor(READER_THREADS) as pool:
        waiting: deque[tuple[Path, Future[Decoded | UnreadableImageError]]] = deque()
        ahead = iter(paths)
        ready: list[tuple[Path, Decoded]] = []
        for _ in range(2 * batch_size):
            _submit(pool, decode, ahead, waiting)
        while waiting:
            path, future = waiting.popleft()
            result = future.result()
            _submit(pool, decode, ahead, waiting)
            if isinstance(result, UnreadableImageError):
                bad.append(result)
            else:
                ready.append((path, result))
            if ready and (len(ready) == batch_size or not waiting):
                yield _loaded(ready)
                ready = []


def _submit(pool: ThreadPoolExecutor, decode: Any, ahead: Iterator[Path], waiting: Any) -> None:
    path = next(ahead, None)
    if path is not None:
        waiting.append((path, pool.submit(decode, path)))


def _loaded(ready: Sequence[tuple[Path, Decoded]]) -> Loaded:
    raw = torch.from_numpy(np.stack([image for _, (image, _) in ready])).permute(0, 3, 1, 2)
    return Loaded(
        paths=tuple(path for path, _ in ready),
        image=images_in_unit_range(raw),
        sizes=tuple(size for _, (_, size) in ready),
    )
