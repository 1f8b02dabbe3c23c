"""The parameter graph of a network: the types everything downstream of tracing works with.

A *template* is the graph of an architecture without values; a *parameter graph* is a template with the values of one
checkpoint. A template is kept as a short table of blocks, in the memory order of the weights, and expanded to edges on
demand.

Reads   nothing: `pipeline.tracing` makes templates, `pipeline.template_document` writes and reads their text
Writes  nothing

The graph follows Lim et al., ICLR 2024 (arXiv:2312.04501): nodes are neurons or channels, every scalar weight is an
edge, one bias node per layer. Deviations: no layer index and no order on hidden nodes (relabelling them is relabelling
neurons); geometry, the operations between layers and the position a flattened neuron is read at are features of edges,
because the function depends on them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from pipeline.value_layout import IntegerTensor, TensorSlot, state_dict_from, values_from

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from pipeline.graph_edges import Edges

MAX_RANK = 3
"""Most axes of a kernel or a map (depth, height, width); coordinates are right-aligned in this many columns."""


class NodeKind(IntEnum):
    INPUT = 0
    """A channel of the input."""
    NEURON = 1
    """A channel or feature computed inside the network."""
    OUTPUT = 2
    """A channel or feature the network returns."""
    BIAS = 3
    """The constant one that a layer's biases are edges from; one per layer."""


class EdgeKind(IntEnum):
    LINEAR_WEIGHT = 0
    LINEAR_BIAS = 1
    CONV_WEIGHT = 2
    CONV_BIAS = 3


class Operation(IntEnum):
    """Operations without parameters; 0 is kept free for padding."""

    RELU = 1
    TANH = 2
    SIGMOID = 3
    GELU = 4
    SILU = 5
    LEAKY_RELU = 6
    ELU = 7
    SIN = 8
    MAX_POOL = 9
    AVERAGE_POOL = 10
    GLOBAL_AVERAGE_POOL = 11
    ADAPTIVE_AVERAGE_POOL = 12
    SOFTMAX = 13
    LOG_SOFTMAX = 14
    SCALE = 15
    SHIFT = 16


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation without parameters, with the numbers that decide what it computes."""

    operation: Operation
    settings: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Names and numbers, sorted by name: ``(("kernel_size", (2.0, 2.0)), ...)``, one number per axis of the map where
    axes matter; `pipeline.template_rules` lists the names of each operation."""


Chain = tuple[Step, ...]
"""Operations in the order they act, between the node that is read and the edge that reads it."""


@dataclass(frozen=True, kw_only=True)
class NodeSet:
    """Nodes made by one operation, numbered one after another."""

    kind: NodeKind
    count: int
    name: str
    """Path of the module that made them (``features.0``); for people, never a feature."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Edges of one tensor and one operation: every target of a group reads every source of it through every tap.

    With G groups, O targets and I sources a group, and T taps, edge ``(g, o, i, t)`` runs from ``sources[g*I + i]`` to
    ``targets[g*O + o]`` and carries ``values[target_offset[g*O + o] + source_offset[g*I + i] + t * tap_stride]``. Edges
    are ordered by g, o, i, t; targets are sorted within a group, and sources by node, then site, then chain.
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
    """Which position of the source is read (see ``GraphTemplate.grids``); 0 where it has one, or all are read alike."""
    source_chain: Int64[np.ndarray, " all_sources"]
    """Index into ``GraphTemplate.chains``: what happens to the source before it is read."""
    kernel_size: tuple[int, ...] = ()
    """Taps per axis, at most three axes; ``()`` is a single tap without coordinates."""
    tap_stride: int = 0
    """Distance in ``values`` between neighbouring taps (row-major over ``kernel_size``)."""
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
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
        return (int(self.kind), self.kernel_size, self.stride, self.padding, self.dilation, self.map_size)

    @cached_property
    def value_index(self) -> Int64[np.ndarray, "G O I T"]:
        """Position in ``values`` of every edge of the block."""
        target = self.target_offset.reshape(self.num_groups, -1, 1, 1)
        source = self.source_offset.reshape(self.num_groups, 1, -1, 1)
        return target + source + np.arange(self.num_taps, dtype=np.int64) * self.tap_stride


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphTemplate:
    """The parameter graph of one architecture, without values.

    Law A: every float of ``values`` is carried by exactly one edge unless it is shared. Law B: the automorphisms of the
    template are the neuron permutations that preserve the function for all values. Both are tested exhaustively on tiny
    networks.
    """

    node_sets: tuple[NodeSet, ...]
    """Nodes are numbered through all sets in order; the inputs come first, in the order of the input's channels."""
    blocks: tuple[Block, ...]
    """In the order the operations ran, so that sources come before targets."""
    chains: tuple[Chain, ...]
    """Interned; chain 0 is empty."""
    grids: tuple[tuple[int, ...], ...]
    """Extents of the maps that single positions are read from. Sites number all positions of all grids in row-major
    order, one grid after another; grid 0 is ``()``, whose one site 0 means "no position"."""
    tensors: tuple[TensorSlot, ...]
    integers: tuple[IntegerTensor, ...] = ()
    outputs: Int64[np.ndarray, " num_outputs"]
    """Node of each output, in the order the network returns them."""
    output_chain: Int64[np.ndarray, " num_outputs"]
    """What happens between that node and the output."""

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

    @property
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
        """Position among the network's inputs or outputs, from 0; -1 for hidden nodes, whose order means nothing."""
        rank = np.full(self.num_nodes, -1, dtype=np.int64)
        inputs = np.flatnonzero(self.node_kind == NodeKind.INPUT)
        rank[inputs] = np.arange(len(inputs))
        rank[self.outputs] = np.arange(len(self.outputs))
        return rank

    @cached_property
    def node_chain(self) -> Int64[np.ndarray, " num_nodes"]:
        """The chain that ends at an output node; 0, the empty chain, for all others."""
        chain = np.zeros(self.num_nodes, dtype=np.int64)
        chain[self.outputs] = self.output_chain
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
    def site_position(self) -> Int64[np.ndarray, "num_sites 3"]:
        """Coordinates of every site in its grid, right-aligned; -1 in the columns its grid does not have."""
        return np.concatenate([coordinates(extents) for extents in self.grids])

    @cached_property
    def site_extents(self) -> Int64[np.ndarray, "num_sites 3"]:
        """Extents of every site's grid, right-aligned; 1 in the columns its grid does not have."""
        rows = [np.tile(right_align(extents, 1), (prod(extents), 1)) for extents in self.grids]
        return np.concatenate(rows).astype(np.int64)

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
            ValueError: the number or the dtype of the values is not the template's.
        """
        if isinstance(values, nn.Module):
            values = self.values_of(values)
        if values.shape != (self.num_values,) or values.dtype != np.float32:
            raise ValueError(
                f"values have shape {values.shape}, {values.dtype}; this template has {self.num_values} values, float32"
            )
        return ParameterGraph(template=self, values=values)


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


def right_align(numbers: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """The numbers in the last of ``MAX_RANK`` columns, ``fill`` before them."""
    return (fill,) * (MAX_RANK - len(numbers)) + tuple(numbers)


def coordinates(extents: tuple[int, ...]) -> Int64[np.ndarray, "num_positions 3"]:
    """Coordinates of every position of a grid in row-major order, right-aligned; -1 where the grid has no axis."""
    table = np.full((prod(extents), MAX_RANK), -1, dtype=np.int64)
    if extents:
        table[:, MAX_RANK - len(extents) :] = np.indices(extents).reshape(len(extents), -1).T
    return table


def relative(position: Int64[np.ndarray, "n 3"], extents: Int64[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Coordinates from -1 (first) to 1 (last) of their axis; 0 on axes of one position and where there is no axis."""
    scaled = 2 * position / np.maximum(extents - 1, 1) - 1
    return np.where(extents > 1, scaled, 0).astype(np.float32)
