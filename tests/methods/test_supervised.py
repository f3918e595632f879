"""Balance, monitoring and starting weights: what the supervised methods share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leanet.methods import supervised
from leanet.methods.recipe import Material
from leanet.methods.supervised import Config, Plan, train_network
from leanet.networks import timm_stages
from leanet.records import Batch, Fold
from leanet.runtime import Runtime

SIDE = 8
SMALL = "timm/mobilenetv3_small_050"


Noise = Callable[[int, int], Material]


def everything(data: Material) -> Fold:
    return Fold(name="final", train=tuple(range(len(data.samples))), test=())


class Watch:
    """A loss that remembers labels and weights of the training batches; validation gets worse."""

    def __init__(self) -> None:
        self.labels: list[list[float]] = []
        self.weights: list[float | None] = []
        self.validated: list[Batch] = []

    def __call__(
        self, network: nn.Module, batch: Batch, positive_weight: Tensor | None
    ) -> dict[str, Tensor]:
        if not network.training:
            assert positive_weight is None
            self.validated.append(batch)
            return {"loss": torch.tensor(float(len(self.validated)))}
        self.labels.append(batch.label.tolist())
        self.weights.append(None if positive_weight is None else float(positive_weight))
        logit = network(batch.image)
        return {"loss": supervised.binary_loss(logit, batch.label, positive_weight)}


def watch(
    config: Config, data: Material, runtime: Runtime, held: tuple[int, ...] = ()
) -> tuple[Watch, int]:
    loss = Watch()
    plan = Plan(
        name="test",
        network=nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 1)),
        loss=loss,
        rest=tuple(i for i in range(len(data.samples)) if i not in held),
        held=held,
    )
    return loss, train_network(config, plan, data, data.run / "final", runtime)


def config(**changes: Any) -> Config:
    return Config(**({"epochs": 3, "batch_size": 8} | changes))


# --- balance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["batches", "auto"])
def test_rare_anomalies_fill_a_quarter_of_every_batch(
    balance: Any, runtime: Runtime, noise: Noise
) -> None:
    loss, _ = watch(config(balance=balance), noise(30, 3), runtime)
    assert all(sum(batch) == 2 for batch in loss.labels)
    assert set(loss.weights) == {None}


@pytest.mark.parametrize("balance", ["none", "auto"])
def test_common_anomalies_are_left_as_they_are(
    balance: Any, runtime: Runtime, noise: Noise
) -> None:
    loss, _ = watch(config(balance=balance, epochs=1), noise(15, 5), runtime)
    labels = [label for batch in loss.labels for label in batch]
    assert (len(labels), sum(labels)) == (20, 5)
    assert set(loss.weights) == {None}


def test_the_weight_of_the_anomalous_makes_both_classes_count_the_same(
    runtime: Runtime, noise: Noise
) -> None:
    loss, _ = watch(config(balance="loss", epochs=1), noise(30, 4), runtime)
    assert set(loss.weights) == {7.5}
    labels = [label for batch in loss.labels for label in batch]
    assert (len(labels), sum(labels)) == (34, 4)


def test_the_loss_is_weighted_cross_entropy() -> None:
    logit, label = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1.0, 0.0, 1.0])
    p = logit[:, 0].double().sigmoid()
    expected = -(3 * p[0].log() + (1 - p[1]).log() + 3 * p[2].log()) / 3
    got = supervised.binary_loss(logit, label, torch.tensor(3.0))
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_held_out_images_are_not_augmented(runtime: Runtime, noise: Noise) -> None:
    data = noise(12, 4)
    loss, _ = watch(config(epochs=1), data, runtime, held=(0, 15))
    expected = torch.from_numpy(data.images.array[[0, 15]]).float() / 255
    torch.testing.assert_close(loss.validated[0].image, expected)


# --- monitor ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_held", "best"), [(5, 1), (4, 3)])
def test_the_held_out_loss_chooses_the_epoch_when_enough_anomalies_are_held_out(
    num_held: int, best: int, runtime: Runtime, noise: Noise
) -> None:
    data = noise(20, 10)
    held = (0, 1, 2, *range(20, 20 + num_held))  # the held-out loss rises from epoch to epoch
    _, epochs = watch(config(), data, runtime, held=held)
    assert epochs == best


@pytest.mark.parametrize(("monitor", "best"), [("val_loss", 1), ("", 3)])
def test_a_named_monitor_is_taken_whatever_is_held_out(
    monitor: str, best: int, runtime: Runtime, noise: Noise
) -> None:
    data = noise(20, 10)
    assert watch(config(monitor=monitor), data, runtime, held=(0, 20))[1] == best


def test_without_held_out_images_the_last_weights_count(runtime: Runtime, noise: Noise) -> None:
    data = noise(20, 10)
    assert watch(config(monitor="val_loss"), data, runtime)[1] == 3


def test_an_unknown_monitor_lists_what_is_measured(runtime: Runtime, noise: Noise) -> None:
    data = noise(20, 10)
    with pytest.raises(ValueError, match=r"'val_f1' is not measured.*val_loss"):
        watch(config(monitor="val_f1"), data, runtime, held=(0, 20))


# --- networks and their weights -----------------------------------------------------------------


def test_an_unknown_classifier_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"ADN 'resnet99'.*resnet18.*timm/NAME"):
        supervised.build_classifier(config(adn="resnet99"), 3, 1, 32)
    with pytest.raises(ValueError, match="timm knows no model 'resnet99'"):
        supervised.build_classifier(config(adn="timm/resnet99"), 3, 1, 32)


@pytest.mark.parametrize("adn", [SMALL, "timm/swin_tiny_patch4_window7_224"])
def test_timm_backbones_of_any_and_of_one_size_are_built(adn: str) -> None:
    with torch.device("cpu"), torch.no_grad():
        network = supervised.build_classifier(config(adn=adn), 3, 1, 64)
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, 1)


def test_arguments_reach_timm() -> None:
    options = config(adn=SMALL, adn_args={"pad_type": "same", "drop_rate": 0.0})
    network = supervised.build_classifier(options, 3, 1, 32)
    assert any("Same" in type(module).__name__ for module in network.modules())
    with pytest.raises(ValueError, match="pad_kind"):
        supervised.build_classifier(config(adn=SMALL, adn_args={"pad_kind": 1}), 3, 1, 32)


def reach_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all weights of the hub had been stored on this machine before."""
    monkeypatch.setattr(timm_stages, "try_to_load_from_cache", lambda *file: "stored")


def start(options: Config) -> tuple[nn.Module, dict[str, Tensor]]:
    """The classifier with its starting weights, and the weights before."""
    torch.manual_seed(0)
    network = supervised.build_classifier(options, 3, 1, 32)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    supervised.start_from_weights(options, network, 32)
    return network, before


def test_without_a_file_the_weights_stay() -> None:
    network, before = start(config(adn=SMALL))
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())


@pytest.mark.parametrize("adn", ["resnet18", SMALL])
@pytest.mark.parametrize("from_hub", [False, True])
def test_the_weights_of_a_timm_model_are_taken_but_for_the_head(
    adn: str, from_hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    create = timm.create_model
    source = create(adn.removeprefix("timm/"), num_classes=1000)
    file = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), file)

    def offline(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        torch.manual_seed(7)
        made = create(name, **options)
        if pretrained and options.get("features_only"):
            known = source.state_dict()
            made.load_state_dict({n: known[n] for n in made.state_dict()})
        return made

    reach_hub(monkeypatch)
    monkeypatch.setattr(timm, "create_model", offline)
    weights = {"pretrained": True} if from_hub else {"weights": str(file)}
    network, before = start(config(adn=adn, **weights))
    taken = [t for t in network.state_dict().values() if t.ndim == 4]
    originals = [t for t in source.state_dict().values() if t.ndim == 4]
    assert taken
    assert all(any(torch.equal(t, o) for o in originals if o.shape == t.shape) for t in taken)
    assert torch.equal(network.state_dict()["fc.weight"], before["fc.weight"])


def test_a_file_of_another_network_is_refused_with_the_differences(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    for adn in ("resnet18", SMALL):
        with pytest.raises(ValueError, match=r"other\.safetensors.*do not fit.*missing"):
            start(config(adn=adn, weights=str(file)))


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no weight file at none\.pt"):
        start(config(weights="none.pt"))


def test_a_file_and_the_hub_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        start(config(weights="none.pt", pretrained=True))


@pytest.mark.parametrize("adn", ["resnet18", SMALL])
def test_without_a_network_the_hub_says_how_to_give_a_file(
    adn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create: Callable[..., nn.Module] = timm.create_model

    def offline(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    reach_hub(monkeypatch)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"no route to host.*weights"):
        start(config(adn=adn, pretrained=True))


@pytest.mark.parametrize("adn", ["resnet18", SMALL])
def test_a_hub_out_of_reach_is_told_before_any_work(
    adn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm_stages, "getproxies", dict)
    monkeypatch.setattr(timm_stages, "try_to_load_from_cache", lambda *file: None)
    monkeypatch.setattr(timm_stages.socket, "create_connection", unreachable)
    name = adn.removeprefix("timm/")
    with pytest.raises(ValueError, match=rf"timm model {name} .*no route to host.*--weights"):
        supervised.require_weights(config(adn=adn, pretrained=True))
    supervised.require_weights(config(adn=adn))


def test_normalizing_is_an_affine_map_per_channel() -> None:
    image = torch.rand(2, 3, 4, 4)
    got = supervised.Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))(image)
    for channel, (mean, sd) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(got[:, channel], (image[:, channel] - mean) / sd)
