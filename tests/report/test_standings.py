from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leanet.ops.stats import paired_difference
from leanet.report.results import read_benchmark
from leanet.report.standings import Line, Table, tables

WriteBenchmark = Callable[..., Path]
CAAN = "ResNet18 + ResNet-based CAAN"
POINTS = ("A1", "A4", "A5")
# F1 at p = 0.5 of five folds; A4 is best on the test, A5 on the held-out images
F1 = {
    "ResNet18": [0.70, 0.72, 0.74, 0.70, 0.74],
    f"{CAAN}, A1": [0.60, 0.70, 0.80, 0.75, 0.65],
    f"{CAAN}, A4": [0.90, 0.92, 0.91, 0.89, 0.93],
    f"{CAAN}, A5": [0.75, 0.76, 0.78, 0.74, 0.77],
}
HELD_OUT = {f"{CAAN}, {point}": ap for point, ap in zip(POINTS, (0.5, 0.6, 0.7), strict=True)}
DRAWS = {"ResNet18": {"method": "classifier", "each": {"draw": [0, 1, 2]}}}


def figure(data: str, row: str, seed: int, fold: int, output: str, column: str) -> float | None:
    if column == "f1_at_half" and row in F1 and output in ("adn", "score"):
        return F1[row][fold]
    return HELD_OUT.get(row) if column == "held_out_ap" and output == "adn" else None


def table(folder: Path) -> Table:
    (made,) = tables(read_benchmark(folder))
    return made


def find(lines: tuple[Line, ...], entry: str, kind: str = "single", **more: Any) -> Line:
    (line,) = [
        one
        for one in lines
        if (one.entry.title, one.kind) == (entry, kind)
        and all(getattr(one, key) == value for key, value in more.items())
    ]
    return line


def test_a_group_has_its_members_their_mean_a_choice_and_an_oracle(
    write_benchmark: WriteBenchmark,
) -> None:
    made = table(write_benchmark("b", figure=figure))
    kinds = [line.kind for line in made.main if line.entry.name == CAAN]
    assert kinds == ["member", "member", "member", "mean", "chosen", "oracle"]
    mean, chosen, oracle = (
        find(made.main, CAAN, kind).figures["f1_at_half"] for kind in ("mean", "chosen", "oracle")
    )
    values = np.array([F1[f"{CAAN}, {point}"] for point in POINTS])
    assert mean.mean == pytest.approx(values.mean())
    assert mean.sd == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert chosen.mean == pytest.approx(np.mean(F1[f"{CAAN}, A5"]))
    assert oracle.mean == pytest.approx(np.mean(F1[f"{CAAN}, A4"]))
    assert find(made.main, CAAN, "chosen").members == ("A5",) * 5
    assert find(made.main, CAAN, "oracle").members == ("A4",)


def test_other_outputs_choose_for_themselves(write_benchmark: WriteBenchmark) -> None:
    def other(*cell: Any) -> float | None:
        *_, output, column = cell
        if column == "held_out_ap" and output == "fused":
            return 0.9 if ", A1" in cell[1] else 0.1
        return figure(*cell)

    made = table(write_benchmark("b", figure=other))
    assert find(made.others, CAAN, "chosen", output="fused").members == ("A1",) * 5
    assert find(made.main, CAAN, "chosen").members == ("A5",) * 5


def test_differences_are_paired_with_the_baseline(write_benchmark: WriteBenchmark) -> None:
    made = table(write_benchmark("b", figure=figure))
    found = find(made.main, CAAN, "chosen").compared["f1_at_half"].difference
    expected = paired_difference(F1[f"{CAAN}, A5"], F1["ResNet18"], test_share=40 / 160)
    assert found == pytest.approx(expected)
    assert find(made.main, "ResNet18").compared == {}
    assert find(made.main, CAAN, "oracle").compared == {}
    fused = find(made.others, CAAN, "mean", output="fused").compared
    assert list(fused) == ["f1", "auroc", "average_precision"]


def test_like_is_compared_with_like(write_benchmark: WriteBenchmark) -> None:
    def draws(data: str, row: str, *cell: Any) -> float | None:
        _, fold, _, column = cell
        if row.startswith("ResNet18, draw") and column in ("f1_at_half", "held_out_ap"):
            k = int(row[-1])
            return 0.1 * fold + (0.3, 0.4, 0.1)[k] if column == "f1_at_half" else (0.2, 0.1, 0.9)[k]
        return figure(data, row, *cell)

    methods = DRAWS | {CAAN: {"method": "leanet", "each": {"attention_points": [[0], [3], [4]]}},
                       "ResNet18 (4ch input)": {"method": "leanet"}}  # fmt: skip
    made = table(write_benchmark("b", figure=draws, methods=methods))
    folds = np.arange(5) * 0.1
    for line, reference in (
        (find(made.main, CAAN, "chosen"), folds + 0.1),  # draw 2: the best on held-out images
        (find(made.main, CAAN, "mean"), folds + 0.8 / 3),
        (find(made.main, CAAN, "member", members=("A4",)), folds + 0.8 / 3),
        (find(made.main, "ResNet18 (4ch input)"), folds + 0.8 / 3),
    ):
        own = np.array([f["f1_at_half"] for f in line.series.values()])
        assert line.compared["f1_at_half"].difference.mean == pytest.approx(
            (own - reference).mean()
        )
    assert all(line.compared == {} for line in made.main if line.entry.name == "ResNet18")


def test_missing_trials_are_counted_and_never_filled_in(write_benchmark: WriteBenchmark) -> None:
    def missing(data: str, row: str, seed: int, fold: int) -> bool:
        return (row, fold) in {(f"{CAAN}, A4", 1), ("ResNet18", 3)}

    made = table(write_benchmark("b", figure=figure, missing=missing))
    assert (made.num_finished, made.num_cells) == (5 * 5 - 2, 5 * 5)
    member = find(made.main, CAAN, "member", members=("A4",))
    assert member.num_missing == 1
    assert member.figures["f1_at_half"].mean == pytest.approx(np.mean([0.90, 0.91, 0.89, 0.93]))
    assert member.compared["f1_at_half"].difference.n == 3  # folds 0, 2, 4
    assert find(made.main, CAAN, "member", members=("A1",)).num_missing == 0
    assert find(made.main, CAAN, "mean").num_missing == 1
    assert find(made.main, CAAN, "chosen").num_missing == 1
    oracle = find(made.main, CAAN, "oracle")
    assert (oracle.num_missing, oracle.members) == (5, ())
    assert math.isnan(oracle.figures["f1_at_half"].mean)


def test_nothing_finished_is_a_table_of_blanks(write_benchmark: WriteBenchmark) -> None:
    made = table(write_benchmark("b", missing=lambda *_: True))
    assert (made.num_finished, made.num_comparisons) == (0, 0)
    assert math.isnan(made.num_normal)
    assert all(line.num_missing == 5 for line in made.main)
    assert [line.kind for line in made.main].count("member") == 3


def test_p_is_corrected_for_all_comparisons_on_the_data_set(
    write_benchmark: WriteBenchmark,
) -> None:
    made = table(write_benchmark("b", figure=figure))
    pairs = [c for line in (*made.main, *made.others) for c in line.compared.values()]
    # 4ch, three members, mean, chosen; fused and aan of 4ch, mean and chosen; one map
    assert made.num_comparisons == len(pairs) == 3 * (6 + 2 * 3 + 1)
    smallest = min(pairs, key=lambda c: c.difference.p)
    assert smallest.p_holm == pytest.approx(min(1, len(pairs) * smallest.difference.p))
    assert all(c.p_holm >= c.difference.p for c in pairs)


def test_the_map_which_knows_no_labels_is_shown_once(write_benchmark: WriteBenchmark) -> None:
    made = table(write_benchmark("b", figure=figure))
    (line,) = [line for line in made.others if line.output == "map"]
    assert (line.kind, line.name) == ("single", "ResNet18 (4ch input)")


def test_maps_of_unfinished_members_are_one_map_all_the_same(
    write_benchmark: WriteBenchmark,
) -> None:
    def missing(data: str, row: str, seed: int, fold: int) -> bool:
        return fold < 2 and ", A4" in row

    methods = {CAAN: {"method": "leanet", "each": {"attention_points": [[0], [3]]}}}
    made = table(write_benchmark("b", methods=methods, baseline=CAAN, missing=missing))
    (line,) = [line for line in made.others if line.output == "map"]
    assert (line.kind, line.num_missing) == ("single", 0)


def test_different_maps_are_shown_apart(write_benchmark: WriteBenchmark) -> None:
    def other(data: str, row: str, *cell: Any) -> float | None:
        return 0.25 if cell[-2:] == ("map", "auroc") and ", A4" in row else None

    made = table(write_benchmark("b", figure=other))
    kinds = [line.kind for line in made.others if line.output == "map" and line.entry.name == CAAN]
    assert kinds == ["mean", "chosen", "oracle"]


def test_published_figures_stand_beside_those_of_the_same_kind(
    write_benchmark: WriteBenchmark,
) -> None:
    methods = DRAWS | {CAAN: {"method": "leanet", "each": {"attention_points": [[0], [3]]}},
                       "ResNet18 (4ch input)": {"method": "leanet"}}  # fmt: skip
    made = table(write_benchmark("b", methods=methods))
    beside = {(line.entry.name, line.kind): line.published for line in made.main if line.published}
    assert {key: value.mean for key, value in beside.items()} == {
        ("ResNet18", "mean"): 0.767, (CAAN, "oracle"): 0.948,
        ("ResNet18 (4ch input)", "single"): 0.850}  # fmt: skip
    assert beside[CAAN, "oracle"].member == "A4"
    assert not any(line.published for line in made.others)


def test_a_choice_costs_all_its_members(write_benchmark: WriteBenchmark) -> None:
    made = table(write_benchmark("b"))
    minutes = {line.kind: line.minutes for line in made.main if line.entry.name == CAAN}
    assert minutes == {"member": 1.0, "mean": 1.0, "chosen": 3.0, "oracle": 3.0}


def test_images_are_counted_once_over_folds_and_seeds(write_benchmark: WriteBenchmark) -> None:
    made = table(write_benchmark("b", seeds=[0, 1]))
    assert (made.num_normal, made.num_anomalous) == (150, 50)
    assert find(made.main, "ResNet18").num_expected == 10
    assert made.all_positive.mean == pytest.approx(0.4)


def test_shares_are_compared_share_by_share_over_their_draws(
    write_benchmark: WriteBenchmark,
) -> None:
    each = {"keep_positive": [1.0, 0.25], "draw": [0, 1]}
    methods = {name: {"method": "classifier", "each": each} for name in ("A", "B")}

    def shared(data: str, row: str, seed: int, fold: int, output: str, column: str) -> float | None:
        if column != "f1_at_half":
            return None
        share, draw = (float(word) for word in (row.split()[2].rstrip(","), row.split()[-1]))
        return (
            share / 2 + 0.01 * fold + 0.02 * draw + (0.1 * share + 0.001 * fold) * (row[0] == "B")
        )

    made = table(write_benchmark("b", methods=methods, baseline="A", figure=shared, published=None))
    assert [line.kind for line in made.main] == ["member", "member", "mean"] * 4
    for share, gain in ((1.0, 0.102), (0.25, 0.027)):
        mean = find(made.main, f"B, {100 * share:g} % kept", "mean")
        assert mean.compared["f1_at_half"].difference.mean == pytest.approx(gain)
        assert mean.compared["f1_at_half"].difference.n == 5
        assert mean.anomalous_share == pytest.approx(40 * share / (120 + 40 * share))
    assert all(not line.compared for line in made.main if line.kind == "member")


def test_every_data_set_has_a_table_and_a_correction_of_its_own(
    write_benchmark: WriteBenchmark,
) -> None:
    data = {"Potato": {"path": "a"}, "Retina": {"path": "b"}}
    both = tables(read_benchmark(write_benchmark("b", data=data)))
    alone = table(write_benchmark("c"))
    assert [made.data for made in both] == ["Potato", "Retina"]
    assert both[0].main == alone.main
    assert both[1].main != alone.main
