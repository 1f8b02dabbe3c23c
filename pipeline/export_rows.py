"""The graphs of a dataset one by one with their rows, in the order they lie on disk, and the label that matters most.

Reads   a `GraphDataset`: each part once, a few hundred rows at a time
Writes  nothing
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.graph_store import GraphDataset
from pipeline.parameter_graph import ParameterGraph
from pipeline.progress import progress_bar

ROWS_AT_ONCE = 256
MAIN_LABELS = {"test_accuracy": "test accuracy", "psnr": "PSNR in dB"}
"""By column, in words; the first that is known of any graph is the main one."""


def walk(dataset: GraphDataset) -> Iterator[tuple[dict[str, Any], ParameterGraph]]:
    """Every graph and its row, by part and offset, with a progress bar."""
    order = order_on_disk(dataset.table)
    with progress_bar("exporting", "graphs", len(order)) as bar:
        for first in range(0, len(order), ROWS_AT_ONCE):
            chosen = order[first : first + ROWS_AT_ONCE]
            for index, row in zip(chosen.tolist(), dataset.table.take(chosen).to_pylist(), strict=True):
                yield row, dataset[index]
                bar.update()


def order_on_disk(table: pa.Table) -> Int64[np.ndarray, " num_graphs"]:
    """Rows by part, then offset."""
    return np.lexsort((table["offset"].to_numpy(), table["part"].to_numpy()))


def main_label(table: pa.Table) -> str | None:
    """The column of `MAIN_LABELS` to predict: the first that some graph has a finite number in."""
    for name in MAIN_LABELS:
        if name in table.column_names and np.isfinite(numbers(table, name)).any():
            return name
    return None


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """A column of numbers as float64, NaN where it is null."""
    return table[column].to_numpy(zero_copy_only=False).astype(np.float64)
