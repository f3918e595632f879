from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanet.methods.row_file import RowFile


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    with RowFile(tmp_path / "a" / "rows", 6, 4) as file:
        assert file.shape == (6, 4)
        file.append(rows[:1])
        file.append(rows[1:])
        np.testing.assert_array_equal(file[np.array([4, 0, 4])], rows[[4, 0, 4]])
        np.testing.assert_array_equal(file[2:5], rows[2:5])
        assert type(file[2:5]) is np.ndarray  # nothing stays mapped


@pytest.mark.parametrize("failing", [True, False])
def test_the_file_goes_with_the_block(tmp_path: Path, failing: bool) -> None:
    def use() -> None:
        with RowFile(tmp_path / "rows", 2, 3) as file:
            assert (tmp_path / "rows").stat().st_size == 24
            file.append(np.zeros((2, 3), np.float32))
            if failing:
                raise KeyboardInterrupt

    if failing:
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_has_left_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"x" * 1000)
    with RowFile(tmp_path / "rows", 2, 3) as file:
        assert (tmp_path / "rows").stat().st_size == 24
        assert not file[:].any()
