from __future__ import annotations

import pytest

from leanet.methods import catalog
from leanet.methods.map_catalog import (
    MAP_METHODS,
    READY_METHODS,
    find_drawer,
    find_map_method,
    name_of,
)


@pytest.mark.parametrize("name", MAP_METHODS)
def test_every_method_stands_in_the_catalog_too(name: str) -> None:
    assert catalog.METHODS[name] is MAP_METHODS[name]
    assert find_map_method(name) is MAP_METHODS[name]
    assert not MAP_METHODS[name].needs_anomalous


@pytest.mark.parametrize("name", READY_METHODS)
def test_what_was_trained_elsewhere_draws_but_is_not_trained_here(name: str) -> None:
    assert catalog.METHODS[name] is READY_METHODS[name] is find_drawer(name)
    with pytest.raises(ValueError, match=f"'{name}' is none that draws maps"):
        find_map_method(name)


def test_what_is_trained_here_draws_too() -> None:
    assert all(find_drawer(name) is method for name, method in MAP_METHODS.items())


@pytest.mark.parametrize("name", [*MAP_METHODS, *READY_METHODS])
def test_options_tell_the_method_that_they_belong_to(name: str) -> None:
    assert name_of(catalog.METHODS[name].config()) == name


@pytest.mark.parametrize("name", ["classifier", "leanet", "colorizr"])
def test_a_method_that_draws_no_such_maps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}'.*allowed: colorizer, reconstruction"):
        find_map_method(name)
