from __future__ import annotations

import json
import logging
from importlib.metadata import version

import numpy as np
import pytest
import torch

from leanet.runtime import NOTICES, Runtime, derived_seed, environment, make_runtime


def test_a_derived_seed_depends_on_the_seed_and_every_name_in_order() -> None:
    seeds = {
        derived_seed(0),
        derived_seed(1),
        derived_seed(0, "a"),
        derived_seed(0, "b"),
        derived_seed(0, "a", "b"),
        derived_seed(0, "b", "a"),
        derived_seed(0, "a", 1),
        derived_seed(1, "a"),
    }
    assert len(seeds) == 8
    assert derived_seed(0, "a", 1) == derived_seed(0, "a", 1)


def test_derived_seeds_stay_what_they_were() -> None:
    """Runs of an earlier version can be resumed: sha256 of "0/fold-0/3", its first 63 bits."""
    assert derived_seed(0, "fold-0", 3) == 6_465_526_923_991_893_175


def test_derived_seeds_fill_63_bits() -> None:
    seeds = np.array([derived_seed(0, k) for k in range(2000)], dtype=np.float64)
    assert seeds.min() >= 0
    assert seeds.max() < 2**63
    assert abs(seeds.mean() / 2**63 - 0.5) < 5 * (1 / 12 / 2000) ** 0.5


def test_generators_of_one_name_agree_and_of_two_names_do_not(runtime: Runtime) -> None:
    first = torch.rand(8, generator=runtime.generator("order", 0))
    torch.rand(100)  # what else is drawn does not matter
    assert torch.equal(first, torch.rand(8, generator=runtime.generator("order", 0)))
    assert not torch.equal(first, torch.rand(8, generator=runtime.generator("order", 1)))
    assert not torch.equal(
        first, torch.rand(8, generator=make_runtime("cpu", seed=1).generator("order", 0))
    )


def test_seeded_leaves_the_global_streams_as_they_were(runtime: Runtime) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with runtime.seeded("weights"):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), torch_before)
    torch.rand(3)
    with runtime.seeded("weights"):
        assert torch.equal(torch.rand(4), first)
    with runtime.seeded("other weights"):
        assert not torch.equal(torch.rand(4), first)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_seeded_gives_the_stream_back_after_an_error(runtime: Runtime) -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="size of tensor"), runtime.seeded("weights"):
        torch.rand(4) + torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_making_a_runtime_draws_nothing_and_seeds_nothing() -> None:
    before = torch.get_rng_state()
    make_runtime("cpu", "32-true", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"precision": "16"}])
def test_an_unknown_device_or_precision_is_refused_with_the_known_ones(
    wrong: dict[str, str],
) -> None:
    with pytest.raises(ValueError, match="allowed are auto, cpu, cuda and auto, 32-true"):
        make_runtime(**wrong)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no GPU; use --device cpu or auto"):
        make_runtime("cuda")
    assert make_runtime("auto", "32-true").device.type == "cpu"


def test_half_precision_is_chosen_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("leanet.runtime._native_bfloat16", lambda on_gpu: True)
    assert make_runtime("cpu").fabric._precision.precision == "bf16-mixed"
    monkeypatch.setattr("leanet.runtime._native_bfloat16", lambda on_gpu: False)
    assert make_runtime("cpu").fabric._precision.precision == "32-true"


def test_nothing_is_said_about_mixed_precision(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    levels = {name: logging.getLogger(name).level for name in ("", "lightning", "leanet")}
    for name in NOTICES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    make_runtime("cpu", "bf16-mixed")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert levels == {name: logging.getLogger(name).level for name in levels}


def test_the_environment_is_json_and_names_versions(runtime: Runtime) -> None:
    told = json.loads(json.dumps(environment(runtime)))
    assert told["packages"]["torch"] == version("torch")
    assert told["packages"]["scikit-learn"] == version("scikit-learn")
    assert (told["device"], told["gpu"], told["precision"], told["seed"]) == (
        "cpu",
        None,
        "32-true",
        0,
    )
    assert told["threads"] == torch.get_num_threads()
