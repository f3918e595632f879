"""Where and how a run computes: device, precision, seed, in one explicit object.

Nothing in the package reads a process-wide setting. A `Runtime` is made once per command and handed
down; random numbers come from generators named after what they are for, so that the order in which
things happen never changes what they draw.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from lightning.fabric import Fabric

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
# Loggers of "Using bfloat16 Automatic Mixed Precision (AMP)"; the run folder has it anyway.
NOTICES = ("lightning.fabric.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Fabric (device and precision) and the seed from which every generator derives."""

    fabric: Fabric
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """The device that tensors of a batch live on."""
        return self.fabric.device

    def generator(self, *names: object) -> torch.Generator:
        """A CPU generator that depends on the seed and the names only."""
        return torch.Generator().manual_seed(derived_seed(self.seed, *names))

    @contextmanager
    def seeded(self, *names: object) -> Iterator[None]:
        """Inside, torch's global stream (weight initialisation, dropout) follows the names."""
        with torch.random.fork_rng():
            torch.manual_seed(derived_seed(self.seed, *names))
            yield


def make_runtime(
    device: str = "auto", precision: str = "auto", seed: int = 0, *, gpu: int = 0
) -> Runtime:
    """A runtime on one device.

    `auto` takes a GPU (that of index `gpu`) if there is one, and `bf16-mixed` where the device
    computes bfloat16 natively, else float32.

    Raises:
        ValueError: an unknown device or precision, or `cuda` where there is no GPU.
    """
    if device not in DEVICES or precision not in PRECISIONS:
        raise ValueError(
            f"device {device!r}, precision {precision!r}: allowed are {', '.join(DEVICES)} and "
            f"{', '.join(PRECISIONS)}"
        )
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ValueError("device 'cuda' asked for, but torch sees no GPU; use --device cpu or auto")
    on_gpu = has_gpu and device != "cpu"
    if precision == "auto":
        precision = "bf16-mixed" if _native_bfloat16(on_gpu) else "32-true"
    for name in NOTICES:
        logging.getLogger(name).setLevel(logging.WARNING)
    place: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    if on_gpu:
        place = {"accelerator": "cuda", "devices": [gpu]}
    fabric = Fabric(**place, precision=precision)  # type: ignore[arg-type]
    return Runtime(fabric=fabric, seed=seed)


def _native_bfloat16(on_gpu: bool) -> bool:
    if on_gpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose: equal names, equal streams; other names, unrelated ones.

    >>> derived_seed(0, "fold-0", 3) == derived_seed(0, "fold-0", 3) != derived_seed(0, "fold-1", 3)
    True
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def environment(runtime: Runtime) -> dict[str, object]:
    """What a result depends on beside the data: versions, device, precision, threads."""
    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else None
    packages = ("leanet", "torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(runtime.device),
        "gpu": gpu,
        "precision": runtime.fabric._precision.precision,
        "seed": runtime.seed,
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
