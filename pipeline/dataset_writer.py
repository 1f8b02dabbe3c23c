"""Write an addition to a dataset, or go on writing it: parts as Ray tasks, then tables, then the manifest.

Reads   what was written of it before
Writes  the files of a dataset (docs/stores.md), and beside them ``.building``

The plan decides every byte, and tasks carry it out in any order. A task writes the files of its part, each whole or not
at all, and then a record of them. The manifest comes last and makes them a dataset, or part of one; then the records
go. What is there is never written again: until the manifest is replaced, a reader has the dataset as it was.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.dataset_manifest import (
    GROUPS,
    MANIFEST,
    Addition,
    Manifest,
    canonical_json,
    left_out_file,
    part_files,
    table_file,
    templates_file,
)
from pipeline.dataset_tables import TEMPLATE_COLUMNS, parquet_bytes
from pipeline.file_records import FileRecord
from pipeline.graph_plan import DatasetPlan, DatasetSpec, PartPlan, TablePlan
from pipeline.graph_source import ValueFile, read_spans, values_sha256
from pipeline.places import Place, files_below, is_local, make_folder, remove_folder
from pipeline.progress import progress_bar
from pipeline.value_arrays import encode_values
from pipeline.whole_files import leftovers, synchronise, write_file

BUILDING = ".building"
"""Folder in a dataset that is being written: the lock, what is being written, and a record of every finished part."""
FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is being written: known before anything is read, so that a second try is known to be the same one."""

    base: Manifest | None
    """Of the dataset that is added to; none where one is made."""
    spec: DatasetSpec
    made_of: dict[str, Any]
    """As in `Addition`."""

    def document(self) -> dict[str, Any]:
        """As it lies in ``.building``."""
        base = self.base.digest if self.base is not None else None
        return {"base": base, "dtype": self.spec.dtype, "options": self.spec.options(), "made_of": self.made_of}


def unfinished(out: Place) -> dict[str, Any] | None:
    """What was being written when the last writer ended; none if all is finished or nothing begun.

    Raises:
        ValueError: its description is damaged.
    """
    file = out / BUILDING / "addition.json"
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_bytes())
        if set(document) != {"base", "dtype", "options", "made_of"}:
            raise ValueError("other keys than expected")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error}); delete {file.parent} and begin again") from error
    return document


@contextmanager
def one_writer(out: Place) -> Iterator[None]:
    """Inside, no other process on this machine writes the dataset. The lock ends with the process, however it ends. An
    object store has no locks.

    Raises:
        ValueError: another process is writing.
    """
    if not is_local(out):
        yield
        return
    folder = out / BUILDING
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{out}: another process is writing this dataset; wait until it is done, or end it"
            ) from error
        yield


def write_addition(out: Place, task: Task, plan: Callable[[], DatasetPlan], machine: Machine) -> None:
    """Write what a task is, or the rest of it, and then make it part of the dataset; inside `one_writer`."""
    planned = plan()  # what fails until here leaves the folder free for another dataset
    begin(out, task)
    write_parts(planned, out, machine)
    finish(planned, out, task)


def begin(out: Place, task: Task) -> None:
    """Say what is being written, and make the folder a zarr group."""
    make_folder(out / BUILDING)
    write_once(out / BUILDING / "addition.json", canonical_json(task.document()).encode())
    make_folder(out / "values")
    for name, content in GROUPS.items():
        write_once(out / name, content)


def write_parts(plan: DatasetPlan, out: Place, machine: Machine) -> None:
    """Write the parts that are not written yet, with a progress bar in graphs."""
    missing = [part for part in plan.parts if recorded_files(part, out) is None]
    num_left = sum(len(part.graph_id) for part in missing)
    if not missing:
        return
    shared = (out.resolve() if is_local(out) else out, plan.files)
    with cluster(machine), progress_bar("writing", "graphs", plan.num_graphs, plan.num_graphs - num_left) as bar:
        for _, num_graphs in run_tasks(write_part, missing, shared, machine, noun="part"):
            bar.update(num_graphs)


def write_part(part: PartPlan, out: Place, files: Sequence[ValueFile]) -> int:
    """Write the files of a part, then a record of them; returns the number of its graphs. This is the task."""
    values = gather(part, files)
    if part.dtype == "float16":
        check_fits(part, values)
    contents = {f"values/{part}/{name}": content for name, content in encode_values(values, part.dtype).items()}
    for name, content in contents.items():
        make_folder((out / name).parent)
        write_file(out / name, content)
    record = {name: asdict(FileRecord.of(content)) for name, content in contents.items()}
    write_file(record_path(part, out), canonical_json({"plan": part.digest, "files": record}).encode())
    return len(part.graph_id)


def gather(part: PartPlan, files: Sequence[ValueFile]) -> Float32[np.ndarray, " num_values"]:
    """The values of a part's graphs, one after another.

    Raises:
        ValueError: a value is not finite, or they are not those that the plan was made of.
    """
    values = np.empty(part.record.num_values, dtype=np.float32)
    end = np.cumsum(part.length)
    for file in np.unique(part.file).tolist():
        rows = np.flatnonzero(part.file == file).tolist()
        first, last = part.file_offset[rows], part.file_offset[rows] + part.length[rows]
        graphs = read_spans(files[file], list(zip(first.tolist(), last.tolist(), strict=True)))
        for row, graph in zip(rows, graphs, strict=True):
            if not np.isfinite(graph).all():
                raise ValueError(f"graph {part.graph_id[row]}, in {files[file]}, has values that are not finite")
            if values_sha256(graph) != part.values_sha256[row]:
                raise ValueError(f"graph {part.graph_id[row]}, in {files[file]}, was altered since it was first read")
            values[end[row] - part.length[row] : end[row]] = graph
    return values


def check_fits(part: PartPlan, values: Float32[np.ndarray, " num_values"]) -> None:
    """Refuse values that float16 has no room for.

    Raises:
        ValueError: naming the first graph.
    """
    too_large = np.flatnonzero(np.abs(values) > FLOAT16_MAX)
    if len(too_large):
        row = int(np.searchsorted(np.cumsum(part.length), too_large[0], side="right"))
        raise ValueError(
            f"graph {part.graph_id[row]} has the value {values[too_large[0]]:g}, and float16 ends at {FLOAT16_MAX:g}; "
            "make the dataset with dtype float32"
        )


def record_path(part: PartPlan, out: Place) -> Place:
    return out / BUILDING / f"{part}.json"


def recorded_files(part: PartPlan, out: Place) -> dict[str, FileRecord] | None:
    """The files of a part, if it was written as it is planned now."""
    try:
        record = json.loads(record_path(part, out).read_bytes())
        files = {name: FileRecord(**file) for name, file in record["files"].items()}
        whole = all((out / name).stat().st_size == file.size for name, file in files.items())
    except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
        return None
    whole = whole and record.get("plan") == part.digest
    return files if whole and set(files) == set(part_files(part.index, part.record.num_values)) else None


def finish(plan: DatasetPlan, out: Place, task: Task) -> None:
    """Write the tables, then the manifest: with it what was written belongs to the dataset."""
    base = task.base or Manifest(
        dtype=task.spec.dtype, options=task.spec.options(), additions=(), tables=(), parts=(), files={}
    )
    files = dict(base.files) or {name: FileRecord.of(content) for name, content in GROUPS.items()}
    for part in plan.parts:
        recorded = recorded_files(part, out)
        assert recorded is not None, f"part {part} was written and has no record"
        files |= recorded
    if plan.left_out.num_rows:
        files |= write_table(out, left_out_file(len(base.additions)), plan.left_out)
    for number, table in enumerate(plan.tables, start=len(base.tables)):
        files |= write_table(out, table_file(number), table.rows)
        if table.documents:
            files |= write_table(out, templates_file(number), template_table(table))
    addition = Addition(num_tables=len(plan.tables), num_left_out=plan.left_out.num_rows, made_of=task.made_of)
    manifest = Manifest(
        dtype=base.dtype,
        options=base.options,
        additions=(*base.additions, addition),
        tables=(*base.tables, *(table.record for table in plan.tables)),
        parts=(*base.parts, *(part.record for part in plan.parts)),
        files=files,
    )
    if is_local(out):
        for folder in (out, *(path for path in out.rglob("*") if path.is_dir())):
            synchronise(folder)
    write_file(out / MANIFEST, manifest.text().encode())


def template_table(table: TablePlan) -> pa.Table:
    """The texts of the templates that lie with a table."""
    return pa.table([list(table.documents), list(table.documents.values())], schema=TEMPLATE_COLUMNS)


def write_table(out: Place, name: str, table: pa.Table) -> dict[str, FileRecord]:
    """Write a table, unless it is there as it should be, and give its record."""
    content = parquet_bytes(table)
    make_folder((out / name).parent)
    write_once(out / name, content)
    return {name: FileRecord.of(content)}


def write_once(path: Place, content: bytes) -> None:
    """Write a file that has this content or is not there; another content is left by a version of before."""
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)


def tidy(out: Place) -> None:
    """Remove what a finished dataset does not need: records, the lock, and what killed writers left."""
    if is_local(out):
        for folder in (out, *(path for path in out.rglob("*") if path.is_dir())):
            for leftover in leftovers(folder):
                leftover.path.unlink(missing_ok=True)
    remove_folder(out / BUILDING)


def strangers(out: Place) -> list[str]:
    """What lies in a folder that is no dataset, and is not left by a writer of one."""
    if is_local(out):
        ours = {out / BUILDING, *(leftover.path for leftover in leftovers(out))}
        return sorted(entry.name for entry in out.glob("*") if entry not in ours)
    return sorted(name for name in files_below(out) if not name.startswith(f"{BUILDING}{os.sep}"))
