"""What must hold of the content of a dataset whose files are those of its manifest: each law finds what breaks it.

Reads   an open dataset
Writes  nothing: findings are lines of text
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from pipeline.graph_source import values_sha256
from pipeline.graph_store import GraphDataset
from pipeline.split_rules import SIDES, SplitRule

ACCURACIES = ("train_accuracy", "test_accuracy", "test_accuracy_half_a", "test_accuracy_half_b")


def wrong_names(dataset: GraphDataset) -> Iterator[str]:
    """Identifiers and labels."""
    table = dataset.table
    names = np.array(table["graph_id"].to_pylist())
    _, place, counts = np.unique(names, return_inverse=True, return_counts=True)
    yield from graphs_where(table, counts[place] > 1, "another graph has the same graph_id")
    pairs = zip(table["run_id"].to_pylist(), table["epoch"].to_pylist(), strict=True)
    expected = np.array([f"{run}@{epoch}" for run, epoch in pairs])
    yield from graphs_where(table, names != expected, "its graph_id is not <run_id>@<epoch>")
    for name in ACCURACIES:
        accuracy = table[name].to_numpy()
        yield from graphs_where(table, (accuracy < 0) | (accuracy > 1), f"its {name} is not within 0 and 1")
    manifest, left_out = dataset.files.manifest, dataset.left_out["graph_id"].to_pylist()
    part, table_end = table["part"].to_numpy(), 0
    for addition in manifest.additions:  # another addition may have what this one left out
        table_end += addition.num_tables
        first = manifest.parts_of(table_end - addition.num_tables).start
        added = names[(part >= first) & (part < manifest.parts_of(table_end - 1).stop)]
        others, left_out = left_out[: addition.num_left_out], left_out[addition.num_left_out :]
        for graph_id in sorted(set(others) & set(added.tolist()))[:1]:
            yield f"graph {graph_id}: left out, and in the dataset by the same addition"


def wrong_splits(dataset: GraphDataset) -> Iterator[str]:
    """A unit is on one side of every split, and on the side its rule says where one is given."""
    path, table = dataset.files.root / "manifest.json", dataset.table
    units = table["unit"].to_pylist()
    for name in (name for name in table.column_names if name.startswith("split")):
        sides = table[name].to_pylist()
        side_of = dict(zip(units, sides, strict=True))
        divided = np.array([side_of[unit] != side for unit, side in zip(units, sides, strict=True)])
        yield from graphs_where(table, divided, f"its unit has other graphs on another side of {name}")
        yield from graphs_where(table, ~np.isin(np.array(sides), SIDES), f"its {name} is none of {', '.join(SIDES)}")
    rules = dataset.files.manifest.options.get("splits", {})
    for name, document in rules.items() if isinstance(rules, dict) else ():
        if name not in table.column_names:
            yield f"{path}: a rule for {name}, which is no column"
            continue
        try:
            expected = np.array(SplitRule.parse(document).sides(table))
        except (ValueError, TypeError) as error:
            yield f"{path}: the rule of {name}: {error}"
            continue
        yield from graphs_where(
            table, np.array(table[name].to_pylist()) != expected, f"its {name} is not what its rule gives"
        )


def wrong_template(dataset: GraphDataset, digest: str, lengths: set[int], graph_id: str) -> list[str]:
    """A template must be readable, which includes law A: each value is carried by an edge; and fit its graphs."""
    try:
        template = dataset.templates[digest]
    except (ValueError, OSError) as error:
        return [str(error)]
    if others := lengths - {template.num_values}:
        what = f"its length is not {template.num_values}, as the template has values, but {min(others)}"
        return [f"graph {graph_id} or another of template {digest}: {what}"]
    return []


def wrong_graphs_of_part(dataset: GraphDataset, part: int, graphs: pa.Table) -> list[str]:
    """An array must be readable, every value finite; and where values are not rounded, their digests are the
    table's."""
    try:
        values = dataset.read_part(part)
    except (ValueError, OSError) as error:
        return [str(error)]
    offset, length = graphs["offset"].to_numpy(), graphs["length"].to_numpy()
    num_wrong = np.add.reduceat(~np.isfinite(values), offset, dtype=np.int64)
    findings = list(graphs_where(graphs, num_wrong > 0, "it has values that are not finite"))
    if dataset.files.manifest.dtype == "float32":
        spans = zip(offset.tolist(), length.tolist(), strict=True)
        found = np.array([values_sha256(values[start : start + count]) for start, count in spans])
        findings += graphs_where(
            graphs, found != np.array(graphs["values_sha256"].to_pylist()), "its values have another digest"
        )
    return findings


def graphs_where(table: pa.Table, wrong: Bool[np.ndarray, " num_graphs"], what: str) -> Iterator[str]:
    """A line for the first graph for which something is wrong, and how many more there are."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" (and {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        yield f"graph {table['graph_id'][int(rows[0])]}{more}: {what}"
