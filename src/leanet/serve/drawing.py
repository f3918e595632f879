"""A model's map for people and for programs: laid over its picture, or as numbers."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from leanet.data.images import encode_png
from leanet.inference.heatmap import MAP_TOP, overlay
from leanet.serve.live import Model
from leanet.serve.schemas import MapAnswer


def scale_of(model: Model) -> tuple[float, float]:
    """(low, top): the map values of the first and the last color, as `predict` draws them."""
    top = model.card.get("map_top")
    low = getattr(model.detector, "map_low", None) or 0.0
    return float(low), float(MAP_TOP if top is None else top)


def draw(model: Model, anomaly_map: NDArray[np.float32], rgb: NDArray[np.uint8]) -> bytes:
    """A map [h, w] of this model over its picture [H, W, 3], at the picture's own resolution, as
    the bytes of a PNG file: the same pixels as `predict` writes."""
    low, top = scale_of(model)
    border = getattr(model.detector, "map_border", 0)
    return encode_png(overlay(rgb, anomaly_map, top=top, low=low, border=border))


def drawn_answer(
    model: Model, anomaly_map: NDArray[np.float32], rgb: NDArray[np.uint8]
) -> MapAnswer:
    """The picture of `draw` as an answer."""
    data = draw(model, anomaly_map, rgb)
    low, top = scale_of(model)
    return MapAnswer(
        kind="png",
        width=rgb.shape[1],
        height=rgb.shape[0],
        data=base64.b64encode(data).decode(),
        low=low,
        top=top,
        unit=getattr(model.detector, "map_unit", None),
    )


def raw_answer(model: Model, anomaly_map: NDArray[np.float32]) -> MapAnswer:
    """A map [h, w] as numbers."""
    low, top = scale_of(model)
    return MapAnswer(
        kind="raw",
        width=anomaly_map.shape[1],
        height=anomaly_map.shape[0],
        data=base64.b64encode(anomaly_map.astype("<f4").tobytes()).decode(),
        low=low,
        top=top,
        unit=getattr(model.detector, "map_unit", None),
    )
