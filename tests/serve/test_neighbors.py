from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leanet.data.images import read_image, write_image
from leanet.files import write_csv
from leanet.ops.embedding import lab_thumbnail
from leanet.serve import neighbors
from leanet.serve.live import Live, Model, shown
from leanet.serve.neighbors import Neighbors

SIDE = 16


class Featured:
    """A detector with features: the mean color."""

    img_size = SIDE

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, image: Tensor) -> Tensor:
        self.seen += len(image)
        return image.mean(dim=(2, 3))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten normal pictures from dark to bright, one of them a test, and two anomalous ones."""
    rows = []
    for k in range(12):
        label, split = int(k >= 10), "test" if k == 9 else ""
        write_image(tmp_path / f"data/{k}.png", np.full((20, 24, 3), 20 * k, dtype=np.uint8))
        rows.append({"path": f"{k}.png", "label": label, "kind": "", "mask": "", "group": "",
                     "split": split})  # fmt: skip
    write_csv(tmp_path / "run/samples.csv", rows)
    (tmp_path / "run/config.yaml").write_text(f"data: {tmp_path / 'data'}\n")
    return tmp_path / "run"


@pytest.fixture
def model(make_model: Callable[..., Model], run: Path) -> Model:
    return make_model(Featured())._replace(run=run)


def look(near: Neighbors, model: Model, value: int, count: int = 1) -> list[str]:
    picture = shown(model, np.full((30, 30, 3), value, dtype=np.uint8))
    return [path.name for path, _ in near.nearest(picture, count)]


def test_the_nearest_are_normal_training_pictures_nearest_first(
    model: Model, tmp_path: Path
) -> None:
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    assert look(near, model, 61, 3) == ["3.png", "4.png", "2.png"]
    assert look(near, model, 255, 2) == ["8.png", "7.png"]  # 9 is a test, 10 and 11 are anomalous
    assert len(look(near, model, 0, 50)) == 9


def test_a_picture_of_the_run_is_its_own_neighbor_at_no_distance(
    model: Model, run: Path, tmp_path: Path
) -> None:
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    path = run.parent / "data/5.png"
    (found,) = near.nearest(shown(model, read_image(path)))
    assert found == (path, pytest.approx(0.0, abs=1e-5))


def test_descriptions_are_kept_and_made_anew_when_the_images_change(
    model: Model, run: Path, tmp_path: Path
) -> None:
    assert Neighbors(Live(model), tmp_path / "state").wait(10)
    assert model.detector.seen == 9  # type: ignore[attr-defined]
    again = Neighbors(Live(model), tmp_path / "state")
    assert again.wait(10)
    assert model.detector.seen == 9  # type: ignore[attr-defined]
    assert look(again, model, 61) == ["3.png"]
    write_image(run.parent / "data/3.png", np.full((9, 9, 3), 200, dtype=np.uint8))
    changed = Neighbors(Live(model), tmp_path / "state")
    assert changed.wait(10)
    assert look(changed, model, 61) == ["4.png"]


def test_a_spoiled_file_of_descriptions_is_made_anew(model: Model, tmp_path: Path) -> None:
    (tmp_path / "state/neighbors").mkdir(parents=True)
    (tmp_path / "state/neighbors/original.safetensors").write_bytes(b"spoiled")
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    assert look(near, model, 61) == ["3.png"]


def test_pictures_that_are_gone_are_left_out(model: Model, run: Path, tmp_path: Path) -> None:
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    (run.parent / "data/3.png").unlink()
    assert look(near, model, 61) == ["4.png"]


def test_a_detector_without_features_compares_colors(
    make_model: Callable[..., Model], run: Path, tmp_path: Path
) -> None:
    model = make_model()._replace(run=run)
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    picture = shown(model, np.full((30, 30, 3), 100, dtype=np.uint8))
    ((path, distance),) = near.nearest(picture)
    image = torch.full((2, 3, SIDE, SIDE), 100 / 255)
    assert path.name == "5.png"
    assert distance == pytest.approx(torch.cdist(*lab_thumbnail(image).split(1)).item(), abs=1e-3)


def test_many_images_are_thinned_out(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "MOST", 3)
    near = Neighbors(Live(model), tmp_path / "state")
    assert near.wait(10)
    assert look(near, model, 0, 9) == ["0.png", "4.png", "8.png"]


def test_nothing_is_known_until_it_is_ready_and_nothing_if_stopped(
    model: Model, tmp_path: Path
) -> None:
    go = threading.Event()

    class Slow(Featured):
        def embed(self, image: Tensor) -> Tensor:
            go.wait(10)
            return super().embed(image)

    slow = model._replace(detector=Slow())
    near = Neighbors(Live(slow), tmp_path / "state")
    near.start()
    assert look(near, slow, 61) == []
    go.set()
    assert near.wait(10)
    assert look(near, slow, 61) == ["3.png"]
    stopped = Neighbors(Live(model), tmp_path / "elsewhere")
    stopped.stop()
    assert not stopped.wait(0.1)


def test_it_follows_the_live_model(
    model: Model, make_model: Callable[..., Model], tmp_path: Path
) -> None:
    live = Live(model)
    near = Neighbors(live, tmp_path / "state")
    assert near.wait(10)
    other = make_model(Featured(), name="001")._replace(run=tmp_path / "gone")
    live.switch(other)
    assert look(near, other, 61) == []
    assert not near.wait(10)


def test_a_run_whose_images_are_gone_has_no_neighbors(
    model: Model, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (run.parent / "data").iterdir():
        path.unlink()
    near = Neighbors(Live(model), tmp_path / "state")
    assert not near.wait(10)
    assert look(near, model, 61) == []
    assert "no nearest normal pictures" in caplog.text
