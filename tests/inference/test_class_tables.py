from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from leanet.files import read_csv
from leanet.inference.class_tables import numbers_of, probabilities, write_class_tables
from leanet.records import ANOMALOUS, Sample

CLASSES = ("healthy", "rust2", "rust10")


def test_the_tables_have_the_true_names_in_rows_and_the_predicted_in_columns(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    true, probs = random.integers(0, 3, 60), random.dirichlet(np.ones(3), 60)
    figures = write_class_tables(tmp_path, CLASSES, true.tolist(), probs)
    predicted = probs.argmax(axis=1)
    rows = read_csv(tmp_path / "confusion.csv")
    assert [row["true"] for row in rows] == list(CLASSES)
    counts = [[int(row[name]) for name in CLASSES] for row in rows]
    assert counts == confusion_matrix(true, predicted).tolist()
    recalls = [float(row["recall"]) for row in read_csv(tmp_path / "per_class.csv")]
    assert recalls == pytest.approx(recall_score(true, predicted, average=None))
    assert figures["accuracy"] == pytest.approx(accuracy_score(true, predicted))


def test_the_recall_of_a_class_without_images_is_empty(tmp_path: Path) -> None:
    write_class_tables(tmp_path, CLASSES, [0, 1], np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    last = read_csv(tmp_path / "per_class.csv")[-1]
    assert (last["class"], last["support"], last["recall"]) == ("rust10", "0", "")


def test_probabilities_come_in_the_order_of_the_classes() -> None:
    scores = {"score": [9.0], "p_rust10": [0.3], "p_healthy": [0.1], "p_rust2": [0.6]}
    assert probabilities(scores, CLASSES).tolist() == [[0.1, 0.6, 0.3]]


def test_an_image_of_an_unknown_class_is_refused_with_the_nearest() -> None:
    sample = Sample(path=Path("a/rust3/0.png"), label=ANOMALOUS, kind="rust3")
    with pytest.raises(ValueError, match=r"'rust3'.*mean rust2.*tells apart healthy, rust2"):
        numbers_of([sample], CLASSES)
