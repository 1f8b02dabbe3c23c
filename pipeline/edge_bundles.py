"""The edges of a template in bundles: one for all from one node set to another that say the same, with its words.

Reads   the blocks of a `GraphTemplate`, never its single edges
Writes  `Bundle`s
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.drawing_words import counted, extents, number_words, operation_words, shortened, square
from pipeline.graph_kinds import EdgeKind
from pipeline.parameter_graph import Block, GraphTemplate

EDGES = {
    EdgeKind.LINEAR_WEIGHT: "linear",
    EdgeKind.LINEAR_BIAS: "bias",
    EdgeKind.CONV_WEIGHT: "conv",
    EdgeKind.CONV_BIAS: "bias",
    EdgeKind.TRANSPOSED_CONV_WEIGHT: "transposed conv",
    EdgeKind.NORM_BIAS: "bias",
    EdgeKind.NORM_MEAN: "mean",
    EdgeKind.NORM_VARIANCE: "variance",
}
"""Words for kinds of edges; for others their names."""
FACTORS = {EdgeKind.QUERY, EdgeKind.KEY, EdgeKind.ATTENTION, EdgeKind.VALUE}
"""Of products of matrices, which spread their factors over a map by their nature."""
GROUPED = {EdgeKind.LINEAR_WEIGHT, EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """All edges from one node set to another that say the same."""

    source: int
    """Number of a node set."""
    target: int
    kind: EdgeKind
    operations: tuple[str, ...]
    """What happens to the source before it is read."""
    words: tuple[str, ...]
    """What distinguishes the edges, their kind first."""
    num_edges: int


def bundles_of(template: GraphTemplate, sets: Int64[np.ndarray, " num_nodes"], attended: set[int]) -> list[Bundle]:
    """All edges in bundles.

    Args:
        sets: number of every node's set.
        attended: the sets that are products of attention and values.
    """
    blocks = zip(template.blocks, _shared_tensors(template), strict=True)
    return _merged(bundle for block, shared in blocks for bundle in _bundles(template, block, sets, attended, shared))


def attended_sets(template: GraphTemplate, sets: Int64[np.ndarray, " num_nodes"]) -> set[int]:
    """The products of attention and values, one for each pair of positions."""
    blocks = [block for block in template.blocks if block.kind == EdgeKind.ATTENTION]
    return {number for block in blocks for number in np.unique(sets[block.targets]).tolist()}


def _shared_tensors(template: GraphTemplate) -> Iterator[str]:
    """Of every block the name of its tensor, if that has fewer values than edges: it is tied, or used twice."""
    places = [_tensor(template, block) for block in template.blocks]
    num_edges: Counter[int | None] = Counter()
    for block, place in zip(template.blocks, places, strict=True):
        num_edges[place] += block.num_edges
    for place in places:
        tensor = None if place is None else template.tensors[place]
        yield tensor.names[0] if tensor and num_edges[place] > tensor.size else ""


def _tensor(template: GraphTemplate, block: Block) -> int | None:
    """Number of the tensor that all values of a block lie in; none where it has no values, or those of several."""
    if not block.kind.carries_value:
        return None
    first = block.target_offset.min() + block.source_offset.min()
    last = block.target_offset.max() + block.source_offset.max() + (block.num_taps - 1) * block.tap_stride
    starts = [tensor.offset for tensor in template.tensors]
    place, other = np.searchsorted(starts, [first, last], "right") - 1
    return int(place) if place == other else None


def _bundles(
    template: GraphTemplate, block: Block, sets: Int64[np.ndarray, " num_nodes"], attended: set[int], shared: str
) -> Iterator[Bundle]:
    """The edges of a block, apart by set of the source, set of the target, and chain; ``shared`` is their tensor."""
    source, per_source = _per_group(np.stack([sets[block.sources], block.source_chain]), block.num_groups)
    target, per_target = _per_group(sets[block.targets][None], block.num_groups)
    count = per_source.T @ per_target * block.num_taps
    for row, place in np.argwhere(count).tolist():
        number, chain = source[:, row].tolist()
        chosen = (sets[block.sources] == number) & (block.source_chain == chain)
        on_pairs = block.kind == EdgeKind.ATTENTION or number in attended
        yield Bundle(
            source=number,
            target=int(target[0, place]),
            kind=block.kind,
            operations=tuple(operation_words(template.chains[chain], on_pairs)),
            words=(*_words(template, block, chosen), *[f"shared: {shortened(shared)}"] * bool(shared)),
            num_edges=int(count[row, place]),
        )


def _per_group(
    keys: Int64[np.ndarray, "k n"], num_groups: int
) -> tuple[Int64[np.ndarray, "k distinct"], Int64[np.ndarray, "G distinct"]]:
    """The distinct columns of some keys, and how often each stands in every group."""
    distinct, place = np.unique(keys, axis=1, return_inverse=True)
    group = np.repeat(np.arange(num_groups), keys.shape[1] // num_groups)
    counts = np.zeros((num_groups, distinct.shape[1]), dtype=np.int64)
    np.add.at(counts, (group, place.reshape(-1)), 1)
    return distinct, counts


def _words(template: GraphTemplate, block: Block, chosen: np.ndarray) -> Iterator[str]:
    """What distinguishes some edges of a block, by their sources; their kind first."""
    name = EDGES.get(block.kind, block.kind.name.lower().replace("_", " "))
    yield f"{name} {square(block.kernel_size)}" if block.kernel_size else name
    usual = (("stride", block.stride, -1), ("padding", block.padding, -1))
    for word, numbers, told in (*usual, ("dilation", block.dilation, 1), ("output padding", block.output_padding, 0)):
        if any(number != told for number in numbers):
            yield f"{word} {extents(numbers)}"
    if block.num_groups > 1 and block.kind in GROUPED:
        yield "depthwise" if block.num_targets == block.num_sources == 1 else f"{block.num_groups} groups"
    if factor := _factor(block.constant[chosen]):
        yield factor
    for word, sites in (("from", block.source_site[chosen]), ("to", block.target_site[chosen])):
        distinct = np.unique(sites[sites > 0])
        if len(distinct) and block.kind not in FACTORS:
            yield _places(template, word, distinct)


def _places(template: GraphTemplate, word: str, sites: Int64[np.ndarray, " n"]) -> str:
    """Single positions, or regions of several, that are read or written."""
    if (sites < template.first_region).all():
        return f"{word} {counted(len(sites), 'position', 'positions')}"
    regions = [region for site in sites.tolist() if (region := template.region(site)) is not None]
    if any(len(set(region.positions)) < len(region.positions) for region in regions):
        return "repeated over the map"
    sizes = {(len(region.positions), prod(region.extents)) for region in regions}
    times = f"{len(sites)} × " if len(sites) > 1 else ""
    if len(sizes) > 1:
        return f"{word} {len(sites)} regions"
    [(inside, all_positions)] = sizes
    return f"{word} {times}{inside} of {all_positions} positions"


def _factor(constants: Float64[np.ndarray, " n"]) -> str:
    distinct = np.unique(constants)
    if len(distinct) > 1:
        return f"{len(distinct)} constants"
    return "" if distinct[0] == 1 else f"× {number_words(float(distinct[0]))}"


def _merged(bundles: Iterable[Bundle]) -> list[Bundle]:
    """One for all that say the same."""
    merged: dict[tuple[object, ...], Bundle] = {}
    for bundle in bundles:
        key = (bundle.source, bundle.target, bundle.kind, bundle.operations, bundle.words)
        before = merged[key].num_edges if key in merged else 0
        merged[key] = replace(bundle, num_edges=bundle.num_edges + before)
    return list(merged.values())
