from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leanet.inference.subject import (
    EDGES,
    GAUSSIAN,
    INFORMATIVE,
    NOT_INFORMATIVE,
    RANDOM,
    Figure,
    Subject,
    all_maps,
    by_group,
    group_names,
    is_baseline,
    mean_figure,
    random_weights,
    redrawn_networks,
    verdict,
)
from leanet.ops.stats import Interval, bootstrap_interval
from leanet.records import NORMAL, Sample


def sample(name: str, group: str | None = None) -> Sample:
    return Sample(path=Path("data") / name, label=NORMAL, group=group)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def batches(num: int = 2) -> list[tuple[Tensor, ...]]:
    return [
        (torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(k)),) for k in range(num)
    ]


def figure(low: float, high: float) -> Figure:
    return Figure((low + high) / 2, Interval(low, high), 10)


# --- maps and baselines --------------------------------------------------------------------------


def test_all_four_baselines_stand_beside_the_methods(make_looker: Callable[..., Subject]) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = all_maps(make_looker(), images, [sample("a"), sample("b")], seed=0)
    assert list(maps) == [
        *("truth", "lie", RANDOM, GAUSSIAN, EDGES),
        *("truth, random weights", "lie, random weights"),
    ]
    assert [name for name in maps if not is_baseline(name)] == ["truth", "lie"]
    assert maps[RANDOM].shape == (2, 1, 8, 8)  # as coarse as the maps
    assert maps[GAUSSIAN].shape == maps[EDGES].shape == (2, 1, 16, 16)


def test_random_weights_are_those_of_the_last_part(make_looker: Callable[..., Subject]) -> None:
    maps = all_maps(make_looker(), torch.zeros(1, 3, 16, 16), [sample("a")], seed=0)
    assert not torch.equal(maps["truth, random weights"], maps["truth"])


def test_the_noise_of_an_image_depends_on_the_image_only(
    make_looker: Callable[..., Subject],
) -> None:
    one, two = sample("a"), sample("b")
    images = torch.zeros(2, 3, 16, 16)
    together = all_maps(make_looker(), images, [one, two], seed=0)[RANDOM]
    alone = all_maps(make_looker(), images[:1], [two], seed=0)[RANDOM]
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])


# --- verdicts ------------------------------------------------------------------------------------


def rivals(low: float, high: float) -> dict[str, Figure]:
    names = (RANDOM, GAUSSIAN, EDGES, random_weights("cam"))
    return {name: figure(low, high) for name in names}


def test_only_what_beats_all_four_baselines_is_informative() -> None:
    assert verdict("cam", {"cam": figure(0.5, 0.6), **rivals(0.1, 0.4)}) == INFORMATIVE
    one_better = {"cam": figure(0.5, 0.6), **rivals(0.1, 0.4), EDGES: figure(0.3, 0.51)}
    assert verdict("cam", one_better) == NOT_INFORMATIVE


def test_lower_can_be_better() -> None:
    figures = {"cam": figure(0.1, 0.2), **rivals(0.3, 0.4)}
    assert verdict("cam", figures, higher_is_better=False) == INFORMATIVE
    assert verdict("cam", figures) == NOT_INFORMATIVE


def test_without_all_four_baselines_there_is_no_verdict() -> None:
    figures = {"cam": figure(0.5, 0.6), **rivals(0.1, 0.4)}
    del figures[random_weights("cam")]
    assert verdict("cam", figures) == ""
    assert verdict(EDGES, figures) == ""


# --- figures -------------------------------------------------------------------------------------


def test_a_mean_leaves_out_what_is_undefined() -> None:
    found = mean_figure([1.0, float("nan"), 3.0], ["a", "b", "c"], seed=0)
    assert found.mean == 2
    assert found.images == 2
    assert np.isnan(mean_figure([float("nan")], ["a"], seed=0).mean)


def test_pictures_of_one_part_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], 6)
    apart = mean_figure(values, [str(k) for k in range(48)], seed=0).interval
    together = mean_figure(values, [str(k // 6) for k in range(48)], seed=0).interval
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_the_interval_is_that_of_the_general_bootstrap() -> None:
    values = np.random.default_rng(1).random(20)
    groups = [str(k // 2) for k in range(20)]

    def mean_of(*parts: np.ndarray) -> float:
        return float(parts[0].sum() / parts[1].sum())

    sums, counts = by_group(values, groups), by_group(np.ones(20), groups)
    expected = bootstrap_interval(mean_of, sums, counts, rng=np.random.default_rng(3), num=200)
    found = mean_figure(values, groups, seed=3, resamples=200).interval
    assert found == pytest.approx(expected)


def test_a_few_groups_are_too_few_for_an_interval() -> None:
    four = mean_figure([0.0, 1.0, 0.0, 1.0], list("abcd"), seed=0)
    assert four.mean == 0.5
    assert np.isnan(four.interval.low)
    five = mean_figure([0.0, 1.0, 0.0, 1.0, float("nan"), 1.0], list("abcdef"), seed=0)
    assert five.interval.low < five.mean < five.interval.high


def test_rows_are_summed_over_groups() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert by_group(rows, ["b", "a", "b"]).tolist() == [[3, 4], [6, 8]]


def test_a_sample_without_group_is_its_own() -> None:
    names = group_names([sample("a"), sample("b"), sample("c", "x"), sample("d", "x")])
    assert len(set(names)) == 3
    assert names[2] == names[3]


# --- weights drawn anew --------------------------------------------------------------------------


def test_parts_are_drawn_anew_one_after_the_other() -> None:
    net = network()
    copies = redrawn_networks(net, {"head": ["3"], "all": ["0"]}, batches(), seed=0)
    before, head, everything = (one.state_dict() for one in (net, copies["head"], copies["all"]))
    assert torch.equal(head["0.0.weight"], before["0.0.weight"])
    assert not torch.equal(head["3.weight"], before["3.weight"])
    assert torch.equal(everything["3.weight"], head["3.weight"])
    assert not torch.equal(everything["0.0.weight"], before["0.0.weight"])


def test_weights_keep_their_mean_and_sd() -> None:
    net = nn.Sequential(nn.Linear(200, 50))
    drawn = redrawn_networks(net, {"all": [""]}, [], seed=0)["all"].state_dict()["0.weight"]
    old = net.state_dict()["0.weight"]
    assert drawn.std().item() == pytest.approx(old.std().item(), rel=0.05)
    correlation = np.corrcoef(drawn.flatten().numpy(), old.flatten().numpy())[0, 1]
    assert abs(correlation) < 0.05


def test_batch_norms_take_their_statistics_from_the_given_batches() -> None:
    copies = redrawn_networks(network(), {"all": [""]}, batches(), seed=0)
    net = copies["all"]
    assert not any(module.training for module in net.modules())
    with torch.no_grad():
        images = torch.cat([one for (one,) in batches()])
        conv, norm = net[0][0](images), net[0][1]  # type: ignore[index]
    assert torch.allclose(norm.running_mean, conv.mean(dim=(0, 2, 3)), atol=1e-5)
    assert norm.momentum == 0.1


def test_the_network_itself_and_the_random_state_stay_as_they_were() -> None:
    net = network()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    redrawn_networks(net, {"all": [""]}, batches(), seed=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_seeds_draw_equal_weights() -> None:
    first, second, other = (
        redrawn_networks(network(), {"all": [""]}, [], seed=seed)["all"].state_dict()
        for seed in (0, 0, 1)
    )
    assert torch.equal(first["3.weight"], second["3.weight"])
    assert not torch.equal(first["3.weight"], other["3.weight"])


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part 'fc' to draw anew; its own parts are 0, 1, 2, 3"):
        redrawn_networks(network(), {"head": ["fc"]}, [], seed=0)
