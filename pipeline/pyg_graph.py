"""Parameter graphs as PyTorch Geometric data, for any model of ``torch_geometric.nn``.

Reads   a `ParameterGraph`
Writes  a ``torch_geometric.data.Data``; its columns are listed in `to_pyg`

Our own metanetworks do not use this: they read whole batches of values of one template (`training.graph_batch`).
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch_geometric.data import Data

from pipeline.graph_kinds import MAX_RANK, Chain, EdgeKind, NodeKind
from pipeline.parameter_graph import Block, GraphTemplate, ParameterGraph, relative_coordinates, right_align

CHAIN_LENGTH = 8
"""Columns of the chains; the same for all templates, so that their graphs can be batched."""
NO_VALUE = -(2**62)
"""``value_index`` of edges without a value: so far below zero that it stays there whatever a batch adds."""
FLOAT32 = np.finfo(np.float32)
RANKED = (NodeKind.INPUT, NodeKind.POSITION, NodeKind.TOKEN)


class ParameterGraphData(Data):
    """A ``Data`` whose ``value_index`` stays right in a batch, where it points into the joined values of all graphs."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "value_index":
            return max(int(value.max()) + 1, 0)  # every value is carried by an edge
        return super().__inc__(key, value, *args, **kwargs)


def to_pyg(graph: ParameterGraph) -> ParameterGraphData:
    """One ``Data`` per network. All its tensors but ``edge_attr`` belong to the template: do not write to them.

    ``x``              float32 ``[num_nodes, 15]``: node kind (one-hot, 12); depth from the input and to the output, 0
                       to 1; rank among inputs, outputs, positions or tokens, 0 to 1, and -1 for hidden nodes
    ``edge_index``     int64 ``[2, num_edges]``: source above target
    ``edge_attr``      float32 ``[num_edges, 38]``: the edge's factor, which is its value, or the constant of an edge
                       without a value; 1 where that constant is minus infinity (a mask, whose factor stands as 0);
                       tap relative to its kernel (3), -1 to 1; site that is read (7) and site that is written (7), as
                       in ``GraphTemplate.site_features``; edge kind (one-hot, 19)
    ``edge_geometry``  float32 ``[num_edges, 18]``: kernel size, stride, padding, dilation, output padding and map size,
                       3 columns each, right-aligned, and 0 where there is none
    ``edge_chain``     int64 ``[num_edges, 8]``: the operations the source has passed, as `Operation` in order, then 0
    ``node_chain``     int64 ``[num_nodes, 8]``: the operations on what edges bring: how statistics are taken or
                       channels normalised, and those between an output node and the output
    ``node_kind``      int64 ``[num_nodes]``: a `NodeKind`
    ``edge_kind``      int64 ``[num_edges]``: an `EdgeKind`
    ``value_index``    int64 ``[num_edges]``: place in the values, below 0 where an edge has none; in a batch, in the
                       values of its graphs, joined

    Raises:
        ValueError: a chain is longer than eight operations.
    """
    fixed, edges, places = _kept(graph.template)
    edge_attr = fixed["edge_attr"].clone()
    edge_attr.numpy()[edges, 0] = graph.values[places]
    data = copy.copy(fixed)
    data.edge_attr = edge_attr
    return data


@lru_cache(maxsize=256)
def _kept(template: GraphTemplate) -> tuple[ParameterGraphData, slice | np.ndarray, np.ndarray]:
    """`without_values`, of the last few templates."""
    return without_values(template)


def without_values(template: GraphTemplate) -> tuple[ParameterGraphData, slice | np.ndarray, np.ndarray]:
    """Everything but the values, whose places in column 0 of ``edge_attr`` do not count; the edges that carry a value,
    and the place of each in the values."""
    edges, chains = template.edges, chain_table(template.chains)
    attributes = np.concatenate([_edge_features(block, template) for block in template.blocks])
    geometry = np.stack([_geometry(block) for block in template.blocks])
    carrying = edges.value_index >= 0
    data = ParameterGraphData(
        x=torch.from_numpy(_node_features(template)),
        edge_index=torch.from_numpy(edges.edge_index),
        edge_attr=torch.from_numpy(attributes),
        edge_geometry=torch.from_numpy(geometry[edges.block]),
        edge_chain=torch.from_numpy(chains[edges.chain]),
        node_chain=torch.from_numpy(_node_chains(template)),
        edge_kind=torch.from_numpy(edges.kind),
        node_kind=torch.from_numpy(template.node_kind),
        value_index=torch.from_numpy(np.where(edges.value_index < 0, NO_VALUE, edges.value_index)),
    )
    return data, slice(None) if carrying.all() else np.flatnonzero(carrying), edges.value_index[carrying]


def chain_table(chains: Sequence[Chain]) -> Int64[np.ndarray, "num_chains 8"]:
    """The operations of every chain in order, 0 after the last.

    Raises:
        ValueError: a chain is longer than the table.
    """
    table = np.zeros((len(chains), CHAIN_LENGTH), dtype=np.int64)
    for row, chain in zip(table, chains, strict=True):
        if len(chain) > CHAIN_LENGTH:
            names = " ".join(step.operation.name for step in chain)
            raise ValueError(f"a chain has {len(chain)} operations ({names}); to_pyg has columns for {CHAIN_LENGTH}")
        row[: len(chain)] = [int(step.operation) for step in chain]
    return table


def _node_chains(template: GraphTemplate) -> Int64[np.ndarray, "num_nodes 8"]:
    """The operations of a node's set, then those between it and the output."""
    of_set = np.repeat([nodes.chain for nodes in template.node_sets], [nodes.count for nodes in template.node_sets])
    of_output = np.zeros(template.num_nodes, dtype=np.int64)
    of_output[template.outputs] = template.output_chain
    pairs, place = np.unique(np.stack([of_set, of_output]), axis=1, return_inverse=True)
    return chain_table([template.chains[first] + template.chains[then] for first, then in pairs.T.tolist()])[place]


def _edge_features(block: Block, template: GraphTemplate) -> Float32[np.ndarray, "num_edges 38"]:
    """``edge_attr`` of the edges of one block, but for values."""
    shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)
    masked = np.isneginf(block.constant)
    factor = np.clip(np.where(masked, 0.0, block.constant), FLOAT32.min, FLOAT32.max)
    per_source = np.concatenate(
        [
            np.stack([factor, masked], axis=1),
            template.site_features[block.source_site],
            template.site_features[block.target_site],
        ],
        axis=1,
    ).reshape(block.num_groups, 1, block.num_sources, 1, -1)
    factors, sites = (np.broadcast_to(part, (*shape, part.shape[-1])) for part in np.split(per_source, [2], axis=-1))
    taps = np.broadcast_to(relative_coordinates(block.kernel_size), (*shape, MAX_RANK))
    kind = np.broadcast_to(np.eye(len(EdgeKind))[block.kind], (*shape, len(EdgeKind)))
    columns = np.concatenate([factors, taps, sites, kind], axis=-1, dtype=np.float32)
    return columns.reshape(block.num_edges, -1)


def _geometry(block: Block) -> Float32[np.ndarray, " 18"]:
    sizes = (block.kernel_size, block.stride, block.padding, block.dilation, block.output_padding, block.map_size)
    return np.array([right_align(size, 0) for size in sizes], dtype=np.float32).reshape(6 * MAX_RANK)


def _node_features(template: GraphTemplate) -> Float32[np.ndarray, "num_nodes 15"]:
    one_hot = np.eye(len(NodeKind), dtype=np.float32)[template.node_kind]
    depth = np.stack([template.depth_from_input, template.depth_to_output], axis=1)
    rank = template.node_rank.astype(np.float32)
    last = [nodes.count - 1 if nodes.kind in RANKED else 0 for nodes in template.node_sets]
    last = np.repeat(last, [nodes.count for nodes in template.node_sets])
    last[template.outputs] = len(template.outputs) - 1
    rank = np.where(rank > 0, rank / np.maximum(last, 1), rank)
    return np.concatenate([one_hot, depth / max(1, int(depth.max())), rank[:, None]], axis=1).astype(np.float32)
