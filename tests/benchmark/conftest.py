"""A suite so small that a cell takes a second, and nothing in it is worth knowing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.files import write_text

WriteSuite = Callable[..., Path]


@pytest.fixture(scope="session")
def write_suite(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> WriteSuite:
    """write_suite(**keys) -> file of a suite on the toy set: two rows and a group of two."""

    def write(**keys: Any) -> Path:
        suite: dict[str, Any] = {
            "data": {"Toy": {"path": str(toy)}},
            "options": {
                "img_size": 32,
                "folds": 2,
                "inner_splits": 2,
                "device": "cpu",
                "precision": "32-true",
            },
            "common": {
                "epochs": 1,
                "adn": "timm/mobilenetv3_small_050",
                "map_model": {"base": 2, "epochs": 1},
            },
            "methods": {
                "plain": {"method": "classifier"},
                "steered": {
                    "method": "leanet",
                    "aan": "mobilenet",
                    "each": {"attention_points": [[1], [3]]},
                },
            },
            "baseline": "plain",
        }
        file = tmp_path_factory.mktemp("suite") / "suite.yaml"
        write_text(file, yaml.safe_dump({**suite, **keys}, sort_keys=False))
        return file

    return write
