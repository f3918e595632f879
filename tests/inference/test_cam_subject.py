from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leanet.inference.cam import cam
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.inference.cam_subject import default_parts, subject_of
from leanet.inference.cam_targets import Target
from leanet.records import ANOMALOUS, NORMAL, Prediction, Sample

SIDE = 16


class Small(nn.Module):
    """Two stages and a head of `outputs` logits."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stages = nn.ModuleList([first, second])
        self.fc = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class Detector(nn.Module):
    img_size = SIDE
    normal = None

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(outputs)
        self.network: nn.Module = Small(outputs)
        self.classes = () if outputs == 1 else ("good", "spot", "rust")

    def forward(self, image: Tensor) -> Prediction:
        return Prediction(self.network(2 * image)[:, 0])

    def prepare(self, image: Tensor, *planes: Tensor) -> tuple[Tensor, ...]:
        return (2 * image,)

    def logits_of(self, output: Any, head: str = "") -> Tensor:
        assert isinstance(output, Tensor)
        return output


def images(num: int = 6) -> Tensor:
    return torch.rand(num, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def samples(num: int = 6) -> list[Sample]:
    labels = (NORMAL, ANOMALOUS)
    return [Sample(path=Path(f"{k}.png"), label=labels[k % 2]) for k in range(num)]


def explainer(outputs: int, threshold: float | None = None, **options: Any) -> Explainer:
    asked = {"methods": "grad_cam,eigen_cam", "layer": "stages.1", **options}
    return Explainer(Detector(outputs), CamOptions(**asked), threshold=threshold)


def label(one: Sample) -> int:
    return one.label


def scores(outputs: int, threshold: float | None = None, **more: Any) -> Tensor:
    subject = subject_of({"": explainer(outputs, threshold)}, **more)
    return subject.scorer(images(), samples())(images())


def logits(outputs: int) -> Tensor:
    with torch.no_grad():
        found: Tensor = explainer(outputs).detector.network(2 * images())
    return found


def test_the_maps_are_those_of_the_network_for_the_given_class() -> None:
    one = explainer(3)
    found = subject_of({"": one}, class_of=lambda sample: 2).maps(images(), samples())
    target = Target(which=2)
    expected = cam(one.detector.network, (2 * images(),), layer="stages.1", target=target).map
    assert torch.allclose(found["grad_cam-stages.1"], expected, atol=1e-6)


def test_a_class_can_be_given_for_every_image() -> None:
    one = explainer(3)
    mixed = subject_of({"": one}, class_of=label).maps(images(), samples())["grad_cam-stages.1"]
    for value in (NORMAL, ANOMALOUS):
        alone = subject_of({"": one}, class_of=lambda s, v=value: v).maps(images(), samples())
        rows = [k for k, sample in enumerate(samples()) if sample.label == value]
        assert torch.allclose(mixed[rows], alone["grad_cam-stages.1"][rows], atol=1e-6)


def test_several_explainers_stand_side_by_side() -> None:
    smooth = explainer(1, aug_smooth=True)
    subject = subject_of({"": explainer(1), ", aug_smooth": smooth})
    names = ["grad_cam-stages.1", "eigen_cam-stages.1"]
    found = subject.maps(images(), samples())
    assert list(found) == [*names, *(f"{name}, aug_smooth" for name in names)]
    assert not torch.equal(found[names[0]], found[f"{names[0]}, aug_smooth"])
    assert subject.comparable == {names[0], f"{names[0]}, aug_smooth"}


def test_scores_of_one_logit_are_those_of_its_sign() -> None:
    z = logits(1)[:, 0]
    found = scores(1, class_of=label)
    own = torch.where(torch.tensor([one.label == ANOMALOUS for one in samples()]), z, -z)
    assert torch.allclose(found[:, 1], own)
    assert torch.allclose(found[:, 0], own.sigmoid())
    assert found[:, 2].tolist() == (own > 0).float().tolist()


def test_the_threshold_decides_what_one_logit_says() -> None:
    high = float(logits(1).max()) + 1
    kept = scores(1, threshold=high, class_of=lambda one: NORMAL)[:, 2]
    assert kept.tolist() == [1.0] * 6


def test_scores_of_several_classes_are_a_softmax() -> None:
    found = scores(3, class_of=lambda one: 1)
    assert torch.allclose(found[:, 0], logits(3).softmax(dim=1)[:, 1])
    assert torch.allclose(found[:, 1], logits(3)[:, 1])
    assert found[:, 2].tolist() == (logits(3).argmax(dim=1) == 1).float().tolist()


def test_without_a_class_it_is_the_answer_to_the_unchanged_image() -> None:
    subject = subject_of({"": explainer(3)})
    score_of = subject.scorer(images(), samples())
    answers = logits(3).argmax(dim=1)
    other = 1 - images()
    with torch.no_grad():
        changed = explainer(3).detector.network(2 * other)
    assert torch.allclose(score_of(other)[:, 1], changed.gather(1, answers[:, None])[:, 0])
    assert score_of(images())[:, 2].tolist() == [1.0] * 6


def test_right_is_where_answer_and_truth_agree() -> None:
    subject = subject_of({"": explainer(1)}, true_class=label)
    assert subject.right is not None
    expected = (logits(1)[:, 0] > 0).long() == torch.tensor([one.label for one in samples()])
    assert subject.right(images(), samples()).tolist() == expected.tolist()


def test_weights_drawn_anew_give_other_maps_of_the_same_classes() -> None:
    one = explainer(1)
    subject = subject_of({"": one}, calibration=[images()], class_of=label)
    before = subject.maps(images(), samples())["grad_cam-stages.1"]
    assert list(subject.redrawn) == ["fc", "stages.1", "all"]
    drawn = [maker(images(), samples()) for maker in subject.redrawn.values()]
    assert all(not torch.allclose(maps["grad_cam-stages.1"], before) for maps in drawn)
    # the head does not touch the activations, and eigen_cam looks at nothing else
    eigen = subject.maps(images(), samples())["eigen_cam-stages.1"]
    assert torch.allclose(drawn[0]["eigen_cam-stages.1"], eigen, atol=1e-5)
    assert not torch.allclose(drawn[1]["eigen_cam-stages.1"], eigen, atol=1e-2)


def test_the_detector_stays_as_it_was() -> None:
    one = explainer(1)
    before = {name: value.clone() for name, value in one.detector.network.state_dict().items()}
    subject = subject_of({"": one}, calibration=[images()], class_of=label)
    for maker in (subject.maps, *subject.redrawn.values()):
        maker(images(), samples())
    after = one.detector.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert one.which == "predicted"


def test_parts_go_from_the_head_downwards_and_end_with_everything() -> None:
    assert default_parts(Small(1)) == {"fc": ["fc"], "stages.1": ["stages.1"], "all": [""]}
    flat = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1))
    assert default_parts(flat) == {"3": ["3"], "all": [""]}
