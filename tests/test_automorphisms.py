"""Law B, exhaustively: on tiny networks, the permutations of weights that preserve the function are the template's
automorphisms.

Three independent computations meet. *Products*: all products of permutations of the axes of every tensor, each applied
to random values and evaluated by the module itself. *Automorphisms*: all relabellings of nodes that map edges onto
edges, found by plain backtracking here. *Generated*: what the generators of `symmetry_group` generate.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Int64
from torch import nn

from pipeline.automorphisms import (
    edge_labels,
    exchangeable_nodes,
    exchangeable_rows,
    permute_values,
    sample_automorphism,
)
from pipeline.graph_kinds import NodeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry_group import symmetry_group
from pipeline.tracing import trace
from tests.atlas_networks import NETWORKS
from tiny_networks import Wired
from tiny_operations import ALL, traced
from value_permutations import axis_products, generated, preserving

MOST_PRODUCTS = 60_000
HIDDEN = set(NodeKind) - {NodeKind.INPUT, NodeKind.OUTPUT, NodeKind.POSITION, NodeKind.TOKEN}


def unchanged(name: str, moves: Int64[np.ndarray, "n num_values"]) -> Bool[np.ndarray, " n"]:
    """Which permutations of random values leave the outputs of a tiny network unchanged."""
    return preserving(ALL[name].build().double().eval(), traced(name)[1], ALL[name].shape, moves)


def automorphisms(template: GraphTemplate, kinds: set[NodeKind]) -> set[bytes]:
    """What every automorphism that moves nodes of these kinds only does to the values, by plain backtracking."""
    edges = template.edges
    joined: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for source, target, label, value in zip(
        *edges.edge_index.tolist(), edge_labels(template).tolist(), edges.value_index.tolist(), strict=True
    ):
        joined.setdefault((source, target), []).append((label, value))
    kind = template.node_kind.tolist()
    movable = [node for node in range(template.num_nodes) if kind[node] in kinds]
    order = [*sorted(set(range(template.num_nodes)) - set(movable)), *movable[::-1]]  # what joins others comes last

    def extended(image: dict[int, int], moved: dict[int, int], place: int) -> Iterator[dict[int, int]]:
        """All ways to relabel the nodes from ``place`` on, as maps of values."""
        if place == len(order):
            yield moved
            return
        node = order[place]
        for other in movable if node in movable else [node]:
            if kind[other] != kind[node] or other in image.values():
                continue
            relabelled = image | {node: other}
            more = dict(moved)
            if all(
                match(joined.get((a, b), []), joined.get((relabelled[a], relabelled[b]), []), more)
                for known in relabelled
                for a, b in ((known, node), (node, known))
            ):
                yield from extended(relabelled, more, place + 1)

    def match(before: list[tuple[int, int]], after: list[tuple[int, int]], moved: dict[int, int]) -> bool:
        """Whether parallel edges have the same labels and move their values consistently; notes where the values go."""
        before, after = sorted(before), sorted(after)
        return [label for label, _ in before] == [label for label, _ in after] and all(
            moved.setdefault(value, other) == other for (_, value), (_, other) in zip(before, after, strict=True)
        )

    maps = extended({}, {}, 0)
    return {
        np.array([moved[value] for value in range(template.num_values)], dtype=np.int64).tobytes() for moved in maps
    }


@cache
def hidden_automorphisms(name: str) -> set[bytes]:
    return automorphisms(traced(name)[1], HIDDEN)


@pytest.mark.parametrize("name", ALL)
def test_products_of_axis_permutations_preserve_the_function_exactly_if_they_are_automorphisms(name: str) -> None:
    products = axis_products(traced(name)[1], MOST_PRODUCTS)
    found = {row.tobytes() for row in products[unchanged(name, products)]}
    expected = hidden_automorphisms(name) & {row.tobytes() for row in products}
    assert found == expected


@pytest.mark.parametrize("name", ALL)
def test_every_automorphism_preserves_the_function(name: str) -> None:
    """Those too that exchange values of different tensors, as between two branches."""
    moves = np.stack([np.frombuffer(moved, dtype=np.int64) for moved in hidden_automorphisms(name)])
    assert unchanged(name, moves).all()


@pytest.mark.parametrize("name", ALL)
def test_the_symmetry_group_generates_every_automorphism(name: str) -> None:
    assert generated(traced(name)[1]) == hidden_automorphisms(name)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("linear", [3]),  # 3! orders of one layer
        ("deep linear", [3, 2]),
        ("flatten", [2]),  # channels, but no positions
        ("flatten, one channel", []),
        ("split and joined in another order", [3]),  # the fourth neuron has an activation of its own
        ("twin branches", [2, 2]),  # each has its bias node
        ("twin branches without biases", [4]),
        ("hidden neurons returned", []),
        ("some hidden neurons returned", [2]),
        ("one layer used twice", []),
    ],
)
def test_these_neurons_can_be_exchanged(name: str, sizes: list[int]) -> None:
    assert [len(nodes) for nodes in exchangeable_nodes(traced(name)[1])] == sizes


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("one hidden layer used twice", (3, 3)),  # its inputs, its outputs as inputs again, its outputs
        ("one layer on two halves", (2, 2)),
    ],
)
def test_neurons_of_a_layer_used_twice_move_together(name: str, shape: tuple[int, int]) -> None:
    template = traced(name)[1]
    assert [rows.shape for rows in exchangeable_rows(template)] == [shape]
    assert exchangeable_nodes(template) == []


def test_exchanging_whole_branches_with_their_biases_is_an_automorphism() -> None:
    """2! within each of two branches, times 2! for the branches."""
    assert len(hidden_automorphisms("twin branches")) == 8
    assert len(automorphisms(traced("twin branches")[1], HIDDEN - {NodeKind.BIAS})) == 4


def test_rows_that_shared_values_do_not_follow_are_left_alone() -> None:
    """One layer reads three neurons, and again one place further: rotating them is an automorphism, exchanging two is
    none."""
    module = Wired(
        lambda net, x: (
            lambda h: net.head(torch.cat([net.layer(h), net.layer(torch.cat([h[:, 1:], h[:, :1]], dim=1))], dim=1))
        )(net.hidden(x).tanh()),
        hidden=nn.Linear(1, 3),
        layer=nn.Linear(3, 1),
        head=nn.Linear(2, 1),
    )
    template = trace(module, torch.zeros(1, 1))
    assert len(automorphisms(template, {NodeKind.NEURON})) == 3
    assert exchangeable_rows(template) == []


def test_no_tiny_network_costs_the_search_a_wrong_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.symmetry_group.MOST_REFINED", 0)
    for name in ALL:
        symmetry_group(traced(name)[1])


@pytest.mark.parametrize("family", ["RegNet", "PVTv2", "LLaMA", "Mamba"])
def test_networks_no_one_here_wrote_cost_the_search_no_wrong_choice(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them are searched: heads that share keys, and channels times states."""
    monkeypatch.setattr("pipeline.symmetry_group.MOST_REFINED", 0)
    [network] = [network for network in NETWORKS if network.family == family]
    group = symmetry_group(trace(network.build(), network.example()))
    assert ("G(" in group.describe()) == (family in {"LLaMA", "Mamba"})


def test_samples_reach_every_automorphism() -> None:
    template = traced("deep linear")[1]
    rng = np.random.default_rng(0)
    found = {permute_values(template, sample_automorphism(template, rng)).tobytes() for _ in range(200)}
    assert found == generated(template)
    assert len(found) == 12


def test_relabelled_values_move_with_their_edges() -> None:
    """Neurons 0 and 1 of three, on two inputs: rows 0 and 1 of the first weight, entries of its bias, columns of the
    second."""
    template = traced("linear")[1]
    relabelling = np.array([0, 1, 3, 2, 4, 5, 6, 7, 8])  # inputs 0 and 1, neurons 2 to 4, a bias, outputs, a bias
    expected = [*(2, 3, 0, 1, 4, 5), *(7, 6, 8), *(10, 9, 11, 13, 12, 14), *(15, 16)]
    assert permute_values(template, relabelling).tolist() == expected


def test_a_relabelling_that_is_no_automorphism_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the relabelling maps \d+ of 17 edges onto none of the same label"):
        permute_values(traced("linear")[1], np.array([2, 1, 0, 3, 4, 5, 6, 7, 8]))
    with pytest.raises(ValueError, match="the relabelling pulls a shared value apart"):
        permute_values(traced("one layer used twice")[1], np.array([0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10]))
