"""Heat maps and raw maps on disk, written behind the detector by a few threads.

Every image has its picture under its own place below the common folder of all images, so that equal
names in different folders do not meet. `a.png` keeps its name and `a.jpg` becomes `a.jpg.png`.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanet.data.cache import READER_THREADS
from leanet.data.images import read_image, write_image, write_map
from leanet.files import write_json
from leanet.inference.heatmap import overlay
from leanet.inference.judge import Outputs

HEATMAPS, MAPS = "heatmaps", "maps"
FULL_SCALE_TOPS = 10.0  # raw maps are written up to this multiple of the heat maps' `top`


def picture_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """A PNG file name of its own for every path: its place below the common folder of all.

    >>> names = picture_names([Path("in/a/1.png"), Path("in/a/1.jpg"), Path("in/b/1.png")])
    >>> [name.as_posix() for name in names.values()]
    ['a/1.png', 'a/1.jpg.png', 'b/1.png']
    """
    if not paths:
        return {}
    absolute = [os.path.normpath(path.absolute()) for path in paths]
    root = os.path.commonpath([PurePath(path).parent for path in absolute])
    names: dict[Path, Path] = {}
    taken: set[str] = set()  # without regard to case, as some file systems see them
    for path, place in zip(paths, absolute, strict=True):
        name = Path(place).relative_to(root)
        while name.suffix.lower() != ".png" or name.as_posix().casefold() in taken:
            name = name.with_name(f"{name.name}.png")
        taken.add(name.as_posix().casefold())
        names[path] = name
    return names


def map_facts(full_scale: float, unit: str | None, side: int, border: int) -> dict[str, Any]:
    """What `maps.json` says of maps of `side` px: `valid` is the box [left, top, right, bottom] in
    which they say something, where that is not all."""
    facts: dict[str, Any] = {"unit": unit} if unit else {}
    facts |= {"full_scale": full_scale, "bits": 16}
    if border:
        facts["valid"] = [border, border, side - border, side - border]
    return facts


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Which pictures go to `out`, and how they are scaled."""

    out: Path
    top: float  # map value of the last color
    low: float = 0.0  # and of the first: what normal pixels have
    contour: float | None  # map value at which a line is drawn
    heatmaps: bool
    maps: bool
    border: int = 0  # px at each side of a map that say nothing
    unit: str | None = None

    def __post_init__(self) -> None:
        if not self.low < self.top < math.inf:
            above = f"above {self.low:.3g}, where colors begin," if self.low else "positive"
            raise ValueError(f"map_top must be {above} and finite, not {self.top}")

    def written(
        self, batches: Iterator[Outputs], paths: Sequence[Path], tell: Callable[[str], None]
    ) -> Iterator[Outputs]:
        """The same batches of these images; when the last has gone through, all pictures stand."""
        names = picture_names(paths)
        waiting: deque[Future[int]] = deque()
        clipped: list[int] = []  # pixels of each map
        side = 0  # of the maps
        with ThreadPoolExecutor(READER_THREADS) as pool:
            for index, batch in enumerate(batches):
                if batch.maps is not None:
                    side = batch.maps.shape[-1]
                    jobs = zip(batch.paths, batch.maps, strict=True)
                    waiting.extend(pool.submit(self._draw, p, names[p], m) for p, m in jobs)
                elif index == 0:
                    tell("this detector draws no maps, so there are no heat maps")
                while len(waiting) > 2 * len(batch.paths):
                    clipped.append(waiting.popleft().result())
                yield batch
            clipped += [job.result() for job in waiting]
        if self.maps and clipped:
            full_scale = FULL_SCALE_TOPS * self.top
            facts = map_facts(full_scale, self.unit, side, self.border)
            facts |= {"maps": len(clipped), "clipped_pixels": sum(clipped)}
            write_json(self.out / MAPS / "maps.json", facts)

    def refuse_as_images(self, paths: Sequence[Path]) -> None:
        """Raise `ValueError` if one of the images lies where the pictures go."""
        folders = [(self.out / name).absolute() for name in (HEATMAPS, MAPS)]
        inside = [p for p in paths if any(p.absolute().is_relative_to(f) for f in folders)]
        if inside:
            raise ValueError(
                f"{len(inside)} of the images, such as {inside[0]}, lie where the heat maps and "
                f"maps go, in {self.out}; give other images or another --out"
            )

    def _draw(self, path: Path, name: Path, anomaly_map: NDArray[np.float32]) -> int:
        """One image's pictures; the number of clipped pixels of its raw map."""
        if self.heatmaps:
            look: dict[str, Any] = {"top": self.top, "low": self.low, "contour": self.contour}
            look["border"] = self.border
            write_image(self.out / HEATMAPS / name, overlay(read_image(path), anomaly_map, **look))
        if not self.maps:
            return 0
        return write_map(self.out / MAPS / name, anomaly_map, FULL_SCALE_TOPS * self.top)
