"""Say what is in a dataset or a zoo, on one screen of 80 columns.

    python -m pipeline inspect runs/digits/graphs.zarr
    python -m pipeline inspect runs/digits/zoo

Reads   a dataset's manifest, tables and templates, or a zoo's rows; no values
Writes  nothing
"""

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.dataset_manifest import MANIFEST
from pipeline.dataset_plots import plot_dataset
from pipeline.graph_plan import reasons
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.inr_plots import plot_inrs
from pipeline.inr_zoo import InrSpec
from pipeline.places import Place, check_reachable, place
from pipeline.split_rules import SIDES
from pipeline.zoo_plots import plot_zoo
from pipeline.zoo_store import finished_chunks, open_zoo, read_chunk
from pipeline.zoo_summary import summary

SHOWN_TEMPLATES = 5
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


def inspect(path: str | Place, plots: Path | None = None) -> None:
    """Say what is in a dataset or a zoo.

    Args:
        path: the folder of a parameter-graph dataset or of a zoo; either may lie at s3://bucket/folder.
        plots: a file for a picture. Of a zoo: accuracy by hyperparameter, learning curves, split-half reliability; or
            what implicit networks show, how good they are, and after how many steps. Of a dataset: labels by split,
            families, sizes, and values by kind of edge.
    """
    root = place(path)
    check_reachable(root)
    if not any((root / name).exists() for name in ("zoo.json", "zarr.json", MANIFEST)):
        raise ValueError(f"{root}: neither a zoo nor a dataset of parameter graphs here")
    lines = zoo_lines(root, plots) if (root / "zoo.json").exists() else graph_lines(root, plots)
    print("\n".join(lines))
    if plots is not None:
        print(f"  picture: {plots}")


def graph_lines(root: Place, plots: Path | None) -> Iterator[str]:
    """What `inspect` says of a dataset; the picture is drawn first."""
    dataset = open_graphs(root)
    if plots is not None:
        plot_dataset(dataset, plots)
    yield from dataset_lines(dataset)


def zoo_lines(path: Place, plots: Path | None) -> Iterator[str]:
    """What `inspect` says of a zoo; the picture is drawn first."""
    zoo = open_zoo(path)
    if plots is not None:
        (plot_inrs if isinstance(zoo.spec, InrSpec) else plot_zoo)(zoo, plots)
    yield from summary(zoo)
    finished = finished_chunks(zoo)
    if finished:
        yield from row_lines(read_chunk(zoo, finished[0]).rows)


def dataset_lines(dataset: GraphDataset) -> Iterator[str]:
    """What `inspect` says of a dataset."""
    yield from size_lines(dataset)
    made_of = dataset.made_of
    yield from folded("made from", f"{', '.join(made_of['sources'])}; seed {made_of.get('seed')}")
    yield f"  digest       {dataset.files.manifest.digest}"
    for column, label in (("test_accuracy", "test accuracy"), ("psnr", "PSNR in dB")):
        if column in dataset.table.column_names and np.isfinite(numbers_of(dataset, column)).any():
            yield ""
            yield f"  {label:<14} {'  '.join(f'{quantile:>6.0%}' for quantile in QUANTILES)}"
            for split in side_counts(dataset.table["split"]):
                numbers = numbers_of(dataset.split(split), column)
                if len(known := numbers[np.isfinite(numbers)]):
                    yield f"    {split:<12} {'  '.join(f'{number:6.3f}' for number in np.quantile(known, QUANTILES))}"
    yield ""
    counts = dataset.table["template"].value_counts().to_pylist()
    yield f"  templates    {len(counts)}"
    for count in sorted(counts, key=lambda count: (-count["counts"], count["values"]))[:SHOWN_TEMPLATES]:
        template = dataset.templates[count["values"]]
        yield (
            f"    {template.digest[:12]}  {count['counts']:,} graphs of {template.num_nodes:,} nodes, "
            f"{template.num_edges:,} edges, {template.num_values:,} values"
        )
    if len(counts) > SHOWN_TEMPLATES:
        yield f"    and {len(counts) - SHOWN_TEMPLATES:,} with fewer graphs"
    yield ""
    yield from row_lines(dataset.table)


def numbers_of(dataset: GraphDataset, column: str) -> Float64[np.ndarray, " num_graphs"]:
    """A column, NaN where it is null."""
    return dataset.table[column].to_numpy(zero_copy_only=False)


def size_lines(dataset: GraphDataset) -> Iterator[str]:
    """How large a dataset is and how it is split."""
    manifest, table = dataset.files.manifest, dataset.table
    num_runs = len(table["run_id"].unique())
    num_parts, num_files = len(manifest.parts), len(manifest.files) + 1
    yield f"Dataset {dataset.files.root}"
    yield f"  graphs       {len(dataset):,} checkpoints of {num_runs:,} runs"
    if manifest.num_left_out:
        yield f"  left out     {reasons(dataset.left_out)}"
    yield (
        f"  size         {manifest.num_bytes / 1e6:,.1f} MB, {num_parts:,} {'part' if num_parts == 1 else 'parts'}, "
        f"{num_files:,} files; {manifest.dtype}"
    )
    for name in (name for name in table.column_names if name.startswith("split")):
        counts = side_counts(table[name])
        yield from folded(name, ", ".join(f"{side} {count:,}" for side, count in counts.items()))


def folded(label: str, text: str) -> Iterator[str]:
    """A label and its text, in lines of 80 columns."""
    for place_in_text, part in enumerate(wrap(text, 65, break_on_hyphens=False) or [""]):
        yield f"  {label if place_in_text == 0 else '':<12} {part}"


def side_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How many graphs are on each side of a split; training first."""
    counts = {str(count["values"]): int(count["counts"]) for count in column.value_counts().to_pylist()}
    order = [*SIDES, *sorted(counts)]
    return {side: counts[side] for side in sorted(counts, key=order.index)}


def row_lines(rows: pa.Table) -> Iterator[str]:
    """The first row, field by field."""
    yield "  first row"
    for name, value in rows.slice(0, 1).to_pylist()[0].items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        yield f"    {name:<22} {text if len(text) <= 52 else text[:51] + '…'}"
