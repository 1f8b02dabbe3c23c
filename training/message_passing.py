"""One layer of a graph metanetwork.

Reads   node features ``[b, num_nodes, H]`` and, per block, edge features ``[b, G, O, I, H]``
Writes  the same, updated

    z_e = silu(A v_source + B v_target + C e)                                (the hidden layer of both edge functions)
    e'  = e + D z_e
    v'  = v + MLP(v, P sum_in z_e / c_in, Q sum_out z_e / c_out)

with layer norms before A, B, C and the MLP, and c the degree, its root or one. This is Lim et al. 2024, equations 1 and
2, without the global feature, with three deviations: the edge function and the message function share their hidden
layer; messages also run against the direction, through a map of their own (Q), so that direction is kept; and all is
residual. A and B are applied to nodes, before anything is spread over edges, and P and Q after aggregation: the same
mathematics at a fraction of the cost.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.graph_layout import BlockLayout, GraphLayout

# b = graphs, N = nodes, G = groups, O = targets a group, I = edges a target and group, H = width


Aggregation = Literal["sum", "mean", "root"]
"""``root`` is the sum over the square root of the degree: it keeps the size of a sum of independent messages."""

POWER: dict[Aggregation, float] = {"sum": 0.0, "root": 0.5, "mean": 1.0}
"""Of the degree that a sum of messages is divided by."""


class MetanetworkLayer(nn.Module):
    """Updates every edge and every node once."""

    def __init__(self, width: int, aggregation: Aggregation) -> None:
        super().__init__()
        self.aggregation: Aggregation = aggregation
        self.node_norm = nn.LayerNorm(width)
        self.edge_norm = nn.LayerNorm(width)
        self.from_source = nn.Linear(width, width, bias=False)
        self.from_target = nn.Linear(width, width, bias=False)
        self.from_edge = nn.Linear(width, width)
        self.edge_update = nn.Linear(width, width)
        self.node_hidden = nn.Linear(3 * width, width)
        self.node_update = nn.Linear(width, width)

    def forward(
        self, layout: GraphLayout, nodes: Float[Tensor, "b N H"], edges: list[Tensor]
    ) -> tuple[Float[Tensor, "b N H"], list[Tensor]]:
        normed = self.node_norm(nodes)
        source, target = self.from_source(normed), self.from_target(normed)
        incoming, outgoing = torch.zeros_like(nodes), torch.zeros_like(nodes)
        updated: list[Tensor] = []
        for block, edge in zip(layout.blocks, edges, strict=True):
            hidden = self._hidden(block, source, target, edge)
            incoming = _add_at(incoming, block.targets, hidden.sum(dim=3))
            outgoing = _add_at(outgoing, block.sources, hidden.sum(dim=2))
            updated.append(edge + self.edge_update(hidden))
        messages = [normed, self._scaled(incoming, layout.in_degree), self._scaled(outgoing, layout.out_degree)]
        return nodes + self.node_update(functional.silu(self.node_hidden(torch.cat(messages, dim=-1)))), updated

    def _hidden(
        self, block: BlockLayout, source: Float[Tensor, "b N H"], target: Float[Tensor, "b N H"], edge: Tensor
    ) -> Float[Tensor, "b G O I H"]:
        source_bGIH, target_bGOH = _take(source, block.sources), _take(target, block.targets)
        return functional.silu(
            self.from_edge(self.edge_norm(edge)) + source_bGIH[:, :, None] + target_bGOH[:, :, :, None]
        )

    def _scaled(self, messages: Float[Tensor, "b N H"], degree: Float[Tensor, " N"]) -> Float[Tensor, "b N H"]:
        return messages * degree[:, None] ** -POWER[self.aggregation]


def _take(nodes: Float[Tensor, "b N H"], index: Tensor) -> Tensor:
    """Features of the nodes ``index [G, K]`` as ``[b, G, K, H]``; ``index_select`` because its gradient is not a slow
    put."""
    return nodes.index_select(1, index.reshape(-1)).unflatten(1, index.shape)


def _add_at(nodes: Float[Tensor, "b N H"], index: Tensor, messages: Tensor) -> Float[Tensor, "b N H"]:
    """Add messages ``[b, G, K, H]`` to the nodes ``index [G, K]``."""
    return nodes.index_add(1, index.reshape(-1), messages.flatten(1, 2))
