"""A dataset as files of PyTorch Geometric graphs that are read without Metazoo.

Reads   a `GraphDataset`
Writes  graphs-00000.pt, …  plain tensors and lists in dictionaries (`torch.load` with ``weights_only=True``)
        contents.json       how many graphs each file has, the columns of the table, and which one is the label
        dataset.py          reads them: the text of pipeline.exported_dataset, which imports nothing of ours

What graphs of one architecture share is stored once in a file, as a table of rows that differ and an index into it:
about ten bytes an edge instead of three hundred. Each graph adds its values and its row of the dataset's table.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Shaped
from torch import Tensor

from pipeline import exported_dataset, pyg_graph
from pipeline.export_folder import new_file
from pipeline.export_rows import main_label, walk
from pipeline.exported_dataset import INTEGERS, TABLES
from pipeline.graph_store import GraphDataset
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import read_document, write_document

FORMAT, VERSION = "metazoo-pyg", 1
MOST_BYTES = 2**28
"""A file ends before the graph that would make it longer; a longer graph has a file of its own."""
ROW_BYTES = 2**11
"""What a row of the table is taken to need."""
READING = 'read them: import sys; sys.path.append("{out}"); from dataset import Graphs; graphs = Graphs()'


def write_pyg(dataset: GraphDataset, folder: Path, graphs_per_file: int) -> None:
    """Write the files, one after another.

    Raises:
        ValueError: an architecture has a chain of more than eight operations.
    """
    table, num_graphs = dataset.table, []
    for number, content in enumerate(contents(dataset, graphs_per_file)):
        stored = io.BytesIO()  # torch says of a full disk that a position is unexpected
        torch.save(content, stored)
        with new_file(folder / f"graphs-{number:05d}.pt") as file:
            file.write(stored.getbuffer())
        num_graphs.append(len(content["template"]))
    document = {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dataset.files.manifest.digest,
        "num_graphs": num_graphs,
        "columns": table.column_names,
        "label": main_label(table),
    }
    with new_file(folder / "contents.json") as file:
        file.write(json.dumps(document, indent=1, ensure_ascii=False).encode())
    with new_file(folder / "dataset.py") as file:
        file.write(Path(exported_dataset.__file__).read_bytes())


def contents(dataset: GraphDataset, graphs_per_file: int) -> Iterator[dict[str, Any]]:
    """What each file holds."""
    templates: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    values: list[np.ndarray] = []
    num_bytes = 0
    for row, graph in walk(dataset):
        template = templates.get(row["template"])
        new = graph.values.nbytes + ROW_BYTES
        if template is None:
            template = template_tensors(graph.template)
            new += size_of(template)
        if rows and (len(rows) == graphs_per_file or num_bytes + new > MOST_BYTES):
            yield file_content(dataset.table, templates, rows, values)
            templates, rows, values, num_bytes = {}, [], [], 0
            new = graph.values.nbytes + ROW_BYTES + size_of(template)
        templates[row["template"]] = template
        rows.append(row)
        values.append(graph.values)
        num_bytes += new
    yield file_content(dataset.table, templates, rows, values)


def file_content(
    table: pa.Table, templates: dict[str, dict[str, Any]], rows: list[dict[str, Any]], values: list[np.ndarray]
) -> dict[str, Any]:
    """What `exported_dataset` reads."""
    number = {digest: place for place, digest in enumerate(templates)}
    return {
        "templates": list(templates.values()),
        "template": torch.tensor([number[row["template"]] for row in rows]),
        "values": torch.from_numpy(np.concatenate(values)),
        "offset": torch.from_numpy(np.cumsum([0, *map(len, values)])),
        "columns": {name: entries(table[name], [row[name] for row in rows]) for name in table.column_names},
    }


def entries(column: pa.ChunkedArray, found: list[Any]) -> Tensor | list[Any]:
    """Some entries of a column: numbers as a tensor, with NaN for null, others as text; the same kind in all files."""
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return torch.tensor(found, dtype=torch.int64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return torch.tensor([float("nan") if entry is None else entry for entry in found], dtype=torch.float64)
    return [entry if entry is None else str(entry) for entry in found]


def template_tensors(template: GraphTemplate) -> dict[str, Any]:
    """All that `to_pyg` gives of an architecture, small."""
    # On a copy, and past the cache of `to_pyg`: both keep hundreds of expanded templates.
    data, _, _ = pyg_graph.without_values(read_document(write_document(template)))
    tensors: dict[str, Any] = {name: different_rows(data[name].numpy()) for name in TABLES}
    tensors |= {name: smallest(data[name].numpy()) for name in INTEGERS}
    return tensors | {"value_index": smallest(np.maximum(data["value_index"].numpy(), -1))}


def different_rows(table: Shaped[np.ndarray, "rows columns"]) -> dict[str, Tensor]:
    """The rows that differ in any bit, and which of them each row is."""
    table = np.ascontiguousarray(table)
    whole = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).reshape(-1)
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    return {"rows": torch.from_numpy(table[first]), "index": smallest(index)}


def smallest(integers: Shaped[np.ndarray, "..."]) -> Tensor:
    """The same integers in as few bytes as hold them all."""
    for dtype in (np.uint8, np.int16, np.int32):
        if integers.size == 0 or np.iinfo(dtype).min <= integers.min() <= integers.max() <= np.iinfo(dtype).max:
            return torch.from_numpy(integers.astype(dtype))
    return torch.from_numpy(integers.astype(np.int64))


def size_of(stored: dict[str, Any] | Tensor) -> int:
    """Bytes of all tensors."""
    return stored.nbytes if isinstance(stored, Tensor) else sum(map(size_of, stored.values()))
