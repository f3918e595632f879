"""Few labels correct what an anomaly map expects, instead of starting from nothing.

A map that was drawn without any label already ranks images, often better than a classifier that has
seen five defects. So its score z_1 of an image, standardized, is the *prior* log-odds of being
anomalous, and the labels only have to say where it errs, by features phi [D] and, if there are any,
by other scores z_2 ... z_K, such as that of a classifier that was trained with other images:

    log-odds = t . z + v . phi + b,      t_k >= 0

    minimize over t, v, b:   sum_i c_i log(1 + exp(-y_i (t . z_i + v . phi_i + b)))
                             + strength/2 |v|^2 + TRUST/2 |t - e_1|^2,      e_1 = (1, 0, ... 0)

with y in {-1, +1} and c_i such that both classes weigh as much as the anomalous images count. What
the map explains already costs nothing and teaches nothing, so that v speaks of the rest; with one
defect the answer stays close to the map, with many the data term outweighs both pulls. This is
logistic regression with an offset (McCullagh & Nelder 1989, Generalized Linear Models, section
4.3), the offset's factor learned as far as the labels carry, and so is it the MAP estimate under
Gaussian priors. It is strictly convex: one answer, no seed.

The features are standardized by the normal images and divided by sqrt(D), so that `strength` means
the same whatever D is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from leanet.records import ANOMALOUS, NORMAL

FloatArray = NDArray[np.float64]
TRUST = 1.0  # the pull of the scores' factors to where they begin; weak, as a map may be useless
STRENGTH = 0.3  # 0.1 ... 1 were equally good on five sets with 1 to 30 defects: docs/results
FLAT = 0.1  # features that vary less than this share of the mean SD count as varying by it


class Correction(NamedTuple):
    """trust [K] >= 0: factors of the scores, the map's first; mean, spread [D]: of the normal
    images' features; weight [D]: of the features after (phi - mean) / spread; bias."""

    trust: FloatArray
    mean: FloatArray
    spread: FloatArray
    weight: FloatArray
    bias: float

    def __call__(self, prior: ArrayLike, features: ArrayLike) -> FloatArray:
        """Log-odds [N] for scores [N, K] and features [N, D], at equal class frequencies."""
        standard = (np.asarray(features, dtype=np.float64) - self.mean) / self.spread
        expected: FloatArray = np.asarray(prior, dtype=np.float64) @ self.trust
        log_odds: FloatArray = expected + standard @ self.weight + self.bias
        return log_odds


def fit_correction(
    prior: ArrayLike, features: ArrayLike, label: ArrayLike, *, strength: float = STRENGTH
) -> Correction:
    """The correction for scores [N, K] (0 = usual, 1 = one spread above; the first is the prior,
    the others come from networks that have not seen the image), features [N, D] and labels [N].
    Without anomalous images it is none: the prior alone, all of it.

    Raises ValueError for unequal lengths, no normal image, a value that is not finite, or
    strength <= 0.

    >>> told = fit_correction([[0.0], [0.5], [3.0]], [[0.0], [1.0], [0.0]], [0, 0, 0])
    >>> told([[2.0]], [[5.0]]).tolist()
    [2.0]
    """
    z, phi, truth = _checked(prior, features, label)
    if not strength > 0:
        raise ValueError(f"strength must be > 0, got {strength}")
    normal = phi[truth == NORMAL]
    mean, sd = normal.mean(axis=0), normal.std(axis=0)
    spread = np.maximum(sd, FLAT * _usual_spread(sd, phi))
    spread = spread * np.sqrt(phi.shape[1])
    trust, weight, bias = _solve(z, (phi - mean) / spread, truth, strength)
    return Correction(trust, mean, spread, weight, bias)


def cross_corrected(
    prior: ArrayLike,
    features: ArrayLike,
    label: ArrayLike,
    parts: Sequence[Sequence[int]],
    *,
    strength: float = STRENGTH,
) -> FloatArray:
    """Log-odds [N] of every image by a correction that has not seen its part.

    The normal images of a part are left out together, and so are, after that, its anomalous ones:
    few defects are needed where only normal images are judged. NaN for anomalous images without
    which there are none to learn from. `parts` cover all images; keep what belongs together in one.

    Raises ValueError as `fit_correction`, and where parts do not cover the images once each.
    """
    z, phi, truth = _checked(prior, features, label)
    if sorted(i for part in parts for i in part) != list(range(len(truth))):
        raise ValueError(f"the parts must hold each of the {len(truth)} images once")
    scores = np.full(len(truth), np.nan)
    for part, judged in ((set(p), k) for k in (NORMAL, ANOMALOUS) for p in parts):
        asked = [i for i in part if truth[i] == judged]
        rest = [i for i in range(len(truth)) if i not in part or truth[i] != judged]
        labels = set(truth[rest].tolist())
        if not asked or NORMAL not in labels or (judged == ANOMALOUS and len(labels) == 1):
            continue
        fitted = fit_correction(z[rest], phi[rest], truth[rest], strength=strength)
        scores[asked] = fitted(z[asked], phi[asked])
    return scores


def _usual_spread(sd: FloatArray, phi: FloatArray) -> float:
    """The mean SD of the normal images' features; where they are all equal that of all images,
    then 1. What float32 cannot resolve is zero, as in `leanet.ops.fusion.spread_of`."""
    tiny = float(np.finfo(np.float32).eps) * float(np.abs(phi).max())
    for usual in (float(sd.mean()), float(phi.std(axis=0).mean())):
        if usual > tiny:
            return usual
    return 1.0


def _solve(
    z: FloatArray, phi: FloatArray, truth: NDArray[np.int64], strength: float
) -> tuple[FloatArray, FloatArray, float]:
    """trust [K], weight [D] and bias for standardized features."""
    num_scores, num_features = z.shape[1], phi.shape[1]
    first = np.eye(1, num_scores)[0]
    anomalous = truth == ANOMALOUS
    if not anomalous.any():
        return first, np.zeros(num_features), 0.0
    sign = np.where(anomalous, 1.0, -1.0)
    counts = np.where(anomalous, 1.0, anomalous.sum() / (~anomalous).sum())
    design = np.concatenate([z, phi, np.ones((len(z), 1))], axis=1)
    center = np.concatenate([first, np.zeros(num_features + 1)])
    pull = np.concatenate([np.full(num_scores, TRUST), np.full(num_features, strength), [0.0]])

    def loss_and_gradient(point: FloatArray) -> tuple[float, FloatArray]:
        margin, off = sign * (design @ point), point - center
        loss = counts @ np.logaddexp(0, -margin) + 0.5 * (pull * off) @ off
        slope = -counts * sign * expit(-margin)
        return float(loss), design.T @ slope + pull * off

    found = minimize(
        loss_and_gradient,
        center,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * num_scores + [(None, None)] * (num_features + 1),
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 2000, "maxfun": 4000},
    )
    trust, weight, bias = np.split(found.x, [num_scores, num_scores + num_features])
    return np.maximum(trust, 0.0), weight, float(bias[0])


def _checked(
    prior: ArrayLike, features: ArrayLike, label: ArrayLike
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    z, phi = (np.asarray(one, dtype=np.float64) for one in (prior, features))
    truth = np.asarray(label)
    if z.ndim != 2 or phi.ndim != 2 or truth.ndim != 1 or not len(z) == len(phi) == len(truth):
        raise ValueError(
            f"a correction needs scores [N, K], features [N, D] and labels [N]; got "
            f"{z.shape}, {phi.shape} and {truth.shape}"
        )
    if not np.isin(truth, (NORMAL, ANOMALOUS)).all() or NORMAL not in truth:
        raise ValueError(
            f"labels must be {NORMAL} or {ANOMALOUS} with at least one {NORMAL} (normal), "
            f"got {np.unique(truth)[:5].tolist()}"
        )
    if not (np.isfinite(z).all() and np.isfinite(phi).all()):
        raise ValueError("the scores and features are not all finite")
    return z, phi, truth.astype(np.int64)
