"""Which class activation map finds the defects of magnetic tiles? (docs/results/cams.md)

    python benchmarks/cams.py split TILES tiles.csv
    leanet fit classifier tiles.csv --out RUN ...                  # the options are in the report
    python benchmarks/cams.py judge RUN tiles.csv OUT
    python benchmarks/cams.py believe RUN tiles.csv OUT [--images 24]

`split` writes a table of all tiles with two fifths of every kind for the test, no group (tile) on
both sides. `judge` compares maps with masks on the validation part, where the method with the most
energy in the mask is called the best, then on the test part. `believe` measures the faithfulness of
that method and of plain Grad-CAM on some test images.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from leanet.data.folds import hold_out
from leanet.data.loader import stream
from leanet.data.scan import scan
from leanet.files import read_csv, read_json, write_csv, write_json, write_text
from leanet.inference import faithfulness, localization
from leanet.inference.cam_methods import Wanted
from leanet.inference.cam_run import CamOptions, Explainer
from leanet.inference.cam_subject import subject_of
from leanet.inference.localization_figures import ALL, Row
from leanet.inference.subject import INFORMATIVE, Figure, Subject, is_baseline
from leanet.methods.store import load_detector
from leanet.records import Sample

TEST_SHARE, SEED, CALIBRATION, BATCH = 0.4, 0, 64, 16
CPU = torch.device("cpu")
# MobileNetV2's stages end without a ReLU, so Grad-CAM++ looks at the last ReLU inside.
RELU4, RELU3 = "stages.4.blocks_6.0.bn2", "stages.3.blocks_4.2.bn2"
LAST, FINE = ("grad_cam", "hires_cam", "layer_cam", "eigen_cam"), ("hires_cam", "layer_cam")
PLAIN = (
    *(Wanted(method, layer) for layer in ("stage4", "stage3") for method in LAST),
    *(Wanted(method, "stage2") for method in FINE),
    *(Wanted("grad_cam_plus_plus", layer) for layer in (RELU4, RELU3)),
)
SMOOTH = (
    Wanted("grad_cam", "stage4"),
    *(Wanted(method, "stage3") for method in ("grad_cam", "hires_cam", "layer_cam")),
)
SUFFIX = ", aug_smooth"
USUAL, STEPS = "grad_cam-stage4", 25
MEASURES = ("energy", "energy_over_chance", "pointing", "pixel_auroc")
FAITHFUL = ("deletion", "insertion", "road", "stability")


def split(tiles: Path, table: Path) -> None:
    """Write the table of tiles."""
    samples = scan(tiles.resolve()).samples
    _, test = hold_out(range(len(samples)), samples, TEST_SHARE, seed=SEED)
    rows = [
        {
            "path": one.path.as_posix(),
            "label": one.label,
            "type": one.kind,
            "mask": one.mask.as_posix() if one.mask else "",
            "group": one.group or "",
            "split": "test" if index in test else "train",
        }
        for index, one in enumerate(samples)
    ]
    write_csv(table, rows)


def judge(run: Path, table: Path, out: Path) -> None:
    """Compare the maps of a run with masks; the best method is chosen on the validation part."""
    roles = roles_of(run, table)
    subject = make_subject(run, roles["train"], PLAIN, SMOOTH)
    found = {
        role: localization.localization(
            subject, roles[role], out=out / role, device=CPU, batch_size=BATCH
        )
        for role in ("held_out", "test")
    }
    energy = {
        row.method: row.figure.mean
        for row in found["held_out"]
        if row.subset == ALL and row.measure == "energy" and not is_baseline(row.method)
    }
    best = max(energy, key=lambda method: energy[method])
    write_json(out / "best.json", {"best": best, "validation_energy": energy})
    write_text(out / "masks.md", markdown(found["test"], energy, best))
    print(f"best on the validation part: {best}\n\n{localization.to_text(found['test'])}\n")


def believe(run: Path, table: Path, out: Path, images: int) -> None:
    """Measure the faithfulness of the best method and of plain Grad-CAM on test images."""
    roles = roles_of(run, table)
    few = {USUAL, read_json(out / "best.json")["best"]}
    subject = make_subject(
        run,
        roles["train"],
        [one for one in PLAIN if one.key in few],
        [one for one in SMOOTH if one.key + SUFFIX in few],
    )
    how = faithfulness.Settings(num=images, steps=STEPS, seed=SEED, batch_size=BATCH)
    rows = faithfulness.faithfulness(
        subject, roles["test"], out=out / "test", device=CPU, settings=how
    )
    write_text(out / "faithfulness.md", faithful_markdown(rows))
    print(faithfulness.to_text(rows))


def roles_of(run: Path, table: Path) -> dict[str, list[Sample]]:
    """The samples of a run: test, held_out (validation) and train."""
    role = {Path(row["path"]).name: row["role"] for row in predictions(run)}
    found: dict[str, list[Sample]] = {"test": [], "held_out": [], "train": []}
    for sample in scan(table).samples:
        found[role.get(sample.path.name, "train")].append(sample)
    return found


def predictions(run: Path) -> list[dict[str, str]]:
    """What the run says of its test and held-out images."""
    return read_csv(run / "final" / "predictions.csv")


def make_subject(
    run: Path, trained: Sequence[Sample], plain: Sequence[Wanted], smooth: Sequence[Wanted]
) -> Subject:
    """Maps of a run, all for the true class."""
    detector = load_detector(run / "final")
    threshold = read_json(run / "final" / "metrics.json")["threshold"]["score"]["value"]
    explainers = {}
    for suffix, wanted in (("", plain), (SUFFIX, smooth)):
        if wanted:
            options = CamOptions(aug_smooth=suffix == SUFFIX, batch_size=BATCH)
            explainers[suffix] = Explainer(detector, options, threshold=threshold)
            explainers[suffix].wanted = list(wanted)
    some = [one.path for one in trained[:: max(1, len(trained) // CALIBRATION)]]
    batches = stream(some, detector.img_size, batch_size=BATCH, bad=[])
    return subject_of(
        explainers,
        calibration=[batch.image for batch in batches],
        class_of=lambda one: one.label,
        true_class=lambda one: one.label,
        seed=SEED,
    )


def markdown(test: Sequence[Row], energy: Mapping[str, float], best: str) -> str:
    """Maps against masks: all methods on all test images, then the best one on subsets."""
    figures = {(r.method, r.measure): (r.figure, r.verdict) for r in test if r.subset == ALL}
    lines = [f"| map | validation energy | {' | '.join(MEASURES)} |", "|---|---|---|---|---|---|"]
    for method in dict.fromkeys(row.method for row in test):
        name = f"**{method}**" if method == best else method
        cells = [_cell(*figures.get((method, one), (None, ""))) for one in MEASURES]
        before = f"{energy[method]:.3f}" if method in energy else ""
        lines.append(f"| {name} | {before} | {' | '.join(cells)} |")
    lines += [
        "",
        "| subset | images | chance | energy_over_chance | pointing |",
        "|---|---|---|---|---|",
    ]
    for subset in dict.fromkeys(row.subset for row in test):
        own = {r.measure: r for r in test if r.method == best and r.subset == subset}
        row = own["pointing"]
        cells = [
            _cell(own[one].figure, own[one].verdict) for one in ("energy_over_chance", "pointing")
        ]
        lines.append(f"| {subset} | {row.figure.images} | {row.chance:.3f} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def faithful_markdown(rows: Sequence[faithfulness.Row]) -> str:
    """Faithfulness of a few methods and their baselines."""
    found = {(row.method, row.measure): (row.figure, row.verdict) for row in rows}
    lines = [f"| map | {' | '.join(FAITHFUL)} |", "|---|---|---|---|---|"]
    for method in dict.fromkeys(row.method for row in rows):
        cells = [_cell(*found.get((method, one), (None, ""))) for one in FAITHFUL]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(figure: Figure | None, verdict: str) -> str:
    if figure is None or math.isnan(figure.mean):
        return "-"
    star = " *" if verdict == INFORMATIVE else ""
    low, high = figure.interval
    known = "" if math.isnan(low) else f" ({low:.3f} to {high:.3f})"
    return f"{figure.mean:.3f}{known}{star}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("split")
    one.add_argument("tiles", type=Path)
    one.add_argument("table", type=Path)
    for name in ("judge", "believe"):
        one = verbs.add_parser(name)
        one.add_argument("run", type=Path)
        one.add_argument("table", type=Path)
        one.add_argument("out", type=Path)
    one.add_argument("--images", type=int, default=24)
    given = parser.parse_args()
    if given.verb == "split":
        split(given.tiles, given.table)
    elif given.verb == "judge":
        judge(given.run, given.table, given.out)
    else:
        believe(given.run, given.table, given.out, given.images)


if __name__ == "__main__":
    main()
