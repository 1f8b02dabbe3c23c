"""Parameter graphs as PyTorch Geometric data, for any model of ``torch_geometric.nn``.

Reads   a `ParameterGraph`
Writes  a ``torch_geometric.data.Data``; its columns are listed in `to_pyg`

Our own metanetworks do not use this: they read whole batches of values of one template (`training.graph_batch`).
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch_geometric.data import Data

from pipeline.parameter_graph import (
    MAX_RANK,
    EdgeKind,
    GraphTemplate,
    NodeKind,
    ParameterGraph,
    coordinates,
    right_align,
)


def to_pyg(graph: ParameterGraph) -> Data:
    """One ``Data`` per network; tensors that depend on the template alone are shared between its graphs and must not be
    written to.

    ``x`` float32 ``[num_nodes, 7]``: node kind (one-hot, 4), depth from input and to output (0 to 1), rank among inputs
    or outputs (0 to 1; -1 for hidden nodes) · ``edge_index`` int64 ``[2, num_edges]``, source above target ·
    ``edge_attr`` float32 ``[num_edges, 11]``: the value; tap relative to its kernel (3) and position relative to its
    map (3), each -1 to 1 and 0 where there is none; edge kind (one-hot, 4) · ``edge_chain`` int64 ``[num_edges, longest
    chain]``: the operations the source has passed, as `Operation` in order, 0 after the last · ``value_index`` int64
    ``[num_edges]`` · ``node_kind``, ``edge_kind`` int64.
    """
    static = _static(graph.template)
    data = Data(**static)
    edge_attr = static["edge_attr"].clone()
    edge_attr[:, 0] = torch.from_numpy(graph.values)[static["value_index"]]
    data.edge_attr = edge_attr
    return data


@lru_cache(maxsize=256)
def _static(template: GraphTemplate) -> dict[str, torch.Tensor]:
    """Everything but the values, which stand as zeros in column 0 of ``edge_attr``."""
    edges = template.edges
    one_hot_kind = np.eye(len(EdgeKind), dtype=np.float32)[edges.kind]
    position = relative(template.site_position, template.site_extents)[edges.site]
    empty = np.zeros((len(edges.kind), 1), dtype=np.float32)
    return {
        "x": torch.from_numpy(_node_features(template)),
        "edge_index": torch.from_numpy(edges.edge_index),
        "edge_attr": torch.from_numpy(np.concatenate([empty, _taps(template), position, one_hot_kind], axis=1)),
        "edge_chain": torch.from_numpy(chain_table(template)[edges.chain]),
        "edge_kind": torch.from_numpy(edges.kind),
        "node_kind": torch.from_numpy(template.node_kind),
        "value_index": torch.from_numpy(edges.value_index),
    }


def relative(position: Int64[np.ndarray, "n 3"], extents: Int64[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Coordinates from -1 (first) to 1 (last) of their axis; 0 on axes of one position and where there is no axis."""
    scaled = 2 * position / np.maximum(extents - 1, 1) - 1
    return np.where(extents > 1, scaled, 0).astype(np.float32)


def chain_table(template: GraphTemplate) -> Int64[np.ndarray, "num_chains longest"]:
    """The operations of every chain in order, 0 after the last; at least one column."""
    longest = max(1, *map(len, template.chains))
    table = np.zeros((len(template.chains), longest), dtype=np.int64)
    for row, chain in zip(table, template.chains, strict=True):
        row[: len(chain)] = [int(step.operation) for step in chain]
    return table


def _taps(template: GraphTemplate) -> Float32[np.ndarray, "num_edges 3"]:
    """Tap of every edge, relative to its kernel."""
    edges = template.edges
    taps = np.empty((len(edges.tap), MAX_RANK), dtype=np.float32)
    for number, block in enumerate(template.blocks):
        extents = np.tile(np.array(right_align(block.kernel_size, 1)), (block.num_taps, 1))
        mine = edges.block == number
        taps[mine] = relative(coordinates(block.kernel_size), extents)[edges.tap[mine]]
    return taps


def _node_features(template: GraphTemplate) -> Float32[np.ndarray, "num_nodes 7"]:
    one_hot = np.eye(len(NodeKind), dtype=np.float32)[template.node_kind]
    depth = np.stack([template.depth_from_input, template.depth_to_output], axis=1)
    rank = template.node_rank.astype(np.float32)
    for kind in (NodeKind.INPUT, NodeKind.OUTPUT):
        mine = template.node_kind == kind
        rank[mine] /= max(1, int(mine.sum()) - 1)
    columns = [one_hot, depth / max(1, int(depth.max())), rank[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)
