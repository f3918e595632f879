"""Who teaches attention: another classifier on the same folds, or the anomaly map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from leanet.config import nearest
from leanet.data.cache import Cache
from leanet.data.scan import relative_name
from leanet.files import read_csv
from leanet.methods import colorizer
from leanet.methods.attention import Config, Heads
from leanet.methods.detector_file import read_detector
from leanet.methods.map_catalog import MAP_METHODS, READY_METHODS
from leanet.methods.map_models import training_maps
from leanet.methods.map_sources import find_source
from leanet.methods.recipe import Material, Method
from leanet.networks.blocks import StagedClassifier
from leanet.ops.transfer import map_transfer_loss, transfer_loss
from leanet.records import Batch, Fold
from leanet.runtime import Runtime

MAP = "map"
NUM_STAGES = 3  # the last ones; in a ResNet, stages 2 to 4
Teach = Callable[[Heads, Batch, Tensor], Tensor]
"""(heads of the student, batch, image [B, 3, S, S] in [0, 1]) -> loss"""


def find_teacher(
    config: Config,
    find: Callable[[str], Method],
    fold: Fold,
    data: Material,
    folder: Path,
    runtime: Runtime,
) -> tuple[Teach | None, Cache | None]:
    """The term of the loss that `config.transfer_from` asks for, and the maps that it needs.

    Raises:
        ValueError: no such run, one of another method or other folds, or ABN as the student.
    """
    if config.transfer_from is None:
        return None, None
    if config.attention == "abn":
        raise ValueError("attention abn learns its own map; leave --transfer_from out")
    run = None if config.transfer_from == MAP else Path(config.transfer_from)
    if run is None or _draws_maps(run):
        place = None if run is None else str(run)
        source = find_source(place, colorizer.Config(), data, runtime)
        maps = training_maps(source, "out_of_fold", fold, data, folder, runtime).maps
        return _from_map(config.transfer_weight), maps
    teacher = _read(run, find, fold, data, runtime)
    return _from_network(teacher, config.transfer_weight), None


def _draws_maps(run: Path) -> bool:
    file = run / "config.yaml"
    if not file.exists():
        return False
    method = yaml.safe_load(file.read_text(encoding="utf-8"))["method"]
    return method in MAP_METHODS or method in READY_METHODS


def _from_map(weight: float) -> Teach:
    def teach(student: Heads, batch: Batch, image: Tensor) -> Tensor:
        assert batch.anomaly_map is not None
        return map_transfer_loss(student.features[-NUM_STAGES:], batch.anomaly_map, weight)

    return teach


def _from_network(teacher: nn.Module, weight: float) -> Teach:
    network = teacher.network
    assert isinstance(network, StagedClassifier)

    def teach(student: Heads, batch: Batch, image: Tensor) -> Tensor:
        with torch.no_grad():
            taught = network.features(*teacher.prepare(image))  # type: ignore[operator]
        return transfer_loss(student.features[-NUM_STAGES:], taught[-NUM_STAGES:], weight)

    return teach


def _read(
    run: Path, find: Callable[[str], Method], fold: Fold, data: Material, runtime: Runtime
) -> nn.Module:
    folds = run / "folds.csv"
    if not folds.exists():
        raise ValueError(
            f"--transfer_from {run} is no run folder{nearest(str(run), (MAP,))}; give a run of "
            f"`leanet fit classifier` on the same folds, or {MAP}"
        )
    seen = {
        row["path"] for row in read_csv(folds) if (row["fold"], row["role"]) == (fold.name, "train")
    }
    ours = {relative_name(data.samples[i].path, data.root) for i in fold.train}
    if seen != ours:
        raise ValueError(
            f"{run} was not trained on the images of {fold.name} ({len(seen - ours)} others, "
            f"{len(ours - seen)} missing), and a teacher that has seen test images would pass them "
            "on; train it on the same data with the same --folds and --seed"
        )
    teacher = read_detector(run / fold.name, find, runtime.device)
    if teacher.img_size != data.img_size:
        raise ValueError(f"{run} works at {teacher.img_size} px; use --img_size {teacher.img_size}")
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher.eval()
