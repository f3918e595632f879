from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from leanet.ops.stats import mean_sd
from leanet.report.category_tables import AVERAGE, FIGURES, MVTEC, category_tables

Make = Callable[..., Path]


def naming(config: Mapping[str, Any]) -> str:
    """Rows by one option."""
    return f"lr {config['lr']}"


@pytest.fixture
def make(write_small_run: Make) -> Make:
    """make("leather", seed=0, auroc=0.9, pixels={...}) -> a run on a data set of this name."""
    return write_small_run


def test_cells_are_means_over_seeds_and_what_was_not_run_is_empty(make: Make) -> None:
    runs = [make("leather", seed=seed, auroc=value) for seed, value in enumerate((0.8, 0.9, 1.0))]
    (table,) = category_tables([*runs, make("metal_nut", auroc=0.5)], naming)
    ours = table.lines[0]
    assert (table.figure, table.columns) == ("image_auroc", (AVERAGE, *MVTEC))
    assert (ours.protocol, ours.seeds) == ("", "1 to 3")
    assert ours.name == "adfa, lr 0.001, resnet18"
    assert ours.cells["leather"] == pytest.approx((0.9, 0.1))
    assert ours.cells["metal_nut"].mean == 0.5
    assert set(ours.cells) == {"leather", "metal_nut", AVERAGE}
    assert math.isnan(ours.cells[AVERAGE].mean)


def test_the_average_is_that_of_all_fifteen(make: Make) -> None:
    values = {(data, seed): 0.5 + 0.02 * k + 0.1 * seed
              for k, data in enumerate(MVTEC) for seed in (0, 1)}  # fmt: skip
    runs = [make(data, seed=seed, auroc=value) for (data, seed), value in values.items()]
    (table,) = category_tables(runs, naming)
    each = [sum(values[data, seed] for data in MVTEC) / 15 for seed in (0, 1)]
    assert table.lines[0].cells[AVERAGE] == pytest.approx(mean_sd(each))
    (table,) = category_tables(runs[1:], naming)
    assert table.lines[0].cells[AVERAGE].mean == pytest.approx(each[1]), "one seed has them all"
    assert math.isnan(table.lines[0].cells[AVERAGE].sd)
    (table,) = category_tables(runs[2:], naming)
    assert math.isnan(table.lines[0].cells[AVERAGE].mean), "there is no carpet"


def test_there_is_a_table_for_each_figure_that_a_run_has(make: Make) -> None:
    pixels = {"auroc": 0.91, "best_f1": 0.52, "f1_honest": 0.43, "aupro": 0.84}
    tables = category_tables([make("grid", pixels=pixels), make("tile")], naming)
    assert [table.figure for table in tables] == list(FIGURES)
    found = {table.figure: table.lines[0].cells["grid"].mean for table in tables}
    assert found == {
        "image_auroc": 0.9, "pixel_auroc": 0.91, "pixel_f1": 0.52, "pixel_f1_honest": 0.43,
        "aupro": 0.84,
    }  # fmt: skip
    assert math.isnan(tables[1].lines[0].cells["tile"].mean)


def test_published_rows_stand_below_with_their_protocol(make: Make) -> None:
    pixels = {"auroc": 0.9, "best_f1": 0.5, "f1_honest": 0.4, "aupro": 0.8}
    tables = {t.figure: t for t in category_tables([make("screw", pixels=pixels)], naming)}
    image = {line.name: line for line in tables["image_auroc"].lines}
    assert next(iter(image)).startswith("adfa")
    official = image["CFA (official), wide_resnet50_2, ++"]
    assert official.protocol == "oracle"
    assert (official.cells["screw"].mean, official.cells[AVERAGE].mean) == (0.973, 0.995)
    assert image["CFA (anomalib), wide_resnet50_2"].cells["screw"].mean == 0.703
    assert not any(line.name.startswith("ADFA") for line in image.values()), "none is published"
    aupro = {line.name for line in tables["aupro"].lines if line.protocol}
    assert aupro == {"CFA (anomalib), resnet18", "CFA (anomalib), wide_resnet50_2"}
    assert not [line for line in tables["pixel_f1_honest"].lines if line.protocol]


def test_other_data_sets_stand_in_tables_of_their_own(make: Make) -> None:
    mvtec, other = category_tables([make("wood"), make("BUSI"), make("my parts")], naming)
    assert (mvtec.of_mvtec, other.of_mvtec) == (True, False)
    assert other.columns == ("busi", "my_parts")
    published = {line.name: line.cells for line in other.lines if line.protocol == "medical"}
    assert published["ADFA, eps 0.1"]["busi"].mean == 0.966
    assert "my_parts" not in published["ADFA, eps 0.1"]
    assert "wood" not in other.lines[0].cells


def test_other_options_are_another_row(make: Make) -> None:
    (table,) = category_tables([make("wood"), make("wood", lr=0.5)], naming)
    ours = [line.name for line in table.lines if not line.protocol]
    assert ours == ["adfa, lr 0.001, resnet18", "adfa, lr 0.5, resnet18"]


def test_runs_that_cannot_be_told_apart_are_refused(make: Make) -> None:
    first = make("wood")
    again = first.rename(first.with_name("again"))
    with pytest.raises(ValueError, match="same name with the same seed"):
        category_tables([make("wood"), again], naming)
    with pytest.raises(ValueError, match="which runs"):
        category_tables([], naming)
    untested = make("pill", tested=False)
    with pytest.raises(ValueError, match="no scores of test images"):
        category_tables([untested], naming)
