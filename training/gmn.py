"""Graph metanetworks: neural networks that read other networks' parameter graphs (Lim et al., ICLR 2024,
arXiv:2312.04501).

Reads   a `GraphBatch` (`training.graph_batch`): values of any architectures
Writes  one vector per graph, unchanged by every automorphism of its template

Plain torch: no Lightning, no Ray, no zarr. Deviations from the published network are listed in
`training.message_passing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from training.encoders import ChainEncoder, EdgeEncoder, NodeEncoder
from training.graph_batch import GraphBatch, TemplateGroup
from training.graph_layout import Encoding, layout_of
from training.message_passing import Aggregation, MetanetworkLayer


@dataclass(frozen=True, kw_only=True)
class GraphMetanetworkSettings:
    """The shape of a graph metanetwork."""

    width: int = 32
    """Features of every node, edge and graph."""
    depth: int = 3
    """Message-passing layers."""
    aggregation: Aggregation = "root"
    """How messages are summed at a node: sum, mean, or root (sum over the square root of the degree)."""
    encoding: Encoding = "bundles"
    """taps: one edge per value. bundles: parallel edges between two nodes as one; several times faster on
    convolutions."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"width is {self.width} and depth {self.depth}; both must be at least 1")


class GraphMetanetwork(nn.Module):
    """Encoders, ``depth`` message-passing layers, and an invariant read-out of ``num_outputs`` numbers per graph."""

    def __init__(self, settings: GraphMetanetworkSettings, num_outputs: int = 1) -> None:
        super().__init__()
        width = settings.width
        self.settings = settings
        self.chain_encoder = ChainEncoder(width)
        self.node_encoder = NodeEncoder(width)
        self.edge_encoder = EdgeEncoder(width)
        self.layers = nn.ModuleList(MetanetworkLayer(width, settings.aggregation) for _ in range(settings.depth))
        self.read_edges = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
        self.read_nodes = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
        self.read_graph = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, batch: GraphBatch) -> Float[Tensor, "num_graphs num_outputs"]:
        """The read-out of every graph, in the order of the batch."""
        return self.head(
            functional.silu(_in_order(batch, [self.graph_vectors(group) for group in batch.groups], self.head.weight))
        )

    def graph_vectors(self, group: TemplateGroup) -> Float[Tensor, "graphs width"]:
        """Before the head: the mean over edges, each block counting alike, beside the mean over nodes, each node
        counting alike."""
        nodes, edges = list(self.layer_features(group))[-1]
        return self._read(nodes, edges)

    def layer_features(self, group: TemplateGroup) -> Iterator[tuple[Float[Tensor, "b N H"], list[Tensor]]]:
        """Node features and the edge features of every block ``[b, G, O, I, H]``: as encoded, then after each layer."""
        parameter = self.head.weight
        layout = layout_of(group.template, self.settings.encoding, parameter.device, parameter.dtype)
        chains = self.chain_encoder(layout)
        nodes = self.node_encoder(layout, chains).expand(len(group.values), -1, -1)
        values = group.values.to(parameter.dtype)
        edges = [self.edge_encoder(block, values, chains) for block in layout.blocks]
        yield nodes, edges
        for layer in self.layers:
            nodes, edges = layer(layout, nodes, edges)
            yield nodes, edges

    def representations(self, batch: GraphBatch) -> dict[str, Float[Tensor, "num_graphs features"]]:
        """Every layer's features as one vector per graph, by name, in the order they are computed.

        ``layer0.nodes`` and ``layer0.edges`` are the encoded inputs, ``layer<k>`` the k-th layer, read as the mean over
        nodes and the mean over edges (each block counting alike); ``graph`` is the read-out before the head, ``output``
        the head's.
        """
        readings: dict[str, list[Tensor]] = {}
        for group in batch.groups:
            features = list(self.layer_features(group))
            for number, (nodes, edges) in enumerate(features):
                readings.setdefault(f"layer{number}.nodes", []).append(nodes.mean(dim=1))
                readings.setdefault(f"layer{number}.edges", []).append(_mean_of_blocks(edges))
            vectors = self._read(*features[-1])
            readings.setdefault("graph", []).append(vectors)
            readings.setdefault("output", []).append(self.head(functional.silu(vectors)))
        return {name: _in_order(batch, parts, self.head.weight) for name, parts in readings.items()}

    def _read(self, nodes: Float[Tensor, "b N H"], edges: list[Tensor]) -> Float[Tensor, "b H"]:
        read = [_mean_of_blocks([self.read_edges(edge) for edge in edges]), self.read_nodes(nodes).mean(dim=1)]
        return self.read_graph(torch.cat(read, dim=-1))


def _mean_of_blocks(edges: list[Tensor]) -> Float[Tensor, "b H"]:
    return torch.stack([edge.mean(dim=(1, 2, 3)) for edge in edges]).mean(dim=0)


def _in_order(batch: GraphBatch, parts: list[Tensor], like: Tensor) -> Tensor:
    """Rows of the groups put into the order of the batch; no rows for an empty batch."""
    if not parts:
        return like.new_zeros(0, like.shape[1])
    place = torch.cat([group.place for group in batch.groups])
    return torch.cat(parts)[torch.argsort(place)]
