"""What a metanetwork sees of a parameter graph: features of nodes, edges and values, and the layers that encode them.

Reads   a `GraphLayout` and values
Writes  initial node features ``[b, num_nodes, width]`` and, for each block, edge features ``[b, G, O, I, width]``

Nothing here depends on the order of hidden nodes: a hidden node is known by its kind and depth alone.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from training.graph_layout import (
    BLOCK_FEATURES,
    NUM_EDGE_KINDS,
    NUM_NODE_KINDS,
    NUM_OPERATIONS,
    SLOT_FEATURES,
    STEP_FEATURES,
    VALUE_FEATURES,
    BlockLayout,
    GraphLayout,
)

# b = graphs, G = groups, O = targets a group, I = edges a target, S = slots an edge, F = value features,
# H = width, Q = G or 1, R = I or 1

RANK_FREQUENCIES = 8


class ChainEncoder(nn.Module):
    """An ordered chain of operations as a vector: a recurrent network over its steps; the empty chain is the zero
    state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.operation = nn.Embedding(NUM_OPERATIONS, width)
        self.settings = nn.Linear(STEP_FEATURES, width)
        self.cell = nn.GRUCell(width, width)

    def forward(self, layout: GraphLayout) -> Float[Tensor, "num_chains H"]:
        steps = self.operation(layout.chain_operation) + self.settings(layout.chain_features)
        state = torch.zeros_like(steps[:, 0])
        for place in range(steps.shape[1]):
            here = (layout.chain_operation[:, place] > 0)[:, None]
            state = torch.where(here, self.cell(steps[:, place], state), state)
        return state


class NodeEncoder(nn.Module):
    """Kind, depth, rank of inputs, outputs, positions and tokens, and the operations on what the edges bring."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(NUM_NODE_KINDS, width)
        self.depth = nn.Linear(2, width, bias=False)
        self.rank = nn.Linear(2 * RANK_FREQUENCIES, width, bias=False)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, layout: GraphLayout, chains: Float[Tensor, "num_chains H"]) -> Float[Tensor, "num_nodes H"]:
        ranks = self.rank(rank_features(layout.node_rank, chains.dtype))
        operations = chains[layout.set_chain] + chains[layout.output_chain]
        return self.mix(self.kind(layout.node_kind) + self.depth(layout.node_depth) + ranks + operations)


class EdgeEncoder(nn.Module):
    """An edge is the sum over its slots of a linear map of the features of what the slot carries, a value or a
    constant; the map depends on where the slot acts.

    For one 3x3 kernel this is a linear layer on its nine taps, with weights made from tap coordinates, so that kernels
    and maps of any size share the same parameters.
    """

    value_scale: Float[Tensor, " num_edge_kinds"]
    """Typical size of ``w * sqrt(fan_in)`` of each edge kind in the training graphs; see `robust_scale`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("value_scale", torch.ones(NUM_EDGE_KINDS))
        self.slot = nn.Sequential(nn.Linear(SLOT_FEATURES, width), nn.SiLU(), nn.Linear(width, VALUE_FEATURES * width))
        self.slot_kind = nn.Embedding(NUM_EDGE_KINDS, VALUE_FEATURES * width)
        self.kind = nn.Embedding(NUM_EDGE_KINDS, width)
        self.block = nn.Sequential(nn.Linear(BLOCK_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self,
        block: BlockLayout,
        values: Float[Tensor, "b num_values"],
        chains: Float[Tensor, "num_chains H"],
    ) -> Float[Tensor, "b G O I H"]:
        static_GIH = self.kind(block.kind) + self.block(block.features) + chains[block.source_chain]
        maps = self.slot_maps(block)
        if block.constant_features is not None:
            edges_GIH = static_GIH + torch.einsum("gisf,gisfh->gih", block.constant_features, maps)
            return edges_GIH[None, :, None].expand(len(values), -1, block.targets.shape[1], -1, -1)
        features = self.value_features(block, values)
        if len(block.slot_features) > 1:
            edges = torch.einsum("bgoisf,gisfh->bgoih", features, maps)
        elif block.slot_features.shape[1] > 1:
            edges = torch.einsum("bgoisf,isfh->bgoih", features, maps[0])
        else:
            edges = torch.einsum("bgoisf,sfh->bgoih", features, maps[0, 0])
        return edges + static_GIH[:, None]

    def slot_maps(self, block: BlockLayout) -> Float[Tensor, "G I S F H"]:
        """The map of every slot; expanded, not copied, where groups or edges are alike."""
        maps = self.slot(block.slot_features) + self.slot_kind(block.kind)
        maps = maps.unflatten(-1, (VALUE_FEATURES, -1)) / maps.shape[-2] ** 0.5
        return maps.expand(*block.sources.shape, -1, -1, -1)

    def value_features(self, block: BlockLayout, values: Float[Tensor, "b num_values"]) -> Float[Tensor, "b G O I S F"]:
        """Values in units of their kind's typical size, compressed two ways; not centred, since zero and sign mean
        something.

        ``asinh`` keeps the order of magnitude of outliers (a nearly diverged network), ``tanh`` the detail of typical
        values.
        """
        scaled = values[:, block.value_index] * (block.root_fan_in / self.value_scale[block.kind])
        return torch.stack([torch.asinh(scaled), torch.tanh(scaled)], dim=-1)


def rank_features(rank: Int64[Tensor, " num_nodes"], dtype: torch.dtype) -> Float[Tensor, "num_nodes 16"]:
    """Sines and cosines of a position among inputs, outputs, positions or tokens, as in Vaswani et al. 2017; zeros for
    hidden nodes (rank -1)."""
    frequency = 1000.0 ** -(torch.arange(RANK_FREQUENCIES, device=rank.device, dtype=dtype) / RANK_FREQUENCIES)
    angle = rank.clamp(min=0).to(dtype)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1) * (rank >= 0)[:, None]


def robust_scale(sizes: Float[Tensor, " n"]) -> float:
    """The standard deviation a normal distribution of this median absolute value has; 1 where there is nothing to go
    by."""
    median = float(sizes.abs().nanmedian()) if len(sizes) else 0.0
    return median / 0.6745 if median > 0 else 1.0
