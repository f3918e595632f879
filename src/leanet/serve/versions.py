"""The models of a server: the run it was started with, those trained since, and which one answers.

`original` is the run itself; 001, 002, ... are the run folders below `state/models`. `live.json`
says which one answers, which ones did before it, and who changed it when; it is replaced
atomically.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

from leanet.config import nearest
from leanet.files import read_json, write_json
from leanet.serve.entries import clean, now
from leanet.trained import CARD, read_card

ORIGINAL: Final = "original"
MODELS: Final = "models"  # folder of the run folders, below the state


def lock_of(folder: Path, name: str) -> Path:
    """The file that lies beside a model for as long as it is being made."""
    return folder / f"{name}.lock"


class Change(NamedTuple):
    """Who let another model answer, and when (UTC, ISO 8601); `back`: it was rolled back."""

    who: str
    at: str
    before: str
    after: str
    back: bool


class Versions:
    """The models below the folder `state`, and the run that was given. Any thread may call."""

    def __init__(self, state: Path, run: Path) -> None:
        self.run = run
        self.folder = state / MODELS
        self._file = state / "live.json"
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All models that are finished, the oldest first."""
        made = sorted(card.parent.name for card in self.folder.glob(f"*/{CARD}"))
        return [ORIGINAL, *(name for name in made if not lock_of(self.folder, name).exists())]

    def run_of(self, name: str) -> Path:
        """The run folder of a finished model.

        Raises:
            ValueError: there is no such model, or it is not finished.
        """
        run = self.run if name == ORIGINAL else self.folder / name
        if name != ORIGINAL and name not in self.names():
            if name.isdecimal() and run.is_dir():
                raise ValueError(f"model {name} is not finished; wait for its training, or resume")
            raise ValueError(
                f"no model {name[:40]!r}{nearest(name[:40], self.names())}; there are: "
                f"{', '.join(self.names())}"
            )
        read_card(run)
        return run

    def live(self) -> str:
        """The name of the model that answers."""
        return str(self._read()["live"])

    def before(self) -> str | None:
        """The model that `roll_back` would go to."""
        earlier = self._read()["before"]
        return str(earlier[-1]) if earlier else None

    def switch(self, name: str, who: str) -> Change | None:
        """Let a model answer; None if it does already.

        Raises:
            ValueError: as `run_of`, or nobody is named.
        """
        with self._lock:
            self.run_of(name)
            state = self._read()
            if name == state["live"]:
                return None
            return self._write(state, name, who, [*state["before"], state["live"]], back=False)

    def roll_back(self, who: str) -> Change:
        """Let the model answer that did before; once more goes one further back.

        Raises:
            ValueError: there is none before, it is gone, or nobody is named.
        """
        with self._lock:
            state = self._read()
            if not state["before"]:
                raise ValueError(f"{state['live']} has answered from the start; nothing to go to")
            *earlier, name = state["before"]
            self.run_of(name)
            return self._write(state, name, who, earlier, back=True)

    def history(self) -> list[Change]:
        """All changes, the first one first."""
        return [Change(**change) for change in self._read()["history"]]

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {"live": ORIGINAL, "before": [], "history": []}
        return dict(read_json(self._file))

    def _write(
        self, state: dict[str, Any], name: str, who: str, before: list[str], *, back: bool
    ) -> Change:
        who = clean("who", who)
        if not who:
            raise ValueError("a change of the model needs to say who made it; give a name")
        change = Change(who=who, at=now(), before=state["live"], after=name, back=back)
        history = [*state["history"], change._asdict()]
        write_json(self._file, {"live": name, "before": before, "history": history})
        return change
