from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from leanet.files import read_json, write_json
from leanet.report import gallery, pictures
from leanet.report.run import Trial, read_run

WriteRun = Callable[..., Path]


def decoded(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def shown(score: float, label: int, **arrays: NDArray[np.float32]) -> gallery.Shown:
    image = Trial(
        path=f"{label}.png", fold="fold-0", label=label, kind="", alarm=score >= 0,
        threshold=0.0, scores={"score": score},
    )  # fmt: skip
    return gallery.Shown(image, {"image": np.zeros((3, 64, 64), np.uint8), **arrays})


def test_the_gallery_falls_in_score_and_prefers_errors() -> None:
    images = [shown(score, 0) for score in np.linspace(-3, 1, 60)]
    images += [shown(score, 1) for score in np.linspace(-1, 3, 20)]
    errors = [s for s in images if s.image.wrong]
    chosen = gallery.choose(images)
    scores = [s.image.scores["score"] for s in chosen]
    assert scores == sorted(scores, reverse=True)
    assert len(chosen) == gallery.MOST_CARDS
    assert sum(s.image.wrong for s in chosen) == min(len(errors), gallery.MOST_ERRORS)


def test_few_errors_are_all_shown_beside_the_ends_and_the_closest_to_the_threshold() -> None:
    images = [shown(score, 0) for score in np.linspace(-3, 0.1, 60)]
    images += [shown(score, 1) for score in np.linspace(0.2, 3, 20)]
    chosen = gallery.choose(images)
    assert {id(s) for s in images if s.image.wrong} <= {id(s) for s in chosen}
    right = [s for s in images if not s.image.wrong]
    closest = min(right, key=lambda s: abs(s.image.margin))
    assert all(any(s is c for c in chosen) for s in (right[0], right[-1], closest))


def test_a_small_gallery_shows_everything_once() -> None:
    images = [shown(score, 1) for score in (-1.0, 0.5, 2.0)]
    assert [s.image.scores["score"] for s in gallery.choose(images)] == [2.0, 0.5, -1.0]
    assert gallery.choose([]) == []


def test_the_map_view_has_the_middle_image_of_every_kind_the_normal_ones_first() -> None:
    plane = np.ones((1, 64, 64), np.float32)
    images = []
    for label, kind, scores in ((1, "b", (3, 1, 2)), (1, "a", (5,)), (0, "good", (0, 4, -9, 2, 1))):
        for score in scores:
            one = shown(score, label, map=plane, repainted=np.zeros((3, 64, 64), np.float32))
            images.append(one._replace(image=replace(one.image, kind=kind)))
    view = gallery.typical(images, top=2.0)
    assert [(card.image.kind, card.image.scores["score"]) for card in view] == [
        ("good", 1), ("a", 5), ("b", 2)]  # fmt: skip
    for card in view:
        assert [picture.name for picture in card.pictures] == ["image", "repainted", "map"]
    assert gallery.typical([shown(1, 0)], top=2.0) == []


def test_equal_map_values_have_one_color_in_every_image() -> None:
    low = np.full((1, 64, 64), 5.0, np.float32)
    high = low.copy()
    high[0, :32] = 50.0
    dark, bright = (
        next(decoded(p.uri) for p in card.pictures if p.name == "map")
        for card in gallery.cards([shown(1, 1, map=low), shown(1, 1, map=high)], top=20.0)
    )
    assert np.abs(dark[-8:].astype(int) - bright[-8:].astype(int)).max() <= 3  # JPEG
    assert bright[0].mean() > dark[0].mean() + 50


def test_the_map_scale_is_the_runs_own_or_covers_almost_all_pixels(write_run: WriteRun) -> None:
    run = read_run(write_run("run", card=(("map_top", 12.5),)))
    assert gallery.map_top(run, gallery.load_shown(run)) == 12.5
    run = read_run(write_run("other"))
    kept = gallery.load_shown(run)
    pixels = np.concatenate([s.arrays["map"].ravel() for s in kept])
    top = gallery.map_top(run, kept)
    assert np.quantile(pixels, 0.998) <= top <= 1.1 * pixels.max()


def test_attention_is_drawn_on_zero_to_one_with_its_range_in_words() -> None:
    attention = np.array([[[0.0, 1.0], [0.5, 0.6]]], np.float32)
    card = gallery.cards([shown(1, 1, **{"attention A4": attention})], top=1.0)[0]
    picture = next(p for p in card.pictures if p.name == "attention A4")
    expected = mpl.colormaps["viridis"](attention[0], bytes=True)[..., :3]
    assert np.array_equal(decoded(picture.uri), expected)
    assert picture.note == "0.000 to 1.000"
    assert picture.exact


def test_attention_beyond_one_has_one_scale_for_all_images() -> None:
    flat, steep = (np.array([[[low, 2.0 - low]]], np.float32) for low in (1.0, 0.0))
    images = [shown(1, 1, **{"attention A4": plane}) for plane in (flat, steep)]
    ends = gallery.scales(images)
    assert ends.attention == pytest.approx(2.0)
    for plane, card in zip((flat, steep), gallery.cards(images, top=1.0), strict=True):
        picture = next(p for p in card.pictures if p.name == "attention A4")
        expected = mpl.colormaps["viridis"](plane[0] / ends.attention, bytes=True)[..., :3]
        assert np.array_equal(decoded(picture.uri), expected)


def test_evidence_is_grey_at_zero_red_for_anomalous_and_blue_against() -> None:
    evidence = np.array([[[0.0, 3.0], [-3.0, 1.0]]], np.float32)
    (card,) = gallery.cards([shown(1, 1, evidence=evidence)], top=1.0)
    picture = next(p for p in card.pictures if p.name == "evidence")
    colors = decoded(picture.uri).astype(int)
    assert np.ptp(colors[0, 0]) < 5
    assert colors[0, 1, 0] > colors[0, 1, 2] + 100
    assert colors[1, 0, 2] > colors[1, 0, 0] + 100
    assert picture.note == "mean +0.25"


def test_attention_at_its_own_grid_is_shown_over_the_image_and_cell_by_cell() -> None:
    attention = np.array([[[0.0, 1.0], [0.5, 0.6]]], np.float32)
    one = shown(1, 1, attention_normal=attention, map=np.zeros((1, 64, 64), np.float32))
    card = gallery.cards([one], top=1.0)[0]
    assert [p.name for p in card.pictures] == [
        "image", "map", "overlay", "attention: normal", "its 2 × 2 cells"]  # fmt: skip
    laid, cells = card.pictures[-2:]
    viridis = mpl.colormaps["viridis"]
    expected = viridis(attention[0], bytes=True)[..., :3]
    assert np.array_equal(decoded(cells.uri), expected)
    assert (cells.note, cells.exact) == ("0.000 to 1.000", True)
    corner = np.array(viridis(1.0)[:3]) * 255 * pictures.TINT  # over a black image
    assert np.abs(decoded(laid.uri)[2, -3] - corner).max() <= 6  # JPEG
    assert gallery.has_grids([one])
    assert not gallery.has_grids([shown(1, 1)])


def test_maps_that_end_at_one_are_told_with_three_decimals() -> None:
    plane = np.full((1, 64, 64), 0.0625, np.float32)
    for top, note in ((1.0, "mean 0.062"), (30.0, "mean 0.1")):
        card = gallery.cards([shown(1, 1, map=plane)], top=top)[0]
        assert next(p.note for p in card.pictures if p.name == "map") == note


def test_the_outline_of_a_mask_lies_around_it_on_map_and_overlay() -> None:
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 20:30, 20:30] = 1
    plane = np.zeros((1, 64, 64), np.float32)
    with_mask, without = shown(1, 1, map=plane, mask=mask), shown(1, 1, map=plane, mask=0 * mask)
    for name in ("map", "overlay"):
        marked, plain = (
            next(decoded(p.uri) for p in gallery.cards([s], 1.0)[0].pictures if p.name == name)
            for s in (with_mask, without)
        )
        difference = np.abs(marked.astype(int) - plain.astype(int)).max(axis=2) > 100
        assert difference[19, 19:31].all()
        assert not difference[22:28, 22:28].any()
        assert not difference[34:].any()
    assert gallery.has_masks([with_mask])
    assert not gallery.has_masks([without])


def test_before_and_after_share_the_scale_of_both(write_run: WriteRun) -> None:
    run = read_run(write_run("run", points=("A2",)))
    kept = gallery.load_shown(run)
    for example in gallery.examples(run, kept, top=20.0):
        arrays = next(s.arrays for s in kept if s.image is example.image)
        before, after = arrays["before A2"][0], arrays["after A2"][0]
        view = example.points[0]
        assert (view.low, view.high) == pytest.approx((before.min(), after.max()))
        for plane, uri in ((before, view.before), (after, view.after)):
            share = (plane - view.low) / (view.high - view.low)
            expected = mpl.colormaps["cividis"](share, bytes=True)[..., :3]
            assert np.abs(decoded(uri).astype(int) - expected.astype(int)).max() <= 1


def test_the_attention_view_shows_both_labels_every_point_and_w(write_run: WriteRun) -> None:
    run = read_run(write_run("run", points=("A1", "A2", "A5")))
    found = gallery.examples(run, gallery.load_shown(run), top=20.0)
    assert [example.image.label for example in found] == [1, 1, 0]
    for example in found:
        assert [(point.name, point.strength) for point in example.points] == [
            ("A1", 1.0), ("A2", 1.0), ("A5", 1.0)]  # fmt: skip
        assert [p.name for p in example.pictures] == ["image", "map", "overlay"]


def test_a_detector_without_maps_and_attention_has_images_only(write_run: WriteRun) -> None:
    run = read_run(write_run("run", method="classifier"))
    kept = gallery.load_shown(run)
    assert {p.name for card in gallery.cards(kept, 1.0) for p in card.pictures} == {"image"}
    assert gallery.examples(run, kept, 1.0) == []
    assert gallery.map_top(run, kept) > 0


def test_an_overlay_leaves_the_image_where_the_map_is_zero() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    plane = np.zeros((6, 6), np.float32)
    plane[0] = 99.0
    mixed = pictures.overlay(image, plane, top=10.0)
    assert np.array_equal(mixed[1:], image[1:])
    last = np.array(mpl.colormaps["inferno"](1.0)[:3]) * 255
    assert np.abs(mixed[0] - (0.25 * image[0] + 0.75 * last)).max() <= 1.5


def test_a_flat_plane_on_a_scale_without_width_has_the_first_color() -> None:
    plane = np.full((2, 2), 7.0, np.float32)
    first = np.array(mpl.colormaps["cividis"](0.0, bytes=True)[:3])
    assert (pictures.colorize(plane, 7.0, 7.0, "cividis") == first).all()


def test_large_photos_are_reduced_and_keep_their_shape() -> None:
    photo = decoded(pictures.photo_uri(np.zeros((300, 600, 3), np.uint8)))
    assert photo.shape == (pictures.MOST_PIXELS // 2, pictures.MOST_PIXELS, 3)


def test_what_a_map_does_not_cover_is_grey_and_in_no_figure() -> None:
    plane = np.full((1, 64, 64), 2.0, np.float32)
    plane[0, :8] = plane[0, -8:] = plane[0, :, :8] = plane[0, :, -8:] = 0
    one = shown(1, 1, map=plane)._replace(border=8)
    card = {p.name: p for p in gallery.cards([one], top=4.0)[0].pictures}
    colored, mixed = decoded(card["map"].uri), decoded(card["overlay"].uri)
    assert np.abs(colored[:6].astype(int) - 128).max() <= 4  # JPEG
    assert np.ptp(mixed[:6].astype(int), axis=2).max() <= 6
    assert np.ptp(colored[12:52, 12:52].astype(int), axis=2).min() > 40
    assert card["map"].note == "mean 2.000"
    assert gallery.covered_map(one).shape == (48, 48)


def test_maps_of_distances_are_drawn_from_the_normal_median_on(write_run: WriteRun) -> None:
    run = write_run("run")
    assert gallery.map_low(read_run(run)) == 0.0
    for name, low in (("fold-0", 4.0), ("fold-1", 6.0)):
        file = run / name / "metrics.json"
        write_json(file, {**read_json(file), "map_low": low})
    assert gallery.map_low(read_run(run)) == 5.0
    plane = np.full((1, 64, 64), 5.0, np.float32)
    card = {p.name: p for p in gallery.cards([shown(1, 1, map=plane)], 9.0, 5.0)[0].pictures}
    first = np.array(mpl.colormaps["inferno"](0.0, bytes=True)[:3]).astype(int)
    assert np.abs(decoded(card["map"].uri).astype(int) - first).max() <= 4
    assert decoded(card["overlay"].uri).max() <= 4  # the image is black and stays so
