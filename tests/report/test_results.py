from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.files import read_csv
from leanet.report.results import (
    CLAIMS,
    PUBLISHED,
    SOURCES,
    members,
    read_benchmark,
    read_published,
)

WriteBenchmark = Callable[..., Path]
PLAIN = ("ResNet18", "VGG16", "basic CNN")
CAANS = ("MobileNet-small CAAN", "ResNet-based CAAN")
ALL_POSITIVE = {"Retina": (98, 337), "Potato": (50, 152), "Cloud": (100, 300), "Leather": (92, 277),
                "Wood": (60, 266), "Hurricane": (100, 300), "Concrete": (100, 300),
                "Grape": (141, 423), "Strawberry": (152, 456), "Tile": (84, 263),
                "Hazelnut": (70, 431), "Carpet": (89, 308)}  # fmt: skip


@pytest.fixture(scope="module")
def f1() -> dict[tuple[str, str], float]:
    """(data, row) -> mean F1 of the LEA-Net paper."""
    return {key: value.mean for key, value in read_published("leanet").items()}


def settings(f1: dict[tuple[str, str], float]) -> list[tuple[str, str]]:
    """(data, plain network), with every way of attention."""
    return [(data, row) for data, row in f1 if row in PLAIN]


def best_caan(f1: dict[tuple[str, str], float], data: str, plain: str) -> float:
    return max(f1[data, f"{plain} + {caan}"] for caan in CAANS)


def test_the_papers_table_is_complete(f1: dict[tuple[str, str], float]) -> None:
    rows = read_csv(PUBLISHED / "leanet.csv")
    assert len(rows) == len(f1) == 248
    # tables 3, 5, 6: 16 rows on 5, 4, 3 data sets; tables 7 and 8: 7 rows on 4
    assert Counter(row["table"] for row in rows) == {"3": 80, "5": 64, "6": 48, "7": 28, "8": 28}
    assert {data for data, _ in f1} == set(ALL_POSITIVE)
    assert all(0 <= float(row["f1_mean"]) <= 1 and 0 <= float(row["f1_sd"]) < 0.5 for row in rows)
    for row in rows:
        assert (row["member"] != "") == ("CAAN" in row["row"] or "Direct" in row["row"])


def test_the_best_caan_gains_what_the_paper_says(f1: dict[tuple[str, str], float]) -> None:
    gains = [best_caan(f1, *setting) - f1[setting] for setting in settings(f1)]
    assert len(gains) == 32
    assert round(statistics.mean(gains), 3) == 0.060
    assert round(statistics.median(gains), 3) == 0.051
    assert round(max(gains), 3) == round(0.948 - 0.767, 3) == 0.181
    assert sum(gain < 0 for gain in gains) == 2


def test_most_gains_are_smaller_than_the_spread_of_the_plain_network(
    f1: dict[tuple[str, str], float],
) -> None:
    published = read_published("leanet")
    smaller = [best_caan(f1, *s) - f1[s] < published[s].sd for s in settings(f1)]
    assert (sum(smaller), len(smaller)) == (27, 32)


def test_learned_attention_against_direct_attention(f1: dict[tuple[str, str], float]) -> None:
    direct = {s: f1[s[0], f"{s[1]} + Direct Attention"] for s in settings(f1)}
    better = [f1[d, f"{p} + {caan}"] > direct[d, p] for d, p in direct for caan in CAANS]
    assert (sum(better), len(better)) == (37, 64)
    assert sum(best_caan(f1, *setting) < direct[setting] for setting in direct) == 6


def test_rows_without_layer_wise_attention_that_win(f1: dict[tuple[str, str], float]) -> None:
    siblings = {"ResNet18": "ResNet50", "VGG16": "VGG19"}
    wins = 0
    for data, plain in settings(f1):
        names = [plain, siblings.get(plain), *(f"{plain} ({how} input)"
                 for how in ("AnomalyMap", "4ch", "Attentioned"))]  # fmt: skip
        others = [f1[data, name] for name in names if name is not None]
        wins += max(others) > best_caan(f1, data, plain)
    assert wins == 11


def test_some_rows_are_no_better_than_no_effort(f1: dict[tuple[str, str], float]) -> None:
    reference = {data: 2 * p / (2 * p + n) for data, (p, n) in ALL_POSITIVE.items()}
    below = {key for key, value in f1.items() if value <= round(reference[key[0]], 3)}
    assert {("Tile", "VGG16"), ("Carpet", "VGG16 (Attentioned input)"),
            ("Tile", "ResNet18 (AnomalyMap input)"),
            ("Hurricane", "VGG16 (AnomalyMap input)")} <= below  # fmt: skip
    cnn_on_cloud = {row for data, row in below if data == "Cloud" and row.startswith("basic CNN")}
    assert len(cnn_on_cloud) == 5
    assert sum("+" in row for row in cnn_on_cloud) == 3


def test_the_papers_favorite_points() -> None:
    published = read_published("leanet")
    caan = Counter(v.member for (_, row), v in published.items() if "CAAN" in row)
    direct = Counter(v.member for (_, row), v in published.items() if "Direct" in row)
    assert caan.most_common(1) == [("A4", 18)]
    assert direct.most_common(1) == [("A3", 14)]
    assert (sum(caan.values()), sum(direct.values())) == (64, 32)


def test_published_parameters_add_up() -> None:
    sizes = {row: value.params_m for (_, row), value in read_published("leanet").items()}
    for plain in PLAIN:
        assert sizes[f"{plain} + ResNet-based CAAN"] - sizes[plain] == pytest.approx(4.9)
        assert sizes[f"{plain} + Direct Attention"] == sizes[plain]


def test_every_table_of_published_figures_names_its_source() -> None:
    assert {file.stem for file in PUBLISHED.glob("*.csv")} == {*SOURCES, *CLAIMS, "adfa"}
    assert read_published(None) == {}
    with pytest.raises(ValueError, match=r"'lenet'.*did you mean leanet"):
        read_published("lenet")


def test_members_are_all_combinations_of_the_values() -> None:
    assert [m.name for m in members({"attention_points": [[0, 3], []]})] == ["A1+A4", "none"]
    both = members({"keep_positive": [1.0, 0.5], "draw": [0, 1]})
    assert both[1].name == "keep_positive 1.0, draw 1"
    assert both[2].options == {"keep_positive": 0.5, "draw": 0}


@pytest.mark.parametrize("each", [{}, [1, 2], {"draw": 3}, {"draw": []}, {"draw": [1, 1]}])
def test_members_need_lists_of_different_values(each: object) -> None:
    with pytest.raises(ValueError, match="each"):
        members(each)  # type: ignore[arg-type]


def test_a_row_is_compared_with_the_last_baseline_above_it(write_benchmark: WriteBenchmark) -> None:
    names = ("A", "A + x", "B", "B + x")
    methods = {name: {"method": "classifier"} for name in names}
    read = read_benchmark(write_benchmark("b", methods=methods, baseline=["A", "B"]))
    compared = {entry.name: entry.baseline for entry in read.entries}
    assert compared == {"A": ("A",), "A + x": ("A",), "B": ("B",), "B + x": ("B",)}
    read = read_benchmark(write_benchmark("c", methods=methods, baseline="B"))
    assert {entry.baseline for entry in read.entries} == {("B",)}
    read = read_benchmark(write_benchmark("d", methods=methods, baseline=None))
    assert {entry.baseline for entry in read.entries} == {()}


def test_a_member_may_be_the_baseline(write_benchmark: WriteBenchmark) -> None:
    name = "ResNet18 + ResNet-based CAAN, A4"
    read = read_benchmark(write_benchmark("b", baseline=name))
    assert {entry.baseline for entry in read.entries} == {(name,)}


def test_every_share_of_the_anomalous_images_is_an_entry(write_benchmark: WriteBenchmark) -> None:
    each = {"keep_positive": [1.0, 0.5], "draw": [0, 1, 2]}
    methods = {name: {"method": "classifier", "each": each} for name in ("A", "B")}
    read = read_benchmark(write_benchmark("b", methods=methods, baseline="A", published=None))
    assert [(e.name, e.share, len(e.rows)) for e in read.entries] == [
        ("A", 1.0, 3), ("A", 0.5, 3), ("B", 1.0, 3), ("B", 0.5, 3)]  # fmt: skip
    assert read.entries[3].baseline == read.entries[1].rows
    assert read.entries[3].title == "B, 50 % kept"


def test_a_baseline_without_shares_serves_all_of_them(write_benchmark: WriteBenchmark) -> None:
    methods = {"A": {"method": "classifier"},
               "B": {"method": "classifier", "each": {"keep_positive": [1.0, 0.5]}}}  # fmt: skip
    read = read_benchmark(write_benchmark("b", methods=methods, baseline="A"))
    assert {entry.baseline for entry in read.entries} == {("A",)}


def test_the_classifiers_output_comes_first(write_benchmark: WriteBenchmark) -> None:
    read = read_benchmark(write_benchmark("b"))
    assert read.outputs("Potato", ("ResNet18",)) == ("score",)
    assert read.outputs("Potato", ("ResNet18 (4ch input)",)) == ("adn", "fused", "aan", "map")
    assert read.outputs("Potato", ("not there",)) == ("score",)


def test_a_folder_without_a_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no benchmark: it lacks suite.yaml"):
        read_benchmark(tmp_path)
