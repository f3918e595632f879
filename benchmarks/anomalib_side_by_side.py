"""PatchCore and PaDiM of anomalib and of this package, side by side: same images, same network.

Both get the same decoded images, the same features (checked: the largest difference is printed),
the same coreset size and as many channels. Scores and maps are compared raw, before any clamp or
normalization. anomalib's bare torch models are driven directly, without its engine, so that both
sides are only the method. Every run is a process of its own, with one thread; times are what the
processor gave it. Memory is its peak, and how far that is above the peak before it began to fit,
which holds libraries and images.

`same bank` scores with this package and the bank that anomalib has chosen, `same channels` fits
PaDiM here to the channels that anomalib has drawn: what then still differs is not the luck of the
draw.

Needs anomalib (`pip install 'leanet[anomalib]'`); without it, it says so and ends.

Run: python benchmarks/anomalib_side_by_side.py --data DATA --weights MOBILENETV2.safetensors
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from leanet.data.cache import Cache, cache_images, images_in_unit_range
from leanet.data.images import read_mask
from leanet.data.scan import scan
from leanet.methods import padim, patchcore
from leanet.methods.patches import PatchDetector, load_features
from leanet.methods.recipe import Material
from leanet.networks.weights import read_weights
from leanet.ops.gaussian import PlaceMoments
from leanet.records import ANOMALOUS, NORMAL, Fold, Sample
from leanet.runtime import make_runtime

BATCH = 16
NAME, ARGS = "mobilenetv2_100", {"pad_type": "same"}
MEAN = STD = (0.5, 0.5, 0.5)
LEVELS = {"patchcore": (2, 3), "padim": (1, 2, 3)}  # strides 8, 16; 4, 8, 16
LAYERS = {1: "blocks.1", 2: "blocks.2", 3: "blocks.4"}  # their names in timm
WHO = ("anomalib", "leanet")
DRAWN = {"patchcore": "same bank", "padim": "same channels"}
CHANNELS = 100

Score = Callable[[Tensor], tuple[Tensor, Tensor]]  # images in [0, 1] -> scores [B], maps [B,1,S,S]


class Job(NamedTuple):
    """One run."""

    who: str
    method: str
    data: str
    size: int
    seed: int
    coreset: float
    weights: str


def samples_of(data: Path) -> list[Sample]:
    """Training samples first. Without a split: 80 % of the normals, shuffled with seed 0, train."""
    found = sorted(scan(data).samples, key=lambda sample: sample.split == "test")
    if any(sample.split == "test" for sample in found):
        return found
    normals = sorted((s for s in found if s.label == NORMAL), key=lambda s: s.path.name)
    random.Random(0).shuffle(normals)
    train = [replace(s, split="train") for s in normals[: int(0.8 * len(normals))]]
    rest = [*normals[len(train) :], *(s for s in found if s.label == ANOMALOUS)]
    return [*train, *(replace(s, split="test") for s in rest)]


def batches(images: Cache, indices: range) -> Iterator[Tensor]:
    """Images in [0, 1], batch by batch."""
    for start in range(indices.start, indices.stop, BATCH):
        chosen = range(start, min(start + BATCH, indices.stop))
        yield images_in_unit_range(images.take(chosen))


def theirs(job: Job, images: Cache, train: range) -> tuple[nn.Module, Score]:
    """anomalib's model after fitting."""
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(job.seed)
    layers = [LAYERS[level] for level in LEVELS[job.method]]
    if job.method == "patchcore":
        model: Any = PatchcoreModel(layers=layers, backbone=NAME, pre_trained=False)
    else:
        model = PadimModel(NAME, layers, pre_trained=False, n_features=CHANNELS)
    model.feature_extractor.feature_extractor = backbone(job)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    model.train()
    with torch.inference_mode(mode=False), torch.no_grad():  # its coreset keeps a graph otherwise
        for image in batches(images, train):
            model((image - mean) / std)
        model.subsample_embedding(job.coreset) if job.method == "patchcore" else model.fit()
    model.eval()

    def score(image: Tensor) -> tuple[Tensor, Tensor]:
        output = model((image - mean) / std)
        return output.pred_score.flatten(), output.anomaly_map

    return model, score


def backbone(job: Job) -> nn.Module:
    """The network that both use, as anomalib's extractor has it."""
    network: nn.Module = timm.create_model(
        NAME, features_only=True, out_indices=LEVELS[job.method], **ARGS
    )
    own, given = network.state_dict(), read_weights(Path(job.weights))
    network.load_state_dict({name: given.get(name, value) for name, value in own.items()})
    assert sum(name in given for name in own) >= 0.7 * len(own)  # all but BatchNorm's counters
    return network.eval()


def ours(job: Job, data: Material) -> PatchDetector:
    """This package's detector before fitting."""
    options: dict[str, Any] = {
        "backbone": NAME,
        "weights": job.weights,
        "backbone_args": ARGS,
        "feature_indices": LEVELS[job.method],
        "mean": MEAN,
        "std": STD,
    }
    detector: PatchDetector
    if job.method == "patchcore":
        chosen = patchcore.Config(**options, coreset=job.coreset, max_candidates=0)
        detector = patchcore.PatchCoreDetector(chosen, data.img_size)
    else:
        detector = padim.PadimDetector(padim.Config(**options, channels=CHANNELS), data.img_size)
    load_features(detector.config, detector.features)
    return detector.eval()


def fit_ours(job: Job, data: Material, train: range) -> Score:
    """Fit this package's detector, without the working points that `leanet fit` adds."""
    detector, runtime = ours(job, data), make_runtime("cpu", "32-true", job.seed)
    indices, draw = tuple(train), make_runtime("cpu", "32-true", job.seed).generator("bench")
    if isinstance(detector, patchcore.PatchCoreDetector):
        grid, dims = detector.features.grid, detector.bank.shape[1]
        plan = patchcore.plan_of(detector.config, len(indices), grid**2, dims)
        described = patchcore.drawn(detector, data, indices, plan, draw)
        detector.bank = patchcore.fill(described, plan, data.run, draw, runtime.device)
    elif isinstance(detector, padim.PadimDetector):
        fold = Fold(name="bench", train=indices, test=())
        padim.learn(detector, indices, data, fold, runtime)
    return scoring(detector)


def scoring(detector: PatchDetector) -> Score:
    """Its score and map."""

    def score(image: Tensor) -> tuple[Tensor, Tensor]:
        prediction = detector(image)
        assert prediction.map is not None
        return prediction.score, prediction.map

    return score


def adopted(job: Job, data: Material, train: range, model: Any) -> Score:
    """This package's detector with what anomalib has drawn."""
    detector = ours(job, data)
    if isinstance(detector, patchcore.PatchCoreDetector):
        detector.bank = model.memory_bank
    elif isinstance(detector, padim.PadimDetector):
        detector.channels = model.idx
        moments = PlaceMoments(detector.features.grid**2, CHANNELS)
        for image in batches(data.images, train):
            moments.add(detector.described(detector.see(image)))
        detector.mean, detector.whitening = moments.gaussians(detector.config.ridge)
    return scoring(detector)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def run(job: Job) -> list[dict[str, Any]]:
    """Fit, score, judge; in this process."""
    torch.set_num_threads(1)
    samples = samples_of(Path(job.data))
    train = range(sum(sample.split != "test" for sample in samples))
    tested = samples[train.stop :]
    with tempfile.TemporaryDirectory() as folder:
        paths, place = [sample.path for sample in samples], Path(folder)
        images = cache_images(paths, job.size, place, torch.device("cpu"))
        data = Material(samples=tuple(samples), images=images, img_size=job.size, run=place)
        model: Any = None
        if job.who == "anomalib":
            importlib.import_module("anomalib.models")
        before, started = peak_mb(), time.process_time()
        if job.who == "anomalib":
            model, score = theirs(job, images, train)
        else:
            score = fit_ours(job, data, train)
        facts = {
            **job._asdict(),
            "train": len(train),
            "test": len(tested),
            "fit_s": time.process_time() - started,
            "before_mb": before,
        }
        rows = [facts | judged(score, data, tested)]
        if model is not None:
            mine = adopted(job, data, train, model)
            gaps = differences(score, mine, next(batches(images, test_of(data, tested))))
            more = {"who": DRAWN[job.method], "fit_s": None, "before_mb": None}
            rows.append(facts | more | judged(mine, data, tested) | gaps)
            rows[1]["features"] = feature_gap(job, data, next(batches(images, train)))
    return rows


def test_of(data: Material, tested: list[Sample]) -> range:
    return range(len(data.samples) - len(tested), len(data.samples))


def judged(score: Score, data: Material, tested: list[Sample]) -> dict[str, Any]:
    """Figures of the test images, and what scoring them took."""
    score(next(batches(data.images, range(BATCH))))  # warm
    scores, maps, started = [], [], time.process_time()
    for image in batches(data.images, test_of(data, tested)):
        values, drawn = score(image)
        scores.append(values)
        maps.append(drawn[:, 0].numpy())
    seconds, peak = time.process_time() - started, peak_mb()
    return {
        "image_auroc": roc_auc_score([s.label for s in tested], torch.cat(scores)),
        "pixel_auroc": pixel_auroc(tested, np.concatenate(maps)),
        "predict_ms": 1000 * seconds / len(tested),
        "peak_mb": peak,
    }


def differences(first: Score, second: Score, image: Tensor) -> dict[str, float]:
    """Largest relative differences of scores and of map pixels (relative to the highest one)."""
    (a, first_map), (b, second_map) = first(image), second(image)
    gap = (first_map - second_map).abs().amax() / first_map.amax()
    return {"score_gap": float(((a - b).abs() / a).max()), "map_gap": float(gap)}


def feature_gap(job: Job, data: Material, image: Tensor) -> float:
    """Largest difference between the features that both use."""
    mine = ours(job, data).see(image)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    other = backbone(job)((image - mean) / std)
    return max(float((a - b).abs().max()) for a, b in zip(mine, other, strict=True))


def pixel_auroc(samples: list[Sample], maps: NDArray[np.float32]) -> float | None:
    """Over all pixels of the test images, masks brought to the size of the maps; None without."""
    marked = [s.mask for s in samples if s.mask is not None]
    if not marked:
        return None
    truth = np.zeros(maps.shape, dtype=bool)
    for place, sample in zip(truth, samples, strict=True):
        if sample.mask is not None:
            mask = Image.fromarray(read_mask(sample.mask).astype(np.uint8))
            place[:] = np.asarray(mask.resize(maps.shape[:0:-1], Image.Resampling.NEAREST))
    return float(roc_auc_score(truth.ravel(), maps.ravel()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", type=Path, required=True, help="of timm's mobilenetv2_100")
    parser.add_argument("--img_size", type=int, default=128)
    parser.add_argument("--coreset", type=float, default=0.01)
    parser.add_argument("--methods", nargs="+", choices=tuple(LEVELS), default=tuple(LEVELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON lines, one a run")
    given = parser.parse_args()
    if importlib.util.find_spec("anomalib") is None:
        print("anomalib is not installed; pip install 'leanet[anomalib]'")
        return
    print(f"{'':28}{'image':>8}{'pixel':>8}{'fit':>9}{'predict':>10}{'memory':>16}")
    for data in given.data:
        for method in given.methods:
            for seed in range(given.seeds):
                for who in WHO:
                    size, coreset = given.img_size, given.coreset
                    job = Job(who, method, str(data), size, seed, coreset, str(given.weights))
                    for row in started(job):
                        tell(row, given.out)


def started(job: Job) -> list[dict[str, Any]]:
    """The run in a process of its own."""
    words = [sys.executable, "-W", "ignore", __file__, "--run", json.dumps(job._asdict())]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=alone)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return list(json.loads(done.stdout.splitlines()[-1]))


def tell(row: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    pixel = "-" if row["pixel_auroc"] is None else f"{row['pixel_auroc']:.4f}"
    cost = ""
    if row["fit_s"] is not None:
        above = row["peak_mb"] - row["before_mb"]
        cost = (
            f"{row['fit_s']:8.1f}s{row['predict_ms']:8.2f}ms{row['peak_mb']:8.0f} MB, +{above:.0f}"
        )
    print(
        f"{Path(row['data']).name[:13]:14}{row['method']:10}{row['who']:14}{row['seed']}"
        f"{row['image_auroc']:8.4f}{pixel:>8}{cost}",
        flush=True,
    )
    if "score_gap" in row:
        print(
            f"    on the same draw scores differ by up to {row['score_gap']:.1e}, maps by "
            f"{row['map_gap']:.1e}; features by {row['features']:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(Job(**json.loads(sys.argv[2])))))
    else:
        main()
