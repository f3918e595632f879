"""Configuration files of the program that this method is known from in its MVTec form, with
sections in capitals, as flat options.

What has a counterpart here is translated, what would change the training and has none is refused,
and the rest is ignored and listed. Keys of services are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from leanet.config import UsageError, flat

OPTIONS: Final = {  # key in the file -> option
    "SEED": "seed",
    "DATALOADER.batch_size": "batch_size",
    "MODEL.backbone": "backbone",
    "MODEL.gamma_c": "gamma_c",
    "MODEL.gamma_d": "gamma_d",
    "MODEL.num_nearest_neighbors": "k",
    "MODEL.num_hard_negative_features": "hard_negatives",
    "MODEL.radius": "radius",
    "TRAIN.num_training_steps": "max_steps",
    "TRAIN.top_k": "top_pixels",
}
PLACE: Final = ("DATASET.datadir", "DATASET.target")
RESIZE: Final = "DATASET.resize"
FIXED: Final = {
    "TASK": "anomaly",
    "METHOD": "unsupervised",
}  # what else these files are written for
SECTIONS: Final = ("DATASET", "DATALOADER", "MODEL", "TRAIN", "OPTIMIZER", "SCHEDULER")
SECRETS: Final = ("api_key", "wandb", "token", "password")  # parts of names of keys never read
WEIGHTS: Final = {  # torchvision's names -> timm's for the same weights
    "wide_resnet50_2": "wide_resnet50_2.tv_in1k",
    "resnet18": "resnet18.tv_in1k",
}
OPTIMIZERS: Final = ("adamw", "adam")
SCHEDULE: Final = "cosine_annealing_warmup_restarts"
SCHEDULED: Final = {"min_lr": 1e-4, "warmup_ratio": 0.1}  # what lr_schedule warmup_cosine does


class Original(NamedTuple):
    """Flat options, and what the user should be told."""

    options: dict[str, Any]
    notices: tuple[str, ...]


def is_original(values: Mapping[str, Any]) -> bool:
    """Whether these are the values of such a file."""
    return any(isinstance(values.get(name), Mapping) for name in SECTIONS)


def translate_original(values: Mapping[str, Any], name: str) -> Original:
    """The flat options of such a file; `name` says whose mistake it is.

    Raises:
        UsageError: another task, images that are no squares, an optimizer or a schedule that there
            is none of.
    """
    leaves = flat(dict(values))
    secret = [key for key in leaves if any(part in key.casefold() for part in SECRETS)]
    leaves = {key: value for key, value in leaves.items() if key not in secret}
    for key, allowed in FIXED.items():
        if leaves.get(key, allowed) != allowed:
            raise UsageError(f"{name}: {key} {leaves[key]!r}; here it is {allowed}, or left out")
    found = {option: leaves[key] for key, option in OPTIONS.items() if key in leaves}
    if "backbone" in found:
        found["backbone"] = WEIGHTS.get(found["backbone"], found["backbone"])
    place = [str(leaves[key]) for key in PLACE if leaves.get(key) is not None]
    if place:
        found["data"] = str(Path(*place))
    if RESIZE in leaves:
        found |= {"img_size": _side(leaves[RESIZE], name), "crop": "none"}
    found |= _optimizer(values.get("OPTIMIZER") or {}, name)
    found |= _schedule(values.get("SCHEDULER") or {}, name)
    read = {*OPTIONS, *PLACE, *FIXED, RESIZE}
    ignored = [
        k for k in leaves if k not in read and not k.startswith(("OPTIMIZER.", "SCHEDULER."))
    ]
    return Original(found, tuple(_notices(name, secret, ignored)))


def _notices(name: str, secret: list[str], ignored: list[str]) -> Iterator[str]:
    if secret:
        yield (
            f"{name}: {', '.join(secret)} not read: nothing is sent anywhere, and a key does "
            "not belong into such a file: take it out"
        )
    if ignored:
        yield f"{name}: ignored, for there is no counterpart: {', '.join(ignored)}"


def _side(resize: Any, name: str) -> Any:
    """One side of a square, from [height, width] or from one number."""
    sides = resize if isinstance(resize, list) else [resize]
    if not sides or len(set(map(str, sides))) > 1:
        raise UsageError(
            f"{name}: {RESIZE} {resize}; images are squeezed to a square here, give equal sides"
        )
    return sides[0]


def _optimizer(optimizers: Mapping[str, Any], name: str) -> dict[str, Any]:
    chosen = _chosen(optimizers)
    if not optimizers:
        return {}
    if len(chosen) != 1 or chosen[0] not in OPTIMIZERS:
        raise UsageError(
            f"{name}: OPTIMIZER has option: true at {', '.join(chosen) or 'none'}; it takes one of "
            f"{', '.join(OPTIMIZERS)}"
        )
    values = optimizers[chosen[0]]
    if chosen[0] == "adam" and float(values.get("weight_decay") or 0) != 0:
        raise UsageError(
            f"{name}: OPTIMIZER.adam.weight_decay {values['weight_decay']}; Adam adds it to the "
            "gradient, which is not done here: take adamw, or 0"
        )
    return {key: values[key] for key in ("lr", "weight_decay", "amsgrad") if key in values}


def _schedule(schedulers: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not schedulers:
        return {}
    chosen = _chosen(schedulers) if schedulers.get("use_scheduler", True) else []
    if not chosen:
        return {"lr_schedule": "constant"}
    if chosen != [SCHEDULE]:
        raise UsageError(
            f"{name}: SCHEDULER has option: true at {', '.join(chosen)}; allowed is {SCHEDULE} "
            "alone, or use_scheduler: false"
        )
    for key, allowed in SCHEDULED.items():
        if float(schedulers[SCHEDULE].get(key, allowed)) != allowed:
            raise UsageError(
                f"{name}: SCHEDULER.{SCHEDULE}.{key} {schedulers[SCHEDULE][key]}; here it is "
                f"{allowed:g}, or left out"
            )
    return {"lr_schedule": "warmup_cosine"}


def _chosen(members: Mapping[str, Any]) -> list[str]:
    """Those that are switched on."""
    return [k for k, v in members.items() if isinstance(v, Mapping) and v.get("option") is True]
