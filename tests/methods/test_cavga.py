"""The detector: what its score and map are, whom it looks at, where its limits come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanet.data.cache import Cache
from leanet.data.folds import single_fold
from leanet.inference.cam import CAM
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.methods import cavga
from leanet.methods.cavga import CavgaDetector, build, train
from leanet.methods.cavga_config import Config
from leanet.methods.recipe import Experience, HeldOut, Material, Trained
from leanet.methods.store import load_detector, save_detector
from leanet.networks import timm_stages
from leanet.networks.cavga import Cavga
from leanet.networks.dcgan import Discriminator
from leanet.records import ANOMALOUS, NORMAL, Sample
from leanet.runtime import Runtime

SIDE = 32


def quick(variant: Any = "D_u", **options: Any) -> Config:
    known = {"latent_channels": 4, "batch_size": 8, "epochs": 1, "min_steps": 0}
    return Config(variant=variant, **{**known, **options})


def untrained(variant: Any = "D_u", limits: Any = (0.1, 0.3), **options: Any) -> CavgaDetector:
    """A detector with random weights whose maps are far from flat."""
    torch.manual_seed(0)
    detector = build(quick(variant, **options), SIDE, {"limits": limits})
    nn.init.normal_(detector.network.mu.weight, 0, 1.0)
    if detector.network.head is not None:
        nn.init.normal_(detector.network.head[-1].weight, 0, 0.5)
    for name, tensor in detector.network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # as trained
    return detector.eval()


def images(num: int = 2) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


class Watched(Cache):
    """Remembers which images were asked for."""

    taken: set[int]

    def take(self, indices: Sequence[int]) -> Tensor:
        self.taken = getattr(self, "taken", set()) | set(indices)
        return super().take(indices)


def material(run: Path, labels: Sequence[int]) -> Material:
    """Noise of a color."""
    rng = np.random.default_rng(0)
    array = rng.integers(60, 120, (len(labels), 3, SIDE, SIDE)).astype(np.uint8)
    samples = tuple(
        Sample(path=Path(f"{k:02d}.png"), label=label, kind="spot" if label else "good")
        for k, label in enumerate(labels)
    )
    cache = Watched(array, torch.device("cpu"))
    return Material(samples=samples, images=cache, img_size=SIDE, run=run)


def fit(data: Material, runtime: Runtime, config: Config, **more: Any) -> Trained:
    fold = single_fold(data.samples, seed=0, inner_splits=0)
    return train(config, fold, data, data.run / "final", runtime, **more)


# score and map


@pytest.mark.parametrize("how", ["mean", "max"])
def test_the_score_is_the_difference_to_the_image_that_the_mean_of_the_latent_gives(
    how: Any,
) -> None:
    detector = untrained(score=how, latent_draws=0)
    with torch.no_grad():
        error = (images() - detector.network(images()).logits.sigmoid()).abs()
        expected = error.mean(dim=(1, 2, 3)) if how == "mean" else error.amax(dim=(1, 2, 3))
        torch.testing.assert_close(detector(images()).score, expected)


@pytest.mark.parametrize("latent", ["conv", "flat"])
def test_a_reconstruction_is_the_mean_of_draws_that_all_images_share(latent: Any) -> None:
    detector = untrained(latent=latent, latent_draws=3)
    inside = detector.network(images())
    drawn = [
        detector.network.decode(inside.mu + noise * (inside.logvar / 2).exp()).sigmoid()
        for noise in detector.noise
    ]
    assert len(drawn) == 3
    torch.testing.assert_close(detector.explain(images())["reconstruction"], sum(drawn) / 3)
    assert torch.equal(detector.noise, untrained(latent=latent, latent_draws=3).noise)


@pytest.mark.parametrize("variant", ["D_u", "D_w"])
def test_the_map_may_be_the_error_of_the_reconstruction_instead(variant: Any) -> None:
    detector = untrained(variant, anomaly_map="error")
    with torch.no_grad():
        prediction, shown = detector(images()), detector.explain(images())
    error = (images() - shown["reconstruction"]).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(prediction.map, error)
    torch.testing.assert_close(prediction.score, error.mean(dim=(1, 2, 3)))
    assert (detector.map_unit, detector.map_grid, detector.map_thresholds) == ("L1", None, {})


@pytest.mark.parametrize("latent", ["conv", "flat"])
def test_the_map_is_what_attention_lacks_enlarged_to_the_image(latent: Any) -> None:
    detector = untrained(latent=latent)
    with torch.no_grad():
        lack = 1 - detector.network(images()).attention.sigmoid()
        found = detector(images()).map
    assert lack.shape == (2, 1, 2, 2)
    large = F.interpolate(lack, (SIDE, SIDE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, large)
    assert found.std() > 0.01
    assert detector.map_grid == 2
    assert (detector.map_unit, detector.map_top) == ("attention", 1.0)
    assert detector.map_thresholds["paper"] == 0.5


@pytest.mark.parametrize("which", ["ca", "one_minus_cn"])
def test_the_map_of_a_weak_detector_is_that_of_the_class_asked_for(which: Any) -> None:
    detector = untrained("D_w", weak_map=which)
    with torch.no_grad():
        covered = detector.network(images()).attention.sigmoid()
        grid = covered[:, 1:] if which == "ca" else 1 - covered[:, :1]
        found = detector(images()).map
    large = F.interpolate(grid, (SIDE, SIDE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, large)


def test_a_place_that_is_well_covered_still_has_its_rank() -> None:
    detector = untrained()
    raw = torch.tensor([20.0, 30.0, 40.0, 50.0]).view(1, 1, 2, 2)
    lack = detector._anomaly(raw).flatten()
    assert lack.min() > 0
    assert (lack.diff() < 0).all()


def test_the_parts_are_the_score_on_the_scale_of_normals_and_the_logit_of_anomalous() -> None:
    detector = untrained("D_w")
    with torch.no_grad():
        prediction, inside = detector(images()), detector.network(images())
    expected = (0.5 * (prediction.score - 0.1) / (0.3 - 0.1)).clamp(0, 1)
    torch.testing.assert_close(prediction.parts["normalized"], expected)
    probability = prediction.parts["classifier"].sigmoid()
    torch.testing.assert_close(probability, inside.classes.softmax(dim=1)[:, 1])
    assert detector.logits == ("classifier",)
    assert set(untrained()(images()).parts) == {"normalized"}


ODD: list[tuple[str, dict[str, Any]]] = [
    ("D_u", {"attention_norm": "relu_max"}),
    ("D_u", {"latent": "flat"}),
    ("D_u", {"attention_path": "autograd", "attention_norm": "relu_max"}),
    ("D_u", {"attention_layer": "previous"}),
    ("D_w", {}),
    ("D_w", {"latent": "flat"}),
    ("D_w", {"head_hidden": 8}),
]


@pytest.mark.parametrize(("variant", "options"), ODD)
def test_an_image_is_judged_alike_alone_and_beside_any_other(variant: str, options: Any) -> None:
    detector = untrained(variant, **options)
    loud = torch.cat([images(1), torch.ones(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)])
    with torch.inference_mode():
        together = detector(loud)
        alone = [detector(one[None]) for one in loud]
        again = detector(loud)
    for name, expected in {**together.named(), "map": together.map}.items():
        got = torch.cat([{**one.named(), "map": one.map}[name] for one in alone])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal({**again.named(), "map": again.map}[name], expected)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_judging_works_where_gradients_are_switched_off(off: Any) -> None:
    detector = untrained(attention_layer="previous")
    expected = detector(images())
    with off():
        got = detector(images())
        assert not got.map.requires_grad
    torch.testing.assert_close(got.map, expected.map)
    torch.testing.assert_close(got.score, expected.score)


@pytest.mark.parametrize(("variant", "options"), ODD)
def test_uniform_images_are_judged_by_finite_numbers(variant: str, options: Any) -> None:
    detector = untrained(variant, **options)
    value = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    with torch.inference_mode():
        prediction = detector(value.expand(3, 3, SIDE, SIDE))
    assert 0 <= prediction.map.min() <= prediction.map.max() <= 1  # no NaN among them
    assert all(part.isfinite().all() for part in prediction.named().values())


class Exported(nn.Module):
    def __init__(self, detector: CavgaDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        prediction = self.detector(image)
        return prediction.score, prediction.map, prediction.parts


@pytest.mark.parametrize(("variant", "latent"), [("D_u", "conv"), ("D_w", "flat")])
@torch.no_grad()
def test_the_exported_graph_gives_the_same(variant: Any, latent: Any) -> None:
    module = Exported(untrained(variant, latent=latent)).eval()
    program = torch.export.export(module, (images(),)).module()
    other = images(4)[2:]
    score, anomaly_map, parts = program(other)
    expected = module(other)
    torch.testing.assert_close(score, expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(anomaly_map, expected[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts, expected[2], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_by_a_backward_pass_is_not_exported_and_says_why() -> None:
    module = Exported(untrained("D_w", head_hidden=8)).eval()
    with pytest.raises(ValueError, match="cannot be exported; train with --attention_path auto"):
        torch.export.export(module, (images(),))


@pytest.mark.parametrize(
    ("variant", "options"), [("D_w", {"latent": "flat"}), ("D_u", {"attention_layer": "previous"})]
)
def test_saved_and_loaded_is_the_same_detector(variant: str, options: Any, tmp_path: Path) -> None:
    detector = untrained(variant, **options)
    detector.map_thresholds["honest"] = 0.25
    save_detector(tmp_path, "cavga", quick(variant, **options), detector)
    loaded = load_detector(tmp_path)
    with torch.inference_mode():
        first, second = detector(images()), loaded(images())
    assert torch.equal(first.map, second.map)
    named = second.named()
    assert all(torch.equal(value, named[name]) for name, value in first.named().items())
    assert loaded.map_thresholds == {"paper": 0.5, "honest": 0.25}
    assert loaded.map_grid == detector.map_grid


def test_pictures_that_explain_are_the_rebuilt_image_and_the_attention() -> None:
    with torch.inference_mode():
        for variant, names in (
            ("D_u", ["reconstruction", "attention"]),
            ("D_w", ["reconstruction", "attention_normal", "attention_anomalous"]),
        ):
            pictures = untrained(variant).explain(images())
            assert list(pictures) == names
            assert pictures["reconstruction"].shape == (2, 3, SIDE, SIDE)
            assert all(pictures[name].shape == (2, 1, 2, 2) for name in names[1:])
            assert all(0 <= one.min() < one.max() <= 1 for one in pictures.values())


@pytest.mark.parametrize("options", [{}, {"latent": "flat"}, {"head_hidden": 8}])
def test_class_activation_maps_of_a_weak_detector_look_at_its_encoder(
    options: dict[str, Any],
) -> None:
    explainer = Explainer(untrained("D_w", **options), CamOptions())
    (found,) = explainer.explain(images()).values()
    assert [one.layer for one in explainer.wanted] == ["encoder.10"]
    assert isinstance(found, CAM)
    assert found.map.shape == (2, 1, 2, 2)
    assert found.map.isfinite().all()
    assert found.map.abs().max() > 0


def test_without_classes_there_is_no_class_activation_map() -> None:
    with pytest.raises(ValueError, match="no classifier"):
        Explainer(untrained(), CamOptions())


# training


def test_normal_images_alone_are_looked_at(runtime: Runtime, tmp_path: Path) -> None:
    labels = [NORMAL] * 12 + [ANOMALOUS] * 6
    data = material(tmp_path, labels)
    trained = fit(data, runtime, quick(batch_size=12))
    assert isinstance(data.images, Watched)
    assert data.images.taken == set(range(12)) == set(trained.held_out.indices)
    assert trained.remarks["threshold_in_sample"]


def test_a_weak_detector_looks_at_its_share_of_the_anomalous_images_alone(
    runtime: Runtime, tmp_path: Path
) -> None:
    labels = [NORMAL] * 12 + [ANOMALOUS] * 6
    data = material(tmp_path, labels)
    trained = fit(data, runtime, quick("D_w", weak_fraction=0.3, batch_size=12))
    assert isinstance(data.images, Watched)
    seen = {i for i in data.images.taken if labels[i] == ANOMALOUS}
    assert len(seen) == 2  # ceil(0.3 * 6)
    assert trained.remarks["weak_images"] == [f"{i:02d}.png" for i in sorted(seen)]
    assert all(labels[i] == NORMAL for i in trained.held_out.indices)


def test_a_weak_variant_without_anomalous_images_is_refused(
    runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="take R_u or D_u"):
        fit(material(tmp_path, [NORMAL] * 20), runtime, quick("D_w"))
    with pytest.raises(ValueError, match="has no normal images"):
        fit(material(tmp_path, [ANOMALOUS] * 20), runtime, quick())


@pytest.mark.parametrize(("variant", "stride"), [("R_u", 32), ("D_u", 16)])
def test_a_side_of_100_is_refused_before_any_image_is_read(
    runtime: Runtime, tmp_path: Path, variant: Any, stride: int
) -> None:
    data = replace(material(tmp_path, [NORMAL] * 20), img_size=100)
    with pytest.raises(ValueError, match=f"100 .* multiple of {stride}"):
        fit(data, runtime, quick(variant))
    assert not hasattr(data.images, "taken")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first weights are the last."""
    monkeypatch.setattr(cavga, "train_players", lambda *given: [{}])
    monkeypatch.setattr(cavga, "warnings_of", lambda *given, **options: [])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("count", [12, 20])
def test_the_limits_come_from_held_out_normals_or_it_is_said_that_they_do_not(
    count: int, runtime: Runtime, tmp_path: Path
) -> None:
    trained = fit(material(tmp_path, [NORMAL] * count), runtime, quick())
    assert trained.remarks["threshold_in_sample"] == (count == 12)
    indices, scores = trained.held_out
    assert len(indices) == (12 if count == 12 else 5)
    low, high = trained.detector.extra()["limits"]
    assert low == pytest.approx(np.min(scores["score"]))
    assert high == pytest.approx(np.quantile(scores["score"], 0.99))
    assert trained.thresholds is not None
    assert trained.thresholds["score"].value == high
    assert trained.thresholds["normalized"].value == 0.5
    told = [0.5 * (score - low) / (high - low) for score in scores["score"]]
    np.testing.assert_allclose(scores["normalized"], np.clip(told, 0, 1), atol=1e-5)


@pytest.mark.usefixtures("no_training")
def test_the_honest_working_point_of_the_map_is_a_quantile_of_held_out_pixels(
    runtime: Runtime, tmp_path: Path
) -> None:
    data = material(tmp_path, [NORMAL] * 20)
    trained = fit(data, runtime, quick())
    held = data.images.take(trained.held_out.indices) / 255
    with torch.inference_mode():
        pixels = trained.detector(held).map
    honest = trained.detector.map_thresholds["honest"]
    assert honest == pytest.approx(np.quantile(pixels.numpy(), 0.995), rel=1e-3)


@pytest.mark.usefixtures("no_training")
def test_with_experience_all_normals_train_and_its_scores_make_the_limits(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cavga, "train_players", lambda game, *given: seen.append(game) or [{}])
    labels = [NORMAL] * 24 + [ANOMALOUS] * 4
    learned = HeldOut((0, 1, 2, 24), {"score": [1.0, 2.0, 3.0, 9.0]})
    data = material(tmp_path, labels)
    trained = fit(data, runtime, quick(), experience=Experience(learned, 1))
    assert trained.held_out == learned
    assert trained.detector.extra()["limits"] == pytest.approx((1.0, 2.98))
    assert sorted(seen[0].source.indices) == list(range(24))
    assert seen[0].held.indices == ()


# weights to start from


def test_a_random_start_is_told(runtime: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for variant, words in (("R_u", ["ImageNet", "DC-GAN"]), ("D_u", ["DC-GAN"])):
        with torch.device("meta"):
            network, opponent = cavga.build_network(quick(variant), SIDE), Discriminator()
        notices = cavga.start_weights(quick(variant), network, opponent)["notices"]
        assert len(notices) == len(words)
        assert all(word in one for word, one in zip(words, notices, strict=True))


def test_the_encoder_takes_a_weight_file_of_a_whole_resnet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Config(variant="R_u", weights=str(tmp_path / "known.pt"))
    given = Cavga("R", "conv", SIDE).encoder.state_dict()
    whole = {**given, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(whole, tmp_path / "known.pt")
    network = cavga.build_network(config, SIDE)
    with torch.device("meta"):
        opponent = Discriminator()
    remarks = cavga.start_weights(config, network, opponent)
    assert all(torch.equal(given[name], v) for name, v in network.encoder.state_dict().items())
    assert remarks["encoder"] == str(tmp_path / "known.pt")


def test_without_a_network_it_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm_stages, "getproxies", dict)
    monkeypatch.setattr(timm_stages, "try_to_load_from_cache", lambda *file: None)
    monkeypatch.setattr(timm_stages.socket, "create_connection", unreachable)
    config = Config(variant="R_u", pretrained=True)
    with torch.device("meta"):
        network, opponent = cavga.build_network(config, SIDE), Discriminator()
    with pytest.raises(ValueError, match=r"no route to host.*a file of them by --weights"):
        cavga.start_weights(config, network, opponent)
