"""How far a training is, told from its run folder and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from leanet.files import read_json_lines
from leanet.run_folder import CONFIG

TAIL: Final = 20  # lines of a log to show
MOST_BYTES: Final = 20_000  # of the end of a log to read
_METRICS, _JOURNAL, _FINAL = "metrics.json", "journal.jsonl", "final"


def share_done(run: Path) -> float:
    """The share of the work that is done, in [0, 1]: folds and the final training count alike, and
    within one of them its epochs, as if none stopped early."""
    try:
        config: dict[str, Any] = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0.0
    folds = int(config["folds"])
    stages = [*(f"fold-{k}" for k in range(folds)), _FINAL]
    return sum(_stage(run / name, int(config.get("epochs") or 1)) for name in stages) / len(stages)


def tail(log: Path) -> list[str]:
    """The last lines of a log, [] without one."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - MOST_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()][-TAIL:]


def mistake(log: Path) -> str:
    """What a failed training said last: the message of leanet, or the last line."""
    lines = tail(log)
    starts = [k for k, line in enumerate(lines) if line.startswith("leanet: ")]
    if starts:
        return "\n".join(lines[starts[-1] :]).removeprefix("leanet: ")
    return lines[-1] if lines else "the training ended without a word"


def _stage(folder: Path, epochs: int) -> float:
    if (folder / _METRICS).exists():
        return 1.0
    done = len(read_json_lines(folder / _JOURNAL))
    return min(done / max(epochs, 1), 0.95)  # testing takes its time as well
