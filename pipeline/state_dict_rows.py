"""The rows of a folder of state dicts: what its files are, as columns.

Reads   nothing
Writes  nothing
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.file_labels import ARGUMENT, CONFIG, Cells, identity
from pipeline.parameter_graph import GraphTemplate
from pipeline.source_tables import LABELS, checkpoint_ranks, source_rows
from pipeline.state_dict_files import StateDictFile
from pipeline.text_tables import label, typed, whole_number

OWN_COLUMNS = {"run_id", "unit", "epoch", "step", "file", *LABELS}
"""Cells that fill columns every dataset has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkFile:
    """A file whose network is known."""

    path: str
    """Below the folder."""
    graph_id: str
    architecture: str
    """Canonical JSON."""
    template: GraphTemplate
    values: StateDictFile
    values_sha256: str = ""
    """Known when it was read."""


def network_rows(files: Sequence[NetworkFile], cells: Mapping[str, Cells], family: str) -> pa.Table:
    """A row for each file (`pipeline.graph_source.SOURCE_COLUMNS` and more), by graph_id.

    Args:
        files: those that are taken.
        cells: of all files with a name, by path. Types of columns and ranks of checkpoints follow from all of them, so
            that a broken file changes nothing but its own row.
    """
    position = {path: index for index, path in enumerate(cells)}
    rows = [position[file.path] for file in files]
    known = list(cells.values())
    identities = [identity(path, row) for path, row in cells.items()]
    ranks = checkpoint_ranks([run_id for run_id, _, _ in identities], [epoch for _, _, epoch in identities])
    columns = {
        "graph_id": [file.graph_id for file in files],
        "run_id": [identities[row][0] for row in rows],
        "unit": [identities[row][1] for row in rows],
        "epoch": [identities[row][2] for row in rows],
        "checkpoint": ranks[rows],
        "step": [whole_number(known[row].get("step") or "0") for row in rows],
        "template": [file.template.digest for file in files],
        "family": [family] * len(files),
        "file": range(len(files)),
        "file_offset": [0] * len(files),
        "length": [file.template.num_values for file in files],
        "values_sha256": [file.values_sha256 for file in files],
        **{name: [label(known[row].get(name)) for row in rows] for name in LABELS},
        "architecture": [file.architecture for file in files],
    }
    names = [name for name in known[0] if name not in OWN_COLUMNS]
    further = {
        CONFIG + name.removeprefix(ARGUMENT) if name.startswith(ARGUMENT) else name: typed(
            [row[name] for row in known]
        ).take(pa.array(rows, pa.int64()))
        for name in sorted(names, key=lambda name: name.startswith((ARGUMENT, CONFIG)))
    }
    return source_rows(columns, further)
