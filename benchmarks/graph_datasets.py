"""Datasets of parameter graphs: how fast they are read, opened and written, in how much memory, and how small.

    python -m benchmarks.graph_datasets [--quick] [--only a,b,c,d,e,f] [--zoo runs/fashion/zoo] [--folder /tmp]

Six measurements; what stands side by side runs in turn:
(a) batches of 64 small CNNs in random order: ours, PyTorch Geometric's datasets, plain files; (b) the same graphs in
few and in many parts, opened in a fresh process; (c) resident memory while a dataset larger than the allowed memory is
streamed; (d) parts written, against plain files and plain zarr; (e) as many graphs as templates, against as many of
one; (f) codecs on trained weights.
Reads templates that were traced before, from runs/benchmarks/. Prints tables, and writes medians as JSON to
benchmarks/results/, if quick or not all only where ``--out`` says. Datasets are made in ``--folder`` and removed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.dataset_reading import little_memory, many_templates, opening
from benchmarks.measuring import MB, Row, circumstances, in_child, show
from benchmarks.value_files import GRAPH_VALUES, codecs, writing
from pipeline.dataset_manifest import SHARD_FLOATS
from pipeline.graph_plan import DatasetSpec

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int
    batched_graphs: int
    """Of (a), where batches hold values."""
    pyg_graphs: int
    """Of (a), where batches are those of PyTorch Geometric: 0.84 MB each, in memory and twice on disk."""
    floats_per_part: int
    """Of (a); the default of datasets, but where all is small."""
    opened_graphs: int
    opened_parts: tuple[int, int]
    streamed_mb: int
    limit_mb: int
    written_floats: int
    templates: int
    codec_floats: int
    processes: int
    """Fresh processes for each side of (b) and (e)."""


FULL = Sizes(
    rounds=5,
    batched_graphs=20_000,
    pyg_graphs=2_000,
    floats_per_part=SHARD_FLOATS,
    opened_graphs=20_000,
    opened_parts=(10, 1_000),
    streamed_mb=4_096,
    limit_mb=1_024,
    written_floats=SHARD_FLOATS,
    templates=10_000,
    codec_floats=2 * SHARD_FLOATS,
    processes=3,
)
QUICK = replace(
    FULL,
    rounds=1,
    batched_graphs=1_280,
    pyg_graphs=128,
    floats_per_part=128 * GRAPH_VALUES,
    opened_graphs=500,
    opened_parts=(5, 50),
    streamed_mb=800,
    limit_mb=640,
    templates=100,
    codec_floats=2**20,
    processes=1,
)


Table = tuple[str, str, list[Row]]
"""Its name in the JSON, its title, its rows."""


def main() -> None:
    """Run what is asked for, print the tables, write the rows."""
    arguments = read_arguments()
    sizes = QUICK if arguments.quick else FULL
    result: Row = {"benchmark": "graph_datasets", "quick": arguments.quick, **circumstances()}
    print(f"{result['processor']}, {result['cores']} cores, load {result['load']}, torch {result['torch']}", flush=True)
    for letter in arguments.only:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for name, title, rows in MEASUREMENTS[letter](sizes, Path(folder), arguments.zoo):
                result[name] = rows
                show(f"({letter}) {title}", rows)
    partly = arguments.quick or set(arguments.only) != set(MEASUREMENTS)
    out = arguments.out or (None if partly else RESULTS / f"{result['date'][:10]}-graph-datasets.json")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {out}")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_datasets")
    parser.add_argument("--quick", action="store_true", help="some minutes, to see that it works; figures mean little")
    parser.add_argument("--only", type=chosen, default=list(MEASUREMENTS), help="some of a,b,c,d,e,f; all if left out")
    parser.add_argument("--out", type=Path, help="the JSON; <date>-graph-datasets.json in benchmarks/results")
    parser.add_argument("--zoo", type=Path, default=ROOT / "runs" / "fashion" / "zoo", help="weights for (f)")
    parser.add_argument("--folder", type=Path, help="where datasets are made, 10 GB at most; else where others are")
    return parser.parse_args()


def chosen(text: str) -> list[str]:
    """Letters, with or without commas."""
    letters = list(text.replace(",", ""))
    if not letters or not set(letters) <= set(MEASUREMENTS):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {','.join(MEASUREMENTS)}")
    return letters


def batches(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(a) Shuffled epochs of ours, of PyTorch Geometric's datasets, and of plain files."""
    from benchmarks.batch_sources import batch_tables  # Lightning and PyG are heavy, and children import this file

    part = DatasetSpec(floats_per_part=sizes.floats_per_part)
    measure = partial(batch_tables, folder, sizes.batched_graphs, sizes.pyg_graphs, part, sizes.rounds)
    values, pyg = in_child(measure)
    return [
        ("batches_of_values", f"Shuffled epochs of {sizes.batched_graphs:,} graphs: the values of 64 a batch", values),
        ("batches_of_pyg", f"Shuffled epochs of {sizes.pyg_graphs:,} graphs: Batch of PyTorch Geometric, of 64", pyg),
    ]


def parts(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(b) Opening by the number of parts."""
    rows = opening(folder, sizes.opened_graphs, sizes.opened_parts, sizes.processes)
    return [("opening", f"The same {sizes.opened_graphs:,} graphs in parts, opened in a fresh process", rows)]


def memory(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(c) Streaming in little memory."""
    rows = little_memory(folder, sizes.streamed_mb, sizes.limit_mb)
    title = f"{sizes.streamed_mb:,} MB of float32 streamed where RLIMIT_DATA is {sizes.limit_mb:,} MB"
    return [("memory", title, rows)]


def written(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(d) Writing a part."""
    rows = in_child(partial(writing, folder, sizes.written_floats, sizes.rounds))
    return [("writing", f"A part of {4 * sizes.written_floats / MB:.0f} MB written", rows)]


def templates(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(e) Reading many templates."""
    rows = many_templates(folder, sizes.templates, sizes.processes)
    return [("templates", f"{sizes.templates:,} graphs of as many templates, against as many of one", rows)]


def sizes_on_disk(sizes: Sizes, folder: Path, zoo: Path) -> list[Table]:
    """(f) Size and speed of codecs."""
    rows = in_child(partial(codecs, zoo, sizes.codec_floats, sizes.rounds))
    return [("codecs", "Trained weights by codec, chunks of 2^18 values, one thread", rows)]


MEASUREMENTS: dict[str, Callable[[Sizes, Path, Path], list[Table]]] = {
    "a": batches,
    "b": parts,
    "c": memory,
    "d": written,
    "e": templates,
    "f": sizes_on_disk,
}


if __name__ == "__main__":
    main()
