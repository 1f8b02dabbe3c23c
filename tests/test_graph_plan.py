"""Order, parts and splits are laws of names and lengths."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.graph_plan import DatasetSpec, place, shuffled
from pipeline.split_rules import SplitRule

LENGTHS = st.lists(st.integers(1, 23), min_size=1, max_size=40)


@given(lengths=LENGTHS, floats_per_part=st.integers(1, 31))
def test_graphs_lie_one_after_another_in_parts_that_are_full(lengths: list[int], floats_per_part: int) -> None:
    """Slow reference: parts as lists, filled one graph at a time."""
    parts: list[list[int]] = []
    expected = []
    for length in lengths:
        if not parts or sum(parts[-1]) + length > floats_per_part:
            parts.append([])
        expected.append((len(parts) - 1, sum(parts[-1])))
        parts[-1].append(length)
    part, offset = place(np.array(lengths, dtype=np.int64), floats_per_part)
    assert list(zip(part.tolist(), offset.tolist(), strict=True)) == expected


def test_a_graph_longer_than_a_part_has_a_part_of_its_own() -> None:
    part, offset = place(np.array([2, 11, 3, 2, 1], dtype=np.int64), floats_per_part=5)
    assert part.tolist() == [0, 1, 2, 2, 3]
    assert offset.tolist() == [0, 0, 0, 3, 0]


@given(names=st.lists(st.text(max_size=5), unique=True, max_size=20), data=st.data())
def test_the_order_of_the_graphs_does_not_depend_on_the_order_they_come_in(
    names: list[str], data: st.DataObject
) -> None:
    mixed = data.draw(st.permutations(names))
    assert [names[place] for place in shuffled(names, 3)] == [mixed[place] for place in shuffled(mixed, 3)]
    assert sorted(shuffled(names, 3).tolist()) == list(range(len(names)))


def test_another_seed_gives_another_order() -> None:
    names = [f"run-{number}" for number in range(50)]
    assert shuffled(names, 0).tolist() != shuffled(names, 1).tolist()


def test_the_split_of_a_unit_is_the_start_of_its_hash_as_a_fraction() -> None:
    """The SHA-256 of "split/run-10" begins with aa: 10/16 + 10/256 = 0.664; the rest adds less than 1/256 = 0.004."""
    assert hashlib.sha256(b"split/run-10").hexdigest().startswith("aa")
    assert SplitRule(train=0.67, val=0.2).of("run-10") == "train"
    assert SplitRule(train=0.66, val=0.2).of("run-10") == "val"
    assert SplitRule(train=0.46, val=0.2).of("run-10") == "test"


def test_the_ends_of_a_fraction_belong_to_the_next_side() -> None:
    at = int(hashlib.sha256(b"split/a").hexdigest()[:12], 16) / 2**48
    assert SplitRule(train=at, val=0.0).of("a") == "test"
    assert SplitRule(train=np.nextafter(at, 1), val=0.0).of("a") == "train"


def test_the_fractions_of_a_split_are_those_asked_for() -> None:
    """Of 20,000 units a fraction p varies by sqrt(p (1 - p) / 20,000) < 0.0036; four of that is 0.015."""
    counts = Counter(SplitRule().of(f"unit-{number}") for number in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.7, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.15, abs=0.015)
    assert set(counts) == {"train", "val", "test"}


def test_another_salt_gives_an_independent_split() -> None:
    """Two independent splits agree on 0.7^2 + 2 * 0.15^2 = 0.535 of the units."""
    units = [f"unit-{number}" for number in range(20_000)]
    same = np.mean([SplitRule().of(unit) == SplitRule(salt="other").of(unit) for unit in units])
    assert same == pytest.approx(0.535, abs=0.015)


@pytest.mark.parametrize(("train", "val"), [(0.9, 0.2), (-0.1, 0.2), (0.5, -0.1), (float("nan"), 0.1)])
def test_fractions_that_are_none_are_refused(train: float, val: float) -> None:
    with pytest.raises(ValueError, match="expected fractions, together at most 1"):
        SplitRule(train=train, val=val)


def test_parts_of_no_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="floats_per_part is 0; expected at least 1"):
        DatasetSpec(floats_per_part=0)
