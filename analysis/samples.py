"""The samples that several networks share: joined by id, and dealt into blocks of whole units.

Reads   the sample ids of representations      (analysis.representation_store)
Writes  `SharedSamples`

Position means nothing: two networks may store the same samples in any order. Blocks are what the jackknife leaves out;
a unit (a run, with all its checkpoints) is never split between two.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from analysis.representation_store import Representation

FEWEST_BLOCKS = 5
"""With fewer, no interval is given."""
FEWEST_UNITS = 4
"""Units in a block, at least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedSamples:
    """The samples of some networks in one order, that of their ids."""

    digest: str
    """Of the ids, as in `Representation.sample_digest`."""
    rows: tuple[Int64[np.ndarray, " n"], ...]
    """For every network, the row of each sample in its arrays."""
    block: Int64[np.ndarray, " n"]
    """Of each sample; from 0."""
    num_blocks: int
    num_units: int


def join_samples(networks: Sequence[Representation], most_blocks: int, seed: int) -> SharedSamples:
    """The samples of these networks, which must be the same for all.

    Raises:
        ValueError: a network has other samples than the first, or another unit for one of them.
    """
    tables = [network.samples() for network in networks]
    order = [np.argsort(np.array(table["sample_id"].to_pylist(), dtype=np.str_), kind="stable") for table in tables]
    first = tables[0].take(order[0])
    for network, table, rows in zip(networks[1:], tables[1:], order[1:], strict=True):
        check_same(networks[0], first, network, table.take(rows))
    block, num_blocks, num_units = deal_units(first["unit"].to_pylist(), most_blocks, seed)
    return SharedSamples(
        digest=networks[0].sample_digest, rows=tuple(order), block=block, num_blocks=num_blocks, num_units=num_units
    )


def check_same(a: Representation, samples_a: pa.Table, b: Representation, samples_b: pa.Table) -> None:
    """Refuse two networks with different samples, both in the order of ids, naming the first differences."""
    ids_a, ids_b = samples_a["sample_id"].to_pylist(), samples_b["sample_id"].to_pylist()
    if ids_a != ids_b:
        differences = []
        for network, mine, other in ((a, ids_a, ids_b), (b, ids_b, ids_a)):
            only = sorted(set(mine) - set(other))
            shown = ", ".join(map(repr, only[:3])) + (", ..." if len(only) > 3 else "")
            differences.append(f"{len(only)} only in {network.path}{f' ({shown})' if only else ''}")
        raise ValueError(
            f"{a.network} and {b.network} were not represented on the same samples: {' and '.join(differences)}; make "
            "both from the same dataset, split and epochs with python -m analysis represent"
        )
    for sample_id, unit_a, unit_b in zip(
        ids_a, samples_a["unit"].to_pylist(), samples_b["unit"].to_pylist(), strict=True
    ):
        if unit_a != unit_b:
            raise ValueError(
                f"sample {sample_id!r} belongs to unit {unit_a!r} in {a.path} and to {unit_b!r} in {b.path}; "
                "make both from the same dataset with python -m analysis represent"
            )


def deal_units(units: Sequence[str], most_blocks: int, seed: int) -> tuple[Int64[np.ndarray, " n"], int, int]:
    """The block of each sample, the number of blocks and the number of units.

    Units are put in the order of a hash and dealt out in turn, so that blocks differ by at most one unit and depend on
    nothing but the units and the seed. One block for all where there are too few units for an interval.
    """
    distinct, unit_of_sample = np.unique(np.array(units, dtype=np.str_), return_inverse=True)
    num_blocks = min(most_blocks, len(distinct) // FEWEST_UNITS)
    if num_blocks < FEWEST_BLOCKS:
        return np.zeros(len(units), dtype=np.int64), 1, len(distinct)
    keys = [hashlib.sha256(f"{seed}:{unit}".encode()).digest() for unit in distinct.tolist()]
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[sorted(range(len(distinct)), key=keys.__getitem__)] = np.arange(len(distinct))
    return rank[unit_of_sample] % num_blocks, num_blocks, len(distinct)
