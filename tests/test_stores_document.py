"""docs/stores.md is enough to write both formats: done here by its rules alone, and read by the program."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from torch import nn
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.dataset_tables import GRAPH_COLUMNS
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation
from pipeline.graph_store import open_graphs
from pipeline.template_document import read_runs, write_runs
from pipeline.template_rules import SETTINGS
from pipeline.verify_graphs import verify
from pipeline.zoo_rows import INR_COLUMNS, ROW_SCHEMA
from pipeline.zoo_store import finished_chunks, open_zoo, read_chunk
from tiny_zoo import TINY

PAGE = (Path(__file__).parents[1] / "docs" / "stores.md").read_text()


def table_after(marker: str) -> list[list[str]]:
    """The cells of the table after a marker on the page, without its head."""
    lines = PAGE.partition(f"<!-- {marker} -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def example_template() -> str:
    """The template on the page: a linear layer from three inputs to two outputs."""
    return PAGE.rpartition("```json\n")[2].partition("```")[0].replace("\n", "")


def write_dataset(path: Path, values: np.ndarray) -> None:
    """A dataset of two parts: graphs 0 and 1, then graph 2, each the eight values of one linear layer."""
    text = example_template()
    columns = [(name.strip("`"), kind) for name, kind, _ in table_after("columns of tables")]
    schema = pa.schema([*columns, ("split_width", "string")])
    everything: list[dict[str, Any]] = []
    for part, graphs in enumerate(([0, 1], [2])):
        array = zarr.create_array(
            path / "values" / f"{part:05d}",
            shape=(8 * len(graphs),),
            dtype="float32",
            chunks=(2**18,),
            shards=(2**22,),
            fill_value=np.nan,
            filters=None,
            compressors=[
                BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="bitshuffle"),
                Crc32cCodec(),
            ],
        )
        array[:] = values[graphs].reshape(-1)
        rows = [
            row(graph, part, offset=8 * place, template=digest(text.encode()), values=values[graph])
            for place, graph in enumerate(graphs)
        ]
        everything += rows
    (path / "tables").mkdir()
    (path / "tables" / "00000.parquet").write_bytes(parquet(pa.Table.from_pylist(everything, schema=schema)))
    templates = pa.table({"template": [digest(text.encode())], "document": [text]})
    (path / "templates").mkdir()
    (path / "templates" / "00000.parquet").write_bytes(parquet(templates))
    left_out = pa.table({"graph_id": ["run-3@3"], "reason": ["refused"], "detail": ["it was empty"]})
    (path / "left_out").mkdir()
    (path / "left_out" / "00000.parquet").write_bytes(parquet(left_out))
    for folder, said in ((path, {"format": "metazoo-graphs", "version": 1}), (path / "values", {})):
        group = {"attributes": said, "node_type": "group", "zarr_format": 3}
        (folder / "zarr.json").write_bytes(canonical(group))
    manifest = {
        "format": "metazoo-graphs",
        "version": 1,
        "dtype": "float32",
        "options": {
            "splits": {
                "split": {"salt": "page", "train": 0.5, "val": 0.25},
                "split_width": {"salt": "", "train": 1.0, "val": 0.0, "test": {"column": "width", "above": 1}},
            }
        },
        "additions": [{"num_tables": 1, "num_left_out": 1, "made_of": {"by": "another program"}}],
        "tables": [{"num_parts": 2, "num_templates": 1}],
        "parts": [{"num_graphs": 2, "num_values": 16}, {"num_graphs": 1, "num_values": 8}],
        "files": {
            file.relative_to(path).as_posix(): {"size": file.stat().st_size, "sha256": digest(file.read_bytes())}
            for file in path.rglob("*")
            if file.is_file()
        },
    }
    (path / "manifest.json").write_bytes(canonical(manifest | {"digest": digest(canonical(manifest))}))


def row(graph: int, part: int, offset: int, template: str, values: np.ndarray) -> dict[str, Any]:
    """A row of a table; what is not known of these networks is NaN."""
    run = f"run-{graph}"
    place = int.from_bytes(hashlib.sha256(f"page/{run}".encode()).digest()[:6], "big") / 2**48
    return {
        **{name: float("nan") for name in GRAPH_COLUMNS.names if "loss" in name or "accuracy" in name},
        "graph_id": f"{run}@3",
        "run_id": run,
        "unit": run,
        "epoch": 3,
        "checkpoint": 0,
        "step": 17,
        "template": template,
        "family": "linear",
        "width": 0,
        "depth": 1,
        "values_sha256": digest(values.astype("<f4").tobytes()),
        "split_width": "train",
        "part": part,
        "offset": offset,
        "length": 8,
        "split": "train" if place < 0.5 else "val" if place < 0.75 else "test",
        "architecture": "{}",
    }


def test_a_dataset_written_by_the_page_is_read_and_verified(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 8)
    write_dataset(tmp_path / "graphs.zarr", values)
    verify(tmp_path / "graphs.zarr")
    dataset = open_graphs(tmp_path / "graphs.zarr")
    assert dataset.left_out.to_pylist() == [{"graph_id": "run-3@3", "reason": "refused", "detail": "it was empty"}]
    assert dataset.table["graph_id"].to_pylist() == ["run-0@3", "run-1@3", "run-2@3"]
    network = nn.Linear(3, 2)
    for graph, expected in zip(dataset, values, strict=True):
        network.load_state_dict(graph.state_dict())
        assert torch.equal(network.weight, torch.from_numpy(expected[:6].reshape(2, 3)))
        assert torch.equal(network.bias, torch.from_numpy(expected[6:]))


def test_a_zoo_written_by_the_page_is_read(tmp_path: Path) -> None:
    """One chunk of three runs, two checkpoints each, the last of them diverged; 1,696 test images."""
    specification = TINY.document() | {"num_runs": 3}
    zoo = {
        "format": "metazoo-zoo",
        "version": 1,
        "spec": specification,
        "digest": digest(canonical(specification)),
        "num_chunks": 1,
        "trainer": {"name": "loop", "threads": 1, "dtype": "float32"},
    }
    (tmp_path / "zoo.json").write_text(json.dumps(zoo))
    chunk = tmp_path / "chunks" / "00000"
    chunk.mkdir(parents=True)
    np.save(chunk / "values.npy", np.arange(20, dtype=np.float32))
    np.save(chunk / "correct.npy", np.zeros((6, 212), dtype=np.uint8))
    columns = [(name.strip("`"), kind) for name, kind, _ in table_after("columns of rows.parquet")]
    rows = [
        {
            "run_id": f"{zoo['digest'][:8]}-{place // 2:06d}",
            "run_index": place // 2,
            "checkpoint": place % 2,
            "status": "ok" if place < 5 else "diverged",
            "offset": 4 * place,
            "length": 4 if place < 5 else 0,
        }
        for place in range(6)
    ]
    (chunk / "rows.parquet").write_bytes(parquet(pa.Table.from_pylist(rows, schema=pa.schema(columns))))
    files = {file.name: {"size": file.stat().st_size, "sha256": digest(file.read_bytes())} for file in chunk.iterdir()}
    (chunk / "done.json").write_text(json.dumps({"chunk": 0, "spec": zoo["digest"], "files": files}))

    store = open_zoo(tmp_path)
    assert finished_chunks(store) == [0]
    data = read_chunk(store, 0)
    assert data.values.tolist() == list(range(20))
    assert data.rows["length"].to_pylist() == [4, 4, 4, 4, 4, 0]
    assert data.correct.shape == (6, 212)


@pytest.mark.parametrize(
    ("marker", "schema"),
    [
        ("columns of rows.parquet", ROW_SCHEMA),
        ("columns of implicit networks", pa.schema(INR_COLUMNS.items())),
        ("columns of tables", GRAPH_COLUMNS),
    ],
)
def test_the_page_names_every_column_with_its_type(marker: str, schema: pa.Schema) -> None:
    named = [(name.strip("`"), kind) for name, kind, _ in table_after(marker)]
    assert named == [(field.name, str(field.type)) for field in schema if not field.name.startswith("config.")]


def test_the_page_names_every_operation_with_its_settings() -> None:
    said = {
        operation: tuple(re.findall(r"`(\w+)`", settings))
        for operations, settings in table_after("operations")
        for operation in re.findall(r"`(\w+)`", operations)
    }
    assert said == {operation.name: settings for operation, settings in SETTINGS.items()}
    assert set(said) == {operation.name for operation in Operation}


def test_the_page_names_every_kind() -> None:
    for kind in (*EdgeKind, *(kind for kind in NodeKind if kind != NodeKind.OUTPUT)):
        assert f"`{kind.name}`" in PAGE


def test_the_runs_of_the_page_are_those_of_the_program() -> None:
    numbers, runs = [4, 4, 6, 6, 8, 8, 9], [[4, 3, 2, 2], [9, 1, 1, 1]]
    assert "4, 4, 6, 6, 8, 8, 9 is `[[4,3,2,2],[9,1,1,1]]`" in PAGE
    assert write_runs(np.array(numbers)) == runs
    assert read_runs(runs).tolist() == numbers
