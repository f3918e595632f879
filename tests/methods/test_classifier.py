from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from leanet.data.folds import single_fold
from leanet.methods import classifier
from leanet.methods.classifier import Classifier, Config
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.methods.supervised import Normalize
from leanet.networks.resnet import ResNet
from leanet.runtime import Runtime


def train(
    data: Material, runtime: Runtime, experience: Experience | None = None, **options: Any
) -> Trained:
    values: dict[str, Any] = {"adn": "timm/mobilenetv3_small_050", "epochs": 2}
    config = Config(**(values | options))
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    return classifier.train(config, fold, data, data.run / "final", runtime, experience)


def test_the_score_is_the_logit_and_there_is_no_map() -> None:
    torch.manual_seed(0)
    network = ResNet(18).eval()
    normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    detector, image = Classifier(normalize, network, 32), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        prediction = detector(image)
        expected = network((image - 0.5) / 0.2)[:, 0]
    torch.testing.assert_close(prediction.score, expected)
    assert prediction.map is None
    assert detector.logits == ("score",)


def test_training_separates_what_is_easy(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    """Anomalous images are turned to their negatives; a few epochs must be enough."""
    data = material()
    array = data.images.array.copy()
    for index, label in enumerate(data.labels):
        array[index] = 255 - array[index] // 2 if label else array[index] // 2
    data.images.array = array
    trained = train(data, runtime, epochs=12, augment="flips", val_anomalous="always")
    scores, unseen = trained.held_out.scores["score"], trained.held_out.indices
    good = [s for s, i in zip(scores, unseen, strict=True) if not data.labels[i]]
    bad = [s for s, i in zip(scores, unseen, strict=True) if data.labels[i]]
    assert min(bad) > max(good)


def test_experience_decides_how_long_to_train(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    learned = Experience(HeldOut((3, 4), {"score": [0.0, 1.0]}), epochs=1)
    trained = train(data, runtime, learned, epochs=5)
    assert trained.epochs == 1
    assert trained.held_out == learned.held_out
    lines = (data.run / "final" / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert "val_loss" not in lines[0]


@pytest.mark.parametrize(("fraction", "in_sample"), [(0.2, False), (0.0, True)])
def test_the_remarks_say_whether_the_threshold_is_honest(
    fraction: float, in_sample: bool, material: Callable[..., Material], runtime: Runtime
) -> None:
    trained = train(material(), runtime, val_fraction=fraction, epochs=1)
    assert trained.remarks["threshold_in_sample"] is in_sample
    assert sum(trained.remarks["trained_on"].values()) == (24 if in_sample else 20)
    assert (len(trained.held_out.indices) == 24) is in_sample


def test_of_several_tries_held_out_images_choose_one(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    trained = train(data, runtime, tries=2, epochs=1)
    choice = trained.remarks["choice"]
    assert list(choice["held_out"]) == ["draw 0", "draw 1"]
    assert choice["chosen"] in choice["held_out"]
    assert trained.remarks["trained_on"] == {"normal": 18, "anomalous": 6}  # all of them


def test_another_draw_starts_from_other_weights(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    first, again, other = (train(material(), runtime, draw=d, epochs=1) for d in (0, 0, 1))
    same = [
        torch.equal(one, two)
        for one, two in zip(
            first.detector.state_dict().values(), again.detector.state_dict().values(), strict=True
        )
    ]
    assert all(same)
    weights = [next(t.detector.network.parameters()) for t in (first, other)]
    assert not torch.equal(*weights)
