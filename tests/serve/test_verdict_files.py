from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leanet.files import read_json
from leanet.serve import verdict_files
from leanet.serve.verdict_files import VerdictFiles, numbered, sha256_of, stamp_of


def put(folder: Path, name: str, text: str = "one") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def judge(files: VerdictFiles, name: str, verdict: str = "normal", *, review: bool = False) -> str:
    """Commit a verdict on a file as it is now; returns its name."""
    path = files.folder / name
    known = {**stamp_of(path)._asdict(), "sha256": sha256_of(path)}
    given = files.free_name(name)
    said: dict[str, Any] = {"file": name, **known, "verdict": verdict, "review": review}
    files.commit(given, said, verdict_files.place_of(said))
    return given


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_a_judged_file_needs_no_more_until_it_changes(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "a/b.png"), VerdictFiles(folder, tmp_path / "out")
    assert not files.settled("a/b.png", stamp_of(path))
    judge(files, "a/b.png")
    for one in (files, VerdictFiles(folder, tmp_path / "out")):
        assert one.settled("a/b.png", stamp_of(path))
    put(folder, "a/b.png", "another")
    assert not files.settled("a/b.png", stamp_of(path))


def test_another_picture_of_the_same_size_is_another(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "b.png", "one"), VerdictFiles(folder, tmp_path / "out")
    judge(files, "b.png")
    put(folder, "b.png", "two")
    os.utime(path, ns=(1, 1))
    assert not files.settled("b.png", stamp_of(path))
    assert judge(files, "b.png", "anomalous") == "b.png"  # the picture it stood for is gone
    assert read_json(tmp_path / "out/verdicts/b.png.json")["verdict"] == "anomalous"


def test_a_touched_file_is_not_judged_again(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "b.png"), VerdictFiles(folder, tmp_path / "out")
    judge(files, "b.png")
    os.utime(path, ns=(5, 5))
    assert files.settled("b.png", stamp_of(path))
    assert read_json(files.verdict("b.png"))["mtime_ns"] == 5


def test_pictures_are_moved_to_where_their_verdict_says(folder: Path, tmp_path: Path) -> None:
    files = VerdictFiles(folder, tmp_path / "out", move=True)
    for name, verdict, review in (
        ("a.png", "normal", False),
        ("sub/b.png", "anomalous", False),
        ("c.png", "normal", True),
    ):
        put(folder, name)
        judge(files, name, verdict, review=review)
    assert below(folder) == []
    moved = {"normal/a.png", "anomalous/sub/b.png", "review/c.png"}
    assert moved <= set(below(tmp_path / "out"))
    assert read_json(files.verdict("sub/b.png"))["place"] == "anomalous/sub/b.png"


def test_equal_names_get_numbers_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    files = VerdictFiles(folder, tmp_path / "out", move=True)
    put(tmp_path / "out/normal", "a-3.png", "from elsewhere")
    for text in ("first", "second", "third"):
        put(folder, "a.png", text)
        judge(files, "a.png")
    kept = {name: (tmp_path / "out/normal" / name).read_text() for name in
            below(tmp_path / "out/normal")}  # fmt: skip
    assert kept == {
        "a.png": "first",
        "a-2.png": "second",
        "a-3.png": "from elsewhere",
        "a-4.png": "third",
    }
    put(folder, "a-2.png", "its own name")
    assert judge(files, "a-2.png") == "a-2-2.png"
    assert below(tmp_path / "out/verdicts") == [
        f"{name}.json" for name in ("a-2-2.png", "a-2.png", "a-4.png", "a.png")
    ]


def test_the_next_picture_of_a_name_is_judged_even_if_it_looks_the_same(
    folder: Path, tmp_path: Path
) -> None:
    files = VerdictFiles(folder, tmp_path / "out", move=True)
    put(folder, "a.png", "same")
    judge(files, "a.png")
    path = put(folder, "a.png", "same")
    os.utime(path, ns=(7, 7))
    assert not files.settled("a.png", stamp_of(path))
    assert judge(files, "a.png") == "a-2.png"


def test_a_name_in_work_is_not_given_twice(folder: Path, tmp_path: Path) -> None:
    files = VerdictFiles(folder, tmp_path / "out")
    put(tmp_path / "out/normal", "a.png")
    assert [files.free_name("a.png"), files.free_name("a.png")] == ["a-2.png", "a-3.png"]


@pytest.mark.parametrize("linked", [True, False])
def test_a_move_that_was_cut_off_is_finished(folder: Path, tmp_path: Path, linked: bool) -> None:
    """Killed after the target stood, before the source went."""
    path, files = put(folder, "a.png"), VerdictFiles(folder, tmp_path / "out", move=True)
    judge(files, "a.png")
    target = tmp_path / "out/normal/a.png"
    if linked:
        path.hardlink_to(target)
    else:
        path.write_bytes(target.read_bytes())
        os.utime(path, ns=(0, target.stat().st_mtime_ns))
    again = VerdictFiles(folder, tmp_path / "out", move=True)
    assert again.settled("a.png", stamp_of(path))
    assert below(folder) == []
    assert below(tmp_path / "out/normal") == ["a.png"]


def test_a_move_that_had_not_begun_is_made(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "a.png"), VerdictFiles(folder, tmp_path / "out")
    judge(files, "a.png", "anomalous")  # nothing was moved then
    moving = VerdictFiles(folder, tmp_path / "out", move=True)
    assert moving.settled("a.png", stamp_of(path))
    assert below(tmp_path / "out/anomalous") == ["a.png"]
    assert below(folder) == []


def test_a_place_that_was_taken_meanwhile_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "a.png"), VerdictFiles(folder, tmp_path / "out")
    judge(files, "a.png")
    put(tmp_path / "out/normal", "a.png", "somebody else's")
    assert VerdictFiles(folder, tmp_path / "out", move=True).settled("a.png", stamp_of(path))
    assert (tmp_path / "out/normal/a.png").read_text() == "somebody else's"
    assert (tmp_path / "out/normal/a-2.png").read_text() == "one"
    assert read_json(files.verdict("a.png"))["place"] == "normal/a-2.png"


def test_a_move_to_another_disk_is_a_copy_that_is_checked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    put(folder, "a.png", "content")
    judge(VerdictFiles(folder, tmp_path / "out", move=True), "a.png")
    assert (tmp_path / "out/normal/a.png").read_text() == "content"
    assert below(folder) == []
    assert below(tmp_path / "out/normal") == ["a.png"]


def test_a_picture_that_was_replaced_before_the_move_stays(folder: Path, tmp_path: Path) -> None:
    files = VerdictFiles(folder, tmp_path / "out", move=True)
    path = put(folder, "a.png", "old")
    said = {"file": "a.png", **stamp_of(path)._asdict(), "sha256": sha256_of(path)}
    put(folder, "a.png", "new!")
    files.commit("a.png", {**said, "verdict": "normal", "review": False}, "normal")
    assert path.read_text() == "new!"
    assert not (tmp_path / "out/normal/a.png").exists()
    assert not files.settled("a.png", stamp_of(path))


def test_a_file_that_was_given_up_is_left_until_it_changes(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "a.png"), VerdictFiles(folder, tmp_path / "out")
    files.fail("a.png", stamp_of(path), "no picture", "today")
    error = tmp_path / "out/errors/a.png.json"
    assert read_json(error)["error"] == "no picture"
    assert files.settled("a.png", stamp_of(path))
    path.write_text("good now")
    assert not files.settled("a.png", stamp_of(path))
    judge(files, "a.png")
    assert not error.exists()


def test_a_spoiled_verdict_is_none(folder: Path, tmp_path: Path) -> None:
    path, files = put(folder, "a.png"), VerdictFiles(folder, tmp_path / "out")
    put(tmp_path / "out/verdicts", "a.png.json", "{")
    assert not files.settled("a.png", stamp_of(path))
    assert judge(files, "a.png") == "a-2.png"


def test_numbers_stand_before_the_suffix() -> None:
    assert numbered("a/b.c.png", 12) == "a/b.c-12.png"


JUDGE_AND_MOVE = """
import sys
from pathlib import Path
from leanet.serve.verdict_files import VerdictFiles, sha256_of, stamp_of
files = VerdictFiles(Path(sys.argv[1]), Path(sys.argv[2]), move=True)
for path in sorted(files.folder.rglob("*.png")):
    name, stamp = path.relative_to(files.folder).as_posix(), stamp_of(path)
    if files.settled(name, stamp):
        continue
    known = {"file": name, **stamp._asdict(), "sha256": sha256_of(path)}
    print(name, flush=True)
    said = {**known, "verdict": "normal", "review": False}
    files.commit(files.free_name(name), said, "normal")
"""


def test_kills_at_any_moment_lose_and_double_nothing(folder: Path, tmp_path: Path) -> None:
    """kill -9, again and again: every file ends in its place, with one verdict."""
    names = [f"{k % 7}/{k}.png" for k in range(400)]
    for name in names:
        put(folder, name, f"picture {name}")
    out, killed = tmp_path / "out", 0
    command = [sys.executable, "-c", JUDGE_AND_MOVE, str(folder), str(out)]
    for attempt in range(30):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            time.sleep(0.002 * (attempt % 9))
            if process.poll() is None and attempt < 12:
                process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        if not below(folder):
            break
    assert killed >= 3
    assert below(folder) == []
    assert sorted(below(out / "normal")) == sorted(names)
    verdicts = [name for name in below(out / "verdicts") if not Path(name).name.startswith(".")]
    assert verdicts == sorted(f"{name}.json" for name in names)
    assert all((out / "normal" / name).read_text() == f"picture {name}" for name in names)
