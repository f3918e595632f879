from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leanet.inference.map_effect import map_effect, reference_map


class Net(nn.Module):
    """Logit: mean of the image plus three times the mean of the map."""

    def forward(self, image: Tensor, anomaly_map: Tensor) -> Tensor:
        return (image.mean(dim=(1, 2, 3)) + 3 * anomaly_map.mean(dim=(1, 2, 3)))[:, None]


def prepare(image: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
    return image, planes[0] if planes else image[:, :1]


def flat(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()


def test_the_reference_is_the_mean_map_of_normal_images_or_zeros() -> None:
    plane = prepare(flat(0.5))[1]
    mean = reference_map(prepare, flat(0.2, 0.4, 0.3), plane)
    assert mean.plane.flatten().tolist() == pytest.approx([0.3] * 16)
    assert mean.words == "the mean map of 3 normal images"
    for nothing in (None, flat()):
        zeros = reference_map(prepare, nothing, plane)
        assert (float(zeros.plane.abs().max()), zeros.words) == (0, "zeros")


def test_the_effect_is_what_the_map_adds_to_the_logit() -> None:
    image = flat(0.5, 0.1)
    reference = torch.full((1, 1, 4, 4), 0.2)
    effect = map_effect(Net().train(), image, prepare, reference=reference, logits_of=lambda x: x)
    assert effect.map_effect.tolist() == pytest.approx([3 * 0.3, 3 * -0.1])
    assert effect.exchanged.tolist() == pytest.approx([3 * 0.4, 3 * -0.4])


def test_an_image_alone_has_nothing_to_exchange_with() -> None:
    effect = map_effect(
        Net(), flat(0.5), prepare, reference=torch.zeros(1, 1, 4, 4), logits_of=lambda x: x
    )
    assert torch.isnan(effect.exchanged).all()


def test_a_softmax_pair_counts_by_its_difference() -> None:
    effect = map_effect(Net(), flat(0.5), prepare, reference=torch.zeros(1, 1, 4, 4),
                        logits_of=lambda z: torch.cat([-z, z], dim=1))  # fmt: skip
    assert effect.map_effect.tolist() == pytest.approx([2 * 1.5])
