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
refused for good, which gives a stabiliser chain (Sims 1970).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import factorial, prod

import numpy as np
from jaxtyping import Int64

from pipeline.coloured_graph import (
    ColouredGraph,
    Piece,
    Refusals,
    fall_apart,
    isomorphism,
    refine,
    single_out,
    target_cell,
)
from pipeline.factor_graph import factor_graph
from pipeline.parameter_graph import GraphTemplate

MOST_REFINED = 2**24
"""Vertices and arcs that may be refined to refuse wrong choices in the search of one template: about a minute's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SymmetryGroup:
    """A group of relabellings, the direct product of its factors, which move different nodes."""

    num_nodes: int
    factors: "tuple[Wreath | StabiliserChain, ...]"
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
class StabiliserChain:
    """A group that is no product of rows: one of its relabellings for each place a node can go to, times those that
    leave this node where it is.

    The relabellings to all places would be a large table; they are products along a Schreier tree instead.
    """

    nodes: Int64[np.ndarray, " width"]
    generating: Int64[np.ndarray, "few width"]
    """Permutations of the columns of ``nodes`` that generate the group."""
    parent: Int64[np.ndarray, " places"]
    """The place one generator before each place, an earlier one; the first is where the node is, and its own parent."""
    step: Int64[np.ndarray, " places"]
    """The row of that generator; for the first place it means nothing."""
    stabiliser: SymmetryGroup
    """Of the columns."""

    @property
    def order(self) -> int:
        return len(self.parent) * self.stabiliser.order

    def generators(self) -> Iterator[tuple[Int64[np.ndarray, "..."], Int64[np.ndarray, "..."]]]:
        """Nodes and their images."""
        for columns in self.generating:
            yield self.nodes, self.nodes[columns]

    def sample(self, relabelling: Int64[np.ndarray, " num_nodes"], rng: np.random.Generator) -> None:
        """Write the images of the nodes that are moved."""
        place, steps = int(rng.integers(len(self.parent))), []
        while place:
            steps.append(self.step[place])
            place = int(self.parent[place])
        columns = self.stabiliser.sample(rng)
        for step in reversed(steps):
            columns = self.generating[step, columns]
        relabelling[self.nodes] = self.nodes[columns]

    def describe(self) -> str:
        return f"G({self.order})"


Factor = Wreath | StabiliserChain

PieceClass = tuple[ColouredGraph, list[Int64[np.ndarray, " width"]]]
"""A piece, and its vertices for every piece isomorphic to it, itself included, so that columns correspond."""


def symmetry_group(template: GraphTemplate) -> SymmetryGroup:
    """All automorphisms of a template: the relabellings that keep kinds, ranks and chains of nodes, map edges onto
    edges with equal labels, and keep shared values together.

    Edges that carry values must differ in an end or their label (`pipeline.symmetry.check` refuses others).

    Raises:
        ValueError: the search was given up, after wrong choices that cost ``MOST_REFINED``.
    """
    graph = refine(factor_graph(template))
    try:
        group = graph_symmetries(graph, Refusals(MOST_REFINED))
    except ValueError as error:
        raise ValueError(
            f"the search for the symmetry group of {template!r} was given up: {error}. Wiring or shared values that "
            "look the same from every neuron may cost this; take the architecture with fewer neurons, or go without "
            "its group: pictures, datasets and training do not ask for it"
        ) from error
    return _restricted(group, np.arange(template.num_nodes))


def graph_symmetries(graph: ColouredGraph, refusals: Refusals) -> SymmetryGroup:
    """All permutations of vertices that keep colours and arcs.

    Pieces that are isomorphic are exchanged freely, and others never; each has its own symmetries.

    Raises:
        ValueError: too much was refused.
    """
    pieces = [] if graph.is_discrete else fall_apart(graph)
    if len(pieces) == 1:
        [(vertices, piece)] = pieces
        factors = [_placed(factor, vertices) for factor in _searched(piece, refusals)]
    else:
        classes = _isomorphism_classes(pieces, refusals)
        factors = [factor for example, rows in classes for factor in _exchanged(example, rows, refusals)]
    return SymmetryGroup(num_nodes=graph.num_vertices, factors=tuple(sorted(factors, key=_smallest_node)))


def _isomorphism_classes(pieces: list[Piece], refusals: Refusals) -> list[PieceClass]:
    alike: dict[tuple[bytes, bytes], list[PieceClass]] = {}
    for vertices, piece in pieces:
        classes = alike.setdefault(piece.signature, [])
        for example, rows in classes:
            found = isomorphism(example, piece, refusals)
            if found is not None:
                rows.append(vertices[found])
                break
        else:
            classes.append((piece, [vertices]))
    return [one for classes in alike.values() for one in classes]


def _exchanged(
    example: ColouredGraph, rows: list[Int64[np.ndarray, " width"]], refusals: Refusals
) -> tuple[Factor, ...]:
    """The symmetries of the pieces of a class: one has its own, several are exchanged too."""
    inside = graph_symmetries(example, refusals)
    if len(rows) > 1:
        return (Wreath(rows=np.stack(rows), inside=inside),)
    return tuple(_placed(factor, rows[0]) for factor in inside.factors)


def _searched(graph: ColouredGraph, refusals: Refusals) -> tuple[Factor, ...]:
    """The symmetries of a connected graph: where one vertex can go, times the symmetries that leave it in place.

    What is known of the group spares tests: of places that its products join, the vertex goes to all or to none.
    """
    vertex, *others = target_cell(graph).tolist()
    [(order, fixed)] = single_out([graph], [vertex])
    factors = tuple(_placed(factor, order) for factor in graph_symmetries(fixed, refusals).factors)
    stabiliser = SymmetryGroup(num_nodes=graph.num_vertices, factors=factors)
    generators = list(stabiliser.generators)
    orbit = _orbit(vertex, generators)
    refused: set[int] = set()
    for other in others:
        if other in orbit or other in refused:
            continue
        (places, fixed), (other_places, other_fixed) = single_out([graph, graph], [vertex, other])
        found = isomorphism(fixed, other_fixed, refusals)
        if found is None:
            refusals.add(graph)
            refused |= _orbit(other, generators).keys()
            continue
        move = np.empty(graph.num_vertices, dtype=np.int64)
        move[places] = other_places[found]
        generators.append(move)
        orbit = _orbit(vertex, generators)
    if len(orbit) == 1:
        return factors
    parent, step = np.array(list(orbit.values()), dtype=np.int64).T
    everything = np.arange(graph.num_vertices)
    return (
        StabiliserChain(
            nodes=everything, generating=np.stack(generators), parent=parent, step=step, stabiliser=stabiliser
        ),
    )


def _orbit(vertex: int, generators: list[Int64[np.ndarray, " n"]]) -> dict[int, tuple[int, int]]:
    """Where products of the generators take a vertex, by the length of the product; for each place, the number of the
    place before it and of the generator between them."""
    orbit, reached = {vertex: (0, 0)}, [vertex]
    for number, place in enumerate(reached):  # which grows meanwhile
        for step, generator in enumerate(generators):
            image = int(generator[place])
            if image not in orbit:
                orbit[image] = (number, step)
                reached.append(image)
    return orbit


def _placed(factor: Factor, vertices: Int64[np.ndarray, " n"]) -> Factor:
    """A factor of the symmetries of a piece, as one of the graph whose vertices these are."""
    match factor:
        case Wreath(rows=rows):
            return replace(factor, rows=vertices[rows])
        case StabiliserChain(nodes=nodes):
            return replace(factor, nodes=vertices[nodes])


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
            case StabiliserChain(nodes=nodes, generating=generating, stabiliser=stabiliser):
                columns = _kept_columns(number[nodes])
                place = np.full(len(nodes), -1, dtype=np.int64)
                place[columns] = np.arange(len(columns))
                restricted = replace(
                    factor,
                    nodes=number[nodes[columns]],
                    generating=place[generating[:, columns]],
                    stabiliser=_restricted(stabiliser, columns),
                )
        if len(columns):
            factors.append(restricted)
    return SymmetryGroup(num_nodes=len(kept), factors=tuple(sorted(factors, key=_smallest_node)))


def _kept_columns(numbers: Int64[np.ndarray, " width"]) -> Int64[np.ndarray, " kept"]:
    """Those with a number, sorted by it."""
    order = np.argsort(numbers)
    return order[numbers[order] >= 0]


def _smallest_node(factor: Factor) -> int:
    return int((factor.rows if isinstance(factor, Wreath) else factor.nodes).min())
