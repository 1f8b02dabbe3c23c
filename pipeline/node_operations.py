"""Nodes that compute from nodes, element by element: sums, products and maxima, with parameters and constants too.

Reads   operands of one example: activations, parameters and constants that are broadcast against each other
Writes  nodes and edges; returns the `Carried` of the result
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pipeline.channel_reading import channel_axes, pieces, read, unshared, whole
from pipeline.elementwise import ELEMENTWISE
from pipeline.graph_builder import Entries, GraphBuilder, map_extents
from pipeline.graph_kinds import NO_BOUND, EdgeKind, NodeKind, Operation, Step, scale
from pipeline.traced_tensor import SHARED, ZERO, Call, Carried, Constant, Operand, Weights


def scaled(builder: GraphBuilder, operand: Operand, factor: float) -> Operand:
    """An operand times a number."""
    if factor == 1:
        return operand
    if isinstance(operand, Constant):
        return Constant(number=operand.number * factor)
    if isinstance(operand, Carried):
        return builder.passed(operand, scale(factor))
    return replace(operand, chain=builder.followed(operand.chain, scale(factor)))


def carried(builder: GraphBuilder, call: Call, operand: Operand) -> Carried:
    """An operand as an activation: every parameter, and every constant but zero, becomes a node."""
    if isinstance(operand, Carried):
        return operand
    numbers = operand.value if isinstance(operand, Weights) else operand.number
    distinct, place = torch.unique(numbers, return_inverse=True)
    bias = builder.add_nodes(NodeKind.BIAS, 1, call.module)
    count = np.arange(len(distinct))
    if isinstance(operand, Weights):
        nodes = builder.add_nodes(NodeKind.NEURON, len(distinct), call.module)
        entries = Entries.of(count, int(bias[0]), chain=operand.chain, value=distinct.numpy())
        builder.add_pointwise(EdgeKind.OFFSET, nodes, entries, ())
    else:
        nodes = builder.add_nodes(NodeKind.SUM, len(distinct), call.module)
        builder.add_pointwise(EdgeKind.PASS, nodes, Entries.of(count, int(bias[0]), constant=distinct.numpy()), ())
    nothing = torch.zeros_like(place)
    return Carried(node=torch.from_numpy(nodes + SHARED)[place], site=nothing, chain=nothing)


def combine(
    builder: GraphBuilder,
    call: Call,
    kind: NodeKind,
    operands: Sequence[Operand],
    edge_kinds: Sequence[EdgeKind] = (),
) -> Carried:
    """The sum, product or maximum of operands broadcast to the shape of the call, element by element.

    Args:
        edge_kinds: of the edges from each operand; `EdgeKind.PASS` if not given.
    """
    if not any(isinstance(operand, Carried) for operand in operands):
        operands = [carried(builder, call, operand) for operand in operands if isinstance(operand, Weights)] + [
            operand for operand in operands if isinstance(operand, Constant)
        ]
    shape = tuple(torch.broadcast_shapes(*(operand.shape for operand in operands)))
    activations = [operand for operand in operands if isinstance(operand, Carried)]
    axes = channel_axes(activations, len(shape))
    fixed = [_by_channel(operand, shape, axes) for operand in operands if not isinstance(operand, Carried)]
    weights = [number for number in fixed if isinstance(number, Weights)]
    constants = [number.number.numpy() for number in fixed if isinstance(number, Constant)]
    number = constants[0].flat[0] if len(constants) == 1 and not weights and len(activations) == 1 else np.nan
    if np.isfinite(number) and (constants[0] == number).all():
        return _with_number(builder, call, activations[0], kind, float(number), shape)
    if kind == NodeKind.PRODUCT and len(activations) == 1:
        return _multiplied(builder, call, activations[0], weights, constants, shape, axes)
    if kind != NodeKind.SUM and fixed:
        operands = [*activations, *(carried(builder, call, o) for o in operands if not isinstance(o, Carried))]
        return combine(builder, call, kind, operands, edge_kinds)
    return _combined(builder, call, kind, activations, weights, constants, edge_kinds, shape, axes)


def _by_channel(operand: Operand, shape: tuple[int, ...], axes: tuple[int, ...]) -> Operand:
    """Parameters or constants as ``[channels, positions]``."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    count = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))

    def table(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.expand(shape).permute([*axes, *rest]).reshape(count, -1)

    if isinstance(operand, Weights):
        return replace(operand, value=table(operand.value))
    assert isinstance(operand, Constant)
    return Constant(number=table(operand.number.double()))


def _with_number(
    builder: GraphBuilder, call: Call, operand: Carried, kind: NodeKind, number: float, shape: tuple[int, ...]
) -> Carried:
    """An activation and one number for all its elements: a step of its chain."""
    expanded = operand.moved(lambda part: part.expand(shape))
    if kind == NodeKind.PRODUCT and number == 0:
        nothing = torch.zeros(shape, dtype=torch.int64)
        return Carried(node=nothing + ZERO, site=nothing, chain=nothing)
    if (kind == NodeKind.PRODUCT and number == 1) or (kind == NodeKind.SUM and number == 0):
        return expanded
    if kind == NodeKind.MAXIMUM:
        settings = (("high", (NO_BOUND,)), ("low", (number,)))
        return pad_safe(builder, call, expanded, Step(operation=Operation.CLAMP, settings=settings))
    shift = Step(operation=Operation.SHIFT, settings=(("number", (number,)),))
    return pad_safe(builder, call, expanded, scale(number) if kind == NodeKind.PRODUCT else shift)


def pad_safe(builder: GraphBuilder, call: Call, operand: Carried, step: Step) -> Carried:
    """The elements after a step; padding stays zero only under steps that keep zero, and is joined before others."""
    if not ELEMENTWISE[step.operation].keeps_zero and bool((operand.node < 0).any()):
        operand = whole(builder, call, operand, channel_axes([operand], operand.node.ndim))
    return builder.passed(operand, step)


def _multiplied(
    builder: GraphBuilder,
    call: Call,
    operand: Carried,
    weights: Sequence[Weights],
    constants: Sequence[Float64[np.ndarray, "C P"]],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> Carried:
    """An activation times learned or constant factors, one by one."""
    for factor in weights:
        operand = _times(builder, call, operand, factor.value.numpy(), factor.chain, shape, axes)
    for numbers in constants:
        operand = _times(builder, call, operand, numbers, None, shape, axes)
    return operand


def _times(
    builder: GraphBuilder,
    call: Call,
    operand: Carried,
    factor: np.ndarray,
    chain: int | None,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> Carried:
    """An activation times one factor per channel and position: positions of values, or constants if without chain."""
    if chain:
        steps = [step for step in builder.chains[chain] if step.operation != Operation.SCALE]
        assert not steps, "parameters only ever pass scales"
        for step in builder.chains[chain]:
            operand = builder.passed(operand, step)
    expanded = operand.moved(lambda part: part.expand(shape))
    parts = position_classes(factor)
    if len(parts) > 1:
        expanded = whole(builder, call, expanded, axes)
    channels, extents = read(builder, call, expanded, axes), map_extents(shape, axes)
    entries = []
    for positions, numbers in parts:
        place = builder.place(extents, positions) if len(parts) > 1 else 0
        rows = Entries.of(np.arange(channels.count), channels.node, channels.site, channels.chain)
        site = place if len(parts) > 1 else channels.site
        if chain is None:
            rows = Entries.of(rows.target, rows.node, site, rows.chain, place, numbers).chosen(numbers != 0)
        else:
            rows = Entries.of(rows.target, rows.node, site, rows.chain, place, value=numbers)
        entries.append(rows)
    edges = Entries.joined(entries)
    kind, edge_kind = (NodeKind.SUM, EdgeKind.PASS) if chain is None else (NodeKind.NEURON, EdgeKind.SCALE)

    def make() -> Int64[np.ndarray, " C"]:
        nodes = builder.add_nodes(kind, channels.count, call.module)
        builder.add_pointwise(edge_kind, nodes, edges, extents)
        return nodes

    nodes = builder.once(("times", int(edge_kind), channels.count, extents, edges.key), make)
    return builder.fresh(nodes, shape, axes, channels.shared)


def _combined(
    builder: GraphBuilder,
    call: Call,
    kind: NodeKind,
    activations: Sequence[Carried],
    weights: Sequence[Weights],
    constants: Sequence[Float64[np.ndarray, "C P"]],
    edge_kinds: Sequence[EdgeKind],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> Carried:
    """New nodes with an edge for every piece of every operand."""
    extents = map_extents(shape, axes)
    count = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
    found: list[tuple[EdgeKind, Entries]] = []
    for place, operand in enumerate(activations):
        entries = pieces(builder, operand, axes, shape)
        if kind != NodeKind.SUM and (len(entries.target) != count or entries.target_site.any()):
            expanded = operand.moved(lambda part: part.expand(shape))
            entries = pieces(builder, whole(builder, call, expanded, axes), axes, shape)
        found.append((edge_kinds[place] if edge_kinds else EdgeKind.PASS, entries))
    shared = all((entries.node >= SHARED).all() for _, entries in found)
    found = [(edge, unshared(entries)) for edge, entries in found]
    if kind == NodeKind.PRODUCT and len(found) == 2 and found[0][1].key == found[1][1].key:
        squared = activations[0].moved(lambda part: part.expand(shape))
        return pad_safe(builder, call, squared, Step(operation=Operation.POWER, settings=(("exponent", (2.0,)),)))
    of_kind = [(edge, [e for other, e in found if other == edge]) for edge in dict.fromkeys(edge for edge, _ in found)]
    edges = [(edge, without_twins(Entries.joined(some), kind)) for edge, some in of_kind]
    fixed = [(weight.chain, weight.value.numpy().tobytes()) for weight in weights]
    key = (int(kind), extents, count, tuple((int(edge), some.key) for edge, some in edges), tuple(fixed))

    def make() -> Int64[np.ndarray, " C"]:
        nodes = builder.add_nodes(kind, count, call.module)
        for edge, some in edges:
            builder.add_pointwise(edge, nodes, some, extents)
        for weight in weights:
            add_offsets(builder, call, nodes, weight, EdgeKind.OFFSET, extents)
        for numbers in constants:
            _add_constants(builder, call, nodes, numbers, extents)
        return nodes

    nodes = builder.once((*key, *(numbers.tobytes() for numbers in constants)), make)
    return builder.fresh(nodes, shape, axes, shared)


def without_twins(entries: Entries, kind: NodeKind) -> Entries:
    """What is summed twice is summed once with twice the constant; the maximum of a thing with itself is the thing."""
    columns = (entries.target, entries.node, entries.site, entries.chain, entries.target_site)
    _, first, place = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
    if len(first) == len(entries.target) or kind == NodeKind.PRODUCT:
        return entries
    total = np.bincount(place.reshape(-1), weights=entries.constant)
    merged = entries.chosen(first)
    return merged if kind == NodeKind.MAXIMUM else replace(merged, constant=total)


def add_offsets(
    builder: GraphBuilder,
    call: Call,
    nodes: Int64[np.ndarray, " C"],
    weights: Weights,
    kind: EdgeKind,
    extents: tuple[int, ...],
    bias: Int64[np.ndarray, " 1"] | None = None,
) -> None:
    """Learned summands ``[channels, positions]``: edges from a bias node, or from one node per entry of a table."""
    parts = position_classes(weights.value.numpy())
    table = np.stack([numbers for _, numbers in parts], axis=1)
    places = np.array([builder.place(extents, positions) for positions, _ in parts] if len(parts) > 1 else [0])
    if len(parts) > 1:
        sources = builder.add_nodes(NodeKind.POSITION, len(parts), call.module)
    else:
        sources = builder.add_nodes(NodeKind.BIAS, 1, call.module) if bias is None else bias
    R, least = len(parts), int(np.argmin(table[0]))
    if (table - table[:, [least]] == table[0] - table[0, least]).all():
        rows = Entries.of(np.arange(R), sources, 0, weights.chain, places, value=table[0] - table[0, least])
        builder.add_block(kind, nodes, rows, target_offset=table[:, least], map_size=extents)
        return
    rows = Entries.of(
        np.repeat(np.arange(len(nodes)), R),
        np.tile(sources, len(nodes)),
        0,
        weights.chain,
        np.tile(places, len(nodes)),
        value=table.reshape(-1),
    )
    builder.add_pointwise(kind, nodes, rows, extents)


def _add_constants(
    builder: GraphBuilder,
    call: Call,
    nodes: Int64[np.ndarray, " C"],
    numbers: Float64[np.ndarray, "C P"],
    extents: tuple[int, ...],
) -> None:
    """Constant summands: edges from a bias node, one for the positions of a channel that have the same number."""
    bias = int(builder.add_nodes(NodeKind.BIAS, 1, call.module)[0])
    alike = (numbers == numbers[:1]).all()
    rows: list[Entries] = []
    for target, row in enumerate(numbers[:1] if alike else numbers):
        distinct, place = np.unique(row, return_inverse=True)
        for which in np.flatnonzero(distinct != 0).tolist():
            site = builder.place(extents, np.flatnonzero(place.reshape(-1) == which))
            rows.append(Entries.of(np.array([target]), bias, target_site=site, constant=distinct[which]))
    entries = Entries.joined(rows)
    if alike:
        order = np.lexsort((entries.constant, entries.target_site))
        builder.add_block(EdgeKind.PASS, nodes, entries.chosen(order), map_size=extents)
    else:
        builder.add_pointwise(EdgeKind.PASS, nodes, entries, extents)


def position_classes(numbers: np.ndarray) -> list[tuple[Int64[np.ndarray, " n"], np.ndarray]]:
    """Positions that have the same number in every channel, with these numbers ``[C]``; in the order of the numbers."""
    if (numbers == numbers[:, :1]).all():
        return [(np.arange(numbers.shape[1]), numbers[:, 0])]
    columns, place = np.unique(numbers, axis=1, return_inverse=True)
    return [(np.flatnonzero(place.reshape(-1) == which), columns[:, which]) for which in range(columns.shape[1])]
