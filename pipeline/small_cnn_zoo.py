"""The Small CNN Zoo (Unterthiner et al. 2020, arXiv:2002.11448), as its authors published it, as a source of graphs.

Reads   weights.npy, one row of 4,970 numbers for each checkpoint, in blocks of rows
        metrics.csv.gz, the same rows: what the checkpoints are
        layout.csv, if it is there: it must say what `LAYOUT` says
Writes  nothing

Rows are as Keras has them: of each layer first the bias, then the kernel, ``[height, width, in, out]`` or
``[in, out]``. Ours are those of `pipeline.image_networks.SmallCNN`: the weight ``[out, in, height, width]`` or
``[out, in]``, then the bias. The column ``step`` of the published table is an epoch.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from einops import rearrange
from jaxtyping import Bool, Float32, Int64, Shaped
from numpy.lib import format as npy

from pipeline import symmetry
from pipeline.architectures import Architecture
from pipeline.cluster import Machine
from pipeline.file_outcomes import read_all
from pipeline.graph_source import GraphSource, values_sha256
from pipeline.parameter_graph import GraphTemplate
from pipeline.places import Place, is_local
from pipeline.small_cnn_metrics import METRICS, image_sizes, name_runs, read_metrics
from pipeline.source_tables import LeftOut, check_unique, checkpoint_ranks, left_out_rows, named_source, source_rows
from pipeline.template_document import write_document
from pipeline.text_tables import TextTable, label, read_text_table, typed
from pipeline.tracing import trace

LAYOUT = (
    ("sequential/conv2d/bias:0", 0, 16, (16,)),
    ("sequential/conv2d/kernel:0", 16, 160, (3, 3, 1, 16)),
    ("sequential/conv2d_1/bias:0", 160, 176, (16,)),
    ("sequential/conv2d_1/kernel:0", 176, 2480, (3, 3, 16, 16)),
    ("sequential/conv2d_2/bias:0", 2480, 2496, (16,)),
    ("sequential/conv2d_2/kernel:0", 2496, 4800, (3, 3, 16, 16)),
    ("sequential/dense/bias:0", 4800, 4810, (10,)),
    ("sequential/dense/kernel:0", 4810, 4970, (16, 10)),
)
"""Name, first position, position after the last, and shape of each tensor in a published row."""
NUM_VALUES = LAYOUT[-1][2]
NUM_CLASSES = 10
ROWS_PER_FILE = 256
"""Five megabytes: rows that are read together, and one after another in the published order."""


def _keras_positions() -> Int64[np.ndarray, " num_values"]:
    """For each of our values its position in a published row."""
    positions: list[np.ndarray] = []
    for (_, first, last, _), (_, start, end, shape) in zip(LAYOUT[::2], LAYOUT[1::2], strict=True):
        kernel = np.arange(start, end).reshape(shape)
        axes = "H W I O -> (O I H W)" if len(shape) == 4 else "I O -> (O I)"
        positions += [rearrange(kernel, axes), np.arange(first, last)]
    return np.concatenate(positions)


KERAS_POSITION = _keras_positions()
OUR_POSITION = np.argsort(KERAS_POSITION)


def from_keras(values: Shaped[np.ndarray, "n 4970"]) -> Shaped[np.ndarray, "n 4970"]:
    """Published rows as values of `SmallCNN`: the same numbers in another order."""
    return values[:, KERAS_POSITION]


def to_keras(values: Shaped[np.ndarray, "n 4970"]) -> Shaped[np.ndarray, "n 4970"]:
    """Values of `SmallCNN` as published rows; undoes `from_keras`."""
    return values[:, OUR_POSITION]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What the first bytes of weights.npy say of the rest; no pickle is ever read."""

    path: Place
    num_rows: int
    dtype: str
    """float16, float32 or float64, of any byte order, as numpy writes it (``<f4``)."""
    start: int
    """First byte of the first row."""

    def rows(self, first: int, last: int) -> Shaped[np.ndarray, "n 4970"]:
        """Some rows as they were published; only these are read.

        Raises:
            ValueError: they are no longer there.
        """
        row_bytes = NUM_VALUES * np.dtype(self.dtype).itemsize
        with self.path.open("rb") as file:
            file.seek(self.start + first * row_bytes)
            content = file.read((last - first) * row_bytes)
        if len(content) != (last - first) * row_bytes:
            raise ValueError(
                f"{self.path}: ends before row {last}, and did not when it was opened; let nothing change it"
            )
        return np.frombuffer(content, dtype=self.dtype).reshape(last - first, NUM_VALUES)


@dataclass(frozen=True, kw_only=True)
class KerasRows:
    """Some rows of weights.npy (`pipeline.graph_source.ValueFile`)."""

    weights: WeightsFile
    first: int
    last: int
    """After the last row."""

    @property
    def path(self) -> Place:
        return self.weights.path

    def read(self) -> Float32[np.ndarray, " num_floats"]:
        """The values of the rows in our order, one network after another."""
        with np.errstate(over="ignore"):  # what float32 cannot hold was refused when the rows were checked
            return from_keras(self.weights.rows(self.first, self.last)).astype(np.float32).reshape(-1)


def small_cnn_source(folder: Place, machine: Machine) -> GraphSource:
    """The checkpoints of one of the four published folders; those with weights that are not finite are left out.

    Args:
        machine: what the tasks that read the weights ask for.

    Raises:
        ValueError: a file is missing or is not as it was published, or no checkpoint has finite weights.
    """
    folder = folder.resolve() if is_local(folder) else folder
    weights = open_weights(folder / "weights.npy")
    if (layout := folder / "layout.csv").exists():
        check_layout(layout, read_text_table(layout))
    metrics = read_metrics(folder / "metrics.csv.gz", weights.num_rows)
    starts = range(0, weights.num_rows, ROWS_PER_FILE)
    files = [KerasRows(weights=weights, first=row, last=min(row + ROWS_PER_FILE, weights.num_rows)) for row in starts]
    digests = np.array([digest for block in read_all(files, row_digests, machine) for digest in block])
    kept = digests != ""
    if not kept.any():
        raise ValueError(f"{weights.path}: no row is finite, so there is nothing to make graphs of")
    columns = own_columns(metrics, digests)
    check_unique(columns["graph_id"], [f"metrics.csv.gz: row {row}" for row in range(weights.num_rows)])
    used = {columns["architecture"][row] for row in np.flatnonzero(kept)}
    templates = {name: make_template(name) for name in sorted(used)}
    columns["template"] = [templates[name].digest if name in used else "" for name in columns["architecture"]]
    further = {name: typed(metrics[name]) for name in metrics if name.startswith("config.")}
    rows = source_rows(*(chosen(table, kept) for table in (columns, further)))
    left_out = left_out_rows(
        [
            LeftOut(graph_id=columns["graph_id"][row], reason="diverged", detail="weights are not finite")
            for row in np.flatnonzero(~kept)
        ]
    )
    return GraphSource(
        sources=named_source(folder, rows, left_out),
        rows=rows,
        left_out=left_out,
        documents={template.digest: write_document(template) for template in templates.values()},
        files=tuple(files),
    )


def own_columns(metrics: TextTable, digests: Shaped[np.ndarray, " num_rows"]) -> dict[str, Any]:
    """The columns of all published rows (`pipeline.graph_source.SOURCE_COLUMNS`), but for the template."""
    row = np.arange(len(digests))
    run_ids, epochs = name_runs(metrics["modeldir"]), [int(step) for step in metrics["step"]]
    pairs = zip(metrics["config.activation"], image_sizes(metrics), strict=True)
    return {
        "graph_id": [f"{run_id}@{epoch}" for run_id, epoch in zip(run_ids, epochs, strict=True)],
        "run_id": run_ids,
        "unit": run_ids,
        "epoch": epochs,
        "checkpoint": checkpoint_ranks(run_ids, epochs),
        "step": np.zeros(len(row), dtype=np.int64),  # of the optimizer: not published
        "family": ["small_cnn"] * len(row),
        "file": row // ROWS_PER_FILE,
        "file_offset": row % ROWS_PER_FILE * NUM_VALUES,
        "length": np.full(len(row), NUM_VALUES),
        "values_sha256": digests,
        **{name: [label(cell) for cell in metrics[name]] for name in METRICS},
        "architecture": [architecture_of(*pair) for pair in pairs],
    }


def open_weights(path: Place) -> WeightsFile:
    """What weights.npy is.

    Raises:
        ValueError: it is missing, is no such file, or has another shape, dtype or length.
    """
    expected = f"expected a .npy file of shape [rows, {NUM_VALUES}], float32, as it was published"
    try:
        with path.open("rb") as file:
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"is of version {version} of the format")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran_order, dtype = read_header(file)
            start = file.tell()
        size = path.stat().st_size
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}); {expected}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {expected}") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError(f"{path}: its numbers are {dtype}; {expected}")
    if len(shape) != 2 or shape[1] != NUM_VALUES or not shape[0] or fortran_order:
        raise ValueError(f"{path}: has shape {shape}{', in columns' if fortran_order else ''}; {expected}")
    whole = start + shape[0] * NUM_VALUES * dtype.itemsize
    if size != whole:
        raise ValueError(
            f"{path}: has {size:,} bytes; with {shape[0]:,} rows of {dtype} it would have {whole:,}: it was cut "
            "short or altered, so download it again"
        )
    return WeightsFile(path=path, num_rows=shape[0], dtype=dtype.str, start=start)


def check_layout(path: Place, layout: TextTable) -> None:
    """Compare layout.csv with `LAYOUT`.

    Raises:
        ValueError: it has other columns, or says something else of a tensor.
    """
    names = ("varname", "start_idx", "end_idx", "size", "shape")
    if missing := [name for name in names if name not in layout]:
        raise ValueError(f"{path}: has no column {missing[0]!r}; expected {', '.join(names)}")
    found = list(zip(*(layout[name] for name in names), strict=True))
    if len(found) != len(LAYOUT):
        raise ValueError(
            f"{path}: has {len(found)} tensors; expected {len(LAYOUT)}, a bias and a kernel for four layers"
        )
    for cells, (name, start, end, shape) in zip(found, LAYOUT, strict=True):
        kind = re.sub(r":\d+$", "", cells[0]).rpartition("/")[2]
        numbers = [re.findall(r"\d+", cell) for cell in cells[1:]]
        expected = [[str(start)], [str(end)], [str(end - start)], [str(size) for size in shape]]
        if kind != name.rpartition("/")[2].removesuffix(":0") or numbers != expected:
            raise ValueError(
                f"{path}: says {', '.join(cells)}; expected {name}, {start}, {end}, {end - start}, {shape}: the bias "
                "of a layer before its kernel, which is [height, width, in, out]"
            )


def row_digests(file: KerasRows) -> list[str]:
    """The digest of the values of each row; nothing where one is not finite.

    Raises:
        ValueError: a number is not one of float32.
    """
    published = file.weights.rows(file.first, file.last)
    with np.errstate(over="ignore"):
        changed = np.not_equal(published.astype(np.float32).astype(published.dtype), published)
    finite = np.isfinite(published)
    if (inexact := np.flatnonzero((changed & finite).any(axis=1))).size:
        raise ValueError(
            f"{file.path}: row {file.first + int(inexact[0])} has numbers of {published.dtype} that float32 does not "
            "have; expected the published float32, or the same numbers in another dtype"
        )
    values = from_keras(published).astype(np.float32)
    return [values_sha256(row) if np.isfinite(row).all() else "" for row in values]


@cache
def architecture_of(activation: str, size: int) -> str:
    """The document of the network of a row."""
    arguments = {"activation": activation, "input_shape": [1, size, size], "num_classes": NUM_CLASSES}
    return Architecture(family="small_cnn", arguments=arguments).document()


@cache
def make_template(architecture: str) -> GraphTemplate:
    """The template of an architecture, checked against its network."""
    network, example_input = Architecture.parse(architecture).build(), Architecture.parse(architecture).example_input()
    template = trace(network, example_input)
    symmetry.check(network, template, example_input)
    return template


def chosen(columns: dict[str, Any], kept: Bool[np.ndarray, " num_rows"]) -> dict[str, pa.Array]:
    """The rows that are kept, of every column."""
    return {name: pa.array(column).filter(pa.array(kept)) for name, column in columns.items()}
