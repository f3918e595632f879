from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.files import read_csv, write_csv
from leanet.report.run import read_run

WriteRun = Callable[..., Path]


def test_a_run_of_several_classes_knows_the_class_of_every_test_image(
    write_classes: WriteRun,
) -> None:
    run = read_run(write_classes("run", images=10))
    assert run.classes == ("early_blight", "healthy", "late_blight")
    assert len(run.named) == 15
    assert run.tested == ()
    assert run.outputs == ()
    for image in run.named:
        assert image.true == image.path.partition("/")[0]
        assert image.predicted == max(image.probs, key=lambda name: image.probs[name])
        assert image.confidence == max(image.probs.values())
        assert sum(image.probs.values()) == pytest.approx(1)
        assert image.wrong == (image.true != image.predicted)


def test_with_a_normal_class_it_has_scores_too_and_no_probability_is_one(
    write_classes: WriteRun,
) -> None:
    run = read_run(write_classes("run", normal="healthy"))
    assert run.outputs == ("score",)
    assert len(run.tested) == len(run.named)
    for image, named in zip(run.tested, run.named, strict=True):
        assert set(image.scores) == {"score"}
        assert image.scores["score"] == pytest.approx(1 - named.probs["healthy"])


def test_folds_are_what_it_is_judged_by(write_classes: WriteRun) -> None:
    run = read_run(write_classes("run", folds=3, images=9))
    assert [part.name for part in run.tested_parts] == ["fold-0", "fold-1", "fold-2"]
    assert len({image.path for image in run.named}) == 27
    assert run.final.named == ()


def test_a_run_of_two_classes_has_none_by_name_even_with_an_output_called_p(
    write_run: WriteRun,
) -> None:
    folder = write_run("run")
    file = folder / "fold-0" / "predictions.csv"
    write_csv(file, [row | {"p_any": "0.5"} for row in read_csv(file)])
    run = read_run(folder)
    assert run.classes == ()
    assert run.named == ()
    assert run.folds[0].tested[0].scores["p_any"] == 0.5


def test_held_out_images_are_no_test_images(write_classes: WriteRun) -> None:
    folder = write_classes("run")
    file = folder / "final" / "predictions.csv"
    rows = read_csv(file)
    rows[0]["role"] = "held_out"
    write_csv(file, rows)
    assert len(read_run(folder).named) == len(rows) - 1
