"""Scores of predicted numbers, and the score that noise in the numbers themselves allows.

Reads   arrays
Writes  numbers, never clamped; NaN where a score is undefined
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import stats


def r_squared(target: Float64[np.ndarray, " n"], prediction: Float64[np.ndarray, " n"]) -> float:
    """1 - residual / total sum of squares: at most 1, 0 for predicting the mean, negative below that; NaN for a
    constant target."""
    total = float(((target - target.mean()) ** 2).sum()) if len(target) else 0.0
    return 1 - float(((target - prediction) ** 2).sum()) / total if total > 0 else float("nan")


def kendall_tau(target: Float64[np.ndarray, " n"], prediction: Float64[np.ndarray, " n"]) -> float:
    """Kendall's tau-b, -1 to 1: agreement in order, ties accounted for; NaN if either side is constant."""
    if len(target) < 2 or np.ptp(target) == 0 or np.ptp(prediction) == 0:
        return float("nan")
    result: Any = stats.kendalltau(target, prediction)  # scipy declares no public type
    return float(result.statistic)


def split_half_reliability(half_a: Float64[np.ndarray, " n"], half_b: Float64[np.ndarray, " n"]) -> float:
    """The R² a perfect predictor of true accuracy would reach against accuracy measured on both halves of the test
    images.

    The Spearman-Brown formula 2r / (1 + r) of the correlation r between the two halves; NaN if a half is constant
    or the halves are exactly opposed.
    """
    if len(half_a) < 2 or np.ptp(half_a) == 0 or np.ptp(half_b) == 0:
        return float("nan")
    r = float(np.corrcoef(half_a, half_b)[0, 1])
    return 2 * r / (1 + r) if 1 + r > 1e-12 else float("nan")  # 1e-12: rounding of r


def unit_interval(
    score: Callable[[np.ndarray, np.ndarray], float],
    target: Float64[np.ndarray, " n"],
    prediction: Float64[np.ndarray, " n"],
    unit: np.ndarray,
    num_samples: int = 1000,
) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of a score over bootstrap samples of whole units (runs), seeded.

    All rows of a unit are drawn together, since checkpoints of one run are not independent.
    """
    rng = np.random.default_rng(0)
    _, place = np.unique(unit, return_inverse=True)
    rows = [np.flatnonzero(place == number) for number in range(place.max() + 1)]
    scores = []
    for _ in range(num_samples):
        sample = np.concatenate([rows[number] for number in rng.integers(len(rows), size=len(rows))])
        scores.append(score(target[sample], prediction[sample]))
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)
