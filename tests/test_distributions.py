"""How hyperparameters are drawn: ranges, shapes and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributions import Choice, Distribution, check_lists, turns

SEEDS = st.integers(0, 2**32 - 1)
BOUNDS = st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)).map(lambda pair: (min(pair), max(pair)))


@given(bounds=BOUNDS, seed=SEEDS, kind=st.sampled_from(["uniform", "log_uniform"]))
def test_a_number_lies_between_the_two(bounds: tuple[float, float], seed: int, kind: str) -> None:
    assert bounds[0] <= Distribution(**{kind: bounds}).draw(np.random.default_rng(seed)) <= bounds[1]


@given(values=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1).map(tuple), seed=SEEDS)
def test_a_choice_is_one_of_its_values(values: tuple[str, ...], seed: int) -> None:
    assert Choice(choice=values).draw(np.random.default_rng(seed)) in values


def test_half_of_log_uniform_numbers_lie_below_the_geometric_mean_of_the_bounds() -> None:
    """Of 1,009 draws: four standard deviations of the share are 4 * 0.5 / sqrt(1009) = 0.063."""
    generator = np.random.default_rng(0)
    drawn = [Distribution(log_uniform=(1e-4, 1.0)).draw(generator) for _ in range(1009)]
    assert np.mean(np.array(drawn) < 1e-2) == pytest.approx(0.5, abs=0.063)


def test_half_of_uniform_numbers_lie_below_the_mean_of_the_bounds() -> None:
    generator = np.random.default_rng(0)
    drawn = [Distribution(uniform=(1e-4, 1.0)).draw(generator) for _ in range(1009)]
    assert np.mean(np.array(drawn) < 0.5) == pytest.approx(0.5, abs=0.063)


def test_every_value_of_a_choice_is_drawn() -> None:
    generator = np.random.default_rng(0)
    assert {Distribution(choice=(0.25, 0.5, 1.0)).draw(generator) for _ in range(101)} == {0.25, 0.5, 1.0}


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (Distribution(), "rate: found nothing; expected one of choice, uniform, log_uniform, grid and each"),
        (Distribution(choice=(0.1,), uniform=(0.1, 0.2)), "rate: found choice and uniform; expected one of"),
        (Distribution(choice=()), "rate: choice is empty; expected at least one value"),
        (
            Distribution(uniform=(0.2, 0.1)),
            r"rate: uniform is \[0.2, 0.1\]; expected finite numbers, the smaller first",
        ),
        (Distribution(uniform=(0.1, math.inf)), r"rate: uniform is \[0.1, inf\]; expected finite numbers"),
        (Distribution(log_uniform=(0.0, 0.1)), r"rate: log_uniform is \[0.0, 0.1\]; expected two positive numbers"),
        (Distribution(uniform=(0.0, 1.0)), r"rate: uniform is \[0.0, 1.0\]; expected numbers at least 0 and below 1"),
        (Distribution(choice=(-0.1, 0.1)), r"rate: choice is \[-0.1, 0.1\]; expected numbers at least 0 and below 1"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(distribution: Distribution, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distribution.check("rate", least=0.0, below=1.0)


def test_bounds_that_a_number_may_not_reach_are_told_from_those_it_may() -> None:
    Distribution(choice=(1.0,)).check("fraction", above=0.0, most=1.0)
    with pytest.raises(ValueError, match=r"fraction: choice is \[0.0\]; expected numbers above 0 and at most 1"):
        Distribution(choice=(0.0,)).check("fraction", above=0.0, most=1.0)
    with pytest.raises(ValueError, match=r"rate: choice is \[0.0\]; expected numbers above 0$"):
        Distribution(choice=(0.0,)).check("rate", above=0.0)


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer: choice is empty; expected at least one value"):
        Choice(choice=()).check("optimizer")


def test_runs_go_through_all_combinations_of_grids_the_last_fastest() -> None:
    """Two by hand: three learning rates and two fractions, and what is drawn in between counts for nothing."""
    drawn = {
        "learning_rate": Distribution(grid=(1.0, 2.0, 3.0)),
        "dropout": Distribution(uniform=(0.0, 0.5)),
        "activation": Choice(grid=("relu", "tanh")),
    }
    found = []
    for run_index in range(8):
        turn = turns(drawn, run_index)
        generator = np.random.default_rng(run_index)
        found.append(tuple(drawn[name].draw(generator, turn[name]) for name in ("learning_rate", "activation")))
    every = [(rate, activation) for rate in (1.0, 2.0, 3.0) for activation in ("relu", "tanh")]
    assert found == [*every, *every[:2]]


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), first=st.integers(0, 10_000))
def test_any_stretch_of_runs_as_long_as_the_grid_has_every_combination_once(sizes: list[int], first: int) -> None:
    drawn = {str(place): Choice(grid=tuple(range(size))) for place, size in enumerate(sizes)}
    places = [tuple(turns(drawn, run_index).values()) for run_index in range(first, first + math.prod(sizes))]
    assert len(set(places)) == len(places)


def test_lists_have_a_value_for_each_run() -> None:
    rates = {"learning_rate": Distribution(each=(0.1, 0.3, 0.2))}
    check_lists(rates, 3)
    generator = np.random.default_rng(0)
    drawn = [rates["learning_rate"].draw(generator, turns(rates, run)["learning_rate"]) for run in range(3)]
    assert drawn == [0.1, 0.3, 0.2]
    with pytest.raises(
        ValueError, match=r"learning_rate: each has 3 values; expected 4, one for each run \(num_runs\)"
    ):
        check_lists(rates, 4)


def test_numbers_of_grids_and_lists_lie_within_the_bounds_in_any_order() -> None:
    Distribution(grid=(0.3, 0.1)).check("rate", least=0.0)
    Distribution(each=(0.3, 0.1)).check("rate", least=0.0)
    with pytest.raises(ValueError, match=r"rate: grid is \[0.3, -0.1\]; expected numbers at least 0"):
        Distribution(grid=(0.3, -0.1)).check("rate", least=0.0)
