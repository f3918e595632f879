"""Real files of a small detector; those of every method are in tests/contracts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from leanet.inference import export as exporting
from leanet.inference.engines import Session
from leanet.inference.export import export_detector, outdated, refuse_earlier_export
from leanet.inference.export_graph import Format
from leanet.inference.exported import open_exported
from leanet.inference.predict import predict
from leanet.ops.working_point import WorkingPoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"
SLOW = pytest.mark.slow


@pytest.fixture
def write(
    tiny: nn.Module, card: dict[str, Any], make_run: Callable[[], Path]
) -> Callable[[Format], dict[str, Any]]:
    """Exports `tiny` from a new run and returns the card with its record."""

    def made(kind: Format = "onnx") -> dict[str, Any]:
        run = make_run()
        found = export_detector(tiny, run, card, kind, run / "export", run / "weights")
        return {**card, "run": run, "file": found.file, "exports": {kind: found.record}}

    return made


@pytest.mark.parametrize("kind", ["torch", pytest.param("openvino", marks=SLOW)])
def test_a_file_answers_as_its_detector(
    kind: Format, write: Callable[[Format], dict[str, Any]], tiny: nn.Module
) -> None:
    card = write(kind)
    record = card["exports"][kind]
    assert record["file"] == f"export/{card['file'].name}"
    assert record["parity"]["of"] == "12 of the data set, 11 drawn"
    assert record["parity"]["score"] <= 1e-4
    assert record["threshold"] == 0.1
    assert outdated(card) == []
    assert outdated({**card, "threshold": {"value": 0.2}}) == [kind]
    leftover = {file.suffix for file in (card["run"] / "export").iterdir()}
    assert leftover == {"torch": {".pt2"}, "openvino": {".xml", ".bin"}}[kind]


def test_an_onnx_file_takes_any_number_of_images_and_takes_the_place_of_its_detector(
    write: Callable[[], dict[str, Any]], tiny: nn.Module, tmp_path: Path
) -> None:
    card = write()
    run, weights = card["run"], card["run"] / "weights"
    detector = open_exported(run, "onnx", card, weights)
    assert detector.classes == ("a", "b")
    assert (detector.img_size, detector.map_unit, detector.map_top) == (16, "L2", 2.0)
    for num in (1, 4, 33):
        image = torch.rand(num, 3, 16, 16)
        got, want = detector(image), tiny(image)
        torch.testing.assert_close(got.score, want.score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.map, want.map, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got.probs, want.probs, rtol=1e-5, atol=1e-5)
    holds_paths(card["file"])
    example_agrees(card["file"], detector, tmp_path)
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match="exported from other weights"):
        open_exported(run, "onnx", card, weights)


def holds_paths(file: Path) -> None:
    """Of no place on this machine."""
    content = file.read_bytes()
    for place in (Path(__file__).parents[2], Path(sys.prefix), Path.home() / "x"):
        assert str(place).encode() not in content


def example_agrees(file: Path, detector: Any, folder: Path) -> None:
    """The example gives the scores of `leanet predict`, in an interpreter that cannot import torch
    or leanet."""
    images = sorted((folder / "data").glob("image*.png"))[:4]
    point, device = WorkingPoint(0.1), torch.device("cpu")
    judged = predict(
        detector, images, point=point, out=folder / "out", device=device, heatmaps=False
    )
    blocked = "import sys; sys.modules['torch'] = sys.modules['leanet'] = None; import runpy;"
    code = f"{blocked} runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code, str(file), *map(str, images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(one.path) for one in judged]
    assert [float(row[1]) for row in rows] == pytest.approx([o.score for o in judged], abs=1e-5)
    assert [row[2] for row in rows] == [one.verdict for one in judged]


def test_a_file_that_answers_otherwise_is_not_kept(
    write: Callable[[Format], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lying(file: Path) -> Session:
        session = exporting.OPEN["real"](file)

        def run(image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
            outputs = session.run(image)
            noisy = image.std() > 0.28  # not the file's own test images
            return {**outputs, "score": outputs["score"] + np.float32(0.001 * noisy)}

        return Session(run, session.facts)

    monkeypatch.setitem(exporting.OPEN, "real", exporting.OPEN["torch"])
    monkeypatch.setitem(exporting.OPEN, "torch", lying)
    with pytest.raises(ValueError, match="answers otherwise than the detector, so it was not kept"):
        write("torch")
    assert list((tmp_path / "run" / "export").iterdir()) == []


class Reading(nn.Module):
    """Looks at its numbers, which no graph can."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * float(image.sum())


def test_what_no_graph_can_hold_is_refused_in_plain_words(
    tiny: nn.Module, card: dict[str, Any], make_run: Callable[[], Path]
) -> None:
    tiny.layer = nn.Sequential(Reading(), tiny.layer)  # type: ignore[arg-type]
    run = make_run()
    with pytest.raises(ValueError, match="cannot be exported; torch says: "):
        export_detector(tiny, run, card, "torch", run / "export", run / "weights")


def test_a_detector_that_says_why_it_cannot_be_exported_is_believed(
    tiny: nn.Module, card: dict[str, Any], make_run: Callable[[], Path]
) -> None:
    tiny.layer.not_exportable = "its maps come from files"  # type: ignore[union-attr]
    run = make_run()
    with pytest.raises(ValueError, match="cannot be exported: its maps come from files"):
        export_detector(tiny, run, card, "torch", run / "export", run / "weights")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"kind": "tflite"}, "unknown format 'tflite'; allowed: onnx, openvino, torch"),
        ({"int8": True}, "give both --int8 and --data"),
        ({"data": True}, "give both --int8 and --data"),
        ({"kind": "torch", "int8": True, "data": True}, "with --format onnx"),
        ({}, "model.onnx is there; use --overwrite"),
        ({"int8": True, "data": True}, "model-int8.onnx is there; use --overwrite"),
    ],
)
def test_impossible_options_are_refused(
    asked: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    for name in ("model.onnx", "model-int8.onnx"):
        (tmp_path / name).touch()
    options = {"kind": "onnx", "int8": False, "data": False, "overwrite": False, **asked}
    with pytest.raises(ValueError, match=problem):
        refuse_earlier_export(options.pop("kind"), tmp_path, **options)
    if "is there" in problem:
        refuse_earlier_export(
            options.pop("kind", "onnx"), tmp_path, **options | {"overwrite": True}
        )
