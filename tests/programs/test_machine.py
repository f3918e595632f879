"""Where a program computes."""

from __future__ import annotations

import pytest
import torch

from leanet.config import UsageError
from leanet.programs.flags import Phase1
from leanet.programs.machine import runtime_of, told


def test_minus_one_is_the_cpu_and_the_device_is_told() -> None:
    runtime = runtime_of(Phase1(GPU=-1, precision="32-true", seed=7))
    assert (runtime.device, runtime.seed) == (torch.device("cpu"), 7)
    assert told(runtime) == "on cpu, 32-true"


def test_a_gpu_that_is_not_there_is_no_silent_cpu() -> None:
    missing = torch.cuda.device_count()
    with pytest.raises(UsageError, match=f"--GPU {missing}: .*; -1 is the CPU"):
        runtime_of(Phase1(GPU=missing))
