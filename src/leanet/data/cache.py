"""Decoded images in one memory-mapped file, so that an epoch never decodes twice.

Decoding and shrinking a JPEG costs more than a small network's training step. Every image is
therefore decoded once, by a few threads, into a file of uint8 [N, 3, S, S] that the operating
system keeps in memory as far as there is room: the process itself stays small however many images
there are. On a GPU the whole array moves to the device if it takes less than a quarter of what is
free.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leanet.data.images import UnreadableImageError, read_image, resize_image
from leanet.files import read_json, replacing, reserve, write_json
from leanet.progress import Progress

Read = Callable[[Path], np.ndarray[Any, Any]]  # a file as uint8 [H, W, 3]
READER_THREADS = 4
DEVICE_SHARE = 0.25


class Cache:
    """N equally shaped arrays; `take` copies some of them to a device.

    Args:
        array: [N, ...] in memory or memory-mapped.
        device: where `take` puts its tensors.
    """

    def __init__(self, array: np.ndarray[Any, Any], device: torch.device) -> None:
        self.array, self.device = array, device
        self._resident = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            if device.type == "cuda" and array.nbytes < _free_bytes(device) * DEVICE_SHARE
            else None
        )

    def __len__(self) -> int:
        return len(self.array)

    def take(self, indices: Sequence[int]) -> Tensor:
        """The arrays of these indices, [B, ...], on the device."""
        if self._resident is not None:
            return self._resident[torch.tensor(indices, device=self.device)]
        host = torch.from_numpy(self.array[np.asarray(indices)])
        if self.device.type == "cuda":
            return host.pin_memory().to(self.device, non_blocking=True)
        return host


def images_in_unit_range(raw: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return raw.float().div_(255)


def cache_images(
    paths: Sequence[Path],
    size: int,
    folder: Path,
    device: torch.device,
    *,
    read: Read | None = None,
    threads: int = READER_THREADS,
) -> Cache:
    """Decode all images at `size` x `size`, or reuse the file of an earlier call with the same
    images (same paths, sizes in bytes and times of change) and the same `read` (default: as any
    image).

    Raises:
        UnreadableImagesError: names every image that cannot be read.
    """
    file = folder / f"images-{size}.u8"
    key = _fingerprint(paths, f"{size}" if read is None else f"{size} {read.__qualname__}")
    shape = (len(paths), 3, size, size)
    if not (file.exists() and read_json(file.with_suffix(".json"))["key"] == key):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            reserve(temporary, math.prod(shape))
            target = np.memmap(temporary, np.uint8, "w+", shape=shape)
            _decode_into(target, paths, size, read or read_image, threads)
        write_json(file.with_suffix(".json"), {"key": key, "shape": shape})
    return Cache(np.memmap(file, np.uint8, "r", shape=shape), device)


class UnreadableImagesError(ValueError):
    """Some images cannot be decoded; `errors` holds one `UnreadableImageError` for each."""

    def __init__(self, errors: Sequence[UnreadableImageError]) -> None:
        self.errors = tuple(errors)
        listed = "; ".join(f"{error.path} ({error.reason})" for error in errors)
        super().__init__(
            f"{len(errors)} unreadable image(s): {listed}. "
            "Repair them, or leave them out with --skip_bad"
        )


def _decode_into(
    target: np.memmap[Any, Any], paths: Sequence[Path], size: int, read: Read, threads: int
) -> None:
    def decode(index: int) -> UnreadableImageError | None:
        try:
            target[index] = resize_image(read(paths[index]), size).transpose(2, 0, 1)
        except UnreadableImageError as error:
            return error
        return None

    errors = []
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress("decoding images", total=len(paths)) as bar,
    ):
        for error in pool.map(decode, range(len(paths))):
            bar.advance()
            if error is not None:
                errors.append(error)
    if errors:
        raise UnreadableImagesError(errors)
    target.flush()


def _fingerprint(paths: Sequence[Path], how: str) -> str:
    digest = hashlib.sha256(how.encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
