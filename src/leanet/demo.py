"""The demo: the main job on pictures that it makes itself, in minutes on two cores.

Cloth with a few colored defects; LEA-Net and the plain classifier, trained on the same folds with
the same seeds; one page that shows both. Nothing is downloaded.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leanet import api
from leanet.data.toy import make_toy
from leanet.report.tables import compare, paired_text, summarize, to_text

TOY: dict[str, Any] = {
    "surface": "textile",
    "kinds": ("spot", "stain", "fade"),
    "num_normal": 105,
    "num_anomalous": 9,
    "size": 96,
}
COMMON: dict[str, Any] = {"folds": 3, "img_size": 64, "seed": 0, "epochs": 25}
LEANET: dict[str, Any] = {"map_model": {"epochs": 60, "base": 16}}
FOLDERS = {"data", "leanet", "classifier"}


def demo(
    out: str | Path = "runs/demo",
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = print,
) -> Path:
    """Make the data, train both methods, write the report; returns its path.

    Raises:
        ValueError: `out` holds something already and `overwrite` is not set, or something else
            than an earlier demo.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise ValueError(f"{out} is not empty; use --overwrite or another --out")
        if not {entry.name for entry in out.iterdir()} <= FOLDERS:
            raise ValueError(f"{out} holds more than an earlier demo; give another --out")
        shutil.rmtree(out)
    started = time.monotonic()
    data = make_toy(out / "data", **TOY)
    tell(
        f"made {TOY['num_normal']} good and {TOY['num_anomalous']} bad pictures of cloth in "
        f"{data}\n"
    )
    tell(api.scan(data))
    tell("\n1/2 LEA-Net: a map of unusual colors steers the classifier")
    lea = api.fit("leanet", data, out / "leanet", tell=tell, **COMMON, **LEANET)
    tell("\n2/2 the plain classifier, same folds, same seeds")
    plain = api.fit("classifier", data, out / "classifier", tell=tell, **COMMON)
    page = api.report(lea, baseline=plain)
    tell(f"\n{to_text(summarize(lea))}")
    tell(f"\nagainst the plain classifier:\n{paired_text(compare(lea, plain))}")
    tell(f"\n{time.monotonic() - started:.0f} seconds")
    return page
