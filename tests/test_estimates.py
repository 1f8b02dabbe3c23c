"""HSIC and CKA against their definitions, what is undefined, and the uncertainty of what is defined."""

from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from analysis.estimates import Estimator, finish, jackknife, null_sd
from analysis.measure import Precision, measure
from analysis.moments import Moments, merge

ESTIMATORS: tuple[Estimator, ...] = ("biased", "debiased")
PRECISIONS: tuple[Precision, ...] = ("float32", "float64")

seeds = st.integers(0, 2**32 - 1)


def related(rng: np.random.Generator, n: int, widths: tuple[int, ...]) -> list[np.ndarray]:
    """Layers that share their first feature, more or less."""
    shared = rng.normal(size=(n, 1))
    return [rng.normal(size=(n, width)) + shared * rng.normal() for width in widths]


def measured(*layers: list[np.ndarray]) -> Moments:
    return measure(*layers, precision="float64")


def hsic0(K: np.ndarray, L: np.ndarray) -> float:
    """tr(K H L H) / (n - 1)² (Gretton et al. 2005)."""
    n = len(K)
    H = np.eye(n) - 1 / n
    return np.trace(K @ H @ L @ H) / (n - 1) ** 2


def hsic1(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al. 2012, equation 5."""
    n, one = len(K), np.ones(len(K))
    K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
    products = (
        np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ K @ L @ one
    )
    return products / (n * (n - 3))


def u_statistic(K: np.ndarray, L: np.ndarray) -> float:
    """The mean over distinct i, j, q, r of what has HSIC as its expectation, term by term."""
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(len(K)), 4)]
    return float(np.mean(terms))


@given(seed=seeds, n=st.integers(4, 31))
def test_both_estimators_equal_their_definitions_for_every_layer_pair(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = related(rng, n, (2, 5, 3)), related(rng, n, (7, 1))  # 3 rows and 2 columns: a transpose would not even fit
    K, L = ([layer @ layer.T for layer in layers] for layers in (a, b))
    for estimator, hsic in zip(ESTIMATORS, (hsic0, hsic1), strict=True):
        found = finish(measured(a, b), estimator)
        xy, xx, yy = ([[hsic(k, l) for l in L] for k in K], [hsic(k, k) for k in K], [hsic(l, l) for l in L])
        np.testing.assert_allclose(found.hsic, xy, rtol=0, atol=1e-11 * np.max(np.abs(xy)))
        np.testing.assert_allclose(found.hsic_a, xx, rtol=1e-9)
        np.testing.assert_allclose(found.hsic_b, yy, rtol=1e-9)
        np.testing.assert_allclose(found.cka, xy / np.sqrt(np.outer(xx, yy)), rtol=0, atol=1e-10)
        assert not "".join(found.reason.flat)


@pytest.mark.parametrize("n", [4, 5, 7])
def test_debiased_hsic_equals_the_four_index_statistic_and_biased_does_not(n: int) -> None:
    [x], [y] = (related(np.random.default_rng(n), n, (width,)) for width in (3, 2))
    expected = u_statistic(x @ x.T, y @ y.T)
    assert finish(measured([x], [y]), "debiased").hsic[0, 0] == pytest.approx(expected, rel=1e-12)
    assert finish(measured([x], [y]), "biased").hsic[0, 0] != pytest.approx(expected, rel=0.1)


@given(seed=seeds, precision=st.sampled_from(PRECISIONS))
def test_values_stay_within_one_and_self_terms_above_zero_without_a_clamp(seed: int, precision: Precision) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    a, b = related(rng, n, (101, 2, 1)), related(rng, n, (3, 103))
    found = finish(measure(a, b, precision=precision))
    rounding = 1e-3 if precision == "float32" else 1e-9  # at n=4 a self term may be a thousandth of its parts
    assert np.nanmax(np.abs(found.cka)) <= 1 + rounding
    assert np.all(found.hsic_a > 0)
    assert np.all(found.hsic_b > 0)


@given(seed=seeds)
def test_the_angle_between_representations_obeys_the_triangle_inequality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = related(rng, 29, (3, 2, 5))
    for estimator in ESTIMATORS:
        angle = np.arccos(np.clip(finish(measured(layers, layers), estimator).cka, -1, 1))
        assert angle[0, 2] <= angle[0, 1] + angle[1, 2] + 1e-6


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_layer_equals_itself_to_nine_digits_in_any_number_of_blocks(estimator: Estimator) -> None:
    layers = related(np.random.default_rng(0), 211, (3, 31, 2))
    for num_blocks in (1, 2, 7):
        states = [measured(*[[layer[i::num_blocks] for layer in layers]] * 2) for i in range(num_blocks)]
        np.testing.assert_allclose(np.diag(finish(reduce(merge, states), estimator).cka), 1, rtol=0, atol=1e-9)


def test_hsic_is_in_the_units_of_the_features_to_the_fourth_power() -> None:
    a, b = (related(np.random.default_rng(seed), 31, (3,)) for seed in (1, 2))
    once, tripled = finish(measured(a, b)), finish(measured([3 * a[0]], b))
    np.testing.assert_allclose(tripled.hsic_a, 3**4 * once.hsic_a)
    np.testing.assert_allclose(tripled.hsic, 3**2 * once.hsic)
    np.testing.assert_allclose(tripled.variance_a, 3**2 * once.variance_a)
    np.testing.assert_allclose(once.variance_b, b[0].var(axis=0, ddof=1).sum())


def test_the_effective_rank_of_equal_uncorrelated_features_is_their_number() -> None:
    """Covariance v I of d features: variance d v, biased self term |v I|² = d v², and (d v)² / (d v²) = d."""
    columns = np.random.default_rng(0).normal(size=(31, 5))
    orthogonal, _ = np.linalg.qr(columns - columns.mean(axis=0))
    found = finish(measured([orthogonal], [columns]), "biased")
    np.testing.assert_allclose(found.variance_a**2 / found.hsic_a, 5)


@pytest.mark.parametrize("width", [2, 131])
def test_unrelated_representations_scatter_about_zero_within_the_null_and_below_it(width: int) -> None:
    rng = np.random.default_rng(width)
    n, draws = 67, 200
    values = np.array(
        [finish(measured(*([x] for x in rng.normal(size=(2, n, width))))).cka[0, 0] for _ in range(draws)]
    )
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(draws)
    assert 0.2 < np.mean(values < 0) < 0.8
    assert values.std() == pytest.approx(null_sd(n), rel=0.25)  # sd of an sd over 200 draws: 5 %; n is not large: 10 %
    if width > 2:  # at a low rank the tails are heavier
        assert np.abs(values / null_sd(n)).max() < 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_constant_layer_costs_its_own_cells_only(precision: Precision) -> None:
    a, b = (related(np.random.default_rng(seed), 31, (3, 5, 2)) for seed in (1, 2))
    a[1][:] = 0.1
    blocks = [
        measure([x[rows] for x in a], [y[rows] for y in b], precision=precision)
        for rows in np.split(np.arange(31), [9])
    ]
    for estimator in ESTIMATORS:
        found = finish(merge(*blocks), estimator)
        np.testing.assert_array_equal(found.reason, [[""] * 3, ["constant layer"] * 3, [""] * 3])
        np.testing.assert_array_equal(np.isnan(found.cka), found.reason != "")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("offset", [0.0, 0.3, -1e5])
def test_a_layer_in_which_one_example_differs_has_no_debiased_self_term(precision: Precision, offset: float) -> None:
    """About the common value all products of two examples are 0, and so is HSIC1. What rounding makes of that 0 must
    not become a similarity. Biased, it is a layer like any other."""
    n = 101
    one, [other] = np.full((n, 3), offset), related(np.random.default_rng(0), n, (5,))
    one[17] += [0.1, 0.2, -0.7]
    state = measure([one, other], [other], precision=precision)
    assert finish(state, "debiased").reason.tolist() == [["non-positive self term"], [""]]
    assert np.isnan(finish(state, "debiased").cka[0, 0])
    assert finish(state, "biased").reason.tolist() == [[""], [""]]


def test_a_far_outlier_has_a_value_in_float64() -> None:
    [x], [y] = (related(np.random.default_rng(seed), 101, (3,)) for seed in (1, 2))
    x[17] += 1e4
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    K, L = x @ x.T, y @ y.T
    expected = hsic1(K, L) / np.sqrt(hsic1(K, K) * hsic1(L, L))
    assert finish(measured([x], [y])).cka[0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("distance", [1e5, 1e6, 1e7])
def test_a_far_outlier_leaves_no_noise_in_float32(distance: float) -> None:
    """All other examples being almost equal in its scale, their products round alike, and the errors add up."""
    [x], [y] = (related(np.random.default_rng(seed), 5003, (31,)) for seed in (1, 2))
    x[17] += distance
    assert finish(measure([x], [y])).reason.tolist() == [["non-positive self term"]]
    assert finish(measure([x], [y]), "biased").reason.tolist() == [[""]]


@pytest.mark.parametrize(("estimator", "fewest"), [("biased", 2), ("debiased", 4)])
def test_too_few_examples_are_a_reason_and_no_error(estimator: Estimator, fewest: int) -> None:
    a, b = (related(np.random.default_rng(seed), fewest, (3, 5)) for seed in (1, 2))
    assert np.isfinite(finish(measured(a, b), estimator).cka).all()
    for n in range(fewest):
        found = finish(measured([layer[:n] for layer in a], [layer[:n] for layer in b]), estimator)
        assert np.isnan(found.cka).all()
        assert set(found.reason.flat) == {f"n<{fewest}"}


def test_the_null_of_no_examples_is_undefined() -> None:
    assert null_sd(1000) == pytest.approx(0.001414, abs=1e-6)
    assert np.isnan(null_sd(0))


def blocks_of(layers_a: list[np.ndarray], layers_b: list[np.ndarray], num_blocks: int) -> list[Moments]:
    picks = np.array_split(np.arange(len(layers_a[0])), num_blocks)
    return [measured([layer[rows] for layer in layers_a], [layer[rows] for layer in layers_b]) for rows in picks]


@given(seed=seeds, num_blocks=st.integers(2, 11), estimator=st.sampled_from(ESTIMATORS))
def test_the_jackknife_equals_recomputing_without_each_block(seed: int, num_blocks: int, estimator: Estimator) -> None:
    rng = np.random.default_rng(seed)
    a, b = related(rng, 47, (3, 5, 2)), related(rng, 47, (2, 7))
    states = blocks_of(a, b, num_blocks)
    found = jackknife(reduce(merge, states), iter(states), estimator, confidence=0.9)
    without = []
    for rows in np.array_split(np.arange(47), num_blocks):
        left_a, left_b = ([np.delete(layer, rows, axis=0) for layer in layers] for layers in (a, b))
        without.append(finish(measured(left_a, left_b), estimator).cka)
    se = np.sqrt((num_blocks - 1) * np.var(without, axis=0))  # (G - 1) / G times a sum over G is G - 1 times a mean
    np.testing.assert_allclose(found.se, se, rtol=0, atol=1e-9)
    half = student.ppf(0.95, num_blocks - 1) * se
    value = finish(measured(a, b), estimator).cka
    np.testing.assert_allclose([found.low, found.high], [value - half, value + half], rtol=0, atol=1e-7)
    assert found.num_blocks == num_blocks


def test_the_jackknife_knows_the_scatter_over_samples() -> None:
    rng = np.random.default_rng(0)
    values, errors, covered = [], [], []
    everyone = related(rng, 200 * 101, (3, 5))
    truth = finish(measured([everyone[0]], [everyone[1]])).cka[0, 0]
    for sample in range(101):
        rows = slice(200 * sample, 200 * (sample + 1))
        states = blocks_of([everyone[0][rows]], [everyone[1][rows]], 5)
        total = reduce(merge, states)
        spread = jackknife(total, states)
        values.append(finish(total).cka[0, 0])
        errors.append(spread.se[0, 0])
        covered.append(spread.low[0, 0] < truth < spread.high[0, 0])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)  # the sd of 101 values is known to 7 %
    assert 0.88 <= np.mean(covered) <= 0.99


@given(seed=seeds)
def test_a_layer_that_varies_in_one_block_only_has_no_jackknife_and_harms_no_other(seed: int) -> None:
    """Without that block it is constant, but for what the subtraction rounds, which depends on the order of merging."""
    rng = np.random.default_rng(seed)
    a, b = related(rng, 47, (3, 5)), related(rng, 47, (3, 5))
    a[1][10:] = rng.normal(size=5)
    states = blocks_of(a, b, 5)
    constant = reduce(merge, states[2:])
    for total in (reduce(merge, states), merge(constant, merge(*states[:2]))):
        spread = jackknife(total, states)
        for ends in (spread.se, spread.low, spread.high):
            np.testing.assert_array_equal(np.isnan(ends), [[False, False], [True, True]])


def test_blocks_that_are_not_those_of_the_total_are_refused() -> None:
    states = blocks_of(*(related(np.random.default_rng(seed), 47, (3,)) for seed in (1, 2)), num_blocks=5)
    total = reduce(merge, states)
    with pytest.raises(
        ValueError, match="4 blocks with 38 examples in all, and a total with 47; the jackknife needs two"
    ):
        jackknife(total, states[:4])
    with pytest.raises(
        ValueError, match="1 blocks with 47 examples in all, and a total with 47; the jackknife needs two"
    ):
        jackknife(total, [total])
