from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from leanet.config import (
    UsageError,
    build,
    from_dict,
    make_parser,
    nearest,
    option,
    to_dict,
    to_yaml,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    epochs: int = option(3, "how long: inner")
    points: tuple[int, ...] = option((3,), "stages")


@dataclass(frozen=True, kw_only=True)
class Outer:
    lr: float = option(1e-3, "step size")
    how: Literal["fast", "slow"] = option("fast", "speed")
    name: str | None = option(None, "what it is called")
    mean: tuple[float, float, float] = option((0.0, 0.5, 1.0), "colors")
    learn: bool = option(False, "whether to")
    extra: dict[str, Any] = option(dict, "anything")
    inner: Inner = option(Inner, "nested")


CHANGED = Outer(
    lr=1e-05,
    how="slow",
    name="leaf #1: green",
    mean=(0.485, 0.456, 0.406),
    learn=True,
    extra={"pad": "same", "k": [1, 2]},
    inner=Inner(epochs=9, points=()),
)


@pytest.mark.parametrize("config", [Outer(), CHANGED])
def test_a_configuration_survives_the_way_through_yaml(config: Outer) -> None:
    assert from_dict(Outer, yaml.safe_load(to_yaml(config))) == config


def test_yaml_explains_every_key_in_the_line_above_it() -> None:
    lines = to_yaml(Outer()).splitlines()
    assert lines[lines.index("lr: 0.001") - 1] == "# step size"
    assert lines[lines.index("  epochs: 3") - 1] == "  # how long: inner"
    assert sum(line.lstrip().startswith("#") for line in lines) == 9


def test_plain_values_hold_no_dataclass_and_no_tuple() -> None:
    assert to_dict(CHANGED) == {
        "lr": 1e-05,
        "how": "slow",
        "name": "leaf #1: green",
        "mean": [0.485, 0.456, 0.406],
        "learn": True,
        "extra": {"pad": "same", "k": [1, 2]},
        "inner": {"epochs": 9, "points": []},
    }


def test_what_is_not_named_keeps_its_default() -> None:
    assert from_dict(Outer, {"inner": {"epochs": 5}}) == Outer(inner=Inner(epochs=5))
    assert from_dict(Outer, {}) == Outer()


def test_two_configurations_share_no_mutable_default() -> None:
    first, second = from_dict(Outer, {}), from_dict(Outer, {})
    first.extra["changed"] = True
    assert second.extra == {}
    assert from_dict(Outer, {}).extra == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, r"unknown option 'lrr' \(did you mean lr\?\)"),
        (
            {"inner": {"epoch": 1}},
            r"unknown option 'inner\.epoch' \(did you mean inner\.epochs\?\)",
        ),
        ({"lr": "much"}, r"--lr.*expected.*float.*much"),
        ({"how": "sideways"}, r"--how.*'fast', 'slow'.*sideways"),
        ({"inner": {"epochs": 1.5}}, r"--inner\.epochs.*int.*1\.5"),
        ({"mean": [0.1, 0.2]}, r"--mean takes 3 values, got 2: 0\.1, 0\.2"),
        ({"inner": {"points": ["a"]}}, r"--inner\.points.*int.*a"),
    ],
)
def test_a_mistake_is_named_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        from_dict(Outer, values)
    assert "\n" not in str(raised.value)


def test_flags_are_the_fields_and_nested_ones_have_dots() -> None:
    words = ["--lr=0.5", "--inner.epochs", "7", "--inner.points", "1", "2", "--learn"]
    given = make_parser(Outer).parse_args(words).as_dict()
    expected = Outer(lr=0.5, learn=True, inner=Inner(epochs=7, points=(1, 2)))
    assert build(Outer, given) == expected


def test_an_unknown_flag_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'inner\.pints'.*inner\.points"):
        make_parser(Outer).parse_args(["--inner.pints", "3"])


def test_a_flag_is_not_to_be_cut_short() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'lear' \(did you mean learn\?\)"):
        make_parser(Outer).parse_args(["--lear"])


def test_a_file_gives_options_and_flags_override_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(CHANGED))
    parser = make_parser(Outer)
    parser.add_argument("--config", action="config")
    given = parser.parse_args(["--config", str(file), "--inner.epochs", "4"]).as_dict()
    assert to_dict(build(Outer, given)) == {
        **to_dict(CHANGED),
        "inner": {"epochs": 4, "points": []},
    }


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANET_LR", "9")
    monkeypatch.setenv("APP_LR", "9")
    assert make_parser(Outer, prog="leanet").parse_args([]).lr == 1e-3


def test_a_hint_names_only_what_is_close() -> None:
    assert nearest("epoch", ["lr", "epochs"]) == " (did you mean epochs?)"
    assert nearest("zzz", ["lr", "epochs"]) == ""
    assert nearest("anything", []) == ""


@dataclass(frozen=True, kw_only=True)
class Open:
    points: tuple[int | str, ...] | None = option(None, "stages, or words")
    lr: float | None = option(None, "step size")
    how: Literal["fast", "slow"] | None = option(None, "speed")


@pytest.mark.parametrize(
    ("words", "points"),
    [([], None), (["--points"], ()), (["--points", "0", "None"], (0, "None"))],
)
def test_a_list_can_be_left_open(words: list[str], points: tuple[int | str, ...] | None) -> None:
    given = build(Open, make_parser(Open).parse_args(words).as_dict())
    assert given == Open(points=points)
    assert from_dict(Open, yaml.safe_load(to_yaml(given))) == given


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "much"], "--lr: expected float, got much"),
        (["--how", "so"], "--how: expected one of 'fast', 'slow', got so"),
    ],
)
def test_an_open_option_says_what_it_may_be(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        make_parser(Open).parse_args(words)
    assert str(error.value) == message
