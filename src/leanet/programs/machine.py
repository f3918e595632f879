"""Where a program computes: the GPU that `--GPU` names, or the CPU."""

from __future__ import annotations

import torch

from leanet.programs.flags import Shared
from leanet.programs.words import gpu_index
from leanet.runtime import Runtime, make_runtime


def runtime_of(flags: Shared) -> Runtime:
    """The runtime that the flags ask for.

    Raises:
        ValueError: a GPU that is not there, an unknown precision.
    """
    gpu = gpu_index(flags.GPU, torch.cuda.device_count())
    device = "cpu" if gpu is None else "cuda"
    return make_runtime(device, flags.precision, flags.seed, gpu=gpu or 0)


def told(runtime: Runtime) -> str:
    """The device and its precision, in a line."""
    device = runtime.device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"on {device}{name}, {runtime.fabric._precision.precision}"
