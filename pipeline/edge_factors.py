"""What the targets of a template read: sets of sources with labels, each once.

Reads   a `GraphTemplate`
Writes  `Factors`

What a target reads with one geometry is a set of sources with labels; targets that read the same set share a vertex for
it, the factor. A dense layer then costs its sources and its targets, not their product. Factors are defined by the
edges alone, whatever blocks and groups they come from, and are determined by the nodes they join; so the relabellings
that map edges onto edges with equal labels are those that can be extended to factors.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pipeline.coloured_graph import number_rows
from pipeline.parameter_graph import GraphTemplate


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """What targets read; a column each for the targets of factors, and for their sources."""

    geometry: Int64[np.ndarray, " num_factors"]
    target: Int64[np.ndarray, "2 num_targets"]
    """Node and factor; sorted by node, then geometry."""
    source: Int64[np.ndarray, "3 num_sources"]
    """Factor, node and label; sorted."""


def geometry_numbers(template: GraphTemplate) -> Int64[np.ndarray, " num_blocks"]:
    """A number per block, equal where the geometries are."""
    numbers: dict[tuple[int | tuple[int, ...], ...], int] = {}
    found = [numbers.setdefault(block.geometry, len(numbers)) for block in template.blocks]
    return np.array(found, dtype=np.int64)


def source_labels(template: GraphTemplate) -> list[Int64[np.ndarray, " all_sources"]]:
    """A number per source of every block, equal where sites, chains and constants are."""
    if not template.blocks:
        return []
    columns = [
        np.concatenate([getattr(block, name) for block in template.blocks])
        for name in ("source_site", "target_site", "source_chain")
    ]
    constant = np.concatenate([block.constant for block in template.blocks]) + 0.0  # -0.0 is 0.0
    labels = number_rows(np.stack([*columns, np.ascontiguousarray(constant, dtype=np.float64).view(np.int64)]))
    return np.split(labels, np.cumsum([len(block.sources) for block in template.blocks])[:-1])


def read_factors(template: GraphTemplate) -> Factors:
    """What every target reads with every geometry, over all blocks; equal sets once."""
    numbers: dict[bytes, int] = {}
    contents: list[np.ndarray] = []
    geometries: list[int] = []

    def number(geometry: int, rows: Int64[np.ndarray, "2 n"]) -> int:
        key = geometry.to_bytes(8, "little") + rows.tobytes()
        if key not in numbers:
            numbers[key] = len(numbers)
            contents.append(rows)
            geometries.append(geometry)
        return numbers[key]

    columns: list[np.ndarray] = [np.zeros((3, 0), dtype=np.int64)]  # target, geometry, factor
    for block, geometry, labels in zip(
        template.blocks, geometry_numbers(template).tolist(), source_labels(template), strict=True
    ):
        group = np.repeat(np.arange(block.num_groups), block.num_sources)
        order = np.lexsort((labels, block.sources, group))
        rows = np.stack([block.sources, labels])[:, order].reshape(2, block.num_groups, -1)
        found = [number(geometry, np.ascontiguousarray(rows[:, place])) for place in range(block.num_groups)]
        factor = np.repeat(found, block.num_targets)
        columns.append(np.stack([block.targets, np.full_like(block.targets, geometry), factor]))
    table = np.concatenate(columns, axis=1)
    table = table[:, np.lexsort(table[::-1])]
    first = run_starts(table[:2])
    factor = table[2, first]
    joined: dict[bytes, int] = {}
    lengths = np.diff(np.r_[first, table.shape[1]])
    for place in np.flatnonzero(lengths > 1).tolist():  # several blocks of one geometry compute the same target
        pieces = table[2, first[place] : first[place] + lengths[place]]
        if pieces.tobytes() not in joined:
            rows = np.concatenate([contents[piece] for piece in pieces.tolist()], axis=1)
            rows = np.ascontiguousarray(rows[:, np.lexsort(rows[::-1])])
            joined[pieces.tobytes()] = number(int(table[1, first[place]]), rows)
        factor[place] = joined[pieces.tobytes()]
    used, factor = np.unique(factor, return_inverse=True)
    sources = [np.vstack([np.full((1, contents[old].shape[1]), new), contents[old]]) for new, old in enumerate(used)]
    return Factors(
        geometry=np.array(geometries, dtype=np.int64)[used],
        target=np.stack([table[0, first], factor]),
        source=np.concatenate([np.zeros((3, 0), dtype=np.int64), *sources], axis=1),
    )


def run_starts(columns: Int64[np.ndarray, "width n"]) -> Int64[np.ndarray, " m"]:
    """Where a row differs from the one before it."""
    return np.flatnonzero(np.r_[True, (np.diff(columns, axis=1) != 0).any(axis=0)][: columns.shape[1]])


def number_runs(numbers: Int64[np.ndarray, " n"], starts: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """A number per run, equal where the runs are."""
    lengths = np.diff(np.r_[starts, len(numbers)])
    result, count = np.empty(len(starts), dtype=np.int64), 0
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        rows = np.ascontiguousarray(numbers[starts[chosen][:, None] + np.arange(length)])
        _, number = np.unique(rows.view(np.dtype((np.void, 8 * length))).reshape(-1), return_inverse=True)
        result[chosen] = count + number
        count += int(number.max()) + 1
    return result
