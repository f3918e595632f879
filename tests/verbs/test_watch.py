from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.cli import main
from leanet.data.images import write_image
from leanet.ops.working_point import WorkingPoint
from leanet.records import Prediction
from leanet.serve.live import Model


class Red:
    """Score: mean red."""

    img_size = 16

    def __call__(self, image: Tensor) -> Prediction:
        return Prediction(image[:, 0].mean(dim=(1, 2)))


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def opened(run: Path, name: str, **_: Any) -> Model:
        return Model(name, run, {}, Red(), WorkingPoint(0.5), torch.device("cpu"))

    monkeypatch.setattr("leanet.line.open_model", opened)


def test_it_ends_with_a_count_and_sorts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, red in enumerate((10, 20, 250)):
        picture = np.full((20, 20, 3), red, dtype=np.uint8)
        write_image(tmp_path / f"in/{k}.png", picture)
    folder, out = str(tmp_path / "in"), str(tmp_path / "out")
    words = ["--once", "--settle", "0", "--move", "--out", out, "--device", "cpu"]
    assert main(["watch", "run", folder, *words]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "3 images judged: 2 normal, 1 anomalous"
    assert (tmp_path / "out/anomalous/2.png").exists()
    assert not (tmp_path / "out/overlays").exists()  # this detector draws no maps


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "--once"], "nowhere is no folder; give the one in which images appear"),
        ([".", "--interval", "0"], "interval must be positive"),
    ],
)
def test_a_mistake_ends_in_a_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "run", *words, "--device", "cpu"]) == 2
    assert told in capsys.readouterr().err
