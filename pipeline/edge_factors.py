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
from pipeline.parameter_graph import Block, GraphTemplate


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
    sets = _Sets()
    blocks = zip(template.blocks, geometry_numbers(template).tolist(), source_labels(template), strict=True)
    reads = [np.zeros((3, 0), dtype=np.int64), *(_block_reads(sets, *block) for block in blocks)]
    node, geometry, number = _united(sets, np.concatenate(reads, axis=1))
    used, first, factor = np.unique(number, return_index=True, return_inverse=True)
    contents = [sets.contents[number] for number in used.tolist()]
    sizes = np.array([rows.shape[1] for rows in contents], dtype=np.int64)
    sources = np.concatenate([np.zeros((2, 0), dtype=np.int64), *contents], axis=1)
    return Factors(
        geometry=geometry[first],
        target=np.stack([node, factor]),
        source=np.concatenate([np.repeat(np.arange(len(used)), sizes)[None], sources]),
    )


class _Sets:
    """Sets of sources with labels, numbered as they come; equal ones of one geometry have one number."""

    def __init__(self) -> None:
        self.contents: list[Int64[np.ndarray, "2 n"]] = []
        self._numbers: dict[tuple[int, bytes], int] = {}

    def number(self, geometry: int, rows: Int64[np.ndarray, "2 n"]) -> int:
        """Of sources and labels, sorted by both."""
        number = self._numbers.setdefault((geometry, rows.tobytes()), len(self.contents))
        if number == len(self.contents):
            self.contents.append(rows)
        return number


def _block_reads(
    sets: _Sets, block: Block, geometry: int, labels: Int64[np.ndarray, " all_sources"]
) -> Int64[np.ndarray, "3 all_targets"]:
    """Each target of a block, the geometry, and the number of the set it reads: that of its group."""
    group = np.repeat(np.arange(block.num_groups), block.num_sources)
    order = np.lexsort((labels, block.sources, group))
    rows = np.stack([block.sources, labels])[:, order].reshape(2, block.num_groups, -1)
    numbers = [sets.number(geometry, rows[:, place]) for place in range(block.num_groups)]
    return np.stack([block.targets, np.full_like(block.targets, geometry), np.repeat(numbers, block.num_targets)])


def _united(sets: _Sets, reads: Int64[np.ndarray, "3 n"]) -> Int64[np.ndarray, "3 m"]:
    """Each target and geometry once, sorted; several blocks that make one target read the union of their sets."""
    reads = reads[:, np.lexsort(reads[::-1])]
    starts = run_starts(reads[:2])
    united = reads[:, starts]
    lengths = np.diff(np.r_[starts, reads.shape[1]])
    known: dict[bytes, int] = {}
    for place in np.flatnonzero(lengths > 1).tolist():
        parts = reads[2, starts[place] : starts[place] + lengths[place]]
        if parts.tobytes() not in known:
            rows = np.concatenate([sets.contents[part] for part in parts.tolist()], axis=1)
            known[parts.tobytes()] = sets.number(int(united[1, place]), rows[:, np.lexsort(rows[::-1])])
        united[2, place] = known[parts.tobytes()]
    return united


def run_starts(columns: Int64[np.ndarray, "width n"]) -> Int64[np.ndarray, " m"]:
    """Where a row differs from the one before it."""
    return np.flatnonzero(np.r_[True, (np.diff(columns, axis=1) != 0).any(axis=0)][: columns.shape[1]])


def number_runs(numbers: Int64[np.ndarray, " n"], starts: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """A number per run, equal where the runs are; each ends where the next starts."""
    lengths = np.diff(np.r_[starts, len(numbers)])
    result, count = np.empty(len(starts), dtype=np.int64), 0
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        rows = np.ascontiguousarray(numbers[starts[chosen][:, None] + np.arange(length)])
        _, number = np.unique(rows.view(np.dtype((np.void, 8 * length))).reshape(-1), return_inverse=True)
        result[chosen] = count + number
        count += int(number.max()) + 1
    return result
