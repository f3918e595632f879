"""What most tests share: a small generated data set, a runtime on the CPU, quick fits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from leanet.config import from_dict
from leanet.data.cache import cache_images
from leanet.data.images import write_image
from leanet.data.scan import scan
from leanet.data.toy import make_toy
from leanet.fit import fit
from leanet.methods import catalog
from leanet.methods.recipe import Material
from leanet.prepare import Options
from leanet.runtime import Runtime, make_runtime

hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same every time")

NUM_NORMAL, NUM_ANOMALOUS, SIDE = 18, 6, 32

Fit = Callable[..., Path]

_COMMON: dict[str, Any] = {"img_size": SIDE, "device": "cpu", "precision": "32-true"}
_SUPERVISED: dict[str, Any] = {"adn": "timm/mobilenetv3_small_050", "epochs": 2}
_COLORIZER: dict[str, Any] = {"epochs": 2, "base": 8}
QUICK: dict[str, dict[str, Any]] = {
    "colorizer": _COLORIZER,
    "reconstruction": _COLORIZER,
    "classifier": _SUPERVISED,
    "leanet": {**_SUPERVISED, "aan": "mobilenet", "map_model": _COLORIZER},
}


def quick_fit(method: str, data: Path, out: Path, **options: Any) -> Path:
    """Train small networks for two epochs at 32 px, without a report; `options` go on top."""
    earlier, tell = options.pop("earlier", "refuse"), options.pop("tell", lambda text: None)
    values = {**_COMMON, **QUICK[method], **options}
    own = {key: values.pop(key) for key in list(values) if key in Options.__dataclass_fields__}
    return fit(
        method,
        data,
        out,
        from_dict(Options, own),
        from_dict(catalog.find(method).config, values),
        earlier=earlier,
        tell=tell,
    )


@pytest.fixture(scope="session", name="quick_fit")
def _quick_fit() -> Fit:
    return quick_fit


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 normal and 6 anomalous leaves of 48 px, with masks; not to be changed."""
    return make_toy(
        tmp_path_factory.mktemp("data") / "toy",
        num_normal=NUM_NORMAL,
        num_anomalous=NUM_ANOMALOUS,
        size=48,
    )


def write_classes(folder: Path, names: Sequence[str], count: int, *, noise: float = 30.0) -> Path:
    """A folder per class with noisy pictures of 36 px, each class of its own color."""
    colors = np.array([(60, 140, 60), (170, 90, 50), (70, 80, 170), (160, 160, 60)])
    rng = np.random.default_rng(0)
    for name, color in zip(names, colors, strict=False):
        for number in range(count):
            pixels = np.clip(color + rng.normal(0, noise, (36, 36, 3)), 0, 255)
            write_image(folder / name / f"{number}.png", pixels.astype(np.uint8))
    return folder


@pytest.fixture(scope="session", name="write_classes")
def _write_classes() -> Callable[..., Path]:
    return write_classes


@pytest.fixture(scope="session")
def class_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12 pictures, one of them normal; not to be changed."""
    folder = tmp_path_factory.mktemp("classes") / "leaves"
    return write_classes(folder, ("rust10", "healthy", "rust2"), 12)


@pytest.fixture(scope="session")
def class_run(class_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes, two folds; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "classes"
    return quick_fit("classifier", class_toy, out, folds=2)


@pytest.fixture(scope="session")
def lea_run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LEA-Net, three folds, trained on the toy set; not to be changed."""
    return quick_fit("leanet", toy, tmp_path_factory.mktemp("runs") / "leanet", folds=3)


@pytest.fixture
def runtime() -> Runtime:
    """The CPU in float32, seed 0."""
    return make_runtime("cpu", "32-true", seed=0)


@pytest.fixture(scope="module")
def material(
    toy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Material]]:
    """material() -> the toy set, decoded at 32 px, with a run folder of its own
    that goes with the test file: what is trained there is large."""
    runs: list[Path] = []

    def make(**changes: Any) -> Material:
        run = tmp_path_factory.mktemp("material")
        runs.append(run)
        samples = changes.pop("samples", scan(toy).samples)
        device = make_runtime("cpu", "32-true").device
        images = cache_images([s.path for s in samples], SIDE, run / "cache", device)
        return Material(samples=tuple(samples), images=images, img_size=SIDE, run=run)

    yield make
    for run in runs:
        shutil.rmtree(run)
