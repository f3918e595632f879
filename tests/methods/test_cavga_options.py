"""What a user gets wrong on the command line of CAVGA ends in a line or two before any training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leanet.cli import main
from leanet.methods import cavga

Refused = Callable[..., str]
SIDE = ("--img_size", "32")


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Refused:
    """refused(data, options) -> the message, of a line or two, with exit status 2."""

    def train(*_: object) -> None:
        pytest.fail("the training has begun")

    monkeypatch.setattr(cavga, "train_players", train)

    def run(data: Path, *options: str) -> str:
        words = ["fit", "cavga", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
        assert main([*words, *options]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line]
        first = next(k for k, line in enumerate(told) if line.startswith("leanet: "))
        assert len(told[first:]) <= 2, told
        return "\n".join(told[first:])

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variant", "X_u"), "expected one of 'R_u', 'R_w', 'D_u', 'D_w', got X_u"),
        (("--img_size", "100"), "choose a multiple of 32"),
        (("--variant", "D_u", "--img_size", "100"), "choose a multiple of"),
        (("--attention_norm", "minmax"), "use sigmoid or relu_max"),
        (("--variant", "R_w", "--weak_fraction", "0"), "give a share in (0, 1]"),
        (("--variant", "D_w", "--w_ae", "0.5"), "w_ae: variant D_w has no use for it"),
        (("--w_cga", "0.5"), "w_cga: variant R_u has no use for it"),
        (("--w_ae", "-1"), "w_ae -1.0: give weights of at least 0"),
        (("--kl_weight", "-2"), "kl_weight -2.0: give weights of at least 0"),
        (("--lr", "0"), "must be positive"),
        ((*SIDE, "--weights", "none.safetensors"), "no weight file at none.safetensors"),
        ((*SIDE, "--dcgan_weights", "none.pt"), "none.pt"),
    ],
)
def test_a_mistake_is_told_in_a_line_or_two(
    toy: Path, refused: Refused, options: tuple[str, ...], message: str
) -> None:
    assert message in refused(toy, *options)


def test_weights_of_another_network_are_refused(
    toy: Path, refused: Refused, tmp_path: Path
) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"body.weight": torch.zeros(3)}, file)
    assert "other.safetensors do not fit: 100 missing" in refused(
        toy, *SIDE, "--weights", str(file)
    )
    file.write_text("nothing")
    assert "no safetensors file" in refused(toy, *SIDE, "--overwrite", "--weights", str(file))


def test_a_weak_variant_needs_anomalous_images(toy: Path, refused: Refused, tmp_path: Path) -> None:
    shutil.copytree(toy / "Negative", tmp_path / "data" / "train")
    told = refused(tmp_path / "data", *SIDE, "--variant", "R_w")
    assert "18 normal images and no anomalous one" in told
