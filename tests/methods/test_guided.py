"""Guided attention as a recipe: what it reports, that its working point is honest, its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from leanet.config import from_dict
from leanet.data import synthetic
from leanet.data.cache import images_in_unit_range
from leanet.data.folds import split_parts
from leanet.methods import guided, leanet, store
from leanet.methods.lea_config import Config
from leanet.methods.lea_detector import LEADetector
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.networks.guided import GuidedNet
from leanet.ops.correction import Correction, fit_correction
from leanet.ops.metrics import auroc
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL, Fold
from leanet.runtime import make_runtime

BACKBONE = "mobilenetv3_small_050"
Make = Callable[..., Material]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with weights of the backbone: random ones."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model(BACKBONE).state_dict(), file)
    return str(file)


@pytest.fixture(scope="module")
def data(material: Make) -> Material:
    """The toy set; its run folder keeps the map models from test to test."""
    return material()


@pytest.fixture(scope="module")
def trained(data: Material, weights: str) -> Trained:
    return train(data, weights)


def of(data: Material, label: int) -> list[int]:
    return [i for i, one in enumerate(data.labels) if one == label]


def fold_of(data: Material, normals: Sequence[int], defects: Sequence[int]) -> Fold:
    """Trains on these; the normal images in two parts, the defects in the first."""
    train = tuple(sorted((*normals, *defects)))
    test = tuple(i for i in range(len(data.labels)) if i not in train)
    one, other = split_parts(normals, data.samples, 2, 0)
    return Fold(
        name="fold-0", train=train, test=test, parts=(tuple(sorted((*one, *defects))), other)
    )


def train(
    data: Material, weights: str, defects: int = 6, normals: int = 15, **more: Any
) -> Trained:
    options = {"adn": f"timm/{BACKBONE}", "weights": weights, "map_options": {"coreset": 0.2}}
    config = from_dict(Config, options | more.pop("options", {}))
    fold = fold_of(data, of(data, NORMAL)[:normals], of(data, ANOMALOUS)[:defects])
    runtime = make_runtime("cpu", "32-true", seed=0)
    return leanet.train(config, fold, data, data.run / "fold", runtime, **more)


def network_of(trained: Trained) -> GuidedNet:
    assert isinstance(trained.detector, LEADetector)
    assert isinstance(trained.detector.network, GuidedNet)
    return trained.detector.network


@pytest.fixture
def image(data: Material) -> Tensor:
    return images_in_unit_range(data.images.take([0, 20, 7]))


@torch.inference_mode()
def test_weights_make_it_the_default_and_the_classifier_decides(
    trained: Trained, image: Tensor
) -> None:
    network, prediction = network_of(trained), trained.detector(image)
    assert set(prediction.parts) == {"adn", "map"}
    assert torch.equal(prediction.score, prediction.parts["adn"])
    assert trained.detector.map_unit == "distance"
    assert network.prior.top < 1
    assert trained.epochs == 1
    assert trained.remarks["map_source"] == "patchcore, trained in this run"
    assert trained.remarks["trained_on"] == {"normal": 15, "anomalous": 6}
    assert trained.remarks["correction"]["trust"] == pytest.approx(float(network.trust))
    assert trained.remarks["notices"] == []


@torch.inference_mode()
def test_the_classifier_keeps_the_weights_of_the_file(trained: Trained) -> None:
    torch.manual_seed(7)
    source = timm.create_model(BACKBONE).state_dict()
    stages = network_of(trained).adn.state_dict()
    kernels = [value for value in stages.values() if value.ndim == 4]
    assert kernels
    originals = [value for value in source.values() if value.ndim == 4]
    assert all(any(torch.equal(k, o) for o in originals if o.shape == k.shape) for k in kernels)
    means = [value for name, value in stages.items() if name.endswith("running_mean")]
    assert all(value.abs().max() == 0 for value in means)  # as in the file: no image moved them


@torch.inference_mode()
def test_the_pictures_show_attention_and_evidence(trained: Trained, image: Tensor) -> None:
    pictures, prediction = trained.detector.explain(image), trained.detector(image)
    network = network_of(trained)
    for k, side in ((3, 4), (4, 2), (5, 1)):
        assert pictures[f"attention A{k}"].shape == (3, 1, side, side)
        torch.testing.assert_close(pictures[f"attention A{k}"].mean(dim=(1, 2, 3)), torch.ones(3))
    assert not any(name.startswith("strength") for name in pictures)  # there is none
    total = pictures["evidence"].mean(dim=(1, 2, 3)) + network.bias
    expected = prediction.score - network.trust * prediction.parts["map"]
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-3)
    assert set(trained.remarks["gate"]) == {"A3", "A4", "A5"}


def test_every_training_image_is_scored_by_a_correction_that_has_not_seen_it(
    trained: Trained, data: Material
) -> None:
    assert sorted(trained.held_out.indices) == sorted(
        (*of(data, NORMAL)[:15], *of(data, ANOMALOUS)[:6])
    )
    assert set(trained.held_out.scores) == {"score", "adn", "map"}
    assert trained.held_out.scores["score"] == trained.held_out.scores["adn"]
    assert all(np.isfinite(values).all() for values in trained.held_out.scores.values())
    assert "threshold_in_sample" not in trained.remarks


@pytest.mark.parametrize("normals", [15, 2])
def test_a_single_defect_costs_its_own_score_only(
    data: Material, weights: str, normals: int
) -> None:
    one = train(data, weights, defects=1, normals=normals)
    assert sorted(one.held_out.indices) == of(data, NORMAL)[:normals]
    assert np.isfinite(one.held_out.scores["score"]).all()
    assert network_of(one).weight.isfinite().all()


def test_a_single_normal_image_is_refused_in_words(data: Material, weights: str) -> None:
    fold = Fold(name="fold-0", train=(of(data, NORMAL)[0], *of(data, ANOMALOUS)), test=())
    config = from_dict(Config, {"adn": f"timm/{BACKBONE}", "weights": weights})
    runtime = make_runtime("cpu", "32-true", seed=0)
    with pytest.raises(ValueError, match=r"guided attention needs.*normal.*2"):
        leanet.train(config, fold, data, data.run / "single", runtime)


def test_the_held_out_scores_do_not_know_the_label_of_their_image(
    data: Material, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fits that score normal images never had them among the normal images."""
    seen: list[guided.Described] = []
    fits: list[tuple[Any, Any, Correction]] = []

    def describe(*args: Any) -> guided.Described:
        seen.append(describe_images(*args))
        return seen[-1]

    def fit(z: Any, phi: Any, label: Any, *, strength: float) -> Correction:
        fits.append((phi, label, fit_correction(z, phi, label, strength=strength)))
        return fits[-1][2]

    describe_images = guided.describe_images
    monkeypatch.setattr(guided, "describe_images", describe)
    monkeypatch.setattr("leanet.ops.correction.fit_correction", fit)
    held_out = train(data, weights, defects=3).held_out
    (described,) = seen
    assert len(fits) == 5 + 3  # five parts with normal images, three of them with a defect
    for index, score in zip(held_out.indices, held_out.scores["score"], strict=True):
        row = described.samples.index(index)
        own, z = described.features[[row]], described.scores[[row]]
        judges = [told for phi, _, told in fits if not (phi == own).all(axis=1).any()]
        assert any(float(told(z, own)[0]) == pytest.approx(score, abs=1e-9) for told in judges)


def test_the_correction_is_that_of_the_descriptions(trained: Trained, data: Material) -> None:
    """What the detector adds to the map's z is what ops/correction.py has learned."""
    network = network_of(trained)
    assert float(network.trust) >= 0
    assert float(network.weight.abs().max()) > 0
    scores = trained.held_out.scores
    truth = [data.labels[i] for i in trained.held_out.indices]
    assert auroc(truth, scores["map"]) > 0.5  # toy defects are visible in the map


def test_training_again_gives_the_same_bytes(
    trained: Trained, material: Make, weights: str
) -> None:
    again = train(material(), weights)
    assert again.held_out == trained.held_out
    one, other = (t.detector.state_dict() for t in (trained, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@torch.inference_mode()
def test_a_stored_detector_answers_as_before(
    trained: Trained, weights: str, image: Tensor, tmp_path: Path
) -> None:
    options = {"adn": f"timm/{BACKBONE}", "weights": weights, "map_options": {"coreset": 0.2}}
    store.save_detector(tmp_path, "leanet", from_dict(Config, options), trained.detector)
    loaded = store.load_detector(tmp_path)
    before, after = trained.detector.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    expected, prediction = trained.detector(image), loaded(image)
    torch.testing.assert_close(prediction.score, expected.score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prediction.map, expected.map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prediction.parts["map"], expected.parts["map"], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_picture_gets_the_same_score_alone_and_in_a_batch(
    trained: Trained, image: Tensor
) -> None:
    alone = torch.cat([trained.detector(image[[k]]).score for k in range(3)])
    torch.testing.assert_close(trained.detector(image).score, alone, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_features_that_both_read_are_computed_once(
    trained: Trained, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = trained.detector
    assert isinstance(detector, LEADetector)
    assert detector.one_look
    once = detector(image)
    monkeypatch.setattr(detector, "one_look", False)
    twice = detector(image)
    torch.testing.assert_close(once.map, twice.map, rtol=1e-4, atol=1e-4)
    for name, score in twice.parts.items():
        torch.testing.assert_close(once.parts[name], score, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(detector, "one_look", True)
    monkeypatch.setattr(detector.map_model, "see", None)  # the map model looks no more
    assert torch.equal(detector(image).score, once.score)


@pytest.mark.parametrize(
    "options",
    [
        {"map_options": {"coreset": 0.2, "crop": "center"}},
        {"map_options": {"coreset": 0.2, "mean": [0.5, 0.5, 0.5]}},
        {"map_options": {"coreset": 0.2, "pretrained": False, "weights": None}},
        {"map_options": {"coreset": 0.2, "feature_indices": [1, 2]}},
        {"map_source": "padim", "map_options": {"backbone": BACKBONE, "pretrained": False}},
        {"map_source": "colorizer", "map_options": {"epochs": 1, "base": 4}},
    ],
    ids=["crop", "mean", "weights", "levels", "padim", "colorizer"],
)
def test_map_models_that_see_something_else_look_for_themselves(
    options: dict[str, Any], data: Material, weights: str
) -> None:
    made = train(data, weights, defects=3, normals=8, options=options).detector
    assert isinstance(made, LEADetector)
    assert not made.one_look


@pytest.fixture
def few_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight synthetic anomalies, and as many normal counterparts."""
    monkeypatch.setattr(synthetic, "MOST", 8)


@pytest.mark.usefixtures("few_synthetic")
def test_synthetic_anomalies_teach_where_there_are_no_others(data: Material, weights: str) -> None:
    made = train(data, weights, defects=0, options={"synthetic": "color"})
    assert sorted(made.held_out.indices) == of(data, NORMAL)[:15]
    assert sum(made.remarks["extra"][0]["images"].values()) == 16
    assert float(network_of(made).weight.abs().max()) > 0


@pytest.mark.usefixtures("few_synthetic")
def test_extra_images_stay_with_what_they_were_made_from(
    data: Material, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    cross = guided.cross_corrected
    monkeypatch.setattr(
        guided, "cross_corrected", lambda *args, **more: calls.append(args) or cross(*args, **more)
    )
    seen: list[tuple[int, ...]] = []
    describe = guided.describe_images

    def described(*args: Any) -> guided.Described:
        told = describe(*args)
        seen.append(told.samples)
        return told

    monkeypatch.setattr(guided, "describe_images", described)
    held_out = train(data, weights, defects=2, options={"synthetic": "color"}).held_out
    assert sorted(held_out.indices) == [*of(data, NORMAL)[:15], *of(data, ANOMALOUS)[:2]]
    samples, parts = seen[0], calls[0][3]
    assert len(samples) == 17 + 2 + 2  # of each label as many as there are real defects
    of_part = [{samples[row] for row in part} for part in parts]
    assert sum(map(len, of_part)) == len(set().union(*of_part)) == 17


def test_images_of_a_group_are_left_out_together(
    material: Make, data: Material, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pictures of a leaf each, the defective ones among them."""
    grouped = [
        dataclasses.replace(sample, group=f"leaf {k % 6}") for k, sample in enumerate(data.samples)
    ]
    calls: list[tuple[Any, ...]] = []
    cross = guided.cross_corrected
    monkeypatch.setattr(
        guided, "cross_corrected", lambda *args, **more: calls.append(args) or cross(*args, **more)
    )
    made = train(material(samples=grouped), weights, defects=4)
    order = sorted((*of(data, NORMAL)[:15], *of(data, ANOMALOUS)[:4]))
    leaves = [{grouped[order[row]].group for row in part} for part in calls[0][3]]
    assert sum(map(len, leaves)) == len(set().union(*leaves)) == 6
    assert len(leaves) == 5
    assert set(of(data, NORMAL)[:15]) <= set(made.held_out.indices)


def test_what_changes_nothing_is_told(
    trained: Trained, data: Material, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options of training by gradient descent; and the scores of cross-validation, since all images
    are scored here."""
    say_once.cache_clear()
    taught = Experience(HeldOut((0,), {"score": [3.0], "adn": [3.0], "map": [3.0]}), 7)
    options = {"epochs": 3, "lr": 0.1, "patience": 1}
    again = train(data, weights, options=options, experience=taught)
    assert (again.held_out, again.epochs) == (trained.held_out, 1)
    (notice,) = again.remarks["notices"]
    assert notice.startswith("lr, epochs, patience: not used")
    assert "--attention layers trains" in notice
    assert notice in capsys.readouterr().err


def test_random_features_are_told_of(
    data: Material, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    options: dict[str, Any] = {"weights": None, "attention": "guided", "map_source": "patchcore"}
    options["map_options"] = {"backbone": BACKBONE, "pretrained": False, "coreset": 0.2}
    made = train(data, weights, defects=2, options=options)
    assert isinstance(network_of(made), GuidedNet)
    assert "random features, which mean little; give --weights FILE" in capsys.readouterr().err
