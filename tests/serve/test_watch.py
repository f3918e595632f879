from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leanet
from leanet.data.images import read_image
from leanet.files import read_json
from leanet.ops.working_point import WorkingPoint
from leanet.serve.live import Model
from leanet.serve.verdict_files import VerdictFiles
from leanet.serve.watch import Pace, Watch

Png = Callable[..., bytes]
QUICK = Pace(interval=0.01, settle=0.03, patience=0.1)
ONCE = Pace(interval=0.01, settle=0.0, once=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def watch(make_model: Callable[..., Model], folder: Path, tmp_path: Path) -> Callable[..., Watch]:
    """watch(pace, move=...) -> a watch over a detector that calls red pictures anomalous."""

    def make(pace: Pace = ONCE, *, model: Model | None = None, **how: Any) -> Watch:
        files = VerdictFiles(folder, tmp_path / "out", **how)
        return Watch(model or make_model(), files, pace)

    return make


@contextmanager
def running(watch: Watch) -> Iterator[None]:
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield
    finally:
        watch.stop()
        thread.join(timeout=10)
    assert not thread.is_alive()


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_files_that_are_there_are_judged_with_overlay_and_verdict(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    put(folder / "a.png", png(red=250))
    put(folder / "deep/er/b.jpg", png(red=10, kind="JPEG"))
    put(folder / ".hidden.png", png())
    put(folder / "notes.txt", b"no picture")
    one = watch()
    one.run()
    assert one.counts == {"anomalous": 1, "normal": 1}
    assert below(tmp_path / "out") == [
        "overlays/a.png",
        "overlays/deep/er/b.jpg.png",
        "verdicts/a.png.json",
        "verdicts/deep/er/b.jpg.json",
    ]
    verdict = read_json(tmp_path / "out/verdicts/a.png.json")
    assert verdict["verdict"] == "anomalous"
    assert verdict["score"] == pytest.approx(250 / 255)
    assert (verdict["height"], verdict["width"], verdict["place"]) == (20, 24, None)
    assert read_image(tmp_path / "out" / verdict["overlay"]).shape == (20, 24, 3)
    assert not np.array_equal(
        read_image(tmp_path / "out/overlays/a.png"), read_image(folder / "a.png")
    )


def test_pictures_are_sorted_into_folders(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    for name, red in (("bad", 250), ("good", 5), ("doubt", 125)):
        put(folder / f"{name}.png", png(red=red))
    watch(move=True).run()
    assert below(folder) == []
    for place in ("anomalous/bad", "normal/good", "review/doubt"):
        assert (tmp_path / "out" / f"{place}.png").exists()


def test_a_second_watch_judges_nothing_again(
    watch: Callable[..., Watch], folder: Path, png: Png
) -> None:
    for k in range(20):
        put(folder / f"{k}.png", png(red=k))
    first, second = watch(), watch()
    first.run()
    second.run()
    assert (first.counts.total(), second.counts.total()) == (20, 0)


def test_new_files_are_judged_while_it_runs_and_replaced_ones_anew(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    one, verdict = watch(QUICK), tmp_path / "out/verdicts/sub/a.png.json"
    with running(one):
        path = put(folder / "sub/a.png", png(red=250))
        until(verdict.exists)
        until(lambda: one.counts["anomalous"] == 1)
        put(path, png(red=3))
        until(lambda: one.counts["normal"] == 1)
    assert read_json(verdict)["verdict"] == "normal"


def test_a_file_that_is_still_being_written_waits(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    data = png(red=250, size=(200, 200), kind="BMP")
    one = watch(Pace(interval=0.01, settle=0.8))
    with running(one), (folder / "slow.bmp").open("wb") as file:
        for start in range(0, len(data), len(data) // 8):
            file.write(data[start : start + len(data) // 8])
            file.flush()
            os.utime(file.fileno())
            assert not (tmp_path / "out").exists()
            time.sleep(0.03)
        until(lambda: one.counts.total() == 1)
    assert one.counts == {"anomalous": 1}


def test_a_file_that_stopped_half_way_is_judged_when_it_is_whole(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    data, one = png(red=250), watch(Pace(interval=0.01, settle=0.02, patience=60))
    with running(one):
        path = put(folder / "a.png", data[: len(data) // 2])
        time.sleep(0.15)
        assert not (tmp_path / "out").exists()
        path.write_bytes(data)
        until(lambda: one.counts["anomalous"] == 1)
    assert not (tmp_path / "out/errors").exists()


def test_what_never_decodes_gets_an_error_and_stops_nothing(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path, png: Png
) -> None:
    one = watch(QUICK)
    with running(one):
        bad = put(folder / "bad.png", b"this is no picture")
        until((tmp_path / "out/errors/bad.png.json").exists)
        put(folder / "good.png", png())
        until(lambda: one.counts["normal"] == 1)
        bad.write_bytes(png(red=250))  # mended
        until(lambda: one.counts["anomalous"] == 1)
    assert one.counts["unreadable"] == 1
    assert not (tmp_path / "out/errors/bad.png.json").exists()


def test_an_error_is_not_repeated_after_a_restart(
    watch: Callable[..., Watch], folder: Path, tmp_path: Path
) -> None:
    put(folder / "bad.png", b"")
    first, second = watch(), watch()
    first.run()
    second.run()
    assert (first.counts.total(), second.counts.total()) == (1, 0)
    assert read_json(tmp_path / "out/errors/bad.png.json")["error"] == "the file is empty"


def test_a_picture_that_the_detector_cannot_score_spoils_no_other(
    watch: Callable[..., Watch],
    make_model: Callable[..., Model],
    folder: Path,
    tmp_path: Path,
    png: Png,
) -> None:
    model = make_model()
    good = model.detector

    class Fragile:
        img_size = good.img_size

        def __call__(self, image: Any) -> Any:
            prediction = good(image)
            red = image[:, 0].mean(dim=(1, 2))
            return prediction._replace(score=prediction.score / (red < 0.5).float())

    put(folder / "a.png", png(red=10))
    put(folder / "b.png", png(red=250))
    one = watch(model=model._replace(detector=Fragile()))
    one.run()
    assert one.counts == {"normal": 1, "unreadable": 1}
    assert "not finite" in read_json(tmp_path / "out/errors/b.png.json")["error"]


def test_its_own_files_inside_the_folder_are_left_alone(
    make_model: Callable[..., Model], folder: Path, png: Png
) -> None:
    put(folder / "a.png", png())
    for _ in range(2):
        one = Watch(make_model(), VerdictFiles(folder, folder / "out", move=True), ONCE)
        one.run()
    assert below(folder) == ["out/normal/a.png", "out/overlays/a.png", "out/verdicts/a.png.json"]


def test_a_folder_that_goes_away_and_comes_back_is_watched_on(
    watch: Callable[..., Watch], folder: Path, png: Png
) -> None:
    one = watch(QUICK)
    with running(one):
        folder.rename(folder.with_name("away"))
        time.sleep(0.05)
        put(folder / "a.png", png())
        until(lambda: one.counts.total() == 1)


def test_many_files_are_judged_oldest_first(
    make_model: Callable[..., Model], folder: Path, tmp_path: Path, png: Png
) -> None:
    data, told = png(red=9), list[str]()
    for k in range(60):
        os.utime(put(folder / f"{k}.png", data), ns=(k, (60 - k) * 10**9))
    one = Watch(make_model(), VerdictFiles(folder, tmp_path / "out"), ONCE, told.append)
    one.run()
    assert one.counts == {"normal": 60}
    assert [line.split()[-1] for line in told][:2] == ["59.png", "58.png"]


def test_a_change_of_light_is_told_once(
    make_model: Callable[..., Model], folder: Path, tmp_path: Path
) -> None:
    from torch import rand

    from leanet.data.images import write_image
    from leanet.files import write_json
    from leanet.inference.baseline import baseline_of, measured
    from leanet.ops.image_statistics import STATISTICS

    trained = 0.5 + 0.2 * rand(60, 3, 16, 16) + 0.1 * rand(60, 1, 1, 1)
    run = tmp_path / "run"
    found = baseline_of(measured([trained.clamp(0, 1)]), np.ones(60, bool), 16, None)
    assert found is not None
    assert found["statistics"].keys() == STATISTICS.keys()
    write_json(run / "baseline.json", found)
    rng, told = np.random.default_rng(0), list[str]()
    for k in range(40):
        write_image(folder / f"{k}.png", rng.integers(0, 60, (16, 16, 3)).astype(np.uint8))
    model = make_model()._replace(run=run)
    Watch(model, VerdictFiles(folder, tmp_path / "out"), ONCE, told.append).run()
    warned = [line for line in told if "darker than in training" in line]
    assert len(warned) == 1
    assert "brightness" in read_json(tmp_path / "out/verdicts/0.png.json")["unusual"]


def test_impossible_wishes_are_refused(
    watch: Callable[..., Watch],
    make_model: Callable[..., Model],
    folder: Path,
    tmp_path: Path,
) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="is no folder"):
        Watch(model, VerdictFiles(tmp_path / "nowhere", tmp_path / "out"), ONCE)
    with pytest.raises(ValueError, match="the watched folder itself"):
        Watch(model, VerdictFiles(folder, folder), ONCE)
    undecided = model._replace(point=WorkingPoint(None))
    with pytest.raises(ValueError, match="leave out --move"):
        watch(model=undecided, move=True)
    with pytest.raises(ValueError, match="interval must be positive"):
        Pace(interval=0.0)


def test_the_api_puts_results_beside_the_folder(
    make_model: Callable[..., Model],
    folder: Path,
    png: Png,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(folder / "a.png", png(red=250))
    monkeypatch.setattr("leanet.line.open_model", lambda *_, **__: make_model())
    told: list[str] = []
    counts = leanet.watch("run", folder, once=True, settle=0.0, device="cpu", tell=told.append)
    assert counts == {"anomalous": 1}
    assert (folder.parent / "in-judged/verdicts/a.png.json").exists()
    assert len(told) == 2


def test_ctrl_c_ends_with_what_was_counted(
    make_model: Callable[..., Model],
    folder: Path,
    png: Png,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(folder / "a.png", png(red=250))
    monkeypatch.setattr("leanet.line.open_model", lambda *_, **__: make_model())

    def tell(text: str) -> None:
        if "a.png" in text:
            raise KeyboardInterrupt

    counts = leanet.watch("run", folder, settle=0.0, device="cpu", tell=tell)
    assert counts == {"anomalous": 1}
    assert (folder.parent / "in-judged/verdicts/a.png.json").exists()
