from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import leanet
from leanet.cli import main
from leanet.serve import running
from leanet.serve.settings import Settings

TOKEN = "a token of more than sixteen"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of servers that would have been started."""
    found: list[Settings] = []
    monkeypatch.setattr(running, "run_server", lambda settings, tell: found.append(settings))
    monkeypatch.delenv("LEANET_TOKEN", raising=False)
    return found


def test_flags_become_settings(served: list[Settings], tmp_path: Path) -> None:
    words = ["--port", "0", "--max-batch", "4", "--keep", "--images", "a", "b", "--state", "s"]
    assert main(["serve", str(tmp_path / "run"), *words]) == 0
    (settings,) = served
    assert (settings.run, settings.state) == (tmp_path / "run", Path("s"))
    assert (settings.port, settings.max_batch, settings.keep) == (0, 4, True)
    assert (settings.images, settings.token) == (("a", "b"), None)


def test_options_can_stand_in_a_file_and_the_command_line_wins(
    served: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "serve.yaml").write_text("port: 9000\nqueue: 7\n")
    config = ["--config", str(tmp_path / "serve.yaml")]
    assert main(["serve", "run", "--port", "9001", *config]) == 0
    assert (served[0].port, served[0].queue) == (9001, 7)


def test_the_token_may_come_from_the_environment(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANET_TOKEN", TOKEN)
    assert main(["serve", "run", "--host", "0.0.0.0"]) == 0
    assert served[0].token == TOKEN
    assert main(["serve", "run", "--token", TOKEN * 2]) == 0
    assert served[1].token == TOKEN * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--host", "0.0.0.0"], "give --token"),
        (["run", "--token", "short"], "at least 16 characters"),
        (["run", "--prot", "1"], "did you mean port"),
        (["run", "--queue", "0"], "queue must be at least 1"),
        ([], "run"),
    ],
)
def test_a_mistake_ends_with_status_2(
    served: list[Settings], capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["serve", *words]) == 2
    assert told in capsys.readouterr().err
    assert served == []


def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "leanet.serve.running", raising=False)
    with pytest.raises(ValueError, match=r"uvicorn.*pip install 'leanet\[serve\]'"):
        leanet.serve(tmp_path)


def test_the_function_takes_the_options_by_name(served: list[Settings], tmp_path: Path) -> None:
    told: list[Any] = []
    leanet.serve(tmp_path / "run", port=0, images=["a"], tell=told.append)
    assert (served[0].images, served[0].state) == (("a",), (tmp_path / "run-serve").resolve())
