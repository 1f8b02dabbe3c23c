"""The epoch as a pure function: every graph once, whatever the ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.epoch_plan import EpochPlan, PlanSettings, plan_evaluation, plan_training

SETTINGS = st.builds(
    PlanSettings,
    values_per_micro_batch=st.integers(1, 60),
    micro_batches_per_step=st.sampled_from([1, 2, 4, 6]),
    parts_per_window=st.integers(1, 4),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part and size of every row, and the chosen rows."""
    num_rows = draw(st.integers(1, 53))
    part = np.sort(draw(st.lists(st.integers(0, 6), min_size=num_rows, max_size=num_rows)))
    size = draw(st.lists(st.integers(1, 30), min_size=num_rows, max_size=num_rows))
    rows = draw(st.lists(st.integers(0, num_rows - 1), unique=True, min_size=1))
    return np.array(part, dtype=np.int64), np.array(size, dtype=np.int64), np.array(rows, dtype=np.int64)


def rows_of(plan: EpochPlan) -> list[int]:
    return [row for micro_batch in plan.micro_batches for row in micro_batch.rows.tolist()]


@given(tables(), SETTINGS, st.integers(0, 5))
def test_each_graph_is_seen_once_over_all_ranks(table, settings: PlanSettings, epoch: int) -> None:
    part, size, rows = table
    plan = plan_training(part, size, rows, settings, seed=3, epoch=epoch)
    for num_ranks in (1, settings.micro_batches_per_step):
        seen = [
            row
            for rank in range(num_ranks)
            for micro_batch in plan.of_rank(rank, num_ranks)
            for row in micro_batch.rows.tolist()
        ]
        assert sorted(seen) == sorted(rows.tolist())


@given(tables(), SETTINGS)
def test_every_rank_has_equally_many_micro_batches_and_steps_are_full(table, settings: PlanSettings) -> None:
    part, size, rows = table
    plan = plan_training(part, size, rows, settings, seed=3, epoch=0)
    ranks = settings.micro_batches_per_step
    assert {len(plan.of_rank(rank, ranks)) for rank in range(ranks)} == {plan.num_steps}
    assert len(plan.micro_batches) == plan.num_steps * ranks


@given(tables(), SETTINGS)
def test_graphs_in_step_counts_the_graphs_of_the_step(table, settings: PlanSettings) -> None:
    part, size, rows = table
    plan = plan_training(part, size, rows, settings, seed=3, epoch=0)
    step = settings.micro_batches_per_step
    for start in range(0, len(plan.micro_batches), step):
        members = plan.micro_batches[start : start + step]
        assert {member.graphs_in_step for member in members} == {sum(len(member.rows) for member in members)}


@given(tables(), SETTINGS)
def test_a_micro_batch_keeps_to_its_size_unless_one_graph_is_larger(table, settings: PlanSettings) -> None:
    part, size, rows = table
    for micro_batch in plan_training(part, size, rows, settings, seed=3, epoch=0).micro_batches:
        assert len(micro_batch.rows) <= 1 or size[micro_batch.rows].sum() <= settings.values_per_micro_batch


@given(tables(), SETTINGS)
def test_only_the_parts_of_one_window_are_in_memory_together(table, settings: PlanSettings) -> None:
    """Going through the epoch, the parts met fall into consecutive runs of at most ``parts_per_window`` that never
    return."""
    part, size, rows = table
    order = part[rows_of(plan_training(part, size, rows, settings, seed=3, epoch=0))].tolist()
    parts = list(dict.fromkeys(order))
    window_of = {number: place // settings.parts_per_window for place, number in enumerate(parts)}
    windows = [window_of[number] for number in order]
    assert windows == sorted(windows)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    part, size, rows = np.repeat([0, 1, 2], 31), np.full(93, 5), np.arange(93)

    def order(seed: int, epoch: int) -> list[int]:
        return rows_of(plan_training(part, size, rows, PlanSettings(values_per_micro_batch=35), seed, epoch))

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_evaluation_keeps_the_order() -> None:
    rows = np.array([4, 2, 7])
    plan = plan_evaluation(np.full(11, 5), rows, PlanSettings(values_per_micro_batch=10, micro_batches_per_step=2))
    assert [micro_batch.rows.tolist() for micro_batch in plan.micro_batches] == [[4, 2], [7]]


def test_ranks_that_do_not_divide_a_step_are_refused() -> None:
    plan = plan_evaluation(np.full(11, 5), np.arange(11), PlanSettings(micro_batches_per_step=2))
    with pytest.raises(ValueError, match="3 ranks cannot share steps of 2 micro-batches; set micro_batches_per_step"):
        plan.of_rank(0, 3)


def test_a_plan_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="every number must be at least 1"):
        PlanSettings(values_per_micro_batch=0)
