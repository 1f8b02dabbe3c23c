"""A dataset of a million graphs of a thousand architectures, its values random: written, verified, opened, streamed.

    python -m benchmarks.million_graphs [--graphs 1000000] [--templates 1000] [--folder runs/million]

Writes files of random values as a zoo's chunks lie, about 12 GB, and makes a dataset of them as `python -m pipeline
graphs` does: the same plan, the same tasks on a Ray cluster. Every step is a process of its own, whose time and
largest resident memory are noted in FOLDER/steps.json; stopped and started again it goes on with the steps that are
missing. At the end docs/million_graphs.md is written, if the sizes are the default ones. Linux alone tells resident
memory as it is read here; the driver's own, without the tasks of the cluster.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int64

from benchmarks.measuring import MB, Row, circumstances, in_child, resident
from benchmarks.traced_networks import WIDTHS, numbered_cnn
from pipeline.build_graphs import Wanted, make
from pipeline.cluster import Machine
from pipeline.dataset_tables import LEFT_OUT_COLUMNS
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_source import SOURCE_COLUMNS, GraphSource, NpyFile, values_sha256
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.progress import progress_bar
from pipeline.split_rules import Condition, SplitRule
from pipeline.template_document import read_document, write_document
from pipeline.tracing import trace
from pipeline.verify_graphs import verify
from pipeline.whole_files import write_file
from pipeline.zoo_store import npy_bytes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "million_graphs.md"
GRAPHS, TEMPLATES = 1_000_000, 1_000
CHECKPOINTS = 10
"""Of every run."""
GRAPHS_PER_FILE = 1_000
STREAMED = 200_000
"""Graphs that are read one after another, and at random from the local copy."""
SPEC = DatasetSpec(
    further_splits={"split_width": SplitRule(train=0.85, val=0.15, test=Condition(column="width", above=15.0))}
)


def main() -> None:
    """Do the steps that are missing, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million_graphs")
    parser.add_argument("--graphs", type=int, default=GRAPHS)
    parser.add_argument("--templates", type=int, default=TEMPLATES, help="at most 1,000")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "million")
    arguments = parser.parse_args()
    folder, sizes = arguments.folder, {"graphs": arguments.graphs, "templates": arguments.templates}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "steps.json"
    done: Row = json.loads(log.read_text()) if log.exists() else {"sizes": sizes, **circumstances()}
    if done["sizes"] != sizes:
        raise SystemExit(f"{folder} has {done['sizes']}; choose another --folder, or delete it")
    for name, step in steps(folder, arguments.graphs, arguments.templates).items():
        if name not in done:
            print(f"== {name}", flush=True)
            done[name] = in_child(partial(measured, step))
            write_file(log, json.dumps(done, indent=1).encode())
    text = "\n".join(page(done)) + "\n"
    print(text)
    if (arguments.graphs, arguments.templates) == (GRAPHS, TEMPLATES):
        PAGE.write_text(text)


def steps(folder: Path, num_graphs: int, num_templates: int) -> dict[str, Callable[[], Row]]:
    """What is done, in order; each gives numbers."""
    dataset = folder / "graphs.zarr"
    return {
        "trace": partial(trace_templates, folder, num_templates),
        "make values": partial(make_values, folder, num_graphs),
        "write": partial(write_dataset, folder, dataset),
        "verify": partial(verify_dataset, dataset),
        "open": partial(open_dataset, dataset),
        "filter": partial(filter_dataset, dataset),
        "stream": partial(stream_dataset, dataset),
        "copy": partial(copy_dataset, dataset, folder / "copy"),
        "read at random from the copy": partial(read_copy, dataset, folder / "copy"),
    }


def measured(step: Callable[[], Row]) -> Row:
    """The numbers of a step, its seconds, and its largest resident memory."""
    started = time.perf_counter()
    numbers = step()
    return {"seconds": round(time.perf_counter() - started, 2), "peak MB": round(resident("VmHWM") / MB), **numbers}


def trace_templates(folder: Path, num_templates: int) -> Row:
    """Networks of three convolutions of 8 to 17 channels each: one for each three of them."""
    numbers = np.ravel_multi_index(np.unravel_index(np.arange(num_templates), (10,) * 3), (WIDTHS,) * 3)
    with progress_bar("tracing", "architectures", num_templates) as bar:
        documents: list[str] = []
        for number in np.asarray(numbers).tolist():
            documents.append(write_document(trace(numbered_cnn(number), torch.zeros(1, 1, 28, 28))))
            bar.update()
    write_file(folder / "templates.json", json.dumps(documents).encode())
    return {}


def sizes_of(folder: Path, num_graphs: int) -> tuple[Int64[np.ndarray, " g"], Int64[np.ndarray, " g"]]:
    """The template of every graph, and its number of values."""
    documents = json.loads((folder / "templates.json").read_text())
    num_values = np.array([read_document(document).num_values for document in documents])
    of_run = np.random.default_rng(0).integers(len(documents), size=-(-num_graphs // CHECKPOINTS))
    template = np.repeat(of_run, CHECKPOINTS)[:num_graphs]
    return template, num_values[template]


def make_values(folder: Path, num_graphs: int) -> Row:
    """Files of a thousand graphs each, normally distributed."""
    _, length = sizes_of(folder, num_graphs)
    (folder / "values").mkdir(exist_ok=True)
    with progress_bar("drawing", "files", -(-num_graphs // GRAPHS_PER_FILE)) as bar:
        for number, start in enumerate(range(0, num_graphs, GRAPHS_PER_FILE)):
            path = folder / "values" / f"{number:05d}.npy"
            if not path.exists():
                count = int(length[start : start + GRAPHS_PER_FILE].sum())
                values = np.random.default_rng([1, number]).standard_normal(count, dtype=np.float32)
                write_file(path, npy_bytes(values * np.float32(0.1)))
            bar.update()
    return {"GB": round(4 * int(length.sum()) / 1e9, 2)}


def write_dataset(folder: Path, dataset: Path) -> Row:
    """The plan, all parts and tables, on a cluster of this machine."""
    num_graphs = json.loads((folder / "steps.json").read_text())["sizes"]["graphs"]
    started = time.perf_counter()
    source = synthetic_source(folder, num_graphs)
    read = time.perf_counter() - started
    wanted = Wanted(sources=dict(source.sources), selection={}, source=lambda: source, duplicates="leave out")
    make(dataset, SPEC, wanted, Machine())
    for file in (folder / "values").iterdir():  # the dataset has them now
        file.unlink()
    return {"of it digesting the values: s": round(read, 2)}


def synthetic_source(folder: Path, num_graphs: int) -> GraphSource:
    """What a zoo of such runs would be."""
    documents = json.loads((folder / "templates.json").read_text())
    digests = [read_document(document).digest for document in documents]
    template, length = sizes_of(folder, num_graphs)
    rng, number = np.random.default_rng(2), np.arange(num_graphs)
    run = [f"synthetic-{index // CHECKPOINTS:07d}" for index in range(num_graphs)]
    file, files = number // GRAPHS_PER_FILE, sorted((folder / "values").iterdir())
    offset = np.cumsum(length) - length
    offset -= offset[file * GRAPHS_PER_FILE]
    stretches = [slice(start, start + GRAPHS_PER_FILE) for start in range(0, num_graphs, GRAPHS_PER_FILE)]
    hashes: list[str] = []
    with progress_bar("digesting", "graphs", num_graphs) as bar:
        for index, path in enumerate(files):
            values, mine = np.load(path), slice(index * GRAPHS_PER_FILE, (index + 1) * GRAPHS_PER_FILE)
            hashes += [
                values_sha256(values[start : start + count])
                for start, count in zip(offset[mine].tolist(), length[mine].tolist(), strict=True)
            ]
            bar.update(GRAPHS_PER_FILE)
    accuracy = {name: rng.uniform(0.1, 0.9, num_graphs) for name in SOURCE_COLUMNS.names if "accuracy" in name}
    columns = {
        "graph_id": [f"{name}@{index % CHECKPOINTS}" for index, name in enumerate(run)],
        "run_id": run,
        "unit": run,
        "epoch": (number % CHECKPOINTS).astype(np.int32),
        "checkpoint": (number % CHECKPOINTS).astype(np.int32),
        "step": number % CHECKPOINTS,
        "template": pa.array(np.array(digests)[template]),
        "family": ["numbered_cnn"] * num_graphs,
        "file": file,
        "file_offset": offset,
        "length": length,
        "values_sha256": hashes,
        "train_loss": rng.exponential(size=num_graphs),
        "test_loss": rng.exponential(size=num_graphs),
        **accuracy,
        "architecture": [f'{{"number":{index}}}' for index in template.tolist()],
    }
    return GraphSource(
        sources={"synthetic": f"{num_graphs} graphs"},
        rows=pa.table([columns[name] for name in SOURCE_COLUMNS.names], schema=SOURCE_COLUMNS),
        left_out=LEFT_OUT_COLUMNS.empty_table(),
        documents=dict(zip(digests, documents, strict=True)),
        files=tuple(NpyFile.at(path, int(length[mine].sum())) for path, mine in zip(files, stretches, strict=True)),
    )


def verify_dataset(dataset: Path) -> Row:
    """Every digest and law."""
    verify(dataset)
    return {"GB": round(open_graphs(dataset).files.manifest.num_bytes / 1e9, 2)}


def open_dataset(dataset: Path) -> Row:
    """Manifest and tables; what else the process has is torch."""
    before = resident()
    opened = open_graphs(dataset)
    manifest = opened.files.manifest
    return {
        "graphs": len(opened),
        "parts": len(manifest.parts),
        "tables": len(manifest.tables),
        "MB more": round((resident() - before) / MB),
    }


def filter_dataset(dataset: Path) -> Row:
    """An expression over two columns, of the open dataset."""
    opened = open_graphs(dataset)
    started = time.perf_counter()
    chosen = opened.filter((pc.field("test_accuracy") > 0.5) & (pc.field("width") <= 12))
    return {"seconds": round(time.perf_counter() - started, 2), "graphs": len(chosen)}


def stream_dataset(dataset: Path) -> Row:
    """The first graphs of an epoch, in one process."""
    opened = open_graphs(dataset)
    return reading(islice((graph.values.nbytes for _, graph in opened.stream()), min(STREAMED, len(opened))))


def copy_dataset(dataset: Path, copy: Path) -> Row:
    """The flat file of all values."""
    shutil.rmtree(copy, ignore_errors=True)
    open_graphs(dataset).materialise(copy)
    return {"GB": round((copy / "values.f32").stat().st_size / 1e9, 2)}


def read_copy(dataset: Path, copy: Path) -> Row:
    """Graphs of the whole dataset in any order, each part compared with its digest when it is first touched."""
    opened = open_graphs(dataset).materialise(copy)
    chosen = np.random.default_rng(3).permutation(len(opened))[:STREAMED]
    warm_up(opened)
    return reading(opened[row].values.nbytes for row in chosen.tolist())


def warm_up(opened: GraphDataset) -> None:
    """Read all parts, so that their digests are compared."""
    for part in range(len(opened.files.manifest.parts)):
        opened.read_part(part)


def reading(sizes: Iterator[int]) -> Row:
    """Graphs and megabytes a second, and resident memory on the way, in quarters."""
    started, found, memory = time.perf_counter(), [], []
    for number, size in enumerate(sizes):
        found.append(size)
        if number % (STREAMED // 4) == STREAMED // 4 - 1:
            memory.append(round(resident() / MB))
    seconds = time.perf_counter() - started
    return {
        "graphs a second": round(len(found) / seconds),
        "MB a second": round(sum(found) / seconds / 1e6),
        "resident MB at each quarter": memory,
    }


def page(done: Row) -> Iterator[str]:
    """The page, line by line."""
    sizes = done["sizes"]
    yield f"""# A dataset of {sizes["graphs"]:,} graphs

Written by `python -m benchmarks.million_graphs`. {sizes["graphs"]:,} graphs of {sizes["templates"]:,} real
architectures (three convolutions of 8 to 17 channels each), values drawn from a normal distribution,
{done["make values"]["GB"]} GB as float32; random numbers compress less than trained weights do. {done["processor"]},
{done["cores"]} cores, at commit {done["commit"][:10]}; other programs may have run beside it, so times are upper
bounds. Memory is the largest resident size of the process, torch included (about 300 MB); of writing the driver's,
without its two tasks.

| step | seconds | peak MB | |
|---|---|---|---|"""
    for name, row in done.items():
        if isinstance(row, dict) and "seconds" in row:
            others = {key: value for key, value in row.items() if key not in ("seconds", "peak MB")}
            cells = (
                f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in others.items()
            )
            yield f"| {name} | {row['seconds']:,} | {row['peak MB']:,} | {'; '.join(cells)} |"
    yield f"""
*stream* reads {min(STREAMED, sizes["graphs"]):,} graphs of an epoch in one process, *read at random* as many from the
memory-mapped copy, any graph of the whole dataset next; both give a parameter graph for each. Its resident memory is
the mapped file, which the system takes back when it is needed; `python -m benchmarks.graph_datasets` shows a stream
in a process whose memory is limited."""


if __name__ == "__main__":
    main()
