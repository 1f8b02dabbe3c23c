"""Blocks of samples: whole units, nearly equal, and decided by names and seed alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.samples import FEWEST_UNITS, deal_units
from stored_networks import NUM_UNITS


@given(
    units=st.lists(st.integers(0, 200), min_size=1, max_size=400),
    most_blocks=st.integers(5, 30),
    seed=st.integers(0, 9),
)
def test_units_are_never_split_and_dealt_evenly(units: list[int], most_blocks: int, seed: int) -> None:
    names = [f"run{unit}" for unit in units]
    block, num_blocks, num_units = deal_units(names, most_blocks, seed)
    assert num_units == len(set(units))
    assert num_blocks == 1 or 5 <= num_blocks <= most_blocks
    assert set(block.tolist()) == set(range(num_blocks))
    of_unit = {name: {int(b) for b, other in zip(block, names, strict=True) if other == name} for name in set(names)}
    assert all(len(blocks) == 1 for blocks in of_unit.values())
    sizes = np.bincount([blocks.pop() for blocks in of_unit.values()])
    assert np.ptp(sizes) <= 1
    assert num_blocks == 1 or sizes.min() >= FEWEST_UNITS


def test_blocks_depend_on_the_seed_and_not_on_the_order_of_samples() -> None:
    names = [f"run{unit}" for unit in range(NUM_UNITS)]
    block, _, _ = deal_units(names, 20, 0)
    backward, _, _ = deal_units(names[::-1], 20, 0)
    assert np.array_equal(block, backward[::-1])
    assert not np.array_equal(block, deal_units(names, 20, 1)[0])
