from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from leanet.data.cache import UnreadableImagesError
from leanet.data.images import read_image, read_map, resize_image
from leanet.files import read_csv, read_json
from leanet.inference.heatmap import overlay
from leanet.inference.predict import Judged, find_images, predict
from leanet.ops.calibration import Calibration
from leanet.ops.working_point import WorkingPoint
from leanet.records import Prediction

CPU = torch.device("cpu")


class Reds:
    """Score: mean red in percent; map: 40 x red at half the size; part: mean green."""

    img_size = 8

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def __call__(self, image: Tensor) -> Prediction:
        self.batch_sizes.append(len(image))
        red = nn.functional.avg_pool2d(image[:, :1], 2)
        parts = {"green": image[:, 1].mean(dim=(1, 2))}
        return Prediction(100 * red.mean(dim=(1, 2, 3)), 40 * red, parts=parts)


class Classifier(Reds):
    """The same without a map."""

    def __call__(self, image: Tensor) -> Prediction:
        return super().__call__(image)._replace(map=None)


class Network(nn.Module):
    """Convolution, batch norm and dropout: wrong in training mode."""

    img_size = 16

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(1))
            self.layers(torch.rand(4, 3, self.img_size, self.img_size))

    def forward(self, image: Tensor) -> Prediction:
        return Prediction(self.layers(image)[:, 0])


def save(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=None if path.suffix else "PNG")
    return path


def many(folder: Path, count: int) -> list[Path]:
    return [save(folder / f"{k}.png", seed=k) for k in range(count)]


def judged(detector: Any, paths: list[Path], out: Path, **options: Any) -> list[Judged]:
    options = {"tell": lambda _: None, **options}
    point = options.pop("point", WorkingPoint(options.pop("threshold", 50.0)))
    return predict(detector, paths, point=point, out=out, device=CPU, **options)


def shrunk(path: Path) -> NDArray[np.float32]:
    return np.asarray(resize_image(read_image(path), 8) / 255, dtype=np.float32)


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


# Which images


def test_a_folder_stands_for_its_visible_images_at_any_depth_in_natural_order(
    tmp_path: Path,
) -> None:
    for name in ("b/10.png", "b/9.JPG", "a/x/1.tif", ".hidden/2.png", "b/.3.png", "__MACOSX/4.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert names(find_images([tmp_path]), tmp_path) == ["a/x/1.tif", "b/9.JPG", "b/10.png"]


def test_files_come_in_the_order_given_and_each_once(tmp_path: Path) -> None:
    first, second = save(tmp_path / "1.png"), save(tmp_path / "2.png")
    found = find_images([str(second), tmp_path, first, second])
    assert found == [second, first]


def test_a_glob_reaches_any_depth_and_takes_images_only(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.png", "3.png", "a/b/4.bmp"):
        save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert names(find_images([tmp_path / "**" / "*.png"]), tmp_path) == [
        "3.png",
        "a/1.png",
        "a/b/2.png",
    ]
    assert names(find_images([tmp_path / "a" / "*"]), tmp_path) == [
        "a/1.png",
        "a/b/2.png",
        "a/b/4.bmp",
    ]


def test_a_file_with_the_letters_of_a_glob_in_its_name_is_that_file(tmp_path: Path) -> None:
    path = save(tmp_path / "part[1]*.png")
    save(tmp_path / "part1.png")
    assert find_images([path]) == [path]


def test_a_file_named_outright_needs_no_suffix(tmp_path: Path) -> None:
    assert find_images([save(tmp_path / "IM0001")]) == [tmp_path / "IM0001"]


def test_the_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save(tmp_path / "pictures" / "1.png")
    assert find_images(["~/pictures"]) == find_images(["~/pictures/*.png"]) == [path]


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert names(find_images([tmp_path / "a"]), tmp_path) == ["a/1.png"]


def test_what_does_not_exist_is_named_with_a_near_name(tmp_path: Path) -> None:
    save(tmp_path / "image.png")
    with pytest.raises(ValueError, match=r"imgae\.png does not exist \(did you mean image\.png"):
        find_images([tmp_path / "image.png", tmp_path / "imgae.png"])


def test_folders_and_globs_without_images_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError) as caught:
        find_images([tmp_path / "empty", tmp_path / "*.png"])
    message = str(caught.value)
    assert f"{tmp_path / 'empty'} holds no images" in message
    assert f"{tmp_path / '*.png'} matches no images" in message
    assert message.count("\n") == 1


def test_of_very_many_missing_files_a_few_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"and 4 more") as caught:
        find_images([tmp_path / f"{k}.png" for k in range(9)])
    assert str(caught.value).count("does not exist") == 5


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no path was given"):
        find_images([])


# Scores and verdicts


def test_scores_parts_and_verdicts_are_those_of_the_resized_image(tmp_path: Path) -> None:
    paths = many(tmp_path / "in", 5)
    scores = [100 * shrunk(path)[..., 0].mean() for path in paths]
    threshold = float(np.median(scores))
    for one, path, score in zip(
        judged(Reds(), paths, tmp_path / "out", threshold=threshold), paths, scores, strict=True
    ):
        assert one.path == path
        assert one.score == pytest.approx(score, abs=1e-4)
        assert one.verdict == ("anomalous" if one.score >= threshold else "normal")
        assert one.parts == {"green": pytest.approx(shrunk(path)[..., 1].mean(), abs=1e-5)}


def test_a_score_equal_to_the_threshold_is_anomalous(tmp_path: Path) -> None:
    (path,) = many(tmp_path / "in", 1)
    (before,) = judged(Reds(), [path], tmp_path / "out")
    (after,) = judged(Reds(), [path], tmp_path / "again", threshold=before.score)
    assert after.verdict == "anomalous"
    above = math.nextafter(before.score, math.inf)
    assert judged(Reds(), [path], tmp_path / "above", threshold=above)[0].verdict == "normal"


def test_predictions_csv_says_the_same_as_the_return_value(tmp_path: Path) -> None:
    given = judged(Reds(), many(tmp_path / "in, or ünder", 3), tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert list(rows[0]) == ["path", "score", "verdict", "threshold", "green"]
    for row, one in zip(rows, given, strict=True):
        assert (Path(row["path"]), row["verdict"]) == (one.path, one.verdict)
        assert (float(row["score"]), float(row["green"])) == (one.score, one.parts["green"])
        assert float(row["threshold"]) == 50.0


def test_a_zone_and_a_calibration_have_columns_of_their_own(tmp_path: Path) -> None:
    paths = many(tmp_path / "in", 5)
    low, _, middle, _, high = sorted(one.score for one in judged(Reds(), paths, tmp_path / "a"))
    curve = Calibration(kind="platt", slope=0.5, intercept=-25.0)
    given = judged(
        Reds(), paths, tmp_path / "out", point=WorkingPoint(middle, (middle, high), curve)
    )
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    columns = ["path", "score", "verdict", "threshold", "review", "probability", "green"]
    assert list(rows[0]) == columns
    assert sorted(row["review"] for row in rows) == ["no", "no", "no", "yes", "yes"]
    for row, one in zip(rows, given, strict=True):
        assert row["review"] == ("yes" if middle <= one.score < high else "no")
        assert one.probability == pytest.approx(1 / (1 + math.exp(25 - 0.5 * one.score)))
        assert float(row["probability"]) == one.probability
    assert low < middle


def test_an_image_scores_the_same_alone_in_a_batch_and_in_another_order(tmp_path: Path) -> None:
    paths, detector = many(tmp_path / "in", 7), Network()
    options = {"heatmaps": False, "overwrite": True}
    together = {one.path: one.score for one in judged(detector, paths, tmp_path, **options)}
    backwards = judged(detector, paths[::-1], tmp_path, batch_size=3, **options)
    alone = [judged(detector, [path], tmp_path, **options)[0] for path in paths]
    assert len(set(together.values())) == 7
    for one in [*backwards, *alone]:
        assert one.score == pytest.approx(together[one.path], abs=1e-5)


def test_the_detector_computes_in_float32_even_inside_autocast(tmp_path: Path) -> None:
    paths, detector = many(tmp_path / "in", 2), Network()
    plain = judged(detector, paths, tmp_path / "a")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = judged(detector, paths, tmp_path / "b")
    assert [one.score for one in inside] == [one.score for one in plain]


def test_no_batch_is_larger_than_asked_for(tmp_path: Path) -> None:
    detector = Reds()
    judged(detector, many(tmp_path / "in", 10), tmp_path / "out", batch_size=4)
    assert detector.batch_sizes == [4, 4, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_an_error_that_names_the_image(
    tmp_path: Path, value: float
) -> None:
    class Broken(Reds):
        def __call__(self, image: Tensor) -> Prediction:
            score = torch.tensor([1.0, value, 2.0])
            return super().__call__(image)._replace(score=score)

    paths = many(tmp_path / "in", 3)
    with pytest.raises(ValueError, match=r"not finite for [^,]*1\.png;"):
        judged(Broken(), paths, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.parametrize(
    "options", [{"threshold": math.nan}, {"batch_size": 0}, {"map_top": 0.0}, {"map_top": math.nan}]
)
def test_impossible_options_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, float]
) -> None:
    detector = Reds()
    with pytest.raises(ValueError, match="must be"):
        judged(detector, many(tmp_path / "in", 1), tmp_path / "out", **options)
    assert not detector.batch_sizes
    assert not (tmp_path / "out").exists()


# Heat maps and raw maps


def test_every_image_gets_a_heat_map_at_its_own_resolution(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / "in" / "wide.png", size=(9, 31)),
        save(tmp_path / "in" / "b" / "1.bmp"),
    ]
    judged(Reds(), paths, tmp_path / "out", map_top=25.0, map_threshold=20.0)
    for path, name in zip(paths, ("wide.png", "b/1.bmp.png"), strict=True):
        red = shrunk(path)[..., 0]
        halved = 40 * red.reshape(4, 2, 4, 2).mean(axis=(1, 3))
        expected = overlay(read_image(path), halved, top=25.0, contour=20.0)
        drawn = read_image(tmp_path / "out" / "heatmaps" / name)
        assert drawn.shape == expected.shape
        assert np.abs(drawn.astype(int) - expected.astype(int)).max() <= 1


def test_equal_names_keep_pictures_of_their_own(tmp_path: Path) -> None:
    inside = ("1.png", "1.jpg", "1.jpg.png", "1.PNG", "b/1.png", "b/1.tif", "c/d/1.png")
    paths = [save(tmp_path / "in" / name, seed=k) for k, name in enumerate(inside)]
    judged(Reds(), paths, tmp_path / "out")
    drawn = names(find_images([tmp_path / "out" / "heatmaps"]), tmp_path / "out" / "heatmaps")
    assert len({name.casefold() for name in drawn}) == len(paths)
    assert {"1.png", "1.jpg.png", "b/1.png", "b/1.tif.png", "c/d/1.png"} <= set(drawn)


def test_raw_maps_come_back_exactly_with_the_scale_in_maps_json(tmp_path: Path) -> None:
    paths = many(tmp_path / "in", 5)
    judged(Reds(), paths, tmp_path / "out", maps=True, heatmaps=False, map_top=2.0, batch_size=2)
    facts = read_json(tmp_path / "out" / "maps" / "maps.json")
    assert (facts["full_scale"], facts["bits"], facts["maps"]) == (20.0, 16, 5)
    clipped = 0
    for path in paths:
        true = 40 * shrunk(path)[..., 0].reshape(4, 2, 4, 2).mean(axis=(1, 3))
        stored = read_map(tmp_path / "out" / "maps" / path.name, facts["full_scale"])
        assert np.abs(stored - np.minimum(true, 20.0)).max() <= 20 / 65535
        clipped += int((true > 20.0).sum())
    assert facts["clipped_pixels"] == clipped > 0
    assert not (tmp_path / "out" / "heatmaps").exists()


def test_a_detector_without_a_map_says_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    paths = many(tmp_path / "in", 5)
    judged(Classifier(), paths, tmp_path / "out", batch_size=2, tell=told.append)
    assert told == ["this detector draws no maps, so there are no heat maps"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_no_pictures_asked_for_means_none_and_no_note(tmp_path: Path) -> None:
    told: list[str] = []
    for k, detector in enumerate((Reds(), Classifier())):
        out = tmp_path / f"out{k}"
        judged(detector, many(tmp_path / "in", 2), out, heatmaps=False, tell=told.append)
        assert [path.name for path in out.iterdir()] == ["predictions.csv"]
    assert not told


def test_pictures_wait_in_a_queue_of_two_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, seen = threading.Event(), []

    def slow_overlay(image: NDArray[np.uint8], *_: Any, **__: Any) -> NDArray[np.uint8]:
        assert gate.wait(10)
        return image

    class Watched(Reds):
        def __call__(self, image: Tensor) -> Prediction:
            seen.append(len(image))
            return super().__call__(image)

    monkeypatch.setattr("leanet.inference.pictures.overlay", slow_overlay)
    paths = many(tmp_path / "in", 40)
    options = {"batch_size": 4}
    worker = threading.Thread(
        target=judged, args=(Watched(), paths, tmp_path / "out"), kwargs=options
    )
    worker.start()
    deadline = time.monotonic() + 10
    while sum(seen) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # in which nothing more may come
    held_at = sum(seen)
    gate.set()
    worker.join(20)
    assert held_at == 12  # two batches wait, and one is about to
    assert sum(seen) == 40


# Unreadable images and earlier results


def broken(path: Path) -> Path:
    path.write_bytes(save(path).read_bytes()[:60])
    return path


def test_unreadable_images_are_all_named_and_nothing_claims_to_be_complete(
    tmp_path: Path,
) -> None:
    paths = many(tmp_path / "in", 4)
    bad = [broken(paths[1]), broken(paths[3])]
    told: list[str] = []
    with pytest.raises(UnreadableImagesError) as caught:
        judged(Reds(), paths, tmp_path / "out", tell=told.append)
    assert [error.path for error in caught.value.errors] == bad
    assert all(str(path) in str(caught.value) for path in bad)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    rows = read_csv(tmp_path / "out" / "predictions.partial.csv")
    assert [row["score"] != "" for row in rows] == [True, False, True, False]
    assert len(told) == 1
    assert "predictions.partial.csv" in told[0]


def test_with_skip_bad_they_are_left_out_and_have_a_row(tmp_path: Path) -> None:
    paths = many(tmp_path / "in", 3)
    broken(paths[0])
    told: list[str] = []
    with pytest.raises(UnreadableImagesError):
        judged(Reds(), paths, tmp_path / "out")
    given = judged(Reds(), paths, tmp_path / "out", skip_bad=True, tell=told.append)
    assert [one.path for one in given] == paths[1:]
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert list(rows[0]) == ["path", "score", "verdict", "threshold", "green"]
    assert [row["verdict"] == "unreadable" for row in rows] == [True, False, False]
    assert rows[0]["score"] == rows[0]["green"] == ""
    assert len(told) == 1
    assert f"left out 1 unreadable image(s): {paths[0]} (" in told[0]
    assert not (tmp_path / "out" / "predictions.partial.csv").exists()


def test_earlier_predictions_are_replaced_only_when_asked(tmp_path: Path) -> None:
    paths = many(tmp_path / "in", 2)
    judged(Reds(), paths, tmp_path / "out")
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    with pytest.raises(ValueError, match=r"predictions\.csv holds earlier results.*--overwrite"):
        judged(Reds(), paths[:1], tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before
    judged(Reds(), paths[:1], tmp_path / "out", overwrite=True)
    assert len(read_csv(tmp_path / "out" / "predictions.csv")) == 1


def test_heat_maps_are_not_taken_for_images(tmp_path: Path) -> None:
    many(tmp_path, 2)
    judged(Reds(), find_images([tmp_path]), tmp_path)
    with pytest.raises(ValueError, match=r"2 of the images, such as .*lie where the heat maps"):
        judged(Reds(), find_images([tmp_path]), tmp_path, overwrite=True)


# Maps that leave out the border of the image


class Cropped(Reds):
    """Its map, as large as the image, says nothing in the outer pixel."""

    map_border = 1
    map_unit = "distance"

    def __call__(self, image: Tensor) -> Prediction:
        return (
            super()
            .__call__(image)
            ._replace(map=nn.functional.pad(image[:, :1, 1:-1, 1:-1], [1] * 4))
        )


def test_a_border_that_is_not_looked_at_is_told_grey_and_written_down(tmp_path: Path) -> None:
    told: list[str] = []
    paths = [save(tmp_path / "in" / f"{k}.png", seed=k, size=(16, 16)) for k in range(3)]
    judged(Cropped(), paths, tmp_path / "out", maps=True, map_top=2.0, tell=told.append)
    assert len(told) == 1
    assert "does not cover the outer 12.5 % of each side (1 of 8 px)" in told[0]
    heat = read_image(tmp_path / "out" / "heatmaps" / "0.png")
    assert (heat[:2] == heat[:2, :, :1]).all()
    facts = read_json(tmp_path / "out" / "maps" / "maps.json")
    assert facts["valid"] == [1, 1, 7, 7]  # left, top, right, bottom of a map of 8 px
    assert (facts["unit"], facts["full_scale"]) == ("distance", 20.0)
