"""Opening a run folder: what becomes of an earlier run there, and what is written first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import yaml

from leanet.config import to_dict, to_yaml
from leanet.files import sweep, write_text

CONFIG = "config.yaml"
Earlier = Literal["refuse", "resume", "overwrite"]


def open_run(out: Path, method: str, data: Path, configs: tuple[Any, ...], earlier: str) -> None:
    """Create a run folder with its `config.yaml`, or check that the one that is there may be used.

    `configs` are the records of options. To "resume", an earlier run must have the same; what a
    kill left half-written is swept away.

    Raises:
        ValueError: an earlier run that is to be refused or had other options, a folder that holds
            something else.
    """
    file = out / CONFIG
    if file.exists() and earlier == "refuse":
        raise ValueError(
            f"{out} holds an earlier run; use --resume to go on with it, --overwrite to start "
            "anew, or another --out"
        )
    if file.exists() and earlier == "resume":
        now = {"method": method, "data": str(data)}
        for config in configs:
            now |= to_dict(config)
        _require_equal(yaml.safe_load(file.read_text(encoding="utf-8")), now, out)
        sweep(out)
        return
    if out.exists() and any(out.iterdir()):
        if not file.exists():
            raise ValueError(f"{out} exists and is no run folder of leanet; give another --out")
        shutil.rmtree(out)
    text = f"# leanet fit {method}\nmethod: {method}\ndata: {data}\n"
    write_text(file, text + "".join(map(to_yaml, configs)))


def _require_equal(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        listed = "; ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in differing)
        raise ValueError(
            f"{out} was begun with other options ({listed}); --resume needs the same ones"
        )
