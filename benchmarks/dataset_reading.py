"""Datasets read in processes of their own: opened in few and many parts, streamed in little memory, of many templates.

Reads   datasets of `benchmarks.synthetic_datasets`
Writes  them, into a folder that is given; run by itself it does nothing

The functions that measure run in children that import neither Lightning nor torch_geometric, so that memory is that of
reading. Files come from the page cache, as the programs beside this one have it.
"""

import gc
import os
import resource
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.measuring import MB, Row, in_child, resident
from benchmarks.synthetic_datasets import numbered_documents, sizes_of, small_document, typical, write_dataset
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.stored_templates import TEMPLATE_BYTES
from pipeline.template_document import read_document
from training.graph_batch import GraphBatch, batch_graphs

Item = TypeVar("Item")

BATCH = 64
"""Graphs of a training batch."""
QUARTERS = 4
ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"


def batched(items: Iterable[Item], size: int = BATCH) -> Iterator[list[Item]]:
    """The items, a batch at a time."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def streamed(dataset: GraphDataset, epoch: int = 0) -> Iterator[GraphBatch]:
    """The batches of an epoch."""
    for some in batched(dataset.stream(epoch=epoch)):
        yield batch_graphs([graph for _, graph in some])


# Opening


def opening(folder: Path, num_graphs: int, num_parts: tuple[int, int], rounds: int) -> list[Row]:
    """The same graphs in few and in many parts: a process each, in turn; imports and the first round do not count."""
    document = small_document()
    num_values = read_document(document).num_values
    paths: list[Path] = []
    for number in num_parts:
        spec = DatasetSpec(floats_per_part=-(-num_graphs // number) * num_values)
        paths.append(write_dataset(folder / f"{number}-parts", [document], num_graphs, spec))
    opened = [[in_child(partial(open_once, path)) for path in paths] for _ in range(1 + rounds)][1:]
    columns = [[one_round[place] for one_round in opened] for place in range(len(paths))]
    rows: list[Row] = []
    for mine in columns:
        row: Row = {"parts": mine[0]["parts"]}
        for name in ("open: ms", "first graph: ms", "resident MB"):
            row[name] = round(statistics.median(each[name] for each in mine), 2)
        pairs = zip(mine, columns[0], strict=True)
        rows.append(row | {"times the fewest": times([(a["open: ms"], b["open: ms"]) for a, b in pairs])})
    return rows


def open_once(path: Path) -> Row:
    """Open a dataset for the first time in this process, and read a graph."""
    before, started = resident(), time.perf_counter()
    dataset = open_graphs(path)
    opened, grown = time.perf_counter(), resident() - before
    first = dataset[0]
    assert len(first.values)
    return {
        "parts": len(dataset.files.manifest.parts),
        "open: ms": 1e3 * (opened - started),
        "first graph: ms": 1e3 * (time.perf_counter() - opened),
        "resident MB": grown / MB,
    }


def times(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of the ratios of every round."""
    return round(statistics.median(a / b for a, b in pairs), 2)


# Memory


def little_memory(folder: Path, dataset_mb: int, limit_mb: int) -> list[Row]:
    """A dataset streamed once, in a process that is refused more memory than the limit."""
    document = small_document()
    num_graphs = dataset_mb * MB // (4 * read_document(document).num_values)
    path: Path = in_child(partial(write_dataset, folder / "large", [document], num_graphs))
    before = os.environ.get(ARROW_POOL)
    os.environ[ARROW_POOL] = "system"  # Arrow's own would reserve a gibibyte of addresses, which the limit counts
    try:
        return in_child(partial(stream_within, path, limit_mb))
    finally:
        os.environ.pop(ARROW_POOL)
        os.environ |= {ARROW_POOL: before} if before is not None else {}


def stream_within(path: Path, limit_mb: int) -> list[Row]:
    """Resident memory after each quarter of the stream; at last all values at once, which must be refused."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit_mb * MB, limit_mb * MB))
    rows = [memory("imports")]
    dataset = open_graphs(path)
    rows.append(memory("opening"))
    num_batches = -(-len(dataset) // BATCH)
    started = time.perf_counter()
    for number, _ in enumerate(streamed(dataset), start=1):
        if number * QUARTERS // num_batches > (number - 1) * QUARTERS // num_batches:
            passed = time.perf_counter() - started
            read = number * BATCH * 4 * int(dataset.table["length"][0].as_py()) / MB
            rows.append(memory(f"{number / num_batches:.0%} of the stream") | {"MB/s": round(read / passed)})
    num_values = sum(part.num_values for part in dataset.files.manifest.parts)
    try:
        np.ones(num_values, dtype=np.float32)
    except MemoryError:
        rows.append({"after": f"all {4 * num_values / MB:,.0f} MB in one array", "outcome": "refused, as it should be"})
    else:
        rows.append({"after": "all values in one array", "outcome": "allowed: the limit does not hold here"})
    return rows


def memory(after: str) -> Row:
    """Resident memory now, and at most until now; and the data that the limit counts."""
    fields = {"resident MB": "VmRSS", "peak MB": "VmHWM", "data MB": "VmData"}
    return {"after": after, **{name: round(resident(field) / MB) for name, field in fields.items()}}


# Templates


def many_templates(folder: Path, count: int, rounds: int) -> list[Row]:
    """As many graphs as templates, against as many graphs of one template of the same size, more or less."""
    documents = numbered_documents(count)
    one = typical(documents)
    paths = {
        "distinct": write_dataset(folder / "distinct", documents, count),
        "one": write_dataset(folder / "one", [one], count),
    }
    measured: dict[str, list[Row]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            measured[name].append(in_child(partial(read_epochs, path)))
    rows: list[Row] = []
    for what in measured["one"][0]:
        distinct, same = ([row[what] for row in measured[name]] for name in ("distinct", "one"))
        row: Row = {"what": what, "distinct": round(statistics.median(distinct), 3)}
        row |= {"one": round(statistics.median(same), 3), "ratio": times(list(zip(distinct, same, strict=True)))}
        rows.append(row)
    _, needed = sizes_of(tuple(documents))
    return [*rows, {"what": "templates, of the room for them", "distinct": round(needed / TEMPLATE_BYTES, 3)}]


def read_epochs(path: Path, warm: int = 3) -> Row:
    """Streamed epochs of a dataset in this process: the first reads the templates."""
    started = time.perf_counter()
    dataset = open_graphs(path)
    opened = time.perf_counter()
    gc.collect()
    with_table = resident()
    seconds: list[float] = []
    grown: list[float] = []
    for epoch in range(1 + warm):
        begun = time.perf_counter()
        for _ in streamed(dataset, epoch):
            pass
        seconds.append(time.perf_counter() - begun)
        grown.append((resident() - with_table) / MB)
    return {
        "open: s": opened - started,
        "first epoch: s": seconds[0],
        "later epoch: s": statistics.median(seconds[1:]),
        "graphs/s, later": len(dataset) / statistics.median(seconds[1:]),
        "memory after the first epoch: MB": grown[0],
        "memory after the last: MB": grown[-1],
        "peak: MB": resident("VmHWM") / MB,
    }
