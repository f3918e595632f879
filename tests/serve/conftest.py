"""A server over a detector that needs no training, and pictures to send to it."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor

from leanet.files import read_json, write_csv, write_json
from leanet.ops.working_point import WorkingPoint, point_of
from leanet.records import Prediction
from leanet.serve import retrain, training_process
from leanet.serve.app import make_app
from leanet.serve.batching import Batcher
from leanet.serve.live import Live, Model
from leanet.serve.metrics import Metrics
from leanet.serve.retrain import Retraining
from leanet.serve.services import Services
from leanet.serve.settings import Settings
from leanet.serve.store import Store
from leanet.serve.versions import Versions

SIDE = 16
BASE_URL = "http://127.0.0.1:8000"


class Brightness:
    """score: mean red; map: the red plane; a threshold at half."""

    img_size = SIDE

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, image: Tensor) -> Prediction:
        self.sizes.append(len(image))
        red = image[:, :1]
        score = red.mean(dim=(1, 2, 3))
        return Prediction(score, red, parts={"red": score})


def png(red: int = 0, size: tuple[int, int] = (24, 20), kind: str = "PNG") -> bytes:
    """A picture (width, height) of one color as the bytes of a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (red, 40, 90)).save(buffer, format=kind)
    return buffer.getvalue()


def make_model(detector: Any = None, name: str = "original", **card: Any) -> Model:
    """A model over a fake detector that decides at 0.5."""
    given = {"method": "fake", "classes": [], "map_top": 1.0, **card}
    fake = detector or Brightness()
    point = WorkingPoint(0.5, review=(0.4, 0.6))
    return Model(name, Path("run"), given, fake, point, torch.device("cpu"))


def make_services(state: Path, model: Model | None = None, **options: Any) -> Services:
    """The parts of a server over `model`; drift and neighbors only if they are given."""
    parts = {f.name: options.pop(f.name) for f in dataclasses.fields(Services) if f.name in options}
    settings = Settings(run=state / "run", state=state, **options)
    live = Live(model or make_model())
    metrics = Metrics(live, "0")
    batcher = Batcher(
        live,
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        queue=settings.queue,
        on_batch=metrics.batch,
    )
    store = parts.pop("store", None) or Store(state)
    versions = Versions(state, settings.run)
    return Services(
        settings=settings,
        live=live,
        batcher=batcher,
        metrics=metrics,
        store=store,
        versions=versions,
        retraining=Retraining(store, versions, settings),
        **parts,
    )


@pytest.fixture(name="png")
def _png() -> Callable[..., bytes]:
    return png


@pytest.fixture(name="make_model")
def _make_model() -> Callable[..., Model]:
    return make_model


@pytest.fixture
def services_over(tmp_path: Path) -> Callable[..., Services]:
    """services_over(model, **options): the parts of a server."""
    return lambda model=None, **options: make_services(tmp_path, model, **options)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """serve(model, **options): a client of a server that runs until the end of the test."""
    with ExitStack() as stack:

        def start(model: Model | None = None, **options: Any) -> TestClient:
            app: FastAPI = make_app(make_services(tmp_path, model, **options))
            return stack.enter_context(TestClient(app, base_url=BASE_URL))

        yield start


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a server with the usual options that the tests of a file share."""
    app = make_app(make_services(tmp_path_factory.mktemp("serve")))
    with TestClient(app, base_url=BASE_URL) as client:
        yield client


# A run without a network and a `leanet fit` without training, for what happens around them.

FAKE_FIT = """
import json, os, pathlib, sys, time
_, _, method, table, _, out, _, config, resume = sys.argv
run, pause = pathlib.Path(out), float(os.environ.get("FAKE_PAUSE", "0"))
print(f"{method}: begins, {resume}", flush=True)
if os.environ.get("FAKE_ERROR"):
    print("leanet: 3 folds need that many images.\\nUse fewer folds.")
    sys.exit(2)
run.mkdir(exist_ok=True)
options = pathlib.Path(config).read_text()
(run / "config.yaml").write_text(f"data: {table}\\n" + options)
(run / "samples.csv").write_text(pathlib.Path(table).read_text())
for name in ("fold-0", "fold-1", "final"):
    (run / name).mkdir(exist_ok=True)
    for epoch in range(2):
        with (run / name / "journal.jsonl").open("a") as file:
            file.write("{}\\n")
        time.sleep(pause)
    if not (run / name / "metrics.json").exists():
        (run / name / "metrics.json").write_text("{}")
    else:
        print(f"{name}: finished before", flush=True)
(run / "card.json").write_text(json.dumps({"method": method, "threshold": None}))
print("report: done")
"""


@pytest.fixture
def fake_run(tmp_path: Path) -> Path:
    """A finished run without a network, over 6 normal and 3 anomalous pictures."""
    rows = []
    for k in range(9):
        kind = "good" if k < 6 else "dent"
        path = tmp_path / f"data/{kind}/{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(100 + k))
        rows.append({"path": f"{kind}/{k}.png", "label": int(k >= 6), "kind": kind})
    columns = {"mask": "", "group": "", "split": ""}
    run = tmp_path / "run"
    write_csv(run / "samples.csv", [row | columns for row in rows])
    (run / "config.yaml").write_text(
        f"method: fake\ndata: {tmp_path / 'data'}\nfolds: 2\nepochs: 4\npositives: 3\n"
    )
    write_json(run / "card.json", {"method": "fake", "threshold": None, "folds": 2})
    return run


@pytest.fixture
def fake_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Retraining calls a script in place of `leanet fit`; FAKE_PAUSE: seconds of an epoch,
    FAKE_ERROR: it ends with a mistake."""
    script = tmp_path / "fake_fit.py"
    script.write_text(FAKE_FIT)
    monkeypatch.setattr(training_process, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(retrain, "SECONDS_BETWEEN_LOOKS", 0.02)
    return monkeypatch


@pytest.fixture
def open_retraining(fake_run: Path, tmp_path: Path) -> Iterator[Callable[[], Retraining]]:
    """open_retraining(): what a server that starts over `fake_run` has."""
    opened: list[Retraining] = []

    def start() -> Retraining:
        settings = Settings(run=fake_run, state=tmp_path / "state")
        versions = Versions(settings.state, fake_run)
        opened.append(Retraining(Store(settings.state), versions, settings))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


# A server for the review page.


@pytest.fixture
def scored_run(fake_run: Path) -> Path:
    """A finished run that has cross-validated six normal and three anomalous pictures."""
    rows = []
    for k in range(9):
        name = f"good/{k}.png" if k < 6 else f"dent/{k}.png"
        rows.append({"path": name, "label": int(k >= 6), "score": 0.1 * k})
    found = [{**row, "role": "cross_validation"} for row in rows]
    write_csv(fake_run / "final/predictions.csv", found)
    folds = [
        {"path": row["path"], "fold": f"fold-{k % 2}", "role": "test"} for k, row in enumerate(rows)
    ]
    write_csv(fake_run / "folds.csv", folds)
    threshold = {"value": 0.55, "rule": "f1", "num_normal": 6, "num_anomalous": 3}
    write_json(
        fake_run / "card.json",
        {"method": "fake", "threshold": threshold, "folds": 2, "classes": [], "map_top": 1.0},
    )
    return fake_run


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """Six pictures to review, one with a nasty name, and a file that is none."""
    folder = tmp_path / "line"
    folder.mkdir()
    for red in (10, 60, 110, 160, 210):
        (folder / f"{red}.png").write_bytes(png(red))
    (folder / '"><img src=x onerror=alert(1)>.png').write_bytes(png(250))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def review_app(
    scored_run: Path,
    line: Path,
    make_model: Callable[..., Model],
    services_over: Callable[..., Services],
) -> FastAPI:
    """A server over `scored_run` that reviews `line`."""
    card = read_json(scored_run / "card.json")
    model = make_model(**card)._replace(run=scored_run, card=card, point=point_of(card))
    services = services_over(model, images=(str(line),))
    return make_app(services)
