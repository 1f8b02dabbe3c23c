"""Templates drawn by hand: networks of a few neurons with every sort of symmetry, without tracing a module."""

import numpy as np

from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import Block, GraphTemplate, NodeSet
from pipeline.value_layout import TensorSlot

WEIGHT, BIAS, PASS = EdgeKind.LINEAR_WEIGHT, EdgeKind.LINEAR_BIAS, EdgeKind.PASS


class Drawing:
    """A template in the making: sets of nodes, and blocks between them."""

    def __init__(self, num_inputs: int) -> None:
        self.sets: list[NodeSet] = []
        self.blocks: list[Block] = []
        self.num_nodes = 0
        self.num_values = 0
        self.tensors: list[tuple[int, int, int]] = []  # where one starts, and its two extents
        self.inputs = self.nodes(num_inputs, NodeKind.INPUT)

    def nodes(self, count: int, kind: NodeKind = NodeKind.NEURON, chain: int = 0) -> list[int]:
        self.sets.append(NodeSet(kind=kind, count=count, name="", chain=chain))
        self.num_nodes += count
        return list(range(self.num_nodes - count, self.num_nodes))

    def values(self, count: int) -> int:
        """New values; the position of the first."""
        self.num_values += count
        return self.num_values - count

    def block(
        self,
        sources: list[int],
        targets: list[int],
        kind: EdgeKind = WEIGHT,
        groups: int = 1,
        taps: int = 1,
        target_offset: list[int] | None = None,
        source_offset: list[int] | None = None,
        chain: int = 0,
        constant: float = 1.0,
        sites: list[int] | None = None,
    ) -> None:
        """A new tensor, [O, I, taps] in memory, where no offsets are given; nothing where the kind carries no value."""
        per_group = len(sources) // groups
        row = np.arange(len(targets)) * per_group * taps
        column = np.tile(np.arange(per_group) * taps, groups)
        if not kind.carries_value:
            row, column = 0 * row, 0 * column
        elif target_offset is None:
            row += self.values(len(targets) * per_group * taps)
        self.blocks.append(
            Block(
                kind=kind,
                num_groups=groups,
                targets=np.array(targets),
                target_offset=row if target_offset is None else np.array(target_offset),
                sources=np.array(sources),
                source_offset=column if source_offset is None else np.array(source_offset),
                source_site=np.zeros(len(sources), dtype=np.int64) if sites is None else np.array(sites),
                source_chain=np.full(len(sources), chain),
                target_site=np.zeros(len(sources), dtype=np.int64),
                constant=np.full(len(sources), constant),
                kernel_size=(taps,) if taps > 1 else (),
                tap_stride=1 if taps > 1 else 0,
            )
        )

    def layer(self, sources: list[int], num_targets: int, bias: bool = True) -> list[int]:
        targets = self.nodes(num_targets)
        self.block(sources, targets)
        if bias:
            self.block(self.nodes(1, NodeKind.BIAS), targets, BIAS)
        return targets

    def template(self, outputs: list[int]) -> GraphTemplate:
        return GraphTemplate(
            node_sets=tuple(self.sets),
            blocks=tuple(self.blocks),
            chains=((), (Step(operation=Operation.RELU),)),
            grids=((), (2,)),
            tensors=(TensorSlot(names=("all",), offset=0, shape=(self.num_values,)),),
            outputs=np.array(outputs, dtype=np.int64),
            output_chain=np.zeros(len(outputs), dtype=np.int64),
        )


def perceptron() -> GraphTemplate:
    drawing = Drawing(2)
    return drawing.template(drawing.layer(drawing.layer(drawing.layer(drawing.inputs, 5), 3), 2))


def layer_used_twice() -> GraphTemplate:
    """Its columns are those of the first three neurons and of its outputs, which it reads again; its rows follow."""
    drawing = Drawing(2)
    first = drawing.layer(drawing.inputs, 3)
    weight, second, third = drawing.values(9), drawing.nodes(3), drawing.nodes(3)
    for sources, targets in ((first, second), (second, third)):
        drawing.block(sources, targets, target_offset=[weight, weight + 3, weight + 6], source_offset=[0, 1, 2])
    return drawing.template(drawing.layer(third, 2))


def two_towers() -> GraphTemplate:
    """Two halves of the input through the same two parallel layers of two neurons: four pairs to be exchanged, also
    between the layers, though they are two tensors."""
    drawing = Drawing(2)
    first, second = drawing.values(2), drawing.values(2)
    hidden: list[int] = []
    for node in drawing.inputs:
        for weight in (first, second):
            targets = drawing.nodes(2)
            drawing.block([node], targets, target_offset=[weight, weight + 1], source_offset=[0])
            hidden += targets
    return drawing.template(drawing.layer(hidden, 1))


def embedding_used_transposed() -> GraphTemplate:
    """Five tokens, three channels: the channels are columns of the embedding, and of the output layer."""
    drawing = Drawing(1)
    tokens, channels, outputs = drawing.nodes(5, NodeKind.TOKEN), drawing.nodes(3), drawing.nodes(5)
    table = drawing.values(15)
    drawing.block(
        tokens,
        channels,
        EdgeKind.EMBEDDING,
        target_offset=[table, table + 1, table + 2],
        source_offset=[0, 3, 6, 9, 12],
    )
    rows = [table + 3 * place for place in range(5)]
    drawing.block(channels, outputs, target_offset=rows, source_offset=[0, 1, 2])
    return drawing.template(outputs)


def depthwise() -> GraphTemplate:
    drawing = Drawing(1)
    first, second = drawing.layer(drawing.inputs, 5), drawing.nodes(5)
    drawing.block(first, second, EdgeKind.CONV_WEIGHT, groups=5, taps=3)
    return drawing.template(drawing.layer(second, 2))


def grouped() -> GraphTemplate:
    """Two groups of three channels in and two out."""
    drawing = Drawing(1)
    first, second = drawing.layer(drawing.inputs, 6), drawing.nodes(4)
    drawing.block(first, second, EdgeKind.CONV_WEIGHT, groups=2, taps=3)
    return drawing.template(drawing.layer(second, 1))


def residual() -> GraphTemplate:
    """Sums tie the stream to what is added; neurons between are free."""
    drawing = Drawing(1)
    stream = drawing.layer(drawing.inputs, 3)
    for _ in range(2):
        added, total = drawing.layer(drawing.layer(stream, 5), 3), drawing.nodes(3, NodeKind.SUM)
        drawing.block(stream, total, PASS, groups=3)
        drawing.block(added, total, PASS, groups=3)
        stream = total
    return drawing.template(drawing.layer(stream, 2))


def twin_branches() -> GraphTemplate:
    """Each of two neurons with a bias node."""
    drawing = Drawing(2)
    return drawing.template(
        drawing.layer([*drawing.layer(drawing.inputs, 2), *drawing.layer(drawing.inputs, 2)], 1, bias=False)
    )


def heads() -> GraphTemplate:
    """Two heads: three products of a query and a key summed into scores, which multiply two values each."""
    drawing = Drawing(1)
    query, key, value = (drawing.layer(drawing.inputs, count) for count in (6, 6, 4))
    pairs, scores, mixed = drawing.nodes(6, NodeKind.PRODUCT), drawing.nodes(2, NodeKind.HEAD), drawing.nodes(4)
    drawing.block(query, pairs, EdgeKind.QUERY, groups=6)
    drawing.block(key, pairs, EdgeKind.KEY, groups=6)
    drawing.block(pairs, scores, PASS, groups=2)
    drawing.block(scores, mixed, EdgeKind.ATTENTION, groups=2)
    drawing.block(value, mixed, EdgeKind.VALUE, groups=4)
    return drawing.template(drawing.layer(mixed, 1))


def read_in_two_orders() -> GraphTemplate:
    """One row of weights reads three neurons, and again one place further: rotating them keeps values together."""
    drawing = Drawing(1)
    hidden, weight = drawing.layer(drawing.inputs, 3), drawing.values(3)
    outputs = [drawing.nodes(1) for _ in range(2)]
    for target, order in zip(outputs, ([0, 1, 2], [1, 2, 0]), strict=True):
        drawing.block(hidden, target, target_offset=[weight], source_offset=order)
    return drawing.template([*outputs[0], *outputs[1]])


def circulant() -> GraphTemplate:
    """``w[(i + j) % 5]`` between five sources and five targets: the reflections and rotations of i and j."""
    drawing = Drawing(1)
    sources, targets, weight = drawing.layer(drawing.inputs, 5), drawing.nodes(5), drawing.values(5)
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            drawing.block([source], [target], target_offset=[weight + (i + j) % 5], source_offset=[0])
    return drawing.template(drawing.layer(targets, 1))


def split_in_two_blocks() -> GraphTemplate:
    """Two tensors of one layer, each for some of its sources: their features are the same, so all are alike."""
    drawing = Drawing(1)
    sources, targets = drawing.layer(drawing.inputs, 5), drawing.nodes(2)
    drawing.block(sources[:2], targets)
    drawing.block(sources[2:], targets)
    return drawing.template(targets)


def every_pair() -> GraphTemplate:
    """A product node for each of 3 x 2 pairs: nothing falls apart, but rows and columns of the table are exchanged."""
    drawing = Drawing(1)
    rows, columns = drawing.layer(drawing.inputs, 3), drawing.layer(drawing.inputs, 2)
    table = drawing.nodes(6, NodeKind.PRODUCT)
    drawing.block([row for row in rows for _ in columns], table, PASS, groups=6, chain=1)
    drawing.block([*columns, *columns, *columns], table, PASS, groups=6)
    return drawing.template(drawing.layer(table, 1))


def one_slope() -> GraphTemplate:
    """One learned slope for all channels: a shared value that says nothing."""
    drawing = Drawing(1)
    hidden, scaled, slope = drawing.layer(drawing.inputs, 5), drawing.nodes(5), drawing.values(1)
    drawing.block(hidden, scaled, EdgeKind.SCALE, groups=5, target_offset=[slope] * 5, source_offset=[0] * 5)
    return drawing.template(drawing.layer(scaled, 1))
