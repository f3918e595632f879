from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanet.config import flat, make_parser
from leanet.files import read_json, write_json
from leanet.methods.leanet import Config
from leanet.prepare import Options
from leanet.report import details
from leanet.report.page import write_report
from leanet.report.run import read_run

WriteRun = Callable[..., Path]
ReadPage = Callable[[Path], Any]
EVIL = '"><img src=x onerror=alert(1)>&'


def test_the_page_stands_in_the_run_folder_and_alone(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    run = write_run("run")
    file = write_report(run)
    assert file == run / "report.html"
    page = read_page(file)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/", "#"))
            assert not name.startswith("on")
    assert "@import" not in page.source
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page.source))


def test_it_has_every_section(write_run: WriteRun, read_page: ReadPage) -> None:
    page = read_page(
        write_report(write_run("run"), baseline=write_run("plain", method="classifier"))
    )
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    assert ids == ["verdict", "results", "comparison", "scores", "errors", "maps", "gallery",
                   "attention", "training", "details"]  # fmt: skip
    for words in ("Finds", "of the defects", "cross-validated, 2 folds", "Against classifier",
                  "out_of_fold", "leaves & stems", "best F1 on the cross-validation scores",
                  "nearly constant"):  # fmt: skip
        assert words in page.text


def test_names_from_files_are_only_ever_text(write_run: WriteRun, read_page: ReadPage) -> None:
    file = write_report(write_run("run", kinds=("good", EVIL), shift=0.0, names="<script>"))
    page = read_page(file)
    assert EVIL in page.text
    assert "<script>" in page.text
    assert page.count("script") == 0
    assert all(attributes.get("src") != "x" for _, attributes in page.tags)


def test_ids_are_unique_in_the_page(write_run: WriteRun, read_page: ReadPage) -> None:
    page = read_page(write_report(write_run("run")))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_card_per_image_marks_errors(write_run: WriteRun, read_page: ReadPage) -> None:
    folder = write_run("run", shift=0.5)
    page = read_page(write_report(folder))
    images = read_run(folder).tested
    gallery = page.source.partition('id="gallery"')[2].partition("</section>")[0]
    assert gallery.count('class="card wrong') == sum(image.wrong for image in images) > 0
    assert gallery.count("<article") == len(images)
    assert page.count("article") == len(images) + 5  # 2 in the map view, 3 in the attention view


def test_the_map_view_marks_s_on_its_scale(write_run: WriteRun, read_page: ReadPage) -> None:
    for top, place in ((40.0, "25.0%"), (5.0, "100.0%")):  # s = 10 lies on the scale either way
        page = read_page(write_report(write_run(f"run{top}", card=(("map_top", top),))))
        maps = page.source.partition('id="maps"')[2].partition("</section>")[0]
        assert f'style="left: {place}" title="s"' in maps
        assert "s = 10.0 (mark)" in maps
    page = read_page(write_report(write_run("plain", method="classifier")))
    assert 'id="maps"' not in page.source


def test_a_cavga_run_shows_attention_limits_and_what_its_training_told(
    write_cavga: WriteRun, read_page: ReadPage
) -> None:
    folder = write_cavga("run", "D_w")
    page, tested = read_page(write_report(folder)), read_run(folder).tested
    text = " ".join(page.text.split())
    assert "map and overlay, attention to anomalous" in text
    assert "marks: paper limit 0.500, honest limit 0.750" in text
    assert 'style="left: 50.0%" title="paper"' in page.source
    gallery = page.source.partition('id="gallery"')[2].partition("</section>")[0]
    assert gallery.count('alt="its 2 × 2 cells"') == 2 * len(tested)  # of each class
    assert gallery.count(">reconstruction<") == len(tested)
    for words in ("The encoder starts at random.", "What it takes for real", "held out",
                  "The latent has collapsed (KL 0.5e-04) (fold-0, fold-1).",
                  "outline of the true defect"):  # fmt: skip
        assert words in text
    assert "epoch that was kept" not in text


def test_what_maps_are_made_of_and_how_they_shift_is_told(write_run: WriteRun) -> None:
    folder = write_run("run")
    assert details.worth_knowing(read_run(folder)) == []
    for name, shift in (("fold-0", 1.0), ("fold-1", 1.5), ("final", None)):
        file = folder / name / "metrics.json"
        metrics = json.loads(file.read_text())
        metrics["remarks"] |= {"map_source": "colorization (unet)", "map_shift": shift}
        file.write_text(json.dumps(metrics))
    source, brightness = details.worth_knowing(read_run(folder))
    assert source == "The maps come from colorization (unet)."
    assert "1.25 times as bright" in brightness


def test_a_run_with_test_images_but_no_folds_has_a_page_without_sd(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_run("run", folds=0, final_tested=True)))
    assert "test images kept from training" in page.text
    assert "±" not in page.text
    assert "nan" not in page.text


def test_a_run_that_tested_nothing_says_so_and_how_to_test(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_run("run", folds=0)))
    assert "Nothing was tested" in page.text
    assert "--folds 5" in page.text
    assert not {"results", "gallery"} & {a.get("id") for _, a in page.tags}


def test_a_classifier_has_no_map_and_attention_parts(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    page = read_page(write_report(write_run("run", method="classifier")))
    assert page.count("section", id="gallery") == 1
    assert page.count("section", id="attention") == 0
    assert "ΔE" not in page.text


def test_a_baseline_on_other_folds_leaves_the_old_page_alone(write_run: WriteRun) -> None:
    run = write_run("run")
    before = write_report(run).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="folds"):
        write_report(run, baseline=write_run("three", folds=3))
    assert (run / "report.html").read_text(encoding="utf-8") == before


def test_a_column_that_no_output_fills_is_left_out(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    assert "F1 at p = 0.5" in read_page(write_report(write_run("run"))).text
    assert "F1 at p" not in read_page(write_report(write_run("plain", method="classifier"))).text


def test_the_same_run_gives_the_same_page(write_run: WriteRun) -> None:
    run = write_run("run")
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_the_date_is_that_of_the_run(write_run: WriteRun, read_page: ReadPage) -> None:
    run = write_run("run")
    os.utime(run / "card.json", (1e9, 1e9))
    assert "2001-09-09" in read_page(write_report(run)).text


def test_the_printed_command_gives_the_configuration_of_the_run(write_run: WriteRun) -> None:
    run = read_run(write_run("run"))
    words = shlex.split(details.command(run).replace("\\\n", ""))
    assert words[:4] == ["leanet", "fit", "leanet", "some/where/leaves & stems"]
    parser = make_parser(Options, Config)
    parser.add_argument("data")
    parsed = parser.parse_args(words[3:]).as_dict()
    expected = {k: v for k, v in run.config.items() if k != "method"}
    assert flat(parsed) == flat(expected)


def test_a_warning_for_each_limit_of_the_figures(write_run: WriteRun) -> None:
    good = details.warnings(*_summarized(write_run("good", method="classifier", shift=9.0)))
    assert [w for w in good if "Only 6 anomalous" not in w] == []
    bad = " ".join(details.warnings(*_summarized(write_run("bad", shift=-3.0))))
    for words in ("hardly better than chance", "calling every image", "nearly constant at A2, A4"):
        assert words in bad


def _summarized(folder: Path) -> tuple[Any, Any]:
    from leanet.report.tables import summarize

    return read_run(folder), summarize(folder)


def test_a_method_without_training_has_sizes_and_readable_distances_and_no_epochs(
    write_run: WriteRun, read_page: ReadPage
) -> None:
    run = write_run("run", method="classifier", folds=0, final_tested=True,
                    card=(("map_thresholds", {"honest": 2.5e-5}),))  # fmt: skip
    (run / "final" / "journal.jsonl").unlink()
    file = run / "final" / "metrics.json"
    facts = read_json(file)
    facts["remarks"] |= {"bank_rows": 27440, "peak_memory_mb": 1198.3, "notices": ["half is grey"]}
    threshold = {**facts["threshold"]["score"], "value": 0.000123456}
    facts["threshold"]["score"] = threshold
    write_json(file, facts)
    write_json(run / "card.json", {**read_json(run / "card.json"), "threshold": threshold})
    page = read_page(write_report(run))
    assert page.count("section", id="training") == 0
    assert "Epochs" not in page.text
    for told in ("Entries of the bank", "27,440", "1,198.3", "0.000123", "Half is grey."):
        assert told in page.text, told
    assert "Epochs" in read_page(write_report(write_run("plain", method="classifier"))).text


def test_guided_attention_is_told_without_w(write_run: WriteRun, read_page: ReadPage) -> None:
    guided = read_page(write_report(write_run("guided", guided=True))).text
    layers = read_page(write_report(write_run("layers"))).text
    for words in ("corrected by features of the places", "multiplied by M", "counts 0.947 times"):
        assert words in guided
        assert words not in layers
    for words in ("w = 1.000", "Strength w", "become (1 + w M) f"):
        assert words not in guided
        assert words in layers
