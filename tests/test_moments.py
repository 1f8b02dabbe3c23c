"""The algebra of the sums: other points and scales, merging, leaving out. Reference: one example at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.estimates import finish
from analysis.measure import measure
from analysis.moments import RESOLUTION, Cross, Moments, Side, merge, rebase, subtract

WIDTHS_A, WIDTHS_B = (2, 5, 1), (3, 7)
CLOSE = 1e-11  # a few thousand roundings of float64, the points being at most some ten standard deviations apart

seeds = st.integers(0, 2**32 - 1)


def random_layers(rng: np.random.Generator, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two related networks."""
    a = [rng.normal(rng.normal(), 1, (n, width)) for width in WIDTHS_A]
    b = [rng.normal(rng.normal(), 1, (n, width)) + layer[:, :1] for width, layer in zip(WIDTHS_B, a, strict=False)]
    return a, b


def random_frame(rng: np.random.Generator, widths: Sequence[int]) -> Side:
    """Any reference point within some standard deviations, any powers of two, no examples."""
    D, L = sum(widths), len(widths)
    scale = 2.0 ** rng.integers(-9, 9, L)
    return Side(widths=tuple(widths), reference=rng.normal(0, 3, D), scale=scale, s=np.zeros(D), A=np.zeros(L))


def random_frames(rng: np.random.Generator) -> tuple[Side, Side]:
    return random_frame(rng, WIDTHS_A), random_frame(rng, WIDTHS_B)


def sums_by_definition(a: list[np.ndarray], b: list[np.ndarray], frame_a: Side, frame_b: Side) -> Moments:
    """Every sum written out, example by example, about the given points and in the given scales."""

    def placed(layers: list[np.ndarray], frame: Side) -> list[np.ndarray]:
        parts = zip(layers, frame.columns, frame.scale, strict=True)
        return [(layer - frame.reference[columns]) * scale for layer, columns, scale in parts]

    def side(layers: list[np.ndarray], frame: Side) -> Side:
        s = np.concatenate([layer.sum(axis=0) for layer in layers])
        return replace(frame, s=s, A=np.array([(layer**2).sum() for layer in layers]))

    def cross(layers_x: list[np.ndarray], layers_y: list[np.ndarray]) -> Cross:
        p = q = c = M = np.zeros(())
        for i in range(len(layers_x[0])):
            x, norms_x = np.concatenate([layer[i] for layer in layers_x]), [layer[i] @ layer[i] for layer in layers_x]
            y, norms_y = np.concatenate([layer[i] for layer in layers_y]), [layer[i] @ layer[i] for layer in layers_y]
            p, q = p + np.outer(x, norms_y), q + np.outer(y, norms_x)
            c, M = c + np.outer(norms_x, norms_y), M + np.outer(x, y)
        return Cross(p=p, q=q, c=c, M=M)

    a, b = placed(a, frame_a), placed(b, frame_b)
    return Moments(
        n=len(a[0]),
        n_dropped=0,
        resolution=RESOLUTION["float64"],
        a=side(a, frame_a),
        b=side(b, frame_b),
        cross=cross(a, b),
        self_a=tuple(cross([layer], [layer]) for layer in a),
        self_b=tuple(cross([layer], [layer]) for layer in b),
    )


def assert_same(found: Moments, expected: Moments) -> None:
    """Equal up to rounding, each sum measured by the most that the squares A and B allow it to be."""
    assert found.n == expected.n
    for found_x, x in ((found.a, expected.a), (found.b, expected.b)):
        size = np.repeat(np.sqrt(expected.n * x.A), x.widths)
        np.testing.assert_array_less(np.abs(found_x.s - x.s), CLOSE * size)
        np.testing.assert_allclose(found_x.A, x.A, rtol=CLOSE)
    pairs = [(found.cross, expected.cross, expected.a, expected.b)]
    pairs += zip(found.self_a, expected.self_a, expected.a.layers, expected.a.layers, strict=True)
    pairs += zip(found.self_b, expected.self_b, expected.b.layers, expected.b.layers, strict=True)
    for one, other, x, y in pairs:
        size_x, size_y = np.repeat(np.sqrt(x.A), x.widths), np.repeat(np.sqrt(y.A), y.widths)
        np.testing.assert_array_less(np.abs(one.p - other.p), CLOSE * np.outer(size_x, y.A))
        np.testing.assert_array_less(np.abs(one.q - other.q), CLOSE * np.outer(size_y, x.A))
        np.testing.assert_array_less(np.abs(one.c - other.c), CLOSE * np.outer(x.A, y.A))
        np.testing.assert_array_less(np.abs(one.M - other.M), CLOSE * np.outer(size_x, size_y))


@given(seed=seeds, n=st.integers(7, 23))
def test_sums_about_another_point_in_another_scale_follow_from_the_sums_alone(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_layers(rng, n)
    here, there = random_frames(rng), random_frames(rng)
    found = rebase(sums_by_definition(a, b, *here), *there)
    assert_same(found, sums_by_definition(a, b, *there))
    np.testing.assert_array_equal(np.append(found.a.reference, found.b.scale), [*there[0].reference, *there[1].scale])


@given(seed=seeds)
def test_a_change_of_scale_there_and_back_loses_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    here = random_frames(rng)
    state = sums_by_definition(*random_layers(rng, 11), *here)
    there = [replace(side, scale=random_frame(rng, side.widths).scale) for side in here]
    again = rebase(rebase(state, *there), *here)
    for name in ("p", "q", "c", "M"):
        np.testing.assert_array_equal(getattr(again.cross, name), getattr(state.cross, name))
        np.testing.assert_array_equal(getattr(again.self_b[1], name), getattr(state.self_b[1], name))


@given(seed=seeds)
def test_no_estimate_depends_on_reference_points_or_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = measure(*random_layers(rng, 17), precision="float64")
    moved = rebase(state, *random_frames(rng))
    for estimator in ("biased", "debiased"):
        found, expected = finish(moved, estimator), finish(state, estimator)
        np.testing.assert_allclose(found.cka, expected.cka, atol=1e-10)
        np.testing.assert_allclose(found.hsic_a, expected.hsic_a, rtol=1e-10)
        np.testing.assert_allclose(found.variance_b, expected.variance_b, rtol=1e-10)


def shards(rng: np.random.Generator, n: int, num_shards: int) -> list[np.ndarray]:
    """A random partition of n rows into uneven shards, some of one row."""
    cuts = np.sort(rng.choice(np.arange(1, n), num_shards - 1, replace=False))
    return np.split(rng.permutation(n), cuts)


def merged_in_random_order(rng: np.random.Generator, states: list[Moments]) -> Moments:
    """Any two at a time until one is left: every tree, every order."""
    states = list(states)
    while len(states) > 1:
        left, right = (states.pop(rng.integers(len(states))) for _ in range(2))
        states.append(merge(left, right))
    return states[0]


@given(seed=seeds, n=st.integers(5, 43), data=st.data())
def test_shards_merged_in_any_order_and_grouping_equal_the_whole(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_layers(rng, n)
    rows_of = shards(rng, n, data.draw(st.integers(2, min(n - 1, 7)), label="num_shards"))
    rows_of.append(np.array([], dtype=int))  # a shard may have lost all of its examples
    states = [
        measure([layer[rows] for layer in a], [layer[rows] for layer in b], precision="float64") for rows in rows_of
    ]
    merged = merged_in_random_order(rng, states)
    whole = measure(a, b, precision="float64")
    assert_same(rebase(merged, whole.a, whole.b), whole)
    np.testing.assert_allclose(finish(merged).cka, finish(whole).cka, atol=1e-10)


@given(seed=seeds)
def test_shards_about_points_of_their_own_merge_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_layers(rng, 31)
    states = []
    for rows in shards(rng, 31, 5):
        shard = measure([layer[rows] for layer in a], [layer[rows] for layer in b], precision="float64")
        states.append(rebase(shard, *random_frames(rng)))
    merged = merged_in_random_order(rng, states)
    np.testing.assert_allclose(finish(merged).cka, finish(measure(a, b, precision="float64")).cka, atol=1e-10)


@given(seed=seeds, left_out=st.integers(1, 20))
def test_subtracting_a_shard_equals_never_having_merged_it(seed: int, left_out: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_layers(rng, 29)
    shard = measure([layer[:left_out] for layer in a], [layer[:left_out] for layer in b], precision="float64")
    rest = measure([layer[left_out:] for layer in a], [layer[left_out:] for layer in b], precision="float64")
    found = subtract(merge(shard, rest), shard)
    assert_same(rebase(found, rest.a, rest.b), rest)
    np.testing.assert_allclose(finish(found).cka, finish(rest).cka, atol=1e-10)


def test_dropped_examples_are_added_and_subtracted_too() -> None:
    rng = np.random.default_rng(0)
    states = []
    for n, bad in ((7, 2), (11, 3)):
        a, b = random_layers(rng, n)
        a[1][:bad, 0] = np.nan
        states.append(measure(a, b))
    merged = merge(*states)
    assert (merged.n, merged.n_dropped) == (5 + 8, 2 + 3)
    assert subtract(merged, states[0]).n_dropped == 3


def test_one_block_in_float32_makes_the_whole_as_coarse() -> None:
    layers = random_layers(np.random.default_rng(0), 5)
    fine, coarse = measure(*layers, precision="float64"), measure(*layers, precision="float32")
    assert merge(fine, coarse).resolution == merge(coarse, fine).resolution == coarse.resolution > fine.resolution


@pytest.mark.parametrize("together", [merge, subtract])
def test_blocks_of_other_networks_are_refused(together: Callable[[Moments, Moments], Moments]) -> None:
    a, b = random_layers(np.random.default_rng(0), 5)
    with pytest.raises(
        ValueError, match=r"layers of network B have widths \(3, 7\) in one block and \(7, 3\) in the other"
    ):
        together(measure(a, b), measure(a, b[::-1]))


def test_more_examples_than_there_are_cannot_be_left_out() -> None:
    a, b = random_layers(np.random.default_rng(0), 5)
    fewer = measure([layer[:3] for layer in a], [layer[:3] for layer in b])
    with pytest.raises(
        ValueError, match="cannot take 5 examples out of 3; subtract moments that were merged into the total"
    ):
        subtract(fewer, measure(a, b))
