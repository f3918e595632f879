"""Train the run of a server anew with the labels that people have given since, as a job.

The data set is a table below `state/models` (`leanet.serve.training_set`), the configuration that
of the run, and the training `leanet fit` as a process of its own. `job.json` says what is going
on: a server that is killed finds there what to go on with, and `fit --resume` ends with the same
result. One job at a time.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

import yaml

from leanet.files import write_text
from leanet.prepare import FINAL
from leanet.run_folder import CONFIG
from leanet.serve import training_process, training_progress
from leanet.serve.carried import carry_point
from leanet.serve.entries import UnknownImageError, clean, now
from leanet.serve.jobs import MOST_STARTS, Job, Plan, State, read_plan, write_plan
from leanet.serve.kept import digest
from leanet.serve.run_data import run_data
from leanet.serve.settings import Settings
from leanet.serve.side_by_side import side_by_side
from leanet.serve.store import Store
from leanet.serve.training_set import Classes, TrainingSet, merge, options_for, write_table
from leanet.serve.versions import MODELS, ORIGINAL, Versions, lock_of
from leanet.trained import CARD, read_card

SECONDS_BETWEEN_LOOKS: Final = 0.2
WEIGHTS: Final = "weights.safetensors"


class Retraining:
    """Makes new versions of the run of a server. Any thread may call any method."""

    def __init__(self, store: Store, versions: Versions, settings: Settings) -> None:
        self.store, self.versions, self.settings = store, versions, settings
        self.folder = settings.state / MODELS
        self._file = settings.state / "job.json"
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()  # the server stops, or the job is cancelled

    def start(self, who: str) -> Job:
        """Begin to train with the labels as they stand.

        Raises:
            ValueError: a training is going on, nothing new is labeled, the images of the run are
                gone, or nobody is named.
        """
        who = clean("who", who)
        if not who:
            raise ValueError("a retraining needs to say who started it; give a name")
        with self._lock:
            if self.status().state == "running":
                raise ValueError("a training is going on; wait for its end, or cancel it")
            name, made = self._next_name(), self._training_set()
            if not made.num_new + made.num_changed:
                left = "; ".join(("", *made.notices))
                raise ValueError(f"no label says anything new; label some pictures first{left}")
            folds = self._write_plan(name, made)
            job = Job(
                name=name,
                state="running",
                who=who,
                started=now(),
                num_new=made.num_new,
                num_changed=made.num_changed,
                folds=folds,
                notices=made.notices,
            )
            write_plan(self._file, Plan(job))
            self._watch()
            return self.status()

    def go_on(self) -> Job:
        """When a server starts: go on with what a stop or a kill has left unfinished, if anything,
        and forget what the run said before it was trained anew by hand."""
        weights = self.versions.run / FINAL / WEIGHTS
        if weights.exists():
            self.store.bind(ORIGINAL, digest(weights))
        with self._lock:
            if read_plan(self._file).job.state == "running" and self._thread is None:
                self._watch()
            return self.status()

    def status(self) -> Job:
        """The job that runs, or the last one, or an idle one."""
        job = read_plan(self._file).job
        if job.state == "idle":
            return job
        log = tuple(training_progress.tail(self._path(job.name, "log")))
        share = 1.0 if job.state == "finished" else 0.0
        if job.state == "running":
            share = training_progress.share_done(self.folder / job.name)
        line = log[-1] if log else "starting"
        return job._replace(share=share, line=line, log=log)

    def cancel(self) -> Job:
        """End the job that runs and remove what it has trained; labels stay.

        Raises:
            ValueError: nothing is going on.
        """
        with self._lock:
            if read_plan(self._file).job.state != "running":
                raise ValueError("no training is going on")
            self._end()
            job = read_plan(self._file).job
            if job.state == "running":  # it may have come to its end just now
                self._conclude(job, "cancelled", "")
            return self.status()

    def close(self) -> None:
        """Stop the training, for the next start of the server to go on with."""
        with self._lock:
            self._end()

    def wait(self, seconds: float | None = None) -> Job:
        """Wait for the end of the job."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return self.status()

    def comparison(self, old: str, new: str) -> dict[str, Any]:
        """Two models on the same images, each scored by a model that has not seen it: see
        `leanet.serve.side_by_side`.

        Raises:
            ValueError: an unknown model, one that is not finished, or images that are gone.
        """
        return side_by_side(self.store, self.versions, old, new, device=self.settings.device)

    def _training_set(self) -> TrainingSet:
        run, data = self.versions.run, run_data(self.versions.run)
        missing = [sample.path for sample in data.samples if not sample.path.is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} images that {run} was trained on are gone, e.g. {missing[0]}; "
                "put them back"
            )
        names = [digest(sample.path) for sample in data.samples]
        return merge(data.samples, names, self.store.labels(), self._file_of, self._classes())

    def _classes(self) -> Classes:
        card = read_card(self.versions.run)
        return Classes(tuple(card.get("classes") or ()), card.get("normal"))

    def _file_of(self, image: str) -> Path | None:
        try:
            path = self.store.get(image).path
        except UnknownImageError:
            return None
        return path if path.is_file() else None

    def _write_plan(self, name: str, made: TrainingSet) -> int:
        """Table and configuration of a training; returns the number of folds."""
        config = run_data(self.versions.run).config
        options = options_for(config, made.samples, self._classes())
        write_table(self._path(name, "csv"), made.samples)
        write_text(self._path(name, "yaml"), yaml.safe_dump(options, sort_keys=False))
        return int(options["folds"])

    def _next_name(self) -> str:
        taken = [int(p.stem) for p in self.folder.glob("*") if p.stem.isdecimal()]
        return f"{max(taken, default=0) + 1:03d}"

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}.{suffix}"

    def _watch(self) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._work, name="retraining", daemon=True)
        self._thread.start()

    def _end(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        plan = read_plan(self._file)  # of a server that was killed, if nobody has gone on with it
        training_process.stop(plan.group, lock_of(self.folder, plan.job.name))

    def _work(self) -> None:
        """In a thread: see the job through, or stop it when told to."""
        plan = read_plan(self._file)
        job = plan.job
        try:
            error = self._train(plan)
            if self._finished(job.name) and not error:
                job = self._with_working_point(job)
        except Exception as problem:  # whatever it is, the page has to say it
            error = f"{problem} ({type(problem).__name__})"
        stopped = self._ending.is_set() and not self._finished(job.name)
        if stopped or not self._goes_on(job):
            return
        self._conclude(job, "failed" if error else "finished", error)

    def _with_working_point(self, job: Job) -> Job:
        """Ask of the new model what is asked of the one that answers now."""
        card = read_card(self.versions.run_of(self.versions.live()))
        problems = carry_point(card, self.folder / job.name)
        return job._replace(notices=(*job.notices, *problems))

    def _train(self, plan: Plan) -> str:
        """Start the training until it ends by itself, or go on with the one that runs; returns its
        mistake, "" if it made none or is to stop."""
        job, starts, group = plan
        lock, log = lock_of(self.folder, job.name), self._path(job.name, "log")
        while training_process.runs(lock) or not self._finished(job.name):
            if not self._goes_on(job):
                return ""
            process = None
            if not training_process.runs(lock):
                if starts == MOST_STARTS:
                    return f"it was killed {starts} times; see {log}"
                process, starts = self._begin(job.name), starts + 1
                group = process.pid if process else group
                write_plan(self._file, Plan(job, starts, group))
            while training_process.runs(lock) and not self._ending.wait(SECONDS_BETWEEN_LOOKS):
                pass
            if self._ending.is_set():
                training_process.stop(group, lock)
            status = process.wait() if process else 0
            if self._ending.is_set():
                return ""
            if status > 0:  # below 0: something has killed it
                return training_progress.mistake(log)
        return ""

    def _begin(self, name: str) -> subprocess.Popen[bytes] | None:
        run, method = self.folder / name, read_card(self.versions.run)["method"]
        if run.exists() and not (run / CONFIG).exists():
            shutil.rmtree(run)  # killed before it had written anything
        files = {suffix: self._path(name, suffix) for suffix in ("csv", "yaml", "log")}
        words = ["fit", str(method), str(files["csv"].absolute()), "--out", str(run.absolute())]
        words += ["--config", str(files["yaml"].absolute()), "--resume"]
        lock = lock_of(self.folder, name)
        folder = run_data(self.versions.run).base  # relative paths of weights count from there
        return training_process.start(words, log=files["log"], lock=lock, folder=folder)

    def _goes_on(self, job: Job) -> bool:
        """Whether nobody else, another server on this state, has brought it to an end."""
        now_there = read_plan(self._file).job
        return (now_there.name, now_there.state) == (job.name, "running")

    def _finished(self, name: str) -> bool:
        return (self.folder / name / CARD).exists()

    def _conclude(self, job: Job, state: State, error: str) -> None:
        if state != "finished":
            shutil.rmtree(self.folder / job.name, ignore_errors=True)
        lock_of(self.folder, job.name).unlink(missing_ok=True)
        write_plan(self._file, Plan(job._replace(state=state, ended=now(), error=error)))
