"""Phase 2: classifiers that are steered by the maps of phase 1, one per fold.

Each fold of the tree is a training part and a test part with images, maps and labels; nothing of
the test part is looked at before the scores. A fold folder of the output is also a run folder: when
the tree holds the reconstructor, `leanet predict OUTPUT/01 IMAGES` draws the map of a new image and
judges it; without it the maps of new images have to be given (`--maps_from`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from leanet.config import to_dict
from leanet.methods import leanet
from leanet.programs.arrays import convert
from leanet.programs.classify import Job
from leanet.programs.flags import Module, Phase2
from leanet.programs.folders import WORK, Earlier, claim, clean, fold_name, write_run
from leanet.programs.loading import refuse_legacy_flags
from leanet.programs.machine import runtime_of, told
from leanet.programs.rules import Settled2, settle_phase2
from leanet.programs.scoring import SCORES, lines, write_summary
from leanet.programs.sources import (
    TreeFold,
    is_array_tree,
    notices_of,
    open_folds,
    wanted_folds,
)
from leanet.runtime import environment

Tell = Callable[[str], None]
SelfAttention = Literal["none", "se", "cbam", "eca", "simam", "srm"]

IMAGENET: Final = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MODULES: Final[dict[Module, SelfAttention]] = {
    "None": "none",
    "SE": "se",
    "SimAM": "simam",
    "SRM": "srm",
    "CBAM": "cbam",
    "ECA": "eca",
}
MONITORS: Final = {"val": "val_loss", "train": "train_loss", "none": ""}


def phase2(flags: Phase2, *, earlier: Earlier = "refuse", tell: Tell = print) -> Path:
    """Run phase 2 and return its output root.

    `earlier` says what becomes of earlier work there.

    Raises:
        ValueError: anything wrong with the flags, the tree of phase 1, or earlier work; before any
            training.
    """
    settled = settle_phase2(flags)
    runtime = runtime_of(flags)
    root, dataset = settled.save_path, settled.dataset
    wanted = wanted_folds(dataset, flags.n_splits, flags.fold)
    folds = _opened(settled, wanted.folds)
    config = recipe(settled)
    check_networks(settled, config)
    for line in (*settled.notices, *wanted.notices, *notices_of(folds)):
        tell(line)
    todo = claim(
        root,
        "phase2",
        to_dict(flags),
        wanted.folds,
        num_folds=wanted.num_folds,
        last_file=SCORES,
        earlier=earlier,
    )
    write_run(root, "phase2", to_dict(flags), settled.notices, environment(runtime))
    tell(f"{flags.model_ADN}, {flags.input_method}, {told(runtime)}")
    for number in sorted(set(wanted.folds) - set(todo)):
        tell(f"{fold_name(number)}: finished before")
    job = Job(settled, config, runtime, tell)
    for fold in folds or _converted(settled, todo):
        if int(fold.name) in todo:
            job.run(fold)
    summary = write_summary(root, wanted.num_folds, _about(settled))
    for line in lines(summary):
        tell(line)
    clean(root, wanted.num_folds, SCORES)
    return root


def recipe(settled: Settled2) -> leanet.Config:
    """The options of LEA-Net."""
    flags = settled.flags
    trained = flags.weights is not None or flags.pretrained
    colors: dict[str, Any] = IMAGENET if trained else {}
    return leanet.Config(
        attention="layers",
        map_prior="none",
        val_anomalous="always",
        norm_batches=0,
        adn=settled.adn,
        adn_input=settled.adn_input,
        aan=settled.aan,
        self_attention=MODULES[flags.additional_module],
        attention_points=("auto",) if settled.points == "auto" else settled.points,
        attention_strength=settled.strength,
        learn_strength=settled.learn_strength,
        strength_nonneg=flags.w_nonneg,
        strength_lr_mult=flags.w_lr_mult,
        aan_weight=flags.aan_weight if "AAN" in settled.heads else 0.0,
        decide="adn",
        weights=flags.weights,
        pretrained=flags.pretrained,
        epochs=flags.epochs,
        batch_size=flags.batch_size,
        lr=settled.lr,
        lr_schedule="constant",
        patience=flags.patience if flags.early_stop != "none" else 0,
        monitor=MONITORS[flags.early_stop],
        val_fraction=settled.val_fraction,
        balance="none",
        augment="none",
        num_outputs=flags.num_outputs,
        keep_positive=flags.keep_positive,
        **colors,
    )


def _about(settled: Settled2) -> dict[str, Any]:
    """What the summary tells of all folds."""
    return {
        "model_ADN": settled.flags.model_ADN,
        "model_AAN": settled.flags.model_AAN if settled.aan != "none" else None,
        "input_method": settled.flags.input_method,
        "output_method": "AAN_and_ADN" if len(settled.heads) == 2 else "ADN_only",
        "lr": settled.lr,
    }


def check_networks(settled: Settled2, config: leanet.Config) -> None:
    """Build networks of timm once before any work: not all of them have every point.

    Raises:
        ValueError: they do not have such points, or cannot be built.
    """
    if any(name.startswith("timm/") for name in (settled.adn, settled.aan)):
        for one in leanet.variants(config, settled.flags.img_size).values():
            leanet.build_network(one, settled.flags.img_size)


def _opened(settled: Settled2, folds: Sequence[int]) -> tuple[TreeFold, ...]:
    """The folds of the tree, checked; nothing yet where they have to be converted first."""
    flags, array_tree = settled.flags, is_array_tree(settled.dataset)
    opened = () if array_tree else open_folds(settled.dataset, folds)
    if array_tree or any(fold.origin == "ours" for fold in opened):
        refuse_legacy_flags(settled.dataset, flags)
    return opened


def _converted(settled: Settled2, folds: Sequence[int]) -> tuple[TreeFold, ...]:
    """A tree of the older program as one of ours."""
    out = settled.save_path / WORK / "converted"
    for fold in folds:
        convert(settled.dataset / str(fold - 1), out / fold_name(fold))
    return open_folds(out, folds)
