from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from leanet.methods.memory import PEAK, megabytes, peak_memory, told

CPU = torch.device("cpu")


def test_the_peak_is_at_least_what_is_held_now() -> None:
    held = bytearray(b"x" * 50_000_000)
    first = peak_memory(CPU)
    assert first[PEAK] > megabytes(len(held))
    del held
    assert peak_memory(CPU)[PEAK] >= first[PEAK]
    assert told({**first}) == f"; peak memory of the process {first[PEAK]:.0f} MB"


def test_a_system_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "resource":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert peak_memory(CPU) == {}
    assert told({}) == ""
