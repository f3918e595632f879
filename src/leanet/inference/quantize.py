"""A detector in 8 bits, and what that costs.

The convolutions and fully connected layers of the networks get 8-bit weights, one scale for each
channel, and 8-bit activations, whose ranges come from normal images (ONNX Runtime's static
quantization, QDQ). Everything that turns their outputs into a map and a score stays float32:
CIEDE2000, distances to a bank, fusion. No parity is claimed. What is lost is measured on labelled
images, in the same way for both files, and stated.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanet.inference.engines import Session, need, open_onnx
from leanet.inference.export import INT8_FILE, Written, make, move, record_of, work_in
from leanet.inference.export_graph import FACTS, INPUT, summary, vector_images
from leanet.inference.export_images import decoded
from leanet.ops.metrics import auroc
from leanet.records import ANOMALOUS, NORMAL, Sample

ENGINE = "onnx_int8"
MOST_CALIBRATING = 100
CALIBRATING_PART = 3  # without a training part every third normal image
TOLERANCE = 0.1  # of the test images: 8-bit arithmetic differs between processors
BATCH = 8
_LAYERS = ("Conv", "Gemm", "MatMul")


class Split(NamedTuple):
    """Normal images that ranges are taken from, and labelled ones that are judged; none in both."""

    calibrating: tuple[Sample, ...]
    judged: tuple[Sample, ...]


class Loss(NamedTuple):
    """Float against 8 bits over `images` labelled images, `anomalous` of them bad: AUROC of both,
    verdicts that changed; and the ratios float / 8 bits of size and of time per image."""

    images: int
    anomalous: int
    auroc_float: float
    auroc_int8: float
    verdicts: int
    smaller: float
    faster: float

    def __str__(self) -> str:
        lost = self.auroc_int8 - self.auroc_float
        return (
            f"AUROC {self.auroc_float:.4f} in float32, {self.auroc_int8:.4f} in 8 bits "
            f"({lost:+.4f}) on {self.images} images, {self.anomalous} of them anomalous; "
            f"{self.verdicts} verdicts changed; {self.smaller:.1f}x smaller, "
            f"{self.faster:.2f}x as fast here"
        )


def split_for_int8(samples: Sequence[Sample]) -> Split:
    """Which of labelled images calibrate and which are judged: the training part and the test
    part, or, where they have none, every third normal image and all others.

    Raises:
        ValueError: no normal images to calibrate by, or not both kinds to judge.
    """
    normal = [sample for sample in samples if sample.label == NORMAL]
    tested = [sample for sample in samples if sample.split == "test"]
    calibrating = [sample for sample in normal if sample.split == "train"]
    if not tested or not calibrating:
        calibrating = normal[::CALIBRATING_PART]
        tested = [sample for sample in samples if sample not in calibrating]
    if not calibrating or len({sample.label for sample in tested}) < 2:
        raise ValueError(
            f"--data has {len(normal)} normal and {len(samples) - len(normal)} anomalous images; "
            "give normal images to take ranges from, and others of both kinds to judge"
        )
    return Split(tuple(calibrating[:MOST_CALIBRATING]), tuple(tested))


def export_int8(
    detector: Any, run: Path, card: Mapping[str, Any], out: Path, weights: Path, split: Split
) -> Written:
    """Write `INT8_FILE` into the folder `out`, by way of a float file that must pass its parity.

    Raises:
        ValueError: as `leanet.inference.export.export_detector`; nothing to quantize; a detector
            without a normal class.
    """
    if card["threshold"] is None:
        raise ValueError("what 8 bits cost is told by AUROC, which needs a normal class")
    with work_in(out) as work:
        made = make(detector, run, card, "onnx", work, weights)
        layers = _layers_of(made.file, [name for name, _ in made.graph.named_parameters()])
        file = work / INT8_FILE
        _quantize(made.file, file, layers, decoded(split.calibrating, detector.img_size))
        facts = _restate(file, made.facts)
        loss = _loss(open_onnx(made.file), open_onnx(file), split.judged, work)
        move(work, out, [INT8_FILE])
    record = record_of(out / INT8_FILE, run, facts, (out / INT8_FILE).stat().st_size)
    layers_told = {"layers": len(layers), "calibrated_on": len(split.calibrating)}
    return Written(out / INT8_FILE, record | {"int8": {**layers_told, **loss._asdict()}})


def describe_int8(written: Written) -> str:
    """What was written and what it costs, and that the threshold may have to move."""
    told = {k: v for k, v in written.record["int8"].items() if k in Loss._fields}
    loss = Loss(**told)
    text = f"wrote {written.file} ({written.record['bytes'] / 1e6:.1f} MB)\n{loss}"
    if loss.verdicts:
        text += (
            "\nscores have moved and the threshold has not: look at the verdicts, and if need be "
            "choose another with `leanet threshold RUN --value SCORE`"
        )
    return text


def _layers_of(file: Path, parameters: Sequence[str]) -> list[str]:
    """The nodes whose weights are parameters of a network."""
    known = set(parameters)
    nodes = need("onnx").load(file).graph.node
    layers = [n.name for n in nodes if n.op_type in _LAYERS and known & set(n.input)]
    if not layers:
        raise ValueError("this detector has no convolution or linear layer to quantize")
    return layers


def _quantize(
    source: Path, target: Path, layers: Sequence[str], images: NDArray[np.float32]
) -> None:
    quantization = need("onnxruntime.quantization")
    batches = iter([{INPUT: images[k : k + BATCH]} for k in range(0, len(images), BATCH)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(batches, None)

    logging.disable(logging.WARNING)  # advice about preprocessing, which is for other exporters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantization.quantize_static(
                source,
                target,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                nodes_to_quantize=list(layers),
            )
    finally:
        logging.disable(logging.NOTSET)


def _restate(file: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Put the facts into a quantized file, with its own answers to the test images."""
    onnx = need("onnx")
    answers = summary(open_onnx(file).run(vector_images(facts["img_size"])))
    vectors = {**facts["test_vectors"], "tolerance": TOLERANCE, "expected": answers}
    facts = {**facts, "int8": True, "test_vectors": vectors}
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {FACTS: json.dumps(facts)})
    onnx.save(model, file)
    return facts


def _loss(exact: Session, coarse: Session, judged: Sequence[Sample], work: Path) -> Loss:
    scores: dict[str, list[NDArray[Any]]] = {"score": [], "verdict": []}
    labels: list[int] = []
    seconds = []
    for samples, image in _batches(judged, exact.facts["img_size"]):
        found = []
        for session in (exact, coarse):
            started = time.process_time()
            found.append(session.run(image))
            seconds.append(time.process_time() - started)
        for name, kept in scores.items():
            kept.append(np.stack([one[name] for one in found]))
        labels += [sample.label for sample in samples]
    truth = np.array(labels) == ANOMALOUS
    score, verdict = (np.concatenate(kept, axis=1) for kept in scores.values())
    sizes = [(work / name).stat().st_size for name in ("model.onnx", INT8_FILE)]
    pairs = np.array(seconds).reshape(-1, 2)
    return Loss(
        len(truth),
        int(truth.sum()),
        float(auroc(truth, score[0])),
        float(auroc(truth, score[1])),
        int((verdict[0] != verdict[1]).sum()),
        sizes[0] / sizes[1],
        float(np.median(pairs[:, 0] / np.maximum(pairs[:, 1], 1e-9))),
    )


def _batches(
    samples: Sequence[Sample], side: int
) -> Iterator[tuple[Sequence[Sample], NDArray[np.float32]]]:
    for start in range(0, len(samples), BATCH):
        chosen = samples[start : start + BATCH]
        yield chosen, decoded(chosen, side)
