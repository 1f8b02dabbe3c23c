"""CKA on plain arrays: answers derived by hand, what it does and does not see, and whom it refuses."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.estimates import Estimator
from analysis.similarity import cka, cka_matrix, debiased_linear_cka, linear_cka

ESTIMATORS: tuple[Estimator, ...] = ("biased", "debiased")

seeds = st.integers(0, 2**32 - 1)


def related(seed: int, n: int, *widths: int) -> list[np.ndarray]:
    """Representations that share their first few directions."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    return [shared @ rng.normal(size=(2, width)) + rng.normal(size=(n, width)) for width in widths]


def named(layers: list[np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return dict(zip(names, layers, strict=True))


def rotation(rng: np.random.Generator, width: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def test_shapes_are_checked_while_testing() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        linear_cka(np.zeros(3), np.zeros((3, 1)))


def test_linear_cka_of_a_ramp_and_a_step_is_three_quarters() -> None:
    """Centred: x = (-1, 0, 1), y = (-1, -1, 2)/3. So (x.y)² = 1, |x|² = 2, |y|² = 2/3, and 1 / (2 * 2/3) = 3/4."""
    assert linear_cka(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [1.0]])) == pytest.approx(3 / 4)


def test_debiased_cka_of_two_splits_of_four_examples_is_minus_a_half() -> None:
    """x = (1, 1, -1, -1) and y = (1, -1, 1, -1): products of x are 1 for the pairs 12 and 34 and -1 for the rest, those
    of y for 13 and 24. Every row then sums to -1, and U-centring adds 1/2 + 1/2 - 4/6 = 1/3: 4/3 and -2/3. Summed over
    the six pairs, x with y gives 4 (4/3) (-2/3) + 2 (2/3)² = -8/3, either with itself 2 (4/3)² + 4 (2/3)² = 16/3.
    """
    x, y = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert debiased_linear_cka(x, y) == pytest.approx(-1 / 2)
    assert linear_cka(x, y) == pytest.approx(0)


@given(seed=seeds)
def test_rotations_scalings_and_shifts_are_not_seen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = related(seed, 31, 5, 7)
    moved = (x @ rotation(rng, 5) + rng.normal(0, 1000, 5)) * 10.0 ** rng.uniform(-6, 6)
    for similarity in (linear_cka, debiased_linear_cka):
        assert similarity(moved, y) == pytest.approx(similarity(x, y), abs=1e-9)
        assert similarity(y, moved) == pytest.approx(similarity(x, y), abs=1e-9)


@pytest.mark.parametrize("stretch", [0, 1, 3, -10])
def test_a_general_linear_map_is_seen(stretch: float) -> None:
    """u and v are centred, orthogonal and of one length: CKA of (u, k v) with u is |u|⁴ / (|u|⁴ sqrt(1 + k⁴))."""
    u, v = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    x = np.column_stack([u, stretch * v])
    assert linear_cka(x, u[:, np.newaxis]) == pytest.approx(1 / np.sqrt(1 + stretch**4))


@given(seed=seeds, n=st.integers(4, 31), width=st.sampled_from([1, 7, 43]))
def test_a_representation_equals_itself_to_nine_digits(seed: int, n: int, width: int) -> None:
    [x] = related(seed, n, width)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-9)
    assert debiased_linear_cka(x, -3 * x) == pytest.approx(1, abs=1e-9)


@given(seed=seeds)
def test_the_order_of_the_examples_is_not_seen_and_their_pairing_is(seed: int) -> None:
    x, y = related(seed, 101, 5, 7)
    order = np.random.default_rng(seed).permutation(101)
    assert debiased_linear_cka(x[order], y[order]) == pytest.approx(debiased_linear_cka(x, y), abs=1e-10)
    assert abs(debiased_linear_cka(x[order], y)) < debiased_linear_cka(x, y)


def test_unrelated_features_score_by_width_when_biased_and_zero_when_debiased() -> None:
    """The figures in the docstring of ``linear_cka``."""
    rng = np.random.default_rng(0)
    for width, biased in ((5, 0.09), (50, 0.50), (500, 0.91)):
        pairs = rng.normal(size=(13, 2, 50, width))
        assert np.mean([linear_cka(x, y) for x, y in pairs]) == pytest.approx(biased, abs=0.015)
        debiased = [debiased_linear_cka(x, y) for x, y in pairs]
        assert abs(np.mean(debiased)) < 3 * np.std(debiased) / np.sqrt(len(pairs))
        assert min(debiased) < 0 < max(debiased)


@given(seed=seeds, n=st.integers(4, 23))
def test_more_features_than_examples_agree_with_the_definition(seed: int, n: int) -> None:
    x, y = (layer - layer.mean(axis=0) for layer in related(seed, n, 83, 3))
    norms = np.linalg.norm(x.T @ y), np.linalg.norm(x.T @ x), np.linalg.norm(y.T @ y)
    assert linear_cka(x + 1e5, y) == pytest.approx(norms[0] ** 2 / (norms[1] * norms[2]), abs=1e-9)
    turned = x @ rotation(np.random.default_rng(seed), 83)
    assert debiased_linear_cka(turned + 1e5, y) == pytest.approx(debiased_linear_cka(x[:, ::-1], y), abs=1e-9)


def test_features_of_a_very_wide_layer_need_no_square_of_their_number() -> None:
    """Placed into half a million coordinates, mostly zero, the examples stay the same: p by p would take 2 TB."""
    x, y = related(0, 11, 5, 3)
    wide = np.zeros((11, 500_009))
    wide[:, ::100_003][:, :5] = x
    assert debiased_linear_cka(wide, y) == pytest.approx(debiased_linear_cka(x, y), abs=1e-12)


def test_rows_are_network_a_and_columns_are_network_b() -> None:
    a = named(related(0, 43, 5, 67, 3), "input", "conv1", "fc")
    b = named(related(0, 43, 2, 11), "conv1", "fc")
    for estimator, pair in zip(ESTIMATORS, (linear_cka, debiased_linear_cka), strict=True):
        found = cka_matrix(a, b, estimator=estimator)
        assert (found.rows, found.columns) == (("input", "conv1", "fc"), ("conv1", "fc"))
        np.testing.assert_allclose(found.values, [[pair(x, y) for y in b.values()] for x in a.values()], atol=1e-12)
        np.testing.assert_allclose(found.values, cka_matrix(b, a, estimator=estimator).values.T, atol=1e-12)
        assert (found.estimator, found.n, found.n_dropped) == (estimator, 43, 0)
        assert found.null_sd == pytest.approx(np.sqrt(2) / 43)


def test_a_bad_layer_costs_its_own_cells_only() -> None:
    a = named(related(0, 43, 5, 7, 3), "good", "constant", "overflown")
    b = {"good": related(0, 43, 11)[0]}
    expected = debiased_linear_cka(a["good"], b["good"])
    a["constant"][:] = 0.1
    a["overflown"][:, 1] = np.inf
    found = cka_matrix(a, b)
    assert found.reasons.tolist() == [[""], ["constant layer"], ["no finite row"]]
    np.testing.assert_allclose(found.values, [[expected], [np.nan], [np.nan]])
    assert (found.n, found.n_dropped) == (43, 0)


def test_examples_that_are_not_finite_are_left_out_and_counted() -> None:
    x, y = related(0, 43, 67, 5)
    expected = cka(x[2:], y[2:])
    x[0, 3], y[1, 4] = np.nan, -np.inf
    found = cka(x, y)
    assert (found.n, found.n_dropped) == (41, 2)
    assert (found.value, found.se) == pytest.approx((expected.value, expected.se))
    assert cka_matrix({"x": x}, {"y": y}).n_dropped == 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_standard_error_is_that_of_leaving_out_random_blocks(estimator: Estimator) -> None:
    x, y = related(0, 103, 5, 7)
    found = cka(x, y, estimator=estimator, seed=3)
    blocks = np.array_split(np.random.default_rng(3).permutation(103), 20)
    value = linear_cka if estimator == "biased" else debiased_linear_cka
    without = [value(np.delete(x, rows, axis=0), np.delete(y, rows, axis=0)) for rows in blocks]
    assert found.se == pytest.approx(np.sqrt(19 * np.var(without)), rel=1e-6)
    assert found.value == value(x, y)
    assert found.interval == pytest.approx((found.value - 2.093024 * found.se, found.value + 2.093024 * found.se))
    assert (found.estimator, found.reason, found.n, found.null_sd) == (estimator, "", 103, np.sqrt(2) / 103)


def test_another_seed_draws_other_blocks_and_leaves_the_value() -> None:
    x, y = related(0, 103, 5, 7)
    assert cka(x, y, seed=1) == cka(x, y, seed=1)
    assert cka(x, y, seed=1).se != cka(x, y, seed=2).se
    assert cka(x, y, seed=1).value == cka(x, y, seed=2).value


def test_fewer_than_five_blocks_of_four_examples_have_no_standard_error() -> None:
    x, y = related(0, 20, 5, 7)
    assert cka(x, y).se > 0
    found = cka(x[:19], y[:19])
    assert np.isfinite(found.value)
    assert np.isnan([found.se, *found.interval]).all()


def test_an_undefined_value_is_nan_with_a_reason_and_no_error() -> None:
    x, y = related(0, 43, 5, 7)
    for arguments, reason in (
        ((x[:3], y[:3]), "n<4"),
        ((x[:0], y[:0]), "n<4"),
        ((x * np.nan, y), "no finite row"),
        ((np.full((43, 5), 0.1), y), "constant layer"),
        ((np.full((43, 67), 0.1), y), "constant layer"),
        ((np.eye(43)[:, :1], y), "non-positive self term"),
    ):
        found = cka(*arguments)
        assert found.reason == reason
        assert np.isnan([found.value, found.se, *found.interval]).all()


def test_a_side_without_a_finite_row_says_so() -> None:
    X = np.random.default_rng(0).normal(size=(30, 3))
    assert cka(X, np.full((30, 2), np.nan)).reason == cka(np.full((30, 2), np.inf), X).reason == "no finite row"


def test_lists_are_arrays() -> None:
    X = np.random.default_rng(0).normal(size=(30, 3))
    assert cka(X.tolist(), X[:, :2].tolist()) == cka(X, X[:, :2])
    with pytest.raises(ValueError, match=r"X has shape \(2,\); expected \[n, features\]"):
        cka([1, 2], [3, 4])


def test_whole_numbers_are_features_too() -> None:
    x, y = (np.round(10 * layer) for layer in related(0, 43, 5, 67))
    assert debiased_linear_cka(x.astype(np.int8), y.astype(np.int64)) == pytest.approx(debiased_linear_cka(x, y))


@pytest.mark.parametrize("shape", [(43,), (43, 5, 2), (43, 5, 2, 2)])
def test_other_than_two_axes_are_refused_with_the_way_out(shape: tuple[int, ...]) -> None:
    [y] = related(0, 43, 7)
    refused = partial(pytest.raises, ValueError)
    with refused(match=rf"X has shape \({', '.join(map(str, shape))},?\); expected \[n, features\].*pool.*or flatten"):
        cka(np.ones(shape), y)
    with refused(match=r"conv has shape .*; expected \[n, features\].*pool.*or flatten"):
        cka_matrix({"fc": y}, {"fc": y, "conv": np.ones(shape)})


def test_different_numbers_of_examples_are_refused_naming_both() -> None:
    x, y = related(0, 43, 5, 7)
    with pytest.raises(
        ValueError, match="X has 43 rows and Y has 41; expected one row per example.*select those that both"
    ):
        cka(x, y[:41])
    with pytest.raises(ValueError, match="fc1 has 43 rows and fc2 has 41; expected one row per example"):
        cka_matrix({"fc1": x}, {"fc1": y, "fc2": y[:41]})


@pytest.fixture
def _without_shape_checks() -> Iterator[None]:
    """As in production, where what they would refuse arrives."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_without_shape_checks")
def test_another_estimator_and_what_is_not_a_real_number_are_refused() -> None:
    x, y = related(0, 43, 5, 7)
    other: Any = "unbiased"
    with pytest.raises(ValueError, match="estimator is 'unbiased'; expected 'biased' or 'debiased'"):
        cka(x, y, estimator=other)
    with pytest.raises(ValueError, match="estimator is 'unbiased'; expected 'biased' or 'debiased'"):
        cka_matrix({"fc": x}, {"fc": y}, estimator=other)
    with pytest.raises(
        ValueError, match="Y holds complex128; expected real numbers; of complex ones, compare real and"
    ):
        cka(x, y + 1j)
    with pytest.raises(ValueError, match="fc holds complex128; expected real numbers"):
        cka_matrix({"fc": x + 1j}, {"fc": y})
    with pytest.raises(ValueError, match="X holds <U1; expected real numbers"):
        cka([["a"], ["b"]], [[1], [2]])


def test_a_network_without_layers_is_refused() -> None:
    layers = {"fc": related(0, 43, 5)[0]}
    with pytest.raises(ValueError, match="network B has no layers; expected at least one array"):
        cka_matrix(layers, {})
    with pytest.raises(ValueError, match="network A has no layers; expected at least one array"):
        cka_matrix({}, layers)
