"""Fitting the map from scores to probabilities (`leanet.ops.calibration`) to held-out images.

Platt's curve is fitted to his smoothed targets, (P + 1) / (P + 2) for the P anomalous images and
1 / (N + 2) for the N normal ones, by Newton's method with a line search (Lin, Lin & Weng 2007,
doi:10.1007/s10994-007-5018-6): its optimum is finite also where the classes are separable.
Isotonic regression joins neighbors whose order is wrong (pool adjacent violators); its values keep
within the same two targets, as no finite number of images shows a probability of 0 or 1. Isotonic
regression is the better one from about a thousand images on and the worse one below
(Niculescu-Mizil & Caruana 2005, doi:10.1145/1102351.1102430): "auto" is Platt below `MANY` images
of the rarer class.

A probability holds at the prevalence of defects that it was fitted at. At another one its odds are
multiplied by the ratio of the two prior odds (Saerens, Latinne & Decaestecker 2002,
doi:10.1162/089976602753284446): `at_prevalence`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from leanet.ops.calibration import Calibration
from leanet.records import ANOMALOUS, NORMAL

Kind = Literal["platt", "isotonic"]
FEWEST = 10  # images of each class below which nothing is calibrated
MANY = 500  # images of the rarer class from which "auto" is isotonic
_STEPS, _HALVINGS = 100, 40

_Floats = NDArray[np.float64]


def choose_kind(label: ArrayLike) -> Kind:
    """What "auto" stands for, from labels [N].

    >>> choose_kind([0] * 900 + [1] * 499), choose_kind([0] * 900 + [1] * 500)
    ('platt', 'isotonic')
    """
    return "isotonic" if min(_counts(label)) >= MANY else "platt"


def fit_calibration(kind: Kind, label: ArrayLike, score: ArrayLike) -> Calibration:
    """Fit to labels and scores [N].

    Raises ValueError unless both classes are there, or for an unknown kind.
    """
    if kind not in ("platt", "isotonic"):
        raise ValueError(f"unknown calibration {kind!r}; allowed: platt, isotonic")
    return (fit_platt if kind == "platt" else fit_isotonic)(label, score)


def fit_platt(label: ArrayLike, score: ArrayLike) -> Calibration:
    """The curve of the lowest cross entropy with the smoothed targets that does not fall, for
    labels and scores [N]; constant where the scores rank no better than chance would.

    Raises ValueError unless both classes are there.
    """
    low, high = _targets(label)
    scores, labels = np.asarray(score, dtype=np.float64), np.asarray(label)
    target = np.where(labels == ANOMALOUS, high, low)
    center, scale = float(scores.mean()), float(scores.std())
    slope, intercept = (0.0, 0.0)
    if scale > 0:
        slope, intercept = _newton((scores - center) / scale, target)
        slope /= scale
    if slope <= 0:
        return Calibration(kind="platt", intercept=float(logit(target.mean())))
    return Calibration(kind="platt", slope=slope, intercept=intercept - slope * center)


def fit_isotonic(label: ArrayLike, score: ArrayLike) -> Calibration:
    """The rising curve of the least squared error, for labels and scores [N]; knots differ also
    when rounded to float32, which a detector computes in.

    Raises ValueError unless both classes are there.
    """
    low, high = _targets(label)
    scores = np.asarray(score, dtype=np.float32).astype(np.float64)
    fitted = IsotonicRegression().fit(scores, np.asarray(label) == ANOMALOUS)
    values = np.clip(fitted.y_thresholds_, low, high)
    knots = tuple(map(float, fitted.X_thresholds_))
    return Calibration(kind="isotonic", knots=knots, values=tuple(map(float, values)))


def at_prevalence(calibration: Calibration, fitted_at: float, wanted: float) -> Calibration:
    """The same curve where a share `wanted` of the images is anomalous instead of `fitted_at`.

    Isotonic values are shifted at the knots. Raises ValueError unless both lie in (0, 1).

    >>> at_prevalence(Calibration(kind="platt", slope=2.0), 0.5, 0.5).intercept
    0.0
    """
    if not (0 < fitted_at < 1 and 0 < wanted < 1):
        raise ValueError(f"a prevalence lies between 0 and 1, got {fitted_at} and {wanted}")
    shift = float(logit(wanted) - logit(fitted_at))
    if calibration.kind == "platt":
        return replace(calibration, intercept=calibration.intercept + shift)
    values = expit(logit(np.asarray(calibration.values)) + shift)
    return replace(calibration, values=tuple(map(float, values)))


def _newton(z: _Floats, target: _Floats) -> tuple[float, float]:
    """Slope and intercept that minimize the cross entropy of sigmoid(slope z + intercept)."""
    design = np.stack([z, np.ones_like(z)])
    point = np.array([0.0, logit(target.mean())])
    value = _loss(point @ design, target)
    for _ in range(_STEPS):
        p = expit(point @ design)
        gradient = design @ (p - target)
        if np.abs(gradient).max() < 1e-9 * len(z):
            break
        hessian = (design * (p * (1 - p))) @ design.T + 1e-12 * np.eye(2)
        step = -np.linalg.solve(hessian, gradient)
        for halving in range(_HALVINGS):
            tried = point + step / 2**halving
            lower = _loss(tried @ design, target)
            if lower <= value + 1e-4 / 2**halving * float(gradient @ step):
                point, value = tried, lower
                break
        else:  # as low as rounding allows
            break
    return float(point[0]), float(point[1])


def _loss(logits: _Floats, target: _Floats) -> float:
    return float(np.sum(np.logaddexp(0, logits) - target * logits))


def _targets(label: ArrayLike) -> tuple[float, float]:
    normal, anomalous = _counts(label)
    if not normal or not anomalous:
        raise ValueError(
            f"a calibration needs both classes, got {normal} normal and {anomalous} anomalous"
        )
    return 1 / (normal + 2), (anomalous + 1) / (anomalous + 2)


def _counts(label: ArrayLike) -> tuple[int, int]:
    labels = np.asarray(label)
    return int(np.sum(labels == NORMAL)), int(np.sum(labels == ANOMALOUS))
