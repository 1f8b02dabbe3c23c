"""Tensors as channels: which axes number nodes and which number positions, and what each channel consists of.

Reads   `Carried` tensors of one example
Writes  `Channels`, and joint nodes where a channel is made of pieces

Whatever views, permutations and concatenations a tensor has been through, its elements know their node and position.
A channel whose elements are one node in one state is *read* directly: whole, at one position, or at some. Any other
(tokens joined to a class token, pixel-shuffled channels, features unflattened to a map, padding) becomes a joint node:
the sum of its pieces, each put where it belongs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.graph_builder import Entries, GraphBuilder, map_extents
from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.traced_tensor import SHARED, ZERO, Call, Carried, UnsupportedError, without_copies


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """A tensor read channel by channel: each channel is one node, passed through one chain, read at one site."""

    node: Int64[np.ndarray, " C"]
    site: Int64[np.ndarray, " C"]
    chain: Int64[np.ndarray, " C"]
    map_size: tuple[int, ...]
    """Extents of what is read."""
    shared: bool
    """Whether it is computed from parameters alone."""

    @property
    def count(self) -> int:
        return len(self.node)

    def entries(self) -> Entries:
        """One edge from every channel to the target of the same place."""
        return Entries.of(np.arange(self.count), self.node, self.site, self.chain)


def channel_axes(tensors: Sequence[Carried], ndim: int) -> tuple[int, ...]:
    """The axes along which nodes differ, of tensors that are broadcast against each other.

    Along an axis of channels no two neighbours share a node, along an axis of positions all do. Where some do, as on
    the tokens of a class token beside others, or the features of a flattened map, the axis is one of positions if there
    are channels on another one, and else of channels.
    """
    channels: list[int] = []
    mixed: list[int] = []
    for axis in range(ndim):
        roles = [_role(tensor, axis - ndim + tensor.node.ndim) for tensor in tensors]
        if "channels" in roles:
            channels.append(axis)
        elif "mixed" in roles:
            mixed.append(axis)
    return tuple(channels or mixed)


def _role(tensor: Carried, axis: int) -> str:
    """What an axis of one tensor numbers."""
    if axis < 0 or tensor.shape[axis] == 1:
        return "positions"
    length = tensor.shape[axis] - 1
    node, chain = (without_copies(part, but=axis) for part in (tensor.node, tensor.chain))
    node, chain = torch.broadcast_tensors(node, chain)
    place = torch.arange(tensor.shape[axis]).reshape(-1, *(1 for _ in node.shape[axis + 1 :])).expand(node.shape)
    last = torch.where(node == ZERO, -1, place).cummax(axis).values  # padding is passed over
    before = last.narrow(axis, 0, length)
    here = (node.narrow(axis, 1, length) != ZERO) & (before >= 0)
    if not here.any():
        return "positions"
    others = [part.gather(axis, before.clamp(min=0)) != part.narrow(axis, 1, length) for part in (node, chain)]
    differ = (others[0] | others[1])[here]
    return "channels" if differ.all() else "mixed" if differ.any() else "positions"


def read(builder: GraphBuilder, call: Call, carried: Carried, axes: tuple[int, ...]) -> Channels:
    """The channels of a tensor of one example on some axes, pieces joined.

    Raises:
        UnsupportedError: it has no elements, or a channel is padding alone.
    """
    shape = carried.shape
    if 0 in shape:
        raise UnsupportedError(call, "reads a tensor without elements", "a layer needs at least one input")
    entries = pieces(builder, carried, axes, shape)
    count = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
    found = np.bincount(entries.target, minlength=count)
    if (found == 0).any():
        raise UnsupportedError(call, "reads a channel that is always zero", "leave the padding away there")
    shared = bool((entries.node >= SHARED).all())
    map_size = map_extents(shape, axes)
    if (found > 1).any() or entries.target_site.any():
        node = joint_nodes(builder, call, entries, count, map_size)
        entries = Entries.of(np.arange(count), node)
    order = np.argsort(entries.target, kind="stable")
    return Channels(
        node=entries.node[order] % SHARED,
        site=entries.site[order],
        chain=entries.chain[order],
        map_size=map_size,
        shared=shared,
    )


def joint_nodes(
    builder: GraphBuilder, call: Call, entries: Entries, count: int, map_size: tuple[int, ...]
) -> Int64[np.ndarray, " C"]:
    """A node per channel that sums its pieces."""
    entries = unshared(entries)

    def make() -> Int64[np.ndarray, " C"]:
        nodes = builder.add_nodes(NodeKind.SUM, count, call.module)
        builder.add_pointwise(EdgeKind.PASS, nodes, entries, map_size)
        return nodes

    return builder.once(("joint", count, map_size, entries.key), make)


def unshared(entries: Entries) -> Entries:
    """The same without the mark of what is computed from parameters alone."""
    return Entries.of(
        entries.target,
        entries.node % SHARED,
        entries.site,
        entries.chain,
        entries.target_site,
        entries.constant,
        entries.value,
    )


def whole(builder: GraphBuilder, call: Call, carried: Carried, axes: tuple[int, ...]) -> Carried:
    """The same tensor with every channel a node whose whole map it is, in order; joint nodes where it was not."""
    channels = read(builder, call, carried, axes)
    joined = not bool(np.isin(channels.node, without_copies(carried.node).numpy() % SHARED).any())
    no_map = not joined and _without_map(builder, carried, axes)
    if not channels.site.any() and not no_map:
        fresh = builder.fresh(channels.node, carried.shape, axes, channels.shared)
        chain = _on_axes(channels.chain, carried.shape, axes)
        return Carried(node=fresh.node, site=fresh.site, chain=chain)
    entries = channels.entries()
    node = joint_nodes(builder, call, entries, channels.count, channels.map_size)
    return builder.fresh(node, carried.shape, axes, channels.shared)


def _without_map(builder: GraphBuilder, carried: Carried, axes: tuple[int, ...]) -> bool:
    """Whether a node of one element is spread over a map."""
    return prod(map_extents(carried.shape, axes)) > 1 and bool((carried.site == 0).any())


def _on_axes(numbers: Int64[np.ndarray, " C"], shape: tuple[int, ...], axes: tuple[int, ...]) -> torch.Tensor:
    """One number per channel as a tensor of a shape."""
    sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    return torch.from_numpy(numbers).reshape(sizes).expand(shape)


def pieces(builder: GraphBuilder, carried: Carried, axes: tuple[int, ...], shape: tuple[int, ...]) -> Entries:
    """What each channel of a tensor, broadcast to a shape, consists of: one row per node and chain it is made of.

    Padding has no row. A channel that is one node throughout has target site 0.
    """
    ndim = len(shape)
    rest = [axis for axis in range(ndim) if axis not in axes]
    C, P = (int(np.prod([shape[axis] for axis in some], dtype=np.int64)) for some in (axes, rest))
    own = [
        without_copies(part.reshape((1,) * (ndim - part.ndim) + tuple(part.shape))).permute([*axes, *rest])
        for part in (carried.node, carried.chain, carried.site)
    ]
    sizes, extents = [shape[axis] for axis in (*axes, *rest)], map_extents(shape, axes)
    one_each = [_of_channels(part, len(axes), sizes) for part in own[:2]]
    if one_each[0] is not None and one_each[1] is not None and (one_each[0] != ZERO).all():
        return Entries.of(np.arange(C), one_each[0], _sites(builder, own[2], len(axes), sizes), one_each[1])
    node, chain, site = (part.expand(sizes).reshape(-1).numpy() for part in own)
    channel, position = np.repeat(np.arange(C), P), np.tile(np.arange(P), C)
    order = np.lexsort((position, chain, node, channel))
    order = order[node[order] != ZERO]
    changes = np.zeros(len(order), dtype=bool)
    for column in (channel, node, chain):
        changes[1:] |= column[order][1:] != column[order][:-1]
    changes[:1] = True
    starts = np.flatnonzero(changes)
    segments = np.split(order, starts[1:]) if len(order) else []
    first = order[starts]
    return Entries.of(
        channel[first],
        node[first],
        np.array([builder.place_of_sites(site[segment]) for segment in segments], dtype=np.int64),
        chain[first],
        np.array([builder.place(extents, position[segment]) for segment in segments], dtype=np.int64),
    )


def _of_channels(part: torch.Tensor, num_axes: int, sizes: list[int]) -> Int64[np.ndarray, " C"] | None:
    """The number of each channel, if it is the same at all its positions; channels stand on the first axes."""
    rows = part.flatten(num_axes) if num_axes < part.ndim else part.unsqueeze(-1)
    if not bool((rows == rows[..., :1]).all()):
        return None
    return rows[..., 0].expand(sizes[:num_axes]).reshape(-1).numpy()


def _sites(builder: GraphBuilder, part: torch.Tensor, num_axes: int, sizes: list[int]) -> Int64[np.ndarray, " C"]:
    """Where each channel, one node throughout, is read."""
    channels, positions = list(part.shape[:num_axes]), list(part.shape[num_axes:])
    rows = part.reshape(int(np.prod(channels, dtype=np.int64)), -1).numpy()
    places: dict[bytes, int] = {}  # np.unique of rows sorts them, which takes long where maps are large
    for row in rows:
        if (key := row.tobytes()) not in places:
            spread = np.broadcast_to(row.reshape(positions), sizes[num_axes:]).reshape(-1)
            places[key] = builder.place_of_sites(spread)
    codes = np.array([places[row.tobytes()] for row in rows], dtype=np.int64)
    return np.broadcast_to(codes.reshape(channels), sizes[:num_axes]).reshape(-1)
