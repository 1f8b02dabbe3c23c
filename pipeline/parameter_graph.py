"""The parameter graph of a network: the types everything downstream of tracing works with.

A *template* is the graph of an architecture without values; a *parameter graph* is a template with the values of one
checkpoint. A template is kept as a short table of blocks, in the memory order of the weights, and expanded to edges on
demand.

Reads   nothing: `pipeline.tracing` makes templates, `pipeline.template_document` writes and reads their text
Writes  nothing

The graph follows Lim et al., ICLR 2024 (arXiv:2312.04501): nodes are neurons or channels, every scalar weight is an
edge, one bias node per layer. Deviations: no layer index and no order on hidden nodes (relabelling them is relabelling
neurons); geometry, the operations between layers and the positions that are read are features of edges, because the
function depends on them; sums, products, norms and attention have nodes of their own, joined by edges without a value.
What every kind of node computes from what its edges bring is written down, executably, in `pipeline.graph_function`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int64
from torch import Tensor, nn

from pipeline.graph_kinds import MAX_RANK, Chain, EdgeKind, NodeKind
from pipeline.value_layout import IntegerTensor, TensorSlot, state_dict_from, values_from

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from pipeline.graph_edges import Edges


@dataclass(frozen=True, kw_only=True)
class NodeSet:
    """Nodes made by one operation, numbered one after another."""

    kind: NodeKind
    count: int
    name: str
    """Path of the module that made them (``features.0``); for people, never a feature."""
    chain: int = 0
    """Index into ``GraphTemplate.chains``: how statistics are taken, or channels normalised; else 0, the empty one."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Positions of a map, in an order, that are read or written together; position ``k`` read goes to ``k`` written."""

    extents: tuple[int, ...]
    """Of the map."""
    positions: tuple[int, ...]
    """Row-major; one may stand several times where it is read, and once where it is written."""


SOURCE_COLUMNS = ("sources", "source_offset", "source_site", "source_chain", "target_site", "constant")
"""What a block says of every source."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Edges of one tensor and one operation: every target of a group reads every source of it through every tap.

    With G groups, O targets and I sources a group, and T taps, edge ``(g, o, i, t)`` runs from ``sources[g*I + i]`` to
    ``targets[g*O + o]`` and carries ``values[target_offset[g*O + o] + source_offset[g*I + i] + t * tap_stride]``, or no
    value, as its kind says. Edges are ordered by g, o, i, t; targets are sorted within a group, and sources by node,
    then site, chain, target site and constant. A node may be a source of several groups, and a target of one.
    """

    kind: EdgeKind
    num_groups: int
    targets: Int64[np.ndarray, " all_targets"]
    target_offset: Int64[np.ndarray, " all_targets"]
    """Contribution of the target to the position in ``values``; contains the tensor's own offset."""
    sources: Int64[np.ndarray, " all_sources"]
    source_offset: Int64[np.ndarray, " all_sources"]
    """Contribution of the source to the position in ``values``."""
    source_site: Int64[np.ndarray, " all_sources"]
    """Which positions of the source are read (see ``GraphTemplate.grids``); 0 where all are, each for its own."""
    source_chain: Int64[np.ndarray, " all_sources"]
    """Index into ``GraphTemplate.chains``: what happens to the source before it is read."""
    target_site: Int64[np.ndarray, " all_sources"]
    """Which positions of the target get what is read; 0 where all do. Others get nothing from this edge."""
    constant: Float64[np.ndarray, " all_sources"]
    """Factor of what edges without a value bring, mostly 1; 1 for all others."""
    kernel_size: tuple[int, ...] = ()
    """Taps per axis, at most three axes; ``()`` is a single tap without coordinates."""
    tap_stride: int = 0
    """Distance in ``values`` between neighbouring taps (row-major over ``kernel_size``)."""
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    """Of a transposed convolution."""
    map_size: tuple[int, ...] = ()
    """Extent of the map the operation slides over or is applied to position by position; ``()`` where there is no
    map."""

    @property
    def num_taps(self) -> int:
        return prod(self.kernel_size)

    @property
    def num_targets(self) -> int:
        """Targets per group."""
        return len(self.targets) // self.num_groups

    @property
    def num_sources(self) -> int:
        """Sources per group."""
        return len(self.sources) // self.num_groups

    @property
    def num_edges(self) -> int:
        return self.num_groups * self.num_targets * self.num_sources * self.num_taps

    @property
    def geometry(self) -> tuple[int | tuple[int, ...], ...]:
        """All that distinguishes two blocks beyond their nodes and values."""
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding, self.map_size)
        return (int(self.kind), *sizes)

    @cached_property
    def value_index(self) -> Int64[np.ndarray, "G O I T"]:
        """Position in ``values`` of every edge of the block; -1 for edges without a value."""
        shape = (self.num_groups, self.num_targets, self.num_sources, self.num_taps)
        if not self.kind.carries_value:
            return np.full(shape, -1, dtype=np.int64)
        target = self.target_offset.reshape(self.num_groups, -1, 1, 1)
        source = self.source_offset.reshape(self.num_groups, 1, -1, 1)
        return target + source + np.arange(self.num_taps, dtype=np.int64) * self.tap_stride


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphTemplate:
    """The parameter graph of one architecture, without values.

    Law A: every float of ``values`` is carried by an edge, by exactly one unless it is shared. Law B: the automorphisms
    of the template are the neuron permutations that preserve the function for all values. Both are tested exhaustively
    on tiny networks.
    """

    node_sets: tuple[NodeSet, ...]
    """Nodes are numbered through all sets in order; the inputs come first, in the order of the input's channels."""
    blocks: tuple[Block, ...]
    """In the order the operations ran, so that sources come before targets."""
    chains: tuple[Chain, ...]
    """Interned; chain 0 is empty."""
    grids: tuple[tuple[int, ...], ...]
    """Extents of the maps that single positions are read from or written to. Sites number all positions of all grids
    in row-major order, one grid after another; grid 0 is ``()``, whose one site 0 means "all positions"."""
    regions: tuple[Region, ...] = ()
    """Sites after those of the grids: one for every region."""
    tensors: tuple[TensorSlot, ...]
    integers: tuple[IntegerTensor, ...] = ()
    outputs: Int64[np.ndarray, " num_outputs"]
    """Node of each output, in the order the network returns them."""
    output_chain: Int64[np.ndarray, " num_outputs"]
    """What happens between that node and the output."""
    input_axes: tuple[int, ...] = (1,)
    """Axes of the network's input, which has the batch on axis 0, that number its channels; others are its map. None
    for whole numbers that are looked up."""
    output_axes: tuple[int, ...] = (1,)
    """Axes of the network's output that number the outputs; others are their map."""

    def __repr__(self) -> str:
        """Sizes alone: the blocks of a wide network fill screens."""
        counts = f"{self.num_nodes:,} nodes, {self.num_edges:,} edges, {self.num_values:,} values"
        return f"GraphTemplate({counts}, digest {self.digest[:12]})"

    @property
    def num_nodes(self) -> int:
        return sum(nodes.count for nodes in self.node_sets)

    @property
    def num_edges(self) -> int:
        return sum(block.num_edges for block in self.blocks)

    @cached_property
    def num_values(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of the template's document: the same for the same graph, whatever made it."""
        from pipeline.template_document import write_document

        return hashlib.sha256(write_document(self).encode()).hexdigest()

    @cached_property
    def node_kind(self) -> Int64[np.ndarray, " num_nodes"]:
        kinds = np.repeat([int(nodes.kind) for nodes in self.node_sets], [nodes.count for nodes in self.node_sets])
        kinds = kinds.astype(np.int64)
        kinds[self.outputs] = NodeKind.OUTPUT
        return kinds

    @cached_property
    def node_rank(self) -> Int64[np.ndarray, " num_nodes"]:
        """Position among the network's inputs or outputs, or in a table of positions or tokens, from 0; -1 for hidden
        nodes, whose order means nothing."""
        ranked = (NodeKind.INPUT, NodeKind.POSITION, NodeKind.TOKEN)
        sets = [
            np.arange(nodes.count) if nodes.kind in ranked else np.full(nodes.count, -1) for nodes in self.node_sets
        ]
        rank = np.concatenate(sets).astype(np.int64)
        rank[self.outputs] = np.arange(len(self.outputs))
        return rank

    @cached_property
    def node_chain(self) -> Int64[np.ndarray, " num_nodes"]:
        """What a node does with what its edges bring: the chain of its set, or the one that ends at an output node."""
        chains, counts = [nodes.chain for nodes in self.node_sets], [nodes.count for nodes in self.node_sets]
        chain = np.repeat(np.array(chains, dtype=np.int64), counts)
        chain[self.outputs] = np.where(self.output_chain > 0, self.output_chain, chain[self.outputs])
        return chain

    @cached_property
    def depth_from_input(self) -> Int64[np.ndarray, " num_nodes"]:
        """Edges on the longest path that ends at the node; 0 for inputs and bias nodes."""
        depth = np.zeros(self.num_nodes, dtype=np.int64)
        for block in self.blocks:
            sources = depth[block.sources].reshape(block.num_groups, -1).max(axis=1) + 1
            np.maximum.at(depth, block.targets, np.repeat(sources, block.num_targets))
        return depth

    @cached_property
    def depth_to_output(self) -> Int64[np.ndarray, " num_nodes"]:
        """Edges on the longest path that starts at the node; 0 for outputs that nothing reads."""
        depth = np.zeros(self.num_nodes, dtype=np.int64)
        for block in reversed(self.blocks):
            targets = depth[block.targets].reshape(block.num_groups, -1).max(axis=1) + 1
            np.maximum.at(depth, block.sources, np.repeat(targets, block.num_sources))
        return depth

    @cached_property
    def first_region(self) -> int:
        """The site of region 0; those before it are single positions, or 0."""
        return sum(map(prod, self.grids))

    def region(self, site: int) -> Region | None:
        """The positions of a site; none for site 0, which means all of them."""
        if site == 0:
            return None
        if site >= self.first_region:
            return self.regions[site - self.first_region]
        for extents in self.grids:
            if site < prod(extents):
                return Region(extents=extents, positions=(site,))
            site -= prod(extents)
        raise AssertionError("grids have a site for every number below first_region")

    @cached_property
    def site_features(self) -> Float32[np.ndarray, "num_sites 7"]:
        """What a metanetwork sees of a site: the mean of its positions relative to its map (3), the mean distance from
        one position to the next (3), and log(1 + the number of positions); zeros for site 0."""
        rows = [np.zeros((1, 2 * MAX_RANK + 1), dtype=np.float32)]
        for extents in self.grids[1:]:
            single = np.zeros((prod(extents), 2 * MAX_RANK + 1), dtype=np.float32)
            single[:, :MAX_RANK], single[:, -1] = relative_coordinates(extents), np.log(2)
            rows.append(single)
        for region in self.regions:
            places = relative_coordinates(region.extents)[np.array(region.positions)]
            steps = np.abs(np.diff(places, axis=0)).mean(axis=0) if len(places) > 1 else np.zeros(MAX_RANK)
            rows.append(np.concatenate([places.mean(axis=0), steps, [np.log1p(len(places))]])[None])
        return np.concatenate(rows).astype(np.float32)

    @cached_property
    def edges(self) -> "Edges":
        """Every edge of every block. Large: ``num_edges`` entries a column."""
        from pipeline.graph_edges import expand

        return expand(self)

    def values_of(self, module: nn.Module) -> Float32[np.ndarray, " num_values"]:
        """The values of a module of this architecture, as float32.

        Raises:
            ValueError: a tensor is missing, unknown, of another shape or of another dtype.
        """
        return self.values_from(module.state_dict())

    def values_from(self, state_dict: Mapping[str, Tensor]) -> Float32[np.ndarray, " num_values"]:
        """The values of a state dict of this architecture, as float32.

        Raises:
            ValueError: a tensor is missing, unknown, of another shape or dtype, or tied names differ in numbers.
        """
        return values_from(state_dict, self.tensors, self.integers)

    def graph(self, values: "Float32[np.ndarray, ' num_values'] | nn.Module") -> "ParameterGraph":
        """The parameter graph of these values, or of a module of this architecture.

        Raises:
            ValueError: it is neither, or the number or the dtype of the values is not the template's.
        """
        if isinstance(values, nn.Module):
            values = self.values_of(values)
        if not isinstance(values, np.ndarray):
            raise ValueError(
                f"found {type(values).__name__}; expected a module or a numpy array of {self.num_values} values "
                "(of a state dict: template.values_from(state_dict))"
            )
        if values.shape != (self.num_values,) or values.dtype != np.float32:
            raise ValueError(
                f"values have shape {values.shape}, {values.dtype}; this template has {self.num_values} values, float32"
            )
        return ParameterGraph(template=self, values=values)

    def draw(self, path: Path | str) -> None:
        """A picture, by the suffix of its name: .svg, .png or .pdf."""
        from pipeline.draw_graph import draw

        draw(self, Path(path))


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterGraph:
    """One network as data: a template and its values."""

    template: GraphTemplate
    values: Float32[np.ndarray, " num_values"]

    def state_dict(self) -> dict[str, Tensor]:
        """The state dict the values came from, bit for bit; counters are as the template recorded them."""
        return state_dict_from(self.values, self.template.tensors, self.template.integers)

    def to_pyg(self) -> "Data":
        """Data that any model of ``torch_geometric.nn`` reads; its columns are listed in `pipeline.pyg_graph`."""
        from pipeline.pyg_graph import to_pyg

        return to_pyg(self)

    def draw(self, path: Path | str) -> None:
        """A picture, by the suffix of its name; in a small network every edge has the colour of its value."""
        from pipeline.draw_graph import draw

        draw(self.template, Path(path), self.values)


def right_align(numbers: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """The numbers in the last of ``MAX_RANK`` columns, ``fill`` before them."""
    return (fill,) * (MAX_RANK - len(numbers)) + tuple(numbers)


def coordinates(extents: tuple[int, ...]) -> Int64[np.ndarray, "num_positions 3"]:
    """Coordinates of every position of a grid in row-major order, right-aligned; -1 where the grid has no axis."""
    table = np.full((prod(extents), MAX_RANK), -1, dtype=np.int64)
    if extents:
        table[:, MAX_RANK - len(extents) :] = np.indices(extents).reshape(len(extents), -1).T
    return table


def relative_coordinates(extents: tuple[int, ...]) -> Float32[np.ndarray, "num_positions 3"]:
    """Coordinates of every position of a grid, from -1 (first) to 1 (last); 0 on axes of one position or none."""
    sizes = np.array(right_align(extents, 1))
    scaled = 2 * coordinates(extents) / np.maximum(sizes - 1, 1) - 1
    return np.where(sizes > 1, scaled, 0).astype(np.float32)
