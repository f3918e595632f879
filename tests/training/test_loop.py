"""The loop against what it promises: schedule, best weights, early stop, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import leanet.training.loop as loop
from leanet.data.cache import Cache
from leanet.data.loader import Source, epoch_order
from leanet.records import Batch
from leanet.runtime import Runtime
from leanet.training import checkpoint, journal
from leanet.training.loop import (
    Job,
    LossNotFiniteError,
    Schedule,
    batches,
    best_epoch,
    fit,
    lr_factor,
    lr_factors,
)

NUM, SIDE = 10, 8


def source(indices: tuple[int, ...] = tuple(range(NUM))) -> Source:
    rng = np.random.default_rng(0)
    images = Cache(rng.integers(0, 256, (NUM, 3, SIDE, SIDE), np.uint8), torch.device("cpu"))
    return Source(images=images, labels=(0, 1) * (NUM // 2), indices=indices)


def network(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 4, stride=2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(72, 1),
    )


def squared(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {"loss": (net(batch.image)[:, 0] - batch.label).square().mean()}


def job(schedule: Schedule | None = None, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "name": "test",
        "network": network(),
        "loss": squared,
        "source": source(),
        "schedule": schedule or Schedule(epochs=3, batch_size=4, lr=0.01),
    }
    return Job(**(fields | changes))


def scripted(values: list[float]) -> Callable[[nn.Module], dict[str, float]]:
    """A validation that gives these values, one an epoch."""
    left = iter(values)
    return lambda net: {"val_auroc": next(left)}


class InterruptedTrainingError(RuntimeError):
    """Stands for a kill."""


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def without_seconds(records: list[journal.Record]) -> list[journal.Record]:
    return [{key: value for key, value in r.items() if key != "seconds"} for r in records]


def test_the_cosine_schedule_falls_from_one_and_is_symmetric() -> None:
    schedule = Schedule(epochs=10, batch_size=2, lr=1.0, lr_schedule="cosine")
    factors = [lr_factor(schedule, epoch) for epoch in range(11)]
    assert factors[0] == 1
    assert factors[10] == pytest.approx(0)
    assert factors == sorted(factors, reverse=True)
    for epoch in range(11):
        assert factors[epoch] + factors[10 - epoch] == pytest.approx(1)


@pytest.mark.parametrize(
    "values", [{"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}]
)
def test_an_impossible_schedule_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1 epoch, 2 images per batch"):
        Schedule(**({"epochs": 1, "batch_size": 2, "lr": 0.1} | values))


def test_the_journal_says_the_rate_of_every_epoch(runtime: Runtime, tmp_path: Path) -> None:
    schedule = Schedule(epochs=3, batch_size=4, lr=0.5, lr_schedule="cosine")
    rates = [record["lr"] for record in fit(job(schedule), runtime, tmp_path)]
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3)])


def test_an_early_end_keeps_the_rates_of_the_whole_course(runtime: Runtime, tmp_path: Path) -> None:
    whole = Schedule(epochs=6, batch_size=4, lr=0.5, lr_schedule="cosine")
    cut = Schedule(epochs=6, batch_size=4, lr=0.5, lr_schedule="cosine", stop_at=2)
    expected = fit(job(whole), runtime, tmp_path / "whole")
    got = fit(job(cut), runtime, tmp_path / "cut")
    assert len(got) == 2
    assert without_seconds(got) == without_seconds(expected[:2])


def test_steps_end_a_course_within_an_epoch_and_batches_may_be_left_out(
    runtime: Runtime, tmp_path: Path
) -> None:
    sizes: list[int] = []

    def counted(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        sizes.append(len(batch.image))
        return squared(net, batch)

    cut = Schedule(epochs=9, batch_size=4, lr=0.01, max_steps=5)
    assert len(fit(job(cut, loss=counted), runtime, tmp_path / "cut")) == 2
    assert sizes == [4, 4, 2, 4, 4]
    sizes.clear()
    whole = Schedule(epochs=2, batch_size=4, lr=0.01, drop_last=True)
    fit(job(whole, loss=counted), runtime, tmp_path / "whole")
    assert sizes == [4] * 4


def test_few_images_are_not_left_out_altogether() -> None:
    schedule = Schedule(epochs=2, batch_size=16, lr=0.01, drop_last=True)
    assert [len(batch) for batch in batches(schedule, source(), torch.Generator())] == [NUM]


def test_warmup_cosine_changes_the_rate_from_step_to_step_to_the_last_one(
    runtime: Runtime, tmp_path: Path
) -> None:
    schedule = Schedule(epochs=9, batch_size=4, lr=0.5, lr_schedule="warmup_cosine", max_steps=20)
    rates = [rate for epoch in range(7) for rate in lr_factors(schedule, source(), epoch)]
    cosine = [0.55 + 0.45 * math.cos(math.pi * step / 18) for step in range(18)]
    assert rates == pytest.approx([0.1, 0.55, *cosine])
    records = fit(job(schedule), runtime, tmp_path)
    assert [record["lr"] for record in records] == pytest.approx([r / 2 for r in rates[::3]])


def test_the_optimizer_may_remember_the_largest_second_moment(
    runtime: Runtime, tmp_path: Path
) -> None:
    schedule = Schedule(epochs=1, batch_size=4, lr=0.01, amsgrad=True)
    fit(job(schedule), runtime, tmp_path)
    stored, _ = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert {"optimizer.0.max_exp_avg_sq", "optimizer.0.exp_avg_sq"} <= set(stored)


def test_a_number_of_steps_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="max_steps -1"):
        Schedule(epochs=1, batch_size=2, lr=0.1, max_steps=-1)


def test_a_group_has_its_own_rate(runtime: Runtime, tmp_path: Path) -> None:
    net = network()
    *others, bias = net.parameters()
    before = weights(net)
    groups = ({"params": others, "lr_mult": 0.0}, {"params": [bias], "lr_mult": 2.0})
    schedule = Schedule(epochs=1, batch_size=NUM, lr=0.01)
    fit(job(schedule, network=net, param_groups=groups), runtime, tmp_path)
    assert torch.equal(before["0.weight"], net.state_dict()["0.weight"])
    step = (before["6.bias"] - net.state_dict()["6.bias"]).abs()
    torch.testing.assert_close(step, torch.tensor([0.02]), rtol=1e-3, atol=0)  # Adam's first


def linear() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 1))


def test_the_optimizer_is_adam(runtime: Runtime, tmp_path: Path) -> None:
    ours, reference = linear(), linear()
    schedule = Schedule(epochs=3, batch_size=4, lr=0.01)
    fit(job(schedule, network=ours), runtime, tmp_path)
    adam = torch.optim.Adam(reference.parameters(), lr=0.01)
    for epoch in range(3):
        for batch in epoch_order(source(), 4, runtime.generator("test", "order", epoch)):
            adam.zero_grad()
            squared(reference, source().batch(batch))["loss"].backward()  # type: ignore[no-untyped-call]
            adam.step()
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("monitor", "best"), [("val_auroc", 1), ("val_auroc_loss", 2)])
def test_the_weights_of_the_best_epoch_come_back(
    monitor: str, best: int, runtime: Runtime, tmp_path: Path
) -> None:
    values, seen = iter([0.5, 0.9, 0.2, 0.7]), []

    def validate(net: nn.Module) -> dict[str, float]:
        seen.append(weights(net.module))  # type: ignore[arg-type]
        return {monitor: next(values)}

    schedule = Schedule(epochs=4, batch_size=4, lr=0.01, monitor=monitor)
    done = job(schedule, validate=validate)
    records = fit(done, runtime, tmp_path)
    assert best_epoch(records, monitor) == best
    assert same(seen[best], done.network.state_dict())
    assert not same(seen[3], done.network.state_dict())


def test_without_a_monitor_the_last_weights_stay(runtime: Runtime, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def validate(net: nn.Module) -> dict[str, float]:
        seen.append(weights(net.module))  # type: ignore[arg-type]
        return {"val_auroc": -len(seen)}

    done = job(validate=validate)
    records = fit(done, runtime, tmp_path)
    assert best_epoch(records, "") == 2
    assert same(seen[2], done.network.state_dict())


def test_training_stops_when_patience_is_over(runtime: Runtime, tmp_path: Path) -> None:
    schedule = Schedule(epochs=9, batch_size=4, lr=0.01, monitor="val_auroc", patience=2)
    values = [0.1, 0.5, 0.4, 0.5, 0.9, 0.9]  # an equal value is no improvement
    records = fit(job(schedule, validate=scripted(values)), runtime, tmp_path)
    assert len(records) == 4


def test_an_unknown_monitor_is_refused_with_what_is_measured(
    runtime: Runtime, tmp_path: Path
) -> None:
    schedule = Schedule(epochs=2, batch_size=4, lr=0.01, monitor="val_lost")
    with pytest.raises(ValueError, match=r"'val_lost' is not measured.*train_loss, val_auroc"):
        fit(job(schedule, validate=scripted([0.5])), runtime, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_lost_loss_names_epoch_batch_and_files(
    value: float, runtime: Runtime, tmp_path: Path
) -> None:
    files = [Path(f"{k}.png") for k in range(NUM)]
    calls: list[tuple[Tensor, ...]] = []

    def loss(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append((batch.image,))
        factor = value if len(calls) == 5 else 1.0  # batch 2 of epoch 2
        return {"loss": squared(net, batch)["loss"] * factor}

    with pytest.raises(LossNotFiniteError, match=r"epoch 2.*batch 2 of 3") as caught:
        fit(job(loss=loss, files=files), runtime, tmp_path)
    order = epoch_order(source(), 4, runtime.generator("test", "order", 1))
    assert ", ".join(f"{k}.png" for k in order[1]) in str(caught.value)
    assert "lr" in str(caught.value)


def test_mean_losses_are_means_over_samples_in_evaluation_mode() -> None:
    net = network(dropout=0.9)
    got = loop.mean_losses(net, squared, source((0, 3, 4, 7, 9)), batch_size=2)
    net.eval()
    with torch.no_grad():
        each = [float(squared(net, source().batch([i]))["loss"]) for i in (0, 3, 4, 7, 9)]
    assert got == {"val_loss": pytest.approx(sum(each) / 5, rel=1e-5)}


def test_the_global_random_stream_is_left_alone(runtime: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ready = job(network=network())
    torch.set_rng_state(before)
    fit(ready, runtime, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("monitor", ["", "val_loss"])
@pytest.mark.parametrize("stop_after", [1, 2, 4])
@pytest.mark.parametrize("between", [0.0, 1e9])
@pytest.mark.parametrize("more", [{}, {"amsgrad": True, "max_steps": 13}])
def test_an_interrupted_training_goes_on_bit_for_bit(
    stop_after: int,
    between: float,
    more: dict[str, Any],
    monitor: str,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", between)
    schedule = Schedule(
        epochs=5, batch_size=4, lr=0.01, lr_schedule="cosine", monitor=monitor, **more
    )
    measure = partial(loop.mean_losses, loss=squared, source=source((1, 2)), batch_size=2)

    def interrupted(net: nn.Module) -> dict[str, float]:
        if len(journal.read(tmp_path / "cut" / "journal.jsonl")) == stop_after:
            raise InterruptedTrainingError
        return measure(net)

    whole = job(schedule, validate=measure)
    expected = fit(whole, runtime, tmp_path / "whole")
    with pytest.raises(InterruptedTrainingError):
        fit(job(schedule, validate=interrupted), runtime, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists() is (between == 0)
    resumed = job(schedule, validate=measure)
    got = fit(resumed, runtime, tmp_path / "cut")
    assert without_seconds(got) == without_seconds(expected)
    assert same(whole.network.state_dict(), resumed.network.state_dict())
    stored = [journal.read(tmp_path / run / "journal.jsonl") for run in ("whole", "cut")]
    assert without_seconds(stored[0]) == without_seconds(stored[1])


def test_a_finished_training_is_not_trained_again(runtime: Runtime, tmp_path: Path) -> None:
    first = job()
    records = fit(first, runtime, tmp_path)
    again = job(loss=lambda net, batch: pytest.fail("trained again"))
    assert fit(again, runtime, tmp_path) == records
    assert same(first.network.state_dict(), again.network.state_dict())


def test_forgetting_removes_the_checkpoint_only(runtime: Runtime, tmp_path: Path) -> None:
    fit(job(), runtime, tmp_path)
    loop.forget(tmp_path)
    loop.forget(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["journal.jsonl"]


def test_the_step_size_rises_before_it_falls() -> None:
    schedule = Schedule(epochs=40, batch_size=2, lr=1.0, lr_schedule="warmup")
    factors = [lr_factor(schedule, epoch) for epoch in range(40)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert all(later < earlier for earlier, later in pairwise(factors[2:]))
    assert 0 < factors[-1] < 0.01


def norm_of(net: nn.Module) -> nn.BatchNorm2d:
    assert isinstance(net, nn.Sequential)
    assert isinstance(net[1], nn.BatchNorm2d)
    return net[1]


def test_settled_norms_hold_the_statistics_of_the_last_weights(
    runtime: Runtime, tmp_path: Path
) -> None:
    trained = job(Schedule(epochs=2, batch_size=5, lr=0.1, norm_batches=9))
    fit(trained, runtime, tmp_path)
    norm = norm_of(trained.network)
    order = batches(trained.schedule, trained.source, runtime.generator("test", "norms", 1))
    with torch.no_grad():
        convolution = trained.network[0]  # type: ignore[index]
        seen = [convolution(trained.source.batch(few).image) for few in order]
    means = torch.stack([one.mean(dim=(0, 2, 3)) for one in seen]).mean(dim=0)
    variances = torch.stack([one.var(dim=(0, 2, 3)) for one in seen]).mean(dim=0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.1


def test_settling_norms_leaves_the_weights_as_they_are(runtime: Runtime, tmp_path: Path) -> None:
    plain, settled = (
        job(Schedule(epochs=3, batch_size=4, lr=0.01, norm_batches=number), validate=lambda net: {})
        for number in (0, 2)
    )
    for number, one in enumerate((plain, settled)):
        fit(one, runtime, tmp_path / str(number))
    pairs = zip(plain.network.parameters(), settled.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(*(norm_of(one.network).running_mean for one in (plain, settled)))  # type: ignore[arg-type]


def test_norms_are_settled_before_an_epoch_is_measured(runtime: Runtime, tmp_path: Path) -> None:
    lags = list[float]()

    def measured(net: nn.Module) -> dict[str, float]:
        """How far answers in evaluation mode are from those of the same batch in training."""
        image = source().batch(range(NUM)).image
        with torch.no_grad():
            told = [net.train(mode)(image) for mode in (False, True)]
        lags.append(float((told[0] - told[1]).abs().mean()))
        return {}

    for number in (0, 1):
        schedule = Schedule(epochs=1, batch_size=NUM, lr=0.1, norm_batches=number)
        kept = job(schedule, network=network(dropout=0), validate=measured)
        fit(kept, runtime, tmp_path / str(number))
    assert lags[1] < 0.1 * lags[0]


def test_without_batches_to_settle_on_norms_keep_their_running_averages(
    runtime: Runtime, tmp_path: Path
) -> None:
    trained = job(Schedule(epochs=1, batch_size=5, lr=0.1))
    fit(trained, runtime, tmp_path)
    counted = norm_of(trained.network).num_batches_tracked
    assert counted is not None
    assert int(counted) == NUM // 5
    with pytest.raises(ValueError, match="norm_batches -1"):
        Schedule(epochs=1, batch_size=5, lr=0.1, norm_batches=-1)
