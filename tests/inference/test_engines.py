from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from leanet.inference.engines import OPEN, need, open_torch
from leanet.trained import Engine


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(ValueError, match=r"no_such_package is not installed.*pip install 'leanet"):
        need("no_such_package")


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.ReLU(), (torch.rand(2),)), file)
    with pytest.raises(ValueError, match="was not written by `leanet export`"):
        open_torch(file)


def test_every_engine_can_be_opened() -> None:
    engines: tuple[str, ...] = Engine.__args__  # type: ignore[attr-defined]
    assert set(engines) <= set(OPEN)
