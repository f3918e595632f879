"""Rows of numbers that live in a file while a method learns: memory stays small however many."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanet.files import reserve


class RowFile:
    """float32 [N, D] in a file: written from the first row to the last, then read in any order.

    Nothing is kept in memory or mapped longer than a call takes. Leaving the `with` block removes
    the file. Raises OSError where the disk has no room for it.
    """

    def __init__(self, path: Path, num: int, dims: int) -> None:
        self.path, self.shape = path, (num, dims)

    def __enter__(self) -> RowFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # of a run that was killed
        reserve(self.path, 4 * self.shape[0] * self.shape[1])
        self._file = self.path.open("r+b")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Write the next rows [n, D]."""
        self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self._file.flush()

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Some rows, copied, by a slice or an array of numbers."""
        return np.array(np.memmap(self.path, np.float32, "r", shape=self.shape)[index])
