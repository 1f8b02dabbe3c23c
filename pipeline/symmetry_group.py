"""The symmetry group of a template: all its automorphisms, as a tree of symmetric groups and wreath products.

    group = symmetry_group(template)
    group.order, group.describe()      # 20922789888000, "S(16)"
    relabelling = group.sample(rng)    # node i is relabelled relabelling[i]

Reads   a `GraphTemplate`
Writes  a `SymmetryGroup`

Neurons of a dense layer are exchanged freely: S(16). Where layers in groups, heads, residual sums or norms tie nodes
together, whole rows of nodes are exchanged, and within each row what its own symmetries allow: the wreath product
S(4) wr S(2) exchanges two groups of four channels, and the channels of each. The rows are found by refining colours,
removing the arcs that colours determine, and looking at what still hangs together (`pipeline.coloured_graph`). What
hangs together and is still alike is searched: every vertex of a colour is tried as the image of one, and found or
refused for good.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import factorial, prod

import numpy as np
from jaxtyping import Int64

from pipeline.coloured_graph import ColouredGraph, fall_apart, isomorphism, refine, single_out, smallest_choice
from pipeline.factor_graph import factor_graph
from pipeline.parameter_graph import GraphTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class SymmetryGroup:
    """A group of relabellings, the direct product of its factors, which move different nodes."""

    num_nodes: int
    factors: "tuple[Wreath | Search, ...]"
    """By the smallest node they move; none in the trivial group."""

    @property
    def order(self) -> int:
        """How many relabellings there are."""
        return prod(factor.order for factor in self.factors)

    @property
    def generators(self) -> Iterator[Int64[np.ndarray, " num_nodes"]]:
        """Relabellings whose products are the whole group, one by one."""
        for factor in self.factors:
            for moved, images in factor.generators():
                relabelling = np.arange(self.num_nodes)
                relabelling[moved] = images
                yield relabelling

    def sample(self, rng: np.random.Generator) -> Int64[np.ndarray, " num_nodes"]:
        """A relabelling, each with the same probability: node ``i`` is relabelled ``result[i]``."""
        relabelling = np.arange(self.num_nodes)
        for factor in self.factors:
            factor.sample(relabelling, rng)
        return relabelling

    def describe(self) -> str:
        """The group in a line: ``S(64)^3 x S(4) wr S(2)``; ``G(6)`` is a group of order 6 that was searched."""
        texts = [factor.describe() for factor in self.factors]
        powers = [
            text if (count := texts.count(text)) == 1 else f"{f'({text})' if ' ' in text else text}^{count}"
            for text in dict.fromkeys(texts)
        ]
        return " x ".join(powers) or "1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Wreath:
    """Rows of nodes that are permuted freely, and in each of them, on its own, what ``inside`` allows."""

    rows: Int64[np.ndarray, "count width"]
    """Two rows at least; a permutation of rows keeps the columns."""
    inside: SymmetryGroup
    """Of the columns."""

    @property
    def order(self) -> int:
        return factorial(len(self.rows)) * self.inside.order ** len(self.rows)

    def generators(self) -> Iterator[tuple[Int64[np.ndarray, "..."], Int64[np.ndarray, "..."]]]:
        """Nodes and their images: two rows exchanged, all rows in turn, and one row within itself."""
        yield self.rows[:2], self.rows[1::-1]
        if len(self.rows) > 2:
            yield self.rows, np.roll(self.rows, -1, axis=0)
        for columns in self.inside.generators:
            yield self.rows[0], self.rows[0, columns]

    def sample(self, relabelling: Int64[np.ndarray, " num_nodes"], rng: np.random.Generator) -> None:
        """Write the images of the nodes that are moved."""
        images = rng.permutation(self.rows)
        if self.inside.factors:
            images = np.stack([row[self.inside.sample(rng)] for row in images])
        relabelling[self.rows] = images

    def describe(self) -> str:
        inside = self.inside.describe()
        if not self.inside.factors:
            return f"S({len(self.rows)})"
        return f"{f'({inside})' if set(' ^') & set(inside) else inside} wr S({len(self.rows)})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """A group that is no product of rows: one of its relabellings for each place a node can go to, times those that
    leave this node where it is."""

    nodes: Int64[np.ndarray, " width"]
    moves: Int64[np.ndarray, "count width"]
    """Permutations of the columns of ``nodes``; the first is the identity."""
    stabiliser: SymmetryGroup
    """Of the columns."""

    @property
    def order(self) -> int:
        return len(self.moves) * self.stabiliser.order

    def generators(self) -> Iterator[tuple[Int64[np.ndarray, "..."], Int64[np.ndarray, "..."]]]:
        """Nodes and their images."""
        for columns in (*self.moves[1:], *self.stabiliser.generators):
            yield self.nodes, self.nodes[columns]

    def sample(self, relabelling: Int64[np.ndarray, " num_nodes"], rng: np.random.Generator) -> None:
        """Write the images of the nodes that are moved."""
        move = self.moves[rng.integers(len(self.moves))]
        relabelling[self.nodes] = self.nodes[move[self.stabiliser.sample(rng)]]

    def describe(self) -> str:
        return f"G({self.order})"


Factor = Wreath | Search


def symmetry_group(template: GraphTemplate) -> SymmetryGroup:
    """All automorphisms of a template: the relabellings that keep kinds, ranks and chains of nodes, map edges onto
    edges with equal labels, and keep shared values together.

    Edges that carry values must differ in an end or their label (`pipeline.symmetry.check` refuses others).
    """
    graph = refine(factor_graph(template))
    return _restricted(graph_symmetries(graph), np.arange(template.num_nodes))


def graph_symmetries(graph: ColouredGraph) -> SymmetryGroup:
    """All permutations of vertices that keep colours and arcs.

    Pieces that are isomorphic are exchanged freely, and others never; each has its own symmetries.
    """
    if not len(smallest_choice(graph)):
        return SymmetryGroup(num_nodes=graph.num_vertices, factors=())
    pieces = fall_apart(graph)
    if len(pieces) == 1:
        vertices, piece = pieces[0]
        factors = [_placed(factor, vertices) for factor in _searched(piece)]
        return SymmetryGroup(num_nodes=graph.num_vertices, factors=tuple(factors))
    alike: dict[bytes, list[tuple[ColouredGraph, list[Int64[np.ndarray, " width"]]]]] = {}
    for vertices, piece in pieces:
        classes = alike.setdefault(piece.signature, [])
        for example, rows in classes:
            found = isomorphism(example, piece)
            if found is not None:
                rows.append(vertices[found])
                break
        else:
            classes.append((piece, [vertices]))
    factors: list[Factor] = []
    for classes in alike.values():
        for example, rows in classes:
            inside = graph_symmetries(example)
            if len(rows) > 1:
                factors.append(Wreath(rows=np.stack(rows), inside=inside))
            else:
                factors.extend(_placed(factor, rows[0]) for factor in inside.factors)
    return SymmetryGroup(num_nodes=graph.num_vertices, factors=tuple(sorted(factors, key=_smallest_node)))


def _searched(graph: ColouredGraph) -> tuple[Factor, ...]:
    """The symmetries of a connected graph: where one vertex can go, times the symmetries that leave it in place."""
    choice = smallest_choice(graph).tolist()
    [(order, fixed)] = single_out([graph], choice[:1])
    factors = tuple(_placed(factor, order) for factor in graph_symmetries(fixed).factors)
    stabiliser = SymmetryGroup(num_nodes=graph.num_vertices, factors=factors)
    generators = list(stabiliser.generators)
    moves = _orbit(choice[0], generators, graph.num_vertices)
    for other in choice[1:]:
        if other in moves:
            continue
        (places, fixed), (other_places, other_fixed) = single_out([graph, graph], [choice[0], other])
        found = isomorphism(fixed, other_fixed)
        if found is not None:
            move = np.empty(graph.num_vertices, dtype=np.int64)
            move[places] = other_places[found]
            generators.append(move)
            moves = _orbit(choice[0], generators, graph.num_vertices)
    if len(moves) == 1:
        return factors
    everything = np.arange(graph.num_vertices)
    return (Search(nodes=everything, moves=np.stack(list(moves.values())), stabiliser=stabiliser),)


def _orbit(
    vertex: int, generators: list[Int64[np.ndarray, " n"]], num_vertices: int
) -> dict[int, Int64[np.ndarray, " n"]]:
    """Where products of the generators take a vertex, with one product each."""
    moves = {vertex: np.arange(num_vertices)}
    waiting = [vertex]
    while waiting:
        move = moves[waiting.pop()]
        for generator in generators:
            image = int(generator[move[vertex]])
            if image not in moves:
                moves[image] = generator[move]
                waiting.append(image)
    return moves


def _placed(factor: Factor, vertices: Int64[np.ndarray, " n"]) -> Factor:
    """A factor of the symmetries of a piece, as one of the graph whose vertices these are."""
    match factor:
        case Wreath(rows=rows, inside=inside):
            return Wreath(rows=vertices[rows], inside=inside)
        case Search(nodes=nodes, moves=moves, stabiliser=stabiliser):
            return Search(nodes=vertices[nodes], moves=moves, stabiliser=stabiliser)


def _restricted(group: SymmetryGroup, kept: Int64[np.ndarray, " n"]) -> SymmetryGroup:
    """What a group does to some of its nodes, which it maps onto themselves; ``kept`` numbers them anew."""
    number = np.full(group.num_nodes, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    factors: list[Factor] = []
    for factor in group.factors:
        match factor:
            case Wreath(rows=rows, inside=inside):
                columns = _kept_columns(number[rows[0]])
                inside = _restricted(inside, columns)
                restricted = Wreath(rows=number[rows[:, columns]], inside=inside)
            case Search(nodes=nodes, moves=moves, stabiliser=stabiliser):
                columns = _kept_columns(number[nodes])
                place = np.full(len(nodes), -1, dtype=np.int64)
                place[columns] = np.arange(len(columns))
                stabiliser = _restricted(stabiliser, columns)
                restricted = Search(nodes=number[nodes[columns]], moves=place[moves[:, columns]], stabiliser=stabiliser)
        if len(columns):
            factors.append(restricted)
    return SymmetryGroup(num_nodes=len(kept), factors=tuple(sorted(factors, key=_smallest_node)))


def _kept_columns(numbers: Int64[np.ndarray, " width"]) -> Int64[np.ndarray, " kept"]:
    """Those with a number, sorted by it."""
    order = np.argsort(numbers)
    return order[numbers[order] >= 0]


def _smallest_node(factor: Factor) -> int:
    return int((factor.rows if isinstance(factor, Wreath) else factor.nodes).min())
