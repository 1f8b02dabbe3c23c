"""Features of two networks on the same examples -> their moments.

    state = measure(layers_a, layers_b)     two lists of arrays [n, width], a layer each; row i is one example in all

The cost is that of one matrix product, [Dx, n] by [n, Dy] for networks of Dx and Dy features, and of the far smaller
products of each layer with itself. They are float32 by default: over at most 2048 rows at a time, about a point near
the mean, and added up in float64, they leave CKA within 1e-6 of the float64 value. Single examples hundreds of standard
deviations away cost digits (1e-5 at a thousand); where that matters, ask for float64 at about three times the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Real

from analysis.moments import RESOLUTION, Cross, Moments, Precision, Side

CHUNK_ROWS = 2048  # a float32 product over many thousands of rows loses digits to its own accumulation


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The features of some examples, layers side by side, about the reference point and in the scale of a ``Side``."""

    x: Float[np.ndarray, "n D"]
    norms: Float[np.ndarray, "n L"]
    """Squared norm of each layer's features."""

    def layer(self, index: int, columns: slice) -> "Rows":
        """One layer alone."""
        return Rows(x=self.x[:, columns], norms=self.norms[:, index : index + 1])


def measure(
    layers_a: Sequence[Real[np.ndarray, "_ _"]],
    layers_b: Sequence[Real[np.ndarray, "_ _"]],
    *,
    precision: Precision = "float32",
) -> Moments:
    """Moments of one block of examples. Row i of every array, on both sides, is the same example.

    Rows that are not finite in some layer are left out of all layers, and counted. Collect a stream of small batches
    into blocks of thousands of rows: merging two states costs as much as measuring some hundreds.

    Raises:
        ValueError: a network without layers, a layer that is not [n, width], or layers with different numbers of rows.
    """
    check_layers(layers_a, layers_b)
    layers_a, layers_b, n_dropped = finite_rows(layers_a, layers_b)
    n = len(layers_a[0])
    a, b = empty_side(layers_a, precision), empty_side(layers_b, precision)
    cross = empty_cross(a, b)
    self_a, self_b = (tuple(empty_cross(layer, layer) for layer in side.layers) for side in (a, b))
    for start in range(0, n, CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        rows_a = shifted_rows([layer[chunk] for layer in layers_a], a, precision)
        rows_b = shifted_rows([layer[chunk] for layer in layers_b], b, precision)
        add_products(cross, rows_a, rows_b)
        for side, crosses, rows in ((a, self_a, rows_a), (b, self_b, rows_b)):
            add(side.s, rows.x.sum(axis=0, dtype=np.float64))
            add(side.A, rows.norms.sum(axis=0, dtype=np.float64))
            for index, (own, columns) in enumerate(zip(crosses, side.columns, strict=True)):
                layer = rows.layer(index, columns)
                add_products(own, layer, layer)
    resolution = RESOLUTION[precision]
    return Moments(n=n, n_dropped=n_dropped, resolution=resolution, a=a, b=b, cross=cross, self_a=self_a, self_b=self_b)


def check_layers(layers_a: Sequence[np.ndarray], layers_b: Sequence[np.ndarray]) -> None:
    """Refuse what has no moments."""
    where = {}
    for network, layers in (("A", layers_a), ("B", layers_b)):
        if not layers:
            raise ValueError(f"network {network} has no layers; expected at least one array [n, width]")
        for index, layer in enumerate(layers):
            if layer.ndim != 2 or not layer.shape[1]:
                raise ValueError(
                    f"layer {index} of network {network} has shape {layer.shape}; expected [n, width] with width >= 1; "
                    "pool or flatten all axes but the first"
                )
            where.setdefault(len(layer), f"layer {index} of network {network}")
    if len(where) > 1:
        found = ", ".join(f"{layer} has {rows} rows" for rows, layer in where.items())
        raise ValueError(f"{found}; expected the same examples in every layer of both networks, in the same order")


def finite_rows(
    layers_a: Sequence[np.ndarray], layers_b: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Both networks without the rows that are not finite in some layer of either, and the number of these."""
    finite = np.ones(len(layers_a[0]), dtype=bool)
    for layer in (*layers_a, *layers_b):
        finite &= np.isfinite(layer).all(axis=1)
    keep = slice(None) if finite.all() else finite  # a slice copies nothing
    return [layer[keep] for layer in layers_a], [layer[keep] for layer in layers_b], int((~finite).sum())


def empty_side(layers: Sequence[np.ndarray], precision: Precision) -> Side:
    """No examples yet: only the reference point and the scale they will be summed in."""
    widths = tuple(layer.shape[1] for layer in layers)
    references, scales = zip(*(frame(layer, precision) for layer in layers), strict=True)
    D, L = sum(widths), len(widths)
    return Side(
        widths=widths, reference=np.concatenate(references), scale=np.array(scales), s=np.zeros(D), A=np.zeros(L)
    )


def frame(layer: Real[np.ndarray, "n D"], precision: Precision) -> tuple[Float64[np.ndarray, " D"], float]:
    """The mean of the first rows, and the power of two that brings the widest range of a feature into [1/2, 1).

    In standard deviations, the mean of m of the n rows cannot lie farther off the mean of all than sqrt(n / m).
    """
    if not len(layer):
        return np.zeros(layer.shape[1]), 1.0
    work = np.result_type(layer, precision)
    low, high = layer.min(axis=0), layer.max(axis=0)
    mean = layer[:CHUNK_ROWS].mean(axis=0, dtype=np.float64).astype(work)
    reference = np.clip(mean, low, high)  # a mean rounds; a constant feature must nevertheless come out as exactly zero
    exponent = np.frexp((high.astype(np.float64) - low).max())[1]
    limit = np.finfo(work).maxexp - 2  # the power of two must itself be finite
    return reference.astype(np.float64), float(np.ldexp(1.0, -np.clip(exponent, -limit, limit)))


def empty_cross(x: Side, y: Side) -> Cross:
    """No examples yet."""
    (Dx, Lx), (Dy, Ly) = (len(x.s), len(x.A)), (len(y.s), len(y.A))
    return Cross(p=np.zeros((Dx, Ly)), q=np.zeros((Dy, Lx)), c=np.zeros((Lx, Ly)), M=np.zeros((Dx, Dy)))


def shifted_rows(layers: Sequence[np.ndarray], side: Side, precision: Precision) -> Rows:
    """Side by side, about the reference point, scaled."""
    x = np.empty((len(layers[0]), len(side.s)), precision)
    for layer, columns, scale in zip(layers, side.columns, side.scale, strict=True):
        work = np.result_type(layer, precision)  # float16 is widened, float64 not yet narrowed, for the subtraction
        shifted = layer.astype(work, copy=False) - side.reference[columns].astype(work)
        x[:, columns] = shifted * work.type(scale)
    norms = np.column_stack([np.vecdot(x[:, columns], x[:, columns]) for columns in side.columns])
    return Rows(x=x, norms=norms)


def add_products(cross: Cross, a: Rows, b: Rows) -> None:
    """Add some rows to ``cross``, in place: it is still ``measure``'s own."""
    add(cross.p, a.x.T @ b.norms)
    add(cross.q, b.x.T @ a.norms)
    add(cross.c, a.norms.T.astype(np.float64) @ b.norms.astype(np.float64))
    add(cross.M, a.x.T @ b.x)


def add(total: np.ndarray, part: np.ndarray) -> None:
    """In place, in the precision of the total."""
    total += part
