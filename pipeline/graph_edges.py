"""Every edge of a template as columns: what PyTorch Geometric, the symmetries and drawings work with.

Reads   the blocks of a `GraphTemplate`
Writes  `Edges`, by way of ``GraphTemplate.edges``
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pipeline.parameter_graph import Block, GraphTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """The edges of a template, one entry per edge, in the order fixed by the blocks: group, target, source, tap."""

    edge_index: Int64[np.ndarray, "2 num_edges"]
    """Row 0 the source node, row 1 the target; activations flow from source to target."""
    value_index: Int64[np.ndarray, " num_edges"]
    """Position in ``values`` of the edge's scalar."""
    block: Int64[np.ndarray, " num_edges"]
    kind: Int64[np.ndarray, " num_edges"]
    """An ``EdgeKind``."""
    chain: Int64[np.ndarray, " num_edges"]
    """Index into ``GraphTemplate.chains``."""
    tap: Int64[np.ndarray, " num_edges"]
    """Row-major index of the kernel tap; 0 where there is one."""
    site: Int64[np.ndarray, " num_edges"]
    """Position of the source that is read, as an index into the sites of ``GraphTemplate.grids``."""


def expand(template: GraphTemplate) -> Edges:
    """All edges of all blocks: ``num_edges`` entries a column."""
    columns = [_block_edges(number, block) for number, block in enumerate(template.blocks)]
    source, target, value_index, number, kind, chain, tap, site = np.concatenate(columns, axis=1)
    return Edges(
        edge_index=np.stack([source, target]),
        value_index=value_index,
        block=number,
        kind=kind,
        chain=chain,
        tap=tap,
        site=site,
    )


def _block_edges(number: int, block: Block) -> Int64[np.ndarray, "8 num_edges"]:
    """Source, target, value index, block, kind, chain, tap and site of the edges of one block, in edge order."""
    G, O, I, T = shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)

    def per_source(numbers: Int64[np.ndarray, " all_sources"]) -> np.ndarray:
        return np.broadcast_to(numbers.reshape(G, 1, I, 1), shape)

    columns = [
        per_source(block.sources),
        np.broadcast_to(block.targets.reshape(G, O, 1, 1), shape),
        block.value_index,
        np.full(shape, number),
        np.full(shape, int(block.kind)),
        per_source(block.source_chain),
        np.broadcast_to(np.arange(T), shape),
        per_source(block.source_site),
    ]
    return np.stack([column.reshape(-1) for column in columns])
