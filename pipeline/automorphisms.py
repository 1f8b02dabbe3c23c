"""The symmetries of a parameter graph: which relabellings of neurons describe the same network.

Reads   a `GraphTemplate`
Writes  relabellings of its nodes, and what they do to its values

A *relabelling* is a permutation of the nodes. It is an *automorphism* if it fixes inputs and outputs and maps edges
onto edges with the same features, values aside; it then permutes the values, and the network with permuted values
computes the same function (Lim et al., ICLR 2024, proposition 1). Law B: no other permutation of weights along their
axes does.
"""

import numpy as np
from jaxtyping import Int64

from pipeline.parameter_graph import GraphTemplate, NodeKind


def sample_automorphism(template: GraphTemplate, rng: np.random.Generator) -> Int64[np.ndarray, " num_nodes"]:
    """A random automorphism: node ``i`` is relabelled ``result[i]``."""
    relabelling = np.arange(template.num_nodes)
    for rows in exchangeable_rows(template):
        moved = np.arange(template.num_nodes)
        moved[rows] = rng.permutation(rows)
        relabelling = moved[relabelling]
    return relabelling


def exchangeable_nodes(template: GraphTemplate) -> list[Int64[np.ndarray, " count"]]:
    """Sets of two or more hidden nodes that can be permuted freely, one by one."""
    return [rows[:, 0] for rows in exchangeable_rows(template) if rows.shape[1] == 1]


def exchangeable_rows(template: GraphTemplate) -> list[Int64[np.ndarray, "count width"]]:
    """Sets of two or more rows of hidden nodes that can be permuted freely, the nodes of a row moving together.

    A row is a single node, unless values are shared: where one layer is used twice, permuting its neurons in one place
    permutes them in the other. The sets generate all automorphisms but two sorts: exchanging whole parallel branches
    with their bias nodes; and, where one layer reads the same neurons in two orders, what is no exchange of two rows.
    """
    twins = _twins(template)
    rows: dict[tuple[int, ...], list[Int64[np.ndarray, " width"]]] = {}
    within: list[Int64[np.ndarray, "count 1"]] = []
    linked = _linked(template)
    for row in linked:
        kinds = tuple(twins[row].tolist())
        if min(kinds) < 0:
            continue  # tied to an input, an output or a bias, which stay where they are
        rows.setdefault(kinds, []).append(row)
        within += [row[twins[row] == kind][:, None] for kind in set(kinds) if kinds.count(kind) > 1]
    candidates = [np.stack(members) for members in rows.values() if len(members) > 1] + within
    if len(linked) == template.num_nodes:
        return candidates
    return [members for members in candidates if _keep_shared_values(template, members)]


def permute_values(
    template: GraphTemplate, relabelling: Int64[np.ndarray, " num_nodes"]
) -> Int64[np.ndarray, " num_values"]:
    """What a relabelling does to the values: ``values[result]`` are those of the relabelled network.

    Raises:
        ValueError: the relabelling does not map edges onto edges with the same label, or pulls a shared value apart.
    """
    edges, label = template.edges, edge_labels(template)
    source, target = edges.edge_index
    before = np.lexsort((label, target, source))
    after = np.lexsort((label, relabelling[target], relabelling[source]))
    same = (
        (source[before] == relabelling[source][after])
        & (target[before] == relabelling[target][after])
        & (label[before] == label[after])
    )
    if not same.all():
        raise ValueError(f"the relabelling maps {int((~same).sum())} of {len(label)} edges onto none of the same label")
    result = np.empty(template.num_values, dtype=np.int64)
    result[edges.value_index[before]] = edges.value_index[after]
    if (result[edges.value_index[before]] != edges.value_index[after]).any():
        raise ValueError("the relabelling pulls a shared value apart")
    return result


def edge_labels(template: GraphTemplate) -> Int64[np.ndarray, " num_edges"]:
    """A number per edge, equal exactly where all features but the value are equal."""
    edges = template.edges
    geometries = list(dict.fromkeys(block.geometry for block in template.blocks))
    of_block = np.array([geometries.index(block.geometry) for block in template.blocks], dtype=np.int64)
    rows = np.stack([of_block[edges.block], edges.tap, edges.site, edges.chain])
    _, label = np.unique(rows, axis=1, return_inverse=True)
    return label.reshape(-1).astype(np.int64)


def cycle(template: GraphTemplate, rows: Int64[np.ndarray, "count ..."]) -> Int64[np.ndarray, " num_nodes"]:
    """The relabelling that moves every row to the next, and the last to the first."""
    relabelling = np.arange(template.num_nodes)
    relabelling[rows] = np.roll(rows, -1, axis=0)
    return relabelling


def _twins(template: GraphTemplate) -> Int64[np.ndarray, " num_nodes"]:
    """A number per hidden node, equal where neighbours and the labels of edges to them are; -1 for other nodes."""
    label = edge_labels(template)
    source, target = template.edges.edge_index
    ends = np.concatenate([source, target])
    rows = np.stack([np.concatenate([target, source]), np.repeat([0, 1], len(label)), np.tile(label, 2)])
    order = np.lexsort((*rows, ends))
    starts = np.searchsorted(ends[order], np.arange(template.num_nodes + 1))
    sorted_rows = np.ascontiguousarray(rows[:, order].T)
    numbers: dict[bytes, int] = {}
    twins = np.full(template.num_nodes, -1, dtype=np.int64)
    for node in np.flatnonzero(template.node_kind == NodeKind.NEURON).tolist():
        neighbours = sorted_rows[starts[node] : starts[node + 1]].tobytes()
        twins[node] = numbers.setdefault(neighbours, len(numbers))
    return twins


def _linked(template: GraphTemplate) -> list[Int64[np.ndarray, " width"]]:
    """All nodes, in rows that a shared value ties: the ends of its edges must be relabelled alike."""
    edges = template.edges
    order = np.argsort(edges.value_index, kind="stable")
    shared = np.flatnonzero(np.diff(edges.value_index[order]) == 0)
    first, second = edges.edge_index[:, order[shared]], edges.edge_index[:, order[shared + 1]]
    row_of, before = np.arange(template.num_nodes), None
    while before is None or (row_of != before).any():  # the smallest node of a row spreads along its ties
        before = row_of.copy()
        smaller = np.minimum(row_of[first], row_of[second])
        np.minimum.at(row_of, first, smaller)
        np.minimum.at(row_of, second, smaller)
    nodes = np.argsort(row_of, kind="stable")
    return np.split(nodes, np.flatnonzero(np.diff(row_of[nodes])) + 1)


def _keep_shared_values(template: GraphTemplate, rows: Int64[np.ndarray, "count width"]) -> bool:
    """Whether all permutations of these rows keep shared values together: a transposition and a cycle generate them."""
    for moved in (rows[:2], rows):
        try:
            permute_values(template, cycle(template, moved))
        except ValueError:
            return False
    return True
