"""Runs that are to be compared, sorted into variants: repeats of one method, alike but for chance.

Two runs are repeats of one variant when their options agree in everything but `REPEATS`. All runs
must have been trained and tested on the same images, else their difference says nothing about the
methods; and where variants differ in more than their attention, a difference may come from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanet.config import flat
from leanet.files import read_csv
from leanet.report.run import Run, read_run

REPEATS = ("seed", "draw")  # another value is another repeat
IGNORED = frozenset({*REPEATS, "data", "device", "inner_splits"})
ATTENTION = frozenset(  # what variants may differ in without a word
    {
        "attention",
        "placement",
        "blocks",
        "stages",
        "ratio",
        "min_hidden",
        "bias",
        "start",
        "attach",
        "transfer_from",
        "transfer_weight",
    }
)
FACTS = ("path", "label", "kind")  # of a sample, the same in every run
OFF = ("", "none", "None", "False")  # as good as absent: an option that the run's version lacked

Repeat = tuple[str, ...]  # the values of REPEATS


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Repeats of one method. The options are flat and without those that tell repeats apart."""

    name: str
    options: Mapping[str, Any]
    runs: Mapping[Repeat, Run]  # in the order of the repeats

    @property
    def run_names(self) -> str:
        """Its run folders, with commas."""
        return ", ".join(run.folder.name for run in self.runs.values())


def read_variants(folders: Sequence[Path]) -> list[Variant]:
    """Read runs and sort them into variants, in the order of their first runs.

    Raises:
        ValueError: no finished runs, fewer than two variants, runs on other images, two runs of
            the same options, or a variant that shares no repeat with the first one.
    """
    runs = [read_run(folder) for folder in dict.fromkeys(map(Path.resolve, folders))]
    for run in runs[1:]:
        _require_same_images(runs[0], run)
    groups: list[tuple[dict[str, Any], dict[Repeat, Run]]] = []
    for run in runs:
        options = options_of(run)
        fitting = [members for known, members in groups if not differing_keys([known, options])]
        if not fitting:
            fitting = [{}]
            groups.append((options, fitting[0]))
        _add(fitting[0], run)
    if len(groups) < 2:
        raise ValueError(
            f"{len(runs)} run(s) of one method: nothing to compare; give runs of two, e.g. one "
            "with --attention se and one without"
        )
    names = variant_names([options for options, _ in groups])
    variants = [
        Variant(name=name, options=options, runs=dict(sorted(members.items(), key=_numerically)))
        for name, (options, members) in zip(names, groups, strict=True)
    ]
    for variant in variants[1:]:
        _require_shared_repeat(variants[0], variant)
    return variants


def options_of(run: Run) -> dict[str, Any]:
    """The options of a run, flat, without those that may differ between repeats."""
    options = flat(dict(run.config))
    return {key: _plain(value) for key, value in options.items() if key not in IGNORED}


def variant_names(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each set of options: method and attention where these differ, and in what else it
    differs from the first.

    >>> variant_names([{"attention": "none", "lr": 1}, {"attention": "se", "lr": 1}])
    ['plain', 'se']
    >>> variant_names([{"attention": "se", "ratio": 8}, {"attention": "se", "ratio": 16}])
    ['ratio 8', 'ratio 16']
    """
    keys = [key for key in differing_keys(options) if not key.startswith("map_model.")]
    if "method" in keys:  # `attention` of a classifier and of LEA-Net are two things
        keys = [key for key in keys if key != "attention"]
    names = []
    for one in options:
        new = [
            key for key in differing_keys([options[0], one]) if _comparable(key, one, options[0])
        ]
        named = [key for key in keys if key in new or key in ("method", "attention")]
        names.append(", ".join(_words(one, named if named else keys)) or "unnamed")
    return [
        name if names.count(name) == 1 else f"{name} ({names[:k].count(name) + 1})"
        for k, name in enumerate(names)
    ]


def differing_keys(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose value is not the same everywhere, `method` and `attention` first. A key that is
    not there counts as one that is off, as other versions have other options."""
    keys = dict.fromkeys(("method", "attention", *(key for one in options for key in one)))
    return [key for key in keys if len({_value(one, key) for one in options}) > 1]


def unfair_keys(variant: Variant, baseline: Variant) -> list[str]:
    """Keys that differ and are not about attention; of other methods only those that both have."""
    ours, theirs = variant.options, baseline.options
    keys = [k for k in differing_keys([theirs, ours]) if k not in ATTENTION | {"method"}]
    return [key for key in keys if _comparable(key, ours, theirs)]


def _comparable(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether an option means something to both: of two methods it must be there in both."""
    return _value(one, "method") == _value(other, "method") or (key in one and key in other)


def shown(variant: Variant, key: str) -> str:
    """The value of an option in words."""
    return _value(variant.options, key) or "none"


def _value(options: Mapping[str, Any], key: str) -> str:
    value = str(options.get(key))
    return "" if value in OFF else value


def _add(members: dict[Repeat, Run], run: Run) -> None:
    repeat = tuple(str(run.config.get(key, 0)) for key in REPEATS)
    if repeat in members:
        raise ValueError(
            f"{run.folder} and {members[repeat].folder} have the same options, draw included; "
            "give one of them, or fit the other with another --draw"
        )
    members[repeat] = run


def _numerically(item: tuple[Repeat, Run]) -> tuple[float, ...]:
    return tuple(float(value) for value in item[0])


def _words(options: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    words = []
    for key in keys:
        value = _value(options, key)
        if key == "attention":
            words.append(value or "plain")
        elif key == "method":
            words.append(value)
        elif key in options and key not in ("placement", "transfer_weight"):
            words.append(f"{key} {value or 'off'}")
    return words if len(words) < 4 else [*words[:3], "…"]


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _require_shared_repeat(baseline: Variant, variant: Variant) -> None:
    if not baseline.runs.keys() & variant.runs.keys():
        ours, theirs = (
            "; ".join(" ".join(repeat) for repeat in one.runs) for one in (variant, baseline)
        )
        raise ValueError(
            f"{variant.name} ({ours}) and the baseline {baseline.name} ({theirs}) have no repeat "
            f"in common, by {' and '.join(REPEATS)}; differences are taken repeat by repeat: fit "
            "both with the same --draw"
        )


def _require_same_images(first: Run, run: Run) -> None:
    if run.classes != first.classes:
        raise ValueError(
            f"{run.folder} tells apart {_listed(run)}, and {first.folder} {_listed(first)}; "
            "only runs of the same classes can be compared"
        )
    ours, theirs = ({tuple(row[key] for key in FACTS) for row in _samples(r)} for r in (run, first))
    if ours != theirs:
        only = sorted(ours ^ theirs)
        raise ValueError(
            f"{run.folder} and {first.folder} were not fitted on the same data: {len(only)} "
            f"images differ, e.g. {' '.join(only[0])}"
        )
    for name in first.roles.keys() | run.roles.keys():
        if first.roles.get(name) != run.roles.get(name):
            raise ValueError(
                f"{run.folder} and {first.folder} do not train and test on the same images "
                f"({name} in folds.csv); fit both with equal --folds, --seed and --test_fraction"
            )
    if not run.tested_parts:
        raise ValueError(f"{run.folder} was not tested; fit with --folds 5")


def _samples(run: Run) -> list[dict[str, str]]:
    return read_csv(run.folder / "samples.csv")


def _listed(run: Run) -> str:
    return ", ".join(run.classes) or "normal and anomalous"
