"""The dataset as a reader sees it: every bit of the zoo, few reads, and no belief in damaged files."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr

from damage import DAMAGES, SHARD, forge_column, forge_table
from pipeline import graph_store
from pipeline.architectures import Architecture
from pipeline.checked_files import CheckedFiles
from pipeline.graph_store import open_graphs
from pipeline.value_arrays import array_document, decode_values
from pipeline.zoo_store import open_zoo, read_chunk
from tiny_dataset import NUM_VALUES, make_tiny_dataset


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def zoo_values(dataset: Path) -> dict[tuple[str, int], np.ndarray]:
    """The values of every checkpoint of the zoo beside the dataset that has some, by run and epoch."""
    zoo = open_zoo(dataset.parent / "zoo")
    values: dict[tuple[str, int], np.ndarray] = {}
    for index in range(zoo.spec.num_chunks):
        chunk = read_chunk(zoo, index)
        for row in chunk.rows.to_pylist():
            if row["status"] == "ok":
                values[row["run_id"], row["epoch"]] = chunk.values[row["offset"] : row["offset"] + row["length"]]
    return values


def test_every_graph_has_the_values_of_its_row_of_the_zoo_bit_for_bit(tiny_dataset: Path) -> None:
    dataset, expected = open_graphs(tiny_dataset), zoo_values(tiny_dataset)
    assert len(dataset) == len(expected) == 13
    for row, graph in zip(dataset.table.to_pylist(), dataset, strict=True):
        assert graph.values.tobytes() == expected.pop((row["run_id"], row["epoch"])).tobytes()
    assert not expected


def test_the_state_dict_of_a_graph_is_that_of_the_network_bit_for_bit(tiny_dataset: Path) -> None:
    dataset, expected = open_graphs(tiny_dataset), zoo_values(tiny_dataset)
    for row, graph in zip(dataset.table.to_pylist(), dataset, strict=True):
        network = Architecture.parse(row["architecture"]).build()
        network.load_state_dict(graph.state_dict())
        flat = torch.cat([tensor.reshape(-1) for tensor in network.state_dict().values()])
        assert flat.numpy().tobytes() == expected[row["run_id"], row["epoch"]].tobytes()


def test_a_graph_shares_no_memory_with_the_part_it_came_from(tiny_dataset: Path) -> None:
    dataset = open_graphs(tiny_dataset)
    dataset[0].values[:] = 0
    assert dataset[0].values.any()
    assert not dataset.read_part(0).flags.writeable


def test_graphs_are_counted_as_in_a_list(tiny_dataset: Path) -> None:
    dataset = open_graphs(tiny_dataset)
    assert np.array_equal(dataset[-1].values, dataset[12].values)
    with pytest.raises(IndexError):
        dataset[13]


def test_opening_reads_the_manifest_and_the_tables_only(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    read = CheckedFiles.read
    monkeypatch.setattr(CheckedFiles, "read", lambda files, name: names.append(name) or read(files, name))
    dataset = open_graphs(tiny_dataset)
    assert names == [f"tables/0000{part}.parquet" for part in range(5)]
    dataset[0]
    assert names[5:] == ["values/00000/zarr.json", "values/00000/c/0", "templates/00000.parquet"]


def test_parts_are_decoded_whole_and_a_bounded_number_stays_in_memory(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def decode(folder: Path, *rest: Any) -> np.ndarray:
        decoded.append(folder.name)
        return decode_values(folder, *rest)

    monkeypatch.setattr(graph_store, "decode_values", decode)
    dataset = open_graphs(tiny_dataset, parts_in_memory=2)
    for graph in (0, 1, 2, 3, 0, 3, 6, 3, 0):  # three graphs a part: parts 0 0 0 1 0 1 2 1 0
        dataset[graph]
    assert decoded == ["00000", "00001", "00002", "00000"]


def test_the_graphs_of_a_split_are_those_with_its_name(tiny_dataset: Path) -> None:
    dataset = open_graphs(tiny_dataset)
    sides = dataset.table["split"].to_pylist()
    for side in set(sides):
        rows = [row for row, name in enumerate(sides) if name == side]
        view = dataset.split(side)
        assert view.table["graph_id"].to_pylist() == [dataset.table["graph_id"][row].as_py() for row in rows]
        assert all(np.array_equal(view[i].values, dataset[row].values) for i, row in enumerate(rows))


def test_a_split_that_is_not_there_is_an_error_that_says_what_is(tiny_dataset: Path) -> None:
    dataset = open_graphs(tiny_dataset)
    with pytest.raises(ValueError, match="split 'training' has no graphs; found {'test': 9, 'train': 4}"):
        dataset.split("training")
    with pytest.raises(ValueError, match="no column 'split_width' to split by; expected one of split"):
        dataset.split("train", column="split_width")
    with pytest.raises(ValueError, match="no column 'epoch' to split by"):
        dataset.split("train", column="epoch")


def test_each_template_is_read_when_it_is_asked_for_and_once(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_graphs(tiny_dataset)
    digests = set(dataset.table["template"].to_pylist())
    assert set(dataset.templates) == digests
    assert len(dataset.templates) == 2
    for digest in digests:
        template = dataset.templates[digest]
        assert template.digest == digest
        assert template.num_values == NUM_VALUES
        assert dataset.templates[digest] is template
    with pytest.raises(KeyError):
        dataset.templates["0" * 64]


def test_pickling_takes_the_path_along_and_not_the_data(tiny_dataset: Path) -> None:
    view = open_graphs(tiny_dataset).split("train")
    view.read_part(0)
    pickled = pickle.dumps(view)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301  # our own
    assert again.table.equals(view.table)
    assert np.array_equal(again[2].values, view[2].values)


def test_a_dataset_that_is_replaced_while_it_is_in_use_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    pickled = pickle.dumps(open_graphs(path))
    forge_column("test_accuracy", lambda numbers: numbers[::-1])(path)
    with pytest.raises(ValueError, match="the dataset was replaced while it was in use"):
        pickle.loads(pickled)  # noqa: S301  # our own


def test_an_array_has_the_stated_codecs(tiny_dataset: Path) -> None:
    document = json.loads((tiny_dataset / "values/00000/zarr.json").read_bytes())
    assert document | array_document(3 * NUM_VALUES) == document


def test_zarr_alone_reads_the_attributes_and_the_values(tiny_dataset: Path) -> None:
    group = zarr.open_group(tiny_dataset, mode="r")
    assert group.attrs["format"] == "metazoo-graphs"
    part = group["values/00003"]
    assert isinstance(part, zarr.Array)
    assert np.array_equal(np.asarray(part[:]), open_graphs(tiny_dataset).read_part(3))


def read_everything(path: Path) -> None:
    """What a training run reads, and the attributes."""
    dataset = open_graphs(path)
    assert dataset.left_out.num_rows == 2
    for _ in dataset:
        pass


@pytest.mark.parametrize("name", [name for name, damage in DAMAGES.items() if damage.reader])
def test_a_reader_refuses_a_damaged_dataset_and_names_the_file(name: str, tiny_dataset: Path, tmp_path: Path) -> None:
    path, damage = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr"), DAMAGES[name]
    damage.apply(path)
    with pytest.raises(ValueError, match=damage.message) as error:
        read_everything(path)
    assert damage.file in str(error.value)


def test_a_file_is_compared_with_its_digest_at_its_first_read(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    dataset = open_graphs(path)
    DAMAGES[f"a flipped bit in {SHARD}"].apply(path)
    assert len(dataset) == 13
    with pytest.raises(ValueError, match="altered"):
        dataset.read_part(1)


def test_a_column_that_one_table_has_is_null_in_the_others(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    forge_table(lambda table: table.append_column("colour", [["blue"] * 3]))(path)
    assert open_graphs(path).table["colour"].to_pylist() == [None] * 3 + ["blue"] * 3 + [None] * 7


def test_tables_with_columns_of_different_types_are_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_dataset, tmp_path / "graphs.zarr")
    forge_table(lambda table: table.append_column("colour", [["blue"] * 3]))(path)
    forge_table(lambda table: table.append_column("colour", [[1.5] * 3]), "tables/00002.parquet")(path)
    with pytest.raises(ValueError, match="the tables have columns of different types"):
        open_graphs(path)


def test_the_table_of_a_dataset_is_one_arrow_table(tiny_dataset: Path) -> None:
    table = open_graphs(tiny_dataset).table
    assert isinstance(table, pa.Table)
    assert table["part"].to_pylist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4]
