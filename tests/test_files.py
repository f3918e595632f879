from __future__ import annotations

import csv
import errno
from pathlib import Path

import pytest

from leanet.files import (
    link_or_copy,
    read_csv,
    read_json,
    read_json_lines,
    replacing,
    reserve,
    write_csv,
    write_json,
    write_text,
)


class Stop(BaseException):
    """As KeyboardInterrupt: not an Exception."""


def fail_half_way(file: Path, error: type[BaseException]) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, Stop])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(error):
        fail_half_way(file, error)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_at_the_first_writing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "a.txt", RuntimeError)
    assert names(tmp_path) == []


def test_until_the_block_ends_readers_see_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == file.parent  # a rename within one file system is atomic
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_missing_folders_are_made_and_others_may_read_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "c.txt"
    write_text(file, "ä\n")
    assert file.read_bytes() == "ä\n".encode()
    assert file.stat().st_mode & 0o777 == 0o644


def test_json_comes_back_with_its_keys_in_order(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": {"ü": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]


def test_csv_comes_back_as_strings(tmp_path: Path) -> None:
    rows = [
        {"path": 'a, "b".png', "score": 0.1 + 0.2, "note": "two\nlines"},
        {"path": "ß.png", "score": -1e-300, "note": ""},
    ]
    write_csv(tmp_path / "a.csv", rows)
    back = read_csv(tmp_path / "a.csv")
    assert [row["path"] for row in back] == ['a, "b".png', "ß.png"]
    assert [float(row["score"]) for row in back] == [0.1 + 0.2, -1e-300]  # to the bit
    assert [row["note"] for row in back] == ["two\nlines", ""]


def test_the_columns_of_a_csv_are_all_keys_in_order_of_appearance(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"a": 1, "b": 2}, {"c": 3, "a": 4}])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b", "c"], ["1", "2", ""], ["4", "", "3"]]


def test_rows_may_come_from_a_generator(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ({"k": k} for k in range(3)))
    assert [row["k"] for row in read_csv(tmp_path / "a.csv")] == ["0", "1", "2"]


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\na.png,0\r\n")
    assert read_csv(tmp_path / "a.csv") == [{"path": "a.png", "label": "0"}]


def test_a_cut_off_line_is_no_record(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    assert read_json_lines(file) == []
    file.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert read_json_lines(file) == [{"epoch": 0}, {"epoch": 1}]


def test_a_reserved_file_has_its_size_and_keeps_its_name_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(tmp_path / "map", 1000)
    assert (tmp_path / "map").read_bytes() == bytes(1000)

    def full(*place: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        reserve(tmp_path / "other", 1000)
    assert caught.value.filename == str(tmp_path / "other")


def test_a_link_takes_no_space_and_a_copy_serves_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.txt"
    source.write_text("content")
    link_or_copy(source, tmp_path / "deep" / "b.txt")
    assert (tmp_path / "deep" / "b.txt").samefile(source)

    def refuse(self: Path, target: Path) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    link_or_copy(source, tmp_path / "c.txt")
    assert (tmp_path / "c.txt").read_text() == "content"
    assert not (tmp_path / "c.txt").samefile(source)
