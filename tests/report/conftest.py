"""Small run folders, written by hand: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from leanet.config import to_yaml
from leanet.files import write_csv, write_json, write_text
from leanet.methods.classifier import Config as ClassifierConfig
from leanet.methods.leanet import Config as LEANetConfig
from leanet.ops.metrics import confusion_at, f1, image_metrics
from leanet.prepare import Options
from leanet.report.results import Member, members

SIDE = 8


@dataclass(frozen=True, kw_only=True)
class ToyRun:
    """What a toy run holds."""

    folds: int = 2
    method: str = "leanet"
    kinds: tuple[str, str] = ("good", "scratch")
    points: tuple[str, ...] = ("A2", "A4")
    shift: float = 3.0  # mean score of the anomalous above that of the normal
    seed: int = 0
    final_tested: bool = False
    names: str = "img"
    map_gain: float = 1.0
    card: tuple[tuple[str, Any], ...] = ()


WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """write_run("name", **fields of ToyRun) -> run folder."""

    def write(name: str, **fields: Any) -> Path:
        return _write(tmp_path / name, ToyRun(**fields))

    return write


def _write(run: Path, toy: ToyRun) -> Path:
    rng = np.random.default_rng(toy.seed)
    images = [(f"{toy.kinds[label]}/{toy.names}{i:02d}.png", label)
              for label, number in ((0, 12), (1, 6)) for i in range(number)]  # fmt: skip
    config: Any = LEANetConfig() if toy.method == "leanet" else ClassifierConfig()
    text = f"# leanet fit {toy.method}\nmethod: {toy.method}\ndata: some/where/leaves & stems\n"
    options = Options(folds=toy.folds, img_size=32)
    write_text(run / "config.yaml", text + to_yaml(options) + to_yaml(config))
    environment = {"device": "cpu", "gpu": None, "threads": 2, "packages": {"leanet": "0.1.0"}}
    write_json(run / "environment.json", environment)
    roles = []
    for k in range(toy.folds):
        test = images[k :: toy.folds]
        roles += _write_part(run, f"fold-{k}", images, test, toy, rng)
    test = images[::3] if toy.final_tested else []
    roles += _write_part(run, "final", images, test, toy, rng)
    write_csv(run / "folds.csv", roles)
    final = json.loads((run / "final" / "metrics.json").read_text())
    threshold = final["threshold"]["score"]
    card = {"method": toy.method, "img_size": 32, "threshold": threshold, "num_normal": 12,
            "num_anomalous": 6, "folds": toy.folds, "map_unit": "dE00"}  # fmt: skip
    write_json(run / "card.json", card | dict(toy.card))
    if toy.method == "leanet":
        write_text(run / "map_models" / "0a" / "journal.jsonl", _journal(["loss"]))
    return run


def _write_part(
    run: Path,
    name: str,
    images: Sequence[tuple[str, int]],
    test: Sequence[tuple[str, int]],
    toy: ToyRun,
    rng: np.random.Generator,
) -> list[dict[str, str]]:
    folder, labels = run / name, [label for _, label in test]
    outputs = ["fused", "adn", "aan", "map"] if toy.method == "leanet" else []
    scores = {o: rng.normal(size=len(test)) + toy.shift * np.array(labels) for o in outputs}
    main = scores["fused"] if outputs else rng.normal(size=len(test)) + toy.shift * np.array(labels)
    scores = {"score": main, **scores}
    threshold = 1.0 + 0.25 * rng.random()
    facts = {"value": threshold, "rule": "f1", "num_normal": 5, "num_anomalous": 5}
    metrics: dict[str, Any] = {}
    for output, values in scores.items() if test else ():
        metrics[output] = image_metrics(labels, values, threshold)
        if output in ("adn", "aan"):
            metrics[output]["f1_at_half"] = f1(confusion_at(labels, values, 0.0))
    remarks = _remarks(toy) if outputs else {"threshold_in_sample": False}
    write_json(folder / "metrics.json", {
        "fold": name, "epochs": 2, "threshold": dict.fromkeys(scores, facts), "metrics": metrics,
        "remarks": remarks, "seconds": 1.5})  # fmt: skip
    write_text(folder / "journal.jsonl", _journal(["loss", "adn_loss"] if outputs else ["loss"]))
    rows = [{"path": path, "role": "test", "label": label, "kind": path.partition("/")[0]
             if "/" not in toy.kinds[label] else toy.kinds[label],
             "verdict": "anomalous" if scores["score"][k] >= threshold else "normal",
             "threshold": threshold, **{o: float(v[k]) for o, v in scores.items()}}
            for k, (path, label) in enumerate(test)]  # fmt: skip
    write_csv(folder / "predictions.csv", rows)
    if test:
        _write_gallery(folder, test, toy, rng)
    tested = {path for path, _ in test}
    return [{"path": path, "fold": name, "role": "test" if path in tested else "train", "part": ""}
            for path, _ in images]  # fmt: skip


def _remarks(toy: ToyRun) -> Mapping[str, Any]:
    gate = {"strength": 1.0, "attention_mean": 0.6, "attention_spatial_sd": 0.01}
    return {
        "map_mode": "out_of_fold",
        "map_scale": {"divisor": 10.0, "headroom": 4.0},
        "map_mean_training_normals": 3.5,
        "gate": dict.fromkeys(toy.points, gate),
        "flat_attention": list(toy.points),
        "fusion_weights": {"adn": 0.5, "aan": 0.25, "map": 0.25},
    }


def _write_gallery(
    folder: Path, test: Sequence[tuple[str, int]], toy: ToyRun, rng: np.random.Generator
) -> None:
    n = len(test)
    arrays: dict[str, Any] = {"image": rng.integers(0, 256, (n, 3, SIDE, SIDE)).astype(np.uint8)}
    if toy.method == "leanet":
        arrays["map"] = rng.random((n, 1, SIDE, SIDE)).astype(np.float32) * 20 * toy.map_gain
        arrays["repainted"] = rng.random((n, 3, SIDE, SIDE)).astype(np.float32)
        for point in toy.points:
            before = rng.random((n, 1, 2, 2)).astype(np.float32)
            attention = (0.5 + 0.1 * rng.random((n, 1, 2, 2))).astype(np.float32)
            arrays |= {f"before {point}": before, f"attention {point}": attention,
                       f"after {point}": before * (1 + attention)}  # fmt: skip
    paths = json.dumps([path for path, _ in test])
    save_file(arrays, folder / "gallery.safetensors", {"paths": paths})


def _journal(losses: Sequence[str]) -> str:
    records = [
        {"epoch": e, "lr": 1e-4, "seconds": 0.1}
        | {
            f"{part}_{loss}": 1 / (e + k + 1)
            for k, part in enumerate(("train", "val"))
            for loss in losses
        }
        for e in range(3)
    ]
    return "".join(json.dumps(record) + "\n" for record in records)


WriteBenchmark = Callable[..., Path]
SUITE = {
    "name": "toy suite",
    "about": "two ways to use a map",
    "data": {"Potato": {"path": "potato", "source": "a field"}},
    "options": {"folds": 5},
    "methods": {
        "ResNet18": {"method": "classifier"},
        "ResNet18 (4ch input)": {"method": "leanet"},
        "ResNet18 + ResNet-based CAAN": {
            "method": "leanet",
            "each": {"attention_points": [[0], [3], [4]]},
        },
    },
    "baseline": "ResNet18",
    "published": "leanet",
}


@pytest.fixture
def write_benchmark(tmp_path: Path) -> WriteBenchmark:
    """write_benchmark("name", figure=, missing=, **keys of the suite) -> folder of a benchmark.

    `figure(data, row, seed, fold, output, column)` may set any figure of results.csv (None leaves
    it as it is); trials for which `missing(data, row, seed, fold)` holds are not there.
    """

    def write(
        name: str,
        *,
        figure: Callable[..., float | None] = lambda *_: None,
        missing: Callable[..., bool] = lambda *_: False,
        **suite: Any,
    ) -> Path:
        folder, given = tmp_path / name, SUITE | suite
        write_text(folder / "suite.yaml", yaml.safe_dump(given, sort_keys=False))
        write_json(folder / "environment.json", ENVIRONMENT)
        write_csv(folder / "results.csv", _results(given, figure, missing))
        return folder

    return write


ENVIRONMENT = {"device": "cpu", "gpu": None, "cpu_cores": 2, "precision": "32-true",
               "date": "2026-01-02T03:04:05+00:00", "packages": {"leanet": "0.1.0"}}  # fmt: skip


def _results(suite: Any, figure: Callable[..., Any], missing: Callable[..., bool]) -> list[Any]:
    rows = []
    for data, (name, spec) in product(suite["data"], suite["methods"].items()):
        for member in members(spec["each"]) if "each" in spec else [Member("", {})]:
            row = f"{name}, {member.name}" if member.name else name
            is_lea = spec["method"] == "leanet"
            outputs = ("score", "fused", "adn", "aan", "map") if is_lea else ("score",)
            for trial in product(suite.get("seeds", [0]), range(suite["options"]["folds"])):
                if missing(data, row, *trial):
                    continue
                for output in outputs:
                    words = {"data": data, "row": row, "group": name, "member": member.name,
                             "method": spec["method"], "output": output}  # fmt: skip
                    place = f"{data} {output}" if output == "map" else f"{data} {row} {output}"
                    rng = np.random.default_rng([crc32(place.encode()), *trial])
                    numbers = _figures(rng, output, member.options)
                    for column in numbers:
                        given = figure(data, row, *trial, output, column)
                        numbers[column] = numbers[column] if given is None else given
                    rows.append({**words, "seed": trial[0], "fold": trial[1], **numbers})
    return rows


def _figures(rng: np.random.Generator, output: str, options: Mapping[str, Any]) -> dict[str, Any]:
    f1, auroc, ap, held_out = (float(value) for value in 0.8 + 0.2 * rng.random(4))
    kept = round(40 * options.get("keep_positive", 1))
    return {
        "held_out_ap": held_out,
        "auroc": auroc,
        "average_precision": ap,
        "f1": f1 - 0.05,
        "all_positive_f1": 0.4,
        "num_normal": 30,
        "num_anomalous": 10,
        "f1_at_half": "" if output in ("map", "fused") else f1,
        "num_train_normal": 120,
        "num_train_anomalous": kept,
        "seconds": 60.0,
        "parameters": 11_000_000,
    }
