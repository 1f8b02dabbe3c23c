"""A dataset of small CNNs in the three files of the Small CNN Zoo (Unterthiner et al. 2020, arXiv:2002.11448).

Reads   a `GraphDataset`
Writes  weights.npy     float32 ``[num_graphs, 4970]``, a network in each row, in Keras' order: of every layer the bias,
                        then the kernel, ``[height, width, in, out]`` or ``[in, out]``
        metrics.csv.gz  a line for each row: ``config.*``, ``modeldir``, ``step``, accuracies and losses
        layout.csv      which columns of weights.npy are which tensor

``config.image_size`` (pixels across) is ours, since the name of the images is not known here. ``modeldir`` is what
tells runs apart, here the run's id. ``step`` counts epochs, as theirs does (0 to 86). Columns of ours that mean the
same as one of theirs have its name. Networks that diverged are in no dataset, so they are not here.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from pipeline.export_folder import new_file
from pipeline.export_rows import ROWS_AT_ONCE, walk
from pipeline.graph_store import GraphDataset
from pipeline.parameter_graph import GraphTemplate
from pipeline.small_cnn_metrics import IMAGE_SIZE_COLUMN
from pipeline.small_cnn_zoo import LAYOUT, NUM_VALUES, to_keras

FAMILY = "small_cnn"
Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((16, 1, 3, 3), (16,), (16, 16, 3, 3), (16,), (16, 16, 3, 3), (16,), (10, 16), (10,))
"""Of the tensors of such a network in torch's order: a weight ``[out, in, ...]``, then its bias."""
METRICS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
THEIR_NAMES = {"config.l2": "config.l2reg", "config.initialisation": "config.w_init"}
READING = 'read them: numpy.load("{out}/weights.npy"); or python -m pipeline import {out} --format small-cnn-zoo …'


def write_small_cnn_zoo(dataset: GraphDataset, folder: Path) -> None:
    """Write the files, row by row.

    Raises:
        ValueError: a graph is no small CNN on grey images of ten classes.
    """
    check_family(dataset)
    config = their_columns(dataset.table.column_names)
    with new_file(folder / "weights.npy") as weights, new_file(folder / "metrics.csv.gz") as compressed:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (len(dataset), NUM_VALUES)}
        np.lib.format.write_array_header_1_0(weights, shape)
        with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8", newline="", write_through=True)
            metrics = csv.writer(text, lineterminator="\n")
            metrics.writerow([*config.values(), IMAGE_SIZE_COLUMN, "modeldir", "step", *METRICS])
            for rows, values in batches(dataset):
                weights.write(to_keras(values).astype("<f4").tobytes())
                for row in rows:
                    size = json.loads(row["architecture"])["arguments"]["input_shape"][-1]
                    entries = [row[name] for name in config] + [size, row["run_id"], row["epoch"]]
                    entries += [row[name] for name in METRICS]
                    metrics.writerow(["" if entry is None else entry for entry in entries])
            text.detach()
    with new_file(folder / "layout.csv") as file:
        file.write(layout().encode())


def check_family(dataset: GraphDataset) -> None:
    """Refuse graphs of other networks, before anything is written."""
    architectures, templates = dataset.table["architecture"], dataset.table["template"]
    seen: set[tuple[str, str]] = set()
    for first in range(0, len(dataset), ROWS_AT_ONCE):
        chosen = slice(first, first + ROWS_AT_ONCE)
        pairs = list(zip(architectures[chosen].to_pylist(), templates[chosen].to_pylist(), strict=True))
        for place, (architecture, digest) in enumerate(pairs):
            if (architecture, digest) not in seen and (found := stranger(architecture, dataset.templates[digest])):
                raise ValueError(
                    f"{dataset.files.root}: graph {dataset.table['graph_id'][first + place]} is {found}; the format "
                    f"small-cnn-zoo has networks of family {FAMILY} with {NUM_VALUES} values, on grey images of ten "
                    "classes, and no others: use --format safetensors, or a --split without it"
                )
            seen.add((architecture, digest))


def stranger(architecture: str, template: GraphTemplate) -> str | None:
    """What a network is, if it is no small CNN."""
    try:
        family = json.loads(architecture)["family"]
    except (ValueError, KeyError, TypeError):
        family = "unknown"
    if family != FAMILY:
        return f"of family {family}"
    if tuple(tensor.shape for tensor in template.tensors) != SHAPES:
        return f"a {family} of {template.num_values} values"
    return None


def their_columns(names: list[str]) -> dict[str, str]:
    """Our columns of the configuration, and what they are called there; no two alike."""
    ours = [name for name in names if name.startswith("config.")]
    return {name: name if (theirs := THEIR_NAMES.get(name, name)) in ours else theirs for name in ours}


def batches(dataset: GraphDataset) -> Iterator[tuple[list[dict[str, Any]], Float32[np.ndarray, "n 4970"]]]:
    """Some rows at a time, and their values."""
    rows: list[dict[str, Any]] = []
    values: list[np.ndarray] = []
    for row, graph in walk(dataset):
        rows.append(row)
        values.append(graph.values)
        if len(rows) == ROWS_AT_ONCE:
            yield rows, np.stack(values)
            rows, values = [], []
    if rows:
        yield rows, np.stack(values)


def layout() -> str:
    """The content of layout.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["varname", "start_idx", "end_idx", "size", "shape"])
    for name, start, end, shape in LAYOUT:
        table.writerow([name, start, end, end - start, shape])
    return text.getvalue()
