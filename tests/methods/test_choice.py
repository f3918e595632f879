"""The held-out images choose, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from leanet.data.folds import single_fold
from leanet.methods.choice import train_best
from leanet.methods.recipe import DetectorModule, Experience, HeldOut, Material, Trained
from leanet.records import Fold
from leanet.runtime import Runtime


@dataclass
class Recipe:
    """A `train` that scores held-out images as its configuration says, and keeps a diary."""

    data: Material
    diary: list[tuple[Any, tuple[int, ...], str, Experience | None]]

    def __call__(
        self,
        config: Any,
        fold: Fold,
        data: Material,
        folder: Path,
        runtime: Runtime,
        experience: Experience | None,
    ) -> Trained:
        self.diary.append((config, fold.train, folder.name, experience))
        normal = [i for i in fold.train if data.labels[i] == 0][:2]
        anomalous = [i for i in fold.train if data.labels[i] == 1][:2]
        scores = {"score": list(config["scores"])}
        held_out = HeldOut((*normal, *anomalous), scores)
        detector = DetectorModule()
        detector.network = nn.Identity()
        return Trained(detector, held_out, config["epochs"], {"own": config["name"]})


GOOD = {"name": "good", "scores": (-1.0, -2.0, 1.0, 2.0), "epochs": 7}
SURER = {"name": "surer", "scores": (-5.0, -6.0, 5.0, 6.0), "epochs": 9}
BAD = {"name": "bad", "scores": (3.0, -2.0, 1.0, 2.0), "epochs": 3}


@pytest.fixture
def recipe(material: Callable[..., Material]) -> Recipe:
    return Recipe(material(), [])


def best_of(recipe: Recipe, runtime: Runtime, *configs: Any, **options: Any) -> Trained:
    data = recipe.data
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    variants = {config["name"]: config for config in configs}
    return train_best(recipe, variants, fold, data, data.run / "x", runtime, **options)


def test_the_highest_average_precision_on_held_out_images_wins(
    recipe: Recipe, runtime: Runtime
) -> None:
    trained = best_of(recipe, runtime, BAD, GOOD)
    choice = trained.remarks["choice"]
    assert (trained.remarks["own"], choice["chosen"]) == ("good", "good")
    assert choice["held_out"]["good"]["ap"] == 1.0
    assert choice["held_out"]["bad"]["ap"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_the_lower_loss_decides_between_equals_then_the_order(
    recipe: Recipe, runtime: Runtime
) -> None:
    assert best_of(recipe, runtime, GOOD, SURER).remarks["own"] == "surer"
    twin = {**GOOD, "name": "twin"}
    assert best_of(recipe, runtime, GOOD, twin).remarks["own"] == "good"


def test_the_chosen_one_is_trained_on_everything_for_its_best_number_of_epochs(
    recipe: Recipe, runtime: Runtime
) -> None:
    best_of(recipe, runtime, BAD, GOOD)
    *tries, (config, train, folder, experience) = recipe.diary
    assert [(c["name"], where, known) for c, _, where, known in tries] == [
        ("bad", "bad", None),
        ("good", "good", None),
    ]
    assert (config["name"], folder) == ("good", "chosen")
    assert train == tries[0][1]
    assert experience is not None
    assert experience.epochs == 7
    assert experience.held_out.scores["score"] == list(GOOD["scores"])


def test_what_cross_validation_taught_counts_more_than_the_inner_split(
    recipe: Recipe, runtime: Runtime
) -> None:
    taught = Experience(HeldOut((0,), {"score": [0.5]}), 20)
    best_of(recipe, runtime, GOOD, experience=taught)
    assert recipe.diary[-1][3] is taught


def test_one_class_cannot_choose(recipe: Recipe, runtime: Runtime) -> None:
    normal = [s for s in recipe.data.samples if s.label == 0]
    recipe.data = Material(
        samples=tuple(normal), images=recipe.data.images, img_size=32, run=recipe.data.run
    )
    short = {**GOOD, "scores": (1.0, 2.0)}
    with pytest.raises(ValueError, match=r"both classes.*0 of 2 are anomalous.*--val_fraction"):
        best_of(recipe, runtime, short)
