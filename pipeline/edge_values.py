"""How large the values of some networks are, by the kind of edge that carries them.

Reads   the values of at most `SAMPLED` graphs of a dataset, spread evenly over its table
Writes  nothing
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.export_rows import order_on_disk
from pipeline.graph_kinds import EdgeKind
from pipeline.graph_store import GraphDataset
from pipeline.parameter_graph import GraphTemplate

SAMPLED = 200
MOST_VALUES = 4096
"""Of one graph and kind; of more, some that are spread evenly."""


def values_by_kind(dataset: GraphDataset) -> dict[EdgeKind, Float32[np.ndarray, " some"]]:
    """Values of a sample that is the same every time, each counted once for every kind of edge that carries it."""
    found: dict[EdgeKind, list[np.ndarray]] = {}
    places: dict[str, dict[EdgeKind, Int64[np.ndarray, " some"]]] = {}
    order = order_on_disk(dataset.table)
    for index in order[spread(len(order), SAMPLED)].tolist():
        graph, digest = dataset[index], dataset.table["template"][index].as_py()
        if digest not in places:
            places[digest] = places_by_kind(graph.template)
        for kind, some in places[digest].items():
            found.setdefault(kind, []).append(graph.values[some])
    return {kind: np.concatenate(found[kind]) for kind in sorted(found)}


def places_by_kind(template: GraphTemplate) -> dict[EdgeKind, Int64[np.ndarray, " some"]]:
    """Positions in the values that edges of each kind carry."""
    places: dict[EdgeKind, list[np.ndarray]] = {}
    for block in template.blocks:
        if block.kind.carries_value:
            index = replace(block).value_index  # of a copy, which is forgotten: a block keeps its own
            places.setdefault(block.kind, []).append(np.unique(index))
    joined = {kind: np.unique(np.concatenate(some)) for kind, some in places.items()}
    return {kind: some[spread(len(some), MOST_VALUES)] for kind, some in joined.items()}


def spread(count: int, most: int) -> Int64[np.ndarray, " some"]:
    """All numbers below ``count``, or ``most`` of them from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
