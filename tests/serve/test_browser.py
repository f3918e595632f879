"""The review page in a browser: what a person does with keys, and the whole loop of learning."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from leanet import api
from leanet.data.toy import make_toy
from leanet.ops.stats import clopper_pearson
from leanet.serve.app import create_app
from leanet.serve.settings import make_settings
from leanet.serve.store import Store

playwright = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync")
SHOTS = os.environ.get("LEANET_SCREENSHOTS")  # a folder for screenshots of the whole loop
PATIENCE = 30_000  # ms; machines that test are busy
Page = Any
Open = Callable[[FastAPI], Page]


@pytest.fixture
def open_page() -> Iterator[Open]:
    """open_page(app): the review page of a server, in a browser that refuses everything that is
    not its own; errors of the page fail the test."""
    with ExitStack() as stack:
        errors: list[str] = []

        def start(app: FastAPI) -> Page:
            door = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, log_level="error", ws="none", lifespan="on")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
            thread.start()
            stack.callback(thread.join, 30)
            stack.callback(setattr, server, "should_exit", True)
            own = f"http://127.0.0.1:{door.getsockname()[1]}"
            tool = stack.enter_context(playwright.sync_playwright())
            browser = tool.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            stack.callback(browser.close)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
            page.on("request", lambda r: r.url.startswith((own, "data:")) or errors.append(r.url))
            page.goto(own)
            return page

        yield start
    assert errors == []


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def introduce(page: Page, name: str) -> None:
    """Answer who is labeling; the page asks once."""
    page.fill("#who-name", name)
    page.press("#who-name", "Enter")
    page.wait_for_selector("#ask-who", state="hidden")


def until(page: Page, selector: str, text: str) -> None:
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=4 * PATIENCE)


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_labels_are_given_by_keys_and_wait_for_a_lost_server(
    review_app: FastAPI, open_page: Open, tmp_path: Path
) -> None:
    page = open_page(review_app)
    until(page, "#name", '"><img src=x onerror=alert(1)>.png')  # the most anomalous, as text
    press(page, "n")  # who labels is asked once
    introduce(page, "ann")
    until(page, "#name", "210.png")
    press(page, "t")
    page.keyboard.type("dent")
    press(page, "Enter")
    until(page, "#name", "160.png")
    press(page, "t")
    page.wait_for_selector("#kind-list button")
    press(page, "1")  # the type that is known by now
    until(page, "#name", "110.png")
    until(page, "#open-models", "3 new labels")
    store = Store(tmp_path)
    assert sorted(store.labels().values()) == [("ng", ""), ("ng", "dent"), ("ng", "dent")]

    page.route("**/review/labels", lambda route: route.abort())
    press(page, "o")
    until(page, "#unsaved", "1 label not saved yet")
    assert len(store.labels()) == 3
    page.unroute("**/review/labels")
    until(page, "#open-models", "4 new labels")
    playwright.expect(page.locator("#unsaved")).to_be_hidden()
    press(page, "z")
    until(page, "#open-models", "3 new labels")
    until(page, "#name", "110.png")  # the picture whose label was taken back
    store.close()


def test_the_threshold_tells_what_it_would_miss_and_decides_when_used(
    review_app: FastAPI, open_page: Open, scored_run: Path
) -> None:
    page = open_page(review_app)
    page.wait_for_selector('.cell[aria-selected="true"]')
    page.fill("#threshold", "0.65")
    page.press("#threshold", "Enter")  # also stores it
    introduce(page, "ann")
    until(page, "#escapes", "33 %")
    low, high = clopper_pearson(1, 3)
    until(page, "#escapes-interval", f"1 of 3; {100 * low:.1f} to {100 * high:.0f} %")
    until(page, "#overkill-interval", f"0 of 6; 0 to {100 * clopper_pearson(0, 6).high:.0f} %")
    until(page, ".details", "threshold 0.650")
    assert '"value": 0.65' in (scored_run / "card.json").read_text()
    playwright.expect(page.locator(".cell.anomalous")).to_have_count(2)  # of scores 0.98, 0.82
    page.select_option("#by-verdict", "normal")
    until(page, "#counted", "4 of 6 pictures")
    press(page, "h")
    playwright.expect(page.locator(".pane img")).to_have_count(1)
    press(page, "h")
    playwright.expect(page.locator(".pane img.map.loaded")).to_have_count(1)


def trained_on_few_defects(folder: Path) -> tuple[Path, list[str]]:
    """A small run that knows cloth and three faded patches, and what comes along the line since:
    cloth, and five parts of another kind, which nobody has told it are wrong."""
    kind: dict[str, Any] = {"size": 32, "nuisance": 0.0, "surface": "textile"}
    faded: dict[str, Any] = {"num_anomalous": 3, "kinds": ("fade",), "severity": (12.0, 16.0)}
    known = make_toy(folder / "known", num_normal=20, seed=1, **kind, **faded)
    none: dict[str, Any] = {"num_anomalous": 0, "seed": 2}
    wrong = make_toy(folder / "wrong", num_normal=5, **{**kind, "surface": "leaf"}, **none)
    line = make_toy(folder / "line", num_normal=8, **kind, **none)
    run = api.fit(
        "classifier",
        known,
        folder / "run",
        folds=3,
        img_size=32,
        device="cpu",
        adn="timm/mobilenetv3_small_050",
        epochs=60,
        lr=2e-3,
        batch_size=8,
        augment="flips",
        tell=lambda text: None,
    )
    return Path(run), [str(wrong), str(line)]


@pytest.mark.slow
def test_five_labels_make_a_better_model_that_goes_live_and_back(
    open_page: Open, tmp_path: Path
) -> None:
    run, folders = trained_on_few_defects(tmp_path)
    settings = make_settings(run, {"device": "cpu", "images": folders})
    page = open_page(create_app(settings))

    until(page, "#counted", "13 pictures, 0 labeled")
    page.select_option("#by-source", "wrong")
    until(page, "#counted", "5 of 13")
    press(page, "n")
    introduce(page, "ann")
    for k in range(1, 5):
        until(page, "#place", f"{k + 1} / 5")
        press(page, "n")
    until(page, "#open-models", "5 new labels")
    shot(page, "labeled")

    press(page, "m")
    page.click(".job button.strong")
    until(page, ".job", "training")
    shot(page, "training")
    page.wait_for_selector("#switch", timeout=20 * PATIENCE)
    shot(page, "compared")
    rows = page.locator(".figures-table tbody tr")
    auroc = [float(rows.nth(0).locator("strong").nth(k).inner_text()) for k in (0, 1)]
    assert auroc[1] > auroc[0] + 0.1
    before, after = (rows.nth(1).locator("td small").nth(k).inner_text() for k in (0, 1))
    assert "of 8" in before  # the three of the run, each judged by the other fold, and the five
    assert int(after.split()[0]) < int(before.split()[0])

    page.click("#switch")
    until(page, "#model", "model: 001")
    until(page, ".models .live", "001")
    shot(page, "switched")
    assert page.request.get(page.url + "health").json()["model"] == "001"
    page.click("text=Roll back to original")
    until(page, "#model", "model: original")
    press(page, "Escape")
    end = time.monotonic() + 30
    while page.request.get(page.url + "review/state").json()["judging"]["running"]:
        assert time.monotonic() < end
    until(page, "#counted", "5 of 13 pictures, 5 labeled")
    shot(page, "rolled-back")
