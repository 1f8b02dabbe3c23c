"""Sums of sums, products of products and maxima of maxima, each made one: ``(a + b) + c`` is ``a + (b + c)``.

Reads   a `GraphBuilder` and what the network returns
Writes  its blocks: those into inner nodes end at the outer ones that alone read them
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.graph_builder import GraphBuilder
from pipeline.graph_kinds import Chain, EdgeKind, NodeKind, Operation
from pipeline.parameter_graph import SOURCE_COLUMNS, Block

ASSOCIATIVE = (NodeKind.SUM, NodeKind.PRODUCT, NodeKind.MAXIMUM)


def merge_nested(builder: GraphBuilder, returned: np.ndarray) -> None:
    """Let every set of sums, products or maxima be computed by the nodes of the same kind that alone read it, if each
    is read by one of them, whole and as it is, or sums times a number; nothing reads the set afterwards.

    What other nodes read too stays: in residual networks every sum would have the branches of all before it.
    """
    starts = np.cumsum([0, *(nodes.count for nodes in builder.node_sets)])
    set_of = builder.set_of_node
    for inner in range(len(builder.node_sets)):
        place = _only_reader(builder, set_of, inner)
        if place is None or (set_of[returned] == inner).any():
            continue
        reader = builder.blocks[place]
        mine = set_of[reader.sources] == inner
        outer = np.empty(builder.node_sets[inner].count, dtype=np.int64)
        outer[reader.sources[mine] - starts[inner]] = reader.targets
        steps = builder.chains[reader.source_chain[mine][0]]
        into = [block for block in builder.blocks if set_of[block.targets[0]] == inner]
        moved = [_moved(builder, block, outer[block.targets - starts[inner]], steps) for block in into]
        before = [block for block in builder.blocks[:place] if set_of[block.targets[0]] != inner]
        rest = [] if mine.all() else [_without(reader, mine)]
        builder.blocks[:] = [*before, *moved, *rest, *builder.blocks[place + 1 :]]


def _only_reader(builder: GraphBuilder, set_of: Int64[np.ndarray, " num_nodes"], inner: int) -> int | None:
    """The place of the only block that reads a set of nodes, if its targets may compute them themselves."""
    nodes = builder.node_sets[inner]
    places = [place for place, block in enumerate(builder.blocks) if (set_of[block.sources] == inner).any()]
    if nodes.kind not in ASSOCIATIVE or nodes.chain or len(places) != 1:
        return None
    reader = builder.blocks[places[0]]
    mine = set_of[reader.sources] == inner
    alike = builder.node_sets[set_of[reader.targets[0]]].kind == nodes.kind
    maps = {block.map_size for block in builder.blocks if set_of[block.targets[0]] == inner}
    if not (alike and maps == {reader.map_size} and mine.sum() == nodes.count and _read_one_by_one(reader, mine)):
        return None
    steps = [step.operation for step in builder.chains[reader.source_chain[mine][0]]]
    distributes = nodes.kind == NodeKind.SUM and steps == [Operation.SCALE]
    return places[0] if distributes or not steps else None


def join_constants(builder: GraphBuilder) -> None:
    """Let constants that are added to the same nodes, in several steps, come from one bias node: two would be
    exchangeable where the constants are alike."""
    set_of = builder.set_of_node
    kinds = np.array([nodes.kind for nodes in builder.node_sets])[set_of]
    first: dict[int, np.ndarray] = {}
    for place, block in enumerate(builder.blocks):
        if block.kind == EdgeKind.PASS and (kinds[block.sources] == NodeKind.BIAS).all():
            bias = first.setdefault(int(set_of[block.targets[0]]), block.sources[:1])
            builder.blocks[place] = replace(block, sources=np.broadcast_to(bias, block.sources.shape))


def _read_one_by_one(reader: Block, mine: Bool[np.ndarray, " all_sources"]) -> bool:
    """Whether every target of a block reads one of these sources: whole, and all through one chain."""
    whole = (reader.source_site == 0) & (reader.target_site == 0) & (reader.constant == 1)
    alike = (reader.source_chain[mine] == reader.source_chain[mine][0]).all()
    once = len(np.unique(reader.sources[mine])) == mine.sum()
    each = reader.num_targets == 1 and (mine.reshape(reader.num_groups, -1).sum(axis=1) == 1).all()
    return bool(reader.kind == EdgeKind.PASS and whole[mine].all() and alike and once and each)


def _moved(builder: GraphBuilder, block: Block, targets: np.ndarray, steps: Chain) -> Block:
    """A block that ends at other targets, with further steps in its chains."""
    chains = block.source_chain.copy()
    for step in steps:
        distinct, place = np.unique(chains, return_inverse=True)
        chains = np.array([builder.followed(chain, step) for chain in distinct.tolist()])[place]
    return replace(block, targets=targets, source_chain=chains)


def _without(block: Block, gone: Bool[np.ndarray, " all_sources"]) -> Block:
    """A block without some of its sources, as many in each group."""
    return replace(block, **{name: getattr(block, name)[~gone] for name in SOURCE_COLUMNS})
