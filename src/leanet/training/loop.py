"""The training loop: one screen, for every method that minimises one loss.

An epoch trains on shuffled batches, measures the held-out part, writes one journal line, and now
and then a checkpoint. Everything random in an epoch is a function of (seed, name, epoch) or is
stored in the checkpoint, so a run that was killed and resumed ends, on the CPU, with the very same
weights and metrics as one that was not.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leanet.data.loader import Balance, Source, epoch_order
from leanet.progress import Progress
from leanet.records import Batch
from leanet.runtime import Runtime
from leanet.training import checkpoint, journal

Loss = Callable[[nn.Module, Batch], dict[str, Tensor]]  # {"loss": to minimise, other: to report}
Validate = Callable[[nn.Module], dict[str, float]]
LrSchedule = Literal["constant", "cosine", "warmup"]
StepSchedule = Literal["constant", "warmup_cosine"]
WARMUP = 0.05  # of the epochs, at least one, in which "warmup" rises before it falls as "cosine"
STEP_WARMUP, STEP_FLOOR = 0.1, 0.1  # of "warmup_cosine": share of the steps; lowest rate / lr
CHECKPOINT, JOURNAL = "checkpoint.safetensors", "journal.jsonl"
SECONDS_BETWEEN_CHECKPOINTS = 20.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast and when to stop.

    monitor names a journal entry; a name that ends in "loss" is to be low, any other high. The
    weights of its best epoch are kept; "" keeps the last ones. patience is the number of epochs
    without a better value after which training stops; 0 = never. "warmup_cosine" changes the rate
    from step to step, all others from epoch to epoch. norm_batches: batches from which the
    BatchNorms take their statistics anew where an epoch is measured and after the last one; 0 keeps
    the running averages of the training (`settle_norms`).
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    amsgrad: bool = False
    lr_schedule: LrSchedule | StepSchedule = "constant"
    patience: int = 0
    monitor: str = ""
    stop_at: int | None = None  # end after so many epochs, with the learning rates of all `epochs`
    balance: Balance = "none"
    max_steps: int = 0  # end after so many steps, maybe within an epoch; 0 = no limit
    drop_last: bool = False  # leave out the last batch of an epoch if it is smaller
    norm_batches: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.lr > 0:
            raise ValueError(
                f"epochs {self.epochs}, batch_size {self.batch_size}, lr {self.lr}: give at least "
                "1 epoch, 2 images per batch (batch norm compares them) and a positive lr"
            )
        if self.max_steps < 0:
            raise ValueError(f"max_steps {self.max_steps}: give at least 1, or 0 for no limit")
        if self.norm_batches < 0:
            raise ValueError(f"norm_batches {self.norm_batches}: give 0 or more")


@dataclass
class Progression:
    """What the loop knows after an epoch; stored in the checkpoint."""

    epoch: int = 0
    best: float = math.inf  # of the monitored quantity, negated if it is to be high
    best_epoch: int = -1
    finished: bool = False
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    rng: Tensor | None = None  # state of torch's global stream, when resumed


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: what is minimised, on what, for how long.

    name labels the progress bar and seeds the order of the samples; files (of all samples) serve
    the message of a lost loss; param_groups may give groups of parameters an own `lr_mult`.
    """

    name: str
    network: nn.Module
    loss: Loss
    source: Source
    schedule: Schedule
    validate: Validate | None = None
    files: Sequence[Path] = ()
    param_groups: tuple[dict[str, Any], ...] = ()
    methods: tuple[str, ...] = ()  # of the network that the loss calls beside forward


class LossNotFiniteError(ValueError):
    """The loss became NaN or infinite."""


def fit(job: Job, runtime: Runtime, folder: Path) -> list[journal.Record]:
    """Train `job.network` in place; its weights end as those of the best epoch.

    Goes on from the checkpoint in `folder` if there is one. Returns the journal.

    Raises:
        LossNotFiniteError: says epoch, batch and files.
    """
    network, schedule = job.network, job.schedule
    network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(job)
    state = _resume(network, optimizer, folder)
    records = journal.rewind(folder / JOURNAL, state.epoch)
    wrapped, wrapped_optimizer = runtime.fabric.setup(network, optimizer)
    for method in job.methods:
        wrapped.mark_forward_method(method)
    saved, last = time.monotonic(), num_epochs(schedule, job.source)
    with runtime.seeded(job.name, "training"), Progress(job.name, total=last) as bar:
        if state.rng is not None:
            torch.set_rng_state(state.rng)
        bar.skip_to(state.epoch)
        while not state.finished:
            started = time.monotonic()
            rates = lr_factors(schedule, job.source, state.epoch)
            record: journal.Record = {
                "epoch": state.epoch,
                "lr": optimizer.param_groups[0]["base_lr"] * rates[0],
            }
            record |= _train_epoch(
                job, wrapped, wrapped_optimizer, runtime, rates, epoch=state.epoch
            )
            if job.validate is not None or state.epoch + 1 == last:
                settle_norms(job, wrapped, runtime, epoch=state.epoch)
            if job.validate is not None:
                record |= job.validate(wrapped)
            _advance(state, record, schedule, network)
            state.finished |= state.epoch >= last
            records.append(record | {"seconds": round(time.monotonic() - started, 3)})
            journal.append(folder / JOURNAL, records[-1])
            if state.finished or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                _save(network, optimizer, state, folder)
                saved = time.monotonic()
            bar.advance(note=f"loss {record['train_loss']:.4f}")
    if state.best_weights:
        network.load_state_dict(state.best_weights)
    return records


def best_epoch(records: Sequence[journal.Record], monitor: str) -> int:
    """The epoch whose weights `fit` kept, counted from 0."""
    if not monitor:
        return len(records) - 1
    sign = 1 if monitor.endswith("loss") else -1
    return min(range(len(records)), key=lambda epoch: sign * records[epoch][monitor])


def forget(folder: Path) -> None:
    """Remove the checkpoint of a training whose result is stored elsewhere by now."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def make_optimizer(job: Job) -> torch.optim.Optimizer:
    """AdamW, which is Adam where weight_decay is 0."""
    groups = [dict(group) for group in job.param_groups or ({"params": job.network.parameters()},)]
    for group in groups:
        group["base_lr"] = group["lr"] = job.schedule.lr * group.pop("lr_mult", 1.0)
    return torch.optim.AdamW(
        groups,
        job.schedule.lr,
        weight_decay=job.schedule.weight_decay,
        amsgrad=job.schedule.amsgrad,
        fused=True,
    )


def num_epochs(schedule: Schedule, source: Source) -> int:
    """Epochs of a training; the last one may be cut short by `max_steps`."""
    wanted = schedule.stop_at or schedule.epochs
    if not schedule.max_steps:
        return wanted
    return min(wanted, math.ceil(schedule.max_steps / _steps(schedule, source)))


def batches(schedule: Schedule, source: Source, generator: torch.Generator) -> list[list[int]]:
    """The batches of one whole epoch."""
    size = schedule.batch_size
    order = epoch_order(source, size, generator, schedule.balance)
    whole = [batch[:size] for batch in order if len(batch) >= size]
    return whole if schedule.drop_last and whole else order


def lr_factors(schedule: Schedule, source: Source, epoch: int) -> list[float]:
    """The learning rate of each step of an epoch as a share of the highest; there are no more
    steps than `max_steps` leaves."""
    steps = _steps(schedule, source)
    all_steps = schedule.epochs * steps
    if schedule.max_steps:
        all_steps = min(all_steps, schedule.max_steps)
    taken = range(epoch * steps, min((epoch + 1) * steps, all_steps))
    if schedule.lr_schedule == "warmup_cosine":
        return [step_factor(step, all_steps) for step in taken]
    return [lr_factor(schedule, epoch)] * len(taken)


def step_factor(step: int, steps: int) -> float:
    """The rate of "warmup_cosine": it rises in a line from a tenth of the highest in the first
    tenth of the steps and falls as a cosine back to it.

    >>> [round(step_factor(step, 20), 2) for step in (0, 1, 2, 11, 20)]
    [0.1, 0.55, 1.0, 0.55, 0.1]
    """
    rising = round(STEP_WARMUP * steps)
    if step < rising:
        part = step / rising
    else:
        part = 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
    return STEP_FLOOR + (1 - STEP_FLOOR) * part


def _steps(schedule: Schedule, source: Source) -> int:
    """Of a whole epoch."""
    return len(batches(schedule, source, torch.Generator()))


def lr_factor(schedule: Schedule, epoch: int) -> float:
    """The learning rate of an epoch as a share of the first.

    >>> lr_factor(Schedule(epochs=2, batch_size=2, lr=1.0, lr_schedule="cosine"), 1)
    0.5
    """
    if schedule.lr_schedule == "constant":
        return 1.0
    rising = math.ceil(WARMUP * schedule.epochs) if schedule.lr_schedule == "warmup" else 0
    if epoch < rising:
        return (epoch + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (epoch - rising) / max(schedule.epochs - rising, 1)))


@torch.no_grad()
def settle_norms(job: Job, network: nn.Module, runtime: Runtime, *, epoch: int) -> None:
    """Give the BatchNorms means and variances of the network as it is now: averages over the first
    `norm_batches` batches of an epoch, seen as in training but for the balance: every image once.

    Running averages lag some ten steps behind the weights, as long as a whole training on few
    images ("precise" statistics, Wu & Johnson 2021, arXiv:2105.07576), and where batches are filled
    up with the same few anomalous images, the averages are those of a set that nobody will see.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms or not job.schedule.norm_batches:
        return
    momenta = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
    generator = runtime.generator(job.name, "norms", epoch)
    each_once = dataclasses.replace(job.schedule, balance="none")
    with runtime.seeded(job.name, "norms", epoch):  # the training goes on as if nothing had been
        for indices in batches(each_once, job.source, generator)[: job.schedule.norm_batches]:
            job.loss(network, job.source.batch(indices))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def mean_losses(
    network: nn.Module, loss: Loss, source: Source, batch_size: int, prefix: str = "val_"
) -> dict[str, float]:
    """Means over all samples of what `loss` gives, in evaluation mode."""
    network.eval()
    sums: dict[str, float] = {}
    for indices, batch in source.ordered(batch_size):
        for key, value in loss(network, batch).items():
            sums[prefix + key] = sums.get(prefix + key, 0.0) + float(value) * len(indices)
    return {key: total / len(source.indices) for key, total in sums.items()}


def _train_epoch(
    job: Job,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    runtime: Runtime,
    rates: list[float],
    *,
    epoch: int,
) -> dict[str, float]:
    """As many steps as there are rates; the means of what the loss gave."""
    network.train()
    generator = runtime.generator(job.name, "order", epoch)
    order = batches(job.schedule, job.source, generator)[: len(rates)]
    values: dict[str, list[Tensor]] = {}
    for indices, rate in zip(order, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        losses = job.loss(network, job.source.batch(indices))
        optimizer.zero_grad(set_to_none=True)
        runtime.fabric.backward(losses["loss"])
        optimizer.step()
        for key, value in losses.items():
            values.setdefault(f"train_{key}", []).append(value.detach())
    stacked = {key: torch.stack(steps).float() for key, steps in values.items()}
    _require_finite(stacked["train_loss"], order, job.files, epoch)
    return {key: float(steps.mean()) for key, steps in stacked.items()}


def _require_finite(
    steps: Tensor, order: list[list[int]], files: Sequence[Path], epoch: int
) -> None:
    lost = (~torch.isfinite(steps)).nonzero()
    if len(lost):
        first = int(lost[0])
        names = ", ".join(str(files[i]) for i in order[first]) if files else str(order[first])
        raise LossNotFiniteError(
            f"the loss became {float(steps[first])} in epoch {epoch + 1}, batch {first + 1} of "
            f"{len(order)} ({names}); try a lower --lr or --precision 32-true"
        )


def _advance(
    state: Progression, record: journal.Record, schedule: Schedule, network: nn.Module
) -> None:
    """Note the epoch: best weights, early stop."""
    if schedule.monitor:
        if schedule.monitor not in record:
            known = ", ".join(key for key in record if isinstance(record[key], float))
            raise ValueError(f"monitor {schedule.monitor!r} is not measured; allowed: {known}")
        value = record[schedule.monitor]
        if not math.isfinite(value):
            raise LossNotFiniteError(
                f"{schedule.monitor} became {value} in epoch {state.epoch + 1}; "
                "try a lower --lr or --precision 32-true"
            )
        value = value if schedule.monitor.endswith("loss") else -value
        if value < state.best:
            state.best, state.best_epoch = value, state.epoch
            state.best_weights = copy.deepcopy(network.state_dict())
    waited = state.epoch - state.best_epoch
    state.epoch += 1
    out_of_patience = bool(schedule.monitor and schedule.patience and waited >= schedule.patience)
    state.finished = out_of_patience


def _save(
    network: nn.Module, optimizer: torch.optim.Optimizer, state: Progression, folder: Path
) -> None:
    tensors = {
        **checkpoint.under("network", network.state_dict()),
        **checkpoint.under("optimizer", checkpoint.optimizer_tensors(optimizer)),
        **checkpoint.under("best", state.best_weights),
        "rng": torch.get_rng_state(),
    }
    metadata = {
        "epoch": state.epoch,
        "best": state.best,
        "best_epoch": state.best_epoch,
        "finished": state.finished,
    }
    checkpoint.save(folder / CHECKPOINT, tensors, metadata)


def _resume(network: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Progression:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    if not path.exists():
        return Progression()
    tensors, metadata = checkpoint.load(path)
    network.load_state_dict(checkpoint.below("network", tensors))
    checkpoint.load_optimizer(optimizer, checkpoint.below("optimizer", tensors))
    best_weights = checkpoint.below("best", tensors)
    return Progression(**metadata, best_weights=best_weights, rng=tensors["rng"])
