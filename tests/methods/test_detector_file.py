"""What tests/methods/test_store.py does not say: files by another name, and other tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leanet.methods.detector_file import read_detector, write_detector
from leanet.methods.map_catalog import find_map_method
from leanet.methods.reconstruction import Config, Reconstructor, build
from leanet.training import checkpoint

CONFIG = Config(task="rotation", base=2)


@pytest.fixture
def detector() -> Reconstructor:
    torch.manual_seed(0)
    return build(CONFIG, 32, {"map_top": 0.5, "seed": 3}).eval()


def test_a_file_of_any_name_holds_the_detector_and_what_is_told_beside(
    detector: Reconstructor, tmp_path: Path
) -> None:
    write_detector(tmp_path, "reconstruction", CONFIG, detector, file="a.safetensors", fold=4)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    _, metadata = checkpoint.load(tmp_path / "a.safetensors")
    assert metadata["fold"] == 4
    again = read_detector(tmp_path, find_map_method, file="a.safetensors")
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(image).map, detector(image).map)
    assert again.extra() == {"map_top": 0.5, "seed": 3, "pca": None}
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing"):
        read_detector(tmp_path, find_map_method)


def test_a_method_that_the_table_does_not_know_is_refused(
    detector: Reconstructor, tmp_path: Path
) -> None:
    write_detector(tmp_path, "classifier", CONFIG, detector)
    with pytest.raises(ValueError, match="'classifier' is none that draws maps"):
        read_detector(tmp_path, find_map_method)


def test_weights_of_another_network_are_refused(detector: Reconstructor, tmp_path: Path) -> None:
    write_detector(tmp_path, "reconstruction", Config(task="rotation", base=4), detector)
    with pytest.raises(ValueError, match="holds no detector that leanet"):
        read_detector(tmp_path, find_map_method)
