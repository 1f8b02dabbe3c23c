"""The manifest of a parameter-graph dataset: what belongs to it, and how its files are called.

Reads   nothing: `pipeline.checked_files` reads manifests
Writes  nothing: `pipeline.dataset_writer` writes `Manifest.text`, last, by one rename

Additions have tables, tables have the rows of parts; from their counts follows which files there are. docs/stores.md
specifies all of this.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from pipeline.file_records import FileRecord, sha256

FORMAT = "metazoo-graphs"
VERSION = 1
MANIFEST = "manifest.json"

CHUNK_FLOATS = 2**18
"""Floats that are compressed together."""
SHARD_FLOATS = 2**22
"""Floats in one file."""
MAX_PARTS = 100_000
"""The names of parts have five digits."""
Dtype = Literal["float32", "float16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16")


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """Counts of one part; from them follows which files it has."""

    num_graphs: int
    num_values: int
    """Floats in its array; at least one a graph."""


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """Counts of one table: the rows of some parts, one after another."""

    num_parts: int
    num_templates: int
    """Templates stored with this table: those no earlier table needed."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What one command put into a dataset: the one that made it, or one that appended to it."""

    num_tables: int
    num_left_out: int
    """Graphs that were there to be taken and are not in the dataset."""
    made_of: Mapping[str, Any]
    """``sources``, a digest of each zoo or folder by its name, and ``selection``, what was asked of them."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a dataset consists of."""

    dtype: Dtype
    """Of the values as they are stored."""
    options: Mapping[str, Any]
    """What holds for all additions: ``seed``, ``floats_per_part``, and ``splits``, the rule of each split column."""
    additions: tuple[Addition, ...]
    tables: tuple[TableRecord, ...]
    """Numbered from 0, through all additions."""
    parts: tuple[PartRecord, ...]
    """Numbered from 0, through all tables."""
    files: Mapping[str, FileRecord]
    """Every other file, by its path relative to the dataset, with ``/`` between folders."""

    @property
    def num_graphs(self) -> int:
        return sum(part.num_graphs for part in self.parts)

    @property
    def num_left_out(self) -> int:
        return sum(addition.num_left_out for addition in self.additions)

    @property
    def num_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(record.size for record in self.files.values())

    def parts_of(self, table: int) -> range:
        """The parts whose rows a table has."""
        first = sum(record.num_parts for record in self.tables[:table])
        return range(first, first + self.tables[table].num_parts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the manifest without its digest: the identity of the dataset."""
        return sha256(canonical_json(self._document()).encode())

    def text(self) -> str:
        """What manifest.json contains."""
        return canonical_json(self._document() | {"digest": self.digest})

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self.dtype,
            "options": self.options,
            "additions": [asdict(addition) for addition in self.additions],
            "tables": [asdict(table) for table in self.tables],
            "parts": [asdict(part) for part in self.parts],
            "files": {name: asdict(record) for name, record in self.files.items()},
        }


def five_digits(number: int) -> str:
    """The name of a part, a table or an addition: ``00042``."""
    return f"{number:05d}"


def table_file(table: int) -> str:
    return f"tables/{five_digits(table)}.parquet"


def templates_file(table: int) -> str:
    return f"templates/{five_digits(table)}.parquet"


def left_out_file(addition: int) -> str:
    return f"left_out/{five_digits(addition)}.parquet"


def part_files(part: int, num_values: int) -> Iterator[str]:
    """The files of a part's array."""
    yield f"values/{five_digits(part)}/zarr.json"
    for shard in range(-(-num_values // SHARD_FLOATS)):
        yield f"values/{five_digits(part)}/c/{shard}"


def files_of(manifest: Manifest) -> Iterator[str]:
    """All files but the manifest: they follow from its counts."""
    yield from GROUPS
    for number, addition in enumerate(manifest.additions):
        if addition.num_left_out:
            yield left_out_file(number)
    for number, table in enumerate(manifest.tables):
        yield table_file(number)
        if table.num_templates:
            yield templates_file(number)
    for number, part in enumerate(manifest.parts):
        yield from part_files(number, part.num_values)


def canonical_json(document: dict[str, Any]) -> str:
    """JSON with sorted keys, no spaces, ASCII only: one text for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


GROUPS = {
    "zarr.json": canonical_json(
        {"attributes": {"format": FORMAT, "version": VERSION}, "node_type": "group", "zarr_format": 3}
    ).encode(),
    "values/zarr.json": canonical_json({"attributes": {}, "node_type": "group", "zarr_format": 3}).encode(),
}
"""The files that make the dataset and its values zarr groups: the same in all datasets."""
