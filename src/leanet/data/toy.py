"""Generated data sets with exact masks and known severities, for tests, docs and the demo.

An anomalous picture is drawn by exactly the process that draws a normal one and gets a defect
afterwards: the light, the camera, the harmless marks and the object itself say nothing about the
label, unlike in sets whose two classes were photographed on two days. No picture is drawn again
because a defect does not fit on it; the defect is.

Picture i of a class depends on (seed, class, i) alone, so a larger set contains the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from leanet.data.defects import KINDS, add_defect, mean_delta_e
from leanet.data.images import write_image
from leanet.data.surfaces import Array, render
from leanet.files import write_csv
from leanet.records import ANOMALOUS, NORMAL


def make_toy(  # noqa: PLR0913 - plain options of one call; a config object would be longer to use
    out: Path,
    *,
    surface: str = "leaf",
    num_normal: int = 100,
    num_anomalous: int = 20,
    size: int = 96,
    severity: tuple[float, float] = (8.0, 16.0),
    nuisance: float = 1.0,
    kinds: Sequence[str] = tuple(KINDS),
    seed: int = 0,
) -> Path:
    """Write a data set in the Positive/Negative layout and return its folder.

    `out/Negative/good/000.png`, `out/Positive/<kind>/000.png`, the mask (255 = defect) of each
    under the same name in `out/Mask/<kind>/`, and `out/severity.csv` with one row for each of
    them: path, kind, severity (mean CIEDE2000 over the mask, measured on the 8-bit pictures), area
    (share of the picture under the mask).

    Args:
        out: a new or empty folder.
        surface: "leaf" or "textile".
        num_normal: number of pictures in Negative.
        num_anomalous: number of pictures in Positive, the kinds in turn.
        size: side of the pictures in pixels.
        severity: lowest and highest mean CIEDE2000 of a defect, drawn evenly between them.
        nuisance: mean number of harmless marks, relative to the usual one, in both classes.
        kinds: kinds of defects to use.
        seed: not negative; same seed, same bytes.

    Raises:
        ValueError: for an unknown surface or kind, a size below 16, a severity that is not
            0 < lowest <= highest or out of reach, and a folder that is not empty.
    """
    _check(out, num_normal, num_anomalous, severity, kinds)
    for index in range(num_normal):
        base, _ = render(surface, _streams(seed, NORMAL, index)[0], size, nuisance=nuisance)
        write_image(out / "Negative" / "good" / f"{index:03d}.png", _to_8_bit(base))
    rows = []
    for index in range(num_anomalous):
        base_rng, defect_rng = _streams(seed, ANOMALOUS, index)
        base, inside = render(surface, base_rng, size, nuisance=nuisance)
        kind, name = kinds[index % len(kinds)], f"{index // len(kinds):03d}.png"
        defect = add_defect(base, inside, kind, defect_rng.uniform(*severity), defect_rng)
        before, after = _to_8_bit(base), _to_8_bit(defect.rgb)
        measured = mean_delta_e(before / 255, after / 255, defect.mask)
        write_image(out / "Positive" / kind / name, after)
        write_image(out / "Mask" / kind / name, defect.mask.astype(np.uint8) * 255)
        rows.append(
            {
                "path": f"Positive/{kind}/{name}",
                "kind": kind,
                "severity": f"{measured:.3f}",
                "area": f"{defect.mask.mean():.5f}",
            }
        )
    if rows:
        write_csv(out / "severity.csv", rows)
    return out


def _streams(seed: int, label: int, index: int) -> list[Generator]:
    """Two independent streams for one picture: everything but the defect, and the defect."""
    return np.random.default_rng([seed, label, index]).spawn(2)


def _to_8_bit(rgb: Array) -> NDArray[np.uint8]:
    return np.rint(rgb * 255).astype(np.uint8)


def _check(
    out: Path,
    num_normal: int,
    num_anomalous: int,
    severity: tuple[float, float],
    kinds: Sequence[str],
) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder; name a new one")
    if num_normal < 0 or num_anomalous < 0:
        raise ValueError(f"cannot draw {num_normal} normal and {num_anomalous} anomalous pictures")
    if not 0 < severity[0] <= severity[1]:
        raise ValueError(f"severity is {severity}; give 0 < lowest <= highest, for example (8, 16)")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        allowed = ", ".join(KINDS)
        raise ValueError(f"kinds are {tuple(kinds)}; name each once, allowed are {allowed}")
