"""Check everything that a dataset promises.

    python -m pipeline verify runs/digits/graphs.zarr

Reads   every file of the dataset
Writes  nothing

The manifest must be right for anything else to be looked at, and the files must be those it names for their content to
be. Within each of these steps all findings are collected, so that one run tells as much as it can.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from pipeline.dataset_manifest import FORMAT, MANIFEST, VERSION, CheckedFiles, read_manifest
from pipeline.graph_plan import SplitRule, graph_ids
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.parquet_files import equal
from pipeline.progress import progress_bar

SHOWN_FINDINGS = 50
ACCURACIES = ("train_accuracy", "test_accuracy", "test_accuracy_half_a", "test_accuracy_half_b")


def verify(path: Path) -> None:
    """Compare every file of a dataset with its manifest, and what is in them with the laws of the format.

    Args:
        path: the dataset's folder.

    Raises:
        ValueError: something is wrong; each finding is a line.
    """
    files = CheckedFiles(path, read_manifest(path))
    findings = [*unexpected_files(files), *damaged_files(files)] or list(broken_laws(path))
    if findings:
        shown = "".join(f"\n  {finding}" for finding in findings[:SHOWN_FINDINGS])
        hidden = len(findings) - SHOWN_FINDINGS
        raise ValueError(
            f"{path} is not sound, {len(findings)} {'finding' if len(findings) == 1 else 'findings'}:{shown}"
            + (f"\n  and {hidden} more" if hidden > 0 else "")
        )
    manifest = files.manifest
    print(
        f"{path} is sound: {manifest.num_graphs:,} graphs in {len(manifest.files) + 1:,} files, "
        f"{manifest.num_bytes / 1e6:,.1f} MB\n  digest {manifest.digest}"
    )


def unexpected_files(files: CheckedFiles) -> Iterator[str]:
    """Files that the manifest does not name."""
    expected = {files.root / name for name in (MANIFEST, *files.manifest.files)}
    for path in sorted(files.root.rglob("*")):
        if path not in expected and not path.is_dir():
            yield f"{path}: the manifest does not name it; delete it"


def damaged_files(files: CheckedFiles) -> Iterator[str]:
    """Files that are missing, or are not those the manifest names."""
    with progress_bar("comparing", "files", len(files.manifest.files)) as bar:
        for name in sorted(files.manifest.files):
            try:
                files.read(name)
            except ValueError as error:
                yield str(error)
            bar.update()


def broken_laws(path: Path) -> Iterator[str]:
    """What is wrong with the content of a dataset whose files are those of its manifest."""
    try:
        dataset = open_graphs(path, parts_in_memory=1)
        yield from wrong_names(dataset)
        yield from wrong_splits(dataset)
    except ValueError as error:
        yield str(error)
        return
    yield from wrong_templates(dataset)
    yield from wrong_values(dataset)


def wrong_names(dataset: GraphDataset) -> Iterator[str]:
    """Attributes, identifiers and labels."""
    table, made_of = dataset.table, dataset.made_of
    if (made_of.get("format"), made_of.get("version")) != (FORMAT, VERSION):
        yield f"{dataset.files.root / 'zarr.json'}: not the attributes of {FORMAT} version {VERSION}"
    names = np.array(table["graph_id"].to_pylist())
    _, place, counts = np.unique(names, return_inverse=True, return_counts=True)
    yield from graphs_where(table, counts[place] > 1, "another graph has the same graph_id")
    yield from graphs_where(table, names != np.array(graph_ids(table)), "its graph_id is not <run_id>@<epoch>")
    for name in ACCURACIES:
        accuracy = table[name].to_numpy()
        yield from graphs_where(table, (accuracy < 0) | (accuracy > 1), f"its {name} is not within 0 and 1")


def wrong_splits(dataset: GraphDataset) -> Iterator[str]:
    """A unit belongs to one side of every split, and to the side its hash says where a rule is given."""
    path, table = dataset.files.root / "zarr.json", dataset.table
    units = table["unit"].to_pylist()
    for name in (name for name in table.column_names if name.startswith("split")):
        sides = table[name].to_pylist()
        side_of = dict(zip(units, sides, strict=True))
        divided = np.array([side_of[unit] != side for unit, side in zip(units, sides, strict=True)])
        yield from graphs_where(table, divided, f"its unit has other graphs on another side of {name}")
    for name, rule in dataset.made_of.get("splits", {}).items():
        if name not in table.column_names:
            yield f"{path}: a rule for {name}, which is no column"
            continue
        try:
            split = SplitRule(**rule)
        except (TypeError, ValueError) as error:
            yield f"{path}: the rule of {name} is not one: {error}"
            continue
        expected = np.array([split.of(unit) for unit in units])
        yield from graphs_where(
            table, np.array(table[name].to_pylist()) != expected, f"its {name} is not what its unit gives"
        )


def wrong_templates(dataset: GraphDataset) -> Iterator[str]:
    """Every template must be readable, which includes law A: each value is carried by an edge; and fit its graphs."""
    for digest in dataset.templates:
        try:
            template = dataset.templates[digest]
        except ValueError as error:
            yield str(error)
            continue
        graphs = dataset.table.filter(equal(dataset.table["template"], digest))
        wrong = graphs["length"].to_numpy() != template.num_values
        yield from graphs_where(
            graphs, wrong, f"its length is not {template.num_values}, as template {digest} has values"
        )


def wrong_values(dataset: GraphDataset) -> Iterator[str]:
    """Every array must be readable, every value finite."""
    parts = dataset.files.manifest.parts
    start = 0
    with progress_bar("decoding", "parts", len(parts)) as bar:
        for part, record in enumerate(parts):
            graphs = dataset.table.slice(start, record.num_graphs)
            start += record.num_graphs
            bar.update()
            try:
                values = dataset.read_part(part)
            except ValueError as error:
                yield str(error)
                continue
            num_wrong = np.add.reduceat(~np.isfinite(values), graphs["offset"].to_numpy(), dtype=np.int64)
            yield from graphs_where(graphs, num_wrong > 0, "it has values that are not finite")


def graphs_where(table: pa.Table, wrong: Bool[np.ndarray, " num_graphs"], what: str) -> Iterator[str]:
    """A line for the first graph for which something is wrong, and how many more there are."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" (and {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        yield f"graph {table['graph_id'][int(rows[0])]}{more}: {what}"
