"""Where graphs come from: rows that say what they are, templates, and files that hold their values.

Reads   the values, when a part is written: `ValueFile.read`
Writes  nothing

Zoos (pipeline.graph_sources) and other people's files (pipeline.state_dict_files, pipeline.small_cnn_zoo) give a
`GraphSource`; plan and job know nothing else of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from pipeline.file_records import sha256
from pipeline.places import Place, is_local, place

SOURCE_COLUMNS = pa.schema(
    [
        ("graph_id", pa.string()),
        ("run_id", pa.string()),
        ("unit", pa.string()),
        ("epoch", pa.int32()),
        ("checkpoint", pa.int32()),
        ("step", pa.int64()),
        ("template", pa.string()),
        ("family", pa.string()),
        ("file", pa.int64()),
        ("file_offset", pa.int64()),
        ("length", pa.int64()),
        ("values_sha256", pa.string()),
        ("train_loss", pa.float64()),
        ("train_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_accuracy_half_a", pa.float64()),
        ("test_accuracy_half_b", pa.float64()),
        ("architecture", pa.string()),
    ]
)
"""What every row has, without nulls; a label that is not known is NaN. Further columns are labels and configuration."""

Reason = Literal["diverged", "not chosen", "refused", "duplicate"]
"""``diverged``: training gave values that are no numbers. ``not chosen``: by the selection that was asked for.
``refused``: a file that cannot be read or does not fit; ``detail`` is the error. ``duplicate``: the values are those of
the graph ``detail``."""


@runtime_checkable
class ValueFile(Protocol):
    """A file that holds the values of graphs, one after another. It travels to the tasks, so it is small."""

    def read(self) -> Float32[np.ndarray, " num_floats"]:
        """All its values; memory-mapped where that can be."""
        ...


@dataclass(frozen=True, kw_only=True)
class NpyFile:
    """A .npy file, one-dimensional and float32."""

    path: Place
    start: int
    """Of the first number, in bytes."""

    @staticmethod
    def at(path: Place, num_floats: int) -> "NpyFile":
        """The file of so many numbers at a path."""
        path = path.resolve() if is_local(path) else path
        return NpyFile(path=path, start=path.stat().st_size - 4 * num_floats)

    def read(self) -> Float32[np.ndarray, " num_floats"]:
        if is_local(self.path):
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        return np.frombuffer(self.path.read_bytes()[self.start :], dtype="<f4")


def read_spans(file: ValueFile, spans: Sequence[tuple[int, int]]) -> list[Float32[np.ndarray, " _"]]:
    """The numbers from a first one to before a last one, for each span. Of an object store only these are read."""
    if isinstance(file, NpyFile) and not is_local(file.path):
        path = place(file.path)  # in this process
        ends = [[file.start + 4 * end for end in span] for span in spans]
        contents = path.fs.cat_ranges([path.path] * len(spans), *map(list, zip(*ends, strict=True)), on_error="raise")
        return [np.frombuffer(content, dtype="<f4") for content in contents]
    values = file.read()
    return [values[first:last] for first, last in spans]


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphSource:
    """Graphs to be put into a dataset."""

    sources: Mapping[str, str]
    """What they come from: a name and a digest of all of it, for each zoo or folder."""
    rows: pa.Table
    """`SOURCE_COLUMNS` and more; ``file`` is an index into ``files``, and the values of a graph are
    ``files[file].read()[file_offset : file_offset + length]``."""
    left_out: pa.Table
    """`LEFT_OUT_COLUMNS` of pipeline.dataset_tables."""
    documents: Mapping[str, str]
    """The text of every template, by its digest (pipeline.template_document)."""
    files: tuple[ValueFile, ...]


def values_sha256(values: Float32[np.ndarray, " num_values"]) -> str:
    """Digest of the values of a graph: SHA-256 of their bytes, float32, little-endian."""
    return sha256(np.ascontiguousarray(values, dtype="<f4").tobytes())
