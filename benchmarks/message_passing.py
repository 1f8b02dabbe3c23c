"""Forward and backward through one layer of the metanetwork: dense blocks against gather, concatenate and scatter.

    python -m benchmarks.message_passing

Ours and the edge-list version, as one writes it with PyTorch Geometric, have the same parameters and the same outputs
(asserted); they run in turn in one process, and what counts is the ratio. Prints one line of JSON per case: medians in
milliseconds.
Needs torch and torch_geometric, neither Ray nor zarr; uses a GPU if there is one, else one thread.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.utils import scatter

from pipeline.architectures import Architecture
from pipeline.tracing import trace
from training.gmn import GraphMetanetwork, GraphMetanetworkSettings
from training.graph_batch import batch_graphs
from training.graph_layout import Encoding, GraphLayout, layout_of
from training.message_passing import MetanetworkLayer

GRAPHS, ROUNDS, WIDTHS = 32, 7, (32, 64)
ENCODINGS: tuple[Encoding, ...] = ("bundles", "taps")


def main() -> None:
    """Every encoding and width."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments = {"activation": "relu", "input_shape": [1, 28, 28], "num_classes": 10}
    architecture = Architecture(family="small_cnn", arguments=arguments)
    template = trace(architecture.build(), architecture.example_input())
    [group] = batch_graphs([template.graph(architecture.build()) for _ in range(GRAPHS)]).to(device).groups
    for encoding in ENCODINGS:
        for width in WIDTHS:
            model = GraphMetanetwork(GraphMetanetworkSettings(width=width, depth=1, encoding=encoding)).to(device)
            layout = layout_of(template, encoding, device, torch.float32)
            with torch.no_grad():
                nodes, edges = next(iter(model.layer_features(group)))
            nodes = nodes.contiguous()
            layer = model.layers[0]
            assert isinstance(layer, MetanetworkLayer)
            case = {"device": str(device), "encoding": encoding, "width": width}
            print(json.dumps(case | compare(layer, layout, nodes, edges)))


def compare(layer: MetanetworkLayer, layout: GraphLayout, nodes: Tensor, edges: list[Tensor]) -> dict[str, float]:
    """Median milliseconds of both, in turn, and their ratio."""
    source, target = edge_index(layout, GRAPHS)
    flat_nodes, flat_edges = nodes.flatten(0, 1), torch.cat([edge.flatten(1, 3) for edge in edges], dim=1).flatten(0, 1)

    def ours() -> tuple[Tensor, Tensor]:
        new_nodes, new_edges = layer(layout, nodes, edges)
        return new_nodes.flatten(0, 1), torch.cat([edge.flatten(1, 3) for edge in new_edges], dim=1).flatten(0, 1)

    def edge_list() -> tuple[Tensor, Tensor]:
        return edge_list_layer(layer, source, target, flat_nodes, flat_edges)

    for left, right in zip(ours(), edge_list(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)
    seconds = interleaved([ours, edge_list])
    mine, other = (statistics.median(times) for times in seconds)
    return {
        "ours_ms": round(mine * 1e3, 1),
        "edge_list_ms": round(other * 1e3, 1),
        "ratio": round(statistics.median(b / a for a, b in zip(*seconds, strict=True)), 2),
        "ours_graphs_per_s": round(GRAPHS / mine),
    }


def edge_list_layer(
    layer: MetanetworkLayer, source: Tensor, target: Tensor, nodes: Tensor, edges: Tensor
) -> tuple[Tensor, Tensor]:
    """The layer as a message-passing network on an edge list: inputs gathered and concatenated, messages scattered."""
    concatenated = torch.cat([layer.from_source.weight, layer.from_target.weight, layer.from_edge.weight], dim=1)
    normed = layer.node_norm(nodes)
    inputs = torch.cat([normed[source], normed[target], layer.edge_norm(edges)], dim=1)
    hidden = functional.silu(functional.linear(inputs, concatenated, layer.from_edge.bias))
    sums = [
        scatter(hidden, index, dim_size=len(nodes))
        / torch.bincount(index, minlength=len(nodes)).clamp(min=1).sqrt()[:, None]
        for index in (target, source)
    ]
    update = layer.node_update(functional.silu(layer.node_hidden(torch.cat([normed, *sums], dim=1))))
    return nodes + update, edges + layer.edge_update(hidden)


def edge_index(layout: GraphLayout, graphs: int) -> tuple[Tensor, Tensor]:
    """Source and target of every edge of a batch of equal graphs, in the order of the blocks."""
    sources, targets = [], []
    for block in layout.blocks:
        G, O, I, _ = block.value_index.shape
        sources.append(block.sources[:, None, :].expand(G, O, I).reshape(-1))
        targets.append(block.targets[:, :, None].expand(G, O, I).reshape(-1))
    shift = torch.arange(graphs, device=layout.node_kind.device)[:, None] * layout.num_nodes
    return (torch.cat(sources) + shift).reshape(-1), (torch.cat(targets) + shift).reshape(-1)


def interleaved(functions: list[Callable[[], tuple[Tensor, Tensor]]]) -> list[list[float]]:
    """Seconds of forward and backward of each function, in turn, after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in functions]
    for number in range(ROUNDS + 1):
        for function, times in zip(functions, seconds, strict=True):
            started = time.perf_counter()
            new_nodes, new_edges = function()
            (new_nodes.square().mean() + new_edges.square().mean()).backward()
            if new_nodes.is_cuda:
                torch.cuda.synchronize()
            if number:
                times.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
