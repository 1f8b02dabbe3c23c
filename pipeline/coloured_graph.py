"""Graphs with coloured vertices and arcs: refinement, falling apart into pieces, and isomorphisms between them.

Reads   a `ColouredGraph`
Writes  finer colourings, pieces, isomorphisms

Everything here is exact. Colours are refined by hashes, and equal hashes of different neighbourhoods would leave them
coarser than they could be; that costs time alone, because no vertex is mapped to another on the word of its colour:
an isomorphism is returned when all arcs have been compared, and refused when every choice has been tried.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, kw_only=True, eq=False)
class ColouredGraph:
    """At most one arc from a vertex to another, and none within a colour."""

    colour: Int64[np.ndarray, " num_vertices"]
    """Isomorphisms keep it; graphs that are compared have their colours in common."""
    ends: Int64[np.ndarray, "2 num_arcs"]
    arc_colour: Int64[np.ndarray, " num_arcs"]

    @property
    def num_vertices(self) -> int:
        return len(self.colour)

    @cached_property
    def content(self) -> bytes:
        """The same for equal graphs, vertex by vertex and arc by arc."""
        return self.colour.tobytes() + self.ends.tobytes() + self.arc_colour.tobytes()

    @cached_property
    def signature(self) -> bytes:
        """The same for isomorphic graphs: how many vertices and arcs there are of which colours."""
        if not len(self.arc_colour):
            return np.sort(self.colour).tobytes()
        arcs = np.concatenate([self.colour[self.ends], self.arc_colour[None]])
        return np.concatenate([np.sort(self.colour), arcs[:, np.lexsort(arcs)].reshape(-1)]).tobytes()


Piece = tuple[Int64[np.ndarray, " _num_vertices"], ColouredGraph]
"""Vertices of a larger graph, sorted by colour, and the graph they form; its arcs are sorted."""


def number_rows(columns: Int64[np.ndarray, "width n"]) -> Int64[np.ndarray, " n"]:
    """A number per row, from 0, equal where the rows are equal and greater where they are greater."""
    order = np.lexsort(columns[::-1])
    ordered = columns[:, order]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(np.r_[False, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)][: len(order)])
    return numbers


def refine(graph: ColouredGraph) -> ColouredGraph:
    """Tell vertices apart by the colours around them, until that tells no more apart."""
    first, second = graph.ends
    ends, others = np.concatenate([first, second]), np.concatenate([second, first])
    role = np.concatenate([2 * graph.arc_colour, 2 * graph.arc_colour + 1])
    order = np.argsort(ends, kind="stable")
    others, role = others[order], _hash(role[order].astype(np.uint64))
    starts = np.searchsorted(ends[order], np.arange(graph.num_vertices + 1))
    colour = number_rows(graph.colour[None])
    while True:
        around = np.cumsum(_hash(role + colour[others].astype(np.uint64)))
        around = np.concatenate([np.zeros(1, dtype=np.uint64), around])
        finer = number_rows(np.stack([colour, (around[starts[1:]] - around[starts[:-1]]).view(np.int64)]))
        if finer.max(initial=0) == colour.max(initial=0):
            return ColouredGraph(colour=colour, ends=graph.ends, arc_colour=graph.arc_colour)
        colour = finer


def fall_apart(graph: ColouredGraph) -> list[Piece]:
    """The connected pieces that remain without the arcs that colours alone determine.

    Where every vertex of one colour is joined to every one of another, the most frequent of these arcs' colours says
    nothing: it is where no other is. The permutations that keep the pieces' colours and arcs are those of the graph.
    """
    first, second = graph.colour[graph.ends]
    joint = number_rows(np.stack([first, second]))
    kind = number_rows(np.stack([joint, graph.arc_colour]))
    _, of_colour, size = np.unique(graph.colour, return_inverse=True, return_counts=True)
    size = size[of_colour][graph.ends].prod(axis=0)
    full = np.bincount(joint)[joint] == size if len(joint) else np.zeros(0, dtype=bool)
    kept = ~(full & _most_frequent(joint, kind))
    remaining = ColouredGraph(colour=graph.colour, ends=graph.ends[:, kept], arc_colour=graph.arc_colour[kept])
    ones = np.ones(int(kept.sum()), dtype=np.int8)
    adjacency = coo_array((ones, (remaining.ends[0], remaining.ends[1])), shape=(graph.num_vertices,) * 2)
    return split(remaining, connected_components(adjacency, directed=False)[1].astype(np.int64))


def split(graph: ColouredGraph, piece: Int64[np.ndarray, " num_vertices"]) -> list[Piece]:
    """The parts of a graph with the same number, in the order of the numbers; no arc joins two of them."""
    vertices = np.lexsort((graph.colour, piece))
    starts = np.searchsorted(piece[vertices], np.arange(piece.max(initial=-1) + 2))
    place = np.empty_like(vertices)
    place[vertices] = np.arange(len(vertices)) - starts[piece[vertices]]
    of_arc = piece[graph.ends[0]]
    arcs = np.lexsort((graph.arc_colour, place[graph.ends[1]], place[graph.ends[0]], of_arc))
    arc_starts = np.searchsorted(of_arc[arcs], np.arange(len(starts)))
    colour, ends, arc_colour = graph.colour[vertices], place[graph.ends[:, arcs]], graph.arc_colour[arcs]
    pieces: list[Piece] = []
    for begin, end, first, last in zip(
        *(starts[:-1].tolist(), starts[1:].tolist(), arc_starts[:-1].tolist(), arc_starts[1:].tolist()), strict=True
    ):
        part = ColouredGraph(colour=colour[begin:end], ends=ends[:, first:last], arc_colour=arc_colour[first:last])
        pieces.append((vertices[begin:end], part))
    return pieces


def isomorphism(first: ColouredGraph, second: ColouredGraph) -> Int64[np.ndarray, " num_vertices"] | None:
    """The vertex of the second graph for every one of the first, so that colours and arcs agree; None if there is none.

    Pieces are matched one by one, in any order, because being isomorphic is an equivalence.
    """
    if first.num_vertices != second.num_vertices or first.signature != second.signature:
        return None
    if first.content == second.content:
        return np.arange(first.num_vertices)
    pieces, waiting = fall_apart(first), fall_apart(second)
    if len(pieces) != len(waiting):
        return None
    if len(pieces) == 1:
        return _searched_isomorphism(pieces[0], waiting[0])
    unmatched: dict[bytes, list[Piece]] = {}
    for targets, other in waiting:
        unmatched.setdefault(other.signature, []).append((targets, other))
    result = np.empty(first.num_vertices, dtype=np.int64)
    for vertices, piece in pieces:
        candidates = unmatched.get(piece.signature, [])
        for place, (targets, other) in enumerate(candidates):
            found = isomorphism(piece, other)
            if found is not None:
                result[vertices] = targets[found]
                del candidates[place]
                break
        else:
            return None
    return result


def smallest_choice(graph: ColouredGraph) -> Int64[np.ndarray, " count"]:
    """The vertices of a colour that few have, but more than one; none where every vertex has its own."""
    colours, counts = np.unique(graph.colour, return_counts=True)
    if counts.max(initial=1) == 1:
        return np.zeros(0, dtype=np.int64)
    counts[counts == 1] = counts.max() + 1
    return np.flatnonzero(graph.colour == colours[np.argmin(counts)])


def single_out(graphs: list[ColouredGraph], vertices: list[int]) -> list[Piece]:
    """The graphs refined, together, after one vertex of each was given a new colour."""
    offsets = np.cumsum([0, *(graph.num_vertices for graph in graphs)])
    colour = np.concatenate([graph.colour for graph in graphs])
    colour[offsets[:-1] + np.array(vertices)] = colour.max() + 1
    ends = np.concatenate([graph.ends + offset for graph, offset in zip(graphs, offsets[:-1], strict=True)], axis=1)
    arc_colour = np.concatenate([graph.arc_colour for graph in graphs])
    joined = refine(ColouredGraph(colour=colour, ends=ends, arc_colour=arc_colour))
    number = np.repeat(np.arange(len(graphs)), np.diff(offsets))
    return [
        (places - offset, piece) for (places, piece), offset in zip(split(joined, number), offsets[:-1], strict=True)
    ]


def _searched_isomorphism(first: Piece, second: Piece) -> Int64[np.ndarray, " num_vertices"] | None:
    """An isomorphism of connected pieces that need not be their vertices' order: one vertex is tried on all others."""
    (vertices, piece), (targets, other) = first, second
    result = np.empty(piece.num_vertices, dtype=np.int64)
    if piece.num_vertices != other.num_vertices or piece.signature != other.signature:
        return None
    if piece.content == other.content:
        result[vertices] = targets
        return result
    choice = smallest_choice(piece)
    for candidate in smallest_choice(other).tolist() if len(choice) else []:
        (places, fixed), (other_places, other_fixed) = single_out([piece, other], [int(choice[0]), candidate])
        found = isomorphism(fixed, other_fixed)
        if found is not None:
            result[vertices[places]] = targets[other_places[found]]
            return result
    return None


def _most_frequent(
    joint: Int64[np.ndarray, " num_arcs"], kind: Int64[np.ndarray, " num_arcs"]
) -> Bool[np.ndarray, " num_arcs"]:
    """Whether an arc is of the most frequent kind among those with the same two colours; the first of several."""
    if not len(kind):
        return np.zeros(0, dtype=bool)
    kinds, position, count = np.unique(kind, return_index=True, return_counts=True)
    order = np.lexsort((kinds, -count, joint[position]))
    leads = np.r_[True, np.diff(joint[position][order]) > 0]
    chosen = np.zeros(len(kinds), dtype=bool)
    chosen[order[leads]] = True
    return chosen[kind]


def _hash(numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """The finaliser of splitmix64 (Steele et al. 2014), a bijection that scatters neighbouring numbers."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
