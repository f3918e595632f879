"""What the flags of the original programs mean together: every rule that needs no file and no GPU.

Each rule either settles something that was left open, or refuses, or tells. What it refuses ends
the program before any work; what it tells are lines that begin with `notice:` or `warning:`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from leanet.config import UsageError
from leanet.programs.flags import Phase1, Phase2, Reconstructor, Shared, Task
from leanet.programs.words import (
    ADN_INPUTS,
    ADNS,
    AdnInput,
    Classifier,
    Points,
    attention_network,
    classifier,
    parse_points,
    parse_strength,
)

MULTIPLE: Final = 32  # the networks halve the image five times
DEFAULT_POINT: Final = 0
VAL_FRACTION: Final = 0.2
Metric = Literal["ciede2000", "l1", "l2"]


@dataclass(frozen=True, kw_only=True)
class Settled1:
    """What `leanet phase1` is to do."""

    flags: Phase1
    save_path: Path
    dataset: Path
    task: Task
    model: Reconstructor
    loss: Literal["bce", "mse", "l1"]
    metric: Metric
    num_folds: int
    lr: float
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Settled2:
    """What `leanet phase2` is to do, in the words of our networks."""

    flags: Phase2
    save_path: Path
    dataset: Path
    adn: str
    aan: str  # "none" where the classifier is alone
    adn_input: AdnInput
    points: Points
    heads: tuple[str, ...]  # ("ADN",) or ("ADN", "AAN")
    lr: float
    strength: float
    learn_strength: bool
    val_fraction: float
    notices: tuple[str, ...]


@dataclass
class _Notes:
    """Collects what is to be told."""

    lines: list[str] = field(default_factory=list)

    def notice(self, text: str) -> None:
        self.lines.append(f"notice: {text}")

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def settle_phase1(flags: Phase1) -> Settled1:
    """Apply the rules of phase 1.

    Raises:
        UsageError: says what came, what is allowed, what to do.
    """
    _require(flags, ("save_path", "dataset", "task", "model"))
    assert flags.save_path is not None
    assert flags.dataset is not None
    assert flags.task is not None
    assert flags.model is not None
    assert flags.n_splits is not None
    assert flags.lr is not None
    _check_shared(flags, flags.lr)
    _check_maps(flags)
    if flags.n_splits < 2:
        raise UsageError(f"--n_splits {flags.n_splits}: cross-validation needs at least 2 folds")
    notes = _Notes()
    loss: Literal["bce", "mse", "l1"] = "mse"
    if flags.loss is None:
        notes.notice("--loss is not given: MSE, the mean squared error")
    elif flags.loss == "MSE":
        notes.notice("MSE is the mean squared error; the original's MSE was L1, here --loss L1")
    else:
        loss = "bce" if flags.loss == "BCE" else "l1"
    _tell_task(flags, notes)
    return Settled1(
        flags=flags,
        save_path=Path(flags.save_path),
        dataset=Path(flags.dataset),
        task=flags.task,
        model=flags.model,
        loss=loss,
        metric=_metric(flags),
        num_folds=flags.n_splits,
        lr=flags.lr,
        notices=tuple(notes.lines),
    )


def settle_phase2(flags: Phase2) -> Settled2:
    """Apply the rules of phase 2.

    Raises:
        UsageError: says what came, what is allowed, what to do.
    """
    _require(flags, ("save_path", "dataset"))
    assert flags.save_path is not None
    assert flags.dataset is not None
    notes = _Notes()
    adn = classifier(flags.model_ADN)
    aan = attention_network(flags.model_AAN)
    joined = flags.input_method == "img_and_attMap"
    lr = _settled_lr(flags, adn, notes)
    _check_shared(flags, lr)
    _check_training(flags, adn)
    strength, learn_strength = parse_strength(flags.attention_strength)
    points = _settled_points(flags, joined, notes)
    heads = _settled_heads(flags, joined and aan != "direct", notes)
    if joined and not points and heads == ("ADN",):
        notes.notice("no attention points and no head of its own: the attention network is idle")
    return Settled2(
        flags=flags,
        save_path=Path(flags.save_path),
        dataset=Path(flags.dataset),
        adn=adn.name,
        aan=aan if joined else "none",
        adn_input=ADN_INPUTS[flags.input_method],
        points=points,
        heads=heads,
        lr=lr,
        strength=strength,
        learn_strength=learn_strength,
        val_fraction=_settled_val_fraction(flags),
        notices=tuple(notes.lines),
    )


def _require(flags: Shared, names: Iterable[str]) -> None:
    missing = [f"--{name}" for name in names if getattr(flags, name) is None]
    if missing:
        raise UsageError(f"missing: {', '.join(missing)}; --help says what they may be")


def _check_shared(flags: Shared, lr: float) -> None:
    if flags.img_size < MULTIPLE or flags.img_size % MULTIPLE:
        below = max(flags.img_size // MULTIPLE, 1) * MULTIPLE
        raise UsageError(
            f"--img_size {flags.img_size}: give a multiple of {MULTIPLE}, for example {below} or "
            f"{below + MULTIPLE}"
        )
    if flags.batch_size < 2 or flags.epochs < 1 or not 0 < lr < float("inf"):
        raise UsageError(
            f"--batch_size {flags.batch_size}, --epochs {flags.epochs}, --lr {lr:g}: give at least "
            "2 images per batch (batch norm compares them), 1 epoch, and a positive step size"
        )


def _check_maps(flags: Phase1) -> None:
    if not 0 < flags.map_quantile <= 1 or not flags.map_headroom > 0:
        raise UsageError(
            f"--map_quantile {flags.map_quantile:g}, --map_headroom {flags.map_headroom:g}: give a "
            "quantile above 0 and at most 1, and a positive headroom"
        )
    if flags.map_mode == "out_of_fold" and flags.inner_splits < 2:
        raise UsageError(f"--inner_splits {flags.inner_splits}: out_of_fold needs at least 2 parts")
    if flags.pca_sigma < 0 or flags.patience < 0 or flags.num_workers < 1:
        raise UsageError(
            f"--pca_sigma {flags.pca_sigma:g}, --patience {flags.patience}, --num_workers "
            f"{flags.num_workers}: the first two are not negative, the last is at least 1"
        )


def _metric(flags: Phase1) -> Metric:
    if flags.map_metric != "auto":
        return flags.map_metric
    return "ciede2000" if flags.task == "colorization" else "l1"


def _tell_task(flags: Phase1, notes: _Notes) -> None:
    if flags.task == "rotation":
        notes.notice("rotation has one right answer only where the object has an upright pose")
    if flags.task != "colorization" and (flags.pca_form, flags.pca_sigma) != ("variance", 0.1):
        notes.notice(f"--pca_form and --pca_sigma do nothing for {flags.task}")


def _settled_lr(flags: Phase2, adn: Classifier, notes: _Notes) -> float:
    if flags.lr is None:
        notes.notice(f"--lr is not given: {adn.lr:g} for {flags.model_ADN}")
        return adn.lr
    if flags.model_ADN.startswith("VGG") and flags.lr >= 1e-4:
        notes.warn(
            f"--lr {flags.lr:g} is high for {flags.model_ADN}: the paper has 1e-05, and with 1e-04 "
            "it may learn nothing"
        )
    return flags.lr


def _check_training(flags: Phase2, adn: Classifier) -> None:
    if flags.additional_module != "None" and adn.name.startswith("timm/"):
        raise UsageError(
            f"--additional_module {flags.additional_module} is not for {flags.model_ADN}: "
            f"it goes into {', '.join(ADNS)}; timm has networks with modules of their own"
        )
    if not 0 < flags.keep_positive <= 1:
        raise UsageError(f"--keep_positive {flags.keep_positive:g}: above 0, at most 1")
    if flags.aan_weight < 0 or not flags.w_lr_mult > 0 or flags.patience < 0:
        raise UsageError(
            f"--aan_weight {flags.aan_weight:g}, --w_lr_mult {flags.w_lr_mult:g}, --patience "
            f"{flags.patience}: the step size of w is positive, the others are not negative"
        )
    if flags.weights is not None and flags.pretrained:
        raise UsageError("--weights and --pretrained: give the file or ask timm's hub, not both")
    if flags.n_splits is not None and flags.n_splits < 1:
        raise UsageError(f"--n_splits {flags.n_splits}: at least 1")


def _settled_points(flags: Phase2, joined: bool, notes: _Notes) -> Points:
    if not joined:
        if flags.attention_points == ("auto",):
            raise UsageError(
                f"--attention_points auto: with --input_method {flags.input_method} there is "
                "nothing to choose; it belongs to img_and_attMap"
            )
        if flags.attention_points:
            parse_points(flags.attention_points)
            notes.notice(f"--input_method {flags.input_method} has no attention points")
        return ()
    if flags.attention_points is None:
        notes.notice(
            f"--attention_points is not given: {DEFAULT_POINT} (A{DEFAULT_POINT + 1}); "
            "None means no attention"
        )
        return (DEFAULT_POINT,)
    points, repeated = parse_points(flags.attention_points)
    if repeated:
        notes.notice(
            f"--attention_points names a point twice; taken: {', '.join(map(str, points))}"
        )
    return points


def _settled_heads(flags: Phase2, two_possible: bool, notes: _Notes) -> tuple[str, ...]:
    if two_possible:
        return ("ADN",) if flags.output_method == "ADN_only" else ("ADN", "AAN")
    joined = flags.input_method == "img_and_attMap"
    why = "--model_AAN Direct" if joined else f"--input_method {flags.input_method}"
    if flags.output_method == "AAN_and_ADN":
        raise UsageError(
            f"--output_method AAN_and_ADN: with {why} the attention network has no head; use "
            "--output_method ADN_only"
        )
    if flags.output_method is None:
        notes.notice(f"{why} leaves one head: --output_method ADN_only")
    return ("ADN",)


def _settled_val_fraction(flags: Phase2) -> float:
    needed = flags.early_stop == "val" or flags.attention_points == ("auto",)
    if flags.val_fraction is None:
        return VAL_FRACTION if needed else 0.0
    if not 0 <= flags.val_fraction < 1:
        raise UsageError(f"--val_fraction {flags.val_fraction:g}: at least 0, below 1")
    if flags.val_fraction == 0 and needed:
        raise UsageError(
            "--val_fraction 0 leaves nothing to stop on or to choose by; use --early_stop train "
            "or none, and named attention points"
        )
    return flags.val_fraction
