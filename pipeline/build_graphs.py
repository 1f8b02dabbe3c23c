"""Turn finished zoos into a parameter-graph dataset: a Ray job of one task per part.

    python -m pipeline graphs --zoo runs/digits/zoo --out runs/digits/graphs.zarr

Reads   the chunks of the zoos                          (pipeline.zoo_store)
Writes  the dataset, format "metazoo-graphs" version 1  (docs/stores.md)

The plan decides every byte, and tasks carry it out in any order. A task writes the files of its part, each whole or not
at all, and then a record of them. The manifest comes last and makes it a dataset; the records go. So the command may be
repeated after any failure: it goes on with the parts that have no record, and says so where there is nothing to do.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.dataset_manifest import (
    FORMAT,
    MANIFEST,
    VERSION,
    Manifest,
    canonical_json,
    group_bytes,
    part_files,
    read_group,
    read_manifest,
)
from pipeline.dataset_tables import TEMPLATE_COLUMNS, parquet_bytes
from pipeline.file_records import FileRecord
from pipeline.graph_plan import DatasetPlan, DatasetSpec, PartPlan, plan_dataset
from pipeline.graph_sources import finished_zoos, read_zoos, trace_architectures, zoo_digest
from pipeline.graph_store import encode_values, open_graphs
from pipeline.inspect_graphs import size_lines
from pipeline.progress import progress_bar
from pipeline.whole_files import leftovers, synchronise, write_file
from pipeline.zoo_store import Zoo, different_fields

UNFINISHED = ".building"
"""Folder in a dataset that is being built: the lock, and a record of every finished part."""


def graphs(
    zoo: Path | list[Path], out: Path, dataset: DatasetSpec = DatasetSpec(), machine: Machine = Machine()
) -> None:
    """Make the parameter-graph dataset of finished zoos, or finish making it.

    Args:
        zoo: the folder of a zoo, or of several: [DIR, DIR].
        out: the dataset's folder; made if it is not there, continued if it is.
        dataset: what the dataset is, besides its zoos.
        machine: what the job asks of the machines it runs on.
    """
    zoos = finished_zoos(zoo if isinstance(zoo, list) else [zoo])
    description = describe(zoos, dataset)
    check_folder(out, description)
    if (out / MANIFEST).exists() and not (out / UNFINISHED).exists():
        print(f"Nothing to do: {out} is finished; python -m pipeline verify compares every file.")
    else:
        with one_writer(out):
            check_folder(out, description)  # again: before the lock was ours, another process may have begun
            if not (out / MANIFEST).exists():
                rows = read_zoos(zoos)
                plan = plan_dataset(rows, trace_architectures(rows), dataset)
                begin(out, description)
                write_parts(plan, out, machine)
                finish(plan, out)
            tidy(out)
    print("\n".join(size_lines(open_graphs(out))))


def describe(zoos: Sequence[Zoo], spec: DatasetSpec) -> dict[str, Any]:
    """What a dataset is made of, told without reading the chunks: the attributes of its zarr.json."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "zoos": {f"{zoo.spec.name}-{zoo.spec.digest[:8]}": zoo_digest(zoo) for zoo in zoos},
        "seed": spec.seed,
        "floats_per_part": spec.floats_per_part,
        "splits": {"split": asdict(spec.split)},
    }


def check_folder(out: Path, description: dict[str, Any]) -> None:
    """Refuse to touch anything but a dataset of this very description, or a folder that is empty or not there.

    Raises:
        ValueError: something else is there, or a dataset with a damaged manifest.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; a dataset is a folder, so choose another path")
    group = out / "zarr.json"
    if not group.exists():
        ours = {out / UNFINISHED, *(leftover.path for leftover in leftovers(out))}
        if strangers := sorted(entry.name for entry in out.glob("*") if entry not in ours):
            raise ValueError(f"{out} is not empty and not a dataset (it holds {strangers[0]}); choose another folder")
        return
    found = read_group(group, group.read_bytes())
    if differences := different_fields(found, description):
        raise ValueError(
            f"{out} holds a dataset of other zoos or options; it differs in {'; '.join(differences)}. "
            "Choose another folder, or go back to those"
        )
    if (out / MANIFEST).exists():
        read_manifest(out)  # refuses a damaged one


@contextmanager
def one_writer(out: Path) -> Iterator[None]:
    """Inside, no other process on this machine writes the dataset. The lock ends with the process, however it ends.

    Raises:
        ValueError: another process is writing.
    """
    folder = out / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{out}: another process is writing this dataset; wait until it is done, or end it"
            ) from error
        yield


def begin(out: Path, description: dict[str, Any]) -> None:
    """Make the folder a zarr group that says what it will be."""
    write_file(out / "zarr.json", group_bytes(description))  # first: with it, this program knows the folder as its own
    (out / "values").mkdir(exist_ok=True)
    write_file(out / "values" / "zarr.json", group_bytes({}))


def write_parts(plan: DatasetPlan, out: Path, machine: Machine) -> None:
    """Write the parts that are not written yet, with a progress bar in graphs."""
    missing = [part for part in plan.parts if recorded_files(part, out) is None]
    num_left = sum(part.table.num_rows for part in missing)
    if not missing:
        return
    with cluster(machine), progress_bar("writing", "graphs", plan.num_graphs, plan.num_graphs - num_left) as bar:
        for _, num_graphs in run_tasks(write_part, missing, (out.resolve(), plan.chunks), machine, noun="part"):
            bar.update(num_graphs)


def write_part(part: PartPlan, out: Path, chunks: Sequence[Path]) -> int:
    """Write the files of a part, then a record of them; returns the number of its graphs. This is the task."""
    contents = table_files(part)
    for name, content in encode_values(gather(part, chunks)).items():
        contents[f"values/{part}/{name}"] = content
    for name, content in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(out / name, content)
    record = {name: asdict(FileRecord.of(content)) for name, content in contents.items()}
    write_file(out / UNFINISHED / f"{part}.json", canonical_json(record).encode())
    return part.table.num_rows


def gather(part: PartPlan, chunks: Sequence[Path]) -> Float32[np.ndarray, " num_values"]:
    """The values of a part's graphs from the memory-mapped chunks.

    Raises:
        ValueError: a value is not finite.
    """
    values = np.empty(part.record.num_values, dtype=np.float32)
    offset, length = part.table["offset"].to_numpy(), part.table["length"].to_numpy()
    for chunk in np.unique(part.chunk).tolist():
        source = np.load(chunks[chunk], mmap_mode="r", allow_pickle=False)
        for row in np.flatnonzero(part.chunk == chunk).tolist():
            start = part.chunk_offset[row]
            graph = source[start : start + length[row]]
            if not np.isfinite(graph).all():
                raise ValueError(f"{chunks[chunk]}: graph {part.table['graph_id'][row]} has values that are not finite")
            values[offset[row] : offset[row] + length[row]] = graph
    return values


def table_files(part: PartPlan) -> dict[str, bytes]:
    """The files of a part that follow from the plan alone."""
    files = {f"tables/{part}.parquet": parquet_bytes(part.table)}
    if part.documents:
        columns = [list(part.documents), list(part.documents.values())]
        files[f"templates/{part}.parquet"] = parquet_bytes(pa.table(columns, schema=TEMPLATE_COLUMNS))
    return files


def recorded_files(part: PartPlan, out: Path) -> dict[str, FileRecord] | None:
    """The files of a part, if it was written as it is planned now."""
    try:
        record = json.loads((out / UNFINISHED / f"{part}.json").read_bytes())
        files = {name: FileRecord(**file) for name, file in record.items()}
        whole = all((out / name).stat().st_size == file.size for name, file in files.items())
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None
    planned = {name: FileRecord.of(content) for name, content in table_files(part).items()}
    whole = whole and set(files) == set(part_files(part.index, part.record)) and planned.items() <= files.items()
    return files if whole else None


def finish(plan: DatasetPlan, out: Path) -> None:
    """Write the manifest: with it the dataset exists."""
    files = {name: FileRecord.of((out / name).read_bytes()) for name in ("zarr.json", "values/zarr.json")}
    for part in plan.parts:
        recorded = recorded_files(part, out)
        assert recorded is not None, f"part {part} was written and has no record"
        files |= recorded
    manifest = Manifest(parts=tuple(part.record for part in plan.parts), num_diverged=plan.num_diverged, files=files)
    for folder in folders(out):
        synchronise(folder)
    write_file(out / MANIFEST, manifest.text().encode())


def tidy(out: Path) -> None:
    """Remove what a finished dataset does not need: records, the lock, and what killed writers left."""
    for folder in folders(out):
        for leftover in leftovers(folder):
            leftover.path.unlink(missing_ok=True)
    shutil.rmtree(out / UNFINISHED)


def folders(out: Path) -> list[Path]:
    """The dataset's folder and all below it."""
    return [out, *(path for path in out.rglob("*") if path.is_dir())]
