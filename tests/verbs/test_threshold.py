from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import leanet
from leanet.cli import main
from leanet.files import read_json, write_csv, write_json, write_text
from leanet.ops.working_point import point_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run without folds says of its scores."""
    label = [0] * 20 + [1] * 10
    score = np.linspace(0, 1, 30)
    rows = [
        {"path": str(k), "role": "held_out", "label": y, "score": s}
        for k, (y, s) in enumerate(zip(label, score, strict=True))
    ]
    write_text(tmp_path / "config.yaml", "method: classifier\n")
    write_csv(tmp_path / "final" / "predictions.csv", rows)
    write_json(tmp_path / "final" / "metrics.json", {"remarks": {}})
    threshold = {"value": 0.5, "rule": "f1", "num_normal": 20, "num_anomalous": 10}
    write_json(tmp_path / "card.json", {"method": "classifier", "folds": 0, "threshold": threshold})
    return tmp_path


def test_without_options_the_point_is_told_and_nothing_changes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "card.json").read_bytes()
    assert main(["threshold", str(run)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("threshold 0.5: best F1; 20 normal and 10 anomalous images held out")
    assert "rejects 5 of 20 good images" in told
    assert (run / "card.json").read_bytes() == before


def test_options_reach_the_card_and_what_is_not_named_stays(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = ["--review", "max_miss=0,max_false_alarm=0"]
    assert main(["threshold", str(run), "--max-false-alarm", "0.2", *zone]) == 0
    assert main(["threshold", str(run), "--cost", "miss=2,false_alarm=1", "--prevalence=0.1"]) == 0
    card = read_json(run / "card.json")
    assert card["threshold"]["asked"]["cost"] == {"miss": 2.0, "false_alarm": 1.0}
    assert card["review"]["asked"] == {"max_miss": 0.0, "max_false_alarm": 0.0}
    assert (card["method"], card["prevalence"]) == ("classifier", 0.1)
    assert [one["threshold"]["rule"] for one in card["history"]] == ["f1", "max_false_alarm"]
    assert main(["threshold", str(run), "--reset"]) == 0
    assert read_json(run / "card.json")["threshold"]["value"] == 0.5
    assert "no review zone" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max_mis", "0.1"], "did you mean max_miss"),
        (["--max_miss", "few"], "--max_miss"),
        (["--max_miss", "0.01", "--confident"], "368 are needed"),
        (["--f1", "--value", "1"], "each choose the threshold"),
    ],
)
def test_mistakes_leave_the_card_alone(
    run: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "card.json").read_bytes()
    assert main(["threshold", str(run), *words]) == 2
    assert told in capsys.readouterr().err
    assert (run / "card.json").read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["threshold", str(tmp_path / "nowhere")]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_the_python_function_takes_dictionaries_and_gives_the_point(run: Path) -> None:
    told: list[str] = []
    point = leanet.threshold(
        run,
        cost={"miss": 50, "false_alarm": 1},
        review={"max_false_alarm": 0.05},
        calibration="auto",
        tell=told.append,
    )
    assert point == point_of(read_json(run / "card.json"))
    assert point.review is not None
    assert point.calibration is not None
    assert "lowest cost" in told[0]
    assert leanet.threshold(run, tell=told.append) == point
    with pytest.raises(ValueError, match="unknown option 'max_mis'"):
        leanet.threshold(run, max_mis=0.1)
