"""The parameter-graph dataset on disk: format "metazoo-graphs" version 1, specified in docs/stores.md.

    dataset = open_graphs("runs/digits/graphs.zarr")
    graph = dataset.split("train")[0]

Reads   the manifest and the tables when a dataset is opened; values and templates when they are asked for
Writes  nothing: `encode_values` gives the files of an array, `pipeline.build_graphs` writes them

Values are never read graph by graph: a part is decoded whole and kept among the last few. What comes from the disk is
checked here: files against the manifest, tables against the lengths of the arrays, arrays against the format.
"""

import json
import operator
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from jaxtyping import Float32
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from pipeline.dataset_manifest import (
    CHUNK_FLOATS,
    SHARD_FLOATS,
    CheckedFiles,
    part_files,
    part_name,
    read_group,
    read_manifest,
)
from pipeline.dataset_tables import GRAPH_COLUMNS, TEMPLATE_COLUMNS, read_parquet
from pipeline.parameter_graph import GraphTemplate, ParameterGraph
from pipeline.parquet_files import equal
from pipeline.template_document import read_document

TEMPLATES_IN_MEMORY = 256


def open_graphs(path: Path | str, parts_in_memory: int = 8) -> "GraphDataset":
    """The dataset at ``path``, without its values: only the manifest and the tables are read.

    Args:
        path: the dataset's folder.
        parts_in_memory: decoded parts that are kept, at most; 16 MiB each at the default size of a part.

    Raises:
        ValueError: no dataset is there, or a file is missing, altered or of another version.
    """
    store = PartStore(Path(path), parts_in_memory)
    return GraphDataset(store, store.read_tables(), selections=())


class GraphDataset:
    """Parameter graphs, in the order of the table. Pickling it takes its path along, not its data."""

    table: pa.Table
    """One row per graph; `GRAPH_COLUMNS` and the configuration of its run."""

    def __init__(self, store: "PartStore", table: pa.Table, selections: tuple[tuple[str, str], ...]) -> None:
        self.table = table
        self._store = store
        self._selections = selections
        self._part = table["part"].to_numpy()
        self._offset = table["offset"].to_numpy()
        self._length = table["length"].to_numpy()

    @property
    def files(self) -> CheckedFiles:
        """Where the dataset lies, its manifest, and its files, each compared with the manifest."""
        return self._store.files

    @property
    def made_of(self) -> dict[str, Any]:
        """The attributes of its zarr.json: the zoos and options it was made from."""
        return read_group(self.files.root / "zarr.json", self.files.read("zarr.json"))

    @property
    def templates(self) -> "Templates":
        """Every template of the dataset by its digest, read when it is asked for; the same for every split."""
        return self._store.templates

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> ParameterGraph:
        row = range(len(self))[operator.index(index)]
        offset, length = int(self._offset[row]), int(self._length[row])
        values = self.read_part(int(self._part[row]))[offset : offset + length].copy()
        template = self.templates[self.table["template"][row].as_py()]
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
        chosen = self.table.filter(equal(self.table[column], name))
        if chosen.num_rows == 0:
            found = {str(row["values"]): row["counts"] for row in self.table[column].value_counts().to_pylist()}
            raise ValueError(f"{self.files.root}: {column} {name!r} has no graphs; found {found}")
        return GraphDataset(self._store, chosen, (*self._selections, (name, column)))

    def read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        """The values of a part, decoded and read-only; the last few parts stay in memory.

        Raises:
            ValueError: a file of the part is missing or altered.
        """
        return self._store.read_part(part)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_graphs, (
            self.files.root.absolute(),
            self._store.parts_in_memory,
            self.files.manifest.digest,
            self._selections,
        )


def reopen_graphs(
    path: Path, parts_in_memory: int, digest: str, selections: tuple[tuple[str, str], ...]
) -> GraphDataset:
    """What unpickling a dataset does: open it in this process, and make sure that it is still the same one."""
    dataset = open_graphs(path, parts_in_memory)
    if dataset.files.manifest.digest != digest:
        raise ValueError(f"{path}: the dataset was replaced while it was in use; start again")
    for name, column in selections:
        dataset = dataset.split(name, column)
    return dataset


class PartStore:
    """What all views of an open dataset share: its checked files and the parts in memory."""

    def __init__(self, root: Path, parts_in_memory: int) -> None:
        self.parts_in_memory = parts_in_memory
        self.files = CheckedFiles(root, read_manifest(root))
        self.templates = Templates(self)
        self.read_part = lru_cache(parts_in_memory)(self._read_part)

    def read_tables(self) -> pa.Table:
        """The tables of all parts as one; also tells the templates which part has which."""
        tables = [self._read_table(part) for part in range(len(self.files.manifest.parts))]
        try:
            table = pa.concat_tables(tables)
        except pa.ArrowException as error:
            raise ValueError(f"{self.files.root}: the tables have different columns: {error}") from error
        for part, rows in enumerate(tables):
            needed = [
                digest for digest in rows["template"].unique().to_pylist() if digest not in self.templates.part_of
            ]
            if len(needed) != (count := self.files.manifest.parts[part].num_templates):
                path = self.files.root / f"tables/{part_name(part)}.parquet"
                raise ValueError(f"{path}: {len(needed)} templates are first needed here; the manifest says {count}")
            self.templates.part_of.update(dict.fromkeys(needed, part))
        return table

    def _read_part(self, part: int) -> Float32[np.ndarray, " num_values"]:
        name, num_values = part_name(part), self.files.manifest.parts[part].num_values
        folder = f"values/{name}/"
        contents = {
            file.removeprefix(folder): self.files.read(file)
            for file in part_files(part, self.files.manifest.parts[part])
            if file.startswith(folder)
        }
        values = decode_values(self.files.root / folder, contents, num_values)
        values.flags.writeable = False
        return values

    def _read_table(self, part: int) -> pa.Table:
        name = f"tables/{part_name(part)}.parquet"
        path, record = self.files.root / name, self.files.manifest.parts[part]
        table = read_parquet(path, self.files.read(name), GRAPH_COLUMNS, record.num_graphs)
        offset, length = table["offset"].to_numpy(), table["length"].to_numpy()
        end = np.cumsum(length)
        wrong = (table["part"].to_numpy() != part) | (length < 1) | (offset != end - length) | (end > record.num_values)
        for row in np.flatnonzero(wrong)[:1].tolist():
            raise ValueError(
                f"{path}: row {row}: part {table['part'][row]}, offset {offset[row]}, length {length[row]}; expected "
                f"part {part}, and graphs one after another within {record.num_values} values"
            )
        if end[-1] != record.num_values:
            raise ValueError(f"{path}: its graphs have {end[-1]} values; the manifest says {record.num_values}")
        return table


class Templates(Mapping[str, GraphTemplate]):
    """Templates by digest. Each is stored with the first part that needs it; the last few that were read are kept."""

    def __init__(self, store: PartStore) -> None:
        self.part_of: dict[str, int] = {}
        self._store = store
        self._read = lru_cache(TEMPLATES_IN_MEMORY)(self._read_template)

    def __getitem__(self, digest: str) -> GraphTemplate:
        return self._read(digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self.part_of)

    def __len__(self) -> int:
        return len(self.part_of)

    def _read_template(self, digest: str) -> GraphTemplate:
        part, files = self.part_of[digest], self._store.files
        name = f"templates/{part_name(part)}.parquet"
        num_templates = files.manifest.parts[part].num_templates
        rows = read_parquet(files.root / name, files.read(name), TEMPLATE_COLUMNS, num_templates)
        if (row := rows["template"].index(digest).as_py()) < 0:
            raise ValueError(
                f"{files.root / name}: template {digest} is not there; part {part} is the first to need it"
            )
        try:
            template = read_document(rows["document"][row].as_py())
        except ValueError as error:
            raise ValueError(f"{files.root / name}: template {digest}: {error}") from error
        if template.digest != digest:
            raise ValueError(f"{files.root / name}: template {digest}: this is not the digest of its text")
        return template


def encode_values(values: Float32[np.ndarray, " num_values"]) -> dict[str, bytes]:
    """The files of a zarr array of these values, by their paths in its folder."""
    store: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(store),
        shape=values.shape,
        dtype="float32",
        chunks=(CHUNK_FLOATS,),
        shards=(SHARD_FLOATS,),
        compressors=[BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        filters=None,
        fill_value=np.nan,
    )
    array[:] = values
    return {name: content.to_bytes() for name, content in store.items()}


def decode_values(folder: Path, contents: Mapping[str, bytes], num_values: int) -> Float32[np.ndarray, " num_values"]:
    """The inverse of `encode_values`; ``folder`` is where the files came from.

    Raises:
        ValueError: the array is not of the format, or has another length.
    """
    expected = array_document(num_values)
    try:
        document = json.loads(contents["zarr.json"])
        found = {name: document.get(name) for name in expected}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'zarr.json'}: not the description of an array: {error}") from error
    for name in expected:
        if found[name] != expected[name]:
            raise ValueError(f"{folder / 'zarr.json'}: {name} is {found[name]}; the format has {expected[name]}")
    store = MemoryStore({name: cpu.Buffer.from_bytes(content) for name, content in contents.items()}, read_only=True)
    try:
        return np.asarray(zarr.open_array(store, mode="r")[:])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: cannot be decoded: {error}") from error


def array_document(num_values: int) -> dict[str, Any]:
    """What the zarr.json of a part's array must say."""
    little, checksum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    blosc = {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    sharding = {
        "chunk_shape": [CHUNK_FLOATS],
        "codecs": [little, {"name": "blosc", "configuration": blosc}, checksum],
        "index_codecs": [little, checksum],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [num_values],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD_FLOATS]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
