"""The options of LEA-Net that are about its maps: who draws them, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from leanet.config import option
from leanet.methods import colorizer, supervised
from leanet.methods.map_models import MapMode
from leanet.networks.prior import MapPrior
from leanet.ops.map_steps import Ablation, MapSteps, refuse_steps

MapPriorKind = Literal["auto", "mean", "top", "none"]
TOP = 0.02  # of the places; 0.4 % to 10 % rank alike by distances: docs/results/few_defects.md


@dataclass(frozen=True, kw_only=True)
class Config(supervised.Config):
    """Options about maps, beside those of the plain classifier."""

    map_mode: MapMode = option(
        "out_of_fold",
        "training maps by models that have not seen the image, or in_sample as in the paper",
    )
    map_source: str | None = option(
        None,
        "what draws the maps instead of map_model: a run folder, a folder of maps, the name of a "
        "method such as patchcore, or a YAML file with method: and its options",
    )
    map_options: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "options of the method that map_source names, e.g. {weights: FILE}"},
    )
    map_model: colorizer.Config = option(colorizer.Config, "options of the map model")
    map_prior: MapPriorKind = option(
        "auto",
        "what the map alone says of an image, where the classifier's log-odds begin: its mean, its "
        "top 2 %, or none, as published; auto = the top of distances, the mean of other maps",
    )
    map_blur: float = option(0.0, "smooth the maps: SD of a Gaussian in pixels; 0 = none")
    map_threshold: float = option(
        0.0, "map pixels below this quantile of those of the training normals become 0; 0 = none"
    )
    map_top_fraction: float = option(
        1.0, "sparse maps: only this share of the pixels of each map stays, all others become 0"
    )
    map_binarize: bool = option(False, "map pixels above 0 become 1, after the steps before")
    map_ablation: Ablation = option(
        "none",
        "what the maps lose, to see what they are good for: shuffled = blocks elsewhere, "
        "constant = their mean everywhere, scaled = half as bright",
    )


def steps_of(config: Config) -> MapSteps:
    """What becomes of every map.

    Raises:
        ValueError: a number out of range, or binary maps that would be 1 everywhere.
    """
    steps = MapSteps(
        config.map_blur,
        config.map_threshold,
        config.map_top_fraction,
        config.map_binarize,
        config.map_ablation,
    )
    refuse_steps(steps)
    return steps


def make_prior(config: Config, map_unit: str | None) -> MapPrior | None:
    """What begins the classifier's log-odds, for maps of this unit; None for none."""
    if config.map_prior == "none":
        return None
    distances = map_unit == "distance"
    top = config.map_prior == "top" or (config.map_prior == "auto" and distances)
    return MapPrior(TOP if top else 1.0)
