"""The routes of the review page, over a detector that needs no training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from leanet.files import read_json
from leanet.ops.stats import clopper_pearson

BASE_URL = "http://127.0.0.1:8000"
REDS = (10, 60, 110, 160, 210, 250)  # of the pictures to review: scores 0.04 ... 0.98
NASTY = '"><img src=x onerror=alert(1)>.png'  # the name of the last one
Png = Callable[..., bytes]
Ask = Callable[..., Any]


@pytest.fixture
def client(review_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(review_app, base_url=BASE_URL) as client:
        yield client


@pytest.fixture
def judged(client: TestClient) -> TestClient:
    """A client of a server that has judged all pictures."""
    end = time.monotonic() + 20
    while client.get("/review/state").json()["judging"]["running"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    return client


def shown(client: TestClient, **words: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/review/gallery", params=words).json()["items"]
    return items


def labeled(client: TestClient, image: str, label: str, **more: Any) -> dict[str, Any]:
    given = {"id": image, "label": label, "who": "ann", **more}
    answer = client.post("/review/labels", json=given)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_folders_are_judged_in_the_background_and_unreadable_files_listed(
    judged: TestClient,
) -> None:
    progress = judged.get("/review/state").json()["judging"]
    assert progress == {"running": False, "done": 6, "total": 6, "unreadable": 1}
    (bad,) = judged.get("/review/unreadable").json()["items"]
    assert bad["name"].endswith("broken.png")
    assert "damaged" in bad["reason"]


def test_the_gallery_comes_in_three_orders_and_in_pages(judged: TestClient) -> None:
    by_score = [item["score"] for item in shown(judged)]
    assert by_score == sorted(by_score, reverse=True)
    assert by_score == pytest.approx([red / 255 for red in sorted(REDS, reverse=True)], abs=1e-6)
    near = [abs(item["score"] - 0.55) for item in shown(judged, order="threshold")]
    assert near == sorted(near)
    paged = [item for k in range(3) for item in shown(judged, limit=2, offset=2 * k)]
    assert [item["score"] for item in paged] == by_score
    assert judged.get("/review/gallery", params={"limit": 2}).json()["total"] == 6


def test_filters_and_search_leave_the_others_out(judged: TestClient) -> None:
    assert {item["verdict"] for item in shown(judged, verdict="anomalous")} == {"anomalous"}
    assert [item["name"] for item in shown(judged, search="160.P")] == ["160.png"]
    assert shown(judged, search="%") == []
    first = shown(judged)[0]["id"]
    labeled(judged, first, "ng", kind="dent")
    assert [item["id"] for item in shown(judged, label="ng", kind="dent")] == [first]
    assert len(shown(judged, label="none")) == 5
    assert judged.get("/review/gallery", params={"order": "random"}).status_code == 422


def test_names_of_files_come_as_they_are_and_never_as_paths(judged: TestClient) -> None:
    first = shown(judged)[0]
    assert first["name"] == NASTY
    assert "path" not in first
    for path in ("/review/images/..%2f..%2fcard.json", "/review/images/x/thumb"):
        assert judged.get(path).status_code in (404, 422)
    unknown = "0" * 64
    for what in ("", "/thumb", "/picture", "/overlay?model=original", "/nearest", "/nearest/0"):
        assert judged.get(f"/review/images/{unknown}{what}").status_code == 404, what


def test_pictures_come_as_thumbnail_as_they_are_and_under_their_map(
    judged: TestClient, png: Png, tmp_path: Path
) -> None:
    first = shown(judged)[0]["id"]
    thumb = judged.get(f"/review/images/{first}/thumb")
    assert thumb.headers["content-type"] == "image/jpeg"
    assert (tmp_path / f"thumbnails/{first[:2]}/{first}.jpg").read_bytes() == thumb.content
    assert judged.get(f"/review/images/{first}/picture").content == png(REDS[-1])
    overlay = judged.get(f"/review/images/{first}/overlay", params={"model": "original"})
    assert overlay.headers["content-type"] == "image/png"
    assert overlay.content != png(REDS[-1])
    missing = judged.get(f"/review/images/{first}/overlay", params={"model": "007"})
    assert missing.status_code == 404


def test_a_label_is_stored_with_who_and_told_in_the_history(judged: TestClient) -> None:
    first = shown(judged)[0]["id"]
    answer = labeled(judged, first, "ng", kind="dent")
    assert answer["counts"]["label"] == {"none": 5, "ng": 1}
    assert answer["new_labels"] == {"total": 1, "by": {"ng": 1}}
    assert answer["kinds"] == ["dent"]
    labeled(judged, first, "unsure")
    history = judged.get(f"/review/images/{first}").json()["history"]
    assert [(e["label"], e["kind"], e["who"]) for e in history] == [
        ("ng", "dent", "ann"),
        ("unsure", "", "ann"),
    ]
    back = judged.post("/review/undo", json={"who": "ann"}).json()["event"]
    assert (back["image"], back["label"], back["kind"]) == (first, "ng", "dent")
    assert judged.post("/review/undo", json={"who": "bob"}).json()["event"] is None


def test_a_label_sent_twice_is_stored_once(judged: TestClient) -> None:
    first = shown(judged)[0]["id"]
    events = [labeled(judged, first, "ok", key="abc")["event"]["number"] for _ in range(3)]
    assert len(set(events)) == 1
    assert len(judged.get(f"/review/images/{first}").json()["history"]) == 1


def test_a_label_that_makes_no_sense_is_refused(judged: TestClient) -> None:
    first = shown(judged)[0]["id"]
    for bad in ({"label": "fine"}, {"label": "ok", "kind": "dent"}, {"kind": "a\nb"}, {"id": "x"}):
        given = {"id": first, "label": "ng", "who": "ann", **bad}
        assert judged.post("/review/labels", json=given).status_code == 422, bad
    gone = {"id": "0" * 64, "label": "ng", "who": "ann"}
    assert judged.post("/review/labels", json=gone).status_code == 404


def test_scores_to_judge_a_threshold_by_are_held_out_or_labeled_here(judged: TestClient) -> None:
    before = judged.get("/review/scores").json()
    assert before["normal"] == pytest.approx([0.1 * k for k in range(6)])
    assert before["anomalous"] == pytest.approx([0.6, 0.7, 0.8])
    for name, n in (("anomalous", 3), ("normal", 6)):
        expected = [list(clopper_pearson(k, n)) for k in range(n + 1)]
        assert before["intervals"][name] == expected
    assert before["num_here"] == len(before["here"]) == 6
    labeled(judged, shown(judged)[0]["id"], "ng")
    labeled(judged, shown(judged)[1]["id"], "unsure")
    after = judged.get("/review/scores").json()
    assert after["anomalous"] == pytest.approx([0.6, 0.7, 0.8, 250 / 255])
    assert after["note"] == "9 cross-validated, 1 labeled here"


def test_a_picture_that_the_model_has_learned_from_says_nothing_about_its_threshold(
    judged: TestClient, scored_run: Path, line: Path
) -> None:
    learned = line.parent / "data/dent/7.png"
    upload = judged.post("/review/upload", files={"file": ("a.png", learned.read_bytes())})
    image = upload.json()["id"]
    answer = labeled(judged, image, "ng")
    assert answer["new_labels"]["total"] == 0  # the run says the same
    assert len(judged.get("/review/scores").json()["anomalous"]) == 3
    assert judged.get(f"/review/images/{image}").json()["learned"]
    assert labeled(judged, image, "ok")["new_labels"] == {"total": 1, "by": {"ok": 1}}


def test_a_threshold_of_the_page_is_in_the_card_and_decides_at_once(
    judged: TestClient, scored_run: Path, png: Png
) -> None:
    given = {"value": 0.3, "review": [0.2, 0.5], "who": "ann"}
    answer = judged.post("/review/threshold", json=given)
    assert answer.json() == {"threshold": 0.3, "review": [0.2, 0.5]}
    card = read_json(scored_run / "card.json")
    assert (card["threshold"]["value"], card["threshold"]["source"]) == (0.3, "user")
    verdicts = {item["name"]: (item["verdict"], item["review"]) for item in shown(judged)}
    assert verdicts["110.png"] == ("anomalous", True)
    assert verdicts["60.png"] == ("normal", True)
    assert verdicts["10.png"] == ("normal", False)
    assert (
        judged.post("/predict", content=png(110), headers={"content-type": "image/png"}).json()[
            "verdict"
        ]
        == "anomalous"
    )
    wrong = {"value": 0.3, "review": [0.4, 0.5]}
    assert judged.post("/review/threshold", json=wrong).status_code == 422


def test_dropped_pictures_are_kept_and_judged(judged: TestClient, png: Png) -> None:
    image = judged.post("/review/upload", files={"file": ("x.png", png(200))}).json()["id"]
    end = time.monotonic() + 10
    while not (found := {i["id"]: i for i in shown(judged, order="newest")}[image])["judged"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert found["score"] == pytest.approx(200 / 255, abs=1e-6)
    assert found["source"] == "upload"
    refused = judged.post("/review/upload", files={"file": ("x.png", b"nothing")})
    assert refused.status_code == 400


def test_models_can_be_trained_seen_and_refused(
    judged: TestClient, fake_fit: pytest.MonkeyPatch
) -> None:
    assert judged.post("/review/retrain", json={"who": "ann"}).status_code == 409  # nothing new
    labeled(judged, shown(judged)[0]["id"], "ng")
    assert judged.post("/review/retrain", json={"who": "ann"}).json()["state"] == "running"
    end = time.monotonic() + 20
    while (job := judged.get("/review/retrain").json())["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (job["name"], job["state"]) == ("001", "finished")
    models = judged.get("/review/models").json()
    assert [model["name"] for model in models["models"]] == ["original", "001"]
    assert (models["live"], models["back"], models["history"]) == ("original", None, [])
    assert judged.post("/review/roll_back", json={"who": "ann"}).status_code == 409
    assert judged.post("/review/switch", json={"name": "002", "who": "a"}).status_code == 409
    assert judged.post("/review/retrain/cancel", json={}).status_code == 409


def test_the_page_and_its_files_come_from_here_alone(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for address in [part.partition('"')[0] for part in page.text.split('src="')[1:]]:
        assert client.get(address).status_code == 200, address
    assert "http" not in page.text
    script = client.get("/static/review.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert client.get("/static/review.html").status_code == 404
    assert client.get("/static/..%2freview.py").status_code == 404


def test_scripts_never_read_names_as_html(client: TestClient) -> None:
    from leanet.serve.review_page import FILES

    scripts = [path.read_text() for path in FILES.values() if path.suffix == ".js"]
    assert len(scripts) >= 8
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        code = [line for text in scripts for line in text.splitlines() if "//" not in line]
        assert not any(forbidden in line for line in code), forbidden
