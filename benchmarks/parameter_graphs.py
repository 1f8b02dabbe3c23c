"""Parameter graphs: how fast networks are traced and graphs built, and in how much memory.

    python -m benchmarks.parameter_graphs [--quick] [--templates 10000] [--up-to 640 --memory-gb 8]

Four measurements, each in processes of its own, on one thread; what stands side by side runs in turn:
(1) tracing, checking and finding the symmetries of four architectures, beside ``torch.export`` alone, which tracing
cannot go below while it starts from it; (2) graphs of a known template from values in memory, against reading the same
values from disk (from the page cache, in truth); (3) graphs with a template each, against as many of one template; (4)
the largest network that is traced in so much memory.
Prints tables, and writes medians as JSON to benchmarks/results/, if quick only where ``--out`` says. Linux alone tells
resident memory as it is read here. Needs torch and torch_geometric, no GPU.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measuring import GB, MB, Row, circumstances, in_child, interleaved, resident, show
from benchmarks.traced_networks import LARGE, NETWORKS, WIDTHS, numbered_cnn, small_cnn
from pipeline.parameter_graph import ParameterGraph
from pipeline.symmetry import check
from pipeline.symmetry_group import symmetry_group
from pipeline.template_document import read_document, write_document
from pipeline.tracing import trace
from training.graph_batch import batch_graphs

Item = TypeVar("Item")

HELD = 256
"""Templates that are kept while graphs are read."""
BATCH = 32
"""Graphs that are held at a time, as a data loader would."""
LADDER = (1, 5, 20, 80, 160, 320, 640)
"""Millions of parameters."""
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run all four, print their tables, write their rows."""
    arguments = read_arguments()
    rounds, graphs = (1, 64) if arguments.quick else (5, 512)
    templates = min(arguments.templates, 10) if arguments.quick else arguments.templates
    up_to = 1 if arguments.quick else arguments.up_to
    result: Row = {"benchmark": "parameter_graphs", "quick": arguments.quick, **circumstances()}
    print(f"{result['processor']}, {result['cores']} cores, load {result['load']}, torch {result['torch']}")

    result["tracing"] = in_child(partial(tracing, rounds))
    show("Tracing: milliseconds", result["tracing"])
    result["known_template"] = in_child(partial(known_template, rounds, graphs))
    show("A known template: graphs a second on one core", result["known_template"])
    result["distinct_templates"] = distinct_templates(templates)
    show(f"{templates} templates, against {templates} graphs of one", result["distinct_templates"])
    result["largest"] = largest(up_to, arguments.memory_gb, arguments.seconds)
    show(f"Large networks, in {arguments.memory_gb:g} GB and {arguments.seconds:g} s", result["largest"])

    out = arguments.out or (None if arguments.quick else RESULTS / f"{result['date'][:10]}-parameter-graphs.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {out}")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parameter_graphs")
    parser.add_argument("--out", type=Path, help="the JSON; <date>-parameter-graphs.json in benchmarks/results")
    parser.add_argument(
        "--quick", action="store_true", help="a minute or so, to see that it works; figures mean little"
    )
    parser.add_argument("--templates", type=int, default=200, help="distinct templates, at most 13824")
    parser.add_argument("--up-to", type=int, default=80, help="million parameters of the largest network tried")
    parser.add_argument("--memory-gb", type=float, default=8, help="resident memory at which a network is too large")
    parser.add_argument("--seconds", type=float, default=120, help="after which a network takes too long")
    return parser.parse_args()


# 1. Tracing


def tracing(rounds: int) -> list[Row]:
    """Each architecture in each round; the first round does not count."""
    cases = [(name, build().eval(), torch.zeros(shape)) for name, (build, shape) in NETWORKS.items()]
    steps = [step for _, module, example in cases for step in tracing_steps(module, example)]
    seconds = iter(interleaved(steps, rounds))
    rows: list[Row] = []
    for name, module, example in cases:
        template = trace(module, example)
        times = {step: next(seconds) for step in ("export", "lowered", "trace", "check", "symmetries")}
        row: Row = {"network": name, "values": template.num_values, "edges": template.num_edges}
        row |= {step: round(statistics.median(each) * 1e3, 1) for step, each in times.items()}
        rows.append(row | {"trace / export": ratio(times["trace"], times["export"])})
    return rows


def ratio(seconds: list[float], others: list[float]) -> float:
    """The median of the ratios of every round."""
    return round(statistics.median(a / b for a, b in zip(seconds, others, strict=True)), 3)


def tracing_steps(module: nn.Module, example: Tensor) -> list[Callable[[], object]]:
    """Exporting alone, exporting and decomposing with torch's own table, tracing, checking, finding the symmetries."""
    template = trace(module, example)
    return [
        lambda: torch.export.export(module, (example,)),
        lambda: torch.export.export(module, (example,)).run_decompositions(),
        lambda: trace(module, example),
        lambda: check(module, template, example),
        lambda: symmetry_group(template),
    ]


# 2. Graphs of a known template


def known_template(rounds: int, graphs: int) -> list[Row]:
    """Ways to come by the same networks, in turn: graphs of values in memory, and values from the disk."""
    template = trace(small_cnn(), torch.zeros(1, 1, 28, 28))
    modules = [small_cnn() for _ in range(graphs)]
    values = np.stack([template.values_of(module) for module in modules])
    with tempfile.TemporaryDirectory() as folder:
        stacked, files = Path(folder, "values.npy"), [Path(folder, f"{number}.pt") for number in range(graphs)]
        np.save(stacked, values)
        for module, file in zip(modules, files, strict=True):
            torch.save(module.state_dict(), file)
        ways: dict[str, Callable[[], object]] = {
            "values to PyG": lambda: in_batches(template.graph(row).to_pyg() for row in values),
            "values to batches": lambda: [batch_graphs(some) for some in batched(map(template.graph, values))],
            "np.load, mapped": lambda: in_batches(np.array(row) for row in np.load(stacked, mmap_mode="r")),
            "torch.load": lambda: in_batches(torch.load(file) for file in files),
            "torch.load to PyG": lambda: in_batches(
                template.graph(template.values_from(torch.load(file))).to_pyg() for file in files
            ),
        }
        seconds = dict(zip(ways, interleaved(list(ways.values()), max(3, rounds)), strict=True))

    return [
        {
            "from, to": way,
            "graphs/s": round(graphs / statistics.median(times)),
            "times np.load": ratio(seconds["np.load, mapped"], times),
            "times torch.load": ratio(seconds["torch.load"], times),
        }
        for way, times in seconds.items()
    ]


def in_batches(items: Iterable[object]) -> None:
    """Make them all, and hold a batch of them at a time."""
    for _ in batched(items):
        pass


def batched(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, a batch at a time."""
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch


# 3. Many templates


def distinct_templates(count: int) -> list[Row]:
    """A template for every graph, against one for all: made in one process, read in another, held in a third."""
    columns: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, spread in SPREADS.items():
            made = in_child(partial(make_graphs, count, spread, Path(folder, name)))
            read = in_child(partial(read_graphs, Path(folder, name)))
            columns[name] = {**made, **read, **in_child(partial(hold_templates, Path(folder, name)))}
    distinct, one = columns.values()
    rows: list[Row] = []
    for what, total in distinct.items():
        row = {"what": what, "distinct": total, "one": one[what]}
        row |= {"ratio": round(total / one[what], 1) if one[what] else None}
        if what != BOUNDED:
            row |= {"each": f"{total / count * 1e3:.3g} {'ms' if what.endswith(' s') else 'KB'}"}
            row |= {"10,000 (extrapolated)": round(total / count * 10_000, 1)} if count < 10_000 else {}
        rows.append(row)
    return rows


BOUNDED = f"read, {HELD} held: MB"
SPREADS = {"distinct": 1, "one": 0}
"""By how much the number of a network grows from graph to graph."""


def make_graphs(count: int, spread: int, folder: Path) -> Row:
    """Trace as many networks as there are, take the values of all, keep everything; and write it for `read_graphs`."""
    trace(small_cnn(), torch.zeros(1, 1, 28, 28))
    order = np.random.default_rng(0).permutation(WIDTHS**3)
    before, seconds = resident(), {"trace: s": 0.0, "take values: s": 0.0, "write documents: s": 0.0}
    graphs: list[ParameterGraph] = []
    documents: list[str] = []
    for number in range(count):
        module = numbered_cnn(int(order[number * spread]))
        started = time.perf_counter()
        template = trace(module, torch.zeros(1, 1, 28, 28)) if spread or not graphs else graphs[0].template
        traced = time.perf_counter()
        graphs.append(template.graph(module))
        taken = time.perf_counter()
        if spread or not documents:
            documents.append(write_document(template))
        written = time.perf_counter()
        for name, passed in zip(seconds, (traced - started, taken - traced, written - taken), strict=True):
            seconds[name] += passed
    gc.collect()
    grown = resident() - before
    folder.mkdir()
    (folder / "documents.json").write_text(json.dumps(documents))
    np.save(folder / "lengths.npy", [len(graph.values) for graph in graphs])
    np.save(folder / "values.npy", np.concatenate([graph.values for graph in graphs]))
    return {name: round(passed, 3) for name, passed in seconds.items()} | {"memory after tracing: MB": megabytes(grown)}


def read_graphs(folder: Path) -> Row:
    """All graphs once, in batches, with a few templates in memory."""
    documents: list[str] = json.loads((folder / "documents.json").read_text())
    values = np.split(np.load(folder / "values.npy"), np.cumsum(np.load(folder / "lengths.npy"))[:-1])
    template_of = lru_cache(HELD)(read_document)
    template_of(documents[0])
    before, started = resident(), time.perf_counter()
    for some in batched(zip(documents if len(documents) > 1 else documents * len(values), values, strict=True)):
        batch_graphs([template_of(document).graph(row) for document, row in some])
    return {"read into batches: s": round(time.perf_counter() - started, 3), BOUNDED: megabytes(resident() - before)}


def hold_templates(folder: Path) -> Row:
    """All documents in memory, then all templates."""
    read_document(write_document(trace(small_cnn(), torch.zeros(1, 1, 28, 28))))
    gc.collect()
    before = resident()
    documents: list[str] = json.loads((folder / "documents.json").read_text())
    with_documents = resident()
    templates = [read_document(document) for document in documents]
    with_templates = resident()
    return {
        "documents: MB": megabytes(with_documents - before),
        "templates: MB": megabytes(with_templates - with_documents),
        "documents on disk: MB": megabytes(sum(map(len, documents[: len(templates)]))),
    }


def megabytes(size: int) -> float:
    """Of bytes."""
    return round(size / MB, 2)


# 4. Large networks


def largest(up_to: int, memory_gb: float, seconds: float) -> list[Row]:
    """Ever larger networks of two families, until one needs too much memory or time."""
    rows: list[Row] = []
    for name, build in LARGE.items():
        for millions in (size for size in LADDER if size <= up_to):
            row = in_child(partial(trace_large, build, millions), memory_gb * GB, seconds)
            rows.append({"network": f"{name}, {millions} M", **row})
            if "stopped" in row:
                break
    return rows


def trace_large(build: Callable[[int], nn.Module], millions: int) -> Row:
    """Trace one network, and how much memory that took at most."""
    trace(small_cnn(), torch.zeros(1, 1, 28, 28))
    before = resident()
    module = build(millions * 10**6).eval()
    with_module, started = resident(), time.perf_counter()
    template = trace(module, torch.zeros(1, 3, 32, 32))
    seconds = time.perf_counter() - started
    return {
        "values": template.num_values,
        "nodes": template.num_nodes,
        "seconds": round(seconds, 2),
        "before MB": round(before / MB),
        "module MB": round((with_module - before) / MB),
        "peak MB": round(resident("VmHWM") / MB),
        "bytes/value": round((resident("VmHWM") - with_module) / template.num_values, 1),
    }


if __name__ == "__main__":
    main()
