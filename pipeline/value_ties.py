"""How shared values tie nodes together.

Reads   a `GraphTemplate` and its `Factors`
Writes  `TiedEdges`, and `Ties` between their ends

The values of edges that nothing else carries follow the edges. The others must be kept together: edges carry the same
value exactly if their images do. Shared values that are carried in the same factors, as often, are a family: mostly a
tensor. In a factor with shared values, every target and every source gets a slot, and slots whose edges carry the same
values of a family are tied by a vertex: rows of a layer that is used twice, columns, or the rows of an embedding and
the columns of an output layer that uses it transposed. Families and ties are defined by edges and by which of them
carry the same value, so every automorphism extends to them. Conversely, if an edge's two slots have ties of one family
at most in common, and "the same two ties and the same tap" is "the same value", which is tested for all edges, then
what keeps ties and families keeps values together. Where that fails (a layer read in two orders, a Toeplitz matrix),
all factors that share values with these get a vertex per edge and per value instead, which is the definition itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.coloured_graph import number_rows
from pipeline.edge_factors import Factors, geometry_numbers, number_runs, run_starts, source_labels
from pipeline.parameter_graph import GraphTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class TiedEdges:
    """The edges of all factors that have edges with shared values."""

    target: Int64[np.ndarray, " n"]
    """Index into the targets of `Factors`."""
    source: Int64[np.ndarray, " n"]
    """Index into the sources of `Factors`."""
    tap: Int64[np.ndarray, " n"]
    value: Int64[np.ndarray, " n"]
    shared: Bool[np.ndarray, " n"]
    """Whether another edge carries the value too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ties:
    """How shared values are kept together; a slot is a target of `Factors`, or, numbered after these, a source."""

    by_ties: Bool[np.ndarray, " num_factors"]
    """Factors whose targets and sources are tied."""
    by_edges: Bool[np.ndarray, " num_factors"]
    """Factors whose edges with shared values are vertices."""
    slot: Int64[np.ndarray, " n"]
    """One entry for every tie of a slot."""
    tie: Int64[np.ndarray, " n"]
    family: Int64[np.ndarray, " n"]
    """Of the tie."""


def read_tied_edges(template: GraphTemplate, factors: Factors) -> TiedEdges:
    """The edges of all factors with a shared value, found by way of blocks: a block's target gives the factor."""
    count = _num_carriers(template)
    geometries, labels = geometry_numbers(template), source_labels(template)
    num_geometries, num_labels = len(template.blocks) + 1, max((int(some.max()) for some in labels), default=0) + 1
    of_target = factors.target[0] * num_geometries + factors.geometry[factors.target[1]]
    of_source = (factors.source[0] * template.num_nodes + factors.source[1]) * num_labels + factors.source[2]
    targets = [
        np.searchsorted(of_target, block.targets * num_geometries + geometry).reshape(block.num_groups, -1)
        for block, geometry in zip(template.blocks, geometries, strict=True)
    ]
    has_shared = np.zeros(len(factors.geometry), dtype=bool)
    for block, target in zip(template.blocks, targets, strict=True):
        if block.kind.carries_value:
            has_shared[factors.target[1, target][(count[block.value_index] > 1).any(axis=(2, 3))]] = True
    columns: list[np.ndarray] = [np.zeros((4, 0), dtype=np.int64)]
    for block, target, label in zip(template.blocks, targets, labels, strict=True):
        factor = factors.target[1, target]
        if not has_shared[factor].any():
            continue
        key = (block.sources * num_labels + label).reshape(block.num_groups, 1, -1)
        source = np.searchsorted(of_source, factor[:, :, None] * (template.num_nodes * num_labels) + key)
        ends = (target[:, :, None, None], source[:, :, :, None], np.arange(block.num_taps), block.value_index)
        rows = np.stack([column.reshape(-1) for column in np.broadcast_arrays(*ends)])
        columns.append(rows[:, has_shared[factors.target[1, rows[0]]]])
    target, source, tap, value = np.concatenate(columns, axis=1)
    return TiedEdges(target=target, source=source, tap=tap, value=value, shared=count[value] > 1)


def _num_carriers(template: GraphTemplate) -> Int64[np.ndarray, " num_values"]:
    """How many edges carry each value."""
    count = np.zeros(template.num_values, dtype=np.int64)
    for block in template.blocks:
        if block.kind.carries_value:
            np.add.at(count, block.value_index.reshape(-1), 1)
    return count


def read_ties(factors: Factors, tied: TiedEdges) -> Ties:
    """Ties where they say which edges carry the same value; for the other factors, edges."""
    num_factors, num_targets = len(factors.geometry), factors.target.shape[1]
    factor, ends = factors.target[1, tied.target], np.stack([tied.target, num_targets + tied.source])
    slot, tie, family = _tie_slots(ends[:, tied.shared], factor[tied.shared], tied.value[tied.shared])
    wrong = _untold(ends, tied, slot, tie, family)
    cluster = _clusters(factor[tied.shared], tied.value[tied.shared], num_factors)
    by_ties, by_edges = np.zeros(num_factors, dtype=bool), np.zeros(num_factors, dtype=bool)
    by_edges[factor] = np.isin(cluster[factor], cluster[factor[wrong]])
    by_ties[factor] = ~by_edges[factor]
    kept = by_ties[np.concatenate([factors.target[1], factors.source[0]])[slot]]
    return Ties(by_ties=by_ties, by_edges=by_edges, slot=slot[kept], tie=tie[kept], family=family[kept])


def _tie_slots(
    ends: Int64[np.ndarray, "2 n"], factor: Int64[np.ndarray, " n"], value: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Slots, their ties and families, of the edges with shared values: sorted by slot and family, each pair once."""
    order = np.lexsort((factor, value))
    starts = run_starts(value[order][None])
    family_of = np.zeros(value.max(initial=-1) + 1, dtype=np.int64)
    family_of[value[order][starts]] = number_runs(factor[order], starts)
    slot, value = ends.reshape(-1), np.tile(value, 2)
    order = np.lexsort((value, family_of[value], slot))
    slot, value = slot[order], value[order]
    starts = run_starts(np.stack([slot, family_of[value]]))
    return slot[starts], number_runs(value, starts), family_of[value[starts]]


def _clusters(
    factor: Int64[np.ndarray, " n"], value: Int64[np.ndarray, " n"], num_factors: int
) -> Int64[np.ndarray, " num_factors"]:
    """A number per factor, equal where factors share a value, or each one with a third, and so on."""
    size = num_factors + value.max(initial=-1) + 1
    carries = coo_array((np.ones(len(factor), dtype=np.int8), (factor, num_factors + value)), shape=(size, size))
    return connected_components(carries, directed=False)[1][:num_factors].astype(np.int64)


def _untold(
    ends: Int64[np.ndarray, "2 num_edges"],
    tied: TiedEdges,
    slot: Int64[np.ndarray, " n"],
    tie: Int64[np.ndarray, " n"],
    family: Int64[np.ndarray, " n"],
) -> Bool[np.ndarray, " num_edges"]:
    """Edges of which ties do not say whether they carry the same value as another.

    These are edges neither of whose slots has one tie alone, so that the two may have several families in common; and,
    where a family is in common, edges whose ties and tap are those of another value, or whose value has other ones.
    """
    wrong = np.zeros(ends.shape[1], dtype=bool)
    if not len(slot):
        return wrong
    num_ties, num_families = np.bincount(slot, minlength=ends.max() + 1), int(family.max()) + 1
    fewer = np.where(num_ties[ends[0]] <= num_ties[ends[1]], ends[0], ends[1])
    more = ends.sum(axis=0) - fewer
    wrong |= num_ties[fewer] > 1
    slot_family = slot * num_families + family  # sorted, as slots are
    first = np.minimum(np.searchsorted(slot, fewer), len(slot) - 1)
    in_common = more * num_families + family[first]
    second = np.minimum(np.searchsorted(slot_family, in_common), len(slot) - 1)
    told = np.flatnonzero((num_ties[fewer] == 1) & (slot_family[second] == in_common))
    pair = np.sort(np.stack([tie[first[told]], tie[second[told]]]), axis=0)
    place, value = number_rows(np.stack([*pair, tied.tap[told]])), tied.value[told]
    _, example = np.unique(number_rows(np.stack([place, value])), return_index=True)
    places_of, values_of = np.bincount(value[example]), np.bincount(place[example])
    wrong[told] |= (places_of[value] > 1) | (values_of[place] > 1)
    return wrong
