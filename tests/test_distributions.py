"""How hyperparameters are drawn: ranges, shapes and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributions import Choice, Distribution

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
        (Distribution(), "rate: found nothing; expected one of choice, uniform and log_uniform"),
        (Distribution(choice=(0.1,), uniform=(0.1, 0.2)), "rate: found choice and uniform; expected one of"),
        (Distribution(choice=()), "rate: choice is empty; expected at least one number"),
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
