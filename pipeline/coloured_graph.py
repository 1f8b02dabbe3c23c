"""Graphs with coloured vertices and arcs: refinement, falling apart into pieces, and isomorphisms between them.

Reads   a `ColouredGraph`
Writes  finer colourings, pieces, isomorphisms

Individualisation and refinement, as in nauty and bliss (McKay and Piperno 2014, arXiv:1301.1493): colours are refined
until they are equitable (one-dimensional Weisfeiler and Leman), then one vertex is given a colour of its own, and so
on. The difference is `fall_apart`: pieces that refinement has separated are searched one by one.

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

    @property
    def is_discrete(self) -> bool:
        """Whether every vertex has a colour of its own, so that nothing can be exchanged."""
        return len(np.unique(self.colour)) == self.num_vertices

    @cached_property
    def content(self) -> bytes:
        """The same for equal graphs of one size, vertex by vertex and arc by arc."""
        return self.colour.tobytes() + self.ends.tobytes() + self.arc_colour.tobytes()

    @cached_property
    def signature(self) -> tuple[bytes, bytes]:
        """The same for isomorphic graphs: how many vertices and arcs there are of which colours."""
        arcs = np.concatenate([self.colour[self.ends], self.arc_colour[None]])
        return np.sort(self.colour).tobytes(), arcs[:, np.lexsort(arcs)].tobytes()


Piece = tuple[Int64[np.ndarray, " _num_vertices"], ColouredGraph]
"""Vertices of a larger graph, sorted by colour, and the graph they form; its arcs are sorted."""


class Refusals:
    """The wrong choices of a search, and what they cost: the vertices and arcs that were refined to refuse them.

    Right choices are few: an automorphism takes one for each level of the search, and doubles the group at least. Wrong
    ones may be more than any polynomial says: Cai, Fürer and Immerman (1992) build such graphs. They are counted, not
    timed, so that a search is finished or given up on every machine alike.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """Vertices and arcs refined."""
        self.count = 0
        self.refined = 0

    def add(self, graph: ColouredGraph) -> None:
        """A vertex of a graph was refused as the image of another.

        Raises:
            ValueError: the refusals have cost more than they may.
        """
        self.count += 1
        self.refined += 2 * (graph.num_vertices + len(graph.arc_colour))
        if self.refined > self.most:
            raise ValueError(
                f"{self.count:,} times a vertex was refused as the image of another, the last time in a piece of "
                f"{graph.num_vertices:,} vertices and {len(graph.arc_colour):,} arcs, which refined {self.refined:,} "
                f"vertices and arcs altogether, more than {self.most:,}"
            )


def number_rows(columns: Int64[np.ndarray, "width n"]) -> Int64[np.ndarray, " n"]:
    """A number per row, from 0, equal where the rows are equal and greater where they are greater."""
    order = np.lexsort(columns[::-1])
    ordered = columns[:, order]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(np.r_[False, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)][: len(order)])
    return numbers


def refine(graph: ColouredGraph) -> ColouredGraph:
    """Tell vertices apart by the colours around them, until that tells no more apart: the colouring is equitable."""
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


def isomorphism(
    first: ColouredGraph, second: ColouredGraph, refusals: Refusals
) -> Int64[np.ndarray, " num_vertices"] | None:
    """The vertex of the second graph for every one of the first, so that colours and arcs agree; None if there is none.

    Pieces are matched one by one, in any order, because being isomorphic is an equivalence.

    Raises:
        ValueError: too much was refused.
    """
    if first.signature != second.signature:
        return None
    if first.content == second.content:
        return np.arange(first.num_vertices)
    pieces, waiting = fall_apart(first), fall_apart(second)
    if len(pieces) != len(waiting):
        return None
    compare = isomorphism if len(pieces) > 1 else _searched_isomorphism
    unmatched: dict[tuple[bytes, bytes], list[Piece]] = {}
    for targets, other in waiting:
        unmatched.setdefault(other.signature, []).append((targets, other))
    result = np.empty(first.num_vertices, dtype=np.int64)
    for vertices, piece in pieces:
        candidates = unmatched.get(piece.signature, [])
        for place, (targets, other) in enumerate(candidates):
            found = compare(piece, other, refusals)
            if found is not None:
                result[vertices] = targets[found]
                del candidates[place]
                break
        else:
            return None
    return result


def target_cell(graph: ColouredGraph) -> Int64[np.ndarray, " count"]:
    """The vertices of one colour, to single out one of them: the colour with most kinds of arcs, of several the rarest.

    For a connected piece, whose arcs are not determined by colours; then a colour with many kinds of arcs splits many
    others (maximally non-trivially joined cells: Junttila and Kaski 2007, McKay and Piperno 2014). A rarest colour
    alone may be a trap: rows of a Latin square would be singled out one after another before any column, in all orders.
    """
    _, of_vertex, count = np.unique(graph.colour, return_inverse=True, return_counts=True)
    ends = of_vertex[graph.ends]
    _, example = np.unique(number_rows(np.concatenate([ends, graph.arc_colour[None]])), return_index=True)
    num_kinds = np.bincount(ends[:, example].reshape(-1), minlength=len(count))
    order = np.lexsort((count, -num_kinds))
    return np.flatnonzero(of_vertex == order[count[order] > 1][0])


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


def _searched_isomorphism(
    first: ColouredGraph, second: ColouredGraph, refusals: Refusals
) -> Int64[np.ndarray, " num_vertices"] | None:
    """An isomorphism of connected pieces: one vertex is tried on all of its colour."""
    vertex = int(target_cell(first)[0])
    for candidate in np.flatnonzero(second.colour == first.colour[vertex]).tolist():
        (places, fixed), (other_places, other_fixed) = single_out([first, second], [vertex, candidate])
        found = isomorphism(fixed, other_fixed, refusals)
        if found is not None:
            result = np.empty(first.num_vertices, dtype=np.int64)
            result[places] = other_places[found]
            return result
        refusals.add(second)
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
