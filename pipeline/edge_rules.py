"""What holds in every block of a template: which nodes its edges join, what they read and write, what they carry.

Reads   the blocks of a `GraphTemplate` of any origin
Writes  nothing; everything here raises (`pipeline.template_rules` calls it, and holds the other rules)
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Bool, Int64

from pipeline.graph_kinds import MAX_RANK, EdgeKind, NodeKind
from pipeline.parameter_graph import Block, GraphTemplate

EDGES_AT_ONCE = 2**18

Kinds = tuple[NodeKind, ...]
ONES: Kinds = (NodeKind.BIAS, NodeKind.POSITION)
"""Nodes that are one: not computed, and without a map."""
COMPUTED: Kinds = (NodeKind.NEURON, NodeKind.SUM, NodeKind.PRODUCT, NodeKind.MAXIMUM, NodeKind.HEAD)
"""Channels that take anything that can be summed, multiplied or compared."""
RETURNED: Kinds = (*COMPUTED, NodeKind.NORMALISED)
"""Channels that a network may return."""
CHANNELS: Kinds = (NodeKind.INPUT, *RETURNED)
"""Channels that layers read."""
BIAS: Kinds = (NodeKind.BIAS,)
NEURON: Kinds = (NodeKind.NEURON,)
NORMALISED: Kinds = (NodeKind.NORMALISED,)
PRODUCT: Kinds = (NodeKind.PRODUCT,)

ENDS: dict[EdgeKind, tuple[Kinds, Kinds]] = {
    EdgeKind.LINEAR_WEIGHT: (CHANNELS, NEURON),
    EdgeKind.LINEAR_BIAS: (BIAS, NEURON),
    EdgeKind.CONV_WEIGHT: (CHANNELS, NEURON),
    EdgeKind.CONV_BIAS: (BIAS, NEURON),
    EdgeKind.TRANSPOSED_CONV_WEIGHT: (CHANNELS, NEURON),
    EdgeKind.SCALE: ((*CHANNELS, NodeKind.BIAS), COMPUTED),
    EdgeKind.OFFSET: (ONES, COMPUTED),
    EdgeKind.EMBEDDING: ((NodeKind.TOKEN,), COMPUTED),
    EdgeKind.NORM_WEIGHT: (CHANNELS, NORMALISED),
    EdgeKind.NORM_BIAS: (ONES, NORMALISED),
    EdgeKind.NORM_MEAN: (ONES, NORMALISED),
    EdgeKind.NORM_VARIANCE: (ONES, NORMALISED),
    EdgeKind.PASS: ((*CHANNELS, NodeKind.BIAS), (*COMPUTED, NodeKind.NORMALISED, NodeKind.TOKEN)),
    EdgeKind.QUERY: (CHANNELS, PRODUCT),
    EdgeKind.KEY: (CHANNELS, PRODUCT),
    EdgeKind.ATTENTION: (CHANNELS, PRODUCT),
    EdgeKind.VALUE: (CHANNELS, PRODUCT),
    EdgeKind.NORM_INPUT: (CHANNELS, (NodeKind.STATISTICS,)),
    EdgeKind.STATISTIC: ((NodeKind.STATISTICS,), NORMALISED),
}
"""Kinds of nodes, as their sets have them, that edges of each kind run from and to."""
SLIDING = {EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT}
"""Edges with a kernel. They may write other positions than they read."""
LAYER_BIASES = {EdgeKind.LINEAR_BIAS, EdgeKind.CONV_BIAS}
OVER_POSITIONS = {
    *SLIDING,
    *(EdgeKind.QUERY, EdgeKind.KEY, EdgeKind.ATTENTION, EdgeKind.VALUE),
    *(EdgeKind.NORM_INPUT, EdgeKind.STATISTIC),
}
"""Edges that bring a position what several others hold; what others read at one position they write at one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """What the rules need of every site of a template."""

    num_positions: Int64[np.ndarray, " num_sites"]
    """0 for site 0, which means all of them."""
    map_number: Int64[np.ndarray, " num_sites"]
    """The same for sites of maps of the same extents, from 1; 0 for site 0."""
    can_be_written: Bool[np.ndarray, " num_sites"]
    """Whether no position stands there twice."""

    @classmethod
    def of(cls, template: GraphTemplate) -> "Sites":
        regions = template.regions
        maps = [*template.grids, *(region.extents for region in regions)]
        number = {extents: place for place, extents in enumerate(dict.fromkeys(maps))}
        sizes = [*map(prod, template.grids), *[1] * len(regions)]
        counts = np.ones(template.first_region, dtype=np.int64)
        counts[0] = 0
        distinct = [len(set(region.positions)) == len(region.positions) for region in regions]
        return cls(
            num_positions=np.append(counts, [len(region.positions) for region in regions]).astype(np.int64),
            map_number=np.repeat([number[extents] for extents in maps], sizes).astype(np.int64),
            can_be_written=np.append(np.ones(template.first_region, dtype=bool), np.array(distinct, dtype=bool)),
        )


def check_block(block: Block, kinds: Int64[np.ndarray, " num_nodes"], sites: Sites) -> None:
    """The rules of one block; its sites are known to exist.

    Raises:
        ValueError: a rule is broken.
    """
    G = block.num_groups
    if len(block.targets) % G or len(block.sources) % G:
        raise ValueError(f"{len(block.targets)} targets and {len(block.sources)} sources do not make {G} groups")
    check_range("targets", block.targets, len(kinds))
    check_range("sources", block.sources, len(kinds))
    from_kinds, to_kinds = ENDS[block.kind]
    for what, nodes, allowed in (("source", block.sources, from_kinds), ("target", block.targets, to_kinds)):
        strange = ~np.isin(kinds[nodes], allowed)
        if strange.any():
            raise ValueError(
                f"{block.kind.name} with a {what} of kind {NodeKind(kinds[nodes[np.argmax(strange)]]).name}; its ends "
                f"are not of the kind that its edges join ({', '.join(kind.name for kind in allowed)})"
            )
    _check_geometry(block)
    _check_sites(block, kinds, sites)
    _check_constants(block, kinds)
    columns = (block.sources, block.source_site, block.source_chain, block.target_site, block.constant)
    sources = np.stack(columns).astype(np.float64).reshape(len(columns), G, -1)
    targets = block.targets.astype(np.float64).reshape(1, G, -1)
    if not _increasing(sources) or not _increasing(targets) or len(np.unique(block.targets)) != len(block.targets):
        raise ValueError("its targets or sources are not in order, or one stands twice")


def _check_geometry(block: Block) -> None:
    rank = len(block.map_size)
    windows = {len(block.kernel_size), len(block.stride), len(block.padding), len(block.dilation)}
    sliding, transposed = block.kind in SLIDING, block.kind == EdgeKind.TRANSPOSED_CONV_WEIGHT
    ranks = (1 if sliding else 0, 0 if block.kind in LAYER_BIASES else MAX_RANK)
    padded = zip(block.output_padding, block.stride, block.dilation, strict=False)  # lengths are compared below
    right = (
        ranks[0] <= rank <= ranks[1]
        and windows == ({rank} if sliding else {0})
        and len(block.output_padding) == (rank if transposed else 0)
        and all(more < max(stride, dilation) for more, stride, dilation in padded)
        and min((*block.kernel_size, *block.stride, *block.dilation, *block.map_size, 1)) >= 1
        and (block.tap_stride > 0) == sliding
    )
    if not right:
        raise ValueError(f"{block.kind.name} with the geometry {block.geometry[1:]}, tap_stride {block.tap_stride}")


def _check_sites(block: Block, kinds: Int64[np.ndarray, " num_nodes"], sites: Sites) -> None:
    """What is read and what is written fit each other, and the map."""
    read, written = sites.num_positions[block.source_site], sites.num_positions[block.target_site]
    if read[np.isin(kinds[block.sources], ONES)].any():
        raise ValueError("it reads a bias or a position node at a site; they have no map")
    if not sites.can_be_written[block.target_site].all():
        raise ValueError("it writes a position twice")
    needed = prod(block.map_size)
    if block.kind in (EdgeKind.LINEAR_WEIGHT, *SLIDING) and (odd := read[(read > 0) & (read != needed)]).any():
        raise ValueError(f"it reads {odd[0]} positions; its map has {needed}")
    unequal = (read > 0) & (written > 0) & (read != written)
    if block.kind not in OVER_POSITIONS and unequal.any():
        place = np.argmax(unequal)
        raise ValueError(f"it reads {read[place]} positions and writes {written[place]}; expected as many")


def _check_constants(block: Block, kinds: Int64[np.ndarray, " num_nodes"]) -> None:
    """A value or a constant, not both; minus infinity masks, from a bias node alone."""
    if block.kind.carries_value:
        if (block.constant != 1).any():
            raise ValueError(f"{block.kind.name} carries values and has constants")
        return
    if block.target_offset.any() or block.source_offset.any():
        raise ValueError(f"{block.kind.name} carries no values and has offsets")
    masks = np.isneginf(block.constant) & (kinds[block.sources] == NodeKind.BIAS) & (block.kind == EdgeKind.PASS)
    if not (np.isfinite(block.constant) | masks).all():
        raise ValueError("a constant is not finite; only a mask, a PASS edge from a bias node, may be minus infinity")


def check_writes(template: GraphTemplate, sites: Sites) -> None:
    """All edges that write single positions of a node write to one map.

    Raises:
        ValueError: a node would have two maps.
    """
    map_of_node = np.zeros(template.num_nodes, dtype=np.int64)
    for number, block in enumerate(template.blocks):
        maps = sites.map_number[block.target_site].reshape(block.num_groups, -1)
        largest = np.repeat(maps.max(axis=1), block.num_targets)
        before = map_of_node[block.targets]
        if ((maps > 0) & (maps != maps.max(axis=1, keepdims=True))).any() or (
            (before > 0) & (largest > 0) & (before != largest)
        ).any():
            raise ValueError(f"block {number} writes to positions of two different maps of one node")
        map_of_node[block.targets] = np.maximum(before, largest)


def check_values(template: GraphTemplate) -> None:
    """Every value is carried by an edge, and no edge carries anything else.

    Raises:
        ValueError: an edge carries what is no value, or a value is carried by no edge.
    """
    carried = np.zeros(template.num_values, dtype=bool)
    for number, block in enumerate(template.blocks):
        if not block.kind.carries_value:
            continue
        check_range(f"block {number}: target_offset", block.target_offset, template.num_values)
        check_range(f"block {number}: source_offset", block.source_offset, template.num_values)
        last = int(block.target_offset.max() + block.source_offset.max()) + (block.num_taps - 1) * block.tap_stride
        if last >= template.num_values:
            raise ValueError(f"block {number} carries value {last}; expected 0 to {template.num_values - 1}")
        _, O, I, _ = shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)
        for start in range(0, block.num_edges, EDGES_AT_ONCE):
            edges = np.arange(start, min(start + EDGES_AT_ONCE, block.num_edges))
            g, o, i, t = np.unravel_index(edges, shape)
            carried[block.target_offset[g * O + o] + block.source_offset[g * I + i] + t * block.tap_stride] = True
    if not carried.all():
        raise ValueError(f"value {int(np.argmin(carried))} is carried by no edge")


def check_range(label: str, numbers: Int64[np.ndarray, " n"], end: int) -> None:
    """Refuse numbers below 0 or from ``end`` on.

    Raises:
        ValueError: a number is out of range.
    """
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= end):
        raise ValueError(f"{label} reach from {numbers.min()} to {numbers.max()}; expected 0 to {end - 1}")


def _increasing(columns: np.ndarray) -> bool:
    """Whether the rows of every group (``[columns, groups, n]``) increase strictly, the first column counting most."""
    later = np.zeros(columns[0, :, 1:].shape, dtype=bool)
    equal = ~later
    for before, after in ((column[:, :-1], column[:, 1:]) for column in columns):
        later |= equal & (after > before)
        equal &= after == before
    return bool(later.all())
