"""Exports: what is read back is what was there, bit for bit, and a folder is there whole or not at all."""

import copy
import csv
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from hand_built import embedded_words, masked_attention, residual_layer_norm, selected
from pipeline import export_folder, export_graphs, export_pyg, exported_dataset
from pipeline.architectures import Architecture
from pipeline.export_graphs import export
from pipeline.export_pyg import different_rows, smallest, template_tensors, write_pyg
from pipeline.export_rows import main_label, order_on_disk, walk
from pipeline.export_safetensors import file_name, safetensors_bytes, write_safetensors
from pipeline.export_small_cnn_zoo import write_small_cnn_zoo
from pipeline.exported_dataset import Graphs
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.small_cnn_zoo import to_keras
from pipeline.whole_files import aside_path, leftovers
from tiny_dataset import NUM_VALUES, content, make_tiny_dataset

FORMATS: list[Any] = ["pyg", "safetensors", "small-cnn-zoo"]
TRAINED = Architecture(
    family="small_cnn", arguments={"input_shape": [1, 17, 17], "num_classes": 10, "activation": "relu"}
)


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def altered(dataset: GraphDataset, **columns: list[Any]) -> GraphDataset:
    """The dataset with other columns, or more, in its table."""
    dataset, table = copy.copy(dataset), dataset.table
    for name, entries in columns.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, pa.array(entries))
        else:
            table = table.append_column(name, pa.array(entries))
    dataset.table = table
    return dataset


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_dataset_gives_the_same_bytes(tiny_dataset: Path, tmp_path: Path, kind: Any) -> None:
    for name in ("a", "b"):
        export(str(tiny_dataset), tmp_path / name, kind, graphs_per_file=4)
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_kill_at_any_write_leaves_nothing(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Each time one synchronisation later, until one run is not killed any more."""

    class Killed(BaseException):
        pass

    synchronise = os.fsync
    for allowed in range(100):
        left = [allowed]

        def fsync(descriptor: int, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            synchronise(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            export(str(tiny_dataset), tmp_path / "out", kind)
        except Killed:
            if not (tmp_path / "out").exists():
                assert list(tmp_path.iterdir()) == []
                continue
        monkeypatch.undo()
        break
    assert allowed >= 3
    export(str(tiny_dataset), tmp_path / "whole", kind)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_a_killed_writer_left_is_swept(tiny_dataset: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".out~{socket.gethostname()}~{ended.pid}~aside"
    left.mkdir()
    (left / "weights.npy").write_bytes(b"half")
    assert [leftover.path for leftover in leftovers(tmp_path)] == [left]
    export(str(tiny_dataset), tmp_path / "out", "small-cnn-zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_lie_aside_until_all_are_whole(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def write(dataset: GraphDataset, folder: Path, kind: str, graphs_per_file: int) -> str:
        seen.append(folder)
        assert not (tmp_path / "out").exists()
        (folder / "file").touch()
        return "read it"

    monkeypatch.setattr(export_graphs, "write", write)
    export(str(tiny_dataset), tmp_path / "out", "pyg")
    assert seen == [aside_path(tmp_path / "out")]
    assert (tmp_path / "out" / "file").is_file()


@pytest.mark.parametrize("make", [Path.touch, lambda path: (path / "notes").mkdir(parents=True)])
def test_what_is_there_is_not_touched(tiny_dataset: Path, tmp_path: Path, make: Any) -> None:
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"out is (a file|not empty \(it holds notes\)).*choose another"):
        export(str(tiny_dataset), tmp_path / "out", "pyg")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_taken_and_parents_are_made(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        export(str(tiny_dataset), out, "small-cnn-zoo")
        assert sorted(path.name for path in out.iterdir()) == ["layout.csv", "metrics.csv.gz", "weights.npy"]


@pytest.mark.parametrize("inner", [".", "exported", "values/../new/exported"])
def test_datasets_hold_no_exports(tiny_dataset: Path, tmp_path: Path, inner: str) -> None:
    shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    before = content(tmp_path)
    with pytest.raises(ValueError, match="is in the dataset .*graphs.zarr, which holds nothing else"):
        export(str(tmp_path / "graphs.zarr"), tmp_path / "graphs.zarr" / inner, "safetensors")
    assert content(tmp_path) == before


def test_a_disk_that_is_full_is_named(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_folder.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        export(str(tiny_dataset), tmp_path / "out", "pyg")
    assert error.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_one_side_is_exported(
    tiny_dataset: Path, tmp_path: Path, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(tiny_dataset), tmp_path / "out", kind, split="train")
    first, second = capsys.readouterr().out.splitlines()
    num_files = len(list((tmp_path / "out").iterdir()))
    assert first.startswith(f"Wrote 4 graphs into {num_files} files, ")
    assert first.endswith(str(tmp_path / "out"))
    assert str(tmp_path / "out") in second


def test_nonsense_is_refused_before_anything_is_written(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graphs_per_file is 0; expected a number from 1 on"):
        export(str(tiny_dataset), tmp_path / "out", "pyg", graphs_per_file=0)
    with pytest.raises(ValueError, match="'nowhere' has no graphs"):
        export(str(tiny_dataset), tmp_path / "out", "pyg", split="nowhere")
    with pytest.raises(ValueError, match="no column 'splat'"):
        export(str(tiny_dataset), tmp_path / "out", "pyg", split="train", column="splat")
    assert list(tmp_path.iterdir()) == []


def test_graphs_are_walked_in_the_order_of_the_disk(tiny_dataset: Path) -> None:
    """Whatever the order of the table, so that each part is decoded once."""
    table = pa.table({"part": [1, 0, 1, 0], "offset": [5, 9, 0, 0]})
    assert order_on_disk(table).tolist() == [3, 1, 2, 0]
    dataset = open_graphs(tiny_dataset, parts_in_memory=1)
    walked = [(row["graph_id"], graph.values.tobytes()) for row, graph in walk(dataset)]
    ids = dataset.table["graph_id"].to_pylist()
    assert walked == [(name, graph.values.tobytes()) for name, graph in zip(ids, dataset, strict=True)]


@pytest.mark.parametrize(
    ("accuracy", "psnr", "expected"),
    [([0.5, np.nan], None, "test_accuracy"), ([np.nan] * 2, [np.nan, 30.0], "psnr"), ([np.nan] * 2, None, None)],
)
def test_the_main_label_is_one_that_is_known(
    accuracy: list[float], psnr: list[float] | None, expected: str | None
) -> None:
    columns = {"test_accuracy": accuracy} | ({} if psnr is None else {"psnr": psnr})
    assert main_label(pa.table(columns)) == expected


# --- PyTorch Geometric ------------------------------------------------------------------------------------------------

KEYS = [
    "x",
    "edge_index",
    "edge_attr",
    "edge_geometry",
    "edge_chain",
    "node_chain",
    "node_kind",
    "edge_kind",
    "value_index",
]


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and bool(torch.equal(found, expected))


@pytest.mark.parametrize("graphs_per_file", [1, 5, 1000])
def test_pyg_graphs_come_back_as_they_were(tiny_dataset: Path, tmp_path: Path, graphs_per_file: int) -> None:
    export(str(tiny_dataset), tmp_path / "out", "pyg", graphs_per_file=graphs_per_file)
    dataset = open_graphs(tiny_dataset)
    graphs = Graphs(tmp_path / "out", columns=("epoch", "config.momentum", "split"))
    assert len(list((tmp_path / "out").glob("*.pt"))) == -(-len(dataset) // graphs_per_file)
    assert len(graphs) == len(dataset)
    rows = dataset.table.to_pylist()
    for index in (0, 4, 5, 12, -1):
        found: Any = graphs[index]
        expected, row = dataset[index].to_pyg(), rows[index]
        for key in KEYS:
            assert same(found[key], expected[key]), key
        assert found.graph_id == row["graph_id"]
        assert found.split == row["split"]
        assert same(found.y, torch.tensor([row["test_accuracy"]]))
        assert same(found.epoch, torch.tensor([row["epoch"]]))
        momentum = np.nan if row["config.momentum"] is None else row["config.momentum"]
        np.testing.assert_array_equal(found["config.momentum"].numpy(), [momentum])


def test_graphs_of_all_kinds_come_back(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges without values, constants, masks, shared values, sites and regions."""
    dataset = open_graphs(tiny_dataset)
    templates = [residual_layer_norm(), masked_attention(), embedded_words(), selected()]
    rng = np.random.default_rng(0)
    graphs = [template.graph(rng.normal(size=template.num_values).astype(np.float32)) for template in templates]
    rows = dataset.table.slice(0, len(graphs)).to_pylist()
    pairs = [(row | {"template": graph.template.digest}, graph) for row, graph in zip(rows, graphs, strict=True)]
    monkeypatch.setattr(export_pyg, "walk", lambda _: iter(pairs))
    write_pyg(dataset, tmp_path, 100)
    without_value = 0
    stored: Any = Graphs(tmp_path)
    for found, graph in zip(stored, graphs, strict=True):
        expected = graph.to_pyg()
        without_value += int((expected.value_index < 0).sum())
        for key in KEYS:
            assert same(found[key], expected[key]), key
    assert without_value > 0


def test_changing_one_graph_changes_no_other(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "pyg")
    graphs: Any = Graphs(tmp_path / "out", columns=["epoch"])
    first = graphs[0]
    attributes, epoch = first.edge_attr.clone(), first.epoch.clone()
    first.edge_attr.zero_()
    first.epoch.add_(7)
    assert same(graphs[0].edge_attr, attributes)
    assert same(graphs[0].epoch, epoch)


def test_a_file_ends_before_it_is_too_long(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_graph = template_tensors(open_graphs(tiny_dataset)[0].template)
    monkeypatch.setattr(export_pyg, "MOST_BYTES", export_pyg.size_of(one_graph) + 4 * NUM_VALUES + 1)
    export(str(tiny_dataset), tmp_path / "out", "pyg")
    assert json.loads((tmp_path / "out" / "contents.json").read_text())["num_graphs"] == [1] * 13


def test_an_architecture_is_small_on_disk(tiny_dataset: Path) -> None:
    template = open_graphs(tiny_dataset)[0].template
    assert export_pyg.size_of(template_tensors(template)) < 20 * template.num_edges
    assert "edges" not in vars(template)  # a copy is expanded, and forgotten


def test_a_column_that_is_not_there_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "pyg")
    with pytest.raises(ValueError, match="no column 'accuracy'; there are graph_id, run_id"):
        Graphs(tmp_path / "out", y="accuracy")


READ_ALONE = """
import sys
sys.modules |= dict.fromkeys(["pipeline", "training", "analysis", "zarr", "pyarrow"])  # importing these fails
sys.path.append("out")
from dataset import Graphs
from torch_geometric.loader import DataLoader
graphs = Graphs(columns=["config.batch_size", "split"])
batch = next(iter(DataLoader(graphs, batch_size=3)))  # "batch" in a name has PyG add up numbers, unless told not to
assert batch.y.shape == (3,) and batch["config.batch_size"].tolist() == [23] * 3 and len(batch.split) == 3
weights = [graphs[i].edge_attr[graphs[i].value_index.argsort(), 0] for i in range(3)]
assert batch.value_index.max() == sum(map(len, weights)) - 1
assert batch.edge_index.max() < batch.num_nodes == sum(graphs[i].num_nodes for i in range(3))
print(len(graphs), batch.edge_attr[:, 0].double().sum().item())
"""


def test_an_export_is_read_without_metazoo(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "pyg", graphs_per_file=2)
    command = [sys.executable, "-P", "-W", "error", "-W", "ignore::DeprecationWarning", "-c", READ_ALONE]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    number, total = result.stdout.split()
    dataset = open_graphs(tiny_dataset)
    assert int(number) == len(dataset)
    assert float(total) == pytest.approx(sum(dataset[i].values.astype(np.float64).sum() for i in range(3)), abs=1e-9)


def test_the_reader_is_the_module_and_its_columns_are_those_of_to_pyg(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "pyg")
    assert (tmp_path / "out" / "dataset.py").read_bytes() == Path(exported_dataset.__file__).read_bytes()
    assert sorted(KEYS) == sorted(open_graphs(tiny_dataset)[0].to_pyg().keys())


@given(st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, float("nan")]), min_size=3, max_size=3), min_size=1))
def test_different_rows_keep_every_bit(rows: list[list[float]]) -> None:
    table = np.array(rows, dtype=np.float32)
    stored = different_rows(table)
    assert stored["rows"][stored["index"].long()].numpy().tobytes() == table.tobytes()
    assert len(stored["rows"]) == len({row.tobytes() for row in table})


@given(st.lists(st.integers(-(2**62), 2**62)))
def test_integers_are_kept_in_fewer_bytes(integers: list[int]) -> None:
    assert smallest(np.array(integers, dtype=np.int64)).tolist() == integers


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_state_dicts_come_back_as_they_were(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "safetensors")
    dataset = open_graphs(tiny_dataset)
    labels = lines_of((tmp_path / "out" / "labels.csv").read_text())
    assert "config.momentum" in labels[0]
    assert not {"graph_id", "template", "part", "split", "width"} & set(labels[0])
    assert pq.read_table(tmp_path / "out" / "table.parquet").equals(dataset.table)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {line["file"] for line in labels} | {"labels.csv", "architectures.json", "table.parquet"}
    for line, row, graph in zip(labels, dataset.table.to_pylist(), dataset, strict=True):
        path = tmp_path / "out" / line["file"]
        found = load_file(path)
        assert graph.template.values_from(found).tobytes() == graph.values.tobytes()
        with safe_open(path, "numpy") as file:
            assert file.metadata() == {"graph_id": row["graph_id"], "template": row["template"]}
        assert float(line["test_accuracy"]) == row["test_accuracy"]
        assert line["config.momentum"] == ("" if row["config.momentum"] is None else repr(row["config.momentum"]))
        Architecture.parse(row["architecture"]).build().load_state_dict(found)


def test_architectures_are_told_with_their_tensors(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "safetensors")
    found = json.loads((tmp_path / "out" / "architectures.json").read_text())
    assert sorted(entry["num_graphs"] for entry in found) == [6, 7]
    assert {entry["architecture"]["arguments"]["activation"] for entry in found} == {"relu", "tanh"}
    shapes = {name: list(tensor.shape) for name, tensor in TRAINED.build().state_dict().items()}
    assert all(entry["tensors"] == shapes for entry in found)
    assert {entry["template"] for entry in found} == set(open_graphs(tiny_dataset).templates)


class Tied(nn.Module):
    """Two names for one tensor, counters, a mask, a scalar and an empty tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.tensor(-0.0))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("none", torch.zeros(0, 4))


def test_every_name_is_written_and_every_bit(tmp_path: Path) -> None:
    expected = Tied().state_dict()
    content = safetensors_bytes({name: tensor.numpy() for name, tensor in expected.items()}, {"graph_id": 'ä"/\n'})
    (tmp_path / "x.safetensors").write_bytes(content)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy().tobytes() == tensor.numpy().tobytes()
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert file.metadata() == {"graph_id": 'ä"/\n'}
    start = 8 + int.from_bytes(content[:8], "little")
    for entry in json.loads(content[8:start]).values():
        if "dtype" in entry:  # every number lies at a multiple of its size
            assert (start + entry["data_offsets"][0]) % {"I64": 8, "F32": 4, "BOOL": 1}[entry["dtype"]] == 0


AWKWARD = ["", ".", "..", "../x", "a/b", "a%2Fb", "a_b", "-rf", "~", "ä", "a\0b", "a\nb", "n" * 300, "n" * 299 + "m"]


def test_names_of_files_are_different_and_stay_in_their_folder(tmp_path: Path) -> None:
    names = [file_name(graph_id) for graph_id in AWKWARD]
    assert len(set(names)) == len(names)
    for name in names:
        (tmp_path / name).touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert not any(name.startswith(".") for name in names)
    assert file_name("5c3dcec9-000001@12") == "5c3dcec9-000001@12.safetensors"


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=90), min_size=2, max_size=2, unique=True))
def test_no_two_ids_have_one_name(ids: list[str]) -> None:
    first, second = map(file_name, ids)
    assert first != second
    assert max(len(first), len(second)) < 255


def test_awkward_ids_are_exported(tiny_dataset: Path, tmp_path: Path) -> None:
    ids = AWKWARD[:13]
    write_safetensors(altered(open_graphs(tiny_dataset), graph_id=ids), tmp_path)
    with (tmp_path / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    for line, name in zip(labels, ids, strict=True):
        with safe_open(tmp_path / line["file"], "numpy") as file:
            assert file.metadata()["graph_id"] == name


def test_an_id_that_stands_twice_is_an_error(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graph same: same.safetensors was written already"):
        write_safetensors(altered(open_graphs(tiny_dataset), graph_id=["same"] * 13), tmp_path)


# --- the Small CNN Zoo ------------------------------------------------------------------------------------------------


def keras_network(row: np.ndarray, images_NHWC: np.ndarray) -> np.ndarray:
    """What a network with these weights computes, read as published: bias first, kernels HWIO, images NHWC."""
    layers = [
        (row[0:16], row[16:160].reshape(3, 3, 1, 16)),
        (row[160:176], row[176:2480].reshape(3, 3, 16, 16)),
        (row[2480:2496], row[2496:4800].reshape(3, 3, 16, 16)),
    ]
    maps = images_NHWC
    for bias, kernel_HWIO in layers:
        size = (maps.shape[1] - 3) // 2 + 1
        after = np.zeros((len(maps), size, size, 16))
        for y in range(size):
            for x in range(size):
                patch = maps[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3, :]
                after[:, y, x] = np.einsum("nhwi,hwio->no", patch, kernel_HWIO) + bias
        maps = np.maximum(after, 0)
    return maps.mean(axis=(1, 2)) @ row[4810:4970].reshape(16, 10) + row[4800:4810]


def test_weights_are_in_the_order_of_keras(tiny_dataset: Path, tmp_path: Path) -> None:
    export(str(tiny_dataset), tmp_path / "out", "small-cnn-zoo")
    weights = np.load(tmp_path / "out" / "weights.npy", allow_pickle=False)
    assert weights.shape == (13, NUM_VALUES)
    assert weights.dtype == np.float32
    images = torch.rand(3, 1, 17, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = TRAINED.build().double()
    for row, graph in zip(weights.astype(np.float64)[:3], open_graphs(tiny_dataset), strict=False):
        network.load_state_dict({name: tensor.double() for name, tensor in graph.state_dict().items()})
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(keras_network(row, images.numpy().transpose(0, 2, 3, 1)), expected, rtol=1e-9)
    for row, graph in zip(weights, open_graphs(tiny_dataset), strict=True):
        assert np.sort(row).tobytes() == np.sort(graph.values).tobytes()


def test_every_value_has_one_place() -> None:
    values = np.arange(2 * NUM_VALUES, dtype=np.float32).reshape(2, -1)
    moved = to_keras(values)
    assert np.array_equal(np.sort(moved, axis=1), values)
    assert moved[0, :17].tolist() == [*range(144, 160), 0]  # the first bias, then tap (0, 0) of filter 0
    assert moved[0, 17] == 9  # of filter 1


def test_metrics_and_layout_are_as_published(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = altered(open_graphs(tiny_dataset), step=[1000 + index for index in range(13)])
    write_small_cnn_zoo(dataset, tmp_path)
    rows, compressed = dataset.table.to_pylist(), (tmp_path / "metrics.csv.gz").read_bytes()
    assert compressed[3:8] == bytes(5)  # no name and no time in the header
    lines = lines_of(gzip.decompress(compressed).decode())
    config = [name for name in rows[0] if name.startswith("config.")]
    theirs = {"config.l2": "config.l2reg", "config.initialisation": "config.w_init"}
    metrics = ["test_accuracy", "test_loss", "train_accuracy", "train_loss"]
    assert list(lines[0]) == [
        *(theirs.get(name, name) for name in config),
        "config.image_size",
        "modeldir",
        "step",
        *metrics,
    ]
    for line, row in zip(lines, rows, strict=True):
        assert (line["modeldir"], int(line["step"])) == (row["run_id"], row["epoch"])
        assert float(line["config.l2reg"]) == row["config.l2"]
        assert line["config.w_init"] == row["config.initialisation"]
        assert [float(line[name]) for name in metrics] == [row[name] for name in metrics]
    layout = lines_of((tmp_path / "layout.csv").read_text())
    assert [int(line["start_idx"]) for line in layout] == [0, 16, 160, 176, 2480, 2496, 4800, 4810]
    assert [int(line["end_idx"]) for line in layout] == [16, 160, 176, 2480, 2496, 4800, 4810, 4970]
    assert layout[3] == {
        "varname": "sequential/conv2d_1/kernel:0",
        "start_idx": "176",
        "end_idx": "2480",
        "size": "2304",
        "shape": "(3, 3, 16, 16)",
    }


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ('{"arguments":{},"family":"vit"}', "of family vit"),
        ("a network of mine", "of family unknown"),
        ("[]", "of family unknown"),
    ],
)
def test_other_families_are_refused_by_name(tiny_dataset: Path, tmp_path: Path, architecture: str, words: str) -> None:
    dataset = open_graphs(tiny_dataset)
    texts, ids = dataset.table["architecture"].to_pylist(), dataset.table["graph_id"].to_pylist()
    texts[7] = architecture
    with pytest.raises(ValueError, match=f"graphs.zarr: graph {ids[7]} is {words}; the format small-cnn-zoo has"):
        write_small_cnn_zoo(altered(dataset, architecture=texts), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_theirs_win_over_ours(tiny_dataset: Path, tmp_path: Path) -> None:
    """As in a dataset that was imported from theirs, which may have both."""
    dataset = altered(open_graphs(tiny_dataset), **{"config.l2reg": [float(i) for i in range(13)]})
    write_small_cnn_zoo(dataset, tmp_path)
    lines = lines_of(gzip.decompress((tmp_path / "metrics.csv.gz").read_bytes()).decode())
    assert [float(line["config.l2reg"]) for line in lines] == [float(i) for i in range(13)]
    assert "config.l2" in lines[0]
