"""What LEA-Net reports, decides by and refuses; network and maps have tests of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from leanet.config import from_dict
from leanet.data.folds import single_fold
from leanet.methods import classifier, lea_measures, leanet
from leanet.methods.lea_detector import LEADetector
from leanet.methods.leanet import Config
from leanet.methods.recipe import Material, Trained
from leanet.ops.fusion import fuse
from leanet.ops.map_steps import MapPreparation, MapSteps, prepare_map
from leanet.records import Fold
from leanet.runtime import Runtime

QUICK: dict[str, Any] = {
    "adn": "timm/mobilenetv3_small_050",
    "aan": "mobilenet",
    "epochs": 2,
    "map_model": {"epochs": 1, "base": 2},
}


def fold_of(data: Material) -> Fold:
    return single_fold(data.samples, seed=0, inner_splits=2)


def train(data: Material, runtime: Runtime, **options: Any) -> Trained:
    config = from_dict(Config, QUICK | options)
    return leanet.train(config, fold_of(data), data, data.run / "final", runtime)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained(material: Callable[..., Material]) -> Trained:
    from leanet.runtime import make_runtime

    return train(material(), make_runtime("cpu", "32-true"), learn_strength=True)


@torch.inference_mode()
def test_all_single_scores_are_reported(trained: Trained, image: torch.Tensor) -> None:
    detector = trained.detector
    assert isinstance(detector, LEADetector)
    prediction = detector(image)
    assert set(prediction.parts) == {"fused", "adn", "aan", "map"}
    singles = {name: prediction.parts[name] for name in ("adn", "aan", "map")}
    assert detector.fusion is not None
    assert torch.equal(prediction.parts["fused"], fuse(detector.fusion, singles))
    assert torch.equal(prediction.score, prediction.parts["fused"])
    assert set(trained.held_out.scores) == {"score", "fused", "adn", "aan", "map"}


def test_without_a_prior_the_map_score_is_the_logarithm_of_the_clipped_mean(
    material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    detector = train(material(), runtime, map_prior="none", epochs=1).detector
    assert isinstance(detector, LEADetector)
    with torch.inference_mode():
        prediction, scale = detector(image), detector.scale
    assert torch.equal(prediction.score, prediction.parts["fused"])
    clipped = prediction.map.clamp(max=scale.divisor * scale.headroom)
    expected = (clipped.mean(dim=(1, 2, 3)) + 1e-3).log()
    torch.testing.assert_close(prediction.parts["map"], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_logit_begins_with_what_the_map_expects(trained: Trained, image: torch.Tensor) -> None:
    detector = trained.detector
    assert isinstance(detector, LEADetector)
    parts, prior = detector(image).parts, detector.network.prior
    assert prior is not None
    detector.network.prior = None
    without = detector(image).parts["adn"]
    detector.network.prior = prior
    torch.testing.assert_close(parts["adn"], without + parts["map"])
    assert parts["map"].std() > 0


def test_the_classifier_is_held_to_the_map_the_more_firmly_the_fewer_defects_there_are(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    told = {
        pull: train(material(), runtime, epochs=1, prior_pull=pull).detector.network.state_dict()
        for pull in (0.0, 50.0)
    }
    assert not torch.equal(told[0.0]["adn.fc.weight"], told[50.0]["adn.fc.weight"])


@torch.inference_mode()
def test_the_map_is_that_of_the_colorizer_in_its_unit(
    trained: Trained, image: torch.Tensor
) -> None:
    detector = trained.detector
    assert isinstance(detector, LEADetector)
    assert torch.equal(detector(image).map, detector.map_model(image).map)
    assert detector.map_unit == "dE00"
    assert detector.map_top == detector.scale.divisor


@pytest.mark.parametrize("decide", ["fused", "adn", "aan"])
def test_the_score_is_the_output_that_decides(
    decide: str, material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    trained = train(material(), runtime, decide=decide, epochs=1)
    with torch.inference_mode():
        prediction = trained.detector(image)
    assert torch.equal(prediction.score, prediction.parts[decide])
    assert trained.held_out.scores["score"] == trained.held_out.scores[decide]


def test_a_network_without_a_head_cannot_decide(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    with pytest.raises(ValueError, match=r"direct has no head.*--decide fused or adn"):
        train(material(), runtime, aan="direct", decide="aan")


def test_an_attention_point_that_is_not_there_is_refused(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    with pytest.raises(ValueError, match="attention point 7"):
        train(material(), runtime, attention_points=[7])


def test_the_strength_learns_and_the_remarks_say_what_attention_does(trained: Trained) -> None:
    assert isinstance(trained.detector, LEADetector)
    gate = trained.remarks["gate"]
    assert set(gate) == {"A4"}
    assert gate["A4"]["strength"] != 1
    assert gate["A4"]["strength"] == pytest.approx(trained.detector.network.strength.tolist()[0])
    assert 0 < gate["A4"]["attention_mean"] < 1
    assert gate["A4"]["attention_spatial_sd"] >= 0


def test_flat_attention_is_remarked_upon(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = material()
    options: dict[str, Any] = {"aan": "direct", "attention_points": [1, 4], "epochs": 1}
    monkeypatch.setattr(lea_measures, "FLAT", math.inf)
    remarks = train(data, runtime, **options).remarks
    assert remarks["flat_attention"] == ["A2", "A5"]
    for gate in remarks["gate"].values():
        assert gate["strength"] == 1
        assert 0.5 < gate["attention_mean"] < torch.tensor(1.0).sigmoid()
    assert remarks["gate"]["A2"]["attention_spatial_sd"] > 0
    assert remarks["gate"]["A5"]["attention_spatial_sd"] == 0  # a single pixel at 32 px


def test_attention_counts_as_flat_below_its_limit_only(
    material: Callable[..., Material], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lea_measures, "FLAT", 0.0)
    assert train(material(), runtime, epochs=1).remarks["flat_attention"] == []


@pytest.mark.parametrize("mode", ["in_sample", "out_of_fold"])
def test_the_remarks_say_where_the_maps_come_from(
    mode: str, material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    trained = train(data, runtime, map_mode=mode, epochs=1)
    assert trained.remarks["map_mode"] == mode
    assert (
        len(list((data.run / "map_models").iterdir())) == {"in_sample": 1, "out_of_fold": 3}[mode]
    )


def test_without_attention_the_classifier_is_the_plain_one_bit_for_bit(
    material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    """Same images, same order, same start: what differs between the methods is the attention."""
    data, other = material(), material()
    options = {key: QUICK[key] for key in ("adn", "epochs")}
    lea = train(data, runtime, aan="direct", attention_points=[], map_prior="none")
    plain = classifier.train(
        from_dict(classifier.Config, options), fold_of(other), other, other.run / "final", runtime
    )
    with torch.inference_mode():
        assert torch.equal(lea.detector(image).parts["adn"], plain.detector(image).score)
    assert set(lea.held_out.scores) == {"score", "fused", "adn", "map"}
    assert lea.remarks["gate"] == {}


def test_the_explanation_shows_every_point(
    material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    trained = train(material(), runtime, attention_points=[0, 3], epochs=1)
    with torch.inference_mode():
        pictures = trained.detector.explain(image)
    names = [f"{what} A{p}" for p in (1, 4) for what in ("attention", "before", "after")]
    assert list(pictures) == ["repainted", *names, "strength A1", "strength A4"]
    assert all(torch.equal(pictures[f"strength A{p}"], torch.ones(4, 1, 1, 1)) for p in (1, 4))
    for point, side in ((1, 16), (4, 2)):
        for what in ("attention", "before", "after"):
            assert pictures[f"{what} A{point}"].shape == (4, 1, side, side)
        steered = pictures[f"before A{point}"] * (1 + pictures[f"attention A{point}"])
        torch.testing.assert_close(pictures[f"after A{point}"], steered, rtol=1e-4, atol=1e-5)


def test_the_threshold_is_marked_when_nothing_is_held_out(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    trained = train(material(), runtime, val_fraction=0.0, epochs=1)
    assert trained.remarks["threshold_in_sample"] is True
    assert len(trained.held_out.indices) == 24
    assert trained.epochs == 1


def test_held_out_images_choose_the_attention_point(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    trained = train(data, runtime, attention_points=["auto"], epochs=1)
    choice = trained.remarks["choice"]
    assert list(choice["held_out"]) == ["A1", "A2", "A3", "A4", "A5"]
    assert isinstance(trained.detector, LEADetector)
    assert [f"A{p + 1}" for p in trained.detector.network.points] == [choice["chosen"]]
    assert list(trained.remarks["gate"]) == [choice["chosen"]]


@pytest.mark.parametrize(
    "options", [{"attention_points": ["auto", 2]}, {"attention_points": ["auto"], "aan": "none"}]
)
def test_auto_stands_alone_and_needs_an_attention_network(
    options: dict[str, Any], material: Callable[..., Material], runtime: Runtime
) -> None:
    with pytest.raises(ValueError, match="auto stands alone, and needs an attention network"):
        train(material(), runtime, **options)


@pytest.mark.parametrize(("how", "channels"), [
    ("map", 1), ("4_channel", 4), ("attentioned", 3), ("multiplied", 3),
])  # fmt: skip
def test_the_classifier_can_read_the_map_without_attention(
    how: str,
    channels: int,
    material: Callable[..., Material],
    runtime: Runtime,
    image: torch.Tensor,
) -> None:
    trained = train(material(), runtime, adn_input=how, aan="none", epochs=1)
    assert isinstance(trained.detector, LEADetector)
    first = next(m for m in trained.detector.network.adn.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == channels
    with torch.inference_mode():
        assert set(trained.detector(image).parts) == {"fused", "adn", "map"}


def test_two_outputs_are_one_score(
    material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    trained = train(material(), runtime, num_outputs=2, epochs=1)
    with torch.inference_mode():
        parts = trained.detector(image).parts
    assert parts["adn"].shape == parts["aan"].shape == (4,)


def test_prepared_maps_steer_and_are_remembered(
    material: Callable[..., Material], runtime: Runtime, image: torch.Tensor
) -> None:
    data = material()
    options = {"map_blur": 1.0, "map_threshold": 0.5, "map_top_fraction": 0.25}
    trained = train(data, runtime, **options, map_ablation="shuffled", epochs=1)
    detector = trained.detector
    assert isinstance(detector, LEADetector)
    steps = MapSteps(1.0, 0.5, 0.25, binarize=False, ablation="shuffled")
    assert (detector.preparation.steps, trained.remarks["map_steps"]) == (steps, steps._asdict())
    with torch.inference_mode():
        raw, (_, seen) = detector.map_model(image).map, detector.prepare(image)
        assert torch.equal(seen, prepare_map(raw, detector.preparation))
        judged = detector(image)
        assert torch.equal(judged.map, raw)
        logits = detector.logits_of(detector.network(*detector.prepare(image)), "adn")
        assert torch.equal(judged.parts["adn"], logits[:, 0])
    assert 0 < (seen > 0).float().mean() <= 0.25
    again = leanet.build(from_dict(Config, QUICK | options), 32, detector.extra())
    assert again.preparation == detector.preparation


def test_a_detector_that_knows_no_steps_has_none(trained: Trained) -> None:
    """Those of earlier versions tell a scale alone."""
    extra = trained.detector.extra()
    del extra["map_steps"], extra["map_level"]
    built = leanet.build(from_dict(Config, QUICK | {"learn_strength": True}), 32, extra)
    assert isinstance(trained.detector, LEADetector)
    assert built.preparation == trained.detector.preparation == MapPreparation(built.scale)


@pytest.mark.parametrize(("options", "message"), [
    ({"map_binarize": True}, "map_binarize makes 1 of every pixel"),
    ({"map_top_fraction": 5.0}, "map_top_fraction 5.0: give a share"),
    ({"map_options": {"lr": 1.0}}, "map_options .lr. are those of a method"),
    ({"attention_sigmoid": False}, "attention_sigmoid false is for aan direct"),
    ({"strength_nonneg": True}, "add --learn_strength"),
    ({"aan": "none", "decide": "aan"}, "no head to decide"),
    ({"aan": "resnett"}, "AAN 'resnett'.*did you mean resnet"),
])  # fmt: skip
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str, material: Callable[..., Material], runtime: Runtime
) -> None:
    with pytest.raises(ValueError, match=message):
        train(material(), runtime, **options)


def test_weights_that_are_not_there_are_refused_before_any_map_is_drawn(
    material: Callable[..., Material], runtime: Runtime
) -> None:
    data = material()
    with pytest.raises(ValueError, match=r"no weight file at none\.pt"):
        train(data, runtime, weights="none.pt")
    assert not (data.run / "map_models").exists()
