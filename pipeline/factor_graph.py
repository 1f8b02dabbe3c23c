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
from pipeline.edge_factors import number_runs, read_factors, run_starts
from pipeline.parameter_graph import GraphTemplate
from pipeline.value_ties import read_tied_edges, read_ties


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

    plain = ~ties.by_ties[factors.target[1]]
    node, factor = factors.target[:, plain]
    parts.join(factor_vertices[factor], node, Arc.TARGET)
    tied_node, tied_factor = factors.target[:, ~plain]
    target_slots = parts.add(Sort.TARGET_SLOT, np.zeros_like(tied_node))
    parts.join(target_slots, factor_vertices[tied_factor], Arc.SLOT_FACTOR)
    parts.join(target_slots, tied_node, Arc.SLOT_NODE)
    slot = np.full(len(plain) + factors.source.shape[1], -1, dtype=np.int64)
    slot[: len(plain)][~plain] = target_slots

    plain = ~ties.by_ties[factors.source[0]]
    (factor, node), colour = _bundled(factors.source[:, plain])
    parts.join(node, factor_vertices[factor], Arc.SOURCE + colour)
    tied_factor, tied_node, label = factors.source[:, ~plain]
    source_slots = parts.add(Sort.SOURCE_SLOT, label)
    parts.join(source_slots, factor_vertices[tied_factor], Arc.SLOT_FACTOR)
    parts.join(source_slots, tied_node, Arc.SLOT_NODE)
    slot[factors.target.shape[1] :][~plain] = source_slots

    tie_numbers, example, tie = np.unique(ties.tie, return_index=True, return_inverse=True)
    families, family = np.unique(ties.family[example], return_inverse=True)
    tie_vertices = parts.add(Sort.TIE, np.zeros_like(tie_numbers))
    parts.join(slot[ties.slot], tie_vertices[tie], Arc.SLOT_TIE)
    parts.join(tie_vertices, parts.add(Sort.FAMILY, np.zeros_like(families))[family], Arc.TIE_FAMILY)

    chosen = tied.shared & ties.by_edges[factors.target[1, tied.target]]
    target, source = tied.target[chosen], tied.source[chosen]
    geometry = factors.geometry[factors.target[1, target]]
    edges = parts.add(Sort.EDGE, geometry, factors.source[2, source], tied.tap[chosen])
    numbers, value = np.unique(tied.value[chosen], return_inverse=True)
    values = parts.add(Sort.VALUE, np.zeros_like(numbers))
    parts.join(edges, factors.source[1, source], Arc.EDGE_SOURCE)
    parts.join(edges, factors.target[0, target], Arc.EDGE_TARGET)
    parts.join(edges, values[value], Arc.EDGE_VALUE)
    return parts.graph()


def _bundled(source: Int64[np.ndarray, "3 n"]) -> tuple[Int64[np.ndarray, "2 m"], Int64[np.ndarray, " m"]]:
    """Each factor and source once, and a colour that is the same for the same labels, counted."""
    starts = run_starts(source[:2])
    colour = source[2, starts]
    several = np.diff(np.r_[starts, source.shape[1]]) > 1
    if several.any():
        colour = np.where(several, source[2].max() + 1 + number_runs(source[2], starts), colour)
    return source[:2, starts], colour
