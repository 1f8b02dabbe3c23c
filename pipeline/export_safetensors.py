"""A dataset as one safetensors file for every graph, and a table of labels.

Reads   a `GraphDataset`
Writes  <graph id>.safetensors  the state dict under its own names; ``graph_id`` and ``template`` as metadata
        labels.csv              the column ``file``, then what `python -m pipeline import` takes: runs, units, labels,
                                configuration, and the arguments of somebody's factory
        table.parquet           all columns of the dataset's table
        architectures.json      every architecture, and the names and shapes of its tensors

The files are written here and not by the package safetensors, whose metadata come in another order every time; the
format is a length, a JSON text and the bytes of the tensors. Tied tensors are there under each of their names.
"""

import csv
import io
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset_tables import parquet_bytes
from pipeline.export_folder import new_file
from pipeline.export_rows import walk
from pipeline.file_labels import ARGUMENT, CONFIG, TAKEN
from pipeline.file_records import sha256
from pipeline.graph_store import GraphDataset

DTYPES = {
    "float32": "F32",
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
}
PLAIN = frozenset(string.ascii_letters + string.digits + "-_.@=+,")
"""Characters that names of files keep."""
LONGEST, KEPT = 200, 100
"""Bytes of a name, without its suffix; and of one that is cut."""
READING = 'read one: safetensors.torch.load_file("{out}/FILE"), FILE from the first column of labels.csv'


def write_safetensors(dataset: GraphDataset, folder: Path) -> None:
    """Write the files, one after another.

    Raises:
        ValueError: two graphs have the same name of a file.
    """
    arguments = argument_columns(dataset.table["architecture"])
    kept = {CONFIG + name.removeprefix(ARGUMENT) for name in arguments}  # an import keeps arguments as configuration
    columns = [name for name in label_columns(dataset.table.column_names) if name not in kept]
    architectures: dict[tuple[str, str], dict[str, Any]] = {}
    with new_file(folder / "labels.csv") as labels:
        text = io.TextIOWrapper(labels, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", *columns, *arguments])
        for row, graph in walk(dataset):
            tensors = {name: tensor.numpy() for name, tensor in graph.state_dict().items()}
            content = safetensors_bytes(tensors, {"graph_id": row["graph_id"], "template": row["template"]})
            name = file_name(row["graph_id"])
            try:
                with new_file(folder / name) as file:
                    file.write(content)
            except FileExistsError as error:
                raise ValueError(
                    f"graph {row['graph_id']}: {name} was written already; either the id stands twice in the dataset, "
                    "or this file system does not tell upper from lower case: choose a folder on another one (--out)"
                ) from error
            given = {ARGUMENT + key: value for key, value in foreign_arguments(row["architecture"]).items()}
            cells = [*(row[column] for column in columns), *(given.get(column) for column in arguments)]
            table.writerow([name, *("" if cell is None else cell for cell in cells)])
            entry = architectures.setdefault(
                (row["template"], row["architecture"]),
                {
                    "architecture": parsed(row["architecture"]),
                    "template": row["template"],
                    "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
                    "num_graphs": 0,
                },
            )
            entry["num_graphs"] += 1
        text.detach()
    with new_file(folder / "table.parquet") as file:
        file.write(parquet_bytes(dataset.table))
    with new_file(folder / "architectures.json") as file:
        file.write(json.dumps(list(architectures.values()), indent=1).encode())


def label_columns(names: Sequence[str]) -> list[str]:
    """The columns that an import takes; the others are those that datasets make themselves."""
    return [name for name in names if name not in TAKEN and not name.startswith("split")]


def argument_columns(architectures: pa.ChunkedArray) -> list[str]:
    """A column for each argument that somebody's factory was called with."""
    names = {name for text in architectures.unique().to_pylist() for name in foreign_arguments(text)}
    return [ARGUMENT + name for name in sorted(names)]


def foreign_arguments(architecture: str) -> dict[str, Any]:
    """What a network's factory was called with, if the network was imported."""
    document = parsed(architecture)
    if not isinstance(document, dict) or ":" not in str(document.get("family")):
        return {}
    return {name: value for name, value in document["arguments"].items() if name != "input_shape"}


def safetensors_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file: the same bytes for the same tensors, those of long numbers first."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data: list[bytes] = []
    end = 0
    for name in sorted(tensors, key=lambda name: -tensors[name].itemsize):  # stable, and so each is aligned
        tensor = tensors[name]
        data.append(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        start, end = end, end + len(data[-1])
        header[name] = {"dtype": DTYPES[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data)


def file_name(graph_id: str) -> str:
    """A name for every id: no two have the same, none is hidden, leaves the folder, or is too long for a disk.

    Other characters than `PLAIN` are written as in URLs; a long name is cut, and ends with ``~`` and the SHA-256 of the
    id.
    """
    escaped = "".join(
        letter if letter in PLAIN else "".join(f"%{byte:02X}" for byte in letter.encode()) for letter in graph_id
    )
    if escaped[:1] == ".":
        escaped = "%2E" + escaped[1:]
    if len(escaped) > LONGEST:
        escaped = f"{escaped[:KEPT]}~{sha256(graph_id.encode())}"
    return f"{escaped or '%'}.safetensors"


def parsed(text: str) -> Any:
    """An architecture as JSON, or its text where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text
