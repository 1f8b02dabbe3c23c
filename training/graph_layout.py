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
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pipeline.graph_kinds import MAX_RANK, EdgeKind, Step
from pipeline.parameter_graph import Block, GraphTemplate, relative_coordinates, right_align

# G = groups, O = targets a group, I = edges a target and group (sources, or sources x taps), S = slots an edge, Q = G
# or 1, R = I or 1

NUM_NODE_KINDS, NUM_EDGE_KINDS, NUM_OPERATIONS = 16, 32, 64
"""Rows of a metanetwork's embeddings: room for kinds and operations to come, so that checkpoints outlive them."""
SITE_FEATURES = 2 * MAX_RANK + 1
SLOT_FEATURES = MAX_RANK + 2 * SITE_FEATURES
"""Tap coordinates relative to the kernel, each from -1 to 1; what is read of the source, and what is written of the
target, as in ``GraphTemplate.site_features``."""
BLOCK_FEATURES = 6 * MAX_RANK + 2
"""log(1 + .) of kernel size, stride, padding, dilation, output padding and map size per axis; log fan-in and log
fan-out."""
VALUE_FEATURES = 2
"""asinh and tanh of a value or constant; of minus infinity 0 and -1, which no number has."""
STEP_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "output_size", "map_size")
STEP_NUMBERS = ("alpha", "ceil_mode", "count_include_pad", "input_scale", "negative_slope", "number", "scale", "tanh")
STEP_NUMBERS += ("align_corners", "beta", "eps", "exponent", "high", "low", "threshold")
STEP_FEATURES = (len(STEP_SETTINGS) + 1) * MAX_RANK + len(STEP_NUMBERS)
"""The settings with a number per axis, the axes an operation runs over (0 or 1 each), and the single numbers."""
STEP_UNITS = {"eps": 1e-6}
"""What numbers are counted in that are far below one."""
NO_BOUND = 1e6
"""What stands for an infinite setting: a clamp that is open at one end."""


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
    """-1 where the block carries no values."""
    constant_features: Float[Tensor, "G I S 2"] | None
    """`VALUE_FEATURES` of the constants of a block without values; None for one with values."""
    slot_features: Float[Tensor, "Q R S 17"]
    """Where a slot acts; one row for all groups where they are alike (Q = 1), and one for all edges of a target where
    those are, too (R = 1)."""
    features: Float[Tensor, " 20"]
    root_fan_in: Float[Tensor, ""]
    """Square root of the block's `fan_in`; what values are multiplied by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphLayout:
    """A template in one encoding, on one device."""

    blocks: tuple[BlockLayout, ...]
    node_kind: Int64[Tensor, " num_nodes"]
    node_rank: Int64[Tensor, " num_nodes"]
    """Position among inputs, outputs, positions or tokens; -1 for hidden nodes."""
    node_depth: Float[Tensor, "num_nodes 2"]
    """Longest path from an input and to an output, relative to the longest of all."""
    set_chain: Int64[Tensor, " num_nodes"]
    """How statistics are taken, or channels normalised; 0, the empty chain, for all others."""
    output_chain: Int64[Tensor, " num_nodes"]
    """What happens between an output node and the output; 0 for all others."""
    in_degree: Float[Tensor, " num_nodes"]
    """Edges that end at the node in this encoding; at least 1."""
    out_degree: Float[Tensor, " num_nodes"]
    """Edges that start at the node in this encoding; at least 1."""
    chain_operation: Int64[Tensor, "num_chains longest"]
    """The `Operation` of every step, 0 after the last."""
    chain_features: Float[Tensor, "num_chains longest 36"]

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
    set_chain = np.repeat([nodes.chain for nodes in template.node_sets], [nodes.count for nodes in template.node_sets])
    output_chain = np.zeros(template.num_nodes, dtype=np.int64)
    output_chain[template.outputs] = template.output_chain
    return GraphLayout(
        blocks=blocks,
        node_kind=torch.from_numpy(template.node_kind),
        node_rank=torch.from_numpy(template.node_rank),
        node_depth=_floats(depth / max(1, int(depth.max()))),
        set_chain=torch.from_numpy(set_chain),
        output_chain=torch.from_numpy(output_chain),
        in_degree=_floats(np.maximum(in_degree, 1)),
        out_degree=_floats(np.maximum(out_degree, 1)),
        chain_operation=operations,
        chain_features=features,
    )


def _block_layout(block: Block, template: GraphTemplate, encoding: Encoding) -> BlockLayout:
    G, O, I, T = block.num_groups, block.num_targets, block.num_sources, block.num_taps
    P = positions_per_node(block) if encoding == "bundles" else 1
    edges, S = (I // P, P * T) if encoding == "bundles" else (I * T, 1)
    repeats = T if encoding == "taps" else 1
    per_edge = (G, edges)
    constants = None
    if not block.kind.carries_value:
        constants = _floats(constant_features(np.repeat(block.constant, T)).reshape(G, edges, S, VALUE_FEATURES))
    return BlockLayout(
        kind=torch.tensor(int(block.kind)),
        targets=torch.from_numpy(block.targets.reshape(G, O)),
        sources=torch.from_numpy(np.repeat(block.sources[::P], repeats).reshape(per_edge)),
        source_chain=torch.from_numpy(np.repeat(block.source_chain[::P], repeats).reshape(per_edge)),
        value_index=torch.from_numpy(block.value_index.reshape(G, O, edges, S)),
        constant_features=constants,
        slot_features=_floats(_slot_features(block, template, edges)),
        features=_floats(block_features(block)),
        root_fan_in=torch.tensor(float(np.sqrt(fan_in(block)))),
    )


def positions_per_node(block: Block) -> int:
    """How many edges of one chain join each source node to a target, if they are equally many for every node; else
    1."""
    rows = np.stack([block.sources, block.source_chain]).reshape(2, block.num_groups, -1)
    P = int(np.argmax(np.append((rows[:, 0] != rows[:, 0, :1]).any(axis=0), True)))
    if block.num_sources % P:
        return 1
    rows = rows.reshape(2, block.num_groups, -1, P)
    nodes = rows[0, :, :, 0]
    return P if (rows == rows[..., :1]).all() and (nodes[:, 1:] != nodes[:, :-1]).all() else 1


def fan_in(block: Block) -> int:
    """How many values a target sums at one position: only the chosen word of a vocabulary counts, and of what is
    written to single positions what the fullest gets."""
    if block.kind == EdgeKind.EMBEDDING:
        return 1
    sites, counts = np.unique(block.target_site[: block.num_sources], return_counts=True)  # of the first group
    return int(counts[sites == 0].sum() + counts[sites > 0].max(initial=0)) * block.num_taps


def _slot_features(block: Block, template: GraphTemplate, edges: int) -> Float[np.ndarray, "Q R S 17"]:
    """Where every slot acts, for so many edges a target and group."""
    sites = np.stack([block.source_site, block.target_site], axis=1).reshape(block.num_groups, -1, 2)
    if (sites == sites[:1]).all():
        sites = sites[:1]
    places = template.site_features[sites].reshape(*sites.shape[:2], 1, 2 * SITE_FEATURES)
    taps = relative_coordinates(block.kernel_size)
    alike = (*sites.shape[:2], block.num_taps)
    slots = np.concatenate([np.broadcast_to(part, (*alike, part.shape[-1])) for part in (taps, places)], axis=-1)
    slots = slots.reshape(len(sites), edges, -1, SLOT_FEATURES)
    return slots[:, :1] if (slots == slots[:, :1]).all() else slots


def constant_features(constants: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 2"]:
    """`VALUE_FEATURES` of constants."""
    finite = np.where(np.isneginf(constants), 0.0, constants)
    return np.stack([np.arcsinh(finite), np.tanh(constants)], axis=-1)


def block_features(block: Block) -> Float64[np.ndarray, " 20"]:
    """`BLOCK_FEATURES` of a block."""
    sizes = (block.kernel_size, block.stride, block.padding, block.dilation, block.output_padding, block.map_size)
    aligned = [right_align(size, 0) for size in sizes]
    fans = np.log([fan_in(block), block.num_targets * block.num_taps])
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
    assert settings.keys() <= {*STEP_SETTINGS, *STEP_NUMBERS, "axes"}, f"a setting of {step} has no column"
    per_axis = [right_align(tuple(map(int, settings.get(name, ()))), 0) for name in STEP_SETTINGS]
    rank = len(settings.get("map_size", ()))
    axes = [float(axis) in settings.get("axes", ()) for axis in range(rank - MAX_RANK, rank)]
    single = [settings.get(name, (0.0,))[0] / STEP_UNITS.get(name, 1.0) for name in STEP_NUMBERS]
    numbers = np.concatenate([np.array(per_axis, dtype=float).reshape(-1), axes, single])
    numbers = np.nan_to_num(numbers, posinf=NO_BOUND, neginf=-NO_BOUND)
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
