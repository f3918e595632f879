from __future__ import annotations

from pathlib import Path

from leanet.training import journal


def filled(tmp_path: Path, count: int) -> Path:
    file = tmp_path / "journal.jsonl"
    for epoch in range(count):
        journal.append(file, {"epoch": epoch, "train_loss": 1 / (epoch + 3)})
    return file


def test_records_come_back_in_order_with_every_digit(tmp_path: Path) -> None:
    assert journal.read(filled(tmp_path, 3)) == [
        {"epoch": epoch, "train_loss": 1 / (epoch + 3)} for epoch in range(3)
    ]


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.jsonl") == []


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    file = filled(tmp_path, 2)
    file.write_text(file.read_text() + '{"epoch": 2, "train_l')
    assert [record["epoch"] for record in journal.read(file)] == [0, 1]


def test_rewinding_drops_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    file = filled(tmp_path, 5)
    file.write_text(file.read_text() + '{"epoch": 5')
    kept = journal.rewind(file, 3)
    assert [record["epoch"] for record in kept] == [0, 1, 2]
    assert journal.read(file) == kept
    journal.append(file, {"epoch": 3})
    assert [record["epoch"] for record in journal.read(file)] == [0, 1, 2, 3]


def test_rewinding_to_the_start_empties_the_journal(tmp_path: Path) -> None:
    file = filled(tmp_path, 2)
    assert journal.rewind(file, 0) == []
    assert file.read_text() == ""
