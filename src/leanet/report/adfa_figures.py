"""Charts of an ADFA or CFA training, each with a sentence on what to look for.

How soft the soft top-k is depends on the largest distance, which drifts while the descriptor
learns: so the journal says after every epoch what the distances do, on a few images.
"""

from __future__ import annotations

from leanet.report.cavga_figures import Chart, Line, Plot, charts_of
from leanet.report.figures import ACCENT
from leanet.report.run import Run

SIGNS = ("kl_weight", "radius", "effective")  # in the journals of these trainings only
LOSS = Plot(
    "Loss",
    (Line("train_loss", name="training"), Line("val_loss", ACCENT, name="held out")),
    "How far descriptions of normal images are from the bank. Where held-out images stay behind, "
    "the descriptor has learned the training images by heart.",
)
PLOTS = (
    LOSS,
    Plot(
        "Largest distance S",
        (Line("max_score"),),
        "The largest weighted squared distance. Far from 1 in either direction, the soft top-k is "
        "almost the mean over the whole bank.",
        low=0,
    ),
    Plot(
        "Largest cost Cmax",
        (Line("cmax"),),
        "What the temperature of the soft top-k is a share of: the larger of S squared and "
        "(1 − the smallest distance) squared, mean over images.",
        low=0,
    ),
    Plot(
        "KL weight w",
        (Line("kl_weight"),),
        "How much an image's channels differ from those of the bank; it multiplies its distances.",
    ),
    Plot(
        "Entries that share",
        (Line("effective"),),
        "Of how many entries of the bank a distance is in effect the mean. Hard top-k would be k.",
        low=0,
    ),
    Plot(
        "Entries that push away",
        (Line("negative_share"),),
        "Share of the entries that descriptions are moved away from.",
        low=0,
        high=1,
    ),
    Plot(
        "Radius",
        (Line("radius"),),
        "Of the spheres around the entries, inside which nothing is to be learned.",
        low=0,
    ),
)


def has_bank(run: Run) -> bool:
    """Whether the journals are those of a descriptor that learns beside a bank."""
    records = (record for part in (*run.folds, run.final) for record in part.journal)
    return any(sign in record for record in records for sign in SIGNS)


def training_charts(run: Run) -> list[Chart]:
    """A chart for everything that the journals hold, a line per part."""
    return charts_of(run, PLOTS, "adfa")
