from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanet.benchmark.suite import Suite, cells, effective, read_suite, slug
from leanet.data.thumbnails import CLOTHES, DIGITS
from leanet.files import read_csv
from leanet.methods import classifier, leanet
from leanet.report.results import PUBLISHED, read_benchmark

WriteSuite = Callable[..., Path]
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "suites").glob("*.yaml"))
NUM_POINTS, NUM_DRAWS = 5, 5
NAMES_OF_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# suite -> names, rows: a group has a row for each attention point or draw
PAPER = {
    "table3": (16, 2 * (NUM_DRAWS + 1 + 3 + 3 * NUM_POINTS)),
    "table5": (16, 2 * (NUM_DRAWS + 1 + 3 + 3 * NUM_POINTS)),
    "table6": (16, 2 * (NUM_DRAWS + 1 + 3 + 3 * NUM_POINTS)),
    "table7": (7, NUM_DRAWS + 3 + 3 * NUM_POINTS),
    "table8": (7, NUM_DRAWS + 3 + 3 * NUM_POINTS),
    "figure4": (6, 6 * 4 * 3),
}
every_file = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


@cache
def suite_of(file: Path) -> Suite:
    return read_suite(file)


def paper_rows(table: str) -> set[tuple[str, str]]:
    """(data, row) of a table of the paper."""
    rows = read_csv(PUBLISHED / "leanet.csv")
    return {(row["data"], row["row"]) for row in rows if row["table"] == table}


@every_file
def test_every_suite_file_is_accepted(file: Path) -> None:
    suite = suite_of(file)
    assert suite.name == file.stem
    assert all(data.source for data in suite.data), "a user must know where to get it"
    assert suite.baselines


@every_file
def test_every_suite_file_says_how_to_run_it(file: Path) -> None:
    comments = re.findall(r"^#(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert any(f"leanet benchmark configs/suites/{file.name}" in line for line in comments)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_suites_have_all_rows_and_the_papers_choices(name: str) -> None:
    suite = suite_of(ROOT / "configs" / "suites" / f"{name}.yaml")
    num_names, num_rows = PAPER[name]
    assert len({row.group for row in suite.rows}) == num_names
    assert len(suite.rows) == num_rows
    assert len(cells(suite)) == num_rows * len(suite.data) * 5
    assert (suite.options.img_size, suite.options.folds) == (256, 5)
    for row in suite.rows:
        config = row.config
        assert (config.epochs, config.batch_size, config.augment) == (100, 16, "none")
        assert config.lr == (1e-5 if "VGG" in row.name else 1e-4)
        if row.method == "leanet":
            assert (config.map_mode, config.map_model.epochs) == ("in_sample", 500)


@pytest.mark.parametrize("name", ["quick", "remedies", "map-sources", "figure4", *PAPER])
def test_what_was_measured_with_the_published_network_stays_so(name: str) -> None:
    rows = [row for row in suite_of(ROOT / f"configs/suites/{name}.yaml").rows
            if row.method == "leanet"]  # fmt: skip
    assert rows
    for row in rows:
        assert isinstance(row.config, leanet.Config)
        assert row.config.attention == "layers"
        assert row.config.map_prior == "none"
        assert row.config.decide in ("fused", "adn")


@pytest.mark.parametrize("table", ["3", "5", "6", "7", "8"])
def test_a_tables_suite_names_what_the_paper_names(table: str) -> None:
    suite = suite_of(ROOT / "configs" / "suites" / f"table{table}.yaml")
    named = {(data.name, row.group) for data in suite.data for row in suite.rows}
    assert named == paper_rows(table)


def test_a_name_says_what_a_row_does() -> None:
    inputs = {"AnomalyMap": "map", "4ch": "4_channel", "Attentioned": "attentioned"}
    aans = {"Direct": "direct", "MobileNet-small": "mobilenet", "ResNet-based": "resnet"}
    adns = {"ResNet18": "resnet18", "ResNet50": "resnet50", "VGG16": "vgg16", "VGG19": "vgg19"}
    for name in ("table3", "table5", "table6", "table7", "table8", "quick"):
        for row in suite_of(ROOT / "configs" / "suites" / f"{name}.yaml").rows:
            first = re.split(r" \(| \+ |, ", row.name)[0]
            assert row.config.adn == adns.get(first, "cnn"), row.name
            how = re.search(r"\((\w+) input\)", row.name)
            aan = re.search(r"\+ (\S+) ", row.name)
            if how is None and aan is None:
                assert row.method == "classifier", row.name
                continue
            assert row.config.adn_input == (inputs[how[1]] if how else "image"), row.name
            assert row.config.aan == (aans[aan[1]] if aan else "none"), row.name
            assert len(row.config.attention_points) == (1 if aan else 0), row.name


def test_figure_4_varies_the_kept_share_and_the_draw_and_nothing_else() -> None:
    suite = suite_of(ROOT / "configs" / "suites" / "figure4.yaml")
    for group in {row.group for row in suite.rows}:
        own = [row.config for row in suite.rows if row.group == group]
        varied = {(config.keep_positive, config.draw) for config in own}
        assert varied == {(share, d) for share in (1.0, 0.75, 0.5, 0.25) for d in range(3)}
        assert len({(c.adn, c.lr, getattr(c, "aan", None)) for c in own}) == 1


def test_positives_are_the_papers() -> None:
    counts = {"Retina": 98, "Potato": 50, "Cloud": 100, "Leather": 92, "Wood": 60, "Hurricane": 100,
              "Concrete": 100, "Grape": 141, "Strawberry": 152, "Tile": 84, "Hazelnut": 70,
              "Carpet": 89}  # fmt: skip
    seen = set()
    for file in FILES:
        if file.stem.startswith(
            ("classifier-", "cavga-", "few-", "map-sources")
        ):  # not that paper's
            continue
        for data in suite_of(file).data:
            assert data.positives == counts[data.name]
            seen.add(data.name)
    assert seen == set(counts)


# CAVGA's suites -> data sets, rows, side, epochs, least steps
CAVGA = {
    "mvtec": (15, 8, 256, 150, 3000),
    "shanghaitech": (12, 4, 256, 5, 3000),
    "lag": (1, 2, 256, 50, 3000),
    "cifar10": (10, 2, 64, 30, 0),
    "mnist": (10, 2, 64, 30, 0),
    "fashion_mnist": (10, 2, 64, 30, 0),
    "magnetic_tile": (1, 16, 128, 20, 0),
    "cifar10_small": (10, 2, 64, 30, 0),
}


@pytest.mark.parametrize("name", CAVGA)
def test_cavgas_suites_use_the_split_and_the_schedule_of_each_data_set(name: str) -> None:
    suite = suite_of(ROOT / "configs" / "suites" / f"cavga-{name}.yaml")
    num_data, num_rows, side, epochs, min_steps = CAVGA[name]
    assert (len(suite.data), len(suite.rows)) == (num_data, num_rows)
    assert (suite.options.folds, suite.options.img_size) == (0, side)
    for row in suite.rows:
        assert row.config.epochs == epochs
        assert row.config.batch_size == (64 if side == 64 else 16)
        if row.method == "cavga":
            assert row.config.min_steps == min_steps


def test_every_map_source_is_used_in_every_way_and_is_the_same_each_time() -> None:
    suite = suite_of(ROOT / "configs" / "suites" / "map-sources.yaml")
    steered = [row for row in suite.rows if row.method == "leanet"]
    names = [row.name for row in steered]
    uses = ("LEA-Net", "4 channels", "map only")
    assert names == [f"{s}, {use}" for s in ("Colors", "PatchCore", "ADFA") for use in uses]
    for k, row in enumerate(steered):
        first = steered[k - k % 3].config
        assert row.config.map_source == first.map_source
        assert row.config.map_options == first.map_options
        assert row.config.map_model == first.map_model
        assert row.config.attention_points == ((3,) if "LEA-Net" in row.name else ())
    assert len(cells(suite)) == 96, "the file says so"


def test_few_defects_are_seen_unseen_and_generated_in_two_degrees() -> None:
    suite = suite_of(ROOT / "configs" / "suites" / "few-defects.yaml")
    assert suite.few is not None
    assert suite.few.labelled == (1, 3, 5, 10, 30)
    assert (suite.options.folds, suite.options.img_size) == (5, 96)
    assert [data.path.name for data in suite.data if data.unseen] == ["magnetic_tile"]
    easy, hard = (data.generated for data in suite.data if data.generated)
    assert min(easy.severity) >= max(hard.severity)
    trained = [row.config for row in suite.rows if row.name != "LEA-Net"]
    assert all(config.monitor == "" for config in trained)
    assert {config.map_prior for config in trained if hasattr(config, "map_prior")} == {"none"}
    (guided,) = (row.config for row in suite.rows if row.name == "LEA-Net")
    assert guided == dataclasses.replace(guided, attention="auto", map_prior="auto", decide="auto")


def test_one_class_suites_make_every_class_normal_once() -> None:
    classes = {"cifar10": NAMES_OF_CIFAR10, "mnist": DIGITS, "fashion_mnist": CLOTHES,
               "cifar10_small": NAMES_OF_CIFAR10}  # fmt: skip
    for name, expected in classes.items():
        suite = suite_of(ROOT / "configs" / "suites" / f"cavga-{name}.yaml")
        assert tuple(data.normal for data in suite.data) == expected
        assert {data.path.name for data in suite.data} == {name}


def test_rows_of_cavga_are_called_what_they_are_and_test_on_the_same_images() -> None:
    for name in CAVGA:
        rows = suite_of(ROOT / "configs" / "suites" / f"cavga-{name}.yaml").rows
        weak = [row.config for row in rows if row.method == "cavga" and row.config.weak]
        for row in rows:
            if row.method != "cavga":
                continue
            config = row.config
            assert row.name.startswith(config.variant)
            assert ("flat" in row.name) == (config.latent == "flat")
            assert config.weak or config.weak_test_split == bool(weak)
            assert {config.weak_fraction} == {one.weak_fraction for one in [*weak, config]}


def test_the_ablation_has_every_part_of_cavga_with_and_without() -> None:
    rows = suite_of(ROOT / "configs" / "suites" / "cavga-magnetic_tile.yaml").rows
    found = {
        (row.config.variant, row.config.latent, row.config.w_cga if weak else row.config.w_ae)
        for row in rows
        for weak in [row.config.weak]
    }
    variants = ("R_u", "R_w", "D_u", "D_w")
    assert found == {(v, z, w) for v in variants for z in ("conv", "flat") for w in (0.0, 0.01)}


def test_without_folds_there_is_a_cell_for_every_data_set_row_and_seed(
    write_suite: WriteSuite,
) -> None:
    file = write_suite(options={"folds": 0}, seeds=[0, 4], published="cavga")
    found = [(cell.row.name, cell.seed, cell.fold) for cell in cells(read_suite(file))]
    rows = ("plain", "steered, A2", "steered, A4")
    assert found == [(row, seed, 0) for seed in (0, 4) for row in rows]


def test_options_come_from_the_preset_then_common_then_the_row(write_suite: WriteSuite) -> None:
    methods = {
        "a": {"method": "leanet", "preset": "paper"},
        "b": {"method": "leanet", "preset": "paper", "epochs": 7, "map_model": {"base": 8}},
        "c": {"method": "classifier"},
    }
    common = {"epochs": 3, "map_model": {"epochs": 2}}
    read = read_suite(write_suite(methods=methods, common=common, baseline="c"))
    a, b, c = (row.config for row in read.rows)
    assert isinstance(a, leanet.Config)
    assert (a.epochs, b.epochs, c.epochs) == (3, 7, 3)
    assert (a.lr, c.lr) == (1e-4, classifier.Config().lr)
    assert (a.map_model.epochs, b.map_model.epochs) == (2, 2)
    assert (a.map_model.base, b.map_model.base) == (64, 8)


def test_each_makes_a_row_of_every_combination(write_suite: WriteSuite) -> None:
    each = {"keep_positive": [1.0, 0.5], "draw": [0, 1, 2]}
    methods = {"plain": {"method": "classifier", "each": each}}
    suite = read_suite(write_suite(methods=methods, common={}))
    assert [row.member for row in suite.rows[:4]] == [
        "keep_positive 1.0, draw 0", "keep_positive 1.0, draw 1", "keep_positive 1.0, draw 2",
        "keep_positive 0.5, draw 0"]  # fmt: skip
    assert [(row.config.keep_positive, row.config.draw) for row in suite.rows] == [
        (1.0, 0), (1.0, 1), (1.0, 2), (0.5, 0), (0.5, 1), (0.5, 2)]  # fmt: skip
    assert {row.group for row in suite.rows} == {"plain"}


def test_the_report_finds_every_row_under_the_name_that_the_cells_have(
    tmp_path: Path, write_suite: WriteSuite
) -> None:
    for file in [*FILES, write_suite()]:
        folder = tmp_path / file.stem
        folder.mkdir()
        (folder / "suite.yaml").write_text(file.read_text())
        (folder / "results.csv").write_text("\n")
        (folder / "environment.json").write_text("{}")
        suite, seen = suite_of(file), read_benchmark(folder)
        assert {row for e in seen.entries for row in e.rows} == {row.name for row in suite.rows}
        assert list(seen.sources) == [data.name for data in suite.data]
        assert len(seen.trials) == len(suite.seeds) * max(suite.options.folds, 1)


def test_relative_data_lie_below_the_file_or_the_given_root(write_suite: WriteSuite) -> None:
    file = write_suite(data={"Toy": {"path": "some/leaves"}})
    assert read_suite(file).data[0].path == file.parent / "some/leaves"
    assert read_suite(file, Path("/pictures")).data[0].path == Path("/pictures/some/leaves")


def test_a_file_of_a_map_source_becomes_part_of_the_row_and_weights_are_found(
    write_suite: WriteSuite, tmp_path: Path
) -> None:
    (tmp_path / "net.safetensors").touch()
    row = {"method": "leanet", "map_source": "maps.yaml", "map_options": {"ridge": 0.5}}
    plain = {"method": "classifier", "weights": "net.safetensors"}
    methods = {"plain": plain, "named": {**row, "map_source": "padim"}, "lea": row}
    file = write_suite(methods=methods)
    text = "method: padim\nridge: 0.1\nchannels: 7\nweights: net.safetensors\n"
    (file.parent / "maps.yaml").write_text(text)
    classifier_row, named, lea = read_suite(file, tmp_path).rows
    found = str(tmp_path / "net.safetensors")
    assert classifier_row.config.weights == found
    assert (named.config.map_source, named.config.map_options) == ("padim", {"ridge": 0.5})
    assert lea.config.map_source == "padim"
    assert lea.config.map_options == {"ridge": 0.5, "channels": 7, "weights": found}
    assert read_suite(file).rows[0].config.weights == "net.safetensors"  # there is none there


def test_cells_come_fold_by_fold(write_suite: WriteSuite) -> None:
    suite = read_suite(write_suite(seeds=[0, 1]))
    found = cells(suite)
    assert [(cell.seed, cell.fold) for cell in found[:6]] == [(0, 0)] * 3 + [(0, 1)] * 3
    assert len({cell.folder for cell in found}) == len(found) == 2 * 2 * 3


def test_cells_with_few_defects_come_draw_by_draw(write_suite: WriteSuite, toy: Path) -> None:
    data = {"Toy": {"path": str(toy)}, "New": {"path": str(toy), "unseen": True}}
    suite = read_suite(write_suite(data=data, few={"labelled": [3, 1], "draws": 2}))
    found = cells(suite)
    assert len({cell.folder for cell in found}) == len(found) == 2 * 2 * 2 * 2 * 3
    keys = [
        (cell.draw, cell.data.name, cell.fold, cell.labelled)
        for cell in found
        if cell.row is suite.rows[0]
    ]
    assert keys == [(draw, name, fold, k) for draw in (0, 1) for name in data
                    for fold in (0, 1) for k in (1, 3)]  # fmt: skip
    assert [cell.row.name for cell in found[:4]] == ["plain", "steered, A2", "steered, A4", "plain"]
    assert found[-1].folder.as_posix() == "cells/new/steered-a4/seed-0/fold-1/k-3/draw-1"
    named = effective(suite, found[-1])
    assert named["few"] == {"labelled": 3, "draw": 1, "unseen": True}
    assert named["draw"] == 0  # that of the method, another thing


def test_other_suites_have_no_such_cells(write_suite: WriteSuite) -> None:
    suite = read_suite(write_suite())
    assert {(cell.labelled, cell.draw) for cell in cells(suite)} == {(None, 0)}
    assert not {"few", "drawn"} & set(effective(suite, cells(suite)[0]))


def test_a_generated_data_set_lies_in_the_folder_of_the_benchmark(write_suite: WriteSuite) -> None:
    generated = {"surface": "textile", "severity": [3, 6], "num_normal": 30}
    suite = read_suite(write_suite(data={"Faint one": {"generated": generated}}))
    (data,) = suite.data
    assert data.path == Path("generated/faint-one")
    assert data.generated is not None
    assert (data.generated.surface, data.generated.severity) == ("textile", (3.0, 6.0))
    assert effective(suite, cells(suite)[0])["drawn"]["severity"] == [3.0, 6.0]


def test_what_a_cell_depends_on_names_every_option_of_its_method(write_suite: WriteSuite) -> None:
    suite = read_suite(write_suite())
    named = effective(suite, cells(suite)[1])
    assert named["attention_points"] == [1]
    assert named["map_model"]["base"] == 2
    assert (named["fold"], named["seed"], named["img_size"], named["data"]) == (0, 0, 32, "toy")
    assert set(leanet.Config.__dataclass_fields__) <= set(named)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sead": [0]}, r"unknown key 'sead' \(did you mean seeds\?\)"),
    ({"data": {"Toy": {"path": "x", "positive": 3}}}, r"data set Toy: .*\(did you mean positives"),
    ({"data": {"Toy": {"positives": 3}}}, "data set Toy has no path"),
    ({"data": {"Toy": {"path": "x", "generated": {}}}}, "or one beside generated"),
    ({"data": {"Toy": {"generated": {"surfase": "leaf"}}}}, r"did you mean surface"),
    ({"data": {"Toy": {"generated": {"size": "big"}}}}, "--size"),
    ({"data": {"Toy": {"path": "x", "unseen": True}}}, "unseen takes a suite with the key few"),
    ({"data": {"Toy": {"path": "x", "unseen": "no"}}}, "unseen is true or false, got 'no'"),
    ({"few": {"labelled": [1]}, "options": {"folds": 0}}, "few takes 2 folds or more, got 0"),
    ({"few": {"labelled": [1], "drews": 2}}, r"few: .*did you mean draws"),
    ({"data": {}}, "names no data"),
    ({"options": {"folds": 2, "img_sise": 64}}, r"'img_sise' \(did you mean img_size"),
    ({"options": {"folds": 1}}, "folds 1; a benchmark needs 2 folds or more, or 0"),
    ({"options": {"folds": -2}}, "folds -2; a benchmark needs 2 folds or more"),
    ({"common": {"epohs": 3}}, r"common: .*'epohs' \(did you mean epochs"),
    ({"methods": {"a": {"method": "leanett"}}}, r"'leanett' \(did you mean leanet\?\)"),
    ({"methods": {"a": {"epochs": 3}}}, "row 'a' names no method"),
    ({"methods": {"a": {"method": "classifier", "pre_set": "paper"}}}, "did you mean preset"),
    ({"methods": {"a": {"method": "classifier", "epohs": 3}}}, "row 'a': .*did you mean epochs"),
    ({"methods": {"a": {"method": "classifier", "preset": "papr"}}}, "no preset 'papr'"),
    ({"methods": {"a": {"method": "classifier", "each": {"draw": 3}}}}, "lists of different"),
    ({"methods": {"a": {"method": "classifier", "each": {"draw": [1, 1]}}}}, "lists of different"),
    ({"methods": {"a": {"method": "classifier", "each": {"drow": [1]}}}}, "'drow'"),
    ({"methods": {"a b": {"method": "classifier"}, "A-b": {"method": "classifier"}}}, "both be"),
    ({"baseline": "plane"}, r"baseline 'plane' is no row \(did you mean plain\?\)"),
    ({"baseline": ["plain", "x"]}, "baseline 'x' is no row"),
    ({"published": "lenet"}, r"published 'lenet'.*\(did you mean leanet\?\)"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_mistake_is_named(keys: dict[str, Any], message: str, write_suite: WriteSuite) -> None:
    if "methods" in keys:
        keys = {**keys, "baseline": next(iter(keys["methods"])), "common": {}}
    with pytest.raises(ValueError, match=message):
        read_suite(write_suite(**keys))


def test_a_file_without_keys_is_no_suite(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(yaml.safe_dump(["a", "b"]))
    with pytest.raises(ValueError, match="is no suite"):
        read_suite(file)


def test_a_baseline_may_be_a_member(write_suite: WriteSuite) -> None:
    suite: Suite = read_suite(write_suite(baseline="steered, A4"))
    assert suite.baselines == ("steered, A4",)


def test_a_slug_is_one_plain_word() -> None:
    assert slug("ResNet18 (4ch input)") == "resnet18-4ch-input"
    assert slug("keep_positive 0.5, draw 1") == "keep-positive-0.5-draw-1"
