"""The parameter-graph dataset on disk: format "metazoo-graphs" version 1, specified in docs/stores.md.

    dataset = open_graphs("runs/digits/graphs.zarr")
    graph = dataset.split("train")[0]

Reads   the manifest and the tables when a dataset is opened; values and templates when they are asked for
Writes  nothing: `pipeline.dataset_writer` writes datasets, `GraphDataset.materialise` a local copy of the values

Values are never read graph by graph: a part is decoded whole and kept among the last few. What comes from the disk is
checked here: files against the manifest, tables against the lengths of the arrays, arrays against the format.
"""

import operator
import os
from collections.abc import Iterator, Mapping
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from pipeline.checked_files import CheckedFiles, read_manifest
from pipeline.dataset_manifest import five_digits, left_out_file, part_files, table_file
from pipeline.dataset_tables import GRAPH_COLUMNS, LEFT_OUT_COLUMNS, read_parquet, without_repetition
from pipeline.local_copy import LocalCopy, local_copy
from pipeline.parameter_graph import ParameterGraph
from pipeline.parquet_files import where
from pipeline.places import PathName, check_reachable, place
from pipeline.stored_templates import Templates
from pipeline.value_arrays import decode_values

if TYPE_CHECKING:
    from pipeline.graph_stream import GraphStream


def open_graphs(path: PathName, parts_in_memory: int = 8) -> "GraphDataset":
    """The dataset at ``path``, without its values: only the manifest and the tables are read.

    Args:
        path: the dataset's folder, or s3://bucket/folder.
        parts_in_memory: decoded parts that are kept, at most; 16 MiB each at the default size of a part.

    Raises:
        ValueError: no dataset is there, or a file is missing, altered or of another version.
    """
    if parts_in_memory < 1:
        raise ValueError(f"parts_in_memory is {parts_in_memory}; expected at least 1")
    root = place(path)
    check_reachable(root)
    files = CheckedFiles(root, read_manifest(root))
    table, table_of = read_tables(files)
    return GraphDataset(DatasetStore(files, table_of, PartStore(files, parts_in_memory)), table, None)


@runtime_checkable
class ValueParts(Protocol):
    """Where the values of parts are read from."""

    parts_in_memory: int

    def read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        """The values of a part, read-only."""
        ...


class GraphDataset:
    """Parameter graphs, in the order of the table. Pickling it takes its path along, not its data."""

    table: pa.Table
    """One row per graph; `GRAPH_COLUMNS`, further splits and labels, and the configuration of its run."""

    def __init__(self, store: "DatasetStore", table: pa.Table, rows: Int64[np.ndarray, " num_graphs"] | None) -> None:
        self.table = table
        self._store = store
        self._rows = rows
        self._part = table["part"].to_numpy()
        self._offset = table["offset"].to_numpy()
        self._length = table["length"].to_numpy()
        template = table["template"].unify_dictionaries().combine_chunks()
        self._template, self._digests = template.indices.to_numpy(), template.dictionary.to_pylist()

    @property
    def files(self) -> CheckedFiles:
        """Where the dataset lies, its manifest, and its files, each compared with the manifest."""
        return self._store.files

    @property
    def templates(self) -> Templates:
        """Every template of the dataset by its digest, read when it is asked for; the same for every selection."""
        return self._store.templates

    @property
    def made_of(self) -> dict[str, Any]:
        """What the dataset was made from and how: ``sources``, ``seed``, ``floats_per_part``, ``splits``, ``dtype``."""
        manifest, sources = self.files.manifest, {}
        for addition in manifest.additions:
            sources |= addition.made_of.get("sources", {})
        return {"sources": sources, **manifest.options, "dtype": manifest.dtype}

    @property
    def left_out(self) -> pa.Table:
        """What additions did not take though it was there: ``graph_id``, ``reason``, ``detail``."""
        tables = [LEFT_OUT_COLUMNS.empty_table()]
        for number, addition in enumerate(self.files.manifest.additions):
            if addition.num_left_out:
                name = left_out_file(number)
                content = self.files.read(name)
                tables.append(read_parquet(self.files.root / name, content, LEFT_OUT_COLUMNS, addition.num_left_out))
        return pa.concat_tables(tables)

    def __repr__(self) -> str:
        """Where it lies and how much is chosen of it."""
        return f"GraphDataset({self.files.root}, {len(self):,} of {self.files.manifest.num_graphs:,} graphs)"

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> ParameterGraph:
        row = range(len(self))[operator.index(index)]
        offset, length = int(self._offset[row]), int(self._length[row])
        values = self.read_part(int(self._part[row]))[offset : offset + length].copy()
        template = self.templates[self._digests[self._template[row]]]
        try:
            return template.graph(values)
        except ValueError as error:
            raise ValueError(f"{self.files.root}: graph {self.table['graph_id'][row]}: {error}") from error

    def __iter__(self) -> Iterator[ParameterGraph]:
        return map(self.__getitem__, range(len(self)))

    def split(self, name: str, column: str = "split") -> "GraphDataset":
        """The graphs whose row has ``name`` in ``column``.

        Raises:
            ValueError: there is no such column of names, or no graph with that name.
        """
        if column not in self.table.column_names or self.table.schema.field(column).type != pa.string():
            names = [field.name for field in self.table.schema if field.name.startswith("split")]
            raise ValueError(f"{self.files.root}: no column {column!r} to split by; expected one of {', '.join(names)}")
        rows = np.flatnonzero(self.table[column].to_numpy() == name)
        if len(rows) == 0:
            found = {str(row["values"]): row["counts"] for row in self.table[column].value_counts().to_pylist()}
            raise ValueError(f"{self.files.root}: {column} {name!r} has no graphs; found {found}")
        return self.select(rows)

    def filter(self, expression: pc.Expression) -> "GraphDataset":
        """The graphs whose row an expression holds for: ``dataset.filter(pc.field("test_accuracy") > 0.5)``.

        Raises:
            ValueError: it names no column of the table, gives no truth values, or holds for no graph.
        """
        if not isinstance(expression, pc.Expression):
            raise ValueError(
                f"found {expression!r}; expected an expression of pyarrow, such as "
                "pyarrow.compute.field('test_accuracy') > 0.5"
            )
        try:
            rows = where(self.table, expression)
        except (pa.ArrowException, KeyError) as error:
            reason = " ".join(f"cannot filter by {expression}: {error}".split())
            raise ValueError(f"{self.files.root}: {reason}") from error
        if len(rows) == 0:
            raise ValueError(f"{self.files.root}: {expression} holds for none of {len(self)} graphs")
        return self.select(rows)

    def select(self, rows: Int64[np.ndarray, " num_chosen"]) -> "GraphDataset":
        """The graphs of these rows of the table, in this order.

        Raises:
            IndexError: a row is not there.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise ValueError(
                f"rows are {rows.dtype} of shape {rows.shape}; expected numbers of rows (np.flatnonzero of a mask)"
            )
        rows = rows.astype(np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are asked for; the dataset has {len(self)} graphs")
        whole = rows if self._rows is None else self._rows[rows]
        return GraphDataset(self._store, self.table.take(rows), whole)

    def stream(
        self, *, seed: int = 0, epoch: int = 0, parts_per_window: int = 4, rank: int = 0, num_ranks: int = 1
    ) -> "GraphStream":
        """All graphs once, shuffled within windows of parts; see `pipeline.graph_stream.GraphStream`."""
        from pipeline.graph_stream import GraphStream

        parts = self._store.parts
        if isinstance(parts, PartStore) and parts_per_window > parts.parts_in_memory:
            raise ValueError(
                f"parts_per_window is {parts_per_window}, and {parts.parts_in_memory} parts stay in memory; expected "
                "at most as many, or open_graphs(path, parts_in_memory=...) with more"
            )
        return GraphStream(
            self, seed=seed, epoch=epoch, parts_per_window=parts_per_window, rank=rank, num_ranks=num_ranks
        )

    def materialise(self, folder: str | os.PathLike[str]) -> "GraphDataset":
        """The same graphs, their values read from a local memory-mapped copy, which is made if it is not there.

        The copy is of the whole dataset, float32, 4 bytes a value; any selection of any process may use it.

        Raises:
            ValueError: the folder holds something else, or the copy of another dataset.
        """
        flat = local_copy(self.files.manifest, self._store.parts.read_part, folder)
        return GraphDataset(self._store.reading(flat), self.table, self._rows)

    def read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        """The values of a part, decoded and read-only; the last few parts stay in memory.

        Raises:
            ValueError: a file of the part is missing or altered.
        """
        return self._store.parts.read_part(part)

    def __reduce__(self) -> tuple[Any, ...]:
        flat = str(self._store.parts.folder) if isinstance(self._store.parts, LocalCopy) else None
        root = self.files.root
        where_it_lies = str(root.absolute()) if "://" not in str(root) else str(root)
        state = (where_it_lies, self._store.parts.parts_in_memory, self.files.manifest.digest, self._rows, flat)
        return reopen_graphs, state


def reopen_graphs(
    path: str, parts_in_memory: int, digest: str, rows: Int64[np.ndarray, " num_graphs"] | None, flat: str | None
) -> GraphDataset:
    """What unpickling a dataset does: open it in this process, and make sure that it is still the same one."""
    dataset = open_graphs(path, parts_in_memory)
    if dataset.files.manifest.digest != digest:
        raise ValueError(f"{path}: the dataset was replaced while it was in use; start again")
    if flat is not None:
        dataset = dataset.materialise(flat)
    return dataset if rows is None else dataset.select(rows)


class DatasetStore:
    """What all views of an open dataset share: its checked files, its templates, and where values are read."""

    def __init__(self, files: CheckedFiles, table_of: Mapping[str, int], parts: ValueParts) -> None:
        self.files = files
        self.templates = Templates(files, table_of)
        self.parts = parts

    def reading(self, parts: ValueParts) -> "DatasetStore":
        """The same, with values from elsewhere."""
        store = copy(self)
        store.parts = parts
        return store


class PartStore:
    """Parts decoded from the dataset's arrays, the last few of them kept."""

    def __init__(self, files: CheckedFiles, parts_in_memory: int) -> None:
        self.parts_in_memory = parts_in_memory
        self._files = files
        self.read_part = lru_cache(parts_in_memory)(self._read_part)

    def _read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        manifest, folder = self._files.manifest, f"values/{five_digits(part)}/"
        num_values = manifest.parts[part].num_values
        contents = {name.removeprefix(folder): self._files.read(name) for name in part_files(part, num_values)}
        values = decode_values(self._files.root / folder, contents, num_values, manifest.dtype)
        values.flags.writeable = False
        return values


def read_tables(files: CheckedFiles) -> tuple[pa.Table, dict[str, int]]:
    """All tables as one, and for each template the table it is stored with: the first that needs it.

    Columns that only later additions have are null before.

    Raises:
        ValueError: a table is missing, altered, or does not fit the manifest.
    """
    tables: list[pa.Table] = []
    table_of: dict[str, int] = {}
    for number, record in enumerate(files.manifest.tables):
        table = without_repetition(read_table(files, number))
        needed = [digest for digest in table["template"].unique().to_pylist() if digest not in table_of]
        if len(needed) != record.num_templates:
            raise ValueError(
                f"{files.root / table_file(number)}: {len(needed)} templates are first needed here; the manifest says "
                f"{record.num_templates}"
            )
        table_of |= dict.fromkeys(needed, number)
        tables.append(table)
    try:
        return pa.concat_tables(tables, promote_options="default").unify_dictionaries(), table_of
    except pa.ArrowException as error:
        raise ValueError(f"{files.root}: the tables have columns of different types: {error}") from error


def read_table(files: CheckedFiles, number: int) -> pa.Table:
    """One table, its rows where the manifest has its parts."""
    parts = files.manifest.parts_of(number)
    records = files.manifest.parts[parts.start : parts.stop]
    path, counts = files.root / table_file(number), [record.num_graphs for record in records]
    table = read_parquet(path, files.read(table_file(number)), GRAPH_COLUMNS, sum(counts))
    for field in table.schema:
        if field.name.startswith("split") and field.type != pa.string():
            raise ValueError(f"{path}: column {field.name} is {field.type}; expected string, as of every split")
    part, offset, length = (table[name].to_numpy() for name in ("part", "offset", "length"))
    expected = np.repeat(np.arange(parts.start, parts.stop), counts)
    num_values = np.array([record.num_values for record in records], dtype=np.int64)
    end = np.cumsum(np.clip(length, 0, num_values.max()))  # clipped, so that no sum overflows
    before = np.cumsum([0, *counts[:-1]])
    end -= np.repeat(np.concatenate([[0], end[before[1:] - 1]]), counts)
    wrong = (part != expected) | (length < 1) | (offset != end - length) | (end > np.repeat(num_values, counts))
    for row in np.flatnonzero(wrong)[:1].tolist():
        raise ValueError(
            f"{path}: row {row}: part {part[row]}, offset {offset[row]}, length {length[row]}; expected part "
            f"{expected[row]}, and graphs one after another within {num_values[expected[row] - parts.start]} values"
        )
    last = before + np.array(counts) - 1
    for place_in_table in np.flatnonzero(end[last] != num_values)[:1].tolist():
        raise ValueError(
            f"{path}: the graphs of part {parts.start + place_in_table} have {end[last[place_in_table]]} values; the "
            f"manifest says {num_values[place_in_table]}"
        )
    return table
