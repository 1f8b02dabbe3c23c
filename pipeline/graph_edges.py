"""Every edge of a template as columns: what PyTorch Geometric, the symmetries and drawings work with.

Reads   the blocks of a `GraphTemplate`
Writes  `Edges`, by way of ``GraphTemplate.edges``
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from pipeline.parameter_graph import Block, GraphTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """The edges of a template, one entry per edge, in the order fixed by the blocks: group, target, source, tap."""

    edge_index: Int64[np.ndarray, "2 num_edges"]
    """Row 0 the source node, row 1 the target; activations flow from source to target."""
    value_index: Int64[np.ndarray, " num_edges"]
    """Position in ``values`` of the edge's scalar; -1 where it carries none."""
    block: Int64[np.ndarray, " num_edges"]
    kind: Int64[np.ndarray, " num_edges"]
    """An ``EdgeKind``."""
    chain: Int64[np.ndarray, " num_edges"]
    """Index into ``GraphTemplate.chains``."""
    tap: Int64[np.ndarray, " num_edges"]
    """Row-major index of the kernel tap; 0 where there is one."""
    site: Int64[np.ndarray, " num_edges"]
    """Which positions of the source are read, as a number of ``GraphTemplate.region``."""
    target_site: Int64[np.ndarray, " num_edges"]
    """Which positions of the target they go to."""
    constant: Float64[np.ndarray, " num_edges"]
    """Factor of what an edge without a value brings; 1 for all others."""


def expand(template: GraphTemplate) -> Edges:
    """All edges of all blocks: ``num_edges`` entries a column."""
    columns = [_block_edges(number, block) for number, block in enumerate(template.blocks)]
    joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    source, target = joined.pop("source"), joined.pop("target")
    return Edges(edge_index=np.stack([source, target]), **joined)


def _block_edges(number: int, block: Block) -> dict[str, Shaped[np.ndarray, " num_edges"]]:
    """The columns of one block, in edge order."""
    G, O, I, T = shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)

    def per_source(numbers: Shaped[np.ndarray, " all_sources"]) -> np.ndarray:
        return np.broadcast_to(numbers.reshape(G, 1, I, 1), shape)

    columns = {
        "source": per_source(block.sources),
        "target": np.broadcast_to(block.targets.reshape(G, O, 1, 1), shape),
        "value_index": block.value_index,
        "block": np.full(shape, number),
        "kind": np.full(shape, int(block.kind)),
        "chain": per_source(block.source_chain),
        "tap": np.broadcast_to(np.arange(T), shape),
        "site": per_source(block.source_site),
        "target_site": per_source(block.target_site),
        "constant": per_source(block.constant),
    }
    return {name: column.reshape(-1) for name, column in columns.items()}
