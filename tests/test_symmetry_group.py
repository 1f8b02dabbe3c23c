"""Groups of hand-built templates with an order derived beside them, and of random tiny ones, which are enumerated here.

The slow reference tries every permutation of nodes of the same kind, and knows nothing of factors, ties or pieces.
"""

from collections.abc import Callable, Iterator
from itertools import chain as joined
from itertools import permutations, product
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int64

from drawn_templates import (
    PASS,
    WEIGHT,
    Drawing,
    circulant,
    depthwise,
    embedding_used_transposed,
    every_pair,
    grouped,
    heads,
    layer_used_twice,
    one_slope,
    perceptron,
    read_in_two_orders,
    residual,
    split_in_two_blocks,
    twin_branches,
    two_towers,
)
from pipeline.automorphisms import (
    _ordered,
    carry_values,
    cycle,
    edge_labels,
    exchangeable_nodes,
    exchangeable_rows,
    permute_values,
    sample_automorphism,
)
from pipeline.graph_kinds import NodeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry_group import symmetry_group

GROUPS: dict[Callable[[], GraphTemplate], tuple[int, str]] = {
    perceptron: (120 * 6, "S(5) x S(3)"),
    layer_used_twice: (6, "S(3)"),
    two_towers: (24, "S(4)"),
    embedding_used_transposed: (6, "S(3)"),
    depthwise: (120, "S(5)"),
    grouped: ((6 * 2) ** 2 * 2, "(S(3) x S(2)) wr S(2)"),
    residual: (6 * 120**2, "S(3) x S(5)^2"),
    twin_branches: (2**2 * 2, "S(2) wr S(2)"),
    heads: ((6 * 2) ** 2 * 2, "(S(3) x S(2)) wr S(2)"),
    read_in_two_orders: (3, "G(3)"),
    circulant: (100, "G(100)"),  # i -> a i + b, j -> a j + c: 4 * 5 * 5
    split_in_two_blocks: (120, "S(5)"),
    every_pair: (12, "G(12)"),
    one_slope: (120, "S(5)"),
}


def automorphisms(template: GraphTemplate) -> set[tuple[int, ...]]:
    """All, by the definition."""
    edges = template.edges
    ends = list(zip(*edges.edge_index.tolist(), edge_labels(template).tolist(), strict=True))
    value_of = dict(zip(ends, edges.value_index.tolist(), strict=True))
    assert len(value_of) == len(ends)
    feature = np.stack([template.node_kind, template.node_rank, template.node_chain]).T.tolist()
    alike: dict[tuple[int, ...], list[int]] = {}
    for node, numbers in enumerate(feature):
        alike.setdefault(tuple(numbers), []).append(node)
    found: set[tuple[int, ...]] = set()
    for orders in product(*(permutations(nodes) for nodes in alike.values())):
        image = dict(zip(joined.from_iterable(alike.values()), joined.from_iterable(orders), strict=True))
        moved = [(value_of[edge], value_of.get((image[edge[0]], image[edge[1]], edge[2]))) for edge in ends]
        if len(set(moved)) == len({old for old, _ in moved}) == len({new for _, new in moved} - {None}):
            found.add(tuple(image[node] for node in range(template.num_nodes)))
    return found


def closure(generators: Iterator[Int64[np.ndarray, " num_nodes"]], num_nodes: int) -> set[tuple[int, ...]]:
    """All products."""
    moves = [tuple(generator.tolist()) for generator in generators]
    found = {tuple(range(num_nodes))}
    waiting = list(found)
    while waiting:
        before = waiting.pop()
        for after in (tuple(move[node] for node in before) for move in moves):
            if after not in found:
                found.add(after)
                waiting.append(after)
    return found


@pytest.mark.parametrize("build", GROUPS, ids=lambda build: build.__name__)
def test_the_group_has_the_order_and_the_structure_derived_by_hand(build: Callable[[], GraphTemplate]) -> None:
    group = symmetry_group(build())
    assert (group.order, group.describe()) == GROUPS[build]


@pytest.mark.parametrize("build", GROUPS, ids=lambda build: build.__name__)
def test_generators_are_automorphisms_and_generate_as_many_as_the_order_says(
    build: Callable[[], GraphTemplate],
) -> None:
    template = build()
    group = symmetry_group(template)
    for relabelling in group.generators:
        permute_values(template, relabelling)
    if group.order < 1000:
        assert len(closure(group.generators, template.num_nodes)) == group.order


@pytest.mark.parametrize("build", GROUPS, ids=lambda build: build.__name__)
def test_samples_are_automorphisms(build: Callable[[], GraphTemplate]) -> None:
    template, rng = build(), np.random.default_rng(0)
    group = symmetry_group(template)
    assert len({permute_values(template, group.sample(rng)).tobytes() for _ in range(20)}) > 1


@pytest.mark.parametrize("build", [twin_branches, layer_used_twice, read_in_two_orders, every_pair])
def test_samples_reach_every_automorphism_equally_often(build: Callable[[], GraphTemplate]) -> None:
    """200 samples for each of at most 12: a count beyond 130 to 270 is five standard deviations away."""
    template, rng = build(), np.random.default_rng(0)
    group = symmetry_group(template)
    counts = dict.fromkeys(closure(group.generators, template.num_nodes), 0)
    for _ in range(200 * group.order):
        counts[tuple(group.sample(rng).tolist())] += 1
    assert len(counts) == group.order
    assert min(counts.values()) > 130
    assert max(counts.values()) < 270


def test_sample_automorphism_is_a_sample_of_the_group() -> None:
    template = perceptron()
    expected = symmetry_group(template).sample(np.random.default_rng(2))
    assert np.array_equal(sample_automorphism(template, np.random.default_rng(2)), expected)


def test_a_branch_moves_with_its_bias_node() -> None:
    """Inputs 0 and 1, neurons 2 and 3 with bias 4, neurons 5 and 6 with bias 7."""
    [branches] = [rows for rows in exchangeable_rows(twin_branches()) if rows.shape[1] > 1]
    assert branches.tolist() == [[2, 3, 4], [5, 6, 7]]
    assert [nodes.tolist() for nodes in exchangeable_nodes(twin_branches())] == [[2, 3], [5, 6]]


def test_a_residual_stream_is_one_set_of_rows() -> None:
    widths = {rows.shape for rows in exchangeable_rows(residual())}
    assert widths == {(3, 5), (5, 1)}  # three channels, each with two that are added and two sums


def test_a_network_unrolled_over_steps_keeps_its_tie_though_the_first_step_has_no_memory() -> None:
    """Five neurons at three steps; the first reads the input alone, so targets carry values of two tensors or one."""
    drawing = Drawing(3)
    own, memory, before = drawing.values(5), drawing.values(25), []
    for node in drawing.inputs:
        state = drawing.nodes(5)
        drawing.block([node], state, target_offset=list(range(own, own + 5)), source_offset=[0])
        if before:
            rows = list(range(memory, memory + 25, 5))
            drawing.block(before, state, target_offset=rows, source_offset=list(range(5)))
        before = state
    template = drawing.template(drawing.layer(before, 2))
    assert symmetry_group(template).describe() == "S(5)"
    assert [rows.shape for rows in exchangeable_rows(template)] == [(5, 3)]


def test_positions_that_are_read_tell_channels_apart_only_if_they_differ() -> None:
    """Three channels read at both positions of a map, a fourth at the first twice over: at 1 and at 1 with a chain."""
    drawing = Drawing(1)
    channels, target = drawing.layer(drawing.inputs, 4), drawing.nodes(1)
    drawing.block([node for node in channels[:3] for _ in range(2)], target, sites=[1, 2, 1, 2, 1, 2])
    drawing.block(channels[3:], target, sites=[1])
    drawing.block(channels[3:], target, sites=[1], chain=1)
    assert symmetry_group(drawing.template(target)).order == factorial(3)


def test_a_network_without_hidden_nodes_has_the_trivial_group() -> None:
    drawing = Drawing(3)
    group = symmetry_group(drawing.template(drawing.layer(drawing.inputs, 2)))
    assert (group.order, group.describe(), list(group.generators)) == (1, "1", [])
    assert group.sample(np.random.default_rng(0)).tolist() == list(range(group.num_nodes))


def test_the_group_of_a_wide_deep_network_is_found_as_a_line() -> None:
    drawing = Drawing(3)
    layers = drawing.inputs
    for width in (211, 211, 97, 211):
        layers = drawing.layer(layers, width)
    group = symmetry_group(drawing.template(drawing.layer(layers, 2)))
    assert group.describe() == "S(211)^3 x S(97)"
    assert group.order == factorial(211) ** 3 * factorial(97)


def tied(table: list[list[int]]) -> GraphTemplate:
    """A weight between hidden layers whose entry in row ``j`` and column ``i`` is the value ``table[j][i]``."""
    drawing = Drawing(1)
    sources, targets = drawing.layer(drawing.inputs, len(table[0])), drawing.nodes(len(table))
    weight = drawing.values(1 + max(map(max, table)))
    for target, row in zip(targets, table, strict=True):
        for source, value in zip(sources, row, strict=True):
            drawing.block([source], [target], target_offset=[weight + value], source_offset=[0])
    return drawing.template(drawing.layer(targets, 1))


def outer_product(num_rows: int, num_columns: int) -> GraphTemplate:
    """As in a state space model: every channel of one layer times every one of another."""
    drawing = Drawing(1)
    rows, columns = drawing.layer(drawing.inputs, num_rows), drawing.layer(drawing.inputs, num_columns)
    table = drawing.nodes(num_rows * num_columns, NodeKind.PRODUCT)
    drawing.block([row for row in rows for _ in columns], table, PASS, groups=len(table), chain=1)
    drawing.block(columns * num_rows, table, PASS, groups=len(table))
    return drawing.template(drawing.layer(table, 1))


ORDERS = list(permutations(range(3)))
BITS, SEVEN, THIRTEEN = range(8), range(7), range(13)
REGULAR: dict[str, tuple[GraphTemplate, int]] = {
    # Cayley tables: i -> a(i) b and j -> c a(j), the values follow; |G|^2 |Aut(G)|
    "cyclic Toeplitz": (tied([[(i - j) % 13 for i in THIRTEEN] for j in THIRTEEN]), 13**2 * 12),
    "bits": (tied([[i ^ j for i in BITS] for j in BITS]), 8**2 * (7 * 6 * 4)),
    "permutations": (tied([[ORDERS.index(tuple(p[k] for k in q)) for q in ORDERS] for p in ORDERS]), 6**2 * 6),
    # points on lines, by perfect difference sets: PGL(3, 2) and PGL(3, 3)
    "plane of order 2": (tied([[int((i - j) % 7 in (1, 2, 4)) for i in SEVEN] for j in SEVEN]), 7 * 6 * 4),
    "plane of order 3": (tied([[int((i - j) % 13 in (0, 1, 3, 9)) for i in THIRTEEN] for j in THIRTEEN]), 5616),
    # GL(4, 2): a map of i, and the inverse of its transpose of j
    "Hadamard": (tied([[(i & j).bit_count() % 2 for i in range(16)] for j in range(16)]), 15 * 14 * 12 * 8),
    "outer product": (outer_product(17, 5), factorial(17) * factorial(5)),
}


@pytest.mark.parametrize("name", REGULAR)
def test_what_looks_the_same_from_every_neuron_is_searched_with_few_wrong_choices(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most four; with the rarest colour first, all three Cayley tables cost more. Few generators are enough."""
    monkeypatch.setattr("pipeline.symmetry_group.MOST_REFINED", 1000)
    template, order = REGULAR[name]
    group = symmetry_group(template)
    assert group.order == order
    assert len(list(group.generators)) < 10
    permute_values(template, group.sample(np.random.default_rng(0)))


LOOP = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 3, 4, 0, 1], [3, 4, 1, 2, 0], [4, 2, 0, 1, 3]]
"""A Latin square that is no group's: refinement sees nothing in it, and most choices are wrong."""


def test_the_symmetries_of_a_latin_square_are_the_rows_and_columns_that_keep_equal_entries_equal() -> None:
    """All 5! x 5! are tried; the values follow."""
    table = np.array(LOOP)
    kept = 0
    for rows, columns in product(permutations(range(5)), repeat=2):
        pairs = np.unique(5 * table + table[np.ix_(rows, columns)])
        kept += len(pairs) == 5
    assert symmetry_group(tied(LOOP)).order == kept


def test_a_search_with_too_many_wrong_choices_is_given_up_and_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = tied(LOOP)
    monkeypatch.setattr("pipeline.symmetry_group.MOST_REFINED", 5000)
    with pytest.raises(ValueError, match=r"symmetry group of GraphTemplate\(14 nodes, .* was given up") as raised:
        symmetry_group(template)
    assert "times a vertex was refused as the image of another" in str(raised.value)
    assert "more than 5,000" in str(raised.value)
    assert "take the architecture with fewer neurons, or go without its group" in str(raised.value)
    with pytest.raises(ValueError, match="was given up") as again:
        symmetry_group(template)
    assert str(again.value) == str(raised.value)


def test_relabellings_that_are_no_automorphisms_are_refused_by_name() -> None:
    template = grouped()  # input 0, channels 1 to 6, a bias 7, channels 8 to 11
    with pytest.raises(ValueError, match=r"maps \d+ of \d+ edges onto none of the same label"):
        permute_values(template, cycle(template, np.array([3, 4])))  # of two groups
    with pytest.raises(ValueError, match="no permutation of the template's 14 nodes"):
        permute_values(template, np.zeros(14, dtype=np.int64))
    with pytest.raises(ValueError, match="pulls a shared value apart"):
        permute_values(circulant(), cycle(circulant(), np.array([1, 2])))


def test_inputs_carry_values_with_them_but_are_no_automorphism() -> None:
    template = perceptron()
    exchanged = cycle(template, template.outputs[:0])
    exchanged[[0, 1]] = [1, 0]
    assert carry_values(template, exchanged)[:10].tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
    with pytest.raises(ValueError, match="maps node 0 onto node 1, whose rank is 1, not 0; 2 nodes change theirs"):
        permute_values(template, exchanged)


def test_edges_are_ordered_alike_where_their_numbers_overflow() -> None:
    rng = np.random.default_rng(0)
    source, target, label = rng.integers(7, size=(3, 211))
    few, many = _ordered(source, target, label, 7), _ordered(source, target, label, 2**31)
    assert np.array_equal(few[0], many[0])


def random_offsets(
    data: st.DataObject, drawing: Drawing, num_targets: int, num_sources: int
) -> tuple[list[int], list[int]]:
    """Of targets and sources, in a tensor, new or used before, straight, transposed or in another order; or of none."""
    shape = (num_targets, num_sources)
    fitting = [tensor for tensor in drawing.tensors if tensor[1:] in (shape, shape[::-1])]
    if data.draw(st.integers(0, 5)) == 0:
        few = st.integers(0, 2)
        first = data.draw(st.integers(0, drawing.num_values)) if drawing.num_values else drawing.values(5)
        drawing.values(max(0, first + 5 - drawing.num_values))
        rows, columns = (data.draw(st.lists(few, min_size=size, max_size=size)) for size in shape)
        return [first + row for row in rows], columns
    if fitting and data.draw(st.integers(0, 3)):
        first, height, width = data.draw(st.sampled_from(fitting))
        straight = (height, width) == shape
        rows = [(width if straight else 1) * row for row in range(num_targets)]
        columns = [(1 if straight else width) * column for column in range(num_sources)]
        if data.draw(st.integers(0, 2)) == 0:
            columns = data.draw(st.permutations(columns))
        return [first + row for row in rows], columns
    drawing.tensors.append((drawing.values(num_targets * num_sources), num_targets, num_sources))
    first = drawing.tensors[-1][0]
    return [first + num_sources * row for row in range(num_targets)], list(range(num_sources))


def tiny_template(data: st.DataObject) -> GraphTemplate:
    """At most six hidden nodes of a kind, and blocks that are dense, diagonal or tied in all ways, between any sets."""
    drawing = Drawing(data.draw(st.integers(1, 2)))
    readable, taken, hidden = [drawing.inputs], set(), 0
    for _ in range(data.draw(st.integers(1, 4))):
        count = data.draw(st.integers(1, min(3, 6 - hidden)))
        hidden += count
        readable.append(drawing.nodes(count, chain=int(data.draw(st.integers(0, 4)) == 0)))
        add_blocks(data, drawing, readable[:-1], readable[-1], taken)
        if hidden == 6:
            break
    outputs = drawing.nodes(data.draw(st.integers(1, 2)))
    add_blocks(data, drawing, readable, outputs, taken)
    return drawing.template(outputs)


def add_blocks(
    data: st.DataObject, drawing: Drawing, readable: list[list[int]], targets: list[int], taken: set[tuple]
) -> None:
    """Some blocks into these targets; none that repeats an edge."""
    for _ in range(data.draw(st.integers(1, 3))):
        sources = data.draw(st.sampled_from(readable))
        if data.draw(st.integers(0, 3)) == 0:
            sources = sorted({*sources, *data.draw(st.sampled_from(readable))})
        chosen = targets if data.draw(st.booleans()) else targets[: data.draw(st.integers(1, len(targets)))]
        kind = WEIGHT if data.draw(st.integers(0, 3)) else PASS
        chain = int(data.draw(st.integers(0, 3)) == 0)
        constant = 1.0 if kind == WEIGHT else data.draw(st.sampled_from([1.0, -1.0]))
        if len(sources) == len(chosen) and data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(chosen))))
            pairs = [([sources[place]], [target]) for place, target in zip(order, chosen, strict=True)]
        else:
            pairs = [(sources, chosen)]
        edges = {(s, t, kind, chain, constant) for some, others in pairs for s in some for t in others}
        if edges & taken:
            continue
        taken |= edges
        for some, others in pairs:
            rows, columns = random_offsets(data, drawing, len(others), len(some)) if kind == WEIGHT else (None, None)
            drawing.block(some, others, kind, chain=chain, constant=constant, target_offset=rows, source_offset=columns)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_the_group_is_what_trying_every_permutation_finds(data: st.DataObject) -> None:
    template = tiny_template(data)
    expected = automorphisms(template)
    group = symmetry_group(template)
    assert closure(group.generators, template.num_nodes) == expected
    assert group.order == len(expected)
