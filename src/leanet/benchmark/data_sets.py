"""The data sets of a suite: found on disk, or drawn into the folder of the benchmark."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from leanet.config import option, to_dict
from leanet.data.defects import KINDS
from leanet.data.toy import make_toy
from leanet.files import read_json, write_json

GENERATED = "generated"


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What `leanet.data.toy.make_toy` is to draw."""

    surface: str = option("leaf", "leaf or textile")
    num_normal: int = option(100, "normal pictures")
    num_anomalous: int = option(20, "pictures with a defect, the kinds in turn")
    size: int = option(96, "side in pixels")
    severity: tuple[float, float] = option((8.0, 16.0), "lowest and highest mean CIEDE2000")
    nuisance: float = option(1.0, "mean number of harmless marks, relative to the usual one")
    kinds: tuple[str, ...] = option(tuple(KINDS), "kinds of defects")
    seed: int = option(0, "same seed, same pictures")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set of a suite; `source` says where one gets it.

    Of a `generated` one, `path` is below the folder of the benchmark. `unseen`: each fold leaves
    out a kind of defect in training and tests on it alone.
    """

    name: str
    path: Path
    positives: int | None = None
    normal: str | None = None
    source: str = ""
    generated: Generated | None = None
    unseen: bool = False

    def same_images(self, other: DataSet) -> bool:
        """Whether both hold the same images with the same labels."""
        ours, theirs = (
            dataclasses.replace(data, name="", source="", unseen=False) for data in (self, other)
        )
        return ours == theirs


def folder_of(data: DataSet, out: Path) -> Path:
    """Where the images of a data set are; a generated one is drawn at the first call.

    Raises:
        ValueError: it cannot be drawn, or was drawn with other options.
    """
    if data.generated is None:
        return data.path
    folder = out / data.path
    facts = folder.with_name(f"{folder.name}.json")
    wanted = to_dict(data.generated)
    if not folder.exists():
        begun = folder.with_name(f"{folder.name}.begun")  # a kill may leave it unfinished
        shutil.rmtree(begun, ignore_errors=True)
        make_toy(begun, **dataclasses.asdict(data.generated))
        write_json(facts, wanted)
        begun.rename(folder)
    if (before := read_json(facts)) != wanted:
        changed = [
            f"{k} {before.get(k)!r} -> {wanted[k]!r}" for k in wanted if before.get(k) != wanted[k]
        ]
        raise ValueError(
            f"{folder} was drawn with other options ({'; '.join(changed)}); give the data set "
            "another name, another --out, or --overwrite to start anew"
        )
    return folder
