from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from leanet.inference.engines import OPEN, SHARE, divided, need, open_torch
from leanet.inference.export_files import traced, write
from leanet.inference.export_graph import Format, Graph, facts_of, outputs_of, vector_images
from leanet.ops.working_point import WorkingPoint
from leanet.trained import Engine


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(ValueError, match=r"no_such_package is not installed.*pip install 'leanet"):
        need("no_such_package")


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.ReLU(), (torch.rand(2),)), file)
    with pytest.raises(ValueError, match="was not written by `leanet export`"):
        open_torch(file)


def test_every_engine_can_be_opened() -> None:
    engines: tuple[str, ...] = Engine.__args__  # type: ignore[attr-defined]
    assert set(engines) <= set(OPEN)


class Calls:
    """Two ways to give the mean of every image, which note how many images came."""

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.single: list[int] = []
        self.opened = 0

    def run_whole(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        self.whole.append(len(image))
        return {"score": image.mean(axis=(1, 2, 3))}

    def open_single(self) -> Any:
        self.opened += 1
        return self._run_single

    def _run_single(self, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        self.single.append(len(image))
        return {"score": image.mean(axis=(1, 2, 3))}


def test_a_large_batch_is_divided_among_the_threads_and_keeps_its_order() -> None:
    calls, image = Calls(), np.random.default_rng(0).random((14, 3, 4, 4), dtype=np.float32)
    run = divided(calls.run_whole, calls.open_single, threads=3)
    for _ in range(2):
        np.testing.assert_array_equal(run(image)["score"], image.mean(axis=(1, 2, 3)))
    assert sorted(calls.single) == [4, 4, 5, 5, 5, 5]
    assert (calls.opened, calls.whole) == (1, [])


def test_a_small_batch_and_a_single_thread_stay_whole() -> None:
    calls, image = Calls(), np.zeros((3 * SHARE - 1, 3, 4, 4), dtype=np.float32)
    divided(calls.run_whole, calls.open_single, threads=3)(image)
    divided(calls.run_whole, calls.open_single, threads=1)(np.repeat(image, 9, axis=0))
    assert (calls.whole, calls.opened) == ([11, 99], 0)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_image_has_the_same_scores_alone_and_in_a_divided_batch(
    kind: Format, tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxscript", "onnxruntime" if kind == "onnx" else "openvino"):
        pytest.importorskip(module)
    graph, image = Graph(tiny, WorkingPoint(0.5)), torch.rand(2 * SHARE + 1, 3, 16, 16).numpy()
    facts = facts_of(
        tiny,  # type: ignore[arg-type]
        {},
        graph.point,
        "",
        outputs_of(graph, vector_images(16)),
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    session = OPEN[kind](write(traced(graph, 16), kind, tmp_path, facts))
    found, expected = session.run(image), outputs_of(graph, image)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
        alone = np.concatenate([session.run(image[k : k + 1])[name] for k in range(len(image))])
        np.testing.assert_allclose(found[name], alone, rtol=1e-6, atol=1e-7)
