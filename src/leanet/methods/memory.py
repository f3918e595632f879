"""How much memory a fit took."""

from __future__ import annotations

import sys
from typing import Any

import torch

PEAK = "peak_memory_mb"  # the remark that differs from run to run


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most that this process has held at once since it started, in MB (10^6 bytes), under a
    name for remarks; on a GPU also what tensors took there. {} where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    found = {PEAK: megabytes(peak * unit)}
    if device.type == "cuda":
        found["peak_gpu_memory_mb"] = megabytes(torch.cuda.max_memory_allocated(device))
    return found


def megabytes(num_bytes: float) -> float:
    """Bytes in MB, one decimal."""
    return round(num_bytes / 1e6, 1)


def told(remarks: dict[str, Any]) -> str:
    """The peak in words; "" where it is not known."""
    peak = remarks.get(PEAK)
    return "" if peak is None else f"; peak memory of the process {peak:.0f} MB"
