"""The demo from end to end, with fewer and smaller pictures."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

demo = importlib.import_module("leanet.demo")  # `leanet.demo` itself is the function


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TOY", {**demo.TOY, "num_normal": 12, "num_anomalous": 4, "size": 48})
    small = {"folds": 2, "img_size": 32, "epochs": 1}
    monkeypatch.setattr(
        demo, "COMMON", {**demo.COMMON, **small, "adn": "timm/mobilenetv3_small_050"}
    )
    monkeypatch.setattr(demo, "LEANET", {"map_model": {"epochs": 1, "base": 2}})


@pytest.mark.usefixtures("tiny")
def test_the_demo_trains_both_methods_and_shows_them_on_one_page(tmp_path: Path) -> None:
    said: list[str] = []
    page = demo.demo(tmp_path / "demo", tell=said.append)
    text = "\n".join(said)
    for word in ("12 good and 4 bad", "LEA-Net", "plain classifier", "AUROC", "seconds"):
        assert word in text
    assert page == tmp_path / "demo" / "leanet" / "report.html"
    assert "classifier" in page.read_text()
    for run in ("leanet", "classifier"):
        assert (tmp_path / "demo" / run / "card.json").exists()
    with pytest.raises(ValueError, match=r"not empty.*--overwrite"):
        demo.demo(tmp_path / "demo", tell=said.append)
    assert {entry.name for entry in (tmp_path / "demo").iterdir()} == demo.FOLDERS


def test_a_folder_that_is_no_demo_survives_overwriting(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="more than an earlier demo"):
        demo.demo(tmp_path, overwrite=True, tell=lambda text: None)
    assert (tmp_path / "thesis.txt").exists()
