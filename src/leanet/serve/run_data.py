"""The images that a run was trained on: where they lie, and what the run says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leanet.data.scan import read_samples_csv
from leanet.records import Sample
from leanet.run_folder import CONFIG


class RunData(NamedTuple):
    """A run's samples, `root` of the relative paths in its tables, the folder `base` that the run
    was started in (as far as its data tell), and its configuration."""

    samples: tuple[Sample, ...]
    root: Path
    base: Path
    config: dict[str, Any]


def run_data(run: Path) -> RunData:
    """The samples of a run, where they lie today.

    A relative data path is tried from the working folder and from the folders above the run.

    Raises:
        ValueError: the images are not there any more.
    """
    config = dict(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")))
    data = Path(str(config["data"])).expanduser()
    tried = [Path.cwd(), *run.resolve().parents]
    for base in tried[:1] if data.is_absolute() else tried:
        place = base / data
        root = place if place.is_dir() else place.parent
        samples = read_samples_csv(run / "samples.csv", root)
        if place.exists() and samples and samples[0].path.is_file():
            return RunData(samples, root, base, config)
    raise ValueError(
        f"the images that {run} was trained on are needed and are not at {data} any more; put them "
        "back there, or start from the folder in which `leanet fit` was called"
    )
