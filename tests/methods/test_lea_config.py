"""What "auto" stands for, and which options contradict each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from leanet.config import from_dict
from leanet.methods import map_options, map_sources
from leanet.methods.lea_config import LAYERS_ONLY, PRESETS, Config, in_timm, resolve
from leanet.methods.patchcore import Config as PatchCore
from leanet.methods.patches import IMAGENET_MEAN, IMAGENET_STD

FILE: dict[str, Any] = {"weights": "weights.safetensors"}
OTHER: dict[str, Any] = {
    "self_attention": "se",
    "adn_input": "map",
    "aan": "direct",
    "attention_points": [2],
    "attention_pool": "max",
    "attention_contrast": True,
    "attention_sigmoid": False,
    "attention_fuse": "add",
    "attention_strength": 2.0,
    "learn_strength": True,
    "strength_nonneg": True,
    "strength_lr_mult": 1.0,
    "aan_weight": 0.5,
    "prior_pull": 1.0,
    "num_outputs": 2,
    "tries": 2,
}  # another value for each option of the layers


def made(**options: Any) -> Config:
    return resolve(from_dict(Config, options))


@pytest.mark.parametrize(
    ("options", "attention"),
    [
        ({}, "layers"),
        (FILE, "guided"),
        ({"pretrained": True}, "guided"),
        ({"attention": "guided"}, "guided"),
        ({**FILE, "attention": "layers"}, "layers"),
        ({**FILE, **PRESETS["paper"]}, "layers"),
    ],
)
def test_auto_is_guided_where_the_classifier_has_trained_weights(
    options: dict[str, Any], attention: str
) -> None:
    assert made(**options).attention == attention


@pytest.mark.parametrize(
    ("options", "decide"),
    [
        ({}, "fused"),
        ({"map_prior": "none"}, "fused"),
        ({"map_prior": "none", "decide": "aan"}, "aan"),
        ({"decide": "adn"}, "adn"),
        (FILE, "adn"),
        ({**FILE, "decide": "adn"}, "adn"),
    ],
)
def test_guided_attention_decides_alone_and_layers_by_the_fusion_of_all(
    options: dict[str, Any], decide: str
) -> None:
    assert made(**options).decide == decide


def test_the_preset_of_the_paper_is_the_published_network() -> None:
    config = made(**PRESETS["paper"])
    assert (config.attention, config.map_prior, config.decide) == ("layers", "none", "adn")
    assert config.map_source is None
    assert map_options.make_prior(config, "dE00") is None


def test_guided_maps_are_by_default_those_of_patchcore_on_the_same_backbone() -> None:
    config = made(adn="timm/mobilenetv2_100", adn_args={"pad_type": "same"}, **FILE)
    own = map_sources.own_config(config.map_source, config.map_model, config.map_options)
    assert isinstance(own, PatchCore)
    assert (own.backbone, own.backbone_args) == ("mobilenetv2_100", {"pad_type": "same"})
    assert (own.weights, own.pretrained) == (FILE["weights"], False)
    assert (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD) == (own.mean, own.std)


def test_colors_that_were_given_are_those_of_the_maps_too() -> None:
    config = made(mean=[0.5] * 3, std=[0.5] * 3, pretrained=True)
    own = map_sources.own_config(config.map_source, config.map_model, config.map_options)
    assert (own.mean, own.std) == (config.mean, config.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (own.backbone, own.weights, own.pretrained) == ("resnet18", None, True)


def test_options_of_the_maps_go_on_top_of_those_that_are_derived() -> None:
    config = made(**FILE, map_options={"coreset": 0.2, "backbone": "resnet34"})
    own = map_sources.own_config(config.map_source, config.map_model, config.map_options)
    assert (own.coreset, own.backbone, own.weights) == (0.2, "resnet34", FILE["weights"])


@pytest.mark.parametrize(
    "options",
    [
        {**FILE, "map_source": "colorizer"},
        {**FILE, "adn": "wrn50_2_of_nobody"},
        {"attention": "guided"},
        {},
    ],
)
def test_the_maps_stay_what_they_are_in_every_other_case(options: dict[str, Any]) -> None:
    config = made(**options)
    assert config.map_source == options.get("map_source")
    assert config.map_options == {}


def test_networks_that_timm_has_by_the_same_name_are_known() -> None:
    assert in_timm("timm/anything")
    assert in_timm("resnet50")
    assert not in_timm("cnn4")


@pytest.mark.parametrize(
    "options", [{}, FILE, {"attention": "guided"}, {"map_prior": "none"}, PRESETS["paper"]]
)
def test_resolving_twice_is_resolving_once(options: dict[str, Any]) -> None:
    once = made(**options)
    assert resolve(once) == once


@pytest.mark.parametrize("name", LAYERS_ONLY)
def test_guided_attention_refuses_what_it_would_ignore(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*add --attention layers"):
        made(**FILE, **{name: OTHER[name]})


def test_every_option_without_a_meaning_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^aan, learn_strength, decide: guided attention"):
        made(**FILE, aan="direct", learn_strength=True, decide="fused")


@pytest.mark.parametrize("decide", ["fused", "aan"])
def test_guided_attention_has_one_output_that_decides(decide: str) -> None:
    with pytest.raises(ValueError, match=r"^decide: guided attention"):
        made(**FILE, decide=decide)


def test_guided_attention_needs_what_the_map_expects() -> None:
    with pytest.raises(ValueError, match=r"map_prior none: .*choose mean or top"):
        made(**FILE, map_prior="none")


@pytest.mark.parametrize("name", ["correction", "attention_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_numbers_of_guided_attention_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} {value}: give a number > 0; 0\.\d is usual"):
        made(**FILE, **{name: value})


@pytest.mark.parametrize("name", ["correction", "attention_temperature"])
@pytest.mark.parametrize("options", [{}, {**FILE, "attention": "layers"}])
def test_attention_in_layers_refuses_what_it_would_ignore(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*--weights.*--attention guided"):
        made(**options, **{name: 0.7})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aan": "none", "decide": "aan"}, "aan none has no head to decide"),
        ({"aan": "direct", "decide": "aan"}, "aan direct has no head to decide"),
        ({"attention_sigmoid": False}, "--attention_sigmoid false is for aan direct"),
        ({"prior_pull": -0.1}, "prior_pull -0.1: give a number >= 0"),
        ({"strength_nonneg": True}, "add --learn_strength"),
    ],
)
def test_contradictions_of_layers_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**options)


def test_the_list_of_the_layers_holds_options_that_are_there() -> None:
    names = {field.name for field in dataclasses.fields(Config)}
    assert set(LAYERS_ONLY) == set(OTHER) <= names
