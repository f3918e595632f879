"""Colorizer: what would this picture's colors be if it were normal?

Phase 1 of LEA-Net (Katafuchi & Tokunaga, arXiv 2109.05493). A U-Net learns to predict the colors
(a, b of CIE Lab) of *normal* images from their lightness L. On a new image it paints what normal
would look like; the CIEDE2000 difference to the real colors is the anomaly map, in color-difference
units, and its mean the image score.

It is one of the tasks of `leanet.methods.reconstruction`, with the paper's network, under a name
of its own; every option of that recipe can be given here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from leanet.config import option
from leanet.methods import reconstruction
from leanet.methods.reconstruction import Model
from leanet.methods.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Config(reconstruction.Config):
    """Options of the colorizer."""

    task: Task = option("colorization", "what the network is asked to restore")
    model: Model = option(
        "unet", "unet (the paper's), ae (no skips), segnet, unetres (ae with skips at every size)"
    )


PRESETS = reconstruction.PRESETS
