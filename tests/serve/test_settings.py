from __future__ import annotations

from pathlib import Path

import pytest

from leanet.config import UsageError
from leanet.serve.settings import MIN_TOKEN, ServeOptions, default_state, make_settings

TOKEN = "t" * MIN_TOKEN


def test_the_state_lies_beside_the_run_unless_told_otherwise(tmp_path: Path) -> None:
    assert make_settings(tmp_path / "parts", {}).state == (tmp_path / "parts-serve").resolve()
    assert make_settings(tmp_path / "parts", {}, state=tmp_path / "s").state == tmp_path / "s"
    assert default_state(Path("a/../b/")).name == "b-serve"


def test_options_come_by_name_and_an_unknown_one_names_the_nearest() -> None:
    settings = make_settings(Path("run"), {"images": ["a", "b"], "max_batch": 4})
    assert (settings.images, settings.max_batch) == (("a", "b"), 4)
    with pytest.raises(UsageError, match="did you mean port"):
        make_settings(Path("run"), {"prot": 1})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "inspect.example"])
def test_another_address_than_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="give --token"):
        ServeOptions(host=host)
    assert ServeOptions(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert ServeOptions(host=host).token is None


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at least {MIN_TOKEN} characters, this one has 3"):
        ServeOptions(token="abc")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_batch", 0), ("queue", 0), ("max_wait_ms", -1.0), ("port", 65536), ("max_bytes", 0)],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at"):
        ServeOptions(**{name: value})


def test_a_wait_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="max_wait_ms"):
        ServeOptions(max_wait_ms=float("nan"))
