"""Which graphs a dataset has, in which order and in which part: a pure function of a source and a specification.

Reads   nothing: rows and templates come from a `GraphSource`
Writes  nothing: `pipeline.build_graphs` carries the plan out

The order is decided by hashes of names, as splits are (pipeline.split_rules): whatever else is in the dataset.
"""

import hashlib
import operator
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.dataset_manifest import SHARD_FLOATS, Dtype, PartRecord, TableRecord, five_digits
from pipeline.dataset_tables import GRAPH_COLUMNS, LEFT_OUT_COLUMNS
from pipeline.file_records import sha256
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, ValueFile
from pipeline.split_rules import SplitRule, check_names
from pipeline.template_document import read_document
from pipeline.template_sizes import depth, width

ROWS_PER_TABLE = 2**16
"""A table ends before the part that would make it longer; a longer part has a table of its own."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a dataset is, besides what goes into it; it holds for what is appended too."""

    seed: int = 0
    """Decides the order of the graphs."""
    floats_per_part: int = SHARD_FLOATS
    """A part ends before the graph that would make it longer than this; a longer graph has a part of its own."""
    dtype: Dtype = "float32"
    """Of the values on disk. float16 halves the size and rounds: relative error up to 2^-11 for values from 6.1e-5 to
    65,504, which none may exceed; smaller ones lose more. They are read back as float32."""
    split: SplitRule = field(default_factory=SplitRule)
    """The rule of the column ``split``."""
    further_splits: dict[str, SplitRule] = field(default_factory=dict)
    """Rules of further columns, by their names, which begin with ``split_``."""

    def __post_init__(self) -> None:
        if self.floats_per_part < 1:
            raise ValueError(f"floats_per_part is {self.floats_per_part}; expected at least 1")
        check_names(list(self.further_splits))

    @property
    def splits(self) -> dict[str, SplitRule]:
        """The rule of every split column."""
        return {"split": self.split, **self.further_splits}

    def options(self) -> dict[str, Any]:
        """As the manifest has them; its dtype stands beside."""
        splits = {name: rule.document() for name, rule in self.splits.items()}
        return {"seed": self.seed, "floats_per_part": self.floats_per_part, "splits": splits}

    @staticmethod
    def parse(dtype: Dtype, options: Mapping[str, Any]) -> "DatasetSpec":
        """The inverse of `options`.

        Raises:
            ValueError: they are not those that a dataset made by this program has.
        """
        try:
            splits = {name: SplitRule.parse(rule) for name, rule in options["splits"].items()}
            seed, floats_per_part = operator.index(options["seed"]), operator.index(options["floats_per_part"])
            split = splits.pop("split")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"its options do not say how to go on ({type(error).__name__}: {error})") from error
        return DatasetSpec(seed=seed, floats_per_part=floats_per_part, dtype=dtype, split=split, further_splits=splits)


@dataclass(frozen=True, kw_only=True, eq=False)
class PartPlan:
    """One part, and where its values come from."""

    index: int
    graph_id: tuple[str, ...]
    values_sha256: tuple[str, ...]
    length: Int64[np.ndarray, " num_graphs"]
    file: Int64[np.ndarray, " num_graphs"]
    """Which file holds the values of each graph: an index into `DatasetPlan.files`."""
    file_offset: Int64[np.ndarray, " num_graphs"]
    """Where they start in it."""
    dtype: Dtype

    def __str__(self) -> str:
        return five_digits(self.index)

    @property
    def record(self) -> PartRecord:
        """What the manifest says of it."""
        return PartRecord(num_graphs=len(self.graph_id), num_values=int(self.length.sum()))

    @property
    def digest(self) -> str:
        """Of all that decides its bytes."""
        return sha256("\n".join((self.dtype, *self.graph_id, *self.values_sha256)).encode())


@dataclass(frozen=True, kw_only=True, eq=False)
class TablePlan:
    """One table, as it will be written."""

    rows: pa.Table
    documents: Mapping[str, str]
    """The text of every template that no earlier table needs, by digest."""
    num_parts: int

    @property
    def record(self) -> TableRecord:
        """What the manifest says of it."""
        return TableRecord(num_parts=self.num_parts, num_templates=len(self.documents))


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetPlan:
    """An addition to a dataset before it is written."""

    parts: tuple[PartPlan, ...]
    tables: tuple[TablePlan, ...]
    left_out: pa.Table
    """`LEFT_OUT_COLUMNS`, ordered by graph."""
    files: tuple[ValueFile, ...]

    @property
    def num_graphs(self) -> int:
        return sum(len(part.graph_id) for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Present:
    """What is in a dataset already, of which no second may be added."""

    num_parts: int = 0
    graph_ids: Container[str] = frozenset()
    templates: Container[str] = frozenset()
    graph_of: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """A graph by its template and the digest of its values."""
    sides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of every split column: the side of every unit."""
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    """The type of every column of its table."""


def plan_dataset(
    source: GraphSource,
    spec: DatasetSpec,
    duplicates: Literal["leave out", "keep"] = "leave out",
    present: Present = Present(),
) -> DatasetPlan:
    """What becomes of a source in a dataset of this specification, in which some graphs may be present.

    Raises:
        ValueError: nothing is left to put into it, a graph is there already, or a unit would change its side.
    """
    rows, left_out = source.rows, [source.left_out]
    check_ids(rows["graph_id"].to_pylist(), present)
    if duplicates == "leave out":
        rows, found = without_duplicates(rows, present)
        left_out.append(found)
    if rows.num_rows == 0:
        raise ValueError(
            f"{', '.join(source.sources)}: nothing to put into a dataset; {reasons(pa.concat_tables(left_out))}"
        )
    ordered = rows.take(shuffled(rows["graph_id"].to_pylist(), spec.seed))
    part, offset = place(ordered["length"].to_numpy(), spec.floats_per_part)
    table = graph_table(ordered, part + present.num_parts, offset, source.documents, spec.splits)
    if not present.num_parts:
        check_conditions(table, spec.splits)
    check_sides(table, present)
    check_columns(table, present)
    everything = pa.concat_tables(left_out)
    return DatasetPlan(
        parts=plan_parts(ordered, part, present.num_parts, spec.dtype),
        tables=plan_tables(table, part, source.documents, present.templates),
        left_out=everything.take(np.argsort(everything["graph_id"].to_numpy(), kind="stable")),
        files=source.files,
    )


def plan_parts(
    rows: pa.Table, part: Int64[np.ndarray, " num_graphs"], first: int, dtype: Dtype
) -> tuple[PartPlan, ...]:
    """The parts of rows that are in order; ``first`` is the number of the first part."""
    columns = {name: rows[name].to_numpy() for name in ("length", "file", "file_offset")}
    texts = {name: rows[name].to_pylist() for name in ("graph_id", "values_sha256")}
    return tuple(
        PartPlan(
            index=first + index,
            dtype=dtype,
            **{name: tuple(column[start:end]) for name, column in texts.items()},
            **{name: column[start:end] for name, column in columns.items()},
        )
        for index, (start, end) in enumerate(stretches(part))
    )


def plan_tables(
    table: pa.Table, part: Int64[np.ndarray, " num_graphs"], documents: Mapping[str, str], present: Container[str]
) -> tuple[TablePlan, ...]:
    """The tables: rows of whole parts; the text of a template that is not present lies with the first that needs it."""
    sizes = np.array([end - start for start, end in stretches(part)], dtype=np.int64)
    table_of_part, _ = place(sizes, ROWS_PER_TABLE)
    left = {digest: text for digest, text in documents.items() if digest not in present}
    tables: list[TablePlan] = []
    for start, end in stretches(table_of_part[part]):
        rows = table.slice(start, end - start)
        needed = rows["template"].unique().to_pylist()
        plan = TablePlan(
            rows=rows,
            documents={digest: left.pop(digest) for digest in needed if digest in left},
            num_parts=int(part[end - 1] - part[start]) + 1,
        )
        tables.append(plan)
    return tuple(tables)


def graph_table(
    rows: pa.Table,
    part: Int64[np.ndarray, " num_graphs"],
    offset: Int64[np.ndarray, " num_graphs"],
    documents: Mapping[str, str],
    splits: Mapping[str, SplitRule],
) -> pa.Table:
    """The columns of the dataset for the rows of a source, in the rows' order."""
    used = rows["template"].unique().to_pylist()
    templates = {digest: read_document(documents[digest]) for digest in used}
    digests = rows["template"].to_pylist()
    sizes = {digest: (width(template), depth(template)) for digest, template in templates.items()}
    made = {
        "width": [sizes[digest][0] for digest in digests],
        "depth": [sizes[digest][1] for digest in digests],
        "part": part.astype(np.int32),
        "offset": offset,
    }
    further = [field for field in rows.schema if field.name not in SOURCE_COLUMNS.names]
    if taken := [name for name in rows.schema.names if name in made or name.startswith("split")]:
        raise ValueError(f"the source has a column {taken[0]!r}, a name that datasets use themselves; rename it")
    known = pa.schema([column for column in GRAPH_COLUMNS if column.name != "split"])
    schema = pa.schema([*known, *further])
    table = pa.table({name: made[name] if name in made else rows[name] for name in schema.names}, schema=schema)
    sides = {name: pa.array(rule.sides(table), type=pa.string()) for name, rule in splits.items()}
    named = [*GRAPH_COLUMNS.names, *(name for name in splits if name != "split"), *further_names(further)]
    return pa.table({name: sides[name] if name in sides else table[name] for name in named})


def further_names(fields: Sequence[pa.Field]) -> list[str]:
    """Their names."""
    return [column.name for column in fields]


def check_ids(graph_ids: Sequence[str], present: Present) -> None:
    """Refuse a graph that is there twice.

    Raises:
        ValueError: naming the first.
    """
    if len(set(graph_ids)) < len(graph_ids):
        ordered = sorted(graph_ids)
        twice = next(this for this, following in pairwise(ordered) if this == following)
        raise ValueError(f"graph {twice} is there twice; give every run an id of its own")
    if there := next((graph_id for graph_id in graph_ids if graph_id in present.graph_ids), None):
        raise ValueError(f"graph {there} is in the dataset already; append what is not there yet")


def check_conditions(table: pa.Table, splits: Mapping[str, SplitRule]) -> None:
    """Refuse a split whose condition tells nothing apart: there would be nothing to test, or nothing to train on.

    Raises:
        ValueError: naming the split, and what is in the column.
    """
    for name, rule in splits.items():
        if rule.test is not None and len(set(rule.test.of(table).tolist())) < 2:
            column = table[rule.test.column]
            found = sorted({str(value) for value in column.unique().to_pylist()})[:5]
            raise ValueError(
                f"{name}: of {table.num_rows:,} graphs, none or all are out of distribution by {rule.test.column} "
                f"(found {', '.join(found)}{', …' if len(column.unique()) > 5 else ''}); choose another condition, or "
                "leave this split out"
            )


def check_columns(table: pa.Table, present: Present) -> None:
    """Refuse a column that the dataset has with another type: its tables could not be read as one.

    Raises:
        ValueError: naming the first.
    """
    for column in table.schema:
        there = present.columns.get(column.name, column.type)
        if column.type != there and not (pa.types.is_null(column.type) or pa.types.is_null(there)):
            raise ValueError(
                f"column {column.name} would be {column.type}, and is {there} in the dataset; make it the same "
                "type, or make a new dataset of everything"
            )


def check_sides(table: pa.Table, present: Present) -> None:
    """Refuse graphs whose unit is in the dataset, on another side: appending moves nothing.

    Raises:
        ValueError: naming the first.
    """
    units = table["unit"].to_pylist()
    for name, side_of in present.sides.items():
        for unit, side in zip(units, table[name].to_pylist(), strict=True):
            if side_of.get(unit, side) != side:
                raise ValueError(
                    f"unit {unit} would be {side!r} by {name}, and its graphs in the dataset are {side_of[unit]!r}; "
                    "make a new dataset of all of them with another rule"
                )


def without_duplicates(rows: pa.Table, present: Present) -> tuple[pa.Table, pa.Table]:
    """The rows without those of the same template and values as another, the first by graph id; and what was left
    out."""
    ids = rows["graph_id"].to_pylist()
    keys = list(zip(rows["template"].to_pylist(), rows["values_sha256"].to_pylist(), strict=True))
    first = dict(present.graph_of)
    original: dict[int, str] = {}
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        if first.setdefault(keys[row], ids[row]) != ids[row]:
            original[row] = first[keys[row]]
    kept = np.setdiff1d(np.arange(len(ids)), np.array(list(original), dtype=np.int64))
    columns = [[ids[row] for row in original], ["duplicate"] * len(original), list(original.values())]
    return rows.take(kept), pa.table(columns, schema=LEFT_OUT_COLUMNS)


def reasons(left_out: pa.Table) -> str:
    """How many were left out, and why: ``2 diverged, 1 duplicate``."""
    counts = {count["values"]: count["counts"] for count in left_out["reason"].value_counts().to_pylist()}
    return ", ".join(f"{counts[reason]:,} {reason}" for reason in sorted(counts)) or "nothing was left out"


def stretches(numbers: Int64[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Where equal numbers stand side by side: start and end of each stretch."""
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    return list(zip([0, *ends], ends, strict=False))


def shuffled(graph_ids: Sequence[str], seed: int) -> Int64[np.ndarray, " num_graphs"]:
    """The order of the graphs: by the SHA-256 of ``<seed>/<graph id>``."""
    keys = [hashlib.sha256(f"{seed}/{graph_id}".encode()).digest() for graph_id in graph_ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def place(
    lengths: Int64[np.ndarray, " num_graphs"], floats_per_part: int
) -> tuple[Int64[np.ndarray, " num_graphs"], Int64[np.ndarray, " num_graphs"]]:
    """The part and the offset in it of graphs of these lengths, one after another."""
    part, end = 0, 0
    places: list[tuple[int, int]] = []
    for length in lengths.tolist():
        if places and end + length > floats_per_part:
            part, end = part + 1, 0
        places.append((part, end))
        end += length
    parts, offsets = np.array(places, dtype=np.int64).reshape(-1, 2).T
    return parts, offsets
