"""What the review database holds, as records: pictures, labels, events, rows of the gallery."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

Word = Literal["ok", "ng", "unsure", "none"]
WORDS: Final = ("ok", "ng", "unsure", "none")  # "none" takes a label away
MAX_WORD: Final = 200  # characters of a type of defect, a name, a source


class UnknownImageError(ValueError):
    """No picture of that name is (any longer) in the review database."""

    def __init__(self, image: str) -> None:
        super().__init__(
            f"no picture {image[:MAX_WORD]!r} in the review database; it may have made room for "
            "newer ones: load the gallery anew"
        )


class Label(NamedTuple):
    """What stands: ok, ng, unsure or none, and the type of defect (or class), "" if unknown."""

    label: str
    kind: str


class Event(NamedTuple):
    """One act of labeling: who, when (UTC, ISO 8601), what was before; `undoes`: the number of the
    event that this one takes back."""

    number: int
    image: str
    label: str
    kind: str
    who: str
    at: str
    before_label: str
    before_kind: str
    undoes: int | None


class Picture(NamedTuple):
    """A picture: its name (sha256 of the bytes), a file that holds it, and what stands of it."""

    id: str
    path: Path
    source: str
    width: int
    height: int
    added: str
    label: str
    kind: str


class Shown(NamedTuple):
    """A row of the gallery: a picture and what one model says of it (`judged` False: nothing yet,
    all of it None, "" and {}). Fields of the judgement as `leanet.serve.live.Judgement`."""

    id: str
    path: Path
    source: str
    width: int
    height: int
    added: str
    label: str
    kind: str
    judged: bool
    score: float | None
    verdict: str | None
    review: bool | None
    probability: float | None
    predicted: str
    parts: dict[str, Any]


def now() -> str:
    """The time in UTC, ISO 8601 to the millisecond; sorts as the times do."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def clean(what: str, text: str) -> str:
    """A name or a type of defect without blanks at its ends.

    Raises ValueError if it is too long or holds control characters or halves of characters, which
    not every table can hold.

    >>> clean("who", " 山田\u3000太郎 ")
    '山田\u3000太郎'
    """
    text = text.strip()
    if len(text) > MAX_WORD or any(unicodedata.category(one) in ("Cc", "Cs") for one in text):
        raise ValueError(
            f"{what} {text[:40]!r} has {len(text)} characters; allowed are {MAX_WORD} in one line, "
            "without control characters"
        )
    return text
