"""Scores of predictions: what they are, over what they vary, and which files do not belong together."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from analysis.scores import (
    CEILING,
    differences,
    find_predictions,
    method_name,
    number,
    read_evaluation,
    score_methods,
    scores_table,
    scores_text,
)
from training.predictions import Prediction, write_predictions

NUM_RUNS, EPOCHS = 23, (1, 4, 16)


def dataset(num_runs: int = NUM_RUNS, split: str = "test") -> pa.Table:
    """Rows of held-out runs, in no particular order."""
    rng = np.random.default_rng(0)
    rows = [(run, epoch) for run in range(num_runs) for epoch in EPOCHS]
    halves = np.clip(np.linspace(0.1, 0.9, len(rows)) + rng.normal(0, 0.02, (2, len(rows))), 0, 1)
    table = pa.table(
        {
            "graph_id": [f"run{run:03d}@{epoch}" for run, epoch in rows],
            "run_id": [f"run{run:03d}" for run, _ in rows],
            "unit": [f"run{run:03d}" for run, _ in rows],
            "epoch": pa.array([epoch for _, epoch in rows], pa.int32()),
            "split": [split] * len(rows),
            "test_accuracy": halves.mean(axis=0),
            "test_accuracy_half_a": halves[0],
            "test_accuracy_half_b": halves[1],
            "test_loss": rng.random(len(rows)),
        }
    )
    return table.take(rng.permutation(len(rows)))


def write(path: Path, table: pa.Table, noise: float, column: str = "test_accuracy", method: str = "gmn") -> Path:
    """Predictions of all rows, off by some noise."""
    target = table[column].to_numpy()
    off = np.random.default_rng(1).normal(0, noise, len(target)) if noise else np.zeros(len(target))
    rows = np.random.default_rng(2).permutation(len(target)).tolist()
    found = [Prediction(row=row, target=float(target[row]), prediction=float(target[row] + off[row])) for row in rows]
    write_predictions(path, table, column, method, found)
    return path


def test_predictions_are_joined_by_graph_and_scored(tmp_path: Path) -> None:
    table = dataset()
    paths = [write(tmp_path / f"{name}.parquet", table, noise) for name, noise in (("good", 0.05), ("perfect", 0.0))]
    evaluation = read_evaluation(paths, table)
    assert (evaluation.column, evaluation.rows.num_rows, evaluation.num_units) == ("test_accuracy", 69, 23)
    perfect, good, ceiling = score_methods(evaluation)
    assert [perfect.name, good.name, ceiling.name] == ["perfect", "good", CEILING], "the best first, the ceiling last"
    assert perfect.r_squared.value == perfect.kendall_tau.value == 1
    target = table["test_accuracy"].to_numpy()
    off = np.random.default_rng(1).normal(0, 0.05, 69)
    assert good.r_squared.value == pytest.approx(1 - (off**2).sum() / ((target - target.mean()) ** 2).sum())
    assert good.r_squared.low < good.r_squared.value < good.r_squared.high


def test_the_ceiling_is_the_agreement_of_the_halves(tmp_path: Path) -> None:
    table = dataset()
    ceiling = score_methods(read_evaluation([write(tmp_path / "a.parquet", table, 0.1)], table))[-1]
    r = np.corrcoef(table["test_accuracy_half_a"].to_numpy(), table["test_accuracy_half_b"].to_numpy())[0, 1]
    assert ceiling.r_squared.value == pytest.approx(2 * r / (1 + r))
    assert ceiling.kendall_tau.value < 1


def test_other_columns_have_no_ceiling(tmp_path: Path) -> None:
    table = dataset()
    evaluation = read_evaluation([write(tmp_path / "a.parquet", table, 0.1, column="test_loss")], table)
    scores = score_methods(evaluation)
    assert [row.name for row in scores] == ["a"]
    assert "ceiling" not in "\n".join(scores_text(evaluation, scores))


def test_differences_are_paired(tmp_path: Path) -> None:
    """A method and its copy differ by exactly nothing on every bootstrap sample, however noisy both are."""
    table = dataset()
    paths = [write(tmp_path / f"{name}.parquet", table, noise) for name, noise in (("a", 0.2), ("b", 0.2), ("c", 0.0))]
    evaluation = read_evaluation(paths, table)
    scores = score_methods(evaluation)
    found = differences(evaluation, [row.name for row in scores])
    assert [(row.better, row.worse) for row in found] == [("c", "a"), ("c", "b"), ("a", "b")]
    copy = found[-1].difference
    assert (copy.value, copy.low, copy.high) == (0, 0, 0)
    assert scores[1].r_squared.high - scores[1].r_squared.low > 0.05
    assert found[0].difference.value == pytest.approx(scores[0].r_squared.value - scores[1].r_squared.value)


def test_a_constant_prediction_has_no_tau_and_no_interval(tmp_path: Path) -> None:
    table = dataset()
    target = table["test_accuracy"].to_numpy()
    rows = [Prediction(row=row, target=float(value), prediction=0.5) for row, value in enumerate(target)]
    write_predictions(tmp_path / "constant.parquet", table, "test_accuracy", "gmn", rows)
    evaluation = read_evaluation([tmp_path / "constant.parquet"], table)
    scores = score_methods(evaluation)
    assert np.isnan([scores[0].kendall_tau.value, scores[0].kendall_tau.low]).all()
    assert "–" in scores_text(evaluation, scores)[3]


def test_the_saved_table_has_every_score(tmp_path: Path) -> None:
    table = dataset()
    evaluation = read_evaluation([write(tmp_path / "a.parquet", table, 0.1)], table)
    scores = score_methods(evaluation)
    rows = scores_table(evaluation, scores).to_pylist()
    assert [row["method"] for row in rows] == ["a", CEILING]
    assert {(row["n_graphs"], row["n_runs"], row["column"]) for row in rows} == {(69, 23, "test_accuracy")}
    assert rows[0]["r_squared"] == scores[0].r_squared.value
    assert rows[0]["kendall_tau_high"] == scores[0].kendall_tau.high


def test_the_terminal_table_fits_80_columns(tmp_path: Path) -> None:
    table = dataset()
    path = write(tmp_path / "a_method_of_25_characters.parquet", table, 3.0)
    evaluation = read_evaluation([path], table)
    lines = scores_text(evaluation, score_methods(evaluation))
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Predicting test accuracy of held-out networks: 69 graphs of 23 runs"
    assert lines[2].index("Kendall") < lines[2].rindex("95 % interval")
    assert any(line.startswith(CEILING) and "≥ 0." in line for line in lines)


def test_names_come_from_folders_or_files() -> None:
    assert method_name(Path("runs/gmn-seed-0/predictions.parquet")) == "gmn seed 0"
    assert method_name(Path("runs/weight_statistics.parquet")) == "weight statistics"


def test_numbers_have_true_minus_signs_and_dashes() -> None:
    assert [number(value) for value in (0.5, -0.25, -149.13, np.nan)] == ["0.500", "−0.250", "−149.1", "–"]


def test_predictions_are_found_in_a_folder_and_the_folders_in_it(tmp_path: Path) -> None:
    table = dataset()
    inner = write(tmp_path / "gmn" / "predictions.parquet", table, 0.1)
    outer = write(tmp_path / "a.parquet", table, 0.1)
    write(tmp_path / "deep" / "er" / "and" / "er" / "predictions.parquet", table, 0.1)
    pq.write_table(table, tmp_path / "other.parquet")
    assert find_predictions([tmp_path]) == [outer, inner]
    assert find_predictions([inner]) == [inner]
    with pytest.raises(ValueError, match=r"deep: no predictions here; make them with python -m training predict"):
        find_predictions([tmp_path / "deep"])


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "predictions" / "cut.parquet", dataset(), 0.1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match=r"cut.parquet: not a readable Parquet file \(.*delete it, and make predictions"
    ):
        find_predictions([tmp_path / "predictions"])
    assert "cut.parquet: not a readable Parquet file" in refusal([path], dataset())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    table = dataset()
    target = table["test_accuracy"].to_numpy()
    found = [
        Prediction(row=row, target=float(target[row]), prediction=value if row in (5, 7) else 0.5)
        for row in range(len(target))
    ]
    write_predictions(tmp_path / "lost.parquet", table, "test_accuracy", "gmn", found)
    graph = table["graph_id"][5].as_py()
    assert (
        f"lost.parquet: the prediction for graph {graph} is {value}, and 2 of 69 are not finite; expected"
        in refusal([tmp_path / "lost.parquet"], table)
    )


def refusal(paths: list[Path], table: pa.Table) -> str:
    with pytest.raises(ValueError, match=".+") as error:
        read_evaluation(paths, table)
    return str(error.value)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    table = dataset()
    good = write(tmp_path / "good.parquet", table, 0.1)
    copy = write(tmp_path / "other" / "good.parquet", table, 0.1)
    assert "good.parquet are both called 'good'" in refusal([good, copy], table)
    fewer = write(tmp_path / "fewer.parquet", table.slice(0, 60), 0.1)
    assert "fewer.parquet and" in refusal([good, fewer], table)
    assert "predict different graphs (60 and 69; the first: 'run" in refusal([good, fewer], table)
    loss = write(tmp_path / "loss.parquet", table, 0.1, column="test_loss")
    assert "loss.parquet: predicts ['test_loss'], but" in refusal([good, loss], table)
    assert "no such file" in refusal([tmp_path / "missing.parquet"], table)


def test_predictions_of_another_dataset_are_refused(tmp_path: Path) -> None:
    table = dataset()
    good = write(tmp_path / "good.parquet", table, 0.1)
    fewer = table.filter(pc.field("unit") != "run005")
    assert "graph 'run005@1' is not in the dataset" in refusal([good], fewer)
    place = table.column_names.index("test_accuracy")
    moved = table.set_column(place, "test_accuracy", pa.array(table["test_accuracy"].to_numpy() + 0.25))
    assert "the predictions were made for another dataset" in refusal([good], moved)
    assert "predicts ['test_accuracy']; expected one column of the dataset" in refusal(
        [good], table.drop_columns("test_accuracy")
    )


def test_training_graphs_are_no_evidence(tmp_path: Path) -> None:
    table = dataset(split="train")
    path = write(tmp_path / "good.parquet", table, 0.1)
    assert "is of the training split; scores are for held-out networks only" in refusal([path], table)
