"""The graph that has the symmetries of a template, and is much smaller than its edges.

Reads   a `GraphTemplate`
Writes  a `ColouredGraph`, whose first vertices are the template's nodes

A vertex per node and per factor (`pipeline.edge_factors`) has the relabellings for symmetries that map edges onto edges
with equal labels. Where values are shared, more vertices let those alone through that keep shared values together: ties
of what targets and sources carry, or, where these do not tell, every edge and every value (`pipeline.value_ties`).
"""

from enum import IntEnum

import numpy as np
from jaxtyping import Int64

from pipeline.coloured_graph import ColouredGraph, number_rows
from pipeline.edge_factors import Factors, number_runs, read_factors, run_starts
from pipeline.parameter_graph import GraphTemplate
from pipeline.value_ties import TiedEdges, Ties, read_tied_edges, read_ties


class Sort(IntEnum):
    """Of vertices."""

    NODE = 0
    FACTOR = 1
    TARGET_SLOT = 2
    SOURCE_SLOT = 3
    TIE = 4
    FAMILY = 5
    EDGE = 6
    VALUE = 7


class Arc(IntEnum):
    """Colours of arcs; those from ``SOURCE`` on are labels of sources."""

    TARGET = 0
    SLOT_FACTOR = 1
    SLOT_NODE = 2
    SLOT_TIE = 3
    TIE_FAMILY = 4
    EDGE_SOURCE = 5
    EDGE_TARGET = 6
    EDGE_VALUE = 7
    SOURCE = 8


class _Parts:
    """Vertices and arcs of a graph in the making."""

    def __init__(self) -> None:
        self.num_vertices = 0
        self.vertices: list[np.ndarray] = []
        self.arcs: list[np.ndarray] = []

    def add(self, sort: Sort, *features: np.ndarray) -> Int64[np.ndarray, " n"]:
        """New vertices, coloured by their sort and features (five at most)."""
        count = len(features[0])
        table = np.zeros((6, count), dtype=np.int64)
        table[0] = sort
        table[1 : 1 + len(features)] = features
        self.vertices.append(table)
        self.num_vertices += count
        return np.arange(self.num_vertices - count, self.num_vertices)

    def join(self, first: np.ndarray, second: np.ndarray, colour: np.ndarray | int) -> None:
        """New arcs."""
        self.arcs.append(np.stack([first, second, np.broadcast_to(colour, first.shape)]).astype(np.int64))

    def graph(self) -> ColouredGraph:
        arcs = np.concatenate(self.arcs, axis=1)
        return ColouredGraph(
            colour=number_rows(np.concatenate(self.vertices, axis=1)), ends=arcs[:2], arc_colour=arcs[2]
        )


def factor_graph(template: GraphTemplate) -> ColouredGraph:
    """A graph on the nodes of a template, and more vertices, whose symmetries move the nodes as automorphisms do.

    Each symmetry is determined by what it does to the nodes, unless two edges have the same ends and label.
    """
    factors = read_factors(template)
    tied = read_tied_edges(template, factors)
    ties = read_ties(factors, tied)
    parts = _Parts()
    depth = (template.depth_from_input, template.depth_to_output)  # follow from the edges, and save rounds of refining
    parts.add(Sort.NODE, template.node_kind, template.node_rank, template.node_chain, *depth)
    factor_vertices = parts.add(Sort.FACTOR, factors.geometry)
    target_slots = _add_targets(parts, factors, ties, factor_vertices)
    source_slots = _add_sources(parts, factors, ties, factor_vertices)
    _add_ties(parts, ties, np.concatenate([target_slots, source_slots]))
    _add_edges(parts, factors, tied, ties)
    return parts.graph()


def _add_targets(
    parts: _Parts, factors: Factors, ties: Ties, factor_vertices: Int64[np.ndarray, " num_factors"]
) -> Int64[np.ndarray, " num_targets"]:
    """Join factors and targets, through a slot where there are ties; the slots' vertices, -1 where there is none."""
    tied = ties.by_ties[factors.target[1]]
    node, factor = factors.target[:, ~tied]
    parts.join(factor_vertices[factor], node, Arc.TARGET)
    node, factor = factors.target[:, tied]
    slots = np.full(len(tied), -1, dtype=np.int64)
    slots[tied] = parts.add(Sort.TARGET_SLOT, np.zeros_like(node))
    parts.join(slots[tied], factor_vertices[factor], Arc.SLOT_FACTOR)
    parts.join(slots[tied], node, Arc.SLOT_NODE)
    return slots


def _add_sources(
    parts: _Parts, factors: Factors, ties: Ties, factor_vertices: Int64[np.ndarray, " num_factors"]
) -> Int64[np.ndarray, " num_sources"]:
    """Join sources and factors, through a slot where there are ties; the slots' vertices, -1 where there is none."""
    tied = ties.by_ties[factors.source[0]]
    (factor, node), colour = _bundled(factors.source[:, ~tied])
    parts.join(node, factor_vertices[factor], Arc.SOURCE + colour)
    factor, node, label = factors.source[:, tied]
    slots = np.full(len(tied), -1, dtype=np.int64)
    slots[tied] = parts.add(Sort.SOURCE_SLOT, label)
    parts.join(slots[tied], factor_vertices[factor], Arc.SLOT_FACTOR)
    parts.join(slots[tied], node, Arc.SLOT_NODE)
    return slots


def _add_ties(parts: _Parts, ties: Ties, slots: Int64[np.ndarray, " num_slots"]) -> None:
    """Join the slots that are tied to their tie, and ties to their family."""
    numbers, example, tie = np.unique(ties.tie, return_index=True, return_inverse=True)
    families, family = np.unique(ties.family[example], return_inverse=True)
    tie_vertices = parts.add(Sort.TIE, np.zeros_like(numbers))
    family_vertices = parts.add(Sort.FAMILY, np.zeros_like(families))
    parts.join(slots[ties.slot], tie_vertices[tie], Arc.SLOT_TIE)
    parts.join(tie_vertices, family_vertices[family], Arc.TIE_FAMILY)


def _add_edges(parts: _Parts, factors: Factors, tied: TiedEdges, ties: Ties) -> None:
    """Join edges with shared values that no ties describe to their ends, whose vertices are the nodes, and values."""
    chosen = tied.shared & ties.by_edges[factors.target[1, tied.target]]
    (target, factor), (_, source, label) = (
        factors.target[:, tied.target[chosen]],
        factors.source[:, tied.source[chosen]],
    )
    numbers, value = np.unique(tied.value[chosen], return_inverse=True)
    edges = parts.add(Sort.EDGE, factors.geometry[factor], label, tied.tap[chosen])
    values = parts.add(Sort.VALUE, np.zeros_like(numbers))
    parts.join(edges, source, Arc.EDGE_SOURCE)
    parts.join(edges, target, Arc.EDGE_TARGET)
    parts.join(edges, values[value], Arc.EDGE_VALUE)


def _bundled(source: Int64[np.ndarray, "3 n"]) -> tuple[Int64[np.ndarray, "2 m"], Int64[np.ndarray, " m"]]:
    """Each factor and source once, as there is one arc between two vertices, with a colour for the labels together.

    A single label is its own colour; the colours of several, equal where they are, come after those.
    """
    starts = run_starts(source[:2])
    colour = source[2, starts]
    several = np.diff(np.r_[starts, source.shape[1]]) > 1
    if several.any():
        colour = np.where(several, source[2].max() + 1 + number_runs(source[2], starts), colour)
    return source[:2, starts], colour
