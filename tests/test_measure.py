"""From features to sums: precision, offsets, scales, chunks, and rows that are not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analysis.measure
from analysis.estimates import Estimate, finish
from analysis.measure import measure
from analysis.moments import merge

FLOAT32 = 1e-6  # what float32 products may cost, in CKA


def related(n: int, widths: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Layers of ``widths`` features, all sharing a few directions of the same examples."""
    shared = np.random.default_rng(0).normal(size=(n, 3))
    rng = np.random.default_rng(seed)
    return [shared @ rng.normal(size=(3, width)) + rng.normal(size=(n, width)) for width in widths]


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased CKA by its definition on Gram matrices of centred float64 features (Song et al. 2012)."""

    def hsic(x: np.ndarray, y: np.ndarray) -> float:
        n = len(x)
        K, L = (z @ z.T * (1 - np.eye(n)) for z in (x, y))
        return (K * L).sum() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (K.sum(axis=0) @ L.sum(axis=0))

    x, y = (z.astype(np.float64) - z.mean(axis=0, dtype=np.float64) for z in (x, y))
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def assert_close(found: Estimate, layers_a: list[np.ndarray], layers_b: list[np.ndarray], tolerance: float) -> None:
    expected = [[gram_cka(x, y) for y in layers_b] for x in layers_a]
    np.testing.assert_allclose(found.cka, expected, rtol=0, atol=tolerance)


def as_float32(layers: list[np.ndarray]) -> list[np.ndarray]:
    return [layer.astype(np.float32) for layer in layers]


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 37),
    widths_a=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    widths_b=st.lists(st.integers(1, 7), min_size=1, max_size=3),
)
def test_any_widths_and_numbers_of_layers_agree_with_the_definition(
    seed: int, n: int, widths_a: list[int], widths_b: list[int]
) -> None:
    a, b = related(n, tuple(widths_a), seed), related(n, tuple(widths_b), seed + 1)
    assert_close(finish(measure(a, b, precision="float64")), a, b, 1e-9)


@pytest.mark.parametrize("offset", [0, 10, 100, 1000])
def test_a_mean_many_standard_deviations_off_costs_no_digits_in_float32(offset: float) -> None:
    a, b = (
        [3 * (layer + offset) for layer in layers] for layers in (related(1009, (31, 43), 1), related(1009, (37,), 2))
    )
    a, b = as_float32(a), as_float32(b)
    assert_close(finish(measure(a, b)), a, b, FLOAT32)
    assert_close(finish(measure(a, b, precision="float64")), a, b, 1e-10)


def test_float64_features_are_shifted_before_they_become_float32() -> None:
    a, b = ([layer + 1e7 for layer in layers] for layers in (related(211, (31,), 1), related(211, (37,), 2)))
    assert_close(finish(measure(a, b)), a, b, FLOAT32)
    assert abs(gram_cka(*as_float32([a[0], b[0]])) - gram_cka(a[0], b[0])) > 1e-3  # they would not survive it


def test_float16_and_integer_features_are_widened_before_the_shift() -> None:
    a, b = related(211, (31,), 1), related(211, (37,), 2)
    halves, counts = (a[0] + 5).astype(np.float16), (100 * b[0]).astype(np.int16)
    assert_close(finish(measure([halves], [counts])), [halves], [counts], FLOAT32)


def test_ordinary_features_after_a_relu_keep_six_digits_in_float32() -> None:
    """The Gram route in float32 is off by 0.2 here: it adds n² terms of one sign."""
    a, b = ([np.maximum(layer + 1, 0) for layer in related(4096, (29,), seed)] for seed in (1, 2))
    a, b = as_float32(a), as_float32(b)
    assert_close(finish(measure(a, b)), a, b, FLOAT32)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_neither_tiny_nor_huge_features_change_cka_in_float32(scale: float) -> None:
    """Fourth powers enter: unscaled, 1e-30 would vanish and 1e30 overflow. The scale itself rounds each feature."""
    a, b = as_float32(related(211, (31, 5), 1)), as_float32(related(211, (37,), 2))
    scaled = [layer * np.float32(scale) for layer in a]
    np.testing.assert_allclose(finish(measure(scaled, b)).cka, finish(measure(a, b)).cka, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_a_last_chunk_of_few_rows_counts_like_any_other(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    a, b = related(5 * 13 + last, (3, 7), 1), related(5 * 13 + last, (2,), 2)
    monkeypatch.setattr(analysis.measure, "CHUNK_ROWS", 13)
    assert_close(finish(measure(a, b, precision="float64")), a, b, 1e-11)


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 17])
def test_all_chunks_count_whatever_their_size(monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    a, b = related(101, (3, 7), 1), related(101, (2,), 2)
    monkeypatch.setattr(analysis.measure, "CHUNK_ROWS", chunk_rows)
    assert_close(finish(measure(a, b, precision="float64")), a, b, 1e-11)


@pytest.mark.parametrize("silent", [0.0, 7.0])
def test_a_layer_may_be_silent_in_the_first_chunk(monkeypatch: pytest.MonkeyPatch, silent: float) -> None:
    """Neither its reference point nor its scale can then be taken from that chunk alone."""
    a, b = ([1e-12 * layer for layer in related(101, (3,), 1)], related(101, (5,), 2))
    a[0][:13] = 1e-12 * silent
    monkeypatch.setattr(analysis.measure, "CHUNK_ROWS", 13)
    assert_close(finish(measure(as_float32(a), as_float32(b))), as_float32(a), as_float32(b), FLOAT32)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_constant_layer_leaves_exactly_zero(precision: analysis.measure.Precision) -> None:
    """Although the mean of 0.1, 0.1, ... is not 0.1: then the rounding would be scaled up to a layer of noise."""
    constant = np.full((4099, 3), [0.1, -1 / 3, 1e9])
    state = measure([constant], related(4099, (2,), 1), precision=precision)
    assert not any(array.any() for array in (state.a.s, state.a.A, state.cross.M, state.self_a[0].c))
    assert state.a.scale == 1


@given(seed=st.integers(0, 2**32 - 1), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_rows_that_are_not_finite_are_left_out_of_both_sides_and_counted(seed: int, bad: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = related(23, (3, 5), 1), related(23, (2,), 2)
    in_a, in_b = rng.random(23) < 0.2, rng.random(23) < 0.2
    good = ~(in_a | in_b)
    expected = measure([layer[good] for layer in a], [layer[good] for layer in b])
    a[1][in_a, rng.integers(5)] = bad
    b[0][in_b, 1] = bad
    found = measure(a, b)
    assert (found.n, found.n_dropped) == (good.sum(), 23 - good.sum())
    np.testing.assert_array_equal(finish(found).cka, finish(expected).cka)


def test_a_block_may_lose_all_of_its_rows() -> None:
    a, b = related(23, (3, 5), 1), related(23, (2,), 2)
    state = measure(a, b)
    lost = measure([np.full_like(layer, np.nan) for layer in a], b)
    assert (lost.n, lost.n_dropped) == (0, 23)
    for merged in (merge(state, lost), merge(lost, state)):
        assert merged.n_dropped == 23
        np.testing.assert_array_equal(finish(merged).cka, finish(state).cka)


def test_features_are_read_and_never_written() -> None:
    a, b = related(23, (3, 5), 1), related(23, (2,), 2)
    for layer in (*a, *b):
        layer.flags.writeable = False
    measure(a, b, precision="float64")
    measure([a[0]], [a[0]])


def test_what_has_no_moments_is_refused() -> None:
    x, y = related(23, (3, 5), 1)
    with pytest.raises(ValueError, match="network B has no layers; expected at least one array"):
        measure([x], [])
    with pytest.raises(
        ValueError, match=r"layer 1 of network A has shape \(23, 0\); expected \[n, width\] with width >= 1"
    ):
        measure([x, y[:, :0]], [y])
    with pytest.raises(
        ValueError,
        match="layer 0 of network A has 23 rows, layer 1 of network B has 19 rows; expected the same examples",
    ):
        measure([x], [y, y[:19]])
