"""Which maps steer LEA-Net: those of a method trained here, of another run, or from files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from leanet.config import from_dict, to_dict
from leanet.data.map_folder import open_map_folder
from leanet.files import read_csv
from leanet.methods import colorizer
from leanet.methods.detector_file import read_detector
from leanet.methods.given_maps import GivenMaps, maps_of
from leanet.methods.map_catalog import find_map_method, name_of
from leanet.methods.map_models import MapSource
from leanet.methods.recipe import DetectorModule, Material
from leanet.progress import say_once
from leanet.records import NORMAL
from leanet.runtime import Runtime

FOLDER = "folder"  # stands for a method where maps come from files


def find_source(
    place: str | None, config: colorizer.Config, data: Material, runtime: Runtime
) -> MapSource:
    """The source that the options name: `config` is the map model's, `place` a run folder or a
    folder of maps that take its place.

    A run whose training images are not in this data set draws all maps as it is. Otherwise its
    method is trained anew on each part, with its options: the run itself has seen the images.

    Raises:
        ValueError: no such folder, a run of a method that gives no such maps, missing maps.
    """
    scale: dict[str, Any] = {"quantile": config.map_quantile, "headroom": config.map_headroom}
    if place is None:
        told = f"{config.task} ({config.model}), trained in this run"
        return MapSource(config=config, told=told, **scale)
    folder = Path(place)
    if (folder / "config.yaml").exists():
        source = _run_source(folder, data, runtime)
    else:
        given = maps_of(open_map_folder(folder), data)
        source = MapSource(config=None, told=f"files in {folder}", fixed=given)
    say_once(f"maps: {source.told}")
    return dataclasses.replace(source, **scale)


def describe(source: MapSource, model: DetectorModule) -> dict[str, Any]:
    """What `rebuild` needs to build the model again (JSON)."""
    if isinstance(model, GivenMaps):
        return {"method": FOLDER, "config": None, "extra": model.extra()}
    config = source.config
    return {"method": name_of(config), "config": to_dict(config), "extra": model.extra()}


def rebuild(description: dict[str, Any], img_size: int) -> DetectorModule:
    """A map model without its weights, as `describe` has described it."""
    extra = description["extra"]
    if description["method"] == FOLDER:
        return GivenMaps(img_size, **extra)
    method = find_map_method(description["method"])
    return method.build(from_dict(method.config, description["config"]), img_size, extra)


def _run_source(run: Path, data: Material, runtime: Runtime) -> MapSource:
    options = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    try:
        method = find_map_method(options["method"])
    except ValueError as error:
        raise ValueError(f"{run} cannot give maps: {error}, or a folder of maps") from error
    fields = method.config.__dataclass_fields__
    config = from_dict(method.config, {k: v for k, v in options.items() if k in fields})
    why = _why_anew(run, Path(options["data"]), data)
    if why:
        told = f"{options['method']} with the options of {run}, trained anew here: {why}"
        return MapSource(config=config, told=told)
    detector = read_detector(run / "final", find_map_method, runtime.device)
    if detector.img_size != data.img_size:
        raise ValueError(
            f"{run} draws maps of {detector.img_size} px, and this run works at {data.img_size}; "
            f"use --img_size {detector.img_size}"
        )
    told = f"{run} as it is: none of its training images is in this data set"
    return MapSource(config=config, told=told, fixed=detector)


def _why_anew(run: Path, place: Path, data: Material) -> str:
    """Why a run may not draw the maps of this data set itself; "" if it may."""
    root = place if place.is_dir() else place.parent
    rows = read_csv(run / "samples.csv")
    seen = [root / r["path"] for r in rows if r["split"] != "test" and int(r["label"]) == NORMAL]
    lost = sum(not path.is_file() for path in seen)
    if lost:
        return f"{lost} of its {len(seen)} training images are gone, so it may have seen these"
    shared = _num_shared(seen, [sample.path for sample in data.samples])
    return f"it has seen {shared} of these images" if shared else ""


def _num_shared(first: Sequence[Path], second: Sequence[Path]) -> int:
    """How many files of the first are, byte for byte, among the second."""
    sizes = {path.stat().st_size for path in second}
    alike = [path for path in first if path.stat().st_size in sizes]
    wanted = {path.stat().st_size for path in alike}
    digests = {_digest(path) for path in second if path.stat().st_size in wanted}
    return sum(_digest(path) in digests for path in alike)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
