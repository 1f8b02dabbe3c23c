"""Representations of made-up networks on disk, for the tests of the store, of comparisons and of the report."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.representation_store import Representation, write_representation

NUM_UNITS = 43
STATES = 2
"""Samples per unit."""


def samples(order: np.ndarray | None = None, num_units: int = NUM_UNITS, states: int = STATES) -> pa.Table:
    """Some states of some runs, ids in alphabetical order unless another one is asked for."""
    ids = [(f"run{unit:03d}@{state}", f"run{unit:03d}") for unit in range(num_units) for state in range(states)]
    chosen = [ids[place] for place in (range(len(ids)) if order is None else order.tolist())]
    return pa.table({"sample_id": [sample for sample, _ in chosen], "unit": [unit for _, unit in chosen]})


def layers(seed: int, widths: Mapping[str, int], n: int = NUM_UNITS * STATES) -> dict[str, np.ndarray]:
    """Features that share a few directions with those of every other seed."""
    shared = np.random.default_rng(0).normal(size=(n, 3))
    rng = np.random.default_rng([1, seed])
    return {
        name: (shared @ rng.normal(size=(3, width)) + rng.normal(size=(n, width))).astype(np.float32)
        for name, width in widths.items()
    }


def write_network(
    path: Path, features: Mapping[str, np.ndarray], table: pa.Table | None = None, made_of: str = "made up"
) -> Representation:
    """Store a network in three batches."""
    kept = samples() if table is None else table
    cuts = [0, 7, 7, kept.num_rows]
    return write_representation(
        path,
        {"network": made_of},
        {name: f"reading of {name}" for name in features},
        kept,
        [{name: layer[start:stop] for name, layer in features.items()} for start, stop in pairwise(cuts)],
    )
