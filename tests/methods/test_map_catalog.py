from __future__ import annotations

import pytest

from leanet.methods import catalog
from leanet.methods.map_catalog import MAP_METHODS, find_map_method, name_of


@pytest.mark.parametrize("name", MAP_METHODS)
def test_every_method_stands_in_the_catalog_too(name: str) -> None:
    assert catalog.METHODS[name] is MAP_METHODS[name]
    assert find_map_method(name) is MAP_METHODS[name]
    assert not MAP_METHODS[name].needs_anomalous


@pytest.mark.parametrize("name", MAP_METHODS)
def test_options_tell_the_method_that_they_belong_to(name: str) -> None:
    assert name_of(MAP_METHODS[name].config()) == name


@pytest.mark.parametrize("name", ["classifier", "leanet", "colorizr"])
def test_a_method_that_draws_no_such_maps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}'.*allowed: colorizer, reconstruction"):
        find_map_method(name)
