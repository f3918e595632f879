"""`leanet predict` against anomalib's `engine.predict`: from image files to scores, end to end.

Both are PatchCore with the same ResNet18 (random weights, which cost what trained ones do), the
same layers, image size and share of patches, and judge the same files on the same machine: reading
and decoding included. Each run is a process of its own, in turns, with as many threads. Start-up is
imports, loading the model and a first image; predicting is all files after that.

anomalib runs as documented (`data_path`: batches of one, no workers) and with a data loader of
one's own (batches of 16, one worker), leanet also by its exported files; all once without and once
with their pictures. Ratios are those to anomalib as documented: how many times as fast.

Needs anomalib (`pip install 'leanet[anomalib]'`); without it, it says so and ends.

Run: python benchmarks/predict.py   (about fifteen minutes on two cores)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

LAYERS = ("layer2", "layer3")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 16
ENGINES = {"leanet": "torch", "leanet, ONNX Runtime": "onnx", "leanet, OpenVINO": "openvino"}
DOCUMENTED = "anomalib"
WHO = (*ENGINES, DOCUMENTED, "anomalib, own loader")
Job = dict[str, Any]


def prepare(place: Path, given: argparse.Namespace) -> None:
    """Images, weights, and both models, fitted to the same images."""
    import timm
    from safetensors.torch import save_file

    import leanet

    data = place / "data"
    write_images(data / "Negative" / "good", given.train, given.side, seed=0)
    write_images(data / "Positive" / "bad", 4, given.side, seed=1)
    write_images(place / "files", given.images, given.side, seed=2)
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False)
    save_file(network.state_dict(), place / "resnet18.safetensors")
    leanet.fit(
        "patchcore",
        data,
        place / "run",
        backbone="resnet18",
        weights=str(place / "resnet18.safetensors"),
        feature_indices=[2, 3],
        img_size=given.img_size,
        coreset=given.coreset,
        mean=MEAN,
        std=STD,
        device="cpu",
        tell=lambda _: None,
    )
    for engine in ("onnx", "openvino"):
        leanet.export(place / "run", engine, tell=lambda _: None)


def write_images(folder: Path, num: int, side: int, seed: int) -> None:
    """Clouds with some grain, as PNG."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for k in range(num):
        coarse = Image.fromarray(rng.integers(40, 216, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-6, 7, (side, side, 1), dtype=np.int16)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:04d}.png")


def theirs(job: Job, *, pictures: bool) -> Any:
    """anomalib's model, not fitted."""
    from anomalib.models import Patchcore
    from safetensors.torch import load_file

    side = (job["img_size"], job["img_size"])
    model = Patchcore(
        backbone="resnet18",
        layers=LAYERS,
        pre_trained=False,
        coreset_sampling_ratio=job["coreset"],
        pre_processor=Patchcore.configure_pre_processor(side),
        visualizer=pictures,
    )
    network = model.model.feature_extractor.feature_extractor
    found = load_file(Path(job["place"]) / "resnet18.safetensors")
    network.load_state_dict({name: found[name] for name in network.state_dict()})
    return model


def fit_anomalib(job: Job) -> Job:
    from anomalib.data import Folder
    from anomalib.engine import Engine

    place = Path(job["place"])
    data = Folder(
        name="toy",
        root=place / "data",
        normal_dir="Negative/good",
        normal_test_dir="Negative/good",  # so that all of them train, as ours do
        abnormal_dir="Positive",
        train_batch_size=BATCH,
        num_workers=0,
    )
    engine = Engine(default_root_dir=place / "engine", accelerator="cpu", logger=False)
    model = theirs(job, pictures=False)
    model.fit = torch.no_grad()(model.fit)  # its coreset keeps a graph of gigabytes otherwise
    engine.fit(model, datamodule=data)
    engine.trainer.save_checkpoint(place / "patchcore.ckpt")
    return {}


def run_anomalib(job: Job) -> Job:
    """Start-up, prediction and CPU seconds."""
    started = time.perf_counter()
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine
    from torch.utils.data import DataLoader

    place = Path(job["place"])
    engine = Engine(default_root_dir=place / "engine", accelerator="cpu", logger=False)
    model = theirs(job, pictures=job["pictures"])
    engine.predict(model, ckpt_path=place / "patchcore.ckpt", data_path=first_of(place))
    ready, busy = time.perf_counter(), cpu_seconds()
    if job["who"] == DOCUMENTED:
        found = engine.predict(model, data_path=place / "files")
    else:
        files = PredictDataset(place / "files")
        loader = DataLoader(files, BATCH, num_workers=1, collate_fn=files.collate_fn)
        found = engine.predict(model, dataloaders=loader)
    num = sum(len(batch.pred_score) for batch in found)
    return figures(started, ready, busy, num)


def run_leanet(job: Job) -> Job:
    started = time.perf_counter()
    from leanet.inference.predict import find_images, predict
    from leanet.ops.working_point import point_of
    from leanet.trained import open_detector, read_card

    place, cpu = Path(job["place"]), torch.device("cpu")
    detector = open_detector(place / "run", ENGINES[job["who"]], cpu)
    card = read_card(place / "run")
    options: dict[str, Any] = {
        "point": point_of(card),
        "map_top": card["map_top"],
        "device": cpu,
        "heatmaps": job["pictures"],
        "overwrite": True,
        "tell": lambda _: None,
    }
    predict(detector, [first_of(place)], out=place / "first", **options)
    ready, busy = time.perf_counter(), cpu_seconds()
    judged = predict(detector, find_images([place / "files"]), out=place / "judged", **options)
    return figures(started, ready, busy, len(judged))


def first_of(place: Path) -> Path:
    return min((place / "files").iterdir())


def cpu_seconds() -> float:
    """Of this process and of the workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def figures(started: float, ready: float, busy: float, num: int) -> Job:
    now = time.perf_counter()
    return {
        "start": ready - started,
        "predict": now - ready,
        "cpu": cpu_seconds() - busy,
        "images": num,
    }


def run(job: Job) -> Job:
    if job["who"] == "fit":
        return fit_anomalib(job)
    return run_leanet(job) if job["who"] in ENGINES else run_anomalib(job)


def started(job: Job, threads: int) -> Job:
    """One run in a process of its own, with the seconds of the whole process."""
    words = [sys.executable, "-W", "ignore", __file__, "--run", json.dumps(job)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TRUST_REMOTE_CODE": "1"}
    begun = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return {**json.loads(done.stdout.splitlines()[-1]), "whole": time.perf_counter() - begun}


def compare(job: Job, given: argparse.Namespace) -> None:
    """The programs in turns; medians and ratios."""
    rows: dict[str, list[Job]] = {who: [] for who in WHO}
    for _ in range(given.rounds):
        for who in WHO:
            rows[who].append(started({**job, "who": who}, given.threads))
            assert rows[who][-1]["images"] == given.images, rows[who][-1]
    middle = {
        who: {name: statistics.median(row[name] for row in found) for name in found[0]}
        for who, found in rows.items()
    }
    documented = middle[DOCUMENTED]
    for who, row in middle.items():
        ratios = "  ".join(f"{documented[n] / row[n]:5.2f} x" for n in ("predict", "cpu", "whole"))
        print(
            f"{'with' if job['pictures'] else 'no':5}pictures  {who:22}{row['start']:8.1f} s"
            f"{1000 * row['predict'] / given.images:9.1f} ms{1000 * row['cpu'] / given.images:9.1f}"
            f" ms{row['whole']:8.1f} s   {ratios}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help="to judge")
    parser.add_argument(
        "--train", type=int, default=19, help="to fit to; from 20 on leanet holds some out"
    )
    parser.add_argument("--side", type=int, default=512, help="of the files, px")
    parser.add_argument("--img_size", type=int, default=224)
    parser.add_argument("--coreset", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if importlib.util.find_spec("anomalib") is None:
        print("anomalib is not installed; pip install 'leanet[anomalib]'")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place, given)
        job = {"place": folder, "img_size": given.img_size, "coreset": given.coreset}
        started({**job, "who": "fit"}, given.threads)
        print(f"{'':37}{'start-up':>10}{'an image':>12}{'its CPU':>12}{'process':>10}   ratios")
        for pictures in (False, True):
            compare({**job, "pictures": pictures}, given)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        warnings.simplefilter("ignore")
        print(json.dumps(run(json.loads(sys.argv[2]))))
    else:
        main()
