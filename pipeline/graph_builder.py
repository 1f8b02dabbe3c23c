"""A parameter graph under construction: what the rules of tracing add nodes, edges, chains and positions to.

Reads   node identities, as the rules of tracing hand them over
Writes  a `GraphTemplate`: `pipeline.graph_finish`
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import isfinite, prod

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pipeline.graph_kinds import MAX_RANK, Chain, EdgeKind, NodeKind, Operation, Step, scale
from pipeline.parameter_graph import Block, NodeSet, Region
from pipeline.traced_tensor import SHARED, SITES_PER_GRID, Carried, without_copies
from pipeline.value_layout import IntegerTensor, TensorSlot

FIRST_REGION = 2**60
"""While tracing, a region is this plus its number; single positions are below."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a layer slides over a map; as in `Block`."""

    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """What single edges bring to single targets, one row an edge."""

    target: Int64[np.ndarray, " n"]
    """Place of the target among those of the operation, from 0."""
    node: Int64[np.ndarray, " n"]
    site: Int64[np.ndarray, " n"]
    chain: Int64[np.ndarray, " n"]
    target_site: Int64[np.ndarray, " n"]
    constant: Float64[np.ndarray, " n"]
    value: Int64[np.ndarray, " n"]
    """Position in ``values``; -1 for edges without a value."""

    @staticmethod
    def of(
        target: np.ndarray,
        node: np.ndarray | int,
        site: np.ndarray | int = 0,
        chain: np.ndarray | int = 0,
        target_site: np.ndarray | int = 0,
        constant: np.ndarray | float = 1.0,
        value: np.ndarray | int = -1,
    ) -> "Entries":
        """Columns, or one number for all rows."""
        n = len(target)
        whole = {"node": node, "site": site, "chain": chain, "target_site": target_site, "value": value}
        columns = {name: np.broadcast_to(np.asarray(column, dtype=np.int64), n) for name, column in whole.items()}
        return Entries(target=target, constant=np.broadcast_to(np.asarray(constant, dtype=np.float64), n), **columns)

    @staticmethod
    def joined(parts: "list[Entries]") -> "Entries":
        """The rows of all."""
        return Entries(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Entries.__dataclass_fields__}
        )

    def chosen(self, rows: np.ndarray) -> "Entries":
        """Some rows, by mask or index."""
        return Entries(**{name: getattr(self, name)[rows] for name in Entries.__dataclass_fields__})

    @property
    def key(self) -> Hashable:
        """Equal for equal entries."""
        return tuple(getattr(self, name).tobytes() for name in Entries.__dataclass_fields__)


@dataclass
class GraphBuilder:
    """Collects nodes and blocks; interns operations, chains, grids and regions."""

    tensors: tuple[TensorSlot, ...]
    integers: tuple[IntegerTensor, ...]
    node_sets: list[NodeSet] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    made: dict[Hashable, Int64[np.ndarray, " n"]] = field(default_factory=dict)
    """Nodes by all that decides what they compute: one operation applied twice to one thing is applied once."""
    chains: list[Chain] = field(default_factory=lambda: [()])
    grids: list[tuple[int, ...]] = field(default_factory=lambda: [()])
    regions: list[Region] = field(default_factory=list)
    region_numbers: dict[Region, int] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Int64[np.ndarray, " n"]]) -> Int64[np.ndarray, " n"]:
        """The nodes of an operation, made if this very operation has made none yet."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def add_nodes(self, kind: NodeKind, count: int, name: str, chain: int = 0) -> Int64[np.ndarray, " count"]:
        """Numbers of ``count`` new nodes."""
        start = sum(nodes.count for nodes in self.node_sets)
        self.node_sets.append(NodeSet(kind=kind, count=count, name=name, chain=chain))
        return np.arange(start, start + count, dtype=np.int64)

    @property
    def set_of_node(self) -> Int64[np.ndarray, " num_nodes"]:
        """The number of the set of every node."""
        return np.repeat(np.arange(len(self.node_sets)), [nodes.count for nodes in self.node_sets])

    def add_block(
        self,
        kind: EdgeKind,
        targets: Int64[np.ndarray, " all_targets"],
        entries: Entries,
        num_groups: int = 1,
        target_offset: Int64[np.ndarray, " all_targets"] | None = None,
        geometry: Geometry = Geometry(),
        tap_stride: int = 0,
        map_size: tuple[int, ...] = (),
    ) -> None:
        """Edges from the sources of every group, the rows of ``entries`` in the order of groups, to its targets."""
        nothing = np.zeros(len(targets), dtype=np.int64)
        self.blocks.append(
            Block(
                kind=kind,
                num_groups=num_groups,
                targets=targets,
                target_offset=nothing if target_offset is None else target_offset.astype(np.int64),
                sources=entries.node,
                source_offset=np.maximum(entries.value, 0),
                source_site=entries.site,
                source_chain=entries.chain,
                target_site=entries.target_site,
                constant=entries.constant,
                kernel_size=geometry.kernel_size,
                tap_stride=tap_stride,
                stride=geometry.stride,
                padding=geometry.padding,
                dilation=geometry.dilation,
                output_padding=geometry.output_padding,
                map_size=map_size,
            )
        )

    def add_pointwise(
        self, kind: EdgeKind, targets: Int64[np.ndarray, " C"], entries: Entries, map_size: tuple[int, ...]
    ) -> None:
        """Edges of single targets: one block for all targets with equally many, each a group of its own."""
        order = np.lexsort((entries.target_site, entries.chain, entries.site, entries.node, entries.target))
        entries = entries.chosen(order)
        counts = np.bincount(entries.target, minlength=len(targets))
        for count in sorted(set(counts.tolist()) - {0}):
            mine = entries.chosen(counts[entries.target] == count)
            groups = np.unique(mine.target)
            least = mine.value.reshape(-1, count).min(axis=1) if kind.carries_value else None
            if least is not None:
                mine = Entries.of(
                    mine.target,
                    mine.node,
                    mine.site,
                    mine.chain,
                    mine.target_site,
                    mine.constant,
                    mine.value - np.repeat(least, count),
                )
            self.add_block(kind, targets[groups], mine, len(groups), target_offset=least, map_size=map_size)

    def fresh(
        self,
        nodes: Int64[np.ndarray, " C"],
        shape: tuple[int, ...],
        channel_axes: tuple[int, ...],
        shared: bool = False,
    ) -> Carried:
        """A tensor with one node per channel, the channels on some axes and a map on the others, nothing passed yet."""
        extents = map_extents(shape, channel_axes)
        channels = [size if axis in channel_axes else 1 for axis, size in enumerate(shape)]
        positions = [1 if axis in channel_axes else size for axis, size in enumerate(shape)]
        marked = torch.from_numpy(nodes + (SHARED if shared else 0))
        return Carried(
            node=marked.reshape(channels).expand(shape),
            site=torch.from_numpy(self.sites(extents)).reshape(positions).expand(shape),
            chain=torch.zeros((), dtype=torch.int64).expand(shape),
        )

    def sites(self, extents: tuple[int, ...]) -> Int64[np.ndarray, " num_positions"]:
        """The site of every position of a map; a map of one position has site 0."""
        if prod(extents) == 1:
            return np.zeros(1, dtype=np.int64)
        return self.grid(extents) * SITES_PER_GRID + np.arange(prod(extents), dtype=np.int64)

    def grid(self, extents: tuple[int, ...]) -> int:
        """The number of a grid."""
        extents = compact(extents)
        if extents not in self.grids:
            self.grids.append(extents)
        return self.grids.index(extents)

    def place(self, extents: tuple[int, ...], positions: Int64[np.ndarray, " n"]) -> int:
        """The site of some positions of a map: 0 for all of them in order."""
        if len(positions) == prod(extents) and (positions == np.arange(len(positions))).all():
            return 0
        if len(positions) == 1:
            return self.grid(extents) * SITES_PER_GRID + int(positions[0])
        region = Region(extents=compact(extents), positions=tuple(positions.tolist()))
        if region not in self.region_numbers:
            self.region_numbers[region] = len(self.regions)
            self.regions.append(region)
        return FIRST_REGION + self.region_numbers[region]

    def place_of_sites(self, sites: Int64[np.ndarray, " n"]) -> int:
        """The site of elements of one node, given the position of each: 0 for a whole map, or what has none."""
        if not sites.any():
            return 0
        extents = self.grids[int(sites.max() // SITES_PER_GRID)]
        return self.place(extents, sites % SITES_PER_GRID)

    def passed(self, carried: Carried, step: Step) -> Carried:
        """The same elements after one more operation without parameters."""
        before, place = torch.unique(without_copies(carried.chain), return_inverse=True)
        after = np.array([self.followed(chain, step) for chain in before.tolist()])
        chain = torch.from_numpy(after)[place].expand(carried.shape)
        return Carried(node=carried.node, site=carried.site, chain=chain)

    def followed(self, chain: int, step: Step) -> int:
        """The number of a chain with one more step; two factors in a row are their product, or none if it is 1."""
        steps = self.chains[chain]
        if steps and steps[-1].operation == step.operation == Operation.SCALE:
            factor = _number(steps[-1]) * _number(step)
            if factor != 0 and isfinite(factor):
                return self.intern((*steps[:-1], scale(factor)) if factor != 1 else steps[:-1])
        return self.intern((*steps, step))

    def intern(self, chain: Chain) -> int:
        """The number of a chain."""
        if chain not in self.chains:
            self.chains.append(chain)
        return self.chains.index(chain)


def _number(step: Step) -> float:
    """The number of a step that has one."""
    [(_, (number,))] = step.settings
    return number


def map_extents(shape: tuple[int, ...], channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The map of every channel of a tensor of one example: its other axes, without a batch axis in front, as `compact`
    has them."""
    return compact(tuple(shape[axis] for axis in map_axes(shape, channel_axes)))


def map_axes(shape: tuple[int, ...], channel_axes: tuple[int, ...]) -> list[int]:
    """The axes of a tensor of one example that number positions."""
    return [axis for axis in range(len(shape)) if axis not in channel_axes and (axis > 0 or shape[0] > 1)]


def compact(extents: tuple[int, ...]) -> tuple[int, ...]:
    """A map's extents in at most ``MAX_RANK`` axes: without those of one position, or all as one axis, if need be."""
    if len(extents) > MAX_RANK:
        extents = tuple(size for size in extents if size > 1)
    return extents if len(extents) <= MAX_RANK else (prod(extents),)
