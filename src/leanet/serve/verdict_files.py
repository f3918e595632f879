"""The files that a watch writes, in an order that survives a kill at any moment.

    OUT/overlays/a.png        the heat map over the picture
    OUT/verdicts/a.png.json   the verdict: with this file a picture counts as judged
    OUT/errors/a.png.json     why a file could not be judged
    OUT/anomalous/a.png       the picture itself, where it is moved (also normal/ and review/)

The overlay comes first, the verdict second, the move last; the verdict says where the picture goes,
so that a watch that starts again finishes a move that was cut off. A picture is known by size, time
of change and SHA-256. Nothing is overwritten by another picture of the same name: it becomes
a-2.png, and so do its verdict and overlay.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from leanet.files import TEMPORARY, read_json, write_json

VERDICTS, OVERLAYS, ERRORS = "verdicts", "overlays", "errors"
PLACES: Final = ("normal", "anomalous", "review")
_CHUNK: Final = 1 << 20


class Stamp(NamedTuple):
    """How a file is told from another of the same name."""

    size: int
    mtime_ns: int


def stamp_of(path: Path) -> Stamp:
    """Raises OSError for a file that is gone."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)


def sha256_of(path: Path) -> str:
    """In small pieces. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def numbered(name: str, number: int) -> str:
    """The number-th name.

    >>> [numbered("in/a.png", k) for k in (1, 2)]
    ['in/a.png', 'in/a-2.png']
    """
    path = PurePosixPath(name)
    return name if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()


class VerdictFiles:
    """The files of a watch in `out`; names are places below the watched `folder`, with slashes.

    Args:
        move: pictures go to `out` when they are judged.
    """

    def __init__(self, folder: Path, out: Path, *, move: bool = False) -> None:
        self.folder, self.out, self.move = folder, out, move
        self._given: set[str] = set()  # names that are being written on
        self._taken: dict[str, int] = {}  # file -> how many names in a row have a verdict

    def verdict(self, name: str) -> Path:
        """Where the verdict of the picture `name` stands."""
        return self.out / VERDICTS / f"{name}.json"

    def overlay(self, name: str) -> str:
        """Where its overlay stands, below `out`."""
        return f"{OVERLAYS}/{name}" + ("" if name.lower().endswith(".png") else ".png")

    def settled(self, file: str, stamp: Stamp) -> bool:
        """Whether a file of the folder needs no more: it was judged, or given up, as it is now. A
        move that was cut off is finished first."""
        found = self.find(file, stamp)
        if found is None:
            error = self._read(self.out / ERRORS / f"{file}.json")
            return error is not None and _stamp(error) == stamp
        if self.move:
            self.finish(*found)
        return True

    def find(self, file: str, stamp: Stamp) -> tuple[str, dict[str, Any]] | None:
        """Name and verdict of a file of the folder as it is now; None if it has none. Raises
        OSError for a file that is gone."""
        latest = self._latest(file)
        if latest is None or _stamp(latest[1]) == stamp:
            return latest
        name, verdict = latest
        if verdict["place"] is not None or verdict["size"] != stamp.size:
            return None
        if sha256_of(self.folder / file) != verdict["sha256"]:
            return None
        verdict |= stamp._asdict()  # touched, not changed
        write_json(self.verdict(name), verdict)
        return name, verdict

    def free_name(self, file: str) -> str:
        """A name for what is about to be written on a file of the folder: its own, or with a number
        where another picture has that. A verdict on a picture that was replaced where it lies is
        replaced too."""
        latest = self._latest(file)
        if latest is not None and latest[1]["place"] is None:
            return latest[0]
        for number in count(self._taken[file] + 1):
            name = numbered(file, number)
            if name in self._given or self.verdict(name).exists():
                continue
            if not any((self.out / place / name).exists() for place in PLACES):
                self._given.add(name)
                return name
        raise AssertionError

    def commit(self, name: str, verdict: Mapping[str, Any], place: str) -> None:
        """Write a verdict (with `file`, size, mtime_ns, sha256), and move the picture to `place`
        if pictures are moved."""
        kept = {**verdict, "place": f"{place}/{name}" if self.move else None}
        write_json(self.verdict(name), kept)
        self._given.discard(name)
        (self.out / ERRORS / f"{verdict['file']}.json").unlink(missing_ok=True)
        if self.move:
            self.finish(name, kept)

    def fail(self, file: str, stamp: Stamp, reason: str, at: str) -> None:
        """Write down why a file is given up as it is now."""
        error = {"file": file, **stamp._asdict(), "error": reason, "at": at}
        write_json(self.out / ERRORS / f"{file}.json", error)

    def finish(self, name: str, verdict: dict[str, Any]) -> None:
        """Move a judged picture to its place; one that was judged before pictures were moved gets
        its place now."""
        source = self.folder / verdict["file"]
        if verdict["place"] is None:
            verdict["place"] = f"{place_of(verdict)}/{name}"
            write_json(self.verdict(name), verdict)
        target = self.out / verdict["place"]
        while not _take(source, target, verdict):
            target = _another(target)
            verdict["place"] = target.relative_to(self.out).as_posix()
            write_json(self.verdict(name), verdict)

    def _latest(self, file: str) -> tuple[str, dict[str, Any]] | None:
        """Name and verdict of the last picture that came under that name."""
        number = self._taken.get(file, 0)
        while self.verdict(numbered(file, number + 1)).exists():
            number += 1
        self._taken[file] = number
        for k in range(number, 0, -1):
            verdict = self._read(self.verdict(numbered(file, k)))
            if verdict is not None and verdict["file"] == file:
                return numbered(file, k), verdict
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        """None for a file that is not there, or was spoiled by somebody."""
        try:
            return dict(read_json(path))
        except (FileNotFoundError, ValueError):
            return None


def place_of(verdict: Mapping[str, Any]) -> str:
    """The folder for a judged picture: `review` where a person should look, else the verdict."""
    return "review" if verdict["review"] else str(verdict["verdict"])


def _stamp(known: Mapping[str, Any]) -> Stamp:
    return Stamp(known["size"], known["mtime_ns"])


def _another(target: Path) -> Path:
    for number in count(2):
        other = target.with_name(numbered(target.name, number))
        if not other.exists():
            return other
    raise AssertionError


def _take(source: Path, target: Path, verdict: Mapping[str, Any]) -> bool:
    """Move a file without overwriting; False where another picture has the place.

    The target stands, complete, before the source goes: after a kill between the two both are
    there, and the next call finds that out. A source that was replaced meanwhile is left.
    """
    if not source.exists():
        return True  # moved before, or taken away by somebody else
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if not (target.samefile(source) or _is(target, verdict)):
            return False
    else:
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            _copy(source, target)
    if not _is(target, verdict):  # the source was replaced just before
        target.unlink()
    elif stamp_of(source) == _stamp(verdict):
        source.unlink()
    return True


def _is(path: Path, verdict: Mapping[str, Any]) -> bool:
    """Whether a file is the picture that was judged."""
    return bool(path.stat().st_size == verdict["size"] and sha256_of(path) == verdict["sha256"])


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}{TEMPORARY}")
    shutil.copy2(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(target)
