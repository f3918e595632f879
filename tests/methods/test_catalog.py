from __future__ import annotations

import dataclasses
import inspect

import pytest

from leanet.methods import catalog
from leanet.methods.recipe import DetectorModule, Train
from leanet.prepare import Options


def test_a_method_is_found_by_name() -> None:
    assert catalog.find("leanet") is catalog.METHODS["leanet"]


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'leenet' \(did you mean leanet\?\); allowed: colorizer"):
        catalog.find("leenet")


@pytest.mark.parametrize("name", catalog.METHODS)
def test_every_recipe_has_the_one_signature(name: str) -> None:
    method = catalog.METHODS[name]
    wanted = [p for p in inspect.signature(Train.__call__).parameters if p != "self"]
    assert list(inspect.signature(method.train).parameters) == wanted
    made = inspect.signature(method.build).return_annotation
    module = inspect.getmodule(method.build)
    assert issubclass(getattr(module, made), DetectorModule)


@pytest.mark.parametrize("name", catalog.METHODS)
def test_no_option_of_a_method_hides_one_of_fit(name: str) -> None:
    own = {field.name for field in dataclasses.fields(catalog.METHODS[name].config)}
    assert not own & {field.name for field in dataclasses.fields(Options)}
