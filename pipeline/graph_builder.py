"""A parameter graph under construction: what tracing adds nodes, edges, chains and positions to.

Reads   the state dict of the traced module    `parameter_layout`
Writes  a `GraphTemplate`                      `GraphBuilder.finish`
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from pipeline.parameter_graph import (
    MAX_RANK,
    Block,
    Chain,
    EdgeKind,
    GraphTemplate,
    IntegerTensor,
    NodeKind,
    NodeSet,
    Step,
    TensorSlot,
)

SITES_PER_GRID = 2**32
"""While tracing, a site is ``grid * SITES_PER_GRID + position``; a template numbers only the grids it uses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """What is known of a tensor while tracing: three int64 tensors of its full shape."""

    node: Tensor
    """Node each element belongs to."""
    site: Tensor
    """Position in its map, as grid * SITES_PER_GRID + row-major index; 0 where a node has one element."""
    chain: Tensor
    """Operations the element has passed since it left its node, as an index into ``GraphBuilder.chains``."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """A tensor read channel by channel: each channel is one node, passed through one chain."""

    node: Int64[np.ndarray, " num_channels"]
    site: Int64[np.ndarray, " num_channels"]
    """The one position that is read; 0 where the channel is a whole map."""
    chain: Int64[np.ndarray, " num_channels"]
    map_size: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A tensor that is neither computed from the input nor a floating-point tensor of the state dict."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One operation of the traced program."""

    operation: str
    """Its ATen name: ``aten.conv2d.default``."""
    module: str
    """Path of the module that calls it; ``""`` is the traced module itself."""
    arguments: dict[str, Any]
    """By the names of the ATen schema; tensors are `Carried`, `TensorSlot` or `Constant`."""
    shape: tuple[int, ...]
    """Of its result."""


class Unsupported(ValueError):
    """An operation or wiring that has no exact parameter graph."""

    def __init__(self, call: Call, reason: str, remedy: str) -> None:
        shapes = [
            f"{name} {tuple(value.node.shape) if isinstance(value, Carried) else value.shape}"
            for name, value in call.arguments.items()
            if isinstance(value, Carried | TensorSlot | Constant)
        ]
        super().__init__(
            f"{call.operation} in module {call.module or '(root)'!r} ({', '.join(shapes) or 'no tensors'} -> {call.shape}) {reason}; {remedy}"
        )


def parameter_layout(module: nn.Module) -> tuple[dict[str, TensorSlot], tuple[IntegerTensor, ...]]:
    """Where each floating-point tensor of the state dict lies in ``values``, by every name it has; and the integer tensors.

    Raises:
        ValueError: a tensor is neither float32 nor integer.
    """
    slots: dict[str, TensorSlot] = {}
    integers: list[IntegerTensor] = []
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    offset = 0
    for key, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.float32:
            slot = TensorSlot(names=tuple(names[key]), shape=tuple(tensor.shape), offset=offset)
            slots |= dict.fromkeys(names[key], slot)
            offset += slot.size
        elif not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
            numbers = tuple(int(number) for number in tensor.flatten().tolist())
            integers += [
                IntegerTensor(name=name, dtype=dtype, shape=tuple(tensor.shape), numbers=numbers) for name in names[key]
            ]
        else:
            raise ValueError(
                f"{names[key][0]}: found dtype {dtype}; values are float32, so cast the module first: module.float()"
            )
    return slots, tuple(integers)


@dataclass
class GraphBuilder:
    """Collects nodes and blocks; interns chains and grids."""

    slots: dict[str, TensorSlot]
    integers: tuple[IntegerTensor, ...]
    node_sets: list[NodeSet] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=lambda: [()])
    grids: list[tuple[int, ...]] = field(default_factory=lambda: [()])

    def add_nodes(self, kind: NodeKind, count: int, name: str) -> Int64[np.ndarray, " count"]:
        """Numbers of ``count`` new nodes."""
        start = sum(nodes.count for nodes in self.node_sets)
        self.node_sets.append(NodeSet(kind=kind, count=count, name=name))
        return np.arange(start, start + count, dtype=np.int64)

    def add_block(
        self, call: Call, read: Channels, source_offset: Int64[np.ndarray, " num_channels"], **others: Any
    ) -> None:
        """Add edges that read these channels, each ``source_offset`` further in ``values``; ``others`` are fields of `Block`.

        Raises:
            Unsupported: one element is read twice by the same target, so that two values could not be told apart.
        """
        order = np.lexsort((read.chain, read.site, read.node))
        keys = np.stack([read.node, read.site, read.chain])[:, order]
        if len(order) > 1 and (keys[:, 1:] == keys[:, :-1]).all(axis=0).any():
            raise Unsupported(
                call,
                "reads one element twice",
                "a parameter graph needs distinct inputs: do not repeat elements before it",
            )
        self.blocks.append(
            Block(
                num_groups=1,
                sources=read.node[order],
                source_site=read.site[order],
                source_chain=read.chain[order],
                source_offset=source_offset[order],
                **others,
            )
        )

    def add_bias(self, call: Call, kind: EdgeKind, targets: Int64[np.ndarray, " O"], bias: TensorSlot) -> None:
        """One bias node, with an edge to every target."""
        [node] = self.add_nodes(NodeKind.BIAS, 1, call.module)
        zero = np.zeros(1, dtype=np.int64)
        read = Channels(node=zero + node, site=zero, chain=zero, map_size=())
        target_offset = bias.offset + np.arange(len(targets), dtype=np.int64)
        self.add_block(call, read, kind=kind, targets=targets, target_offset=target_offset, source_offset=zero)

    def fresh(self, nodes: Int64[np.ndarray, " C"], shape: tuple[int, ...], axis: int) -> Carried:
        """A tensor ``[1, ..., C, ...]`` with one node per channel on ``axis``, nothing passed yet."""
        column = [1] * len(shape)
        column[axis] = -1
        extents = tuple(size for place, size in enumerate(shape) if place not in (0, axis))
        site_shape = [1 if place in (0, axis) else size for place, size in enumerate(shape)]
        return Carried(
            node=torch.from_numpy(nodes).reshape(column).expand(shape),
            site=torch.from_numpy(self.sites(extents)).reshape(site_shape).expand(shape),
            chain=torch.zeros(shape, dtype=torch.int64),
        )

    def sites(self, extents: tuple[int, ...]) -> Int64[np.ndarray, " num_positions"]:
        """The site of every position of a map; a map of one position has site 0."""
        if prod(extents) == 1:
            return np.zeros(1, dtype=np.int64)
        if len(extents) > MAX_RANK:
            raise ValueError(
                f"a map has extents {extents}; at most {MAX_RANK} axes beside batch and channels are understood"
            )
        if extents not in self.grids:
            self.grids.append(extents)
        return self.grids.index(extents) * SITES_PER_GRID + np.arange(prod(extents), dtype=np.int64)

    def passed(self, carried: Carried, step: Step) -> Carried:
        """The same elements after one more operation without parameters."""
        before, place = torch.unique(carried.chain, return_inverse=True)
        after = torch.tensor([self._intern((*self.chains[chain], step)) for chain in before.tolist()])
        return Carried(node=carried.node, site=carried.site, chain=after[place])

    def finish(self, result: Channels) -> GraphTemplate:
        """The template whose outputs are these channels.

        Raises:
            ValueError: an output is no node of its own, a parameter never acts, or a node is computed and never read.
        """
        kinds = np.repeat([int(nodes.kind) for nodes in self.node_sets], [nodes.count for nodes in self.node_sets])
        if len(np.unique(result.node)) != len(result.node) or (kinds[result.node] != NodeKind.NEURON).any():
            raise ValueError(
                "the module returns an input, or one feature twice; every output must be a feature computed by a layer of its own"
            )
        self._check_all_act(result, kinds)
        chain_order, chain_of = _renumber([0], *(block.source_chain for block in self.blocks), result.chain)
        sites = np.concatenate([block.source_site for block in self.blocks])
        grid_order, grid_of = _renumber([0], sites // SITES_PER_GRID)
        grids = tuple(self.grids[grid] for grid in grid_order)
        first_site = np.cumsum([0, *map(prod, grids)])
        blocks = [
            replace(
                block,
                source_chain=chain_of[block.source_chain],
                source_site=first_site[grid_of[block.source_site // SITES_PER_GRID]]
                + block.source_site % SITES_PER_GRID,
            )
            for block in self.blocks
        ]
        return GraphTemplate(
            node_sets=tuple(self.node_sets),
            blocks=tuple(blocks),
            chains=tuple(self.chains[chain] for chain in chain_order),
            grids=grids,
            tensors=tuple(dict.fromkeys(self.slots.values())),
            integers=self.integers,
            outputs=result.node,
            output_chain=chain_of[result.chain],
        )

    def _intern(self, chain: Chain) -> int:
        if chain not in self.chains:
            self.chains.append(chain)
        return self.chains.index(chain)

    def _check_all_act(self, result: Channels, kinds: np.ndarray) -> None:
        carried = np.zeros(sum(slot.size for slot in dict.fromkeys(self.slots.values())), dtype=bool)
        read = kinds != NodeKind.NEURON
        read[result.node] = True
        for block in self.blocks:
            carried[block.value_index.reshape(-1)] = True
            read[block.sources] = True
        for name, slot in self.slots.items():
            if not carried[slot.offset : slot.offset + slot.size].all():
                raise ValueError(
                    f"{name} {slot.shape} never acts on the result (or only in part); remove it from the module"
                )
        if not read.all():
            place = int(np.argmin(read))
            ends = np.cumsum([nodes.count for nodes in self.node_sets])
            name = self.node_sets[int(np.searchsorted(ends, place, side="right"))].name
            raise ValueError(
                f"module {name!r} computes a feature that nothing reads, so its weights never act; remove it from the module"
            )


def channels_of(call: Call, builder: GraphBuilder, carried: Carried, axis: int) -> Channels:
    """Read a tensor ``[1, ..., C, ...]`` as C channels on ``axis``, each one node over a whole map in its usual order.

    Raises:
        Unsupported: a channel mixes nodes or chains, or its positions are not a whole map in row-major order.
    """
    shape = tuple(carried.node.shape)
    if axis and shape[0] != 1:
        raise Unsupported(
            call,
            "has no batch axis of one example in front",
            "keep the batch axis first and do not merge it with others",
        )
    extents = tuple(size for place, size in enumerate(shape) if place not in (0, axis))
    node, site, chain = (
        part.movedim(axis, 0).reshape(shape[axis], -1).numpy() for part in (carried.node, carried.site, carried.chain)
    )
    if (node != node[:, :1]).any():
        raise Unsupported(
            call,
            f"reads several nodes as one channel of axis {axis}",
            "mixing positions or channels before it needs a joint node, which has no rule yet",
        )
    if (chain != chain[:, :1]).any():
        raise Unsupported(
            call,
            "reads a channel whose positions have passed different operations",
            "apply the same operations to a whole map",
        )
    single = site.shape[1] == 1
    if not single and (site != builder.sites(extents)).any():
        raise Unsupported(
            call,
            "reads a map whose positions were cropped or reordered",
            "select or permute positions only right before a flatten",
        )
    return Channels(
        node=node[:, 0].copy(),
        site=site[:, 0] if single else np.zeros(shape[axis], dtype=np.int64),
        chain=chain[:, 0].copy(),
        map_size=extents,
    )


def _renumber(*numbers: Sequence[int] | np.ndarray) -> tuple[list[int], np.ndarray]:
    """The distinct numbers in order of first appearance, and a table from old to new number."""
    order = list(dict.fromkeys(int(number) for part in numbers for number in part))
    table = np.full(max(order) + 1, -1, dtype=np.int64)
    table[order] = np.arange(len(order))
    return order, table
