from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from leanet import api
from leanet.cli import main
from leanet.files import read_json, write_json
from leanet.report import demo_gif
from leanet.report.demo_gif import color_scale, draw_frames, encode, write_gif
from leanet.report.gallery import covered_map, load_shown
from leanet.report.run import read_run

WriteRun = Callable[..., Path]


def with_facts(run: Path, **facts: Any) -> Path:
    """The run with these entries in the metrics of its parts."""
    for file in run.glob("*/metrics.json"):
        write_json(file, {**read_json(file), **facts})
    return run


def with_drawn(run: Path, *paths: str) -> Path:
    """The run, whose galleries say that these images were drawn by lot."""
    for file in run.glob("*/gallery.safetensors"):
        with safe_open(file, framework="np") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            names = json.loads(stored.metadata()["json"])
        names["drawn"] = [path for path in names["paths"] if path in paths]
        save_file(arrays, file, {"json": json.dumps(names)})
    return run


def tables_of(data: bytes) -> tuple[int, int, int]:
    """How many global and local color tables a GIF has, and how many frames, read block by block
    as its standard (GIF89a) says."""
    at, shared = 13, data[10] >> 7
    at += 3 * 2 ** ((data[10] & 7) + 1) * shared
    own = frames = 0
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            frames, own = frames + 1, own + (data[at + 9] >> 7)
            at += 11 + 3 * 2 ** ((data[at + 9] & 7) + 1) * (data[at + 9] >> 7)
        else:
            at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    return shared, own, frames


def noise(frames: int, sigma: float) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shape = (80, 120, 3)
    drawn = [np.clip(rng.normal(128, sigma, shape), 0, 255).astype(np.uint8) for _ in range(frames)]
    return [Image.fromarray(one) for one in drawn]


def test_the_animation_is_endless_a_second_a_frame_with_one_palette(write_run: WriteRun) -> None:
    run = write_run("run")
    file = write_gif(run)
    assert file == run / "demo" / "leaves & stems.gif"
    with Image.open(file) as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (12, 0, 1000)
        for k, frame in enumerate(draw_frames(read_run(run))):
            image.seek(k)
            drawn = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(drawn - np.asarray(frame)).mean() < 8  # random pictures are the worst
            assert tuple(drawn[0, 0]) == frame.getpixel((0, 0))
    assert tables_of(file.read_bytes()) == (1, 0, 12)
    assert file.stat().st_size < demo_gif.MOST_BYTES


def test_half_of_the_images_are_normal_and_the_order_is_always_the_same(
    write_run: WriteRun,
) -> None:
    run = read_run(write_run("run"))
    chosen = demo_gif._chosen(run)
    assert [s.image.label for s in chosen].count(0) == 6
    assert [s.image.path for s in chosen] == [s.image.path for s in demo_gif._chosen(run)]
    assert [np.asarray(a).tobytes() for a in draw_frames(run)] == [
        np.asarray(b).tobytes() for b in draw_frames(run)
    ]


def test_only_images_drawn_by_lot_are_shown_where_the_run_knows_them(
    write_run: WriteRun, capfd: pytest.CaptureFixture[str]
) -> None:
    run = with_drawn(write_run("run"), "good/img03.png", "scratch/img01.png")
    shown = demo_gif._chosen(read_run(run))
    assert {s.image.path for s in shown} == {"good/img03.png", "scratch/img01.png"}
    assert capfd.readouterr().err == ""
    demo_gif._chosen(read_run(write_run("early")))
    assert "before images were drawn by lot" in capfd.readouterr().err


def test_the_scale_runs_from_the_normal_median_to_twice_the_limit_or_the_brightest(
    write_run: WriteRun,
) -> None:
    run = with_facts(write_run("run"), map_low=3.0, map_thresholds={"honest": 40.0})
    read = read_run(run)
    shown = load_shown(read)
    assert color_scale(read, shown) == (3.0, 80.0)
    with_facts(run, map_thresholds={"honest": 0.5})
    pixels = np.concatenate([covered_map(s).ravel() for s in shown])
    low, high = color_scale(read_run(run), shown)
    assert (low, high) == (3.0, pytest.approx(np.quantile(pixels, 0.999)))


def test_a_run_that_knows_no_median_takes_that_of_its_normal_images(write_run: WriteRun) -> None:
    read = read_run(write_run("run", card=(("map_top", 30.0),)))
    shown = load_shown(read)
    normal = np.concatenate([s.arrays["map"].ravel() for s in shown if not s.image.label])
    assert color_scale(read, shown) == (pytest.approx(np.median(normal)), 60.0)


def test_attention_ends_at_one(write_run: WriteRun) -> None:
    facts = {"map_low": 0.1, "map_thresholds": {"honest": 0.9}}
    run = with_facts(write_run("run", card=(("map_unit", "attention"),)), **facts)
    assert color_scale(read_run(run), load_shown(read_run(run))) == (0.1, 1.0)


def test_the_border_of_maps_counts_in_no_scale(write_run: WriteRun) -> None:
    run = with_facts(write_run("run"), map_border=2)
    shown = load_shown(read_run(run))
    before = color_scale(read_run(run), shown)
    for s in shown:
        s.arrays["map"][0, :2] = 999.0
    assert color_scale(read_run(run), shown)[1] == before[1]
    assert covered_map(shown[0]).shape == (4, 4)


def test_where_the_file_would_be_too_large_it_has_fewer_colors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = noise(2, 60.0)
    large = len(encode(frames))
    monkeypatch.setattr(demo_gif, "MOST_BYTES", int(0.8 * large))
    assert len(encode(frames)) <= 0.8 * large


def test_runs_without_maps_tests_or_a_normal_class_say_so(
    write_run: WriteRun, write_classes: WriteRun
) -> None:
    for run, why in (
        (write_run("plain", method="classifier"), r"\(classifier\) draws no maps"),
        (write_run("untested", folds=0), "has kept no test images"),
        (write_classes("kinds"), "tells 3 classes apart and none of them is the normal one"),
    ):
        with pytest.raises(ValueError, match=why):
            write_gif(run)
        assert not (run / "demo").exists()


@pytest.mark.parametrize("file", [None, Path("elsewhere") / "demo.gif"])
def test_the_command_writes_the_page_and_the_animation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path | None
) -> None:
    asked: list[tuple[Path, Path | None]] = []

    def write(run: Path, place: Path | None) -> str:
        asked.append((run, place))
        return "the.gif"

    monkeypatch.setattr(api, "report", lambda run, **_: f"{run}/report.html")
    monkeypatch.setattr(api, "write_gif", write)
    assert main(["report", "run", "--gif", *([] if file is None else [str(file)])]) == 0
    assert capsys.readouterr().out.splitlines() == ["run/report.html", "the.gif"]
    assert asked == [(Path("run"), file)]
