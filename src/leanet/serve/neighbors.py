"""The normal training pictures that are most like a picture: what it should have looked like.

Every normal training image of the live model's run is described once by the detector
(`DetectorModule.embed`; an exported file has no features, so its pictures are told apart by their
colors), in the background, and the descriptions are kept in STATE/neighbors. Images that are gone
are left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leanet.data.cache import images_in_unit_range
from leanet.data.images import UnreadableImageError
from leanet.data.loader import stream
from leanet.files import replacing
from leanet.inference.baseline import evenly
from leanet.inference.judge import full_float32
from leanet.ops.embedding import lab_thumbnail
from leanet.records import NORMAL
from leanet.serve.live import Live, Model
from leanet.serve.run_data import run_data

MOST: Final = 2000  # images that are described, evenly chosen
_BATCH: Final = 16
_log = logging.getLogger("leanet.serve")


class _Index(NamedTuple):
    """Images and their descriptions [N, D] by the model of a run."""

    run: Path
    paths: tuple[Path, ...]
    vectors: Tensor


class Neighbors:
    """Finds normal training pictures for the live model; any thread may call.

    Args:
        live: holds the model.
        state: folder of the server; descriptions are kept in its sub-folder `neighbors`.
    """

    def __init__(self, live: Live, state: Path) -> None:
        self._live, self._folder = live, state / "neighbors"
        self._index: _Index | None = None
        self._begun: Path | None = None  # the run whose images are, or were, being described
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread()

    def start(self) -> None:
        """Begin to describe the images of the live model's run, in the background."""
        model = self._live.model
        with self._lock:
            if self._begun == model.run or self._stop.is_set():
                return
            self._begun = model.run
            self._thread = threading.Thread(target=self._build, args=(model,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Give up what is being done in the background."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def wait(self, seconds: float) -> bool:
        """Whether all images of the live model's run are described, at most so long from now."""
        self.start()
        if self._thread.is_alive():
            self._thread.join(timeout=seconds)
        return self._ready(self._live.model) is not None

    def nearest(self, picture: NDArray[np.uint8], count: int = 1) -> list[tuple[Path, float]]:
        """The normal training images most like a picture [S, S, 3], the nearest first, with their
        distances; fewer than `count` where there are fewer, [] as long as they are not ready."""
        model = self._live.model
        self.start()
        index = self._ready(model)
        if index is None or not index.paths:
            return []
        planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        vector = _embedded(model, images_in_unit_range(planes))
        distances = torch.cdist(vector, index.vectors)[0]
        found: list[tuple[Path, float]] = []
        for k in distances.argsort().tolist():
            if len(found) == count:
                break
            if index.paths[k].exists():
                found.append((index.paths[k], float(distances[k])))
        return found

    def _ready(self, model: Model) -> _Index | None:
        index = self._index
        return index if index is not None and index.run == model.run else None

    def _build(self, model: Model) -> None:
        """Runs in a thread of its own."""
        try:
            paths = normal_images(model.run)
            key = _key(model, paths)
            file = self._folder / f"{model.name}.safetensors"
            self._index = _read(file, key, model.run)
            if self._index is None and (index := self._describe(model, paths)) is not None:
                self._index = index
                _write(file, key, index)
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            _log.warning("no nearest normal pictures for %s: %s", model.run, error)

    def _describe(self, model: Model, paths: Sequence[Path]) -> _Index | None:
        """None if it was stopped."""
        bad: list[UnreadableImageError] = []
        kept: list[Path] = []
        vectors: list[Tensor] = []
        for loaded in stream(paths, model.detector.img_size, batch_size=_BATCH, bad=bad):
            if self._stop.is_set():
                return None
            kept += loaded.paths
            vectors.append(_embedded(model, loaded.image))
        return _Index(model.run, tuple(kept), torch.cat(vectors) if vectors else torch.zeros(0, 1))


def normal_images(run: Path) -> list[Path]:
    """At most `MOST` normal training images of a run that are there.

    Raises:
        ValueError: the images of the run are gone.
    """
    samples = run_data(run).samples
    normal = [one.path for one in samples if one.label == NORMAL and one.split != "test"]
    return evenly([path for path in normal if path.exists()], MOST)


@torch.inference_mode()
def _embedded(model: Model, image: Tensor) -> Tensor:
    """Descriptions [B, D] on the CPU of images [B, 3, S, S] in [0, 1]."""
    embed: Callable[[Tensor], Tensor] = getattr(model.detector, "embed", lab_thumbnail)
    with full_float32(model.device):
        return embed(image.to(model.device)).float().cpu()


def _key(model: Model, paths: Sequence[Path]) -> str:
    """What the descriptions depend on."""
    digest = hashlib.sha256(type(model.detector).__name__.encode())
    weights = [*(model.run / "final").glob("*.safetensors")]
    for path in (*sorted(weights), *paths):
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(file: Path, key: str, run: Path) -> _Index | None:
    """What `_write` wrote for the same images and weights."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as tensors:
            known: dict[str, Any] = tensors.metadata() or {}
            if known.get("key") != key:
                return None
            paths = tuple(map(Path, json.loads(known["paths"])))
            return _Index(run, paths, tensors.get_tensor("vectors"))
    except (SafetensorError, OSError):
        return None


def _write(file: Path, key: str, index: _Index) -> None:
    metadata = {"key": key, "paths": json.dumps([str(path) for path in index.paths])}
    with replacing(file) as temporary:
        save_file({"vectors": index.vectors.contiguous()}, temporary, metadata)
