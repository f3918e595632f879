"""Images of noise with labels; and a stand-in for anomalib: just what
`leanet.methods.anomalib_file` asks of it, in 80 lines."""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.data.cache import Cache
from leanet.methods.recipe import Material
from leanet.records import Sample

RESIZE = {"class_path": "v2.Resize", "init_args": {"size": [32, 32]}}
HALVE = {"class_path": "v2.Normalize", "init_args": {"mean": [0.5] * 3, "std": [0.5] * 3}}
Write = Callable[..., Path]


class Output(NamedTuple):
    pred_score: Tensor | None = None
    anomaly_map: Tensor | None = None


class Kind(enum.Enum):
    """Of the distance: as it is, or less 5, or no map."""

    PLAIN, LOW, NONE = "plain", "low", "none"


class Dots(nn.Module):
    """The distance of a pixel to the nearest of some colors, which only fitting finds."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, self.steps = kind, []
        self.register_buffer("bank", torch.empty(0))

    def forward(self, image: Tensor) -> Output:
        pixels = image.flatten(2).mT
        distance = torch.cdist(pixels, self.get_buffer("bank")).amin(dim=2)
        drawn = distance.unflatten(1, image.shape[-2:])[:, None] - 5 * (self.kind is Kind.LOW)
        score = drawn.flatten(1).amax(dim=1, keepdim=True)
        return Output(score, None if self.kind is Kind.NONE else drawn)


class Module:
    @classmethod
    def checkpoint_safe_globals(cls) -> tuple[Any, ...]:
        return ()


class Nearcolor(Module):
    def __init__(self, kind: str = "plain", pre_trained: bool = True, **around: Any) -> None:
        before = around.pop("pre_processor")
        assert not any(around.values())
        assert not pre_trained, "the network is built without fetching weights"
        self.model = Dots(Kind(kind))
        self.model.steps = [] if before is False else list(before.transform)


class PreProcessor:
    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        spec = config["transform"]
        steps = [] if spec is None else spec["init_args"].get("transforms", [spec])
        self.transform = nn.Sequential(*map(_step, steps)) if steps else None


class Step(nn.Module):
    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, image: Tensor) -> Tensor:
        return self.run(image)


def _step(spec: dict[str, Any]) -> Step:
    side = spec["init_args"].get("size", [0])[0]
    if "Crop" in spec["class_path"]:
        return Step(lambda image: _middle(image, side))
    if "Resize" in spec["class_path"]:
        return Step(lambda image: nn.functional.interpolate(image, (side, side)))
    return Step(lambda image: (image - 0.5) / 0.5)


def _middle(image: Tensor, side: int) -> Tensor:
    start = (image.shape[-1] - side) // 2
    return image[..., start : start + side, start : start + side]


@pytest.fixture
def fake_anomalib(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import anomalib` gives the stand-in, with the one model Nearcolor."""

    @contextlib.contextmanager
    def safe(extra: Any) -> Iterator[None]:
        with torch.serialization.safe_globals([Kind, *extra]):
            yield

    parts: dict[str, dict[str, Any]] = {
        "anomalib": {"__version__": "2.7.stand-in"},
        "anomalib.models": {"Nearcolor": Nearcolor},
        "anomalib.models.components": {"AnomalibModule": Module},
        "anomalib.pre_processing": {"PreProcessor": PreProcessor},
        "anomalib.utils.serialization": {"anomalib_safe_globals": safe},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Write:
    """write_checkpoint(kind="low", crop=24) -> a checkpoint of Nearcolor that knows two greens."""

    def write(kind: str = "plain", crop: int | None = None, **changes: Any) -> Path:
        center = {"class_path": "v2.CenterCrop", "init_args": {"size": [crop, crop]}}
        steps = [RESIZE, *([center] if crop else []), HALVE]
        spec = {"class_path": "v2.Compose", "init_args": {"transforms": steps}}
        bank = torch.tensor([[-0.2, 0.4, -0.3], [0.0, 0.5, 0.0]])
        content = {
            "state_dict": {"model.bank": bank, "post_processor.image_min": torch.tensor(0.1)},
            "hyper_parameters": {"kind": Kind(kind), "pre_trained": True},
            "anomalib_components_enabled": {"pre_processor": True},
            "anomalib_pre_processor_config": {"transform": spec},
        }
        torch.save({**content, **changes}, tmp_path / "model.ckpt")
        return tmp_path / "model.ckpt"

    return write


@pytest.fixture
def parts() -> SimpleNamespace:
    """What the tests need of the stand-in."""
    return SimpleNamespace(Dots=Dots, Kind=Kind, RESIZE=RESIZE, HALVE=HALVE)


@pytest.fixture
def noise(tmp_path: Path) -> Callable[[int, int], Material]:
    """Makes so many normal and so many anomalous images, all of noise, 8 px."""

    def make(num_normal: int, num_anomalous: int) -> Material:
        labels = [0] * num_normal + [1] * num_anomalous
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 8, 8), np.uint8)
        return Material(
            samples=tuple(Sample(path=Path(f"{k}.png"), label=y) for k, y in enumerate(labels)),
            images=Cache(images, torch.device("cpu")),
            img_size=8,
            run=tmp_path,
        )

    return make
