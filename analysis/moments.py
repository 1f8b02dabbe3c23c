"""The sums over examples from which linear CKA of all layer pairs of two networks follows: exact, one pass, mergeable.

    state = measure(layers_a, layers_b)         one block of examples                     (analysis.measure)
    total = reduce(merge, states)               blocks in any order and any grouping
    rest = subtract(total, state)               all blocks but one
    finish(total), jackknife(total, states)     HSIC, CKA and their uncertainty           (analysis.estimates)

A block is summed about its own reference point, so that a large mean costs no digits, and in its own powers of two, so
that squares neither overflow nor vanish. ``merge`` and ``subtract`` bring both to one footing first, which loses
nothing: the sums about any other point, in any other scale, follow from the sums themselves.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

# x, y = features of one example in network A and in network B; a, b = their squared norms, one per layer.
# D = features of a network, its layers side by side; L = its layers; where both networks occur Dx, Lx and Dy, Ly.

Precision = Literal["float32", "float64"]
# Above the most that rounding was seen to leave of a self term that should vanish: one outlier, equal rows besides.
RESOLUTION: dict[Precision, float] = {"float32": 3e-5, "float64": 1e-12}


@dataclass(frozen=True, kw_only=True)
class Side:
    """Sums over the examples that involve one network only."""

    widths: tuple[int, ...]
    """Number of features of each layer."""
    reference: Float64[np.ndarray, " D"]
    """The point x is taken about, in the features' own units."""
    scale: Float64[np.ndarray, " L"]
    """The power of two x is multiplied by after that, layer by layer."""
    s: Float64[np.ndarray, " D"]
    """Sum of x."""
    A: Float64[np.ndarray, " L"]
    """Sum of a = |x|²."""

    @property
    def columns(self) -> list[slice]:
        """Where each layer lies among the D features."""
        ends = np.cumsum(self.widths).tolist()
        return [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]

    @property
    def layers(self) -> list["Side"]:
        """Each layer as a side of its own."""
        one = [(columns, slice(index, index + 1)) for index, columns in enumerate(self.columns)]
        return [
            Side(widths=self.widths[i], reference=self.reference[D], scale=self.scale[i], s=self.s[D], A=self.A[i])
            for D, i in one
        ]


@dataclass(frozen=True, kw_only=True)
class Cross:
    """Sums over the examples of products of two sides, of every layer of one with every layer of the other."""

    p: Float64[np.ndarray, "Dx Ly"]
    """Sum of x b."""
    q: Float64[np.ndarray, "Dy Lx"]
    """Sum of y a."""
    c: Float64[np.ndarray, "Lx Ly"]
    """Sum of a b."""
    M: Float64[np.ndarray, "Dx Dy"]
    """Sum of x yᵀ: one matrix product for all layer pairs."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """All that linear CKA between the layers of two networks depends on, over a set of examples."""

    n: int
    """Examples summed."""
    n_dropped: int
    """Examples left out because some feature of either network was not finite."""
    resolution: float
    """Share of a layer's biased self term below which the debiased may be rounding; by the coarsest block merged."""
    a: Side
    b: Side
    cross: Cross
    """Network A with network B."""
    self_a: tuple[Cross, ...]
    """Each layer of A with itself (no other pairs within a network)."""
    self_b: tuple[Cross, ...]
    """Each layer of B with itself."""


def merge(left: Moments, right: Moments) -> Moments:
    """Moments of the examples of both. The larger of the two keeps its reference points and scales."""
    larger, smaller = (left, right) if left.n >= right.n else (right, left)
    return combine(larger, smaller, operator.add)


def subtract(total: Moments, part: Moments) -> Moments:
    """Moments of the examples of ``total`` without those of ``part``, which must be among them."""
    if part.n > total.n:
        raise ValueError(
            f"cannot take {part.n} examples out of {total.n}; subtract moments that were merged into the total"
        )
    return combine(total, part, operator.sub)


def combine(left: Moments, right: Moments, plus: Callable[[Any, Any], Any]) -> Moments:
    """Entry by entry, once ``right`` is expressed like ``left``."""
    for network, one, other in (("A", left.a, right.a), ("B", left.b, right.b)):
        if one.widths != other.widths:
            raise ValueError(
                f"layers of network {network} have widths {one.widths} in one block and {other.widths} in the other; "
                "only blocks of the same pair of networks, with the same layers, belong together"
            )
    right = rebase(right, left.a, left.b)

    def sides(one: Side, other: Side) -> Side:
        return replace(one, s=plus(one.s, other.s), A=plus(one.A, other.A))

    def crosses(one: Cross, other: Cross) -> Cross:
        return Cross(p=plus(one.p, other.p), q=plus(one.q, other.q), c=plus(one.c, other.c), M=plus(one.M, other.M))

    return Moments(
        n=plus(left.n, right.n),
        n_dropped=plus(left.n_dropped, right.n_dropped),
        resolution=max(left.resolution, right.resolution),
        a=sides(left.a, right.a),
        b=sides(left.b, right.b),
        cross=crosses(left.cross, right.cross),
        self_a=tuple(map(crosses, left.self_a, right.self_a)),
        self_b=tuple(map(crosses, left.self_b, right.self_b)),
    )


def rebase(moments: Moments, a: Side, b: Side) -> Moments:
    """The same moments about the reference points and in the scales of ``a`` and ``b``; no estimate changes."""
    scaled_a, scaled_b = rescaled_side(moments.a, a.scale), rescaled_side(moments.b, b.scale)
    moments = with_sides(moments, scaled_a, scaled_b, rescaled_cross)
    n = moments.n
    shifted_a, shifted_b = shifted_side(scaled_a, a.reference, n), shifted_side(scaled_b, b.reference, n)
    return with_sides(moments, shifted_a, shifted_b, partial(shifted_cross, n))


def with_sides(moments: Moments, a: Side, b: Side, change: Callable[[Cross, Side, Side, Side, Side], Cross]) -> Moments:
    """Other sides, and every cross changed from between the old sides to between the new."""
    selves = [
        tuple(change(own, was, was, now, now) for own, was, now in zip(crosses, old.layers, new.layers, strict=True))
        for crosses, old, new in ((moments.self_a, moments.a, a), (moments.self_b, moments.b, b))
    ]
    cross = change(moments.cross, moments.a, moments.b, a, b)
    return replace(moments, a=a, b=b, cross=cross, self_a=selves[0], self_b=selves[1])


def rescaled_side(x: Side, scale: Float64[np.ndarray, " L"]) -> Side:
    """x becomes αx, α being the ratio of the scales: exact, for it is a power of two."""
    alpha_L = scale / x.scale
    return replace(x, scale=scale, s=x.s * np.repeat(alpha_L, x.widths), A=x.A * alpha_L**2)


def rescaled_cross(cross: Cross, x: Side, y: Side, new_x: Side, new_y: Side) -> Cross:
    """x becomes αx and y becomes βy."""
    alpha_L, beta_L = new_x.scale / x.scale, new_y.scale / y.scale
    if (alpha_L == 1).all() and (beta_L == 1).all():
        return cross
    alpha_D, beta_D = np.repeat(alpha_L, x.widths)[:, np.newaxis], np.repeat(beta_L, y.widths)[:, np.newaxis]
    return Cross(
        p=cross.p * alpha_D * beta_L**2,
        q=cross.q * beta_D * alpha_L**2,
        c=cross.c * np.outer(alpha_L**2, beta_L**2),
        M=cross.M * alpha_D * beta_D.T,
    )


def shifted_side(x: Side, reference: Float64[np.ndarray, " D"], n: int) -> Side:
    """x becomes x - δ, δ being the way from the old reference point to the new."""
    delta = by_layer((reference - x.reference) * np.repeat(x.scale, x.widths), x.widths)
    return replace(
        x,
        reference=reference,
        s=x.s - n * delta.sum(axis=1),
        A=x.A - 2 * x.s @ delta + n * (delta**2).sum(axis=0),
    )


def shifted_cross(n: int, cross: Cross, x: Side, y: Side, new_x: Side, new_y: Side) -> Cross:
    """x becomes x - δ and y becomes y - ε. Multiplied out and summed, with s, A, B, p, q, c, M the old sums:

    M' = M - δ s_yᵀ - s_x' εᵀ
    p' = p - 2 M ε + |ε|² s_x - δ B'                                        q' likewise
    c' = c - 2 ε·q - 2 δ·p + 4 δᵀMε + |ε|² A + |δ|² B - 2 |ε|² δ·s_x - 2 |δ|² ε·s_y + n |δ|² |ε|²
    """
    delta = by_layer((new_x.reference - x.reference) * np.repeat(x.scale, x.widths), x.widths)
    epsilon = by_layer((new_y.reference - y.reference) * np.repeat(y.scale, y.widths), y.widths)
    if not delta.any() and not epsilon.any():
        return cross
    delta_sq, epsilon_sq = (delta**2).sum(axis=0), (epsilon**2).sum(axis=0)
    M_epsilon, M_delta = cross.M @ epsilon, cross.M.T @ delta
    delta_D, epsilon_D = delta.sum(axis=1), epsilon.sum(axis=1)
    return Cross(
        p=cross.p - 2 * M_epsilon + np.outer(x.s, epsilon_sq) - np.outer(delta_D, new_y.A),
        q=cross.q - 2 * M_delta + np.outer(y.s, delta_sq) - np.outer(epsilon_D, new_x.A),
        c=cross.c
        - 2 * (cross.q.T @ epsilon + delta.T @ cross.p - 2 * delta.T @ M_epsilon)
        + np.outer(x.A - 2 * x.s @ delta, epsilon_sq)
        + np.outer(delta_sq, y.A - 2 * y.s @ epsilon + n * epsilon_sq),
        M=cross.M - np.column_stack([delta_D, new_x.s]) @ np.stack([y.s, epsilon_D]),
    )


def by_layer(vector_D: Float64[np.ndarray, " D"], widths: tuple[int, ...]) -> Float64[np.ndarray, "D L"]:
    """One column per layer, zero outside the layer's own features: products with it are products layer by layer."""
    matrix = np.zeros((len(vector_D), len(widths)))
    matrix[np.arange(len(vector_D)), np.repeat(np.arange(len(widths)), widths)] = vector_D
    return matrix
