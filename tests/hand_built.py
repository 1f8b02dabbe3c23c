"""Templates written down by hand, with all that a template may hold."""

from typing import Any

import numpy as np

from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import Block, GraphTemplate, NodeSet, Region
from pipeline.value_layout import TensorSlot

WIDTH = 5
"""Of the residual network."""


def block(kind: EdgeKind, targets: list[int], sources: list[int], num_groups: int = 1, **columns: Any) -> Block:
    """A block with everything else nothing, or as given; rows may be lists."""
    rows: dict[str, np.ndarray] = {
        "target_offset": np.zeros(len(targets), dtype=np.int64),
        "constant": np.ones(len(sources)),
        **{name: np.zeros(len(sources), dtype=np.int64) for name in SOURCE_ROWS},
    }
    given = {name: np.array(columns.pop(name), dtype=row.dtype) for name, row in rows.items() if name in columns}
    nodes = {"targets": np.array(targets, dtype=np.int64), "sources": np.array(sources, dtype=np.int64)}
    return Block(kind=kind, num_groups=num_groups, **nodes, **(rows | given), **columns)


SOURCE_ROWS = ("source_offset", "source_site", "source_chain", "target_site")


def tensors(**shapes: tuple[int, ...]) -> tuple[TensorSlot, ...]:
    """Floating tensors one after another; ``first_weight`` stands for ``first.weight``."""
    slots: list[TensorSlot] = []
    for name, shape in shapes.items():
        offset = slots[-1].offset + slots[-1].size if slots else 0
        slots.append(TensorSlot(names=(name.replace("_", "."),), shape=shape, offset=offset))
    return tuple(slots)


def residual_layer_norm() -> GraphTemplate:
    """``last(norm(h + second(h)))`` with ``h = relu(first(x))``, 3 inputs, width 5, 2 outputs; layers without biases.

    Nodes: inputs 0 to 2, ``first`` 3 to 7, ``second`` 8 to 12, their sum 13 to 17, statistics 18, the norm 19 to 23 and
    its bias 24, outputs 25 and 26. Values: 15, 25, 5, 5 and 10.
    """
    inputs, first, second, added = [0, 1, 2], list(range(3, 8)), list(range(8, 13)), list(range(13, 18))
    normalised, outputs, each = list(range(19, 24)), [25, 26], list(range(WIDTH))

    def linear(targets: list[int], sources: list[int], offset: int, **columns: Any) -> Block:
        rows = [offset + len(sources) * place for place in range(len(targets))]
        places = list(range(len(sources)))
        return block(EdgeKind.LINEAR_WEIGHT, targets, sources, target_offset=rows, source_offset=places, **columns)

    standardise = Step(operation=Operation.STANDARDISE, settings=(("axes", ()), ("eps", (1e-5,)), ("map_size", ())))
    return GraphTemplate(
        node_sets=(
            NodeSet(kind=NodeKind.INPUT, count=3, name="input"),
            NodeSet(kind=NodeKind.NEURON, count=WIDTH, name="first"),
            NodeSet(kind=NodeKind.NEURON, count=WIDTH, name="second"),
            NodeSet(kind=NodeKind.SUM, count=WIDTH, name=""),
            NodeSet(kind=NodeKind.STATISTICS, count=1, name="norm", chain=1),
            NodeSet(kind=NodeKind.NORMALISED, count=WIDTH, name="norm"),
            NodeSet(kind=NodeKind.BIAS, count=1, name="norm"),
            NodeSet(kind=NodeKind.NEURON, count=2, name="last"),
        ),
        blocks=(
            linear(first, inputs, 0),
            linear(second, first, 15, source_chain=[2] * WIDTH),
            block(EdgeKind.PASS, added, first, WIDTH, source_chain=[2] * WIDTH),
            block(EdgeKind.PASS, added, second, WIDTH),
            block(EdgeKind.NORM_INPUT, [18], added),
            block(EdgeKind.NORM_WEIGHT, normalised, added, WIDTH, target_offset=[40 + place for place in each]),
            block(EdgeKind.NORM_BIAS, normalised, [24], target_offset=[45 + place for place in each]),
            block(EdgeKind.STATISTIC, normalised, [18]),
            linear(outputs, normalised, 50),
        ),
        chains=((), (standardise,), (Step(operation=Operation.RELU),)),
        grids=((),),
        tensors=tensors(
            first_weight=(WIDTH, 3),
            second_weight=(WIDTH, WIDTH),
            norm_weight=(WIDTH,),
            norm_bias=(WIDTH,),
            last_weight=(2, WIDTH),
        ),
        outputs=np.array(outputs),
        output_chain=np.array([0, 0]),
    )


def masked_attention() -> GraphTemplate:
    """Two channels of three tokens: positions added, causal attention of one head, a transposed convolution to seven
    positions, a batch norm, a clamp, a linear layer on positions 0, 3 and 5, and their mean.

    Nodes: inputs 0 and 1, positions 2 to 4, sum 5 and 6, queries 7 and 8, keys 9 and 10, values 11 and 12, products 13
    and 14, head 15, mask 16, masked scores 17, statistics 18, attention 19, products 20 and 21, convolution 22, bias 23
    of the batch norm, its channel 24, output 25. Values: table 6, three projections 4 each, convolution 4, norm 4, 1.
    """
    sizes = {"map_size": (3.0, 3.0)}
    softmax = Step(operation=Operation.SOFTMAX, settings=(("axes", (1.0,)), *sizes.items()))
    standardise = Step(operation=Operation.STANDARDISE, settings=(("axes", ()), ("eps", (1e-3,)), ("map_size", (7.0,))))
    clamp = Step(operation=Operation.CLAMP, settings=(("high", (float("inf"),)), ("low", (-0.5,))))
    mean = Step(operation=Operation.MEAN, settings=(("axes", (0.0,)), ("map_size", (3.0,))))
    kinds = [
        (NodeKind.INPUT, 2, 0),
        (NodeKind.POSITION, 3, 0),
        (NodeKind.SUM, 2, 0),
        *[(NodeKind.NEURON, 2, 0)] * 3,
        (NodeKind.PRODUCT, 2, 0),
        (NodeKind.HEAD, 1, 0),
        (NodeKind.BIAS, 1, 0),
        (NodeKind.SUM, 1, 0),
        (NodeKind.STATISTICS, 1, 1),
        (NodeKind.NORMALISED, 1, 0),
        (NodeKind.PRODUCT, 2, 0),
        (NodeKind.NEURON, 1, 0),
        (NodeKind.BIAS, 1, 0),
        (NodeKind.NORMALISED, 1, 2),
        (NodeKind.NEURON, 1, 0),
    ]

    def projection(targets: list[int], offset: int) -> Block:
        rows = [offset, offset + 2]
        return block(EdgeKind.LINEAR_WEIGHT, targets, [5, 6], target_offset=rows, source_offset=[0, 1], map_size=(3,))

    running = [EdgeKind.NORM_BIAS, EdgeKind.NORM_MEAN, EdgeKind.NORM_VARIANCE]
    return GraphTemplate(
        node_sets=tuple(
            NodeSet(kind=kind, count=count, name=f"layer{number}", chain=chain)
            for number, (kind, count, chain) in enumerate(kinds)
        ),
        blocks=(
            block(EdgeKind.PASS, [5, 6], [0, 1], 2, map_size=(3,)),
            block(
                EdgeKind.OFFSET,
                [5, 6],
                [2, 3, 4],
                target_offset=[0, 1],
                source_offset=[0, 2, 4],
                target_site=[1, 2, 3],
                map_size=(3,),
            ),
            projection([7, 8], 6),
            projection([9, 10], 10),
            projection([11, 12], 14),
            block(EdgeKind.QUERY, [13, 14], [7, 8], 2, map_size=(3, 3)),
            block(EdgeKind.KEY, [13, 14], [9, 10], 2, map_size=(3, 3)),
            block(EdgeKind.PASS, [15], [13, 14], constant=[0.5, 0.5], map_size=(3, 3)),
            block(EdgeKind.PASS, [17], [15], map_size=(3, 3)),
            block(EdgeKind.PASS, [17], [16], target_site=[4], constant=[-np.inf], map_size=(3, 3)),
            block(EdgeKind.NORM_INPUT, [18], [17], map_size=(3, 3)),
            block(EdgeKind.PASS, [19], [17], map_size=(3, 3)),
            block(EdgeKind.STATISTIC, [19], [18], map_size=(3, 3)),
            block(EdgeKind.ATTENTION, [20, 21], [19, 19], 2, map_size=(3,)),
            block(EdgeKind.VALUE, [20, 21], [11, 12], 2, map_size=(3,)),
            block(
                EdgeKind.TRANSPOSED_CONV_WEIGHT,
                [22],
                [20, 21],
                target_offset=[18],
                source_offset=[0, 2],
                kernel_size=(2,),
                tap_stride=1,
                stride=(2,),
                padding=(0,),
                dilation=(1,),
                output_padding=(1,),
                map_size=(3,),
            ),
            block(EdgeKind.NORM_WEIGHT, [24], [22], target_offset=[22], map_size=(7,)),
            *(block(kind, [24], [23], target_offset=[23 + place]) for place, kind in enumerate(running)),
            block(
                EdgeKind.LINEAR_WEIGHT,
                [25],
                [24],
                target_offset=[26],
                source_site=[5],
                source_chain=[3],
                map_size=(3,),
            ),
        ),
        chains=((), (softmax,), (standardise,), (clamp,), (mean,)),
        grids=((), (3,)),
        regions=(Region(extents=(3, 3), positions=(1, 2, 5)), Region(extents=(7,), positions=(0, 3, 5))),
        tensors=tensors(
            position=(3, 2),
            query_weight=(2, 2),
            key_weight=(2, 2),
            value_weight=(2, 2),
            up_weight=(2, 1, 2),
            norm_weight=(1,),
            norm_bias=(1,),
            norm_mean=(1,),
            norm_variance=(1,),
            head_weight=(1, 1),
        ),
        outputs=np.array([25]),
        output_chain=np.array([4]),
    )


def embedded_words() -> GraphTemplate:
    """Three words of a vocabulary of five, each two features of its table, and their sum.

    Nodes: input 0, words 1 to 5, features 6 and 7, output 8. Values: the table, 10.
    """
    return GraphTemplate(
        node_sets=(
            NodeSet(kind=NodeKind.INPUT, count=1, name="input"),
            NodeSet(kind=NodeKind.TOKEN, count=5, name="words"),
            NodeSet(kind=NodeKind.NEURON, count=2, name="words"),
            NodeSet(kind=NodeKind.SUM, count=1, name=""),
        ),
        blocks=(
            block(EdgeKind.PASS, [1, 2, 3, 4, 5], [0], map_size=(3,)),
            block(
                EdgeKind.EMBEDDING,
                [6, 7],
                [1, 2, 3, 4, 5],
                target_offset=[0, 1],
                source_offset=[0, 2, 4, 6, 8],
                map_size=(3,),
            ),
            block(EdgeKind.PASS, [8], [6, 7], map_size=(3,)),
        ),
        chains=((),),
        grids=((),),
        tensors=tensors(words_weight=(5, 2)),
        outputs=np.array([8]),
        output_chain=np.array([0]),
    )


def selected() -> GraphTemplate:
    """Two channels of a 2x3 map, each at positions of its own, into a linear layer of two groups and one of all.

    Nodes: inputs 0 and 1, first layer 2 and 3, second layer 4. Sites 1 to 6 are the positions. Values: 4 and 6.
    """
    return GraphTemplate(
        node_sets=(
            NodeSet(kind=NodeKind.INPUT, count=2, name="input"),
            NodeSet(kind=NodeKind.NEURON, count=2, name="grouped"),
            NodeSet(kind=NodeKind.NEURON, count=1, name="all"),
        ),
        blocks=(
            block(
                EdgeKind.LINEAR_WEIGHT,
                [2, 3],
                [0, 0, 1, 1],
                2,
                target_offset=[0, 2],
                source_offset=[0, 1, 0, 1],
                source_site=[1, 3, 2, 6],
            ),
            block(
                EdgeKind.LINEAR_WEIGHT,
                [4],
                [0, 0, 1, 1, 2, 3],
                target_offset=[4],
                source_offset=[0, 1, 2, 3, 4, 5],
                source_site=[4, 5, 4, 6, 0, 0],
            ),
        ),
        chains=((),),
        grids=((), (2, 3)),
        tensors=tensors(grouped_weight=(2, 2), all_weight=(1, 6)),
        outputs=np.array([4]),
        output_chain=np.array([0]),
    )


HAND_BUILT = {
    "residual and layer norm": residual_layer_norm,
    "masked attention": masked_attention,
    "embedded words": embedded_words,
    "selected": selected,
}
