from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import nn

from leanet.data.scan import read_samples_csv
from leanet.inference.engines import open_onnx
from leanet.inference.export_images import decoded
from leanet.inference.parity import check_vectors
from leanet.inference.quantize import Split, describe_int8, export_int8, split_for_int8
from leanet.ops.metrics import auroc
from leanet.records import ANOMALOUS, NORMAL, Sample


def samples_of(normal: int, anomalous: int, split: str | None = None) -> list[Sample]:
    labels = [NORMAL] * normal + [ANOMALOUS] * anomalous
    return [Sample(path=Path(f"{split}{k}"), label=y, split=split) for k, y in enumerate(labels)]


def test_the_training_part_calibrates_and_the_test_part_is_judged() -> None:
    train, test = samples_of(5, 2, "train"), samples_of(3, 3, "test")
    assert split_for_int8(train + test) == Split(tuple(train[:5]), tuple(test))


def test_without_parts_no_image_does_both() -> None:
    samples = samples_of(7, 2)
    split = split_for_int8(samples)
    assert [samples.index(one) for one in split.calibrating] == [0, 3, 6]
    assert sorted(samples.index(one) for one in split.judged) == [1, 2, 4, 5, 7, 8]


@pytest.mark.parametrize(("normal", "anomalous"), [(0, 5), (5, 0), (1, 5)])
def test_too_few_images_are_refused(normal: int, anomalous: int) -> None:
    with pytest.raises(ValueError, match=f"{normal} normal and {anomalous} anomalous images"):
        split_for_int8(samples_of(normal, anomalous))


def test_a_detector_without_a_normal_class_is_refused(
    tiny: nn.Module, card: dict[str, Any], tmp_path: Path
) -> None:
    card["threshold"] = None
    with pytest.raises(ValueError, match="AUROC, which needs a normal class"):
        export_int8(tiny, tmp_path, card, tmp_path, tmp_path, Split((), ()))


@pytest.mark.slow
def test_eight_bits_are_close_and_their_cost_is_stated(
    tiny: nn.Module, card: dict[str, Any], make_run: Callable[[], Path]
) -> None:
    run = make_run()
    split = split_for_int8(read_samples_csv(run / "samples.csv", run.parent / "data"))
    written = export_int8(tiny, run, card, run / "export", run / "weights", split)
    assert [file.name for file in written.file.parent.iterdir()] == ["model-int8.onnx"]
    session = open_onnx(written.file)
    check_vectors(session, "it")
    image, labels = decoded(split.judged, 16), [sample.label for sample in split.judged]
    score = session.run(image)["score"]
    told = written.record["int8"]
    assert told["layers"] == 1
    assert told["auroc_int8"] == auroc(labels, score)
    assert f"{told['auroc_int8']:.4f} in 8 bits" in describe_int8(written)
    kinds = {node.op_type for node in onnx.load(written.file).graph.node}
    assert "DequantizeLinear" in kinds
