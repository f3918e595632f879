"""From a generator to a classifier: the same seed gives both the same split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leanet.files import read_json
from leanet.generation.generate import GenerateOptions, generate

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def data(make_shapes: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that a fifth of every class suffices to validate on."""
    return make_shapes(tmp_path_factory.mktemp("shapes"), per_class=26)


@pytest.fixture(scope="module")
def drawn(data: Path, quick_gan: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan")
    run = quick_gan(data, folder / "run", steps=2, look_every=2)
    options = GenerateOptions(per_class=4, device="cpu")
    return generate(run, folder / "drawn", options, tell=lambda text: None)


def test_a_classifier_of_the_same_seed_may_learn_from_the_images(
    data: Path, drawn: Path, tmp_path: Path, quick_fit: Make
) -> None:
    run = quick_fit(
        "classifier", data, tmp_path / "run", classes="kinds", epochs=1, generated=str(drawn)
    )
    remarks = read_json(run / "final" / "metrics.json")["remarks"]
    assert "12" in str(remarks) or "'disc': 4" in str(remarks)


def test_a_classifier_of_another_seed_holds_out_what_the_generator_has_seen(
    data: Path, drawn: Path, tmp_path: Path, quick_fit: Make
) -> None:
    with pytest.raises(ValueError, match="the generator has learned from"):
        quick_fit(
            "classifier", data, tmp_path / "run", classes="kinds", generated=str(drawn), seed=1
        )


def test_generated_images_cannot_be_tested_on(drawn: Path, tmp_path: Path, quick_fit: Make) -> None:
    with pytest.raises(ValueError, match="is a generated image"):
        quick_fit(
            "classifier", drawn, tmp_path / "run", classes="kinds", generated=str(drawn), folds=2
        )
