"""Configuration files of ADFA in sections, as the flat options of `fit adfa` and `fit cfa`.

Ours has the sections data, model, topk, loss, train and score. The program that this method is
known from in its MVTec form writes them in capitals (DATASET, MODEL, ...); those are understood as
well, and mean the preset tnvision. Both become the same flat names here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from leanet.config import UsageError, nearest
from leanet.methods.adfa_original import is_original, translate_original
from leanet.methods.patches import CROP, IMAGENET_MEAN, IMAGENET_STD

OPTIONS: Final = {  # key in the file -> option
    "model.backbone": "backbone",
    "model.weights": "weights",
    "model.pretrained": "pretrained",
    "model.backbone_args": "backbone_args",
    "model.feature_indices": "feature_indices",
    "model.gamma_d": "gamma_d",
    "model.gamma_c": "gamma_c",
    "model.bank_mean": "bank_mean",
    "model.eca": "eca",
    "model.eca_kernel": "eca_kernel",
    "model.eca_factor": "eca_factor",
    "model.eca_second": "eca_second",
    "model.kl_weight": "kl_weight",
    "topk.kind": "topk",
    "topk.k": "k",
    "topk.eps": "eps",
    "topk.cmax": "cmax",
    "topk.scale": "topk_scale",
    "topk.block": "block",
    "loss.kind": "loss",
    "loss.nu": "nu",
    "loss.alpha": "alpha",
    "loss.radius": "radius",
    "loss.radius_learnable": "radius_learnable",
    "loss.hard_negatives": "hard_negatives",
    "train.epochs": "epochs",
    "train.max_steps": "max_steps",
    "train.batch_size": "batch_size",
    "train.drop_last": "drop_last",
    "train.lr": "lr",
    "train.lr_schedule": "lr_schedule",
    "train.weight_decay": "weight_decay",
    "train.amsgrad": "amsgrad",
    "train.val_fraction": "val_fraction",
    "train.seed": "seed",
    "score.kind": "score",
    "score.blur_sigma": "blur_sigma",
    "score.image": "image_score",
    "score.top_pixels": "top_pixels",
}
DATA: Final = (
    "root",
    "category",
    "image_size",
    "resize",
    "crop",
    "normalize",
)  # of several at once
NORMALIZATIONS: Final = {  # mean, standard deviation
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
SECTIONS: Final = ("data", *dict.fromkeys(key.partition(".")[0] for key in OPTIONS))
FREE: Final = frozenset({"backbone_args"})  # an option that is a mapping itself


class FileOptions(NamedTuple):
    """What a file says: flat options (with `method` and `data`, where it names them), the preset
    that they start from, what its reader should be told, and whether it has sections."""

    options: dict[str, Any]
    preset: str | None = None
    notices: tuple[str, ...] = ()
    in_sections: bool = False


def read_sections(file: Path) -> FileOptions | None:
    """The flat options of a configuration file in sections; None for any other file.

    Raises:
        UsageError: a section, key, size or normalization that is not known, an option twice, or a
            file without any options.
    """
    if not file.is_file():
        return None  # the parser of flat files says so
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML file: {' '.join(str(error).split())}") from error
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise UsageError(f"{file} holds no options; give lines such as `seed: 213`")
    if is_original(values):
        read = translate_original(values, str(file))
        return FileOptions(read.options, "tnvision", read.notices, in_sections=True)
    if not any(isinstance(values.get(name), Mapping) for name in SECTIONS):
        return None
    return translate(values, str(file))


def translate(values: Mapping[str, Any], name: str) -> FileOptions:
    """Our own sections as flat options. What stands outside them is an option of that name.

    Raises:
        UsageError: as `read_sections`; `name` says whose mistake it is.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == "preset":
            continue
        if isinstance(value, Mapping) and key not in FREE:
            added = _section(str(key), value, name)
        else:
            added = {} if value is None and key in SECTIONS else {key: value}
        twice = sorted(found.keys() & added.keys())
        if twice:
            raise UsageError(f"{name} gives {', '.join(twice)} twice; leave one out")
        found |= added
    preset = values.get("preset")
    return FileOptions(found, None if preset is None else str(preset), in_sections=True)


def _section(section: str, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    if section not in SECTIONS:
        raise UsageError(
            f"{name}: unknown section {section!r}{nearest(section, SECTIONS)}; allowed: "
            f"{', '.join(SECTIONS)}"
        )
    known = DATA if section == "data" else _keys_of(section)
    for key in values:
        if key not in known:
            raise UsageError(
                f"{name}: unknown key {key!r} in {section}{nearest(str(key), known)}; allowed: "
                f"{', '.join(known)}"
            )
    if section == "data":
        return _data(values, name)
    return {OPTIONS[f"{section}.{key}"]: value for key, value in values.items()}


def _keys_of(section: str) -> tuple[str, ...]:
    return tuple(k.partition(".")[2] for k in OPTIONS if k.partition(".")[0] == section)


def _data(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The folder, the size and the normalization of the images."""
    found: dict[str, Any] = {}
    place = [str(values[key]) for key in ("root", "category") if values.get(key) is not None]
    if place:
        found["data"] = str(Path(*place))
    found |= _size(values, name)
    normalize = values.get("normalize")
    if normalize is not None:
        if normalize not in NORMALIZATIONS:
            raise UsageError(
                f"{name}: data.normalize {normalize!r}{nearest(str(normalize), NORMALIZATIONS)}; "
                f"allowed: {', '.join(NORMALIZATIONS)}"
            )
        mean, std = NORMALIZATIONS[normalize]
        found |= {"mean": list(mean), "std": list(std)}
    return found


def _size(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`img_size`, the side before the crop, and `crop` from resize, image_size and crop."""
    resize, size, crop = (values.get(key) for key in ("resize", "image_size", "crop"))
    for key, side in (("resize", resize), ("image_size", size)):
        if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
            raise UsageError(f"{name}: data.{key} {side!r}; give a side in pixels, e.g. 256")
    if crop not in (None, "none", "center"):
        raise UsageError(f"{name}: data.crop {crop!r}; allowed: none, center")
    cropped = {} if crop is None else {"crop": crop}
    if size is None:
        return cropped if resize is None else {"img_size": resize, **cropped}
    if crop is None and resize is None:
        raise UsageError(
            f"{name}: data.image_size {size} is the side behind the crop; say data.crop as well "
            "(none, center), or give data.resize instead"
        )
    centered = crop == "center" or (crop is None and size != resize)
    before = resize if resize is not None else round(size / CROP) if centered else size
    if size != (before - 2 * round(before * (1 - CROP) / 2) if centered else before):
        raise UsageError(
            f"{name}: data.resize {before} and data.image_size {size} do not go together: a center "
            "crop keeps 224/256 of the side (resize 256, image_size 224), and crop: none all of it"
        )
    return {"img_size": before, "crop": "center" if centered else "none"}
