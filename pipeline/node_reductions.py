"""What runs over axes: means, sums and maxima over positions or over nodes, and products of matrices.

Reads   activations of one example
Writes  steps of chains where positions are reduced, nodes where nodes are; returns the `Carried` of the result
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.channel_reading import channel_axes, read, whole
from pipeline.graph_builder import Entries, GraphBuilder, map_axes, map_extents
from pipeline.graph_kinds import MAX_RANK, EdgeKind, NodeKind, Operation, Step
from pipeline.node_operations import combine, without_twins
from pipeline.traced_tensor import Call, Carried, UnsupportedError

PAIRS: dict[str, tuple[EdgeKind, EdgeKind]] = {
    "nodes": (EdgeKind.QUERY, EdgeKind.KEY),
    "positions": (EdgeKind.ATTENTION, EdgeKind.VALUE),
}
"""Kinds of the edges to products that are summed over nodes, and over positions."""


def map_step(
    call: Call,
    operation: Operation,
    shape: tuple[int, ...],
    channels: tuple[int, ...],
    axes: Sequence[int],
    **more: float,
) -> Step:
    """An operation over some axes of the map of a tensor whose channels stand on other axes."""
    rest = map_axes(shape, channels)
    if len(rest) > MAX_RANK:
        rest = [axis for axis in rest if shape[axis] > 1 or axis in axes]
    extents = tuple(shape[axis] for axis in rest)
    if len(extents) > MAX_RANK:
        raise UnsupportedError(call, f"runs over a map {extents}", f"at most {MAX_RANK} axes are possible; merge some")
    settings = {"axes": tuple(float(rest.index(axis)) for axis in sorted(axes)), "map_size": tuple(map(float, extents))}
    settings |= {name: (float(number),) for name, number in more.items()}
    return Step(operation=operation, settings=tuple(sorted(settings.items())))


def reduce(
    builder: GraphBuilder, call: Call, operand: Carried, operation: Operation, axes: Sequence[int], head: bool = False
) -> Carried:
    """The mean, sum or maximum over axes, which keep one element."""
    shape = operand.shape
    channels = channel_axes([operand], len(shape))
    positions = map_axes(shape, channels)
    over_map = [axis for axis in axes if axis in positions and shape[axis] > 1]
    over_nodes = [axis for axis in axes if axis in channels]
    over_all = operation == Operation.MEAN and positions and set(positions) <= set(axes)
    if over_map or over_all:
        operand = whole(builder, call, operand, channels)
        if over_all:
            numbers = tuple(map(float, map_extents(shape, channels)))
            step = Step(operation=Operation.GLOBAL_AVERAGE_POOL, settings=(("map_size", numbers),))
        else:
            step = map_step(call, operation, shape, channels, over_map)
        shape = tuple(1 if axis in over_map else size for axis, size in enumerate(shape))
        before = builder.passed(operand, step)
        first = before.moved(lambda part: part[tuple(slice(0, size) for size in shape)])
        extents = map_extents(shape, channels)
        sizes = [1 if axis in channels else size for axis, size in enumerate(shape)]
        site = torch.from_numpy(builder.sites(extents)).reshape(sizes).expand(shape)
        operand = Carried(node=first.node, site=site, chain=first.chain)
    return _reduce_nodes(builder, call, operand, operation, channels, over_nodes, head) if over_nodes else operand


def _reduce_nodes(
    builder: GraphBuilder,
    call: Call,
    operand: Carried,
    operation: Operation,
    channels: tuple[int, ...],
    axes: Sequence[int],
    head: bool,
) -> Carried:
    """The mean, sum or maximum over nodes: new nodes that read them all."""
    shape = operand.shape
    found = read(builder, call, operand, channels)
    group = group_of_channel(shape, channels, axes)
    constant = 1 / (found.count // (int(group.max()) + 1)) if operation == Operation.MEAN else 1.0
    entries = Entries.of(group, found.node, found.site, found.chain, constant=constant)
    kind = NodeKind.MAXIMUM if operation == Operation.MAXIMUM else NodeKind.HEAD if head else NodeKind.SUM
    edges = without_twins(entries, kind)

    def make() -> Int64[np.ndarray, " G"]:
        nodes = builder.add_nodes(kind, int(group.max()) + 1, call.module)
        builder.add_pointwise(EdgeKind.PASS, nodes, edges, found.map_size)
        return nodes

    nodes = builder.once(("reduced", int(kind), found.map_size, edges.key), make)
    left = tuple(axis for axis in channels if axis not in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return _with_single_axes(builder, nodes, kept, left, axes, found.shared)


def _with_single_axes(
    builder: GraphBuilder,
    nodes: Int64[np.ndarray, " G"],
    shape: tuple[int, ...],
    channels: tuple[int, ...],
    single: Sequence[int],
    shared: bool,
) -> Carried:
    """New nodes whose tensor keeps axes of one element, which are no part of the map."""
    return builder.fresh(nodes, shape, tuple(sorted((*channels, *single))), shared)


def group_of_channel(shape: tuple[int, ...], channels: tuple[int, ...], axes: Sequence[int]) -> Int64[np.ndarray, " C"]:
    """For every channel, the number of the group of those that differ along some axes only."""
    sizes = [shape[axis] for axis in channels]
    kept = [1 if axis in axes else shape[axis] for axis in channels]
    numbers = np.arange(int(np.prod(kept, dtype=np.int64))).reshape(kept)
    return np.broadcast_to(numbers, sizes).reshape(-1)


def product_of_matrices(builder: GraphBuilder, call: Call, left: Carried, right: Carried) -> Carried:
    """The matrix product of two activations ``[..., M, K]`` and ``[..., K, N]``.

    Summed over nodes (queries and keys) it makes a product node per pair, and their sum; summed over positions
    (attention and values), a product node whose map is summed by whatever reads it.
    """
    rows = left.moved(lambda part: part.unsqueeze(-2))
    columns = right.moved(lambda part: part.transpose(-1, -2).unsqueeze(-3))
    shape = tuple(torch.broadcast_shapes(rows.shape, columns.shape))
    summed = len(shape) - 1
    over_nodes = shape[summed] == 1 or summed in channel_axes([rows, columns], len(shape))
    kinds = PAIRS["nodes" if over_nodes else "positions"]
    call = replace(call, shape=shape)
    products = combine(builder, call, NodeKind.PRODUCT, [rows, columns], kinds)
    if over_nodes:
        channels = channel_axes([products], len(shape))
        total = _reduce_nodes(builder, call, products, Operation.SUM, channels, [summed], head=True)
    else:
        total = reduce(builder, call, products, Operation.SUM, [summed], head=True)
    return total.moved(lambda part: part.squeeze(-1))
