from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from leanet.methods.store import load_detector
from leanet.training import checkpoint
from leanet.training.checkpoint import WEIGHTS


@pytest.fixture
def changed(lea_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """changed(method="x") -> a copy of a detector's folder with other metadata."""

    def write(drop: str = "", **metadata: Any) -> Path:
        tensors, told = checkpoint.load(lea_run / "final" / WEIGHTS)
        tensors.pop(drop, None)
        told = {key: value for key, value in (told | metadata).items() if value is not None}
        checkpoint.save(tmp_path / WEIGHTS, tensors, told)
        return tmp_path

    return write


def test_one_file_is_enough(lea_run: Path, tmp_path: Path) -> None:
    shutil.copy(lea_run / "final" / WEIGHTS, tmp_path)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (load_detector(f)(image) for f in (lea_run / "final", tmp_path))
    assert torch.equal(one.score, other.score)
    assert torch.equal(one.map, other.map)


def test_the_file_says_what_it_is(lea_run: Path) -> None:
    _, metadata = checkpoint.load(lea_run / "fold-1" / WEIGHTS)
    assert metadata["method"] == "leanet"
    assert metadata["img_size"] == 32
    assert metadata["config"]["adn"] == "timm/mobilenetv3_small_050"
    assert metadata["extra"]["scale"]["divisor"] > 0
    assert metadata["leanet"]


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing.*--resume"):
        load_detector(tmp_path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="is no weights file of leanet"):
        load_detector(tmp_path)
    (tmp_path / WEIGHTS).write_text(json.dumps({"no": "tensors"}))
    with pytest.raises(ValueError, match="is no weights file of leanet"):
        load_detector(tmp_path)


def test_a_map_model_is_a_detector_of_its_own(lea_run: Path) -> None:
    folder = next((lea_run / "map_models").iterdir())
    with torch.inference_mode():
        prediction = load_detector(folder)(torch.rand(1, 3, 32, 32))
    assert prediction.map.shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"config": {"adnn": "resnet18"}}, "did you mean adn"),
        ({"config": {"adn": "resnet18"}}, "holds no detector"),
        ({"extra": None}, "extra"),
        ({"drop": "network.strength", "leanet": "9.9"}, r"version 9\.9.*strength"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, changed: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        load_detector(changed(**changes))
