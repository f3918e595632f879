"""Which maps steer LEA-Net: those of a method trained here, of another run, or from files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanet.config import from_dict, merged, nearest, to_dict
from leanet.data.map_folder import open_map_folder
from leanet.files import read_csv
from leanet.methods import colorizer
from leanet.methods.anomalib_model import AnomalibModel
from leanet.methods.detector_file import read_detector
from leanet.methods.given_maps import GivenMaps, maps_of
from leanet.methods.map_catalog import (
    MAP_METHODS,
    READY_METHODS,
    find_drawer,
    find_map_method,
    name_of,
)
from leanet.methods.map_models import MapSource
from leanet.methods.recipe import DetectorModule, Material
from leanet.progress import say_once
from leanet.records import NORMAL
from leanet.runtime import Runtime

FOLDER = "folder"  # stands for a method where maps come from files
OWN_KEYS = ("method", "preset")  # of a map method's file, beside its options


class MapMethod(NamedTuple):
    """A method that is to be trained in this run, with the options that were given for it."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012


def find_source(
    place: str | None,
    config: colorizer.Config,
    data: Material,
    runtime: Runtime,
    options: Mapping[str, Any] | None = None,
) -> MapSource:
    """The source that the options name: `config` is the map model's, `place` what takes its place:
    a run folder, a folder of maps, or a method as in `own_config`, with `options` on top.

    A run whose training images are not in this data set draws all maps as it is. Otherwise its
    method is trained anew on each part, with its options: the run itself has seen the images.

    Raises:
        ValueError: no such place, a run of a method that gives no such maps, missing maps, options
            for something that has none.
    """
    scale: dict[str, Any] = {"quantile": config.map_quantile, "headroom": config.map_headroom}
    own = own_config(place, config, options)
    if place is None:
        told = f"{config.task} ({config.model}), trained in this run"
        return MapSource(config=own, told=told, **scale)
    folder = Path(place)
    if own is not None:
        name = name_of(own)
        told = f"{name}, trained in this run" + (f" as {place} says" if place != name else "")
        source = MapSource(config=own, told=told)
    elif (folder / "config.yaml").exists():
        source = _run_source(folder, data, runtime)
    else:
        given = maps_of(open_map_folder(folder), data)
        source = MapSource(config=None, told=f"files in {folder}", fixed=given)
    say_once(f"maps: {source.told}")
    return dataclasses.replace(source, **scale)


def own_config(
    place: str | None, config: colorizer.Config, options: Mapping[str, Any] | None = None
) -> Any:
    """The options of the method that draws the maps and is trained in this run: `config` without a
    `place`, else those of the file or method that it names, with `options` on top. None where
    `place` is a folder: what draws there is known without training anything here.

    Raises:
        ValueError: `place` is neither there nor a method, or options that nobody takes.
    """
    if place is None or Path(place).is_dir():
        if options:
            instead = "map_model" if place is None else "--map_source METHOD"
            what = "no map_source" if place is None else f"map_source {place}, a folder"
            listed = ", ".join(options)
            raise ValueError(
                f"map_options ({listed}) are those of a method or file that map_source names; "
                f"there is {what}: use {instead}"
            )
        return config if place is None else None
    name, given = map_method(place)
    method = find_map_method(name)
    start = to_dict(config) if method.config is type(config) else {}
    try:
        return from_dict(method.config, merged(merged(start, given), options or {}))
    except ValueError as error:
        raise ValueError(f"map_source {place} ({name}): {error}") from error


def map_method(place: str) -> MapMethod:
    """The method that `place` names: a YAML file with `method`, maybe `preset`, and options, or a
    name; a file wins. A relative path in `weights` counts from the file, if something is there.

    Raises:
        ValueError: neither, or a file that is no such file.
    """
    file = Path(place)
    if file.is_file():
        return _read_method(file)
    if place not in MAP_METHODS:
        raise ValueError(
            f"map_source {place!r} is no folder or YAML file that is there, and no method"
            f"{nearest(place, MAP_METHODS)}; allowed: a run folder, a folder of maps, a YAML file "
            f"with `method:`, or one of {', '.join(MAP_METHODS)}"
        )
    return MapMethod(place)


def refuse_extras(source: MapSource, place: str | None, extras: Sequence[object]) -> None:
    """Raise ValueError where maps are files, and there are images that nobody has drawn one of."""
    if extras and isinstance(source.fixed, GivenMaps):
        raise ValueError(
            f"--map_source {place} has no maps of synthetic or generated images; leave one of them "
            "out, or let a map model draw the maps"
        )


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
    method = find_drawer(description["method"])
    return method.build(from_dict(method.config, description["config"]), img_size, extra)


def _read_method(file: Path) -> MapMethod:
    given = yaml.safe_load(file.read_text(encoding="utf-8")) if _is_yaml(file) else None
    if not isinstance(given, dict) or "method" not in given:
        raise ValueError(
            f"map_source {file} is no YAML file with `method:` and its options; name a method: "
            f"{', '.join(MAP_METHODS)}"
        )
    presets, preset = find_map_method(given["method"]).presets, given.get("preset")
    if preset is not None and preset not in presets:
        raise ValueError(
            f"{file}: {given['method']} has no preset {preset!r}{nearest(str(preset), presets)}; "
            f"allowed: {', '.join(presets)}"
        )
    options = {key: value for key, value in given.items() if key not in OWN_KEYS}
    beside = file.parent / str(options.get("weights") or "")
    if beside.is_file():
        options["weights"] = str(beside)
    return MapMethod(given["method"], merged(presets[preset] if preset else {}, options))


def _is_yaml(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _run_source(run: Path, data: Material, runtime: Runtime) -> MapSource:
    options = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    try:
        method = find_drawer(options["method"])
    except ValueError as error:
        raise ValueError(f"{run} cannot give maps: {error}, or a folder of maps") from error
    fields = method.config.__dataclass_fields__
    config = from_dict(method.config, {k: v for k, v in options.items() if k in fields})
    ready = options["method"] in READY_METHODS
    why = "" if ready else _why_anew(run, Path(options["data"]), data)
    if why:
        told = f"{options['method']} with the options of {run}, trained anew here: {why}"
        return MapSource(config=config, told=told)
    detector = read_detector(run / "final", find_drawer, runtime.device)
    if isinstance(detector, AnomalibModel) and (reason := detector.why_not(_paths(data))):
        raise ValueError(f"{run} cannot give these maps: {reason}")
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
    shared = _num_shared(seen, _paths(data))
    return f"it has seen {shared} of these images" if shared else ""


def _paths(data: Material) -> list[Path]:
    return [sample.path for sample in data.samples]


def _num_shared(first: Sequence[Path], second: Sequence[Path]) -> int:
    """How many files of the first are, byte for byte, among the second."""
    sizes = {path.stat().st_size for path in second}
    alike = [path for path in first if path.stat().st_size in sizes]
    wanted = {path.stat().st_size for path in alike}
    digests = {_digest(path) for path in second if path.stat().st_size in wanted}
    return sum(_digest(path) in digests for path in alike)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
