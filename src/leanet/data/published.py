"""Published data sets in their own file formats, made into folders that `scan` recognizes.

Nothing is downloaded and no archive is extracted. A data set appears under its name when it is
complete, so that a kill leaves nothing behind that could be taken for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from leanet.config import UsageError, nearest
from leanet.data.fundus import unpack_lag
from leanet.data.medical import KINDS, unpack_medical
from leanet.data.surveillance import EVERY, unpack_shanghaitech
from leanet.data.thumbnails import CLOTHES, DIGITS, unpack_cifar10, unpack_idx
from leanet.files import TEMPORARY, write_json

SETS: Final = {
    "mnist": "the four IDX files, plain or gzipped",
    "fashion_mnist": "the four IDX files, plain or gzipped",
    "cifar10": "data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt",
    "shanghaitech": "training/frames, testing/frames, testing/test_pixel_mask or test_frame_mask",
    "lag": "non_glaucoma and suspicious_glaucoma, each with image and attention_map",
    "brain_mri": "no and yes",
    "busi": "normal, benign and malignant, masks beside the images",
    "covid19": "train and test, each with NORMAL and PNEUMONIA",
    "sipakmed": "im_Parabasal and four more, each with CROPPED",
}
MARK: Final = "unpacked.json"  # says that a folder was made here, and from what
Tell = Callable[[str], None]


def unpack(
    what: str, source: Path, out: Path, *, every: int | None, overwrite: bool, tell: Tell
) -> Path:
    """One of `SETS` from its files in the folder `source` to the new folder `out`; returns `out`.

    `every`: of shanghaitech, take one frame in so many (default: 5).

    Raises:
        ValueError: an unknown set, a source that is not it or is damaged, or `out` is in use.
    """
    if what not in SETS:
        raise UsageError(
            f"unknown data set {what!r}{nearest(what, SETS)}; known: {', '.join(SETS)}"
        )
    if every is not None and what != "shanghaitech":
        raise UsageError(f"--every chooses frames of shanghaitech; {what} has none, leave it out")
    if not source.is_dir():
        kind = "is a file" if source.exists() else "does not exist"
        raise ValueError(
            f"{source} {kind}; give the folder with the extracted files of {what}: {SETS[what]}"
        )
    _require_free(out, overwrite=overwrite)
    temporary = out.resolve().with_name(f".{out.resolve().name}{TEMPORARY}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a call that was killed
    try:
        _unpackers(every, tell)[what](source, temporary)
        write_json(temporary / MARK, {"set": what, "source": str(source), "every": every})
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _unpackers(every: int | None, tell: Tell) -> dict[str, Callable[[Path, Path], None]]:
    return {
        "mnist": lambda source, out: unpack_idx(source, out, DIGITS),
        "fashion_mnist": lambda source, out: unpack_idx(source, out, CLOTHES),
        "cifar10": unpack_cifar10,
        "shanghaitech": lambda source, out: unpack_shanghaitech(
            source, out, EVERY if every is None else every, tell
        ),
        "lag": lambda source, out: unpack_lag(source, out, tell),
        **{name: partial(unpack_medical, name, tell=tell) for name in KINDS},
    }


def _require_free(out: Path, *, overwrite: bool) -> None:
    """Only what was made here is ever replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARK).exists():
        raise ValueError(f"{out} holds other files; give another --out")
    if not overwrite:
        raise ValueError(
            f"{out} holds a data set already; use --overwrite to replace it, or another --out"
        )
