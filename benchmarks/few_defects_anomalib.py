"""The outside opponents of the few-defects benchmark: PatchCore and SuperSimpleNet of anomalib.

Takes a suite with `few` and makes the cells that `leanet benchmark` makes of it: the same images,
folds and labelled defects. OUT/opponents.csv has the columns of results.csv, a line for each output
of a cell; the same command goes on where an earlier one stopped. anomalib's bare torch models are
driven directly, without its engine, on the MobileNetV2 that the other rows use (checked: the
features are those of `FrozenFeatures`).

PatchCore knows normal images only, so one bank serves all draws and numbers of defects of a fold.
While anomalib chooses it, small tensors that it keeps break up the large ones that it frees, and
memory grows by gigabytes (360 rows of 9,000: 1.7 GB; 3,239 of 32,400: over 20 GB, and the kernel
ended it). With glibc, MALLOC_MMAP_THRESHOLD_=1048576 in the environment keeps it small.

SuperSimpleNet in its supervised mode: gradients flow from the image score into the map, their norm
is clipped at 1, and Perlin masks are cut at 0.6, as its authors do with labels; optimizer, rates
and loss are anomalib's. A batch is half defects, each in its four flips in turn, half normal
images. The loss of the map asks for masks, and here are image labels only: the defects count in the
loss of the image score alone, and no noise is added to them. Published are 300 epochs of batches of
32, of the labelled defects, flipped, and as many normal images; here `--steps` batches of
`--batch`, which is what a processor can do. The loss falls until about 450 batches of 8 (4.5
minutes), more than those epochs for one defect and 15 epochs for 30 of them; after 150 the AUROC
was 0.01 to 0.04 lower. Its output `map` is the highest place of the map.

Its noise has a standard deviation of 0.015, made for a ResNet whose features are small: beside
those of MobileNetV2 (3 to 4) it is nothing. So the features are divided by their own deviation, on
48 training normals, and `--noise` is relative to it. `--rate` multiplies the learning rates, so
that so few steps are enough.

Thresholds: the quantile of normal training images that were held out which 5 % of new ones exceed
(`choose_threshold` without defects), or, of fewer than 20, of those that were not. All labelled
defects are trained on.

Needs anomalib (`pip install 'leanet[anomalib]'`); without it, it says so and ends.

Run: python benchmarks/few_defects_anomalib.py SUITE.yaml --data_root DATA --weights W --out OUT
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

from leanet.benchmark.cell import Need, Opened, fold_of, open_data
from leanet.benchmark.suite import Cell, Suite, cells, read_suite
from leanet.data.cache import images_in_unit_range
from leanet.data.few import TooFewDefectsError
from leanet.files import read_csv, read_json, write_csv, write_json
from leanet.methods.normal_limits import Normals, split_normals
from leanet.networks.frozen import FrozenFeatures
from leanet.networks.weights import read_weights
from leanet.ops.metrics import choose_threshold, image_metrics
from leanet.records import ANOMALOUS, NORMAL, Fold

NAME, LEVELS = "mobilenetv2_100", (2, 3)  # strides 8 and 16
ARGS: dict[str, Any] = {"pad_type": "same"}
LAYERS = ["blocks.2", "blocks.4"]  # their names in timm
HELD_OUT = 0.2  # of the training normals, for the threshold
INFERENCE_BATCH = 16
ROWS = {"patchcore": "anomalib PatchCore", "ssn": "anomalib SuperSimpleNet, supervised"}
KEYS = ("data", "row", "seed", "fold", "labelled", "draw")  # what names a cell

Scores: TypeAlias = dict[str, dict[int, float]]  # by output and index of the image
Score = Callable[[Tensor], dict[str, Tensor]]  # images, normalized -> scores [B] by output


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the opponents are trained with."""

    weights: Path
    steps: int
    batch: int
    noise: float
    rate: float
    coreset: float


def backbone(weights: Path) -> nn.Module:
    """The network that all rows use, as anomalib's extractor has it."""
    network: nn.Module = timm.create_model(NAME, features_only=True, out_indices=LEVELS, **ARGS)
    own, given = network.state_dict(), read_weights(weights)
    network.load_state_dict({name: given.get(name, value) for name, value in own.items()})
    assert sum(name in given for name in own) >= 0.7 * len(own)  # all but BatchNorm's counters
    return network.eval()


def feature_gap(opened: Opened, weights: Path) -> float:
    """The largest difference between its features and those of this package, in 8 images."""
    half = (0.5, 0.5, 0.5)
    ours = FrozenFeatures(
        NAME, LEVELS, img_size=opened.material.img_size, mean=half, std=half, model_args=ARGS
    )
    ours.load(weights)
    raw = images_in_unit_range(opened.material.images.take(range(8)))
    pairs = zip(ours(raw), backbone(weights)(normalized(raw)), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def normalized(image: Tensor) -> Tensor:
    """As the network saw photographs in its training."""
    return (image - 0.5) / 0.5


def images(opened: Opened, indices: Sequence[int]) -> Tensor:
    return normalized(images_in_unit_range(opened.material.images.take(indices)))


def batches(opened: Opened, indices: Sequence[int]) -> Iterator[Tensor]:
    for start in range(0, len(indices), INFERENCE_BATCH):
        yield images(opened, indices[start : start + INFERENCE_BATCH])


@torch.no_grad()
def scores_of(score: Score, opened: Opened, indices: Sequence[int]) -> Scores:
    found = [score(image) for image in batches(opened, indices)]
    values = {name: torch.cat([one[name].flatten() for one in found]) for name in found[0]}
    return {
        name: dict(zip(indices, column.double().tolist(), strict=True))
        for name, column in values.items()
    }


def patchcore(opened: Opened, number: int, normals: Normals, choices: Choices) -> Scores:
    """Scores of all images but those in the bank; kept beside the decoded images."""
    file = opened.material.run / f"anomalib-patchcore-{choices.coreset:g}-fold-{number}.json"
    if not file.exists():
        banked = set(normals.rest if normals.held else ())
        others = sorted(set(range(len(opened.material.samples))) - banked)
        scores = scores_of(fit_patchcore(opened, normals, choices), opened, others)
        write_json(file, scores["score"])
    return {"score": {int(index): score for index, score in read_json(file).items()}}


@torch.no_grad()
def fit_patchcore(opened: Opened, normals: Normals, choices: Choices) -> Score:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(opened.runtime.seed)
    model: Any = PatchcoreModel(layers=LAYERS, backbone=NAME, pre_trained=False)
    model.feature_extractor.feature_extractor = backbone(choices.weights)
    model.train()
    for image in batches(opened, normals.rest):
        model(image)
    model.subsample_embedding(choices.coreset)
    model.eval()
    return lambda image: {"score": model(image).pred_score}


class Scaled(nn.Module):
    """Features [B, C, h, w] of anomalib's extractor, divided by a number."""

    def __init__(self, inner: nn.Module, divisor: float) -> None:
        super().__init__()
        self.inner, self.divisor = inner, divisor

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.inner(image) / self.divisor
        return features


def new_supersimplenet(opened: Opened, normals: Normals, choices: Choices) -> Any:
    """anomalib's network, with the noise that fits its features."""
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.supersimplenet import torch_model

    offline = partial(TimmFeatureExtractor, pre_trained=False)  # it would fetch weights otherwise
    with patch.object(torch_model, "TimmFeatureExtractor", offline):
        model: Any = torch_model.SupersimplenetModel(
            perlin_threshold=0.6, backbone=NAME, layers=LAYERS, stop_grad=False
        )
    extractor = model.feature_extractor
    extractor.feature_extractor.feature_extractor = backbone(choices.weights)
    seen = torch.cat([extractor(image) for image in batches(opened, normals.rest[:48])])
    model.feature_extractor = Scaled(extractor, float(seen.std()))
    model.anomaly_generator.noise_std = choices.noise
    model.to(memory_format=torch.channels_last)  # a third less time on a processor
    return model


def supersimplenet(
    opened: Opened, normals: Normals, defects: Sequence[int], choices: Choices
) -> tuple[Score, list[float]]:
    """The trained network, and the loss of each step."""
    from anomalib.models.image.supersimplenet.loss import SSNLoss

    torch.manual_seed(opened.runtime.seed)
    model, loss, losses = new_supersimplenet(opened, normals, choices), SSNLoss(), []
    low, high = 1e-4 * choices.rate, 2e-4 * choices.rate
    adaptor = {"params": model.adaptor.parameters(), "lr": low}
    heads = {"params": model.segdec.parameters(), "lr": high, "weight_decay": 1e-5}
    optimizer = torch.optim.AdamW([adaptor, heads])
    ends = [int(0.8 * choices.steps), int(0.9 * choices.steps)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, ends, gamma=0.4)
    half, side = choices.batch // 2, opened.material.img_size
    label = torch.tensor([1.0] * half + [0.0] * half)
    mask = label.view(-1, 1, 1).expand(-1, side, side)  # of a defect: add no noise anywhere
    segmented = label.repeat(2) == NORMAL  # the network doubles the batch
    model.train()
    for image in itertools.islice(training(opened, normals.rest, defects, half), choices.steps):
        drawn, logit, target, target_label = model(image, masks=mask, labels=label)
        lost = loss(drawn[segmented], logit, target[segmented], target_label)
        optimizer.zero_grad()
        lost.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        schedule.step()
        losses.append(float(lost.detach()))
    model.eval()

    def score(image: Tensor) -> dict[str, Tensor]:
        output = model(image)
        return {"score": output.pred_score, "map": output.anomaly_map.flatten(1).amax(1)}

    return score, losses


def training(
    opened: Opened, normals: Sequence[int], defects: Sequence[int], half: int
) -> Iterator[Tensor]:
    """Batches without end: `half` defects, flipped, then as many normal images."""
    flips: list[list[int]] = [[], [2], [3], [2, 3]]
    turned = cycle([(index, flip) for index in defects for flip in flips])
    upright = cycle(list(normals))
    while True:
        chosen = [next(turned) for _ in range(half)]
        flipped = [torch.flip(images(opened, [index]), flip) for index, flip in chosen]
        yield torch.cat([*flipped, images(opened, [next(upright) for _ in range(half)])])


def cycle(things: Sequence[Any]) -> Iterator[Any]:
    """Each thing once, in random order, then again in another one."""
    while True:
        yield from (things[i] for i in torch.randperm(len(things)).tolist())


def judged(suite: Suite, cell: Cell, row: str, out: Path, choices: Choices) -> list[dict[str, Any]]:
    """The lines of a cell."""
    started = time.monotonic()
    opened = open_cell(suite, cell, out)
    fold, labels = fold_of(cell, opened), opened.material.labels
    normals = split_normals(fold, opened.material, opened.runtime.seed, None, HELD_OUT)
    defects = [i for i in fold.train if labels[i] == ANOMALOUS]
    epochs, losses = 1.0, list[float]()
    if row == "patchcore":
        scores = patchcore(opened, cell.fold, normals, choices)
    else:
        score, losses = supersimplenet(opened, normals, defects, choices)
        scores = scores_of(score, opened, (*(normals.held or normals.rest), *fold.test))
        epochs = choices.steps * choices.batch / (8 * len(defects))
    tell_losses(losses)
    seconds = round(time.monotonic() - started, 1)
    return [
        {
            **names_of(cell, row),
            "output": output,
            "held_out_ap": math.nan,  # no defect is held out
            **figures(values, normals, fold, labels),
            "num_train_normal": len(normals.rest),
            "num_train_anomalous": 0 if row == "patchcore" else len(defects),
            "epochs": epochs,
            "seconds": seconds,
        }
        for output, values in scores.items()
    ]


def open_cell(suite: Suite, cell: Cell, out: Path) -> Opened:
    return open_data(suite, cell.data, cell.seed, out, Need())


def figures(
    scores: Mapping[int, float], normals: Normals, fold: Fold, labels: Sequence[int]
) -> dict[str, float]:
    """Of the test images, at the threshold of the held-out normal ones."""
    held = [scores[i] for i in normals.held or normals.rest]
    threshold = choose_threshold([NORMAL] * len(held), held).value
    return image_metrics([labels[i] for i in fold.test], [scores[i] for i in fold.test], threshold)


def names_of(cell: Cell, row: str) -> dict[str, Any]:
    """The columns that say which cell it is."""
    return {
        "data": cell.data.name,
        "row": ROWS[row],
        "group": ROWS[row],
        "member": "",
        "method": "anomalib",
        "seed": cell.seed,
        "fold": cell.fold,
        "labelled": cell.labelled,
        "draw": cell.draw,
        "unseen": int(cell.data.unseen),
    }


def tell_losses(losses: Sequence[float]) -> None:
    """The mean loss of every fifth of the training."""
    if losses:
        size = max(1, len(losses) // 5)
        parts = [losses[start : start + size] for start in range(0, 5 * size, size)]
        listed = ", ".join(f"{sum(part) / len(part):.3f}" for part in parts if part)
        print(f"    loss by fifths {listed}", flush=True)


def chosen_cells(suite: Suite, given: argparse.Namespace) -> list[tuple[Cell, str]]:
    """The cells that the command asks for, PatchCore first."""
    every = [
        cell
        for cell in cells(suite)
        if cell.row == suite.rows[0]
        and cell.labelled in (given.labelled or [cell.labelled])
        and cell.data.name in (given.sets or [cell.data.name])
        and cell.draw < (given.draws or cell.draw + 1)
        and cell.fold < (given.folds or cell.fold + 1)
    ]
    return [(cell, row) for row in given.rows for cell in every]


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEYS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("--data_root", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="of timm's mobilenetv2_100")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--sets", nargs="+", help="names of data sets; default: all")
    parser.add_argument("--labelled", type=int, nargs="+", help="default: those of the suite")
    parser.add_argument("--draws", type=int, help="so many of the draws")
    parser.add_argument("--folds", type=int, help="so many of the folds")
    parser.add_argument("--steps", type=int, default=450, help="of SuperSimpleNet")
    parser.add_argument("--batch", type=int, default=8, help="of SuperSimpleNet, even")
    parser.add_argument("--noise", type=float, default=0.5, help="of SuperSimpleNet")
    parser.add_argument("--rate", type=float, default=5.0, help="of SuperSimpleNet, a factor")
    parser.add_argument("--coreset", type=float, default=0.1, help="share of the places, PatchCore")
    return parser.parse_args()


def main() -> None:
    given = parse()
    if importlib.util.find_spec("anomalib") is None:
        print("anomalib is not installed; pip install 'leanet[anomalib]'")
        return
    suite = read_suite(given.suite, given.data_root)
    if suite.few is None:
        raise SystemExit(f"{given.suite} has no key few; give configs/suites/few-defects.yaml")
    choices = Choices(**{name: getattr(given, name) for name in Choices.__dataclass_fields__})
    file = given.out / "opponents.csv"
    rows: list[dict[str, Any]] = list(read_csv(file)) if file.exists() else []
    finished = {key_of(row) for row in rows}
    checked: set[str] = set()
    for cell, row in chosen_cells(suite, given):
        if key_of(names_of(cell, row)) in finished:
            continue
        if cell.data.name not in checked:
            gap = feature_gap(open_cell(suite, cell, given.out), choices.weights)
            print(f"{cell.data.name}: features differ from this package's by {gap:.1e}", flush=True)
            checked.add(cell.data.name)
        try:
            new = judged(suite, cell, row, given.out, choices)
        except TooFewDefectsError as error:
            print(f"{cell.data.name}, fold {cell.fold}: not made: {error}", flush=True)
            continue
        rows += new
        write_csv(file, rows)
        tell(new)


def tell(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['data'][:24]:25}{row['row'][9:24]:16}fold {row['fold']} draw {row['draw']} "
            f"k {row['labelled']:<3}{row['output']:6}AUROC {row['auroc']:.3f} "
            f"AP {row['average_precision']:.3f} F1 {row['f1']:.3f} (best {row['oracle_f1']:.3f}) "
            f"recall {row['recall']:.3f} overkill {row['overkill']:.3f}, {row['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
