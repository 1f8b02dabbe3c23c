"""Moments -> HSIC and CKA of every layer pair, and how far to trust them.

    estimate = finish(total, "debiased")              values, undefined ones NaN with the reason
    spread = jackknife(total, states, "debiased")     standard errors and intervals, leaving out one block at a time
    z = estimate.cka / null_sd(estimate.n)            beyond about 4: not the value of unrelated layers

About the mean, with M, c, A, B the sums of ``analysis.moments`` taken there,

    (n - 1)² HSIC0 = |M|²                                                                       biased
    n (n - 3) HSIC1 = |M|² - n / (n - 2) c + A B / ((n - 1) (n - 2))                            unbiased

(Gretton et al. 2005; Song et al. 2012, linear kernel), and CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)): a ratio of
unbiased terms is "debiased", not unbiased. HSIC1 too is an inner product, so that |CKA| <= 1 up to rounding, unclamped.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from scipy.special import stdtrit

from analysis.moments import Cross, Moments, Side, by_layer, subtract

Estimator = Literal["biased", "debiased"]
FEWEST: dict[Estimator, int] = {"biased": 2, "debiased": 4}  # examples; with fewer the definition divides by zero
ROUNDING = 1e-12  # variance smaller than this beside the numbers it is the difference of: the layer is constant


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """HSIC and CKA of every layer of A (rows) with every layer of B (columns), in the units of the features."""

    n: int
    """Examples."""
    cka: Float64[np.ndarray, "La Lb"]
    """Never clamped: debiased values of unrelated layers scatter about 0. NaN where ``reason`` says why."""
    reason: Shaped[np.ndarray, "La Lb"]
    """"n<4" (biased: "n<2"), "constant layer" or "non-positive self term"; empty where CKA has a value."""
    hsic: Float64[np.ndarray, "La Lb"]
    """The numerator of CKA."""
    hsic_a: Float64[np.ndarray, " La"]
    """Each layer of A with itself."""
    hsic_b: Float64[np.ndarray, " Lb"]
    """Each layer of B with itself."""
    variance_a: Float64[np.ndarray, " La"]
    """Total variance of each layer of A; squared, over the biased ``hsic_a``, it is the layer's effective rank."""
    variance_b: Float64[np.ndarray, " Lb"]
    """Total variance of each layer of B."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Uncertainty of the CKA of every layer pair over examples; NaN where CKA is, or would be without some block."""

    num_blocks: int
    se: Float64[np.ndarray, "La Lb"]
    """Standard error."""
    low: Float64[np.ndarray, "La Lb"]
    """Lower end of the interval, which is not clamped either."""
    high: Float64[np.ndarray, "La Lb"]
    """Upper end of the interval."""


@dataclass(frozen=True, kw_only=True)
class Centred:
    """What both estimators need of the sums, about the mean, for all pairs of layers of two sides."""

    M_sq: Float64[np.ndarray, "Lx Ly"]
    """Squared Frobenius norm of each layer pair's block of M."""
    c: Float64[np.ndarray, "Lx Ly"]
    A: Float64[np.ndarray, " Lx"]
    B: Float64[np.ndarray, " Ly"]


def finish(moments: Moments, estimator: Estimator = "debiased") -> Estimate:
    """HSIC and CKA of all layer pairs; a cell that is undefined is NaN, with a reason, and harms no other."""
    n = moments.n
    shape = len(moments.a.A), len(moments.b.A)
    if n < FEWEST[estimator]:
        nothing, reason = np.full(shape, np.nan), np.full(shape, f"n<{FEWEST[estimator]}")
        a, b = nothing[:, 0], nothing[0]
        return Estimate(n=n, cka=nothing, reason=reason, hsic=nothing, hsic_a=a, hsic_b=b, variance_a=a, variance_b=b)
    cross = centred(moments.cross, n, moments.a, moments.b)
    hsic = hsic_of(cross, n, estimator)
    hsic_a, small_a = self_terms(moments.self_a, moments.a, moments, estimator)
    hsic_b, small_b = self_terms(moments.self_b, moments.b, moments, estimator)
    constant_a, constant_b = cross.A <= ROUNDING * moments.a.A, cross.B <= ROUNDING * moments.b.A
    reason = np.select(
        [np.logical_or.outer(constant_a, constant_b), np.logical_or.outer(small_a, small_b)],
        ["constant layer", "non-positive self term"],
        "",
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        cka = np.where(reason == "", hsic / np.sqrt(np.outer(hsic_a, hsic_b)), np.nan)
    return Estimate(
        n=n,
        cka=cka,
        reason=reason,
        hsic=hsic / np.outer(moments.a.scale**2, moments.b.scale**2),
        hsic_a=hsic_a / moments.a.scale**4,
        hsic_b=hsic_b / moments.b.scale**4,
        variance_a=cross.A / moments.a.scale**2 / (n - 1),
        variance_b=cross.B / moments.b.scale**2 / (n - 1),
    )


def centred(cross: Cross, n: int, x: Side, y: Side) -> Centred:
    """The sums of x - x̄ and y - ȳ. M itself is not formed again: its norm follows from that of the sums at hand."""
    mean_x, mean_y = by_layer(x.s / n, x.widths), by_layer(y.s / n, y.widths)
    x_sq, y_sq = (mean_x**2).sum(axis=0), (mean_y**2).sum(axis=0)
    x_M_y = mean_x.T @ cross.M @ mean_y
    M_sq = np.array([[squares(cross.M[rows, columns]) for columns in y.columns] for rows in x.columns])
    return Centred(
        M_sq=M_sq - 2 * n * x_M_y + n**2 * np.outer(x_sq, y_sq),
        c=cross.c
        - 2 * (cross.q.T @ mean_y + mean_x.T @ cross.p - 2 * x_M_y)
        + np.outer(x.A, y_sq)
        + np.outer(x_sq, y.A)
        - 3 * n * np.outer(x_sq, y_sq),
        A=x.A - n * x_sq,
        B=y.A - n * y_sq,
    )


def squares(block: np.ndarray) -> float:
    return float(np.einsum("ij,ij->", block, block))


def hsic_of(sums: Centred, n: int, estimator: Estimator) -> Float64[np.ndarray, "Lx Ly"]:
    if estimator == "biased":
        return sums.M_sq / (n - 1) ** 2
    pairs = sums.M_sq - n / (n - 2) * sums.c + np.outer(sums.A, sums.B) / ((n - 1) * (n - 2))
    return pairs / (n * (n - 3))


def self_terms(
    crosses: tuple[Cross, ...], side: Side, moments: Moments, estimator: Estimator
) -> tuple[Float64[np.ndarray, " L"], Bool[np.ndarray, " L"]]:
    """HSIC of each layer with itself, and whether it is too small to tell from rounding. Unbiased, it is 0 when the
    examples' differences carry nothing beyond a single example, and then comes out on either side of 0."""
    n = moments.n
    sums = [centred(own, n, layer, layer) for own, layer in zip(crosses, side.layers, strict=True)]
    terms, sizes = (np.array([hsic_of(own, n, kind)[0, 0] for own in sums]) for kind in (estimator, "biased"))
    return terms, ~(terms > moments.resolution * sizes)


def null_sd(n: int) -> float:
    """Standard deviation of debiased CKA between unrelated representations of n examples, about 0: sqrt(2) / n.

    Good for screening; with a low effective rank the tails are heavier than a normal's, and p-values want permutations.
    """
    return math.sqrt(2) / n if n else math.nan


def jackknife(
    total: Moments, blocks: Iterable[Moments], estimator: Estimator = "debiased", confidence: float = 0.95
) -> Spread:
    """Standard error and t interval of every CKA, from its values with one block left out.

    The blocks must be a random partition of the examples of ``total`` into nearly equal sets of independent units. They
    are taken one at a time and may come from a generator: beside the total, only one needs to be in memory.

    Raises:
        ValueError: fewer than two blocks, or blocks that do not add up to the total.
    """
    whole, values, n = finish(total, estimator), [], 0
    for block in blocks:
        n += block.n
        rest = finish(subtract(total, block), estimator)
        # Where the block held all of a layer's variation, what is left of it after the subtraction is rounding.
        lost_a = ~(rest.variance_a > ROUNDING * whole.variance_a)
        lost_b = ~(rest.variance_b > ROUNDING * whole.variance_b)
        values.append(np.where(np.logical_or.outer(lost_a, lost_b), np.nan, rest.cka))
    G = len(values)
    if G < 2 or n != total.n:
        raise ValueError(
            f"{G} blocks with {n} examples in all, and a total with {total.n}; "
            "the jackknife needs two or more blocks, exactly those that were merged into the total"
        )
    deviations = np.array(values) - np.mean(values, axis=0)
    se = np.sqrt((G - 1) / G * (deviations**2).sum(axis=0))
    se = np.where(np.isnan(whole.cka), np.nan, se)
    reach = float(stdtrit(G - 1, (1 + confidence) / 2)) * se
    return Spread(num_blocks=G, se=se, low=whole.cka - reach, high=whole.cka + reach)
