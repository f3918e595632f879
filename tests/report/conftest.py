"""Small run folders, written by hand: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from leanet.config import to_yaml
from leanet.files import write_csv, write_json, write_text
from leanet.methods.classifier import Config as ClassifierConfig
from leanet.methods.leanet import Config as LEANetConfig
from leanet.ops.classes import class_metrics
from leanet.ops.metrics import confusion_at, f1, image_metrics
from leanet.prepare import Options
from leanet.report.results import Member, fold_numbers, members

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
    guided: bool = False


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
    write_csv(run / "samples.csv", [{"path": path, "label": label, "kind": toy.kinds[label],
                                     "group": ""} for path, label in images])  # fmt: skip
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
    if toy.guided:
        gate.pop("strength")
    return {
        **({"correction": {"trust": 0.947, "bias": 0.1}} if toy.guided else {}),
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
    names = json.dumps({"paths": [path for path, _ in test]})
    save_file(arrays, folder / "gallery.safetensors", {"json": names})


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


@dataclass(frozen=True, kw_only=True)
class ToyClasses:
    """What a toy run of several classes holds."""

    classes: tuple[str, ...] = ("early_blight", "healthy", "late_blight")
    normal: str | None = None
    folds: int = 0
    images: int = 40  # of each class
    skill: float = 2.0  # logit of the true class above the others
    luck: int = 0  # another value: other weights, other mistakes
    untested: str | None = None  # a class that no test image is of
    data: str = "some/where/leaves"
    options: tuple[tuple[str, Any], ...] = ()  # of config.yaml
    epochs: int = 6
    method: str = "classifier"
    groups: int | None = None  # of images that belong together


@pytest.fixture
def write_classes(tmp_path: Path) -> WriteRun:
    """write_classes("name", **fields of ToyClasses) -> folder of a run of several classes."""

    def write(name: str, **fields: Any) -> Path:
        return _write_classes(tmp_path / name, ToyClasses(**fields))

    return write


def _write_classes(run: Path, toy: ToyClasses) -> Path:
    images = [(f"{name}/leaf_{i:02d}.png", k)
              for k, name in enumerate(toy.classes) for i in range(toy.images)]  # fmt: skip
    config = {"method": toy.method, "data": toy.data, "folds": toy.folds, "img_size": 64, "seed": 0,
              "adn": "resnet18", "attention": "none", "epochs": toy.epochs, "draw": 0,
              "device": "cpu", **dict(toy.options)}  # fmt: skip
    write_text(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    environment = {"device": "cpu", "gpu": None, "threads": 2, "packages": {"leanet": "0.1.0"}}
    write_json(run / "environment.json", environment)
    roles = []
    for k in range(toy.folds):
        roles += _write_class_part(run, f"fold-{k}", images, images[k :: toy.folds], toy)
    kept = [image for image in images if toy.classes[image[1]] != toy.untested]
    roles += _write_class_part(run, "final", images, [] if toy.folds else kept[::2], toy)
    write_csv(run / "folds.csv", roles)
    write_csv(run / "samples.csv", [
        {"path": path, "label": "", "kind": toy.classes[k], "mask": "", "split": "",
         "group": "" if toy.groups is None else f"leaf {i % toy.groups}"}
        for i, (path, k) in enumerate(images)])  # fmt: skip
    write_json(run / "classes.json", {"classes": toy.classes, "normal": toy.normal})
    final = json.loads((run / "final" / "metrics.json").read_text())
    write_json(run / "card.json", {
        "method": toy.method, "img_size": 64, "threshold": final["threshold"].get("score"),
        "num_normal": toy.images, "num_anomalous": 2 * toy.images, "classes": toy.classes,
        "normal": toy.normal, "folds": toy.folds, "map_unit": None, "map_top": None})  # fmt: skip
    return run


def _write_class_part(
    run: Path, name: str, images: Sequence[Any], test: Sequence[Any], toy: ToyClasses
) -> list[dict[str, str]]:
    folder, size, tested = run / name, len(toy.classes), {path for path, _ in test}
    rng = np.random.default_rng([toy.luck, crc32(name.encode())])
    true = np.array([label for _, label in test], dtype=int)
    hardness = np.array([crc32(path.encode()) % 1000 / 250 - 2 for path, _ in test])
    logits = rng.normal(size=(len(test), size))
    logits[np.arange(len(test)), true] += toy.skill + hardness
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    facts = {"value": 0.5, "rule": "f1", "num_normal": 5, "num_anomalous": 5}
    metrics: dict[str, Any] = {"classes": class_metrics(true, probs)} if test else {}
    rows = []
    for k, (path, label) in enumerate(test):
        row = {"path": path, "role": "test", "label": "", "kind": toy.classes[label],
               "true": toy.classes[label], "predicted": toy.classes[probs[k].argmax()],
               "verdict": "", "threshold": "", "score": ""}  # fmt: skip
        if toy.normal:
            score = 1 - probs[k, toy.classes.index(toy.normal)]
            row |= {
                "label": int(toy.classes[label] != toy.normal),
                "threshold": 0.5,
                "score": score,
                "verdict": "anomalous" if score >= 0.5 else "normal",
            }
        rows.append(row | {f"p_{c}": p for c, p in zip(toy.classes, probs[k], strict=True)})
    if toy.normal and test:
        labels = [row["label"] for row in rows]
        metrics["score"] = image_metrics(labels, [row["score"] for row in rows], 0.5)
    columns = ["path", "role", "label", "kind", "true", "predicted", "verdict", "threshold"]
    write_csv(folder / "predictions.csv", rows or [dict.fromkeys([*columns, "score"], "")][:0])
    write_text(folder / "journal.jsonl", _class_journal(toy.epochs, rng))
    write_json(folder / "metrics.json", {
        "fold": name, "epochs": toy.epochs, "parameters": 11_178_051, "seconds": 2.5,
        "threshold": {"score": facts} if toy.normal else {}, "metrics": metrics,
        "remarks": {"trained_on": dict.fromkeys(toy.classes, toy.images)}})  # fmt: skip
    return [{"path": path, "fold": name, "role": "test" if path in tested else "train", "part": ""}
            for path, _ in images]  # fmt: skip


def _class_journal(epochs: int, rng: np.random.Generator) -> str:
    lines = []
    for e in range(epochs):
        right = 0.9 - 0.55 * 0.8**e + 0.02 * rng.normal(size=3)
        loss = 0.3 + 0.8 * 0.8**e + 0.02 * rng.normal(size=3)
        record = {"epoch": e, "lr": 1e-3 if 2 * e < epochs else 1e-4, "seconds": 0.1}
        for k, part in enumerate(("train", "val", "fit")):
            record |= {f"{part}_loss": loss[k], f"{part}_accuracy": min(right[k], 1.0)}
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)


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
            for trial in product(suite.get("seeds", [0]), fold_numbers(suite["options"]["folds"])):
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


VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            t == tag and all(a.get(k.strip("_")) == v for k, v in attributes.items())
            for t, a in self.tags
        )


@pytest.fixture
def read_page() -> type[Page]:
    """read_page(file) -> Page."""
    return Page


@pytest.fixture
def write_cavga(write_run: WriteRun) -> WriteRun:
    """write_cavga("name", variant="R_u") -> folder of a CAVGA run of two folds."""

    def write(name: str, variant: str = "R_u") -> Path:
        limits = {"paper": 0.5, "honest": 0.75}
        card = {"method": "cavga", "map_unit": "attention", "map_top": 1.0}
        card |= {"map_thresholds": limits}
        run = write_run(name, method="classifier", card=tuple(card.items()))
        with (run / "config.yaml").open("a") as file:
            file.write(f"variant: {variant}\nweak_map: ca\n")
        for k, folder in enumerate(("fold-0", "fold-1", "final")):
            write_text(run / folder / "journal.jsonl", _cavga_journal(variant))
            metrics = json.loads((run / folder / "metrics.json").read_text())
            notices = ["the encoder starts at random", f"the latent has collapsed (KL {k}.5e-04)"]
            metrics["remarks"]["notices"] = notices[: 2 if k < 2 else 1]
            write_json(run / folder / "metrics.json", metrics)
            if (run / folder / "gallery.safetensors").exists():
                _add_cavga_pictures(run / folder / "gallery.safetensors", variant)
        return run

    return write


def _cavga_journal(variant: str) -> str:
    weak = variant.endswith("w")
    keys = ["train_loss", "train_reconstruction", "train_kl", "train_adversarial"]
    keys += ["train_generator", "d_real", "d_fake", "negative_share", "map_low", "map_high"]
    keys += ["train_guidance", "train_classification", "attention_normal"] if weak else []
    keys += ["attention_anomalous", "gate_open", "accuracy"] if weak else []
    keys += ["val_reconstruction", "val_attention"]
    keys += [] if weak else ["train_expansion", "attention"]
    records = [
        {"epoch": e, "seconds": 0.1} | {key: 1 / (e + k + 2) for k, key in enumerate(keys)}
        for e in range(3)
    ]
    return "".join(json.dumps(record) + "\n" for record in records)


def _add_cavga_pictures(file: Path, variant: str) -> None:
    with safe_open(file, framework="np") as stored:
        image, metadata = stored.get_tensor("image"), stored.metadata()
    n, rng = len(image), np.random.default_rng(1)
    mask = np.zeros((n, 1, SIDE, SIDE), np.uint8)
    mask[:, :, 2:4, 2:4] = 1
    arrays: dict[str, Any] = {"image": image, "mask": mask}
    arrays["map"] = rng.random((n, 1, SIDE, SIDE)).astype(np.float32)
    arrays["reconstruction"] = rng.random((n, 3, SIDE, SIDE)).astype(np.float32)
    weak = variant.endswith("w")
    for name in ("attention_normal", "attention_anomalous") if weak else ("attention",):
        arrays[name] = rng.random((n, 1, 2, 2)).astype(np.float32)
    save_file(arrays, file, metadata)


@pytest.fixture
def write_small_run(tmp_path: Path) -> WriteRun:
    """write_small_run("leather", seed=0, lr=0.1, auroc=0.9, pixels={...}) -> a run of `adfa` on a
    data set of this name, with as little in it as tables of several runs need."""

    def write(data: str, *, seed: int = 0, lr: float = 0.001, auroc: float = 0.9,
              pixels: Mapping[str, float] | None = None, tested: bool = True) -> Path:  # fmt: skip
        run = tmp_path / f"{data}-{seed}-{lr}"
        text = f"method: adfa\ndata: sets/{data}\nseed: {seed}\nlr: {lr}\nbackbone: resnet18\n"
        write_text(run / "config.yaml", text)
        write_json(run / "environment.json", {})
        write_json(run / "card.json", {"method": "adfa"})
        write_csv(run / "folds.csv", [{"path": "a.png", "fold": "final", "role": "test"}])
        row = {"path": "a.png", "role": "test" if tested else "held_out", "label": 0,
               "kind": "good", "verdict": "normal", "threshold": 1.0, "score": 0.5}  # fmt: skip
        write_csv(run / "final" / "predictions.csv", [row])
        threshold = {"value": 1.0, "rule": "honest", "num_normal": 1, "num_anomalous": 0}
        metrics = {"score": {"auroc": auroc}} if tested else {}
        write_json(run / "final" / "metrics.json", {
            "threshold": {"score": threshold}, "metrics": metrics, "remarks": {}, "epochs": 1,
            "seconds": 1.0, "pixels": pixels})  # fmt: skip
        return run

    return write


FEW: dict[str, Any] = {
    "name": "few defects",
    "about": "what a map is worth",
    "data": {"Leaf": {"path": "leaf", "source": "a field."}, "Tile": {"path": "tile"},
             "Tile, unseen": {"path": "tile", "unseen": True}},
    "options": {"folds": 4},
    "methods": {name: {"method": "leanet"} for name in ("Plain", "LEA-Net", "Shuffled")},
    "few": {"labelled": [1, 3, 10], "draws": 1,
            "arms": {"Plain": ["Plain", "score"], "Map only": ["LEA-Net", "map"],
                     "Default": ["LEA-Net", "score"], "Shuffled": ["Shuffled", "score"]},
            "default": "Default", "rivals": ["Plain", "Map only"]},
}  # fmt: skip
LEVELS = {"Plain": 0.75, "Shuffled": 0.74, "map": 0.9, "score": 0.94, "aan": 0.9}


@pytest.fixture
def write_few(tmp_path: Path) -> WriteBenchmark:
    """write_few("name", figure=, missing=, **keys of the suite) -> folder of a benchmark with few
    labelled defects.

    `figure(data, k, row, output, trial, column)` may set any figure of results.csv; cells for which
    `missing(data, k, row, trial)` holds are not there. A trial is (seed, draw, fold).
    """

    def write(
        name: str,
        *,
        figure: Callable[..., float | None] = lambda *_: None,
        missing: Callable[..., bool] = lambda *_: False,
        **suite: Any,
    ) -> Path:
        folder, given = tmp_path / name, FEW | suite
        write_text(folder / "suite.yaml", yaml.safe_dump(given, sort_keys=False))
        write_json(folder / "environment.json", ENVIRONMENT)
        write_csv(folder / "results.csv", list(_few_rows(given, figure, missing)))
        return folder

    return write


def _few_rows(suite: Any, figure: Callable[..., Any], missing: Callable[..., bool]) -> Any:
    few, folds = suite["few"], range(suite["options"]["folds"])
    trials = list(product(suite.get("seeds", [0]), range(few.get("draws", 1)), folds))
    for data, trial, k, row in product(suite["data"], trials, few["labelled"], suite["methods"]):
        if missing(data, k, row, trial):
            continue
        for output in ("score", "aan", "map") if row == "LEA-Net" else ("score",):
            rng = np.random.default_rng([crc32(f"{data} {k} {row} {output}".encode()), *trial])
            level = LEVELS[output if row == "LEA-Net" else row] + 0.01 * rng.normal()
            numbers = {"auroc": level, "average_precision": level - 0.05, "f1": level - 0.1,
                       "oracle_f1": level - 0.06, "recall": level, "overkill": 0.02,
                       "escapes_at_1": 1 - level}  # fmt: skip
            for column in numbers:
                value = figure(data, k, row, output, trial, column)
                numbers[column] = numbers[column] if value is None else value
            words = {"data": data, "row": row, "group": row, "member": "", "method": "leanet"}
            where = {"labelled": k, "unseen": int("unseen" in data)}
            where |= dict(zip(("seed", "draw", "fold"), trial, strict=True))
            yield {**words, **where, "output": output, **numbers}
