"""Which graphs a dataset has, in which order and in which part: a pure function of zoos' rows and a specification.

Reads   nothing: rows and templates come from `pipeline.graph_sources`
Writes  nothing: `pipeline.build_graphs` carries the plan out

Order and splits are decided by hashes of names, not by a random generator: they are the same in every language and with
every version of every library, whatever else is in the dataset.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.dataset_manifest import SHARD_FLOATS, PartRecord, part_name
from pipeline.dataset_tables import GRAPH_COLUMNS
from pipeline.graph_sources import ZooRows
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import write_document
from pipeline.zoo_rows import INR_COLUMNS


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How units are split: by a hash of the unit's name, so that further units never move those that are there."""

    salt: str = "split"
    """Another salt gives another, independent split."""
    train: float = 0.7
    """Fraction of units for training, on average: each unit falls by itself."""
    val: float = 0.15
    """Fraction of units for validation; the rest, 1 - train - val, is for testing."""

    def __post_init__(self) -> None:
        if not (self.train >= 0 and self.val >= 0 and self.train + self.val <= 1):
            raise ValueError(f"split: train is {self.train}, val is {self.val}; expected fractions, together at most 1")

    def of(self, unit: str) -> str:
        """The split of a unit: ``train``, ``val`` or ``test``."""
        digest = hashlib.sha256(f"{self.salt}/{unit}".encode()).digest()
        fraction = int.from_bytes(digest[:6], "big") / 2**48  # exact in float64
        if fraction < self.train:
            return "train"
        return "val" if fraction < self.train + self.val else "test"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a dataset is besides its zoos: everything that decides its bytes, nothing about machines."""

    seed: int = 0
    """Of the order of the graphs."""
    floats_per_part: int = SHARD_FLOATS
    """A part ends before the graph that would make it longer than this; a longer graph has a part of its own."""
    split: SplitRule = SplitRule()
    """Which runs are for training, validation and testing."""

    def __post_init__(self) -> None:
        if self.floats_per_part < 1:
            raise ValueError(f"floats_per_part is {self.floats_per_part}; expected at least 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class PartPlan:
    """One part, and where its values come from."""

    index: int
    table: pa.Table
    """As it will be written: one row per graph."""
    documents: Mapping[str, str]
    """The text of every template that no earlier part needs, by digest."""
    chunk: Int64[np.ndarray, " num_graphs"]
    """Which chunk holds the values of each graph: an index into `DatasetPlan.chunks`."""
    chunk_offset: Int64[np.ndarray, " num_graphs"]
    """Where they start in it."""

    def __str__(self) -> str:
        return part_name(self.index)

    @property
    def record(self) -> PartRecord:
        """What the manifest says of it."""
        num_values = int(self.table["length"].to_numpy().sum())
        return PartRecord(num_graphs=self.table.num_rows, num_values=num_values, num_templates=len(self.documents))


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetPlan:
    """A whole dataset before it is written."""

    parts: tuple[PartPlan, ...]
    chunks: tuple[Path, ...]
    """The values.npy of every chunk of every zoo."""
    num_diverged: int
    """Rows of the zoos that were left out."""

    @property
    def num_graphs(self) -> int:
        return sum(part.table.num_rows for part in self.parts)


def plan_dataset(rows: ZooRows, templates: Mapping[str, GraphTemplate], spec: DatasetSpec) -> DatasetPlan:
    """The dataset of these rows; ``templates`` has one for every architecture document."""
    ordered = rows.table.take(shuffled(graph_ids(rows.table), spec.seed))
    part, offset = place(ordered["length"].to_numpy(), spec.floats_per_part)
    table = graph_table(ordered, part, offset, templates, spec.split)
    documents = {template.digest: write_document(template) for template in templates.values()}
    ends = np.append(np.flatnonzero(np.diff(part)) + 1, len(part)).tolist()
    parts: list[PartPlan] = []
    for start, end in zip([0, *ends], ends, strict=False):
        needed = table["template"][start:end].unique().to_pylist()
        plan = PartPlan(
            index=len(parts),
            table=table.take(np.arange(start, end)),  # a slice would take the whole table along to its task
            documents={digest: documents.pop(digest) for digest in needed if digest in documents},
            chunk=ordered["chunk"].to_numpy()[start:end],
            chunk_offset=ordered["offset"].to_numpy()[start:end],
        )
        parts.append(plan)
    return DatasetPlan(parts=tuple(parts), chunks=rows.chunks, num_diverged=rows.num_diverged)


def graph_table(
    rows: pa.Table,
    part: Int64[np.ndarray, " num_graphs"],
    offset: Int64[np.ndarray, " num_graphs"],
    templates: Mapping[str, GraphTemplate],
    split: SplitRule,
) -> pa.Table:
    """The columns of the dataset for the rows of zoos, in the rows' order."""
    split_of = {unit: split.of(unit) for unit in rows["unit"].unique().to_pylist()}
    made = {
        "graph_id": graph_ids(rows),
        "template": [templates[architecture].digest for architecture in rows["architecture"].to_pylist()],
        "part": part.astype(np.int32),
        "offset": offset,
        "split": [split_of[unit] for unit in rows["unit"].to_pylist()],
    }
    further = [field for field in rows.schema if field.name.startswith("config.") or field.name in INR_COLUMNS]
    schema = pa.schema([*GRAPH_COLUMNS, *further])
    return pa.table({name: made[name] if name in made else rows[name] for name in schema.names}, schema=schema)


def graph_ids(rows: pa.Table) -> list[str]:
    """``<run id>@<epoch>``: one checkpoint of one run."""
    return [f"{run}@{epoch}" for run, epoch in zip(rows["run_id"].to_pylist(), rows["epoch"].to_pylist(), strict=True)]


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
