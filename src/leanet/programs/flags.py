"""The flags of the original programs `phase1.py` and `phase2.py`, and how a command line is read.

Names, choices and value forms are theirs; what stands behind them is mended (see
docs/original_programs.md). As there, a flag given twice counts as given last, but with a warning.
A default None means "not given": what stands for it then depends on other flags, and
`leanet.programs.rules` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from leanet.config import UsageError, build, make_parser, option, to_yaml
from leanet.programs.folders import Earlier, on_earlier

Task = Literal[
    "colorization", "reconstruction", "denoise", "self-resolution", "rotation", "inpaint"
]
Reconstructor = Literal["AE", "SegNet", "Unet", "UnetRes"]
InputMethod = Literal[
    "img_and_attMap", "img_only", "attMap_only", "4_channel", "attMap_to_img", "multiply"
]
OutputMethod = Literal["ADN_only", "AAN_and_ADN"]
Module = Literal["None", "SE", "SimAM", "SRM", "CBAM", "ECA"]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Flags of both programs."""

    GPU: int | None = option(None, "index of the GPU; -1 = CPU; not given: the first GPU, else CPU")
    save_path: str | None = option(None, "folder to write to, created (required)")
    dataset: str | None = option(None, "folder to read (required)")
    n_splits: int | None = option(None, "folds")
    img_size: int = option(256, "side in pixels that images are resized to; a multiple of 32")
    batch_size: int = option(16, "images per step; at least 2")
    epochs: int = option(100, "upper limit; early stopping may end sooner")
    lr: float | None = option(None, "step size of Adam")
    seed: int = option(0, "makes everything repeatable: folds, weights, order, draws")
    fold: tuple[int, ...] = option((), "run these folds only, counted from 1")
    precision: str = option("auto", "auto, 32-true, bf16-mixed or 16-mixed")


@dataclass(frozen=True, kw_only=True)
class Phase1(Shared):
    """Phase 1 of the original program: per fold, learn what is normal and map every image."""

    dataset: str | None = option(
        None, "folder with Positive/ (anomalous) and Negative/ (normal), any nesting (required)"
    )
    task: Task | None = option(None, "what the network learns to do with normal images (required)")
    model: Reconstructor | None = option(None, "the network (required)")
    loss: Literal["BCE", "MSE", "L1"] | None = option(
        None, "distance to the target; MSE if not given. MSE is a mean square, L1 the original's"
    )
    n_splits: int | None = option(10, "cross-validation folds; the paper has 5")
    lr: float | None = option(1e-4, "step size of Adam; the paper has 1e-3")
    groups: str | None = option(
        None,
        "same leaf, part or patient, never on both sides: a CSV with the columns file and group, "
        "or the word folder (every folder below Positive/ and Negative/ is one)",
    )
    map_mode: Literal["in_sample", "out_of_fold"] = option(
        "in_sample",
        "training maps as in the original, or by models that have not seen the image",
    )
    inner_splits: int = option(5, "parts of the training images for out_of_fold")
    map_metric: Literal["auto", "ciede2000", "l1", "l2"] = option(
        "auto",
        "distance of original and reconstruction; auto = ciede2000 for colorization, else l1",
    )
    map_dtype: Literal["uint16", "float32"] = option(
        "uint16", "how maps are stored: 16-bit PNG or float32 TIFF"
    )
    map_quantile: float = option(0.999, "quantile of the training normals' pixels that scales maps")
    map_headroom: float = option(4.0, "multiple of that quantile at which the network's map ends")
    pca_form: Literal["variance", "std"] = option(
        "variance", "colorization: shift colors by eigenvalues or by their square roots"
    )
    pca_sigma: float = option(0.1, "colorization: SD of the color shift in training; 0 = none")
    patience: int = option(20, "epochs without improvement before stopping; 0 = never stop early")
    monitor: Literal["held_out", "train"] = option(
        "held_out",
        "stop on a tenth of the training normals, or as the original on the training loss",
    )
    num_workers: int = option(4, "threads that decode images")
    skip_bad: bool = option(False, "leave out unreadable images instead of stopping")


@dataclass(frozen=True, kw_only=True)
class Phase2(Shared):
    """Phase 2 of the original program: per fold, a classifier that the maps steer."""

    dataset: str | None = option(None, "output folder of phase1, ours or the original's (required)")
    n_splits: int | None = option(None, "folds 01..NN to run; not given: 10, or all if fewer")
    lr: float | None = option(None, "step size of Adam; not given: 1e-4, for VGG16 and VGG19 1e-5")
    input_method: InputMethod = option("img_and_attMap", "what the networks see")
    output_method: OutputMethod | None = option(
        None, "train and report one head or both; not given: AAN_and_ADN where there are two"
    )
    model_ADN: str = option(  # noqa: N815 - the original's name
        "ResNet18", "the classifier: VGG16, VGG19, ResNet18, ResNet50, CNN or timm:NAME"
    )
    additional_module: Module = option("None", "self-attention inside the classifier")
    model_AAN: str = option(  # noqa: N815
        "MobileNet", "the attention network: MobileNet, ResNet, Direct or timm:NAME"
    )
    attention_points: tuple[int | str, ...] | None = option(
        None,
        "stages of the classifier to steer: 0 (A1) ... 4 (A5); None = no attention; "
        "auto = chosen on inner validation data; not given: 0",
    )
    attention_strength: str = option(
        "paper",
        "w in f <- (1 + w M) f: paper (1), program (learned from 0), learn:W, fixed:W",
    )
    w_lr_mult: float = option(1.0, "step size of a learned w, in multiples of --lr")
    w_nonneg: bool = option(False, "a learned w below 0, which inverts attention, counts as 0")
    aan_weight: float = option(1.0, "weight of the attention network's own loss")
    weights: str | None = option(None, "file with ImageNet weights of the classifier")
    pretrained: bool = option(False, "take them from timm's hub (needs a network)")
    num_outputs: Literal[1, 2] = option(1, "outputs of a head: one logit, or a softmax pair")
    early_stop: Literal["val", "train", "none"] = option(
        "val", "stop on an inner validation part, on the training loss, or never"
    )
    patience: int = option(20, "epochs without improvement before stopping")
    val_fraction: float | None = option(
        None, "share of the training images held out; not given: 0.2 with --early_stop val, else 0"
    )
    keep_positive: float = option(1.0, "share of the anomalous training images to learn from")
    rescale_legacy: bool = option(
        False, "scale 8-bit maps without maps.json by the training normals instead of by 255"
    )
    legacy_gt: Literal["rgb", "lab"] = option(
        "rgb", "lab decodes the false-color GT images that the original wrote for colorization"
    )


PRESETS: dict[type[Shared], dict[str, dict[str, Any]]] = {
    Phase1: {"paper": {"n_splits": 5, "lr": 1e-3, "epochs": 500, "batch_size": 16}},
    Phase2: {
        "paper": {
            "n_splits": 5,
            "epochs": 100,
            "batch_size": 16,
            "attention_strength": "paper",
            "early_stop": "none",
        }
    },
}
Flags = TypeVar("Flags", bound=Shared)


class Given(NamedTuple, Generic[Flags]):
    """A command line: the flags, what the user should know about them, and what becomes of
    earlier work."""

    flags: Flags
    notices: tuple[str, ...]
    earlier: Earlier


def parse(program: str, kind: type[Flags], argv: Sequence[str]) -> Given[Flags] | str:
    """Read the words behind `leanet phase1` or `leanet phase2`.

    With `--print_config` among them, the effective configuration as YAML instead.

    Raises:
        UsageError: an unknown flag, a value that is not allowed, an unknown preset.
    """
    words = [word for word in argv if word != "--print_config"]
    values = _values(words)
    preset = values["preset"][-1] if "preset" in values else None
    parser = make_parser(kind, prog=f"leanet {program}", description=kind.__doc__)
    parser.add_argument("--preset", default=None, help="paper: the paper's choices")
    parser.add_argument("--resume", action="store_true", help="go on with what was begun")
    parser.add_argument("--overwrite", action="store_true", help="replace the folds to be run")
    parser.add_argument("--config", action="config", help="YAML file with any of these flags")
    parser.set_defaults(preset_values(kind, preset))
    given = parser.parse_args(_config_first(words)).as_dict()
    if given["preset"] != preset:
        raise UsageError("a preset counts on the command line only; take it out of the file")
    flags = build(kind, given)
    if len(words) < len(argv):
        return to_yaml(flags)
    earlier = on_earlier(resume=given["resume"], overwrite=given["overwrite"])
    return Given(flags, tuple(_repeated(values)), earlier)


def preset_values(kind: type[Shared], preset: str | None) -> dict[str, Any]:
    """The defaults that a preset changes.

    Raises:
        UsageError: there is no such preset.
    """
    if preset is None:
        return {}
    if preset not in PRESETS[kind]:
        raise UsageError(f"--preset {preset}: allowed is {', '.join(PRESETS[kind])}")
    return PRESETS[kind][preset]


def _values(words: Sequence[str]) -> dict[str, list[str]]:
    """Every flag with what it was given, once for each time that it stands there."""
    found: dict[str, list[list[str]]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            current = [value] if equals else []
            found.setdefault(flag, []).append(current)
        else:
            current.append(word)
    return {flag: [" ".join(value) for value in values] for flag, values in found.items()}


def _repeated(values: dict[str, list[str]]) -> list[str]:
    return [
        f"warning: --{flag} is given {len(given)} times ({', then '.join(given)}); "
        f"the last counts: {given[-1]}"
        for flag, given in values.items()
        if len(given) > 1 and flag != "config"
    ]


def _config_first(words: Sequence[str]) -> list[str]:
    """`--config FILE` before all other words, so that the command line wins wherever it stands."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--config":
            files += [word, *([following] if (following := next(rest, None)) else [])]
        else:
            (files if word.startswith("--config=") else others).append(word)
    return files + others
