"""A template as the tensors a metanetwork computes with: dense blocks of edges instead of an edge list.

Reads   a `GraphTemplate`
Writes  a `GraphLayout`, in one of two encodings of the same graph

The edges of a block join every target to every source, so they are a dense array ``[group, target, source]``: messages
are broadcast sums, not gathers, and aggregation is a sum over an axis, not a scatter. The *tap* encoding has one edge
per value. The *bundled* encoding joins the parallel edges between two nodes (the taps of a kernel, the positions of a
flattened map) into one edge with a vector of values, as Kofinas et al. (ICLR 2024, arXiv:2403.12143) do, but keeps the
coordinates of every slot.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.parameter_graph import (
    MAX_RANK,
    Block,
    EdgeKind,
    GraphTemplate,
    Operation,
    Step,
    coordinates,
    relative,
    right_align,
)

# G = groups, O = targets a group, I = edges a target and group (sources, or sources x taps), S = slots an edge, R = I
# or 1

SLOT_FEATURES = 2 * MAX_RANK
"""Tap coordinates relative to the kernel, then coordinates of the position read relative to its map, each from -1 to
1."""
BLOCK_FEATURES = 5 * MAX_RANK + 2
"""log(1 + .) of kernel size, stride, padding, dilation and map size per axis; log fan-in and log fan-out."""
STEP_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "output_size", "map_size")
STEP_NUMBERS = ("alpha", "ceil_mode", "count_include_pad", "input_scale", "negative_slope", "number", "scale", "tanh")
STEP_FEATURES = len(STEP_SETTINGS) * MAX_RANK + len(STEP_NUMBERS)


Layout = TypeVar("Layout", "BlockLayout", "GraphLayout")


Encoding = Literal["taps", "bundles"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockLayout:
    """The edges of one block. Every edge has S slots, each with one value."""

    kind: Int64[Tensor, ""]
    targets: Int64[Tensor, "G O"]
    sources: Int64[Tensor, "G I"]
    source_chain: Int64[Tensor, "G I"]
    value_index: Int64[Tensor, "G O I S"]
    slot_features: Float[Tensor, "R S 6"]
    """Where the value of a slot acts; one row for all edges of a target where they are alike (R = 1)."""
    features: Float[Tensor, " 17"]
    root_fan_in: Float[Tensor, ""]
    """Square root of the number of values a target reads in this block; what values are multiplied by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphLayout:
    """A template in one encoding, on one device."""

    blocks: tuple[BlockLayout, ...]
    node_kind: Int64[Tensor, " num_nodes"]
    node_rank: Int64[Tensor, " num_nodes"]
    """Position among inputs or outputs; -1 for hidden nodes."""
    node_depth: Float[Tensor, "num_nodes 2"]
    """Longest path from an input and to an output, relative to the longest of all."""
    node_chain: Int64[Tensor, " num_nodes"]
    in_degree: Float[Tensor, " num_nodes"]
    """Edges that end at the node in this encoding; at least 1."""
    out_degree: Float[Tensor, " num_nodes"]
    """Edges that start at the node in this encoding; at least 1."""
    chain_operation: Int64[Tensor, "num_chains longest"]
    """The `Operation` of every step, 0 after the last."""
    chain_features: Float[Tensor, "num_chains longest 26"]

    @property
    def num_nodes(self) -> int:
        return len(self.node_kind)

    def to(self, device: torch.device, dtype: torch.dtype) -> "GraphLayout":
        """The same layout with its tensors on a device, floating-point ones in ``dtype``."""
        return _moved(replace(self, blocks=tuple(_moved(block, device, dtype) for block in self.blocks)), device, dtype)


@lru_cache(maxsize=1024)
def layout_of(template: GraphTemplate, encoding: Encoding, device: torch.device, dtype: torch.dtype) -> GraphLayout:
    """The layout of a template; kept, because thousands of graphs share one."""
    if device != torch.device("cpu") or dtype != torch.float32:
        return layout_of(template, encoding, torch.device("cpu"), torch.float32).to(device, dtype)
    blocks = tuple(_block_layout(block, template, encoding) for block in template.blocks)
    depth = np.stack([template.depth_from_input, template.depth_to_output], axis=1)
    in_degree, out_degree = np.zeros((2, template.num_nodes))
    for block in blocks:
        _, O, I, _ = block.value_index.shape
        np.add.at(in_degree, block.targets.reshape(-1).numpy(), I)
        np.add.at(out_degree, block.sources.reshape(-1).numpy(), O)
    operations, features = _chain_tensors(template)
    return GraphLayout(
        blocks=blocks,
        node_kind=torch.from_numpy(template.node_kind),
        node_rank=torch.from_numpy(template.node_rank),
        node_depth=_floats(depth / max(1, int(depth.max()))),
        node_chain=torch.from_numpy(template.node_chain),
        in_degree=_floats(np.maximum(in_degree, 1)),
        out_degree=_floats(np.maximum(out_degree, 1)),
        chain_operation=operations,
        chain_features=features,
    )


def _block_layout(block: Block, template: GraphTemplate, encoding: Encoding) -> BlockLayout:
    G, O, I, T = block.num_groups, block.num_targets, block.num_sources, block.num_taps
    P = positions_per_node(block) if encoding == "bundles" else 1
    tap = relative(coordinates(block.kernel_size), np.tile(np.array(right_align(block.kernel_size, 1)), (T, 1)))
    site = block.source_site[:I]  # groups of one block are alike
    position = relative(template.site_position[site], template.site_extents[site])
    slots = np.concatenate([np.tile(tap, (I, 1)), np.repeat(position, T, axis=0)], axis=1)
    if encoding == "bundles":
        edges, slots = I // P, slots.reshape(I // P, P * T, SLOT_FEATURES)
        slots = slots[:1] if (slots == slots[:1]).all() else slots
    else:
        edges, slots = I * T, slots[:, None]
    per_edge = (G, edges)
    repeats = T if encoding == "taps" else 1
    return BlockLayout(
        kind=torch.tensor(int(block.kind)),
        targets=torch.from_numpy(block.targets.reshape(G, O)),
        sources=torch.from_numpy(np.repeat(block.sources[::P], repeats).reshape(per_edge)),
        source_chain=torch.from_numpy(np.repeat(block.source_chain[::P], repeats).reshape(per_edge)),
        value_index=torch.from_numpy(block.value_index.reshape(G, O, edges, -1)),
        slot_features=_floats(slots),
        features=_floats(_block_features(block)),
        root_fan_in=torch.tensor(float(np.sqrt(I * T))),
    )


def positions_per_node(block: Block) -> int:
    """How many positions of each source node the block reads, if every node is read at the same ones and alike; else
    1."""
    nodes, first = np.unique(block.sources[: block.num_sources], return_index=True)
    P = block.num_sources // len(nodes)
    if P * len(nodes) != block.num_sources or block.num_groups != 1:
        return 1
    rows = [column.reshape(len(nodes), P) for column in (block.sources, block.source_chain, block.source_site)]
    sources, chains, sites = rows
    regular = (sources == sources[:, :1]).all() and (chains == chains[:, :1]).all() and (sites == sites[:1]).all()
    return P if regular and (np.diff(first) > 0).all() else 1


def _block_features(block: Block) -> np.ndarray:
    taps = block.num_taps
    sizes = (block.kernel_size, block.stride, block.padding, block.dilation, block.map_size)
    aligned = [right_align(size, 0) for size in sizes]
    fans = np.log([block.num_sources * taps, block.num_targets * taps])
    return np.concatenate([np.log1p(np.array(aligned)).reshape(-1), fans])


def _chain_tensors(template: GraphTemplate) -> tuple[Tensor, Tensor]:
    longest = max(1, *map(len, template.chains)) if template.chains else 1
    operations = np.zeros((len(template.chains), longest), dtype=np.int64)
    features = np.zeros((len(template.chains), longest, STEP_FEATURES))
    for row, chain in enumerate(template.chains):
        for place, step in enumerate(chain):
            operations[row, place] = int(step.operation)
            features[row, place] = step_features(step)
    return torch.from_numpy(operations), _floats(features)


def step_features(step: Step) -> np.ndarray:
    """sign(x) log(1 + |x|) of every setting, in fixed columns, 0 where the operation has no such setting."""
    settings = dict(step.settings)
    assert settings.keys() <= {*STEP_SETTINGS, *STEP_NUMBERS}, f"a setting of {step} has no column"
    per_axis = [right_align(tuple(map(int, settings.get(name, ()))), 0) for name in STEP_SETTINGS]
    single = [settings.get(name, (0.0,))[0] for name in STEP_NUMBERS]
    numbers = np.concatenate([np.array(per_axis, dtype=float).reshape(-1), single])
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def _floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.float32)


def _moved(layout: Layout, device: torch.device, dtype: torch.dtype) -> Layout:
    tensors = {field.name: getattr(layout, field.name) for field in fields(layout)}
    return replace(
        layout,
        **{
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in tensors.items()
            if isinstance(tensor, Tensor)
        },
    )


NUM_EDGE_KINDS = len(EdgeKind)
NUM_OPERATIONS = max(Operation) + 1
