"""A parameter graph under construction: what the rules of tracing add nodes, edges, chains and positions to.

Reads   node identities, as the rules of `pipeline.trace_operations` hand them over
Writes  a `GraphTemplate`: `GraphBuilder.finish`
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.parameter_graph import (
    MAX_RANK,
    Block,
    Chain,
    EdgeKind,
    GraphTemplate,
    NodeKind,
    NodeSet,
    Operation,
    Step,
)
from pipeline.traced_tensor import (
    NEXT_EXAMPLE,
    NUM_EXAMPLES,
    SITES_PER_GRID,
    Call,
    Carried,
    Channels,
    UnsupportedError,
)
from pipeline.value_layout import IntegerTensor, TensorSlot


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a layer slides over a map; as in `Block`."""

    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


@dataclass
class GraphBuilder:
    """Collects nodes and blocks; interns layers, chains and grids."""

    tensors: tuple[TensorSlot, ...]
    integers: tuple[IntegerTensor, ...]
    node_sets: list[NodeSet] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    layers: dict[Hashable, Int64[np.ndarray, " O"]] = field(default_factory=dict)
    """Targets of every layer by all that decides what they compute: a layer applied twice to one thing is one layer."""
    chains: list[Chain] = field(default_factory=lambda: [()])
    grids: list[tuple[int, ...]] = field(default_factory=lambda: [()])

    def add_nodes(self, kind: NodeKind, count: int, name: str) -> Int64[np.ndarray, " count"]:
        """Numbers of ``count`` new nodes."""
        start = sum(nodes.count for nodes in self.node_sets)
        self.node_sets.append(NodeSet(kind=kind, count=count, name=name))
        return np.arange(start, start + count, dtype=np.int64)

    def add_layer(
        self,
        call: Call,
        read: Channels,
        kinds: tuple[EdgeKind, EdgeKind],
        weight: TensorSlot,
        bias: TensorSlot | None,
        geometry: Geometry,
    ) -> Int64[np.ndarray, " O"]:
        """New nodes that all read these channels through a weight ``[O, I, *kernel_size]``, and a node for the bias.

        Args:
            kinds: of the weight's edges and of the bias's.

        Raises:
            UnsupportedError: one element is read twice, so that two values could not be told apart.
        """
        O, I, taps = weight.shape[0], weight.shape[1], prod(geometry.kernel_size)
        order = np.lexsort((read.chain, read.site, read.node))
        keys = np.stack([read.node, read.site, read.chain])[:, order]
        if (keys[:, 1:] == keys[:, :-1]).all(axis=0).any():
            raise UnsupportedError(
                call,
                "reads one element twice",
                "a parameter graph needs distinct inputs: do not repeat elements before it",
            )
        layer = (kinds, weight, bias, geometry, read.map_size, order.tobytes(), keys.tobytes())
        if layer in self.layers:
            return self.layers[layer]
        self.layers[layer] = targets = self.add_nodes(NodeKind.NEURON, O, call.module)
        self.blocks.append(
            Block(
                kind=kinds[0],
                num_groups=1,
                targets=targets,
                target_offset=weight.offset + I * taps * np.arange(O),
                sources=keys[0],
                source_site=keys[1],
                source_chain=keys[2],
                source_offset=taps * order,
                kernel_size=geometry.kernel_size,
                tap_stride=1 if geometry.kernel_size else 0,
                stride=geometry.stride,
                padding=geometry.padding,
                dilation=geometry.dilation,
                map_size=read.map_size,
            )
        )
        if bias is not None:
            self._add_bias(call, kinds[1], targets, bias)
        return targets

    def _add_bias(self, call: Call, kind: EdgeKind, targets: Int64[np.ndarray, " O"], bias: TensorSlot) -> None:
        """One bias node, with an edge to every target."""
        zero = np.zeros(1, dtype=np.int64)
        self.blocks.append(
            Block(
                kind=kind,
                num_groups=1,
                targets=targets,
                target_offset=bias.offset + np.arange(len(targets)),
                sources=self.add_nodes(NodeKind.BIAS, 1, call.module),
                source_site=zero,
                source_chain=zero,
                source_offset=zero,
            )
        )

    def fresh(self, nodes: Int64[np.ndarray, " C"], shape: tuple[int, ...], axis: int) -> Carried:
        """A tensor ``[batch, ..., C, ...]`` with one node per channel on ``axis``, nothing passed yet."""

        def along(place: int) -> tuple[int, ...]:
            return tuple(-1 if here == place else 1 for here in range(len(shape)))

        examples = torch.from_numpy(np.arange(NUM_EXAMPLES) * NEXT_EXAMPLE).reshape(along(0))
        extents = tuple(size for place, size in enumerate(shape) if place not in (0, axis))
        site_shape = [1 if place in (0, axis) else size for place, size in enumerate(shape)]
        return Carried(
            node=(torch.from_numpy(nodes).reshape(along(axis)) + examples).expand(shape),
            site=torch.from_numpy(self.sites(extents)).reshape(site_shape).expand(shape),
            chain=torch.from_numpy(np.zeros((), dtype=np.int64)).expand(shape),
        )

    def sites(self, extents: tuple[int, ...]) -> Int64[np.ndarray, " num_positions"]:
        """The site of every position of a map; a map of one position has site 0."""
        if prod(extents) == 1:
            return np.zeros(1, dtype=np.int64)
        if len(extents) > MAX_RANK:
            raise ValueError(
                f"a map has extents {extents}; at most {MAX_RANK} axes beside batch and channels are possible"
            )
        if extents not in self.grids:
            self.grids.append(extents)
        return self.grids.index(extents) * SITES_PER_GRID + np.arange(prod(extents), dtype=np.int64)

    def passed(self, carried: Carried, step: Step) -> Carried:
        """The same elements after one more operation without parameters."""
        before, place = torch.unique(carried.chain, return_inverse=True)
        after = np.array([self._intern((*self.chains[chain], step)) for chain in before.tolist()])
        return Carried(node=carried.node, site=carried.site, chain=torch.from_numpy(after)[place])

    def _intern(self, chain: Chain) -> int:
        if chain not in self.chains:
            self.chains.append(chain)
        return self.chains.index(chain)

    def read(self, call: Call, carried: Carried, axis: int) -> Channels:
        """A tensor ``[batch, ..., C, ...]`` as C channels on ``axis``, each one node over a whole map in its own order.

        Raises:
            UnsupportedError: the batch is mixed up, a channel mixes nodes or chains, or its positions are not a whole
                map in row-major order.
        """
        node, site, chain = _one_example(call, carried, axis)
        extents = tuple(size for place, size in enumerate(carried.node.shape) if place not in (0, axis))
        single = site.shape[1] == 1
        if (node != node[:, :1]).any():
            raise UnsupportedError(
                call,
                f"reads several nodes as one channel of axis {axis}",
                "mixing positions or channels before it needs a joint node, which has no rule yet",
            )
        if (chain != chain[:, :1]).any():
            raise UnsupportedError(
                call,
                "reads a channel whose positions have passed different operations",
                "apply the same operations to a whole map",
            )
        if not single and (site != self.sites(extents)).any():
            raise UnsupportedError(
                call,
                "reads a map whose positions were cropped or reordered",
                "select or permute positions only right before a flatten",
            )
        return Channels(
            node=node[:, 0].copy(),
            site=site[:, 0].copy() if single else np.zeros(len(site), dtype=np.int64),
            chain=chain[:, 0].copy(),
            map_size=extents,
        )

    def finish(self, result: Channels) -> GraphTemplate:
        """The template whose outputs are these channels.

        Raises:
            ValueError: an output is no node of its own or one position of a map, a parameter never acts, a feature is
                never read, or a softmax couples nodes inside the network.
        """
        self._check_outputs(result)
        self._check_all_act(result)
        self._check_coupled(result)
        chain_order, chain_of = _renumber([0], *(block.source_chain for block in self.blocks), result.chain)
        sites = np.concatenate([block.source_site for block in self.blocks])
        grid_order, grid_of = _renumber([0], sites // SITES_PER_GRID)
        grids = tuple(self.grids[grid] for grid in grid_order)
        first_site = np.cumsum([0, *map(prod, grids)])

        def final_site(site: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
            return first_site[grid_of[site // SITES_PER_GRID]] + site % SITES_PER_GRID

        return GraphTemplate(
            node_sets=tuple(self.node_sets),
            blocks=tuple(
                replace(block, source_chain=chain_of[block.source_chain], source_site=final_site(block.source_site))
                for block in self.blocks
            ),
            chains=tuple(self.chains[chain] for chain in chain_order),
            grids=grids,
            tensors=self.tensors,
            integers=self.integers,
            outputs=result.node,
            output_chain=chain_of[result.chain],
        )

    def _check_outputs(self, result: Channels) -> None:
        """Every output is a feature of its own."""
        kinds = [self.node_sets[number].kind for number in self._node_set()[result.node]]
        if len(np.unique(result.node)) != len(result.node) or set(kinds) != {NodeKind.NEURON}:
            raise ValueError(
                "the module returns an input, or one feature twice; "
                "every output must be a feature of its own, computed by a layer"
            )
        if result.site.any():
            raise ValueError(
                "the module returns single positions of a map, which no output can say; return the whole map"
            )

    def _check_all_act(self, result: Channels) -> None:
        """Every value is carried by an edge and every feature is read."""
        node_set = self._node_set()
        carried = np.zeros(sum(slot.size for slot in self.tensors), dtype=bool)
        read = np.array([nodes.kind != NodeKind.NEURON for nodes in self.node_sets])[node_set]
        read[result.node] = True
        for block in self.blocks:
            carried[block.value_index.reshape(-1)] = True
            read[block.sources] = True
        for slot in self.tensors:
            if not carried[slot.place].all():
                raise ValueError(f"{slot.names[0]} {slot.shape} never acts on the result; remove it from the module")
        if not read.all():
            name = self.node_sets[node_set[np.argmin(read)]].name
            raise ValueError(
                f"module {name!r} computes a feature that nothing reads, so its weights never act; "
                "remove it from the module"
            )

    def _check_coupled(self, result: Channels) -> None:
        """A softmax couples the nodes of a layer; where all of them are outputs with one chain, no edge need say so."""
        softmax = {Operation.SOFTMAX, Operation.LOG_SOFTMAX}
        coupled = np.array([any(step.operation in softmax for step in chain) for chain in self.chains])
        node_set = self._node_set()
        chain_at = np.full(len(node_set), -1, dtype=np.int64)
        chain_at[result.node] = result.chain
        inside = [block.sources[coupled[block.source_chain]] for block in self.blocks]
        partial = [
            [node]
            for node, chain in zip(result.node, result.chain, strict=True)
            if coupled[chain] and (chain_at[node_set == node_set[node]] != chain).any()
        ]
        nodes = np.concatenate(inside + partial)
        if len(nodes):
            name = self.node_sets[node_set[int(nodes[0])]].name
            raise ValueError(
                f"a softmax over the features of module {name!r} acts inside the network, where it couples nodes that "
                "no edge joins; only one over all features of the last layer has a rule yet, so leave it to the outputs"
            )

    def _node_set(self) -> Int64[np.ndarray, " num_nodes"]:
        """The number of the set of every node."""
        return np.repeat(np.arange(len(self.node_sets)), [nodes.count for nodes in self.node_sets])


def _one_example(call: Call, carried: Carried, axis: int) -> list[Int64[np.ndarray, "C positions"]]:
    """Node, site and chain of the first example, channel by channel; the second must be the same in its own nodes."""
    shape = tuple(carried.node.shape)
    if 0 in shape:
        raise UnsupportedError(call, "reads a tensor without elements", "a layer needs at least one input")
    if len(shape) > 1 and axis != 0 and shape[0] == NUM_EXAMPLES:
        parts = (carried.node, carried.site, carried.chain)
        pairs = [part.movedim(axis, 1).reshape(NUM_EXAMPLES, shape[axis], -1).numpy() for part in parts]
        if all(
            np.array_equal(pair[0] + shift, pair[1]) for pair, shift in zip(pairs, (NEXT_EXAMPLE, 0, 0), strict=True)
        ):
            return [pair[0] for pair in pairs]
    raise UnsupportedError(
        call,
        "does not find the examples of the batch one by one on the first axis",
        "keep the batch axis first and the examples apart (tracing uses a batch of two)",
    )


def _renumber(*numbers: Sequence[int] | np.ndarray) -> tuple[list[int], Int64[np.ndarray, " n"]]:
    """The distinct numbers in order of first appearance, and a table from old to new number."""
    order = list(dict.fromkeys(int(number) for part in numbers for number in part))
    table = np.full(max(order) + 1, -1, dtype=np.int64)
    table[order] = np.arange(len(order))
    return order, table
