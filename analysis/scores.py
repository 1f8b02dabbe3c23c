"""What predictions of held-out networks are worth, beside the score that noise in the measured accuracy allows.

Reads   prediction files (training.predictions) and the rows of the dataset they were made for
Writes  `Score`s with 95 % intervals over runs, and a table of them

All methods are scored on the same graphs. Checkpoints of one run are not independent of each other, so intervals and
differences are taken over whole runs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from analysis.names import counted, readable
from training.metrics import kendall_tau, r_squared, split_half_reliability, unit_interval
from training.predictions import COLUMNS, column_names, read_predictions

CEILING = "split-half ceiling"
BOUND = "≥ "
"""Before the τ of the ceiling, which is a lower bound."""
CEILING_COLUMN = "test_accuracy"
"""The one column whose noise is known: the dataset has the accuracy on both halves of the test images."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """One way of predicting, on the rows of an `Evaluation`."""

    name: str
    kind: str
    """What the prediction file calls it: ``gmn``, ``weight_statistics``, ..."""
    prediction: Float64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Predictions of several methods for the same graphs."""

    column: str
    """What was predicted."""
    rows: pa.Table
    """Of the dataset's table: the graphs that were predicted."""
    target: Float64[np.ndarray, " n"]
    methods: tuple[Method, ...]

    @property
    def unit(self) -> np.ndarray:
        """The unit of each graph."""
        return np.array(self.rows["unit"].to_pylist(), dtype=np.str_)

    @property
    def num_units(self) -> int:
        return len(self.rows["unit"].unique())


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """How well one method does, or, for `CEILING`, how well any could."""

    name: str
    r_squared: Score
    kendall_tau: Score


@dataclass(frozen=True, kw_only=True)
class Difference:
    """R² of one method less that of another, on the same graphs."""

    better: str
    worse: str
    difference: Score


def find_predictions(paths: Iterable[Path]) -> list[Path]:
    """Every prediction file that a path is, or that a folder or one of the folders in it holds.

    Raises:
        ValueError: a path without predictions, or a Parquet file in it that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [file for depth in ("*.parquet", "*/*.parquet") for file in sorted(path.glob(depth))]
        inside = [file for file in inside if column_names(file) == COLUMNS]
        if not inside:
            raise ValueError(f"{path}: no predictions here; make them with python -m training predict or baselines")
        found += inside
    return found


def method_name(path: Path) -> str:
    """``gmn-seed-0/predictions.parquet`` and ``gmn-seed-0.parquet`` are both called "gmn seed 0"."""
    return readable(path.absolute().parent.name if path.stem == "predictions" else path.stem)


def read_evaluation(paths: Sequence[Path], table: pa.Table) -> Evaluation:
    """The predictions in these files, joined by graph id to the dataset's table.

    Raises:
        ValueError: files of one name, of other graphs, columns or targets than the dataset's, or training graphs.
    """
    predictions: dict[str, pa.Table] = {}
    path_of: dict[str, Path] = {}
    for path in paths:
        name = method_name(path)
        if name in path_of:
            raise ValueError(f"{path_of[name]} and {path} are both called {name!r}; rename a folder or leave one out")
        found = read_predictions(path)
        path_of[name], predictions[name] = path, found.take(np.argsort(found["graph_id"].to_numpy()))
    first = path_of[next(iter(path_of))]
    column, rows = rows_of(first, predictions[method_name(first)], table)
    target = rows[column].to_numpy().astype(np.float64)
    for name, mine in predictions.items():
        check_predictions(path_of[name], mine, first, column, rows)
    methods = tuple(
        Method(name=name, kind=mine["method"][0].as_py(), prediction=mine["prediction"].to_numpy())
        for name, mine in predictions.items()
    )
    return Evaluation(column=column, rows=rows, target=target, methods=methods)


def rows_of(path: Path, predictions: pa.Table, table: pa.Table) -> tuple[str, pa.Table]:
    """The predicted column, and the dataset's rows of the graphs in a file, in its order."""
    columns = predictions["column"].unique().to_pylist()
    if len(columns) != 1 or columns[0] not in table.column_names:
        raise ValueError(f"{path}: predicts {columns}; expected one column of the dataset")
    place_of = {graph: place for place, graph in enumerate(table["graph_id"].to_pylist())}
    graphs = predictions["graph_id"].to_pylist()
    for graph in (graph for graph in graphs if graph not in place_of):
        raise ValueError(f"{path}: graph {graph!r} is not in the dataset; give the one the predictions were made for")
    rows = table.take([place_of[graph] for graph in graphs])
    sides = rows["split"].to_pylist()
    if "train" in sides:
        graph = rows["graph_id"][sides.index("train")].as_py()
        raise ValueError(f"{path}: graph {graph!r} is of the training split; scores are for held-out networks only")
    return columns[0], rows


def check_predictions(path: Path, predictions: pa.Table, first: Path, column: str, rows: pa.Table) -> None:
    """Refuse predictions of something else than the rows."""
    if (columns := predictions["column"].unique().to_pylist()) != [column]:
        raise ValueError(f"{path}: predicts {columns}, but {first} predicts {column!r}; scores of both do not compare")
    graphs, expected = predictions["graph_id"].to_pylist(), rows["graph_id"].to_pylist()
    if graphs != expected:
        different = sorted(set(graphs) ^ set(expected)) or ["one twice"]
        raise ValueError(
            f"{path} and {first} predict different graphs ({len(graphs)} and {len(expected)}; the first: "
            f"{different[0]!r}); make both for the same split and epochs"
        )
    target, found = rows[column].to_numpy(), predictions["target"].to_numpy()
    for place in np.flatnonzero(target != found)[:1].tolist():
        raise ValueError(
            f"{path}: target of graph {graphs[place]!r} is {found[place]}, the dataset has {target[place]}; "
            "the predictions were made for another dataset"
        )


def score_methods(evaluation: Evaluation) -> list[MethodScores]:
    """Scores of all methods, the highest R² first, then the ceiling where it is known."""
    target, unit = evaluation.target, evaluation.unit
    found = [
        MethodScores(
            name=method.name,
            r_squared=score(r_squared, target, method.prediction, unit),
            kendall_tau=score(kendall_tau, target, method.prediction, unit),
        )
        for method in evaluation.methods
    ]
    found.sort(key=lambda scores: -np.nan_to_num(scores.r_squared.value, nan=-np.inf))
    if evaluation.column == CEILING_COLUMN:
        half_a, half_b = (
            evaluation.rows[f"{CEILING_COLUMN}_half_{half}"].to_numpy().astype(np.float64) for half in "ab"
        )
        reliability = score(split_half_reliability, half_a, half_b, unit)
        found.append(
            MethodScores(name=CEILING, r_squared=reliability, kendall_tau=score(kendall_tau, half_a, half_b, unit))
        )
    return found


def score(
    measure: Callable[[np.ndarray, np.ndarray], float],
    target: Float64[np.ndarray, " n"],
    prediction: Float64[np.ndarray, " n"],
    unit: np.ndarray,
) -> Score:
    """A score and its interval over units; no interval of what is not defined."""
    value = measure(target, prediction)
    low, high = (np.nan, np.nan) if np.isnan(value) else unit_interval(measure, target, prediction, unit)
    return Score(value=value, low=low, high=high)


def differences(evaluation: Evaluation, ranking: Sequence[str]) -> list[Difference]:
    """R² of every method less that of every one ranked below it: paired, both scored on the same samples of units."""
    prediction = {method.name: method.prediction for method in evaluation.methods}
    names = [name for name in ranking if name in prediction]
    return [
        Difference(better=better, worse=worse, difference=difference(evaluation, prediction[better], prediction[worse]))
        for place, better in enumerate(names)
        for worse in names[place + 1 :]
    ]


def difference(evaluation: Evaluation, better: Float64[np.ndarray, " n"], worse: Float64[np.ndarray, " n"]) -> Score:
    """R² of one prediction less that of another."""

    def measure(target: np.ndarray, place: np.ndarray) -> float:
        rows = place.astype(np.int64)
        return r_squared(target, better[rows]) - r_squared(target, worse[rows])

    return score(measure, evaluation.target, np.arange(len(better), dtype=np.float64), evaluation.unit)


def scores_table(evaluation: Evaluation, scores: Sequence[MethodScores]) -> pa.Table:
    """One row per method, as it is saved."""
    columns: dict[str, list] = {
        "method": [row.name for row in scores],
        "column": [evaluation.column] * len(scores),
        "n_graphs": [evaluation.rows.num_rows] * len(scores),
        "n_runs": [evaluation.num_units] * len(scores),
    }
    for name in ("r_squared", "kendall_tau"):
        for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            columns[name + suffix] = [getattr(getattr(row, name), end) for row in scores]
    return pa.table(columns)


def scores_text(evaluation: Evaluation, scores: Sequence[MethodScores]) -> list[str]:
    """The table for a terminal of 80 columns."""
    width = max(len("method"), *(len(row.name) for row in scores))
    n = f"{counted(evaluation.rows.num_rows, 'graph')} of {counted(evaluation.num_units, 'run')}"
    lines = [
        f"Predicting {readable(evaluation.column)} of held-out networks: {n}",
        "",
        f"{'method':<{width}}  {'R²':>6}  {'95 % interval':<16}  {'Kendall τ':>9}  95 % interval",
    ]
    for row in scores:
        sign = BOUND if row.name == CEILING else ""
        first, second = row.r_squared, row.kendall_tau
        line = f"{row.name:<{width}}  {number(first.value):>6}  {interval(first):<16}"
        lines.append(f"{line}  {sign + number(second.value):>9}  {interval(second)}".rstrip())
    if scores[-1].name == CEILING:
        lines += ["", f"{BOUND}τ between the two halves of the test images; the ceiling of τ is higher"]
    return lines


def interval(score: Score) -> str:
    """Both ends, or nothing."""
    return "" if np.isnan(score.low) else f"{number(score.low)} to {number(score.high)}"


def number(value: float) -> str:
    """Three decimals, fewer of large numbers; a true minus sign; a dash for what is not defined."""
    text = "–" if np.isnan(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
    return text.replace("-", "−")
