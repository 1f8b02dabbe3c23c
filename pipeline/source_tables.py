"""The two tables of a `GraphSource` of other people's files, and the digest that names it.

Reads   nothing
Writes  nothing

Everything here is in the order of names, so that it does not depend on which file was read first, or where files lie.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.file_records import sha256
from pipeline.graph_source import SOURCE_COLUMNS, Reason
from pipeline.places import Place, is_local

LABELS = tuple(field.name for field in SOURCE_COLUMNS if pa.types.is_float64(field.type))
"""Losses and accuracies, NaN where they are not known."""


@dataclass(frozen=True, kw_only=True, order=True)
class LeftOut:
    """A graph that could have been there (`LEFT_OUT_COLUMNS`)."""

    graph_id: str
    reason: Reason
    detail: str


def source_rows(columns: Mapping[str, Any], further: Mapping[str, pa.Array]) -> pa.Table:
    """The rows of a source, by graph_id; labels that are not among the columns are NaN.

    Args:
        columns: those of `SOURCE_COLUMNS`; labels may be missing.
        further: columns of other names.
    """
    num_rows = len(columns["graph_id"])
    unknown = np.full(num_rows, np.nan)
    arrays = {
        field.name: pa.array(
            columns.get(field.name, unknown) if field.name in LABELS else columns[field.name], field.type
        )
        for field in SOURCE_COLUMNS
    }
    order = sorted(range(num_rows), key=arrays["graph_id"].to_pylist().__getitem__)
    return pa.table({**arrays, **further}).take(pa.array(order, pa.int64())).combine_chunks()


def left_out_rows(rows: Sequence[LeftOut]) -> pa.Table:
    """The table of what is left out, in the order of its rows."""
    lists = [vars(row) for row in sorted(rows)]
    return pa.Table.from_pylist(lists, schema=LEFT_OUT_COLUMNS)


def checkpoint_ranks(run_ids: Sequence[str], epochs: Sequence[int]) -> Int32[np.ndarray, " num_rows"]:
    """The position of each row's epoch among those of its run, from 0; epochs of a run are all different."""
    ranks = np.zeros(len(epochs), dtype=np.int32)
    seen: dict[str, int] = {}
    for row in sorted(range(len(epochs)), key=lambda row: epochs[row]):
        ranks[row] = seen.get(run_ids[row], 0)
        seen[run_ids[row]] = seen.get(run_ids[row], 0) + 1
    return ranks


def check_unique(graph_ids: Sequence[str], origins: Sequence[str]) -> None:
    """Refuse two graphs of one name; ``origins`` say where each comes from.

    Raises:
        ValueError: two have one name; both origins are in it.
    """
    first: dict[str, str] = {}
    for graph_id, origin in zip(graph_ids, origins, strict=True):
        if graph_id in first:
            raise ValueError(
                f"{first[graph_id]} and {origin} both give the graph {graph_id} (<run_id>@<epoch>); give them other "
                "runs or epochs, or choose one of them"
            )
        first[graph_id] = origin


def named_source(folder: Place, rows: pa.Table, left_out: pa.Table) -> dict[str, str]:
    """``<name of the folder>-<8 digits>`` and the digest: SHA-256 of the canonical JSON of each row, one a line, and of
    those that were left out; NaN is null."""
    lines: list[str] = []
    for table in (rows.drop_columns(["file", "file_offset"]), left_out):  # those say how we read, not what
        for row in table.to_pylist():
            known = {
                name: None if value != value else value for name, value in row.items()
            }  # NaN alone differs from itself
            lines.append(json.dumps(known, sort_keys=True, separators=(",", ":")))
    digest = sha256("\n".join(lines).encode())
    name = folder.resolve().name if is_local(folder) else folder.name
    return {f"{name or 'files'}-{digest[:8]}": digest}
