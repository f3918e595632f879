"""24 images of three colored shapes, a run of the GAN on them, and what it draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from leanet.data.images import write_image
from leanet.files import write_csv
from leanet.generation.gan_run import GanOptions, fit_gan
from leanet.methods.gan import Config

COLORS = {"disc": (200, 40, 40), "ok": (40, 180, 60), "square": (60, 80, 220)}
PER_CLASS, SIDE = 8, 32


def shape(kind: str, rng: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """A filled disc, diamond or square somewhere on grey."""
    rows, columns = np.mgrid[:side, :side]
    y, x = rng.uniform(0.35, 0.65, 2) * side
    dy, dx, radius = abs(rows - y), abs(columns - x), rng.uniform(0.2, 0.3) * side
    inside = {"disc": dy**2 + dx**2 < radius**2, "ok": dy + dx < radius}.get(
        kind, np.maximum(dy, dx) < radius
    )
    image = np.full((side, side, 3), 128.0) + rng.normal(0, 4, (side, side, 3))
    image[inside] = np.array(COLORS[kind]) + rng.normal(0, 4, (int(inside.sum()), 3))
    return image.clip(0, 255).round().astype(np.uint8)


def _make_shapes(root: Path, per_class: int = PER_CLASS, seed: int = 0) -> Path:
    """shapes.csv with a test image of every class beside `per_class` training images."""
    rng, rows = np.random.default_rng(seed), []
    for kind in COLORS:
        for index in range(per_class + 1):
            name = f"{kind}/{index:03d}.png"
            write_image(root / name, shape(kind, rng))
            split = "test" if index == per_class else "train"
            label = "normal" if kind == "ok" else "anomalous"
            rows.append({"path": name, "label": label, "type": kind, "split": split})
    write_csv(root / "shapes.csv", rows)
    return root / "shapes.csv"


@pytest.fixture(scope="session")
def make_shapes() -> Callable[..., Path]:
    return _make_shapes


@pytest.fixture(scope="session")
def quick_gan() -> Callable[..., Path]:
    return _quick_gan


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 24 training and 3 test images; not to be changed."""
    return _make_shapes(tmp_path_factory.mktemp("shapes"))


def _quick_gan(data: Path, out: Path, *, folds: int = 0, **options: Any) -> Path:
    """30 tiny steps at 32 px."""
    earlier = options.pop("earlier", "refuse")
    config = Config(**{"steps": 30, "look_every": 15, "batch_size": 8, **options})
    gan = GanOptions(img_size=SIDE, device="cpu", precision="32-true", folds=folds)
    return fit_gan(data, out, gan, config, earlier=earlier, tell=lambda text: None)


@pytest.fixture(scope="session")
def gan_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    return _quick_gan(shapes, tmp_path_factory.mktemp("runs") / "gan", snapshot_every=15)
