"""One fold of phase 2: train on its training part, score its test part, keep everything."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import nn

from leanet.config import to_dict, to_yaml
from leanet.files import write_csv, write_json, write_text
from leanet.inference.judge import full_float32
from leanet.methods import leanet
from leanet.methods.choice import train_best
from leanet.methods.detector_file import write_detector
from leanet.methods.lea_detector import LEADetector
from leanet.methods.lea_measures import scores_on_maps
from leanet.methods.recipe import Experience, Material, Scores, Trained
from leanet.networks.leanet import LEANet
from leanet.ops.metrics import Threshold, choose_threshold, confusion_at, f1
from leanet.programs.folders import FREE, TRAINING
from leanet.programs.loading import Loaded, load_fold
from leanet.programs.rules import Settled2
from leanet.programs.scoring import RESULT, SCORES, figures, result_rows
from leanet.programs.sources import TreeFold
from leanet.records import ANOMALOUS, NORMAL, Fold
from leanet.runtime import Runtime
from leanet.training import journal
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import JOURNAL

HISTORY: Final = "phase2_history.csv"
PHASE2_MODEL: Final = "phase2_model.safetensors"
FINAL: Final = "final"  # of a run folder
COLUMNS: Final = {  # of the history, in the words of the original
    "loss": "loss",
    "adn_loss": "ADN_loss",
    "aan_loss": "AAN_loss",
    "adn_accuracy": "ADN_accuracy",
    "aan_accuracy": "AAN_accuracy",
}


@dataclass(frozen=True)
class Job:
    """What stays the same over the folds. config: the options of LEA-Net, with the attention points
    to steer, or `auto`."""

    settled: Settled2
    config: leanet.Config
    runtime: Runtime
    tell: Callable[[str], None]

    def run(self, tree: TreeFold) -> None:
        """Train and test one fold into its folder, `scores.json` last."""
        folder = self.settled.save_path / tree.name
        loaded = load_fold(tree, self.settled.flags, folder / TRAINING, self.runtime)
        tries: dict[str, Scores] = {}
        trained = self._train(loaded, folder / TRAINING, tries)
        detector = trained.detector
        assert isinstance(detector, LEADetector)
        labels = [loaded.data.labels[i] for i in loaded.fold.test]
        test = self._test_scores(detector, loaded)
        chances = {head: _probabilities(test[head.lower()]) for head in self.settled.heads}
        network = detector.network
        assert isinstance(network, LEANet)  # `phase2.recipe` asks for attention in layers
        inner = _inner_thresholds(trained, loaded.data, self.settled.heads)
        facts = {
            "heads": {head: figures(labels, p, inner.get(head)) for head, p in chances.items()},
            "attention_points": list(detector.network.points),
            "strength": detector.strengths(),
            "epochs": trained.epochs,
            "inner_thresholds": {head: one._asdict() for head, one in inner.items()},
            "num_held_out": len(trained.held_out.indices) if inner else 0,
            "trained_on": trained.remarks["trained_on"],
            "num_parameters": _num_parameters(network),
            **loaded.facts,
            "gate": trained.remarks["gate"],
        }
        if tries:
            facts["choice"] = _choice(trained.remarks["choice"], tries, labels)
        names = [loaded.names[i] for i in loaded.fold.test]
        write_csv(folder / RESULT, result_rows(labels, chances, names))
        place = folder / TRAINING / "chosen" if tries else folder / TRAINING
        write_csv(folder / HISTORY, _history(place / JOURNAL, self.settled.heads))
        self._save(folder, loaded, detector)
        shutil.rmtree(folder / TRAINING)
        write_json(folder / SCORES, facts)
        self.tell(_line(tree.name, facts))

    def _train(self, loaded: Loaded, place: Path, tries: dict[str, Scores]) -> Trained:
        """Train at the points that were named, or choose one; `tries` gets the test scores of
        every single choice, for the record."""

        def train(
            config: Any,
            fold: Fold,
            data: Material,
            folder: Path,
            runtime: Runtime,
            experience: Experience | None,
        ) -> Trained:
            begun = leanet.begin(config, fold, data, runtime, experience)
            prepared = leanet.Prepared(begun, loaded.maps, loaded.drawn_by, detailed=True)
            trained = leanet.train_prepared(
                config, prepared, fold, data, folder, runtime, experience
            )
            if choosing and experience is None:
                tries[folder.name] = self._test_scores(trained.detector, loaded)
            return trained

        choosing = self.settled.points == "auto"
        given = loaded.fold, loaded.data, place, self.runtime
        if choosing:
            variants = leanet.variants(self.config, loaded.data.img_size)
            return train_best(train, variants, *given)
        return train(self.config, *given, None)

    def _test_scores(self, detector: nn.Module, loaded: Loaded) -> Scores:
        assert isinstance(detector, LEADetector)
        with full_float32(self.runtime.device):
            return scores_on_maps(
                detector.network, detector.reader, loaded.data, loaded.maps, loaded.fold.test
            )

    def _save(self, folder: Path, loaded: Loaded, detector: LEADetector) -> None:
        """The complete detector, and what makes the folder a run folder for `leanet predict`."""
        config = replace(self.config, attention_points=detector.network.points)
        flags, data = self.settled.flags, self.settled.dataset
        write_detector(
            folder,
            "leanet",
            config,
            detector,
            file=PHASE2_MODEL,
            phase2={name: v for name, v in to_dict(flags).items() if name not in FREE},
            scale=loaded.maps.scale._asdict(),
            facts=loaded.facts,
        )
        _link(folder / PHASE2_MODEL, folder / FINAL / WEIGHTS)
        write_text(folder / "config.yaml", f"method: leanet\ndata: {data}\n{to_yaml(config)}")
        labels = [loaded.data.labels[i] for i in loaded.fold.train]
        counts = {
            "num_normal": labels.count(NORMAL),
            "num_anomalous": labels.count(ANOMALOUS),
        }
        card = {
            "method": "leanet",
            "img_size": detector.img_size,
            "threshold": {"value": 0.0, "rule": "p = 0.5", **counts},
            "part_thresholds": {head.lower(): 0.0 for head in self.settled.heads},
            **counts,
            "folds": 0,
            "map_unit": detector.map_unit,
            "map_top": detector.map_top,
        }
        write_json(folder / "card.json", card)


def _probabilities(logits: Sequence[float]) -> list[float]:
    return [1 / (1 + math.exp(-logit)) if logit > -700 else 0.0 for logit in logits]


def _inner_thresholds(
    trained: Trained, data: Material, heads: Sequence[str]
) -> dict[str, Threshold]:
    """The thresholds, as probabilities, that the held-out images give; {} if none are held out."""
    if trained.remarks.get("threshold_in_sample", False):
        return {}
    labels = [data.labels[i] for i in trained.held_out.indices]
    return {
        head: choose_threshold(labels, _probabilities(trained.held_out.scores[head.lower()]))
        for head in heads
    }


def _choice(
    choice: Mapping[str, Any], tries: Mapping[str, Scores], labels: Sequence[int]
) -> dict[str, Any]:
    """The choice of the point, and what each point gives on the test part, which did not choose."""
    found = {name: f1(confusion_at(labels, scores["adn"], 0.0)) for name, scores in tries.items()}
    best = max(found, key=lambda name: found[name])
    return {
        **choice,
        "test_f1": found,
        "mean_test_f1": math.fsum(found.values()) / len(found),
        "oracle": {"point": best, "test_f1": found[best], "note": "optimistic: chosen on the test"},
    }


def _num_parameters(network: LEANet) -> dict[str, int]:
    """Trainable ones."""

    def count(one: nn.Module | None) -> int:
        parameters = one.parameters() if one is not None else ()
        return sum(p.numel() for p in parameters if p.requires_grad)

    return {"ADN": count(network.adn), "AAN": count(network.aan), "total": count(network)}


def _history(path: Path, heads: Sequence[str]) -> list[dict[str, Any]]:
    """The journal in the columns of the original, then val_* and the strengths."""
    records = journal.read(path)
    alone = [key for key in COLUMNS if key.startswith("aan_") and "AAN" not in heads]
    rows = []
    for record in records:
        row = {"": record["epoch"]}
        for start, prefix in (("train_", ""), ("val_", "val_")):
            for key, column in COLUMNS.items():
                if key not in alone and start + key in record:
                    row[prefix + column] = record[start + key]
        points = [key for key in record if key.startswith("train_w_")]
        for key in points:  # at the end of the epoch where it is known, else its mean
            name = key.removeprefix("train_")
            row[name] = record.get(f"val_{name}", record[key])
        rows.append(row)
    return rows


def _link(file: Path, name: Path) -> None:
    """A second name for a file, or a copy where the disk has no such thing."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _line(name: str, facts: Mapping[str, Any]) -> str:
    counts = facts["trained_on"]
    told = [
        f"{head} F1 {one['f1']:.3f} (all-positive {one['all_positive_f1']:.3f}), "
        f"AUROC {one['auroc']:.3f}"
        for head, one in facts["heads"].items()
        if None not in (one["f1"], one["auroc"])
    ]
    points = ", ".join(f"{p} (A{p + 1})" for p in facts["attention_points"]) or "none"
    return (
        f"{name}: trained on {counts['normal']} normal and {counts['anomalous']} anomalous images, "
        f"attention points {points}, best after {facts['epochs']} epochs; "
        f"{'; '.join(told)}"
    )
