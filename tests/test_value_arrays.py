"""Values as the files of zarr arrays, and back: bit for bit as float32, to the nearest as float16."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline import dataset_writer, graph_sources
from pipeline.build_graphs import graphs
from pipeline.dataset_manifest import CHUNK_FLOATS, SHARD_FLOATS
from pipeline.dataset_writer import check_fits
from pipeline.graph_plan import DatasetSpec, PartPlan
from pipeline.graph_store import open_graphs
from pipeline.value_arrays import array_document, decode_values, encode_values
from pipeline.verify_graphs import verify
from tiny_dataset import NUM_VALUES, in_this_process, make_tiny_dataset

FLOAT16_MAX = 65504.0
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=53))
def test_encoded_values_come_back_bit_for_bit(numbers: list[float]) -> None:
    values = np.array(numbers, dtype=np.float32)
    assert decode_values(Path(), encode_values(values), len(values)).tobytes() == values.tobytes()


@pytest.mark.parametrize("num_values", [CHUNK_FLOATS - 1, CHUNK_FLOATS, CHUNK_FLOATS + 1, SHARD_FLOATS + 3])
def test_values_around_the_ends_of_chunks_and_shards_come_back(num_values: int) -> None:
    values = np.arange(num_values, dtype=np.float32)
    files = encode_values(values)
    assert set(files) == {"zarr.json", *(f"c/{shard}" for shard in range(-(-num_values // SHARD_FLOATS)))}
    assert np.array_equal(decode_values(Path(), files, num_values), values)


def test_the_same_values_are_encoded_as_the_same_bytes() -> None:
    """Blosc writes its blocks in the order its threads finish, so it must not use several; a chunk has four blocks."""
    values = np.random.default_rng(0).standard_normal(2 * CHUNK_FLOATS).astype(np.float32)
    assert len({encode_values(values)["c/0"] for _ in range(5)}) == 1
    assert len({encode_values(values, "float16")["c/0"] for _ in range(5)}) == 1


def nearest_float16(values: np.ndarray) -> np.ndarray:
    """Slow reference: of all finite float16 the nearest, of two the one whose last bit is zero."""
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[np.isfinite(bits.view(np.float16)) & (bits != 0x8000)]  # minus zero is told by its sign alone
    numbers = finite.view(np.float16).astype(np.float64)
    ordered = np.argsort(numbers)
    finite, numbers = finite[ordered], numbers[ordered]
    after = np.clip(np.searchsorted(numbers, values.astype(np.float64)), 1, len(numbers) - 1)
    down, up = values - numbers[after - 1], numbers[after] - values.astype(np.float64)
    even = finite[after] % 2 == 0
    chosen = np.where((up < down) | ((up == down) & even), after, after - 1)
    return np.copysign(numbers[chosen], values).astype(np.float32)


@given(st.lists(st.floats(-FLOAT16_MAX, FLOAT16_MAX, width=32) | st.floats(-1e-4, 1e-4), min_size=1, max_size=53))
def test_float16_comes_back_as_the_nearest_and_as_float32(numbers: list[float]) -> None:
    """Values below the smallest float16 are zeros, of their sign."""
    values = np.array(numbers, dtype=np.float32)
    found = decode_values(Path(), encode_values(values, "float16"), len(values), "float16")
    assert found.dtype == np.float32
    assert found.tobytes() == nearest_float16(values).tobytes()
    assert found.tobytes() == values.astype(np.float16).astype(np.float32).tobytes()


def test_ties_go_to_the_even_number() -> None:
    """Between 2048 and 4096 float16 has every second number: 2049 lies between 2048 and 2050, 2051 before 2052."""
    values = np.array([2049.0, 2051.0, 65504.0, -65504.0, 2.0**-24, 2.0**-25, -0.0], dtype=np.float32)
    found = decode_values(Path(), encode_values(values, "float16"), 7, "float16")
    assert found.tolist() == [2048.0, 2052.0, 65504.0, -65504.0, 2.0**-24, 0.0, 0.0]
    assert np.signbit(found[-1])


def test_the_relative_error_of_float16_is_that_of_the_page() -> None:
    """At most 2^-11 for values from 6.1e-5 on, and more below."""
    rng = np.random.default_rng(0)
    values = np.exp(rng.uniform(np.log(6.104e-5), np.log(FLOAT16_MAX), 10_000)).astype(np.float32)
    found = decode_values(Path(), encode_values(values, "float16"), len(values), "float16")
    error = np.abs(found.astype(np.float64) / values - 1).max()
    assert 0.99 * 2**-11 < error <= 2**-11
    assert (
        np.abs(
            decode_values(Path(), encode_values(values * 1e-5, "float16"), 10_000, "float16") / values * 1e5 - 1
        ).max()
        > 2**-11
    )


def test_an_array_of_another_type_is_refused() -> None:
    values = np.ones(3, dtype=np.float32)
    with pytest.raises(ValueError, match="data_type is float16; the format has float32"):
        decode_values(Path(), encode_values(values, "float16"), 3)
    with pytest.raises(ValueError, match="data_type is float32; the format has float16"):
        decode_values(Path(), encode_values(values), 3, "float16")


def part_of(lengths: list[int]) -> PartPlan:
    """A part of graphs of these lengths, called by their positions."""
    count = len(lengths)
    return PartPlan(
        index=0,
        graph_id=tuple(f"graph {number}" for number in range(count)),
        values_sha256=("",) * count,
        length=np.array(lengths),
        file=np.zeros(count, dtype=np.int64),
        file_offset=np.zeros(count, dtype=np.int64),
        dtype="float16",
    )


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=7), data=st.data(), sign=st.sampled_from([-1, 1]))
def test_a_value_that_float16_has_no_room_for_is_refused_with_its_graph(
    lengths: list[int], data: st.DataObject, sign: int
) -> None:
    """The first of the graphs that have one, wherever in the graph it lies."""
    part, values = part_of(lengths), np.full(sum(lengths), sign * FLOAT16_MAX, dtype=np.float32)
    check_fits(part, values)
    places = data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1))
    values[list(places)] = np.nextafter(np.float32(sign * FLOAT16_MAX), np.float32(sign * np.inf))
    first = [graph for graph, length in enumerate(lengths) for _ in range(length)][min(places)]
    with pytest.raises(
        ValueError, match=f"^graph graph {first} has the value -?65504, and float16 ends at 65504; make"
    ):
        check_fits(part, values)


@pytest.fixture(name="tiny")
def shared_tiny(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny dataset; making another of its zoo traces nothing."""
    path = make_tiny_dataset(tmp_path_factory.getbasetemp())
    dataset = open_graphs(path)
    digests = dict(zip(*(dataset.table[name].to_pylist() for name in ("architecture", "template")), strict=True))
    monkeypatch.setattr(
        graph_sources,
        "trace_architectures",
        lambda rows, files: {text: dataset.templates[digest] for text, digest in digests.items()},
    )
    in_this_process(monkeypatch)
    return path


HALF = DatasetSpec(dtype="float16", floats_per_part=3 * NUM_VALUES)


def test_a_dataset_of_float16_is_sound_and_read_as_float32_rounded(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs(tiny.parent / "zoo", tmp_path / "half.zarr", HALF)
    verify(tmp_path / "half.zarr")
    assert "is sound: 13 graphs" in capsys.readouterr().out
    half, whole = open_graphs(tmp_path / "half.zarr"), open_graphs(tiny)
    assert half.made_of["dtype"] == half.files.manifest.dtype == "float16"
    assert half.table.equals(whole.table)  # values_sha256 too: of the values before they are rounded
    for rounded, exact in zip(half, whole, strict=True):
        assert rounded.values.dtype == np.float32
        assert rounded.values.tobytes() == exact.values.astype(np.float16).astype(np.float32).tobytes()
        assert rounded.values.tobytes() != exact.values.tobytes()
    array = zarr.open_array(tmp_path / "half.zarr" / "values" / "00001", mode="r")
    assert array.dtype == np.float16
    assert half.files.manifest.num_bytes < 0.7 * whole.files.manifest.num_bytes
    document = (tmp_path / "half.zarr" / "values" / "00001" / "zarr.json").read_text()
    assert '"typesize": 2' in document
    assert array_document(3, "float16")["data_type"] == "float16"


def test_a_dataset_is_not_made_again_with_another_type(tiny: Path, tmp_path: Path) -> None:
    graphs(tiny.parent / "zoo", tmp_path / "half.zarr", HALF)
    with pytest.raises(ValueError, match=r'it differs in dtype \("float16" there, "float32" asked for\)'):
        graphs(tiny.parent / "zoo", tmp_path / "half.zarr", DatasetSpec(floats_per_part=3 * NUM_VALUES))


def test_a_zoo_with_a_value_that_float16_has_no_room_for_makes_no_dataset(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command names the graph, and leaves no manifest."""

    def narrow(part: PartPlan, values: np.ndarray) -> None:
        values = values.copy()
        values[NUM_VALUES] = 1e6  # the first value of the second graph
        check_fits(part, values)

    monkeypatch.setattr(dataset_writer, "check_fits", narrow)
    second = open_graphs(tiny).table["graph_id"][1]
    with pytest.raises(ValueError, match=f"graph {second} has the value 1e\\+06, and float16 ends at 65504; make the"):
        graphs(tiny.parent / "zoo", tmp_path / "half.zarr", HALF)
    assert not (tmp_path / "half.zarr" / "manifest.json").exists()
