from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.files import read_csv, write_csv
from leanet.report.variants import (
    differing_keys,
    read_variants,
    unfair_keys,
    variant_names,
)

WriteRun = Callable[..., Path]
Write = Callable[..., Path]


@pytest.fixture
def write(write_classes: WriteRun) -> Write:
    """write("name", draw=, any option=) -> a run of several classes."""

    def one(name: str, **options: Any) -> Path:
        return write_classes(name, images=10, options=tuple(options.items()))

    return one


def edit(run: Path, **options: Any) -> None:
    file = run / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | options))


def test_runs_that_differ_in_draw_or_seed_alone_are_repeats(write: Write) -> None:
    runs = [
        write("a1", draw=1),
        write("se0", attention="se"),
        write("a0"),
        write("a2", seed=2),
        write("se1", attention="se", draw=1),
    ]
    plain, se = read_variants(runs)
    assert (plain.name, se.name) == ("plain", "se")
    assert list(plain.runs) == [("0", "0"), ("0", "1"), ("2", "0")]
    assert [run.folder.name for run in se.runs.values()] == ["se0", "se1"]


def test_the_first_run_says_which_one_is_the_baseline(write: Write) -> None:
    runs = [write("se", attention="se"), write("plain")]
    assert [variant.name for variant in read_variants(runs)] == ["se", "plain"]


def test_draws_are_sorted_as_numbers(write: Write) -> None:
    runs = [write(f"a{k}", draw=k) for k in (10, 2)] + [write("se", attention="se", draw=2)]
    assert list(read_variants(runs)[0].runs) == [("0", "2"), ("0", "10")]


def test_the_device_and_the_place_of_the_data_make_no_other_variant(write: Write) -> None:
    moved = write("b", draw=1, device="cuda", data="else/where")
    assert len(read_variants([write("a"), moved, write("se", attention="se")])) == 2


def test_an_option_that_an_older_version_lacked_counts_as_off(write: Write) -> None:
    old = write("old", draw=1)
    new = write("new", synthetic="", textures=None)
    assert len(read_variants([old, new, write("se", attention="se", draw=1)])[0].runs) == 2
    assert len(read_variants([old, write("perlin", draw=1, synthetic="perlin")])) == 2


def test_names_say_what_is_different() -> None:
    none: dict[str, Any] = {"method": "classifier", "attention": "none", "lr": 1.0, "ratio": 16}
    se = none | {"attention": "se"}
    assert variant_names([none, se, se | {"ratio": 8}]) == ["plain", "se", "se, ratio 8"]
    assert variant_names([none, none | {"lr": 2.0}]) == ["lr 1.0", "lr 2.0"]
    lea = {"method": "leanet", "lr": 3.0, "aan": "resnet", "map_model.epochs": 5}
    assert variant_names([none, lea]) == ["classifier", "leanet, lr 3.0"]


def test_the_first_run_of_another_method_shares_only_some_options() -> None:
    assert differing_keys([{"method": "a", "x": 1}, {"method": "b", "y": 2}]) == [
        "method",
        "x",
        "y",
    ]


def test_what_differs_besides_attention_is_unfair(write: Write) -> None:
    other = write("se", attention="se", ratio=8, epochs=9, lr=0.1, img_size=32, pretrained=True)
    plain, se = read_variants([write("plain", ratio=16, lr=0.2, pretrained=False), other])
    assert sorted(unfair_keys(se, plain)) == ["epochs", "img_size", "lr", "pretrained"]


def test_attention_alone_is_fair(write: Write) -> None:
    other = write("abn", attention="abn", start="identity", transfer_from="map")
    plain, abn = read_variants([write("plain", start="paper"), other])
    assert unfair_keys(abn, plain) == []


def test_an_option_of_another_method_alone_is_not_unfair(write_run: WriteRun) -> None:
    folders = [write_run("plain", method="classifier"), write_run("lea")]
    edit(folders[0], epochs=3)
    edit(folders[1], epochs=4)
    plain, lea = read_variants(folders)
    assert unfair_keys(lea, plain) == ["epochs"]


@pytest.mark.parametrize("column", ["role", "path"])
def test_other_folds_are_refused(column: str, write: Write) -> None:
    plain, se = write("plain"), write("se", attention="se")
    rows = read_csv(se / "folds.csv")
    rows[0], rows[1] = (
        rows[0] | {column: rows[1][column]},
        rows[1] | {column: rows[0][column]},
    )
    assert rows[0]["role"] != rows[1]["role"]
    write_csv(se / "folds.csv", rows)
    with pytest.raises(ValueError, match=r"final in folds\.csv"):
        read_variants([plain, se])


def test_other_images_or_labels_are_refused(write: Write) -> None:
    plain, se = write("plain"), write("se", attention="se")
    rows = read_csv(se / "samples.csv")
    rows[3]["kind"] = "healthy"
    write_csv(se / "samples.csv", rows)
    with pytest.raises(ValueError, match=r"not fitted on the same data: 2 images differ, e\.g\."):
        read_variants([plain, se])


def test_other_classes_are_refused(write_classes: WriteRun, write_run: WriteRun) -> None:
    plain = write_classes("plain")
    with pytest.raises(ValueError, match="tells apart a, b, and"):
        read_variants([plain, write_classes("other", classes=("a", "b"))])
    with pytest.raises(ValueError, match="tells apart normal and anomalous, and"):
        read_variants([plain, write_run("two")])


def test_one_method_alone_is_nothing_to_compare(write: Write) -> None:
    with pytest.raises(ValueError, match="2 run\\(s\\) of one method"):
        read_variants([write("a"), write("b", draw=1)])
    with pytest.raises(ValueError, match="1 run\\(s\\) of one method"):
        read_variants([write("c")] * 2)


def test_the_same_options_twice_are_refused(write: Write) -> None:
    with pytest.raises(ValueError, match="same options, draw included"):
        read_variants([write("a"), write("b"), write("se", attention="se")])


def test_without_a_repeat_in_common_there_is_no_pair(write: Write) -> None:
    with pytest.raises(ValueError, match="no repeat in common"):
        read_variants([write("a", draw=0), write("se", attention="se", draw=1)])


def test_runs_that_tested_nothing_are_refused(write_classes: WriteRun) -> None:
    runs = [write_classes(name, options=(("attention", name),)) for name in ("none", "se")]
    for run in runs:
        file = run / "final" / "predictions.csv"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="was not tested"):
        read_variants(runs)
