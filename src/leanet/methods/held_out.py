"""Which training images of a fold are trained on, and which are held out, in supervised methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from leanet.data.folds import hold_out
from leanet.methods.recipe import Experience, Material
from leanet.methods.supervised import FEWEST_TO_STOP_ON, Config, seed_names
from leanet.records import ANOMALOUS, NORMAL, Fold
from leanet.runtime import Runtime


def parts_of(
    config: Config,
    fold: Fold,
    data: Material,
    runtime: Runtime,
    experience: Experience | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(to train on, held out). With experience nothing is held out.

    Raises:
        ValueError: only one class in the training part, and no synthetic anomalies asked for.
    """
    train = kept_positives(config, fold, data.labels, runtime)
    counts = [sum(data.labels[i] == label for i in train) for label in (NORMAL, ANOMALOUS)]
    if counts[NORMAL] == 0 or (counts[ANOMALOUS] == 0 and not config.synthetic):
        raise ValueError(
            f"the training part has {counts[0]} normal and {counts[1]} anomalous images, and this "
            "method needs both; add --synthetic color to learn from synthetic anomalies, or use "
            "`leanet fit colorizer`, which learns from normal images alone"
        )
    if experience is not None or config.val_fraction == 0:
        return train, ()
    rest, held = hold_out(train, data.samples, config.val_fraction, seed=runtime.seed)
    if config.val_anomalous == "always":
        return tuple(rest), tuple(held)
    return _few_back(rest, held, data)


def _few_back(
    rest: Sequence[int], held: Sequence[int], data: Material
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Held-out anomalous images too few to decide anything go back to the training, with all of
    their groups, so that five labelled defects are five to learn from."""
    few = [i for i in held if data.labels[i] == ANOMALOUS]
    if len(few) >= FEWEST_TO_STOP_ON:
        return tuple(rest), tuple(held)
    groups = {data.samples[i].group for i in few} - {None, ""}
    back = {i for i in held if i in few or data.samples[i].group in groups}
    left = tuple(i for i in held if i not in back)
    return (tuple(sorted((*rest, *back))), left) if left else (tuple(rest), tuple(held))


def kept_positives(
    config: Config, fold: Fold, labels: Sequence[int], runtime: Runtime
) -> tuple[int, ...]:
    """The training part with a share of its anomalous images, at least one; the subsets of
    smaller shares are nested.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < config.keep_positive <= 1:
        raise ValueError(f"keep_positive {config.keep_positive}: give a share above 0, at most 1")
    positives = [i for i in fold.train if labels[i] == ANOMALOUS]
    generator = runtime.generator(*seed_names(config, fold.name), "keep_positive")
    order = torch.randperm(len(positives), generator=generator).tolist()
    dropped = {positives[k] for k in order[max(1, round(config.keep_positive * len(order))) :]}
    return tuple(i for i in fold.train if i not in dropped)
