"""Scores against answers derived by hand."""

import math

import numpy as np
import pytest

from training.metrics import kendall_tau, r_squared, split_half_reliability, unit_interval


def test_r_squared_of_one_wrong_by_one() -> None:
    """Targets 0, 1, 2 about their mean have squares 1 + 0 + 1 = 2; one error of 1 leaves 1 - 1/2."""
    assert r_squared(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])) == pytest.approx(1 / 2)


def test_r_squared_of_the_mean_is_zero_and_of_worse_is_negative() -> None:
    target = np.array([0.0, 1.0, 2.0])
    assert r_squared(target, np.full(3, 1.0)) == 0
    assert r_squared(target, target[::-1].copy()) == pytest.approx(-3)


def test_kendall_tau_counts_pairs_in_order() -> None:
    """Of the three pairs of (1, 2, 3) and (1, 3, 2), two agree and one does not: (2 - 1) / 3."""
    assert kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [r_squared, kendall_tau, split_half_reliability])
def test_a_score_of_constants_or_of_nothing_is_undefined(score) -> None:
    assert math.isnan(score(np.zeros(3), np.zeros(3)))
    assert math.isnan(score(np.zeros(0), np.zeros(0)))


def test_split_half_reliability_is_the_spearman_brown_formula() -> None:
    """(0, 1, 2) and (0, 2, 1) correlate by 1/2, so 2 * 1/2 / (1 + 1/2) = 2/3."""
    assert split_half_reliability(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0])) == pytest.approx(2 / 3)


def test_halves_that_are_exactly_opposed_have_no_reliability() -> None:
    assert math.isnan(split_half_reliability(np.array([0.0, 1.0]), np.array([1.0, 0.0])))


def test_reliability_is_the_r_squared_of_the_truth_against_noisy_halves() -> None:
    """With truth t and halves t + e, t + f of equal noise, predicting t itself scores about the reliability of the mean
    half."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20_000)
    halves = truth + rng.normal(scale=0.7, size=(2, 20_000))
    assert r_squared(halves.mean(axis=0), truth) == pytest.approx(split_half_reliability(*halves), abs=0.01)


def test_the_interval_of_whole_units_is_wider_than_of_their_copies() -> None:
    """Three copies of every run carry no more information than one; drawing rows instead of runs would pretend they
    do."""
    rng = np.random.default_rng(0)
    target = np.repeat(rng.normal(size=31), 3)
    prediction = target + np.repeat(rng.normal(scale=0.5, size=31), 3)
    by_run = unit_interval(r_squared, target, prediction, np.repeat(np.arange(31), 3))
    by_row = unit_interval(r_squared, target, prediction, np.arange(93))
    assert by_run[1] - by_run[0] > 1.3 * (by_row[1] - by_row[0])
    assert by_run[0] < r_squared(target, prediction) < by_run[1]
