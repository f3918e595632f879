"""Presets, whole and as what is nearest to the options of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leanet.config import merged, to_dict
from leanet.methods.adfa_config import PRESETS, Config
from leanet.prepare import Options
from leanet.presets import describe_options, preset_values, read_start, whole_preset


def options(**changed: Any) -> dict[str, Any]:
    """As a run of adfa keeps them."""
    plain = {"method": "adfa", "data": "a/b", **to_dict(Options(img_size=256)), **to_dict(Config())}
    return merged(plain, changed)


def test_a_whole_preset_takes_back_what_another_one_changes() -> None:
    whole = whole_preset("adfa", "default")
    assert set(whole) == {key for values in PRESETS.values() for key in values}
    assert (whole["topk"], whole["cmax"], whole["crop"]) == ("soft", "image", "center")
    assert whole_preset("adfa", "tnvision") == {**whole, **PRESETS["tnvision"]}
    assert whole_preset("adfa", None) == {}


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    for find in (preset_values, whole_preset):
        with pytest.raises(ValueError, match="adfa has no preset 'officiale'; allowed: default"):
            find("adfa", "officiale")


@pytest.mark.parametrize("preset", ["default", "official", "tnvision", "cfa"])
def test_the_options_of_a_preset_are_called_by_its_name(preset: str) -> None:
    assert (
        describe_options(options(**PRESETS[preset], seed=5, weights="w", mean=[0, 0, 0])) == preset
    )


def test_what_differs_is_told() -> None:
    assert describe_options(options(k=5, img_size=128)) == "default, img_size 128, k 5"
    assert describe_options(options(**{**PRESETS["official"], "eps": 0.5})) == "official, eps 0.5"
    assert describe_options(options(pretrained=False)) == "default, random backbone"
    assert describe_options(options(pretrained=False, weights="w")) == "default"


def test_a_method_without_a_default_preset_has_none_to_name() -> None:
    assert describe_options({"method": "colorizer", "data": "a", "base": 32}) == ""
    assert describe_options({"method": "colorizer", "data": "a", "base": 7}) == "base 7"


def test_a_file_in_sections_stands_above_its_preset_and_below_the_callers(tmp_path: Path) -> None:
    file, said = tmp_path / "f.yaml", list[str]()
    file.write_text("preset: official\ndata: {root: a, category: b}\ntopk: {k: 5, cmax: image}\n")
    read = read_start("adfa", file, None, said.append)
    assert (read["bank_mean"], read["k"], read["cmax"]) == ("batches", 5, "image")
    assert read["data"] == str(Path("a/b"))
    read = read_start("adfa", file, "tnvision", said.append)
    assert (read["bank_mean"], read["k"], read["topk"]) == ("images", 5, "hard")
    file.write_text("API_KEY: x\nMODEL: {gamma_d: 1}\n")
    assert read_start("adfa", file, None, said.append)["topk"] == "hard"
    assert read_start("cfa", file, None, said.append)["lr_schedule"] == "warmup_cosine"
    assert said[0].startswith(f"{file}: API_KEY not read")


def test_a_flat_file_stands_above_the_callers_preset(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("method: adfa\nk: 4\ncmax: image\n")
    read = read_start("adfa", str(file), "official", print)
    assert (read["k"], read["cmax"], read["bank_mean"]) == (4, "image", "batches")
    assert read_start("adfa", None, "official", print) == PRESETS["official"]
    with pytest.raises(ValueError, match="is for adfa, not for cfa"):
        read_start("cfa", file, None, print)
    file.write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds no options"):
        read_start("adfa", file, None, print)
