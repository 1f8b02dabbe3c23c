"""From a graph under construction to a template: outputs named, everything unused refused, everything numbered.

Reads   a `GraphBuilder` and what the network returns
Writes  a `GraphTemplate`
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.channel_reading import Channels, channel_axes, joint_nodes, read
from pipeline.graph_builder import FIRST_REGION, GraphBuilder
from pipeline.graph_kinds import NodeKind
from pipeline.nested_nodes import join_constants, merge_nested
from pipeline.parameter_graph import SOURCE_COLUMNS, Block, GraphTemplate
from pipeline.traced_tensor import SHARED, SITES_PER_GRID, Call, Carried

MOST_ROUNDS = 20
"""Numbers decide the order of sources, and that order the numbers: two rounds are enough but for rare ties."""


def finish(builder: GraphBuilder, call: Call, result: Carried, input_axes: tuple[int, ...]) -> GraphTemplate:
    """The template of a network that returns a tensor, given for one example.

    Raises:
        ValueError: the result does not depend on the input, a parameter never acts, or a feature is never read.
    """
    if not bool(((result.node >= 0) & (result.node < SHARED)).any()):
        raise ValueError("the module returns something that does not depend on its input")
    if not result.shape or result.shape[0] != 1:
        raise ValueError(
            f"the module does not return [batch, ...]: one example gives {result.shape}; keep the batch axis first"
        )
    axes = channel_axes([result], result.node.ndim)
    if not axes and result.shape[1:2] == (1,):
        axes = (1,)  # a single output
    outputs = _outputs(builder, call, result, axes)
    merge_nested(builder, outputs.node)
    join_constants(builder)
    outputs = _without_unread(builder, outputs)
    _check_all_act(builder, outputs)
    return replace(_numbered(builder, outputs), input_axes=input_axes, output_axes=axes)


def _outputs(builder: GraphBuilder, call: Call, result: Carried, axes: tuple[int, ...]) -> Channels:
    """Every output as a node of its own, whole; joint nodes where the network returns anything else."""
    channels = read(builder, call, result, axes)
    kinds = np.array([int(builder.node_sets[number].kind) for number in builder.set_of_node])[channels.node]
    chains = np.array([nodes.chain for nodes in builder.node_sets])[builder.set_of_node[channels.node]]
    once = len(np.unique(channels.node)) == channels.count
    fixed = np.isin(kinds, [NodeKind.INPUT, NodeKind.BIAS, NodeKind.POSITION, NodeKind.TOKEN])
    if once and not channels.site.any() and not fixed.any() and not (chains * channels.chain).any():
        return channels
    nodes = joint_nodes(builder, call, channels.entries(), channels.count, channels.map_size)
    nothing = np.zeros(channels.count, dtype=np.int64)
    return Channels(node=nodes, site=nothing, chain=nothing, map_size=channels.map_size, shared=False)


def _without_unread(builder: GraphBuilder, outputs: Channels) -> Channels:
    """Drop the nodes that no output depends on: what the network computes and multiplies by zero, or throws away."""
    kinds = np.array([nodes.kind for nodes in builder.node_sets])
    kept = np.isin(kinds, [NodeKind.INPUT, NodeKind.TOKEN])[builder.set_of_node]
    kept[outputs.node] = True
    count = 0
    while count < kept.sum():
        count = kept.sum()
        for block in reversed(builder.blocks):  # most blocks into a node precede those that read it
            groups = kept[block.targets].reshape(block.num_groups, -1).any(axis=1)
            kept[block.sources.reshape(block.num_groups, -1)[groups]] = True
            if block.num_groups > 1:
                kept[block.targets.reshape(block.num_groups, -1)[groups]] = True  # groups have as many targets each
    if kept.all():
        return outputs
    place = np.cumsum(kept) - 1
    starts = np.cumsum([0, *(nodes.count for nodes in builder.node_sets)])
    counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[starts])
    builder.blocks[:] = [_among(block, kept, place) for block in builder.blocks if kept[block.targets].any()]
    builder.node_sets[:] = [
        replace(nodes, count=count) for nodes, count in zip(builder.node_sets, counts.tolist(), strict=True) if count
    ]
    return replace(outputs, node=place[outputs.node])


def _among(block: Block, kept: Bool[np.ndarray, " before"], place: Int64[np.ndarray, " before"]) -> Block:
    """A block whose targets are those that are kept, of several groups whole groups, and all nodes at new places."""
    targets = kept[block.targets]
    groups = targets.reshape(block.num_groups, -1).any(axis=1)
    sources = np.repeat(groups, block.num_sources)
    columns = {name: getattr(block, name)[sources] for name in SOURCE_COLUMNS}
    return replace(
        block,
        **columns | {"sources": place[columns["sources"]]},
        num_groups=int(groups.sum()),
        targets=place[block.targets[targets]],
        target_offset=block.target_offset[targets],
    )


def _check_all_act(builder: GraphBuilder, outputs: Channels) -> None:
    """Every value is carried by an edge, and every node is read."""
    node_set = builder.set_of_node
    carried = np.zeros(sum(slot.size for slot in builder.tensors), dtype=bool)
    read = np.zeros(len(node_set), dtype=bool)
    read[outputs.node] = True
    for block in reversed(builder.blocks):
        if block.kind.carries_value:
            taps = np.arange(block.num_taps) * block.tap_stride
            sources = block.source_offset.reshape(block.num_groups, -1, 1) + taps
            for targets in block.target_offset.reshape(block.num_groups, -1).T:  # all at once take 8 bytes a value
                carried[targets[:, None, None] + sources] = True
        read[block.sources] = True
    for slot in builder.tensors:
        acts = carried[slot.place]
        if not acts.all():
            some = f"{(~acts).sum()} of the {slot.size} values of " if acts.any() else ""
            raise ValueError(
                f"{some}{slot.names[0]} {slot.shape} never act on the result; "
                + ("make it smaller" if some else "remove it from the module")
            )
    fixed = np.array([nodes.kind in (NodeKind.INPUT, NodeKind.TOKEN) for nodes in builder.node_sets])[node_set]
    if not (read | fixed).all():
        name = builder.node_sets[node_set[np.argmin(read | fixed)]].name
        raise ValueError(
            f"module {name!r} computes a feature that nothing reads, so its weights never act; "
            "remove it from the module"
        )


def _numbered(builder: GraphBuilder, outputs: Channels) -> GraphTemplate:
    """Chains, grids and regions in the order of their first use, and sources in the order of these numbers."""
    blocks = builder.blocks
    for _ in range(MOST_ROUNDS):
        chain_order, chain_of = _renumber(
            [0], [nodes.chain for nodes in builder.node_sets], *(b.source_chain for b in blocks), outputs.chain
        )
        codes = [column for block in blocks for column in (block.source_site, block.target_site)]
        grid_order, _ = _renumber([0], *(code[code < FIRST_REGION] // SITES_PER_GRID for code in codes))
        region_order, _ = _renumber(*(code[code >= FIRST_REGION] - FIRST_REGION for code in codes))
        site_of = _site_table(builder, grid_order, region_order)
        final = [
            replace(
                block,
                source_chain=chain_of[block.source_chain],
                source_site=_looked_up(site_of, block.source_site),
                target_site=_looked_up(site_of, block.target_site),
            )
            for block in blocks
        ]
        orders = [_source_order(block) for block in final]
        if all((order == np.arange(len(order))).all() for order in orders):
            break
        blocks = [_in_order(block, order) for block, order in zip(blocks, orders, strict=True)]
    else:
        raise ValueError("the sources of its edges have no order that fits their numbers; please report the module")
    return GraphTemplate(
        node_sets=tuple(replace(nodes, chain=int(chain_of[nodes.chain])) for nodes in builder.node_sets),
        blocks=tuple(final),
        chains=tuple(builder.chains[chain] for chain in chain_order),
        grids=tuple(builder.grids[grid] for grid in grid_order),
        regions=tuple(builder.regions[region] for region in region_order),
        tensors=builder.tensors,
        integers=builder.integers,
        outputs=outputs.node,
        output_chain=chain_of[outputs.chain],
    )


def _site_table(builder: GraphBuilder, grids: list[int], regions: list[int]) -> dict[int, int]:
    """For every grid and region that is used, by its code while tracing, the number of its first site."""
    first = 0
    table: dict[int, int] = {}
    for grid in grids:
        table[grid * SITES_PER_GRID] = first
        first += prod(builder.grids[grid])
    for place, region in enumerate(regions):
        table[FIRST_REGION + region] = first + place
    return table


def _looked_up(table: dict[int, int], codes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Final sites for codes."""
    distinct, place = np.unique(codes, return_inverse=True)
    sites = [
        table[code] if code >= FIRST_REGION else table[code - code % SITES_PER_GRID] + code % SITES_PER_GRID
        for code in distinct.tolist()
    ]
    return np.array(sites, dtype=np.int64)[place.reshape(-1)]


def _source_order(block: Block) -> Int64[np.ndarray, " all_sources"]:
    group = np.repeat(np.arange(block.num_groups), block.num_sources)
    keys = (block.constant, block.target_site, block.source_chain, block.source_site, block.sources, group)
    return np.lexsort(keys)


def _in_order(block: Block, order: Int64[np.ndarray, " all_sources"]) -> Block:
    return replace(block, **{name: getattr(block, name)[order] for name in SOURCE_COLUMNS})


def _renumber(*numbers: Sequence[int] | np.ndarray) -> tuple[list[int], Int64[np.ndarray, " n"]]:
    """The distinct numbers in order of first appearance, and a table from old to new number."""
    order = list(dict.fromkeys(int(number) for part in numbers for number in part))
    table = np.full(max(order, default=0) + 1, -1, dtype=np.int64)
    table[order] = np.arange(len(order))
    return order, table
