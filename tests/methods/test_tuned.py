"""Fine-tuned copies: who judges whom, what their average is, and how it joins the decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from leanet.config import from_dict
from leanet.data import synthetic
from leanet.data.cache import images_in_unit_range
from leanet.data.folds import single_fold
from leanet.methods import leanet, store, supervised, tuned
from leanet.methods.lea_config import Config, resolve
from leanet.methods.lea_detector import LEADetector
from leanet.methods.recipe import Material, Trained
from leanet.methods.supervised import Plan
from leanet.networks.guided import GuidedNet
from leanet.networks.timm_stages import TimmStages
from leanet.networks.vgg import VGG
from leanet.ops.fusion import spread_of
from leanet.progress import say_once
from leanet.records import ANOMALOUS, NORMAL
from leanet.runtime import make_runtime

BACKBONE = "mobilenetv3_small_050"
Make = Callable[..., Material]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A backbone with a file of (random) weights, one epoch, six defects are enough."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model(BACKBONE).state_dict(), file)
    return {
        "adn": f"timm/{BACKBONE}",
        "weights": str(file),
        "map_options": {"coreset": 0.2},
        "tuned_from": 6,
        "tuned_epochs": 1,
        "batch_size": 8,
    }


@pytest.fixture(scope="module")
def data(material: Make) -> Material:
    return material()


def train(data: Material, options: dict[str, Any], **more: Any) -> Trained:
    """On all images, the maps in two parts."""
    config = from_dict(Config, options | more)
    fold = single_fold(data.samples, seed=0, inner_splits=2)
    runtime = make_runtime("cpu", "32-true", seed=0)
    return leanet.train(config, fold, data, data.run / "fold", runtime)


@pytest.fixture(scope="module")
def trained(data: Material, options: dict[str, Any]) -> Trained:
    return train(data, options)


def network_of(trained: Trained) -> GuidedNet:
    assert isinstance(trained.detector, LEADetector)
    assert isinstance(trained.detector.network, GuidedNet)
    return trained.detector.network


@torch.inference_mode()
def test_a_copy_joins_in_and_is_told_of(trained: Trained, data: Material) -> None:
    network, detector = network_of(trained), trained.detector
    image = images_in_unit_range(data.images.take([0, 20, 7]))
    prediction = detector(image)
    assert (
        set(prediction.parts) == {"adn", "map", "tuned"} == set(trained.held_out.scores) - {"score"}
    )
    assert network.tuned is not None
    told = trained.remarks["correction"]
    assert told["joined"] == pytest.approx(float(network.joined))
    assert isinstance(detector, LEADetector)
    e = (
        network.tuned(detector.reader.normalize(image))[:, 0] - network.tuned_level
    ) / network.tuned_spread
    torch.testing.assert_close(prediction.parts["tuned"], e, rtol=1e-4, atol=1e-4)
    pictures = detector.explain(image)
    total = pictures["evidence"].mean(dim=(1, 2, 3)) + network.bias
    expected = prediction.score - network.trust * prediction.parts["map"]
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-3)
    assert trained.remarks["notices"] == []  # batch_size counts


@torch.inference_mode()
def test_its_logit_counts_in_spreads_of_normal_images(trained: Trained, data: Material) -> None:
    normals = [i for i, label in enumerate(data.labels) if label == NORMAL]
    said = trained.detector(images_in_unit_range(data.images.take(normals))).parts["tuned"]
    assert float(said.median()) == pytest.approx(0, abs=0.1)
    assert 0.3 < spread_of(said.double().numpy()) < 3
    held_out = [
        score
        for i, score in zip(trained.held_out.indices, trained.held_out.scores["tuned"], strict=True)
        if data.labels[i] == NORMAL
    ]
    assert np.median(held_out) == pytest.approx(0, abs=1e-9)


@torch.inference_mode()
def test_a_stored_detector_has_its_copy(
    trained: Trained, data: Material, options: dict[str, Any], tmp_path: Path
) -> None:
    store.save_detector(tmp_path, "leanet", from_dict(Config, options), trained.detector)
    loaded = store.load_detector(tmp_path)
    before, after = trained.detector.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    image = images_in_unit_range(data.images.take([0, 20, 7]))
    expected, prediction = trained.detector(image), loaded(image)
    for name in expected.parts:
        torch.testing.assert_close(
            prediction.parts[name], expected.parts[name], rtol=1e-4, atol=1e-4
        )


def test_an_interrupted_training_ends_as_one_in_one_piece(
    trained: Trained, material: Make, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, whole, begun = material(), supervised.train_network, []

    def interrupted(config: Any, plan: Plan, *rest: Any) -> int:
        begun.append(plan.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return whole(config, plan, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(supervised, "train_network", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, options)
    assert begun == ["final copy 0", "final copy 1"]
    assert (data.run / "fold" / "copy-0" / "checkpoint.safetensors").exists()
    again = train(data, options)
    assert again.held_out == trained.held_out
    one, other = (t.detector.state_dict() for t in (trained, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((data.run / "fold").glob("copy-*/checkpoint*"))


def test_synthetic_images_are_judged_and_teach_the_correction_alone(
    data: Material, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "MOST", 8)
    plans: list[Plan] = []
    whole = supervised.train_network
    rows: list[tuned.Rows] = []

    def learn(config: Config, plan: Plan, *rest: Any) -> int:
        plans.append(plan)
        return whole(config, plan, *rest)

    def judge(*given: Any) -> Any:
        rows.append(given[2])
        return unseen(*given)

    unseen = tuned._unseen
    monkeypatch.setattr(supervised, "train_network", learn)
    monkeypatch.setattr(tuned, "_unseen", judge)
    made = train(data, options, synthetic="color")
    assert len(plans) == 3
    assert not any(plan.extras for plan in plans)
    (asked,) = rows
    assert len(asked.numbers) == 24 + 6 + 6  # of each label as many as there are real defects
    assert sorted(asked.numbers)[-1] >= 24
    assert set(asked.samples[24:]) <= set(range(24))
    assert sorted(made.held_out.indices) == list(range(24))


class Known:
    """Instead of training every copy says its number, and what it should have learned from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rest: list[set[int]] = []
        self.epochs: list[int] = []
        monkeypatch.setattr(supervised, "train_network", self.learn)

    def learn(self, config: Config, plan: Plan, *rest: Any) -> int:
        assert isinstance(plan.network, TimmStages)
        plan.network.fc.weight.data.zero_()
        plan.network.fc.bias.data.fill_(float(len(self.rest)))
        self.rest.append(set(plan.rest))
        self.epochs.append(config.epochs)
        return 1


def opinions(
    data: Material, options: dict[str, Any], samples: Sequence[int], numbers: Sequence[int]
) -> tuned.Tuned:
    """Of the images of these numbers, made from these samples; learned from all."""
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    labels = np.array([data.labels[i] for i in numbers])
    rows = tuned.Rows(data.images, labels, tuple(samples), tuple(numbers))
    config, runtime = from_dict(Config, options), make_runtime("cpu", "32-true", seed=0)
    return tuned.fine_tune(config, fold, fold.train, rows, data, data.run / "known", runtime)


def test_nobody_judges_what_it_has_seen(
    data: Material, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, everything = Known(monkeypatch), range(len(data.samples))
    told = opinions(data, options, everything, everything)
    assert known.epochs == [1, 1, 1]
    said: list[set[float]] = [set(), set(), set()]
    for i in everything:
        (judge,) = [k for k, rest in enumerate(known.rest) if i not in rest]
        said[judge].add(float(told.opinions[i]))
    one, two, three = (value for values in said for value in values)  # each says one thing
    assert one < two < three


def test_images_made_from_others_are_judged_by_those_who_have_not_seen_these(
    data: Material, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, everything = Known(monkeypatch), range(len(data.samples))
    made_from = [5, 20, -1]
    told = opinions(data, options, [*everything, *made_from], [*everything, 0, 1, 2])
    for row, source in zip(told.opinions[-3:], made_from, strict=True):
        judge = next(k for k, rest in enumerate(known.rest) if source not in rest)
        assert row == told.opinions[next(i for i in everything if i not in known.rest[judge])]


def test_images_of_a_group_are_judged_by_the_same_copy(
    material: Make, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = enumerate(material().samples)
    grouped = [dataclasses.replace(sample, group=f"leaf {k % 6}") for k, sample in samples]
    data, known = material(samples=grouped), Known(monkeypatch)
    opinions(data, options, range(len(grouped)), range(len(grouped)))
    for rest in known.rest:
        leaves = {grouped[i].group for i in rest}
        assert len(leaves) == 4
        assert all((sample.group in leaves) == (i in rest) for i, sample in enumerate(grouped))


def test_the_network_is_the_average_and_its_statistics_are_its_own(
    data: Material, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[TimmStages] = []
    whole = supervised.train_network

    def learn(config: Config, plan: Plan, *rest: Any) -> int:
        epochs = whole(config, plan, *rest)
        assert isinstance(plan.network, TimmStages)
        copies.append(plan.network)
        return epochs

    monkeypatch.setattr(supervised, "train_network", learn)
    made = opinions(data, options | {"augment": "none"}, range(24), range(24)).network
    given = [dict(copy.named_parameters()) for copy in copies]
    for name, value in made.named_parameters():
        torch.testing.assert_close(value, torch.stack([one[name] for one in given]).mean(dim=0))
    assert any(not torch.equal(given[0][name], given[1][name]) for name in given[0])
    stem = cast(nn.Sequential, cast(TimmStages, made).stages[0])
    with torch.inference_mode():
        seen = stem.conv_stem(images_in_unit_range(data.images.take(list(range(24)))))
    expected = seen.mean(dim=(0, 2, 3))  # three batches of eight, each image once
    torch.testing.assert_close(stem.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert not made.training


def test_without_statistics_of_their_own_those_of_the_copies_are_averaged() -> None:
    torch.manual_seed(0)
    networks = [TimmStages(BACKBONE) for _ in range(3)]
    for k, network in enumerate(networks):
        for name, value in network.state_dict().items():
            if "running_mean" in name:
                value.fill_(k)
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in networks]
    made = tuned.mean(networks).state_dict()
    for name, value in made.items():
        same = value == 1 if "running_mean" in name else torch.isfinite(value)
        assert same.all()
    assert all(
        torch.equal(value, before[k][name])
        for k, network in enumerate(networks)
        for name, value in network.state_dict().items()
    )


@pytest.mark.parametrize(
    ("defects", "groups", "expected"),
    [(5, 0, False), (6, 0, True), (6, 2, False), (6, 3, True)],
)
def test_they_are_wanted_where_labels_are_many(
    defects: int,
    groups: int,
    expected: bool,
    material: Make,
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_once.cache_clear()
    data = material()
    samples = [
        dataclasses.replace(s, group=f"part {k % groups}" if groups else None)
        for k, s in enumerate(data.samples)
    ]
    data = dataclasses.replace(data, samples=tuple(samples))
    bad = [i for i, label in enumerate(data.labels) if label == ANOMALOUS][:defects]
    rest = [*(i for i, label in enumerate(data.labels) if label == NORMAL), *bad]
    network = TimmStages(BACKBONE)
    assert tuned.is_wanted(Config(tuned_from=6), network, rest, data) == expected
    told = "no fine-tuned copy joins in: the 6 defects are of 2 groups, and 3 are needed"
    assert (told in capsys.readouterr().err) == (groups == 2)
    assert not tuned.is_wanted(Config(tuned_from=0), network, rest, data)


def test_a_network_with_another_head_has_none(
    data: Material, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    config, everything = Config(adn="vgg16", tuned_from=6), range(len(data.samples))
    assert not tuned.is_wanted(config, VGG(16, hidden=8), everything, data)
    assert "joins in: vgg16 has another head" in capsys.readouterr().err


@pytest.mark.parametrize("number", [-1, 1, 5])
def test_fewer_defects_than_copies_can_share_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"tuned_from {number}: give at least 6, .* or 0"):
        resolve(Config(attention="guided", tuned_from=number))


def test_a_copy_without_training_is_refused() -> None:
    with pytest.raises(ValueError, match="tuned_epochs 0: give 1 or more; --tuned_from 0 does"):
        resolve(Config(attention="guided", tuned_epochs=0))
