"""The symmetries of a parameter graph: which relabellings of neurons describe the same network.

Reads   a `GraphTemplate`
Writes  relabellings of its nodes, and what they do to its values

A *relabelling* is a permutation of the nodes. It is an *automorphism* if it keeps what nodes are (inputs and outputs
stay where they are), and maps edges onto edges with the same features, values aside, so that edges with one value go to
edges with one value. It then permutes the values, and the network with permuted values computes the same function (Lim
et al., ICLR 2024, proposition 1). Law B: no other permutation of weights along their axes does.

All automorphisms at once, their number and their structure are in `pipeline.symmetry_group`.
"""

import numpy as np
from jaxtyping import Int64

from pipeline.edge_factors import geometry_numbers, source_labels
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry_group import SymmetryGroup, Wreath, symmetry_group


def sample_automorphism(template: GraphTemplate, rng: np.random.Generator) -> Int64[np.ndarray, " num_nodes"]:
    """A random automorphism, each with the same probability: node ``i`` is relabelled ``result[i]``.

    For several of one template, ask `symmetry_group` once.
    """
    return symmetry_group(template).sample(rng)


def exchangeable_nodes(template: GraphTemplate) -> list[Int64[np.ndarray, " count"]]:
    """Sets of two or more nodes that can be permuted freely, one by one."""
    return [rows[:, 0] for rows in exchangeable_rows(template) if rows.shape[1] == 1]


def exchangeable_rows(template: GraphTemplate) -> list[Int64[np.ndarray, "count width"]]:
    """Sets of two or more rows of nodes that can be permuted freely, the nodes of a row moving together.

    A row is a single node, a node with those tied to it (by a residual sum, a norm, a layer that is used twice), or a
    whole group, head or branch; then the rows within each are listed too. The sets generate all automorphisms but those
    that are no products of permuted rows (`pipeline.symmetry_group.StabiliserChain`).
    """
    return sorted(_rows(symmetry_group(template)), key=lambda rows: int(rows.min()))


def permute_values(
    template: GraphTemplate, relabelling: Int64[np.ndarray, " num_nodes"]
) -> Int64[np.ndarray, " num_values"]:
    """What an automorphism does to the values: ``values[result]`` are those of the relabelled network.

    Raises:
        ValueError: the relabelling is none: see `carry_values`; or it moves an input, an output, or a node to one of
            another kind, rank or chain.
    """
    result = carry_values(template, relabelling)
    for what in ("kind", "rank", "chain"):
        of_node = getattr(template, f"node_{what}")
        [moved] = np.nonzero(of_node[relabelling] != of_node)
        if len(moved):
            node = int(moved[0])
            raise ValueError(
                f"the relabelling maps node {node} onto node {relabelling[node]}, whose {what} is "
                f"{of_node[relabelling[node]]}, not {of_node[node]}; {len(moved)} nodes change theirs"
            )
    return result


def carry_values(
    template: GraphTemplate, relabelling: Int64[np.ndarray, " num_nodes"]
) -> Int64[np.ndarray, " num_values"]:
    """As `permute_values`, but by the edges alone: inputs may be relabelled too, which changes the function.

    Raises:
        ValueError: the relabelling is no permutation, does not map edges onto edges with the same label, or pulls a
            shared value apart.
    """
    if not np.array_equal(np.sort(relabelling), np.arange(template.num_nodes)):
        raise ValueError(f"the relabelling is no permutation of the template's {template.num_nodes} nodes")
    edges, label = template.edges, edge_labels(template)
    source, target = edges.edge_index
    before, keys = _ordered(source, target, label, template.num_nodes)
    after, keys_after = _ordered(relabelling[source], relabelling[target], label, template.num_nodes)
    same = (keys == keys_after) & (label[before] == label[after])
    if not same.all():
        raise ValueError(f"the relabelling maps {int((~same).sum())} of {len(label)} edges onto none of the same label")
    old, new = edges.value_index[before], edges.value_index[after]
    old, new = old[old >= 0], new[old >= 0]
    result = np.arange(template.num_values)
    result[old] = new
    if (result[old] != new).any() or (np.bincount(result, minlength=len(result)) != 1).any():
        raise ValueError("the relabelling pulls a shared value apart")
    return result


def edge_labels(template: GraphTemplate) -> Int64[np.ndarray, " num_edges"]:
    """A number per edge, equal exactly where all features but the value are equal.

    These are the block's geometry, the tap, the sites read and written, the chain and the constant.
    """
    if not template.blocks:
        return np.zeros(0, dtype=np.int64)
    geometries, labels = geometry_numbers(template), source_labels(template)
    num_labels = max(int(of_sources.max()) for of_sources in labels) + 1
    pairs = [geometry * num_labels + of_sources for geometry, of_sources in zip(geometries, labels, strict=True)]
    taps = np.concatenate([np.full(len(block.sources), block.num_taps) for block in template.blocks])
    _, example, number = np.unique(np.concatenate(pairs), return_index=True, return_inverse=True)
    first = np.cumsum(np.r_[0, taps[example]])[number]
    starts = np.cumsum([0, *(len(of_sources) for of_sources in labels)])
    columns: list[np.ndarray] = []
    for block, start in zip(template.blocks, starts, strict=False):
        of_sources = first[start : start + len(block.sources)].reshape(block.num_groups, 1, -1, 1)
        shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)
        columns.append(np.broadcast_to(of_sources + np.arange(block.num_taps), shape).reshape(-1))
    return np.concatenate(columns).astype(np.int64)


def cycle(template: GraphTemplate, rows: Int64[np.ndarray, "count ..."]) -> Int64[np.ndarray, " num_nodes"]:
    """The relabelling that moves every row to the next, and the last to the first."""
    relabelling = np.arange(template.num_nodes)
    relabelling[rows] = np.roll(rows, -1, axis=0)
    return relabelling


def _rows(group: SymmetryGroup) -> list[Int64[np.ndarray, "count width"]]:
    """The rows of all wreath products of a group, and of those inside them, for every row."""
    found: list[Int64[np.ndarray, "count width"]] = []
    for factor in group.factors:
        if isinstance(factor, Wreath):
            found.append(factor.rows)
            found += [row[columns] for columns in _rows(factor.inside) for row in factor.rows]
    return found


def _ordered(
    source: Int64[np.ndarray, " n"], target: Int64[np.ndarray, " n"], label: Int64[np.ndarray, " n"], num_nodes: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Edges sorted by their ends and label, and a number for the ends of each."""
    ends, num_labels = target * num_nodes + source, int(label.max(initial=0)) + 1
    if num_nodes**2 * num_labels < 2**63:
        order = np.argsort(ends * num_labels + label, kind="stable")  # fast, as blocks are nearly in this order
    else:
        order = np.lexsort((label, ends))
    return order, ends[order]
