"""The Small CNN Zoo: the published order of weights, by a slow network of its own, and a folder as it was published."""

import gzip
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from pipeline.architectures import Architecture
from pipeline.cluster import Machine
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, values_sha256
from pipeline.places import Place
from pipeline.small_cnn_zoo import LAYOUT, NUM_VALUES, KerasRows, from_keras, open_weights, small_cnn_source, to_keras
from pipeline.template_document import read_document

ACTIVATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": lambda maps: np.maximum(maps, 0), "tanh": np.tanh}
NUM_ROWS = 7
LOSS = 0.1 + 0.2


def keras_network(row: np.ndarray, image: np.ndarray, activation: str) -> np.ndarray:
    """The logits of an image ``[height, width, 1]``, computed as the published network is defined, a number at a time:
    three convolutions of stride 2 without padding, the mean over the map, a dense layer."""
    bias1, kernel1, bias2, kernel2, bias3, kernel3, bias4, dense = (
        row[start:end].reshape(shape) for _, start, end, shape in LAYOUT
    )
    maps = image
    for bias, kernel in ((bias1, kernel1), (bias2, kernel2), (bias3, kernel3)):
        size = (len(maps) - 3) // 2 + 1
        after = np.empty((size, size, 16))
        for y in range(size):
            for x in range(size):
                patch = maps[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                after[y, x] = bias + sum(patch[i, j] @ kernel[i, j] for i in range(3) for j in range(3))
        maps = ACTIVATE[activation](after)
    return maps.mean(axis=(0, 1)) @ dense + bias4


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("size", [28, 32])
def test_converted_weights_compute_what_the_published_network_computes(activation: str, size: int) -> None:
    rng = np.random.default_rng(0)
    row = rng.normal(scale=0.3, size=NUM_VALUES)
    image = rng.uniform(-1, 1, size=(size, size, 1))
    network = Architecture(
        family="small_cnn", arguments={"input_shape": [1, size, size], "num_classes": 10, "activation": activation}
    ).build()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(from_keras(row[None])[0]), network.parameters())
    with torch.inference_mode():
        ours = network(torch.from_numpy(image.transpose(2, 0, 1)[None]))[0].numpy()
    assert ours == pytest.approx(keras_network(row, image, activation), rel=1e-12)
    other = {"relu": "tanh", "tanh": "relu"}[activation]
    assert ours != pytest.approx(keras_network(row, image, other), rel=1e-3), "the activation matters"


@given(st.integers(0, 5), st.sampled_from(["<f4", "<f8", "<f2"]), st.integers(0, 2**32 - 1))
def test_to_keras_undoes_from_keras_bit_for_bit_and_the_other_way_round(count: int, dtype: str, seed: int) -> None:
    content = np.random.default_rng(seed).bytes(count * NUM_VALUES * np.dtype(dtype).itemsize)  # NaN among them
    rows = np.frombuffer(content, dtype=dtype).reshape(count, NUM_VALUES)
    assert to_keras(from_keras(rows)).tobytes() == rows.tobytes()
    assert from_keras(to_keras(rows)).tobytes() == rows.tobytes()
    assert count == 0 or from_keras(rows).tobytes() != rows.tobytes()


def test_the_layout_covers_a_row_without_a_gap() -> None:
    starts, ends = [start for _, start, _, _ in LAYOUT], [end for _, _, end, _ in LAYOUT]
    assert [*starts, NUM_VALUES] == [0, *ends]
    assert [int(np.prod(shape)) for _, _, _, shape in LAYOUT] == np.subtract(ends, starts).tolist()


def published_weights(num_rows: int = NUM_ROWS) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num_rows, NUM_VALUES)).astype(np.float32)


def published_metrics(num_rows: int = NUM_ROWS) -> list[dict[str, str]]:
    """Two runs and a third that has begun: rows in another order than that of epochs."""
    runs, steps = ("/cns/zoo/1/", "/cns/zoo/2", "/cns/zoo/10"), (86, 0, 20)
    return [
        {
            "": str(row),
            "config.activation": ("relu", "tanh")[row // 3 % 2],
            "config.dataset": "svhn_cropped",
            "config.epochs": "86",
            "config.l2reg": f"{10.0**-row}",
            "config.random_seed": "42",
            "config.w_init": "he_normal",
            "modeldir": runs[row // 3] if row < 9 else f"/cns/zoo/run-{row}",
            "step": str(steps[row % 3]),
            "train_loss": "" if row == 4 else repr(LOSS + row),
            "train_accuracy": "0.5",
            "test_loss": "nan" if row == 5 else "1.5",
            "test_accuracy": "0.25",
        }
        for row in range(num_rows)
    ]


def csv_bytes(rows: list[dict[str, str]]) -> bytes:
    return "\n".join(",".join(cells) for cells in [list(rows[0]), *(list(row.values()) for row in rows)]).encode()


def layout_rows() -> list[dict[str, str]]:
    return [
        {
            "varname": name,
            "start_idx": str(start),
            "end_idx": str(end),
            "size": str(end - start),
            "shape": '"' + str(shape) + '"',
        }
        for name, start, end, shape in LAYOUT
    ]


def write_zoo(
    folder: Path,
    weights: np.ndarray | None = None,
    metrics: list[dict[str, str]] | None = None,
    layout: list[dict[str, str]] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "weights.npy", published_weights() if weights is None else weights)
    (folder / "metrics.csv.gz").write_bytes(gzip.compress(csv_bytes(metrics or published_metrics())))
    (folder / "layout.csv").write_bytes(csv_bytes(layout or layout_rows()))
    return folder


def read(folder: Place) -> GraphSource:
    return small_cnn_source(folder, Machine())


def values_of(source: GraphSource, row: dict[str, Any]) -> np.ndarray:
    start = row["file_offset"]
    return source.files[row["file"]].read()[start : start + row["length"]]


def test_a_published_folder_is_rows_templates_and_values(tmp_path: Path) -> None:
    source = read(write_zoo(tmp_path / "svhn"))
    rows = source.rows.to_pylist()
    assert source.rows.schema.names[: len(SOURCE_COLUMNS)] == SOURCE_COLUMNS.names
    assert [source.rows.schema.field(field.name).type for field in SOURCE_COLUMNS] == SOURCE_COLUMNS.types
    assert source.left_out.schema == LEFT_OUT_COLUMNS
    assert source.left_out.num_rows == 0
    published = {("1", "2", "10")[row // 3] + f"@{(86, 0, 20)[row % 3]}": row for row in range(NUM_ROWS)}
    assert [row["graph_id"] for row in rows] == sorted(published)
    weights = published_weights()
    for row in rows:
        number = published[row["graph_id"]]
        activation = ("relu", "tanh")[number // 3 % 2]
        values = values_of(source, row)
        assert values.tobytes() == from_keras(weights[[number]]).tobytes()
        assert row["values_sha256"] == values_sha256(values)
        assert row["unit"] == row["run_id"] == ("1", "2", "10")[number // 3]
        assert row["checkpoint"] == (0 if number == 6 else (2, 0, 1)[number % 3])
        assert row["step"] == 0
        assert row["family"] == "small_cnn"
        assert json.loads(row["architecture"]) == {
            "family": "small_cnn",
            "arguments": {"activation": activation, "input_shape": [1, 32, 32], "num_classes": 10},
        }
        assert read_document(source.documents[row["template"]]).num_values == row["length"] == NUM_VALUES
        assert row["train_loss"] == (LOSS + number if number != 4 else pytest.approx(np.nan, nan_ok=True))
        assert np.isnan(row["test_loss"]) == (number == 5)
        assert np.isnan(row["test_accuracy_half_a"])
        assert row["config.l2reg"] == 10.0**-number
        assert row["config.activation"] == activation
    assert {str(source.rows.schema.field(f"config.{name}").type) for name in ("random_seed", "epochs")} == {"int64"}
    assert str(source.rows.schema.field("config.l2reg").type) == "double"
    assert len(source.documents) == 2
    [(name, digest)] = source.sources.items()
    assert name == f"svhn-{digest[:8]}"


def test_where_the_folder_lies_changes_nothing_and_a_weight_changes_the_digest(tmp_path: Path) -> None:
    here, there = read(write_zoo(tmp_path / "a" / "mnist")), read(write_zoo(tmp_path / "b" / "c" / "mnist"))
    assert here.sources == there.sources
    assert repr(here.rows.to_pylist()) == repr(there.rows.to_pylist())  # NaN is not equal to itself
    weights = published_weights()
    weights[3, 17] += 1
    assert read(write_zoo(tmp_path / "d" / "mnist", weights)).sources != here.sources


def test_an_object_store_holds_a_zoo_too(tmp_path: Path) -> None:
    here, there = write_zoo(tmp_path / "mnist"), UPath("memory://small_cnn_zoo/mnist")
    for path in here.iterdir():
        (there / path.name).write_bytes(path.read_bytes())
    source = read(there)
    assert source.sources == read(here).sources
    assert values_sha256(values_of(source, source.rows.to_pylist()[2])) == source.rows["values_sha256"][2].as_py()


def test_weights_that_are_no_numbers_are_left_out_as_diverged_and_labels_alone_are_not(tmp_path: Path) -> None:
    weights = published_weights()
    weights[1, 4969], weights[5, 0] = np.nan, -np.inf
    source = read(write_zoo(tmp_path / "zoo", weights))
    assert source.left_out["graph_id"].to_pylist() == ["1@0", "2@20"]
    assert set(source.left_out["reason"].to_pylist()) == {"diverged"}
    kept = {row["graph_id"]: row for row in source.rows.to_pylist()}
    assert len(kept) == NUM_ROWS - 2
    assert np.isnan(kept["2@0"]["train_loss"])
    assert kept["1@20"]["checkpoint"] == 1, "the checkpoint before it is left out and still counted"
    assert values_of(source, kept["10@86"]).tobytes() == from_keras(weights[[6]]).tobytes()


def test_a_zoo_without_a_finite_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights.npy: no row is finite, so there is nothing to make graphs of"):
        read(write_zoo(tmp_path / "zoo", np.full((NUM_ROWS, NUM_VALUES), np.nan, dtype=np.float32)))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_other_floats_are_taken_where_float32_has_the_same_numbers(tmp_path: Path, dtype: str) -> None:
    weights = published_weights().astype(np.float16).astype(dtype)
    source = read(write_zoo(tmp_path / "zoo", weights))
    expected = {values_sha256(row) for row in from_keras(weights).astype(np.float32)}
    assert set(source.rows["values_sha256"].to_pylist()) == expected


def test_a_float64_that_float32_does_not_have_is_refused_by_its_row(tmp_path: Path) -> None:
    for number in (0.1, 1e300):
        weights = published_weights().astype(np.float64)
        weights[2, 5], weights[3, 7] = np.nan, number
        with pytest.raises(ValueError, match="weights.npy: row 3 has numbers of float64 that float32 does not have"):
            read(write_zoo(tmp_path / "zoo", weights))


def test_runs_are_called_by_their_whole_folder_where_the_last_part_is_not_enough(tmp_path: Path) -> None:
    metrics = published_metrics()
    for row, cells in enumerate(metrics):
        cells["modeldir"] = ("/a/7", "/b/7/", "/b/8")[row // 3]
    assert set(read(write_zoo(tmp_path / "zoo", metrics=metrics)).rows["run_id"].to_pylist()) == {
        "/a/7",
        "/b/7",
        "/b/8",
    }


@pytest.mark.parametrize("num_rows", [255, 257])
def test_blocks_of_rows_join_without_a_seam(tmp_path: Path, num_rows: int) -> None:
    weights = published_weights(num_rows)
    source = read(write_zoo(tmp_path / "zoo", weights, published_metrics(num_rows)))
    assert len(source.files) == -(-num_rows // 256)
    joined = np.concatenate([file.read() for file in source.files])
    assert joined.tobytes() == from_keras(weights).tobytes()


def test_blocks_of_another_size_give_the_same_and_travel_to_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = write_zoo(tmp_path / "zoo")
    whole = read(zoo)
    monkeypatch.setattr("pipeline.small_cnn_zoo.ROWS_PER_FILE", 2)
    blocks = read(zoo)
    assert len(blocks.files) == 4
    assert blocks.sources == whole.sources
    files = pickle.loads(pickle.dumps(blocks.files))  # noqa: S301
    assert b"".join(file.read().tobytes() for file in files) == whole.files[0].read().tobytes()


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """A file of a hole: 27 GB, most of it not on the disk, and more than there is memory."""
    path = tmp_path / "weights.npy"
    num_rows = 2**20 + 2**18
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {NUM_VALUES}), }}"
    header = header.ljust(117) + "\n"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        file.truncate(file.tell() + num_rows * NUM_VALUES * 4)
    weights = open_weights(path)
    assert weights.num_rows == num_rows
    last_rows = KerasRows(weights=weights, first=num_rows - 3, last=num_rows)
    assert not last_rows.read().any()
    with path.open("r+b") as file:
        file.truncate(10**6)
    with pytest.raises(ValueError, match="weights.npy: ends before row 1310720, and did not when it was opened"):
        last_rows.read()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            np.zeros((NUM_ROWS, 4969), np.float32),
            "weights.npy: has shape (7, 4969); expected a .npy file of shape [rows,",
        ),
        (np.zeros((NUM_ROWS * NUM_VALUES,), np.float32), "weights.npy: has shape (34790,); expected"),
        (np.zeros((0, NUM_VALUES), np.float32), "weights.npy: has shape (0, 4970); expected"),
        (
            np.zeros((NUM_ROWS, NUM_VALUES), np.float32, order="F"),
            "weights.npy: has shape (7, 4970), in columns; expec",
        ),
        (np.zeros((NUM_ROWS, NUM_VALUES), np.int32), "weights.npy: its numbers are int32; expected"),
        (np.zeros((NUM_ROWS, NUM_VALUES), np.complex64), "weights.npy: its numbers are complex64; expected"),
        (np.array([[{"a": 1}]], dtype=object), "weights.npy: its numbers are object; expected"),
        (np.zeros((NUM_ROWS - 1, NUM_VALUES), np.float32), "metrics.csv.gz: has 7 rows, and weights.npy has 6"),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path: Path, weights: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(write_zoo(tmp_path / "zoo", weights))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "weights.npy: has 139,287 bytes; with 7 rows of float32 it would have 139,288"),
        (lambda content: content + b"x", "weights.npy: has 139,289 bytes"),
        (lambda content: b"", "weights.npy: EOF: reading magic string"),
        (lambda content: b"PK\x03\x04" + content, "weights.npy: the magic string is not correct"),
        (lambda content: content.replace(b"'descr'", b"'dessr'"), "weights.npy: Header does not contain the correct"),
        (
            lambda content: content.replace(b"NUMPY\x01", b"NUMPY\x07"),
            "weights.npy: is of version (7, 0) of the format",
        ),
    ],
)
def test_a_damaged_file_of_weights_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = write_zoo(tmp_path / "zoo") / "weights.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(tmp_path / "zoo")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["weights.npy", "metrics.csv.gz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_zoo(tmp_path / "zoo") / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        read(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("config.activation", "gelu", "row 2: config.activation is 'gelu'; expected one of relu, tanh"),
        ("config.dataset", "imagenet", "row 2: config.dataset is 'imagenet'; expected one of mnist, fashion_mnist"),
        ("modeldir", "/", "row 2: modeldir is empty; expected the folder of the run"),
        ("step", "20.5", "row 2: step is '20.5'; expected a whole number from 0 on"),
        ("step", "87", "row 2: step is 87, beyond the 86 epochs of config.epochs"),
        ("step", "0", "metrics.csv.gz: row 1 and metrics.csv.gz: row 2 both give the graph 1@0"),
        ("test_accuracy", "high", "row 2: test_accuracy is 'high'; expected a number"),
    ],
)
def test_a_wrong_cell_is_named_with_its_row(tmp_path: Path, name: str, cell: str, message: str) -> None:
    metrics = published_metrics()
    metrics[2][name] = cell
    with pytest.raises(ValueError, match=re.escape(message)):
        read(write_zoo(tmp_path / "zoo", metrics=metrics))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    metrics = [{name: cell for name, cell in row.items() if name != "modeldir"} for row in published_metrics()]
    with pytest.raises(ValueError, match="metrics.csv.gz: has no column 'modeldir'; expected config.activation"):
        read(write_zoo(tmp_path / "zoo", metrics=metrics))


def test_a_table_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_zoo(tmp_path / "zoo") / "metrics.csv.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="metrics.csv.gz: is no whole gzip file"):
        read(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("row", "name", "cell"),
    [
        (0, "varname", "sequential/conv2d/kernel:0"),
        (1, "shape", '"(16, 1, 3, 3)"'),
        (7, "shape", '"(10, 16)"'),
        (3, "start_idx", "177"),
        (6, "size", "16"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, row: int, name: str, cell: str) -> None:
    layout = layout_rows()
    layout[row][name] = cell
    with pytest.raises(ValueError, match="layout.csv: says .*the bias of a layer before its kernel"):
        read(write_zoo(tmp_path / "zoo", layout=layout))
    with pytest.raises(ValueError, match="layout.csv: has 7 tensors; expected 8"):
        read(write_zoo(tmp_path / "zoo", layout=layout_rows()[:7]))
    without = [{key: value for key, value in cells.items() if key != "size"} for cells in layout_rows()]
    with pytest.raises(ValueError, match="layout.csv: has no column 'size'"):
        read(write_zoo(tmp_path / "zoo", layout=without))


def test_the_layout_may_be_missing(tmp_path: Path) -> None:
    (write_zoo(tmp_path / "zoo") / "layout.csv").unlink()
    assert read(tmp_path / "zoo").rows.num_rows == NUM_ROWS
