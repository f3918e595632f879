"""Pretrain a DC-GAN on a folder of images, for CAVGA to start from.

Writes the run folder: `config.yaml`, `environment.json`, `images.csv` (what it has learned from),
`journal.jsonl`, `sheet-NNN.png` now and then, and at the end `weights.safetensors`, `sheet.png` and
`card.json`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leanet.config import option
from leanet.data.cache import Cache, UnreadableImagesError, cache_images
from leanet.data.generated import generated_folder
from leanet.data.images import write_image
from leanet.data.pretraining import Pool, find_images, read_square, write_seen
from leanet.files import write_json
from leanet.generation.draw import to_bytes
from leanet.generation.sheets import contact_sheet
from leanet.methods.dcgan import Config, Trained, save_dcgan, train
from leanet.methods.dcgan_monitor import LEAST_DIVERSITY
from leanet.networks.dcgan import SIDE
from leanet.prepare import Tell
from leanet.run_folder import open_run
from leanet.runtime import Runtime, environment, make_runtime
from leanet.training.checkpoint import WEIGHTS
from leanet.training.loop import forget

CARD = "card.json"  # the last file of a run: it is finished where this one is
COLUMNS = 16  # of a contact sheet


@dataclass(frozen=True, kw_only=True)
class DcganOptions:
    """Options of `leanet fit dcgan` that do not concern the networks."""

    limit: int | None = option(None, "learn from at most so many images, drawn with the seed")
    seed: int = option(0, "makes everything repeatable: draws, weights, order")
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")
    device: str = option("auto", "auto, cpu or cuda")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise ValueError(f"limit {self.limit}: give at least 2 images, or leave it out")


def fit_dcgan(
    data: Path,
    out: Path,
    options: DcganOptions,
    config: Config,
    *,
    earlier: str = "refuse",
    tell: Tell = print,
) -> Path:
    """Train a DC-GAN on the images of `data` into the run folder `out` and return it.

    `earlier` says what becomes of an earlier run in `out`: "refuse", "resume" (with the same
    options) or "overwrite".

    Raises:
        ValueError: no images, unreadable or generated ones; anything wrong with the options or an
            earlier run; a training that failed.
    """
    runtime = make_runtime(options.device, options.precision, options.seed)
    pool = find_images(data)
    _refuse_generated(pool.paths)
    open_run(out, "dcgan", data, (options, config), earlier)
    if (out / CARD).exists():
        tell(f"{out}: finished before")
        return out
    paths, images = _decode(_drawn(pool, options.limit, runtime), options, out, runtime, tell)
    write_json(out / "environment.json", environment(runtime))
    write_seen(out, pool.root, paths)
    tell(_summary(pool, len(paths), runtime))
    started = time.monotonic()
    trained = train(config, images, out, runtime, show=lambda n, drawn: _show(out, drawn, n))
    save_dcgan(out / WEIGHTS, trained.generator, trained.discriminator)
    _show(out, trained.drawn)
    write_json(out / CARD, _card(trained, len(paths), time.monotonic() - started))
    forget(out)
    shutil.rmtree(out / "cache", ignore_errors=True)
    tell(_verdict(trained.records[-1]["diversity"]))
    return out


def _drawn(pool: Pool, limit: int | None, runtime: Runtime) -> list[Path]:
    """At most `limit` images, in the order of the pool."""
    order = torch.randperm(len(pool.paths), generator=runtime.generator("dcgan", "limit"))
    return [pool.paths[i] for i in sorted(order[:limit].tolist())]


def _decode(
    paths: Sequence[Path], options: DcganOptions, out: Path, runtime: Runtime, tell: Tell
) -> tuple[Sequence[Path], Cache]:
    """The images as uint8 [N, 3, 64, 64], without the unreadable ones if that is asked for."""
    folder = out / "cache"
    try:
        return paths, cache_images(paths, SIDE, folder, runtime.device, read=read_square)
    except UnreadableImagesError as error:
        if not options.skip_bad:
            raise
        bad = {problem.path for problem in error.errors}
    tell(f"left out {len(bad)} unreadable image(s): {', '.join(map(str, sorted(bad)))}")
    readable = [path for path in paths if path not in bad]
    return readable, cache_images(readable, SIDE, folder, runtime.device, read=read_square)


def _refuse_generated(paths: Sequence[Path]) -> None:
    for folder in {path.parent: path for path in paths}:
        if place := generated_folder(folder):
            raise ValueError(
                f"{folder} holds generated images ({place}); a DC-GAN learns from real ones"
            )


def _show(out: Path, drawn: Tensor, epoch: int | None = None) -> None:
    name = "sheet.png" if epoch is None else f"sheet-{epoch:03d}.png"
    write_image(out / name, contact_sheet(to_bytes(drawn), COLUMNS))


def _summary(pool: Pool, num_images: int, runtime: Runtime) -> str:
    text = f"learns from {num_images} of {len(pool.paths)} images on {runtime.device}"
    if pool.num_test or pool.num_masks:
        text += f"; left out: {pool.num_test} of a test part, {pool.num_masks} masks"
    return text


def _verdict(diversity: float) -> str:
    text = f"diversity {diversity:.2f} (1 = generated images differ as much as real ones)"
    low = "; they are nearly all alike, as at the very start: give it more --epochs or images"
    return text + low * (diversity < LEAST_DIVERSITY)


def _card(trained: Trained, num_images: int, seconds: float) -> dict[str, object]:
    last = trained.records[-1]
    return {
        "method": "dcgan",
        "img_size": SIDE,
        "images": num_images,
        "epochs": len(trained.records),
        "steps": last["step"],
        "last": last,
        "seconds": round(seconds, 1),
    }
