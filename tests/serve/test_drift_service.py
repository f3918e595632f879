from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leanet.data.images import write_image
from leanet.files import read_json, write_csv, write_json
from leanet.inference.baseline import baseline_of, measured
from leanet.ops.familiar import summary
from leanet.serve import drift_service
from leanet.serve.drift_service import MEASURING, NO_BASELINE, SAVE_EVERY, Drift
from leanet.serve.live import Live, Model

SIDE = 16
RNG = np.random.default_rng(0)


def pictures(num: int, level: int = 120) -> np.ndarray:
    """uint8 [num, 16, 16, 3]."""
    drawn: np.ndarray = np.clip(
        level + RNG.normal(0, 12, (num, 1, 1, 1)) + RNG.normal(0, 20, (num, SIDE, SIDE, 3)), 0, 255
    ).astype(np.uint8)
    return drawn


def baseline(num: int = 60) -> dict[str, Any]:
    images = torch.from_numpy(pictures(num)).permute(0, 3, 1, 2).float() / 255
    scores = summary(RNG.normal(0.3, 0.05, 60))
    known = {"source": "held-out", "normal": scores, "all": scores}
    made = baseline_of(measured([images]), np.ones(num, dtype=bool), SIDE, known)
    assert made is not None
    return made


@pytest.fixture
def model(make_model: Callable[..., Model], tmp_path: Path) -> Model:
    """Its run has a baseline."""
    write_json(tmp_path / "run/baseline.json", baseline())
    return make_model()._replace(run=tmp_path / "run")


@pytest.fixture
def drift(model: Model, tmp_path: Path) -> Drift:
    started = Drift(Live(model), tmp_path / "state", window=50)
    started.start()
    return started


def feed(drift: Drift, images: np.ndarray) -> None:
    for picture in images:
        drift.observe(picture, float(RNG.normal(0.3, 0.05)))


def test_the_baseline_is_that_of_the_run(drift: Drift) -> None:
    status = drift.status()
    assert status["baseline"] == {"source": "training", "images": 60}
    assert (status["reason"], status["pictures"], status["alarms"]) == ("", 0, [])


def test_status_shows_every_quantity_against_its_band(drift: Drift) -> None:
    feed(drift, pictures(30))
    status = drift.status()
    shown = {one["name"]: one for one in status["quantities"]}
    assert list(shown) == [
        *("brightness", "contrast", "red", "yellow", "saturation", "sharpness", "noise"),
        *("black", "white", "score"),
    ]
    bright = shown["brightness"]
    assert len(bright["values"]) == 30
    assert bright["limits"][0] < bright["band"][0] < bright["usual"] < bright["band"][1]
    assert bright["band"][0] < bright["now"] < bright["band"][1]
    assert not bright["alarm"]
    assert shown["score"]["limits"] is None
    assert status["anomalous"] == {"count": 0, "usual": 0.0, "from": "of all training images"}


def test_an_alarm_says_what_and_since_when(drift: Drift) -> None:
    feed(drift, pictures(40, level=60))
    status = drift.status()
    alarm = next(one for one in status["alarms"] if one["name"] == "brightness")
    assert alarm["title"] == "brightness"
    assert alarm["words"].startswith("darker than in training: L* ")
    assert alarm["since"].endswith("+00:00")
    assert status["unusual"]["count"] > 0


def test_what_was_seen_outlives_a_restart(drift: Drift, model: Model, tmp_path: Path) -> None:
    feed(drift, pictures(SAVE_EVERY, level=60))
    again = Drift(Live(model), tmp_path / "state", window=50)
    again.start()
    assert again.status() == drift.status()
    other = Drift(Live(model._replace(name="001")), tmp_path / "state", window=50)
    other.start()
    assert other.status()["pictures"] == 0


def test_a_spoiled_file_costs_only_the_memory(drift: Drift, model: Model, tmp_path: Path) -> None:
    (tmp_path / "state/drift").mkdir(parents=True)
    for text in ("{", '{"model": "original"}'):
        (tmp_path / "state/drift/last.json").write_text(text)
        again = Drift(Live(model), tmp_path / "state", window=50)
        again.start()
        assert again.status()["pictures"] == 0


def test_a_reset_keeps_the_baseline(drift: Drift) -> None:
    feed(drift, pictures(40, level=60))
    drift.reset()
    status = drift.status()
    assert (status["pictures"], status["alarms"]) == (0, [])
    assert status["baseline"]["source"] == "training"


def test_a_new_baseline_is_an_act_with_a_name_and_can_be_given_up(
    drift: Drift, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="needs the last 25 pictures"):
        drift.accept("Mia")
    feed(drift, pictures(25, level=60))
    with pytest.raises(ValueError, match="say who"):
        drift.accept("  ")
    drift.accept("Mia")
    assert read_json(tmp_path / "state/drift/accepted.json")["who"] == "Mia"
    feed(drift, pictures(30, level=60))
    status = drift.status()
    assert status["alarms"] == []
    assert (status["baseline"]["source"], status["baseline"]["who"]) == ("accepted", "Mia")
    again = Drift(Live(model), tmp_path / "state", window=50)
    again.start()
    assert again.status()["baseline"]["source"] == "accepted"
    drift.give_up("Mia")
    assert drift.status()["baseline"]["source"] == "training"
    feed(drift, pictures(40, level=60))
    assert drift.status()["alarms"]


def test_another_model_has_its_own_scores_and_a_new_threshold_changes_nothing(
    drift: Drift, model: Model, tmp_path: Path
) -> None:
    live = Live(model)
    watching = Drift(live, tmp_path / "other", window=50)
    watching.start()
    feed(watching, pictures(30, level=60))
    live.switch(model._replace(card={**model.card, "threshold": {"value": 0.9}}))
    assert watching.status()["pictures"] == 30
    watching.accept("Mia")
    write_json(tmp_path / "next/baseline.json", baseline())
    live.switch(model._replace(name="001", run=tmp_path / "next"))
    status = watching.status()
    assert (status["model"], status["pictures"]) == ("001", 0)
    assert status["baseline"]["source"] == "accepted"
    known = watching.monitor.known("score")
    assert known is not None
    assert known["source"] == "held-out"


def test_a_run_without_a_baseline_is_measured_from_its_images(
    make_model: Callable[..., Model], tmp_path: Path
) -> None:
    rows = []
    for k, picture in enumerate(pictures(12)):
        write_image(tmp_path / f"data/{k}.png", picture)
        rows.append({"path": f"{k}.png", "label": 0, "kind": "", "mask": "", "group": "",
                     "split": ""})  # fmt: skip
    write_csv(tmp_path / "run/samples.csv", rows)
    (tmp_path / "run/config.yaml").write_text(f"data: {tmp_path / 'data'}\n")
    model = make_model()._replace(run=tmp_path / "run")
    for folder in ("state", "state"):  # the second time from the file
        drift = Drift(Live(model), tmp_path / folder, window=50)
        drift.start()
        drift.wait(10)
        assert drift.status()["baseline"] == {"source": "training", "images": 12}
    assert (tmp_path / "state/drift/measured-original.json").exists()
    assert not (tmp_path / "run/baseline.json").exists()


def test_without_images_it_says_so_plainly(
    make_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("data: nowhere\n")
    write_csv(tmp_path / "run/samples.csv", [{"path": "a.png", "label": 0, "kind": "", "mask": "",
                                              "group": "", "split": ""}])  # fmt: skip
    drift = Drift(Live(make_model()._replace(run=tmp_path / "run")), tmp_path / "state", window=50)
    monkeypatch.setattr(Drift, "_measure", lambda self, model: None)
    drift.start()
    assert drift.status()["reason"] == MEASURING
    monkeypatch.undo()
    again = Drift(Live(make_model()._replace(run=tmp_path / "run")), tmp_path / "state", window=50)
    again.start()
    again.wait(10)
    status = again.status()
    assert (status["baseline"], status["reason"]) == (None, NO_BASELINE)
    assert again.observe(pictures(1)[0], 0.1) == ()


def test_trouble_with_drift_costs_no_verdict(
    drift: Drift, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(drift_service, "write_json", broken)
    answers = [drift.observe(picture, 0.3) for picture in pictures(SAVE_EVERY)]
    assert answers[-1] == ()
    assert "drift could not look at a picture" in caplog.text
