"""Predictions on disk: one parquet file per method, joined to the dataset by graph id.

Reads   predictions and the dataset's table         `write_predictions`
Writes  ``graph_id, run_id, unit, epoch, column, method, target, prediction``, one row per graph
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_files import read_table

FILE_NAME = "predictions.parquet"
COLUMNS = ("graph_id", "run_id", "unit", "epoch", "column", "method", "target", "prediction")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One graph's prediction."""

    row: int
    """Row of the dataset's table."""
    target: float
    prediction: float


def write_predictions(path: Path, table: pa.Table, column: str, method: str, predictions: Sequence[Prediction]) -> None:
    """Write the predictions of one method; the file appears whole or not at all."""
    rows = table.select(["graph_id", "run_id", "unit", "epoch"]).take([one.row for one in predictions])
    written = (
        rows.append_column("column", pa.array([column] * len(rows), pa.string()))
        .append_column("method", pa.array([method] * len(rows), pa.string()))
        .append_column("target", pa.array([one.target for one in predictions], pa.float64()))
        .append_column("prediction", pa.array([one.prediction for one in predictions], pa.float64()))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    pq.write_table(written, aside)
    aside.replace(path)


def read_predictions(path: Path) -> pa.Table:
    """The predictions of one method.

    Raises:
        ValueError: no such file, one that is damaged or of something else, or a prediction that is no number.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file; make it with python -m training predict or baselines")
    try:
        table = read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    if tuple(table.column_names) != COLUMNS:
        raise ValueError(f"{path}: columns are {', '.join(table.column_names)}; expected {', '.join(COLUMNS)}")
    predictions = table["prediction"].to_numpy()
    wrong = np.flatnonzero(~np.isfinite(predictions)).tolist()
    if wrong:
        raise ValueError(
            f"{path}: the prediction for graph {table['graph_id'][wrong[0]]} is {predictions[wrong[0]]}, and "
            f"{len(wrong):,} of {len(predictions):,} are not finite; expected numbers: predict again with a checkpoint "
            "that has not diverged, or leave the file out"
        )
    return table


def column_names(path: Path) -> tuple[str, ...]:
    """The columns of a Parquet file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ValueError:
    """The error of a file that is cut short or no Parquet file at all."""
    return ValueError(
        f"{path}: not a readable Parquet file ({error}); delete it, and make predictions again with python -m training "
        "predict or baselines"
    )
