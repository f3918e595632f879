"""The Python API: the same verbs as functions, and a cheap import."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import leanet
from leanet import api
from leanet.files import read_csv, read_json
from leanet.fit import fit
from leanet.methods.cavga_config import Config
from leanet.prepare import Options
from leanet.presets import preset_values

QUICK: dict[str, Any] = {
    "img_size": 32,
    "device": "cpu",
    "precision": "32-true",
    "epochs": 1,
    "base": 2,
}


def quiet(text: str) -> None:
    """Print nothing."""


def test_the_public_names_exist() -> None:
    assert set(dir(leanet)) == set(leanet.__all__)
    for name in leanet.__all__:
        assert getattr(leanet, name) is not None
    assert leanet.NORMAL == 0
    assert leanet.ANOMALOUS == 1


def test_the_facade_stays_a_facade_when_its_files_are_imported() -> None:
    importlib.import_module("leanet.fit")
    importlib.import_module("leanet.demo")
    assert leanet.fit is api.fit
    assert callable(leanet.demo)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = leanet.fitt


def test_importing_loads_nothing_heavy_and_prints_nothing() -> None:
    code = (
        "import sys, leanet, leanet.cli; "
        "sys.exit(', '.join({'torch', 'numpy', 'timm', 'jsonargparse'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "", "")


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "run"
    return leanet.fit("colorizer", toy, out, tell=quiet, **QUICK)


def test_fit_gives_a_run_folder_with_its_report(run: Path) -> None:
    assert (run / "card.json").exists()
    assert (run / "report.html").exists()
    assert yaml.safe_load((run / "config.yaml").read_text())["base"] == 2


def test_a_loaded_detector_judges_tensors(run: Path) -> None:
    detector = leanet.load(run, device="cpu")
    with torch.inference_mode():
        prediction = detector(torch.rand(2, 3, detector.img_size, detector.img_size))
    assert isinstance(prediction, leanet.Prediction)
    assert prediction.score.shape == (2,)
    assert not detector.training


def test_predict_gives_records_and_files(run: Path, toy: Path, tmp_path: Path) -> None:
    judged = leanet.predict(run, [toy / "Negative"], tmp_path / "p", device="cpu", heatmaps=False)
    rows = read_csv(tmp_path / "p" / "predictions.csv")
    assert [(str(one.path), one.score, one.verdict) for one in judged] == [
        (row["path"], float(row["score"]), row["verdict"]) for row in rows
    ]


def test_predictions_go_into_the_run_unless_told_otherwise(run: Path, toy: Path) -> None:
    leanet.predict(str(run), [str(toy / "Positive")], device="cpu", heatmaps=False)
    assert (run / "predictions" / "predictions.csv").exists()


def test_predict_gives_the_scores_of_training(lea_run: Path, toy: Path, tmp_path: Path) -> None:
    """The stored fold judges files as it judged the decoded images when it was tested."""
    from leanet.inference.predict import predict
    from leanet.methods.store import load_detector
    from leanet.ops.working_point import WorkingPoint

    rows = {
        row["path"]: float(row["score"])
        for row in read_csv(lea_run / "fold-0" / "predictions.csv")
        if row["role"] == "test"
    }
    judged = predict(
        load_detector(lea_run / "fold-0"),
        [toy / path for path in rows],
        point=WorkingPoint(0.0),
        out=tmp_path,
        device=torch.device("cpu"),
        heatmaps=False,
    )
    assert [one.score for one in judged] == pytest.approx(list(rows.values()), abs=1e-5)


def test_evaluate_takes_the_test_part_if_there_is_one(run: Path, toy: Path, tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for k, file in enumerate(sorted(toy.glob("*ative/*/*.png"))[:10]):
        lines.append(f"{file},0,{'test' if k < 4 else 'train'}")
    for k, file in enumerate(sorted(toy.glob("Positive/*/*.png"))):
        lines.append(f"{file},1,{'test' if k < 3 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    leanet.evaluate(run, tmp_path / "t.csv", tmp_path / "e", device="cpu")
    assert len(read_csv(tmp_path / "e" / "predictions.csv")) == 7
    leanet.evaluate(run, toy, tmp_path / "all", device="cpu")
    assert len(read_csv(tmp_path / "all" / "predictions.csv")) == 24


def test_weak_labels_are_learned_from_and_never_tested(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "parts", tmp_path / "run"
    for k, file in enumerate(sorted(toy.glob("Negative/*/*.png"))):
        copy_to(file, data / ("train" if k < 15 else "test") / "good" / file.name)
    for file in toy.glob("Positive/*/*.png"):
        copy_to(file, data / "test" / file.parent.name / file.name)
    options = Options(img_size=32, device="cpu", precision="32-true")
    config = Config(variant="D_w", epochs=1, min_steps=0, batch_size=8, weak_fraction=0.4)
    fit("cavga", data, run, options, config, tell=quiet)
    trained = [row for row in read_csv(run / "samples.csv") if row["split"] == "train"]
    weak = {row["path"] for row in trained if row["label"] == "1"}
    assert len(weak) == 3, "0.4 of 6, rounded up"
    tested = read_csv(run / "final" / "predictions.csv")
    evaluation = leanet.evaluate(run, data, tmp_path / "e", device="cpu")
    assert "left out 3 test images" in capsys.readouterr().err
    assert evaluation.image
    again = read_csv(tmp_path / "e" / "predictions.csv")
    assert {row["path"] for row in tested if row["role"] == "test"}.isdisjoint(weak)
    assert len(again) == 3 + 3
    assert not any(row["path"].endswith(tuple(weak)) for row in again)


def copy_to(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)


def test_the_working_point_is_that_of_the_card(run: Path, toy: Path, tmp_path: Path) -> None:
    evaluation = leanet.evaluate(run, toy, tmp_path / "e", device="cpu")
    card = read_json(run / "card.json")
    assert evaluation.image["score"]["threshold"] == card["threshold"]["value"]


def test_an_animation_of_a_run(run: Path, lea_run: Path, tmp_path: Path) -> None:
    file = leanet.demo_gif(lea_run, tmp_path / "a.gif")
    assert file == tmp_path / "a.gif"
    assert file.read_bytes()[:6] == b"GIF89a"
    with pytest.raises(ValueError, match="has kept no test images"):
        leanet.demo_gif(run)


def test_scan_describes_the_data(toy: Path) -> None:
    assert "positive-negative" in leanet.scan(toy)


def test_a_preset_is_a_start_and_options_win(toy: Path, tmp_path: Path) -> None:
    run = api.fit("colorizer", toy, tmp_path / "run", preset="paper", tell=quiet, **QUICK)
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert (kept["base"], kept["epochs"], kept["lr_schedule"]) == (2, 1, "constant")


def test_options_and_data_may_come_from_a_file(toy: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"method: colorizer\ndata: {tmp_path / 'nowhere'}\nloss: huber\n")
    with pytest.raises(ValueError, match="huber"):
        api.fit("colorizer", toy, tmp_path / "run", config=file, tell=quiet)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        api.fit("colorizer", config=file, tell=quiet, loss="mse")
    with pytest.raises(ValueError, match="which data"):
        api.fit("colorizer")


def test_nested_options_are_dictionaries(toy: Path) -> None:
    values = preset_values("leanet", "paper")
    assert values["map_model"]["base"] == 64
    with pytest.raises(ValueError, match="epochs"):
        api.fit("leanet", toy, map_model={"epoch": 3}, tell=quiet)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epoch": 3}, "did you mean epochs"), ({"preset": "best"}, "allowed: paper"),
     ({"resume": True, "overwrite": True}, "only one")],
)  # fmt: skip
def test_mistakes_are_value_errors(
    options: dict[str, Any], message: str, toy: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        api.fit("colorizer", toy, tmp_path / "run", tell=quiet, **options)
    assert not (tmp_path / "run").exists()
