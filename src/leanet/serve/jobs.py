"""What is going on with a retraining, and how it is kept over the death of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from leanet.files import read_json, write_json

State = Literal["idle", "running", "finished", "failed", "cancelled"]
MOST_STARTS: Final = 5  # of one job: what never ends is not started for ever


class Job(NamedTuple):
    """A retraining. name: of the model it makes, "" when idle; times UTC, ISO 8601, "" if not yet;
    share: done, in [0, 1]; line: what it says now; log: its last lines; error: why it failed;
    num_new, num_changed: labels of new images, and of the run's own that changed; folds: of its
    cross-validation; notices: labels that were left out."""

    name: str = ""
    state: State = "idle"
    who: str = ""
    started: str = ""
    ended: str = ""
    share: float = 0.0
    line: str = ""
    log: tuple[str, ...] = ()
    error: str = ""
    num_new: int = 0
    num_changed: int = 0
    folds: int = 0
    notices: tuple[str, ...] = ()


class Plan(NamedTuple):
    """A job as `job.json` holds it, how often its process was started, and the process group."""

    job: Job
    starts: int = 0
    group: int = 0


def read_plan(path: Path) -> Plan:
    """The last job, or an idle one."""
    if not path.exists():
        return Plan(Job())
    stored: dict[str, Any] = read_json(path)
    job = Job(**{**stored["job"], "notices": tuple(stored["job"]["notices"]), "log": ()})
    return Plan(job, stored["starts"], stored["group"])


def write_plan(path: Path, plan: Plan) -> None:
    """Replace the last job, atomically; what its log says is not kept."""
    job = plan.job._replace(share=0.0, line="", log=())
    write_json(path, {"job": job._asdict(), "starts": plan.starts, "group": plan.group})
