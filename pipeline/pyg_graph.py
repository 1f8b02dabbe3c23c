"""Parameter graphs as PyTorch Geometric data, for any model of ``torch_geometric.nn``.

Reads   a `ParameterGraph`
Writes  a ``torch_geometric.data.Data``; its columns are listed in `to_pyg`

Our own metanetworks do not use this: they read whole batches of values of one template (`training.graph_batch`).
"""

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch_geometric.data import Data

from pipeline.parameter_graph import (
    MAX_RANK,
    Block,
    EdgeKind,
    GraphTemplate,
    NodeKind,
    ParameterGraph,
    coordinates,
    relative,
    right_align,
)

CHAIN_LENGTH = 8
"""Columns of the chains; the same for all templates, so that their graphs can be batched."""


class ParameterGraphData(Data):
    """A ``Data`` whose ``value_index`` stays right in a batch, where it points into the joined values of all graphs."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "value_index":
            return int(value.max()) + 1  # every value is carried by an edge
        return super().__inc__(key, value, *args, **kwargs)


def to_pyg(graph: ParameterGraph) -> ParameterGraphData:
    """One ``Data`` per network. All its tensors but ``edge_attr`` belong to the template: do not write to them.

    ``x``              float32 ``[num_nodes, 7]``: node kind (one-hot, 4); depth from the input and to the output, 0 to
                       1; rank among inputs or outputs, 0 to 1, and -1 for hidden nodes
    ``edge_index``     int64 ``[2, num_edges]``: source above target
    ``edge_attr``      float32 ``[num_edges, 11]``: the value; tap relative to its kernel (3) and position relative to
                       its map (3), each -1 to 1, and 0 where there is none; edge kind (one-hot, 4)
    ``edge_geometry``  float32 ``[num_edges, 15]``: kernel size, stride, padding, dilation and map size, 3 columns each,
                       right-aligned, and 0 where there is none
    ``edge_chain``     int64 ``[num_edges, 8]``: the operations the source has passed, as `Operation` in order, then 0
    ``node_chain``     int64 ``[num_nodes, 8]``: the operations between an output node and the output
    ``node_kind``      int64 ``[num_nodes]``: a `NodeKind`
    ``edge_kind``      int64 ``[num_edges]``: an `EdgeKind`
    ``value_index``    int64 ``[num_edges]``: place in the values; in a batch, in the values of its graphs, joined

    Raises:
        ValueError: a chain is longer than eight operations.
    """
    data = copy.copy(_without_values(graph.template))
    edge_attr = data["edge_attr"].clone()
    edge_attr[:, 0] = torch.from_numpy(graph.values)[data["value_index"]]
    data.edge_attr = edge_attr
    return data


@lru_cache(maxsize=256)
def _without_values(template: GraphTemplate) -> ParameterGraphData:
    """Everything but the values, which stand as zeros in column 0 of ``edge_attr``."""
    edges, chains = template.edges, chain_table(template)
    taps = np.concatenate([_taps(block) for block in template.blocks])
    geometry = np.stack([_geometry(block) for block in template.blocks])
    position = relative(template.site_position, template.site_extents)[edges.site]
    one_hot_kind = np.eye(len(EdgeKind), dtype=np.float32)[edges.kind]
    values = np.zeros((len(edges.kind), 1), dtype=np.float32)
    return ParameterGraphData(
        x=torch.from_numpy(_node_features(template)),
        edge_index=torch.from_numpy(edges.edge_index),
        edge_attr=torch.from_numpy(np.concatenate([values, taps, position, one_hot_kind], axis=1)),
        edge_geometry=torch.from_numpy(geometry[edges.block]),
        edge_chain=torch.from_numpy(chains[edges.chain]),
        node_chain=torch.from_numpy(chains[template.node_chain]),
        edge_kind=torch.from_numpy(edges.kind),
        node_kind=torch.from_numpy(template.node_kind),
        value_index=torch.from_numpy(edges.value_index),
    )


def chain_table(template: GraphTemplate) -> Int64[np.ndarray, "num_chains 8"]:
    """The operations of every chain in order, 0 after the last.

    Raises:
        ValueError: a chain is longer than the table.
    """
    table = np.zeros((len(template.chains), CHAIN_LENGTH), dtype=np.int64)
    for row, chain in zip(table, template.chains, strict=True):
        if len(chain) > CHAIN_LENGTH:
            names = " ".join(step.operation.name for step in chain)
            raise ValueError(f"a chain has {len(chain)} operations ({names}); to_pyg has columns for {CHAIN_LENGTH}")
        row[: len(chain)] = [int(step.operation) for step in chain]
    return table


def _taps(block: Block) -> Float32[np.ndarray, "num_edges 3"]:
    """Tap of every edge of a block, relative to its kernel."""
    extents = np.tile(np.array(right_align(block.kernel_size, 1)), (block.num_taps, 1))
    return np.tile(relative(coordinates(block.kernel_size), extents), (block.num_edges // block.num_taps, 1))


def _geometry(block: Block) -> Float32[np.ndarray, " 15"]:
    sizes = (block.kernel_size, block.stride, block.padding, block.dilation, block.map_size)
    return np.array([right_align(size, 0) for size in sizes], dtype=np.float32).reshape(5 * MAX_RANK)


def _node_features(template: GraphTemplate) -> Float32[np.ndarray, "num_nodes 7"]:
    one_hot = np.eye(len(NodeKind), dtype=np.float32)[template.node_kind]
    depth = np.stack([template.depth_from_input, template.depth_to_output], axis=1)
    rank = template.node_rank.astype(np.float32)
    for kind in (NodeKind.INPUT, NodeKind.OUTPUT):
        mine = template.node_kind == kind
        rank[mine] /= max(1, int(mine.sum()) - 1)
    return np.concatenate([one_hot, depth / max(1, int(depth.max())), rank[:, None]], axis=1).astype(np.float32)
