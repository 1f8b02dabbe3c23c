"""Similarity of representations, on plain arrays: rows are examples, the same ones in the same order on both sides.

    from analysis.similarity import cka, cka_matrix

    cka(X, Y)                                     value, standard error, interval, null: features may differ in number
    cka_matrix({"conv1": ..., "fc": ...}, {...})  every layer of one network with every layer of another

Everything goes through ``analysis.moments`` in float64. Linear CKA does not change when either side is rotated, scaled
or shifted, and does change under a general linear map. Values are never clamped; an undefined one is NaN with a reason.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float64, Real, Shaped
from numpy.typing import ArrayLike

from analysis.estimates import Estimator, finish, jackknife, null_sd
from analysis.measure import finite_rows, frame, measure

MOST_BLOCKS, FEWEST_BLOCKS, FEWEST_ROWS = 20, 5, 4  # of the jackknife: blocks, and examples in each


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Linear CKA of two representations."""

    value: float
    """1 for the same up to rotation, scale and shift; about 0 (debiased) or above (biased) if unrelated; or NaN."""
    estimator: Estimator
    n: int
    """Examples used."""
    n_dropped: int
    """Examples left out because a feature was not finite."""
    reason: str
    """Why the value is NaN: "no finite row", "n<4" (biased: "n<2"), "constant layer" or "non-positive self term"; else
    empty."""
    null_sd: float
    """Standard deviation of the debiased value between unrelated representations of n examples, sqrt(2) / n."""
    se: float
    """Jackknife standard error over examples; NaN below 20 examples."""
    interval: tuple[float, float]
    """95 % interval, value +- t se with the t of the number of blocks less one; may reach beyond [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class SimilarityMatrix:
    """Linear CKA of every layer of network A (rows) with every layer of network B (columns)."""

    values: Float64[np.ndarray, "La Lb"]
    rows: tuple[str, ...]
    """Layers of A, in the order given."""
    columns: tuple[str, ...]
    """Layers of B, in the order given."""
    estimator: Estimator
    n: int
    """Examples used, the same for every cell."""
    n_dropped: int
    """Examples left out of every cell because a feature of some layer was not finite."""
    reasons: Shaped[np.ndarray, "La Lb"]
    """Why a value is NaN, as in ``Similarity``; else empty."""
    null_sd: float
    """As in ``Similarity``."""


def linear_cka(x: Real[np.ndarray, "n p"], y: Real[np.ndarray, "n q"]) -> float:
    """Linear CKA of two representations of the same ``n`` examples: 0 to 1 up to rounding, never clamped.

    Unchanged by rotating, scaling or shifting either side; changed by a general linear map. Biased: independent
    Gaussian features at n=50 score about 0.09, 0.50, 0.91 at widths 5, 50, 500, so across widths compare
    ``debiased_linear_cka``. NaN if a side is constant: one bad cell must not stop a matrix.

    Kornblith et al. 2019 (arXiv:1905.00414), in feature form: O(n (p + q)²), no n-by-n matrix unless p or q exceeds n.

    Raises:
        ValueError: the two sides have different ``n``.
    """
    return float(cka_matrix({"x": x}, {"y": y}, estimator="biased").values[0, 0])


def debiased_linear_cka(x: Real[np.ndarray, "n p"], y: Real[np.ndarray, "n q"]) -> float:
    """Linear CKA from unbiased estimates of HSIC (Song et al. 2012): at any width about 0, and often below, for
    unrelated sides; at most 1 up to rounding. Invariances and errors as of ``linear_cka``; NaN also for ``n`` below 4.
    """
    return float(cka_matrix({"x": x}, {"y": y}).values[0, 0])


def cka(X: ArrayLike, Y: ArrayLike, *, estimator: Estimator = "debiased", seed: int = 0) -> Similarity:
    """Linear CKA of two representations [n, features] with its uncertainty over examples.

    The standard error leaves out one block of examples at a time: at most 20 blocks, of 4 examples or more, a random
    partition of the rows drawn by ``seed``. It takes rows to be independent of each other, and costs more than the
    value: ``debiased_linear_cka`` is the value alone.

    Raises:
        ValueError: an array that is not [n, features] of real numbers, two different ``n``, or no such estimator.
    """
    all_x, all_y = np.asarray(X), np.asarray(Y)
    check_arrays({"X": all_x}, {"Y": all_y})
    check_estimator(estimator)
    lost = no_finite_row(all_x) or no_finite_row(all_y)
    (x,), (y,), n_dropped = finite_rows([all_x], [all_y])
    x, y = narrow(x), narrow(y)
    total = measure([x], [y], precision="float64")
    estimate = finish(total, estimator)
    se = low = high = math.nan
    if total.n >= FEWEST_BLOCKS * FEWEST_ROWS:
        order = np.random.default_rng(seed).permutation(total.n)
        blocks = np.array_split(order, min(MOST_BLOCKS, total.n // FEWEST_ROWS))
        states = (measure([x[rows]], [y[rows]], precision="float64") for rows in blocks)
        spread = jackknife(total, states, estimator)
        se, low, high = (float(cells[0, 0]) for cells in (spread.se, spread.low, spread.high))
    return Similarity(
        value=float(estimate.cka[0, 0]),
        estimator=estimator,
        n=total.n,
        n_dropped=n_dropped,
        reason="no finite row" if lost else str(estimate.reason[0, 0]),
        null_sd=null_sd(total.n),
        se=se,
        interval=(low, high),
    )


def cka_matrix(
    layers_a: Mapping[str, Real[np.ndarray, "..."]],
    layers_b: Mapping[str, Real[np.ndarray, "..."]],
    *,
    estimator: Estimator = "debiased",
) -> SimilarityMatrix:
    """Linear CKA of every layer of network A with every layer of network B, each an array [n, features] by its name.

    All cells use the same examples: those finite in every layer, but for layers that are finite in none.

    Raises:
        ValueError: no layers, an array that is not [n, features] of real numbers, different ``n``, or no such
            estimator.
    """
    check_arrays(layers_a, layers_b)
    check_estimator(estimator)
    lost_a, lost_b = (np.array([no_finite_row(layer) for layer in side.values()]) for side in (layers_a, layers_b))
    stand_in = np.zeros((len(next(iter(layers_a.values()))), 1))  # a constant layer, which costs the others no example
    a = [stand_in if lost else layer for layer, lost in zip(layers_a.values(), lost_a, strict=True)]
    b = [stand_in if lost else layer for layer, lost in zip(layers_b.values(), lost_b, strict=True)]
    a, b, n_dropped = finite_rows(a, b)
    total = measure([narrow(layer) for layer in a], [narrow(layer) for layer in b], precision="float64")
    estimate = finish(total, estimator)
    return SimilarityMatrix(
        values=estimate.cka,
        rows=tuple(layers_a),
        columns=tuple(layers_b),
        estimator=estimator,
        n=total.n,
        n_dropped=n_dropped,
        reasons=np.where(np.logical_or.outer(lost_a, lost_b), "no finite row", estimate.reason),
        null_sd=null_sd(total.n),
    )


def check_arrays(layers_a: Mapping[str, np.ndarray], layers_b: Mapping[str, np.ndarray]) -> None:
    """Refuse, by name, what is not [n, features] of real numbers with the same n throughout."""
    if not layers_a or not layers_b:
        raise ValueError(f"network {'B' if layers_a else 'A'} has no layers; expected at least one array [n, features]")
    named = [*layers_a.items(), *layers_b.items()]
    for name, layer in named:
        if layer.ndim != 2:
            raise ValueError(
                f"{name} has shape {layer.shape}; expected [n, features], one row per example; pool the other axes "
                "(their mean, say) or flatten them first, and report which, for the value depends on it"
            )
        if layer.dtype.kind not in "buif":  # Booleans, integers, floating-point numbers
            raise ValueError(
                f"{name} holds {layer.dtype}; expected real numbers; of complex ones, compare real and imaginary parts "
                "side by side as features"
            )
    first, n = named[0][0], len(named[0][1])
    for name, layer in named:
        if len(layer) != n:
            raise ValueError(
                f"{first} has {n} rows and {name} has {len(layer)}; expected one row per example, the same examples in "
                "the same order: select those that both have"
            )


def check_estimator(estimator: str) -> None:
    """Refuse a name that is none."""
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator is {estimator!r}; expected {' or '.join(map(repr, get_args(Estimator)))}")


def no_finite_row(layer: Real[np.ndarray, "n p"]) -> bool:
    return len(layer) > 0 and not np.isfinite(layer).all(axis=1).any()


def narrow(features: Real[np.ndarray, "n p"]) -> Real[np.ndarray, "n _"]:
    """The same examples in at most n coordinates.

    Only inner products between examples matter, and about a common point n examples span at most n directions: more
    features than that are rotated into n by a QR decomposition, so that no p-by-p matrix is needed.
    """
    n, p = features.shape
    if p <= n or not n:
        return features
    reference, _ = frame(features, "float64")
    return np.transpose(np.linalg.qr((features - reference).T, mode="r"))
