"""leanet report: tables of several runs, and which words go together. Pages: tests/test_cli.py."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from leanet.cli import main
from leanet.config import to_yaml
from leanet.files import write_csv, write_json, write_text
from leanet.methods.adfa_config import Config
from leanet.prepare import Options


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two finished runs of adfa on leather, which differ in their seed."""
    made = []
    for seed, auroc in enumerate((0.8, 0.9)):
        run = tmp_path / f"leather-{seed}"
        text = "method: adfa\ndata: mvtec/leather\n" + to_yaml(Options(seed=seed, img_size=256))
        write_text(run / "config.yaml", text + to_yaml(Config(weights="elsewhere.pt")))
        write_json(run / "environment.json", {})
        write_json(run / "card.json", {"method": "adfa"})
        write_csv(run / "folds.csv", [{"path": "a.png", "fold": "final", "role": "test"}])
        row = {"path": "a.png", "role": "test", "label": 1, "kind": "cut", "verdict": "anomalous",
               "threshold": 0.1, "score": 0.5}  # fmt: skip
        write_csv(run / "final" / "predictions.csv", [row])
        write_json(run / "final" / "metrics.json", {
            "threshold": {"score": {"value": 0.1}}, "metrics": {"score": {"auroc": auroc}},
            "remarks": {}, "epochs": 1, "seconds": 1.0, "pixels": {"aupro": 0.7}})  # fmt: skip
        made.append(str(run))
    return made


def test_runs_become_tables_with_a_row_for_a_preset(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *runs, "--tables", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "tables.md")
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| adfa, default, wide_resnet50_2.tv_in1k | 2 |" in text
    assert "0.850 ± 0.071" in text
    assert "CFA (official), wide_resnet50_2, ++ (published, a)" in text
    with (tmp_path / "out" / "aupro.csv").open() as file:
        ours = next(iter(csv.DictReader(file)))
    assert (ours["Leather"], ours["Grid"], ours["Avg"]) == ("0.7", "", "")


def test_words_that_do_not_go_together_are_refused(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ["--tables", str(tmp_path / "out")]
    for words, message in {
        (*runs,): "give --tables FOLDER",
        (*runs, *tables, "--baseline", runs[0]): "leave out --baseline",
        (runs[0], "--gif", str(tmp_path)): "is a folder; name a file",
        (*runs, "--tables", f"{runs[0]}/card.json"): "is a file; name a folder",
        (str(tmp_path / "none"), *tables): "is no run folder",
    }.items():
        assert main(["report", *words]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) <= 2
