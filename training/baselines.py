"""What a metanetwork has to beat: predictions from simpler views of the same networks, fitted on the same rows.

    python -m training baselines --path runs/digits/graphs.zarr --out runs/digits/baselines

Reads   a dataset of graphs                                  (pipeline.graph_store)
Writes  OUT/<method>.parquet for the test split              (training.predictions)

``weight_statistics``  gradient-boosted trees on seven statistics of every tensor (Unterthiner et al. 2020)
``hyperparameters``    the same trees on the resolved configuration and the epoch
``training_accuracy``  the best monotone function of the training accuracy

Trees use scikit-learn's defaults throughout: no method is tuned here. A table of scores is printed; training accuracy
is left out where it is not known.
"""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from tqdm import tqdm

from pipeline.checked_files import refuse_inside_dataset
from pipeline.graph_store import GraphDataset
from training.metrics import kendall_tau, r_squared, unit_interval
from training.predictions import Prediction, write_predictions

METHODS = ("weight_statistics", "hyperparameters", "training_accuracy")
HEADING = f"{'method':<18} {'R²':>6}  {'95 % interval':<15}  {'Kendall τ':>9}  95 % interval"
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def baselines(path: str, out: Path, column: str = "test_accuracy", epochs: list[int] | None = None) -> None:
    """Fit every baseline on the training split and write its predictions of the test split.

    Args:
        path: a dataset made by ``python -m pipeline graphs``.
        out: folder of the predictions, one file per method.
        column: the numeric column to predict.
        epochs: checkpoints to use, by their epoch; all if left out.
    """
    from training.graph_data import GraphDataModule

    refuse_inside_dataset(out)
    data = GraphDataModule(path, column=column, epochs=epochs)
    data.setup()
    train, test = data.rows["train"], data.rows["test"]
    rows = np.concatenate([train, test])
    features = {
        "weight_statistics": weight_statistics(data.graphs, rows),
        "hyperparameters": hyperparameters(data.table, rows),
        "training_accuracy": data.table["train_accuracy"].to_numpy()[rows][:, None],
    }
    units = data.table["unit"].to_numpy()[test]
    lines = [f"Predicting {column} of {len(test):,} graphs of {len(np.unique(units)):,} units", "", HEADING]
    for method, inputs in features.items():
        if method == "training_accuracy" and not np.isfinite(inputs).all():
            lines.append(f"{method.replace('_', ' '):<18} not known of every graph")
            continue
        fit = fit_monotone if method == "training_accuracy" else fit_trees
        prediction = fit(inputs[: len(train)], data.target[train], inputs[len(train) :])
        found = [
            Prediction(row=row, target=float(data.target[row]), prediction=float(value))
            for row, value in zip(test.tolist(), prediction, strict=True)
        ]
        write_predictions(out / f"{method}.parquet", data.table, column, method, found)
        lines.append(score_line(method, data.target[test], prediction, units))
    print("\n".join(lines))
    print(f"\nwrote {out}: the predictions")


def score_line(
    method: str, target: Float64[np.ndarray, " n"], prediction: Float64[np.ndarray, " n"], units: np.ndarray
) -> str:
    """A method's scores, with intervals over units."""
    cells: list[str] = []
    for score in (r_squared, kendall_tau):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of few units: samples whose score is not defined
            low, high = unit_interval(score, target, prediction, units)
        cells += [f"{score(target, prediction):.3f}", f"{low:.3f} to {high:.3f}"]
    r2, r2_interval, tau, tau_interval = cells
    return f"{method.replace('_', ' '):<18} {r2:>6}  {r2_interval:<15}  {tau:>9}  {tau_interval}"


def weight_statistics(graphs: GraphDataset, rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n features"]:
    """Mean, standard deviation and five quantiles of every tensor, by tensor name; NaN where a network has no such
    tensor."""
    columns: dict[str, int] = {}
    found: list[dict[str, list[float]]] = []
    for row in tqdm(rows.tolist(), desc="weight statistics", unit="graph", disable=None):
        graph = graphs[row]
        statistics: dict[str, list[float]] = {}
        for slot in graph.template.tensors:
            values = graph.values[slot.offset : slot.offset + slot.size].astype(np.float64)
            statistics[slot.names[0]] = [values.mean(), values.std(), *np.quantile(values, QUANTILES)]
            columns.setdefault(slot.names[0], len(columns))
        found.append(statistics)
    table = np.full((len(rows), len(columns), 2 + len(QUANTILES)), np.nan)
    for place, statistics in enumerate(found):
        for name, numbers in statistics.items():
            table[place, columns[name]] = numbers
    return table.reshape(len(rows), -1)


def hyperparameters(table: pa.Table, rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n features"]:
    """Every resolved hyperparameter and the epoch as numbers; words by their alphabetical rank, unknown ones as NaN."""
    names = ["epoch", *(name for name in table.column_names if name.startswith("config."))]
    columns: list[np.ndarray] = []
    for name in names:
        column = table[name].to_numpy(zero_copy_only=False)[rows]
        if column.dtype == object:
            known = sorted({value for value in column if value is not None})
            column = np.array(
                [known.index(value) if value is not None else np.nan for value in column], dtype=np.float64
            )
        columns.append(column.astype(np.float64))
    return np.stack(columns, axis=1)


def fit_trees(
    inputs: Float64[np.ndarray, "n features"],
    target: Float64[np.ndarray, " n"],
    unseen: Float64[np.ndarray, "m features"],
) -> Float64[np.ndarray, " m"]:
    """Histogram gradient boosting of scikit-learn at its defaults, seeded; NaN is a value of its own to it. A column
    of nothing else, a hyperparameter that acts nowhere, it would not take."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    known = ~np.isnan(inputs).all(axis=0)
    return HistGradientBoostingRegressor(random_state=0).fit(inputs[:, known], target).predict(unseen[:, known])


def fit_monotone(
    inputs: Float64[np.ndarray, "n 1"], target: Float64[np.ndarray, " n"], unseen: Float64[np.ndarray, "m 1"]
) -> Float64[np.ndarray, " m"]:
    """Least squares among all non-decreasing functions of one number, constant outside the range seen."""
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(out_of_bounds="clip").fit(inputs[:, 0], target).predict(unseen[:, 0])
