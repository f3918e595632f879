from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leanet.data.generated import sha256_of
from leanet.generation.spaces import PIXELS, backbone_space, run_space, sized
from leanet.networks.choose import build_adn

CPU = torch.device("cpu")


def image(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_pixels_need_no_weights_and_say_their_name() -> None:
    assert (PIXELS.name, PIXELS.sha256) == ("16x16 pixel means", None)
    assert PIXELS.of(image()).shape == (5, 768)


def test_a_backbone_gives_the_global_averages_of_its_last_stage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_adn("resnet18")
    file = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), file)
    space = backbone_space("resnet18", file, 32, CPU)
    assert (space.name, space.sha256) == ("resnet18", sha256_of(file))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    network.eval()
    with torch.no_grad():
        expected = network.features((image() / 255 - mean) / sd)[-1].mean(dim=(2, 3))
    torch.testing.assert_close(space.of(image()), expected)


def test_a_classifier_run_gives_its_features(
    toy: Path, tmp_path: Path, quick_fit: Callable[..., Path]
) -> None:
    run = quick_fit("classifier", toy, tmp_path / "plain", epochs=1)
    space, detector = run_space(run, "final", CPU)
    assert space.name == "classifier plain"
    assert space.sha256 == sha256_of(run / "final" / "weights.safetensors")
    features = space.of(image())
    assert features.shape[0] == 5
    with torch.no_grad():
        logits = detector.network.fc(features)  # type: ignore[operator]
        expected = detector(image().float() / 255).score
    torch.testing.assert_close(logits[:, 0], expected, rtol=1e-3, atol=1e-4)


def test_a_run_without_plain_features_is_refused(lea_run: Path) -> None:
    with pytest.raises(ValueError, match="holds no plain classifier"):
        run_space(lea_run, "final", CPU)


def test_images_are_resized_only_where_the_side_differs() -> None:
    one = image(1).float() / 255
    assert sized(one, 32) is one
    assert sized(one, 16).shape == (1, 3, 16, 16)
