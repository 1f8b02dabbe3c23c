"""The baselines: what they see, and that what acts nowhere is no obstacle."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.graph_store import open_graphs
from tiny_dataset import write_dataset
from training.__main__ import read_command
from training.baselines import METHODS, baselines, fit_monotone, fit_trees, hyperparameters, weight_statistics
from training.graph_data import GraphDataModule
from training.metrics import r_squared
from training.predictions import read_predictions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 23 runs with two checkpoints each."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), num_runs=23)


def test_hyperparameters_are_numbers_and_ranks_of_words() -> None:
    """Words by the alphabet; what is not given is NaN, also where nothing is."""
    table = pa.table(
        {
            "epoch": [1, 2, 4],
            "test_accuracy": [0.1, 0.2, 0.3],
            "config.optimizer": ["sgd", "adam", "sgd"],
            "config.momentum": [0.9, None, 0.5],
            "config.weight_decay": pa.array([None, None, None], pa.float64()),
        }
    )
    found = hyperparameters(table, np.array([2, 1]))
    assert np.array_equal(found, [[4, 1, 0.5, np.nan], [2, 0, np.nan, np.nan]], equal_nan=True)


def test_a_column_of_nothing_changes_no_tree() -> None:
    rng = np.random.default_rng(0)
    inputs, unseen = rng.random((100, 3)), rng.random((20, 3))
    target = inputs[:, 0] + (inputs[:, 1] > 0.5)
    expected = fit_trees(inputs, target, unseen)
    nothing = np.full((100, 1), np.nan)
    assert np.array_equal(fit_trees(np.c_[nothing, inputs], target, np.c_[nothing[:20], unseen]), expected)
    assert np.corrcoef(expected, unseen[:, 0] + (unseen[:, 1] > 0.5))[0, 1] > 0.9


def test_the_best_monotone_function_pools_what_is_out_of_order() -> None:
    """By hand: 3 and 1 stand in the wrong order and become their mean; outside, the ends go on."""
    found = fit_monotone(np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 3.0, 1.0]), np.array([[-1.0], [1.5], [9.0]]))
    assert found.tolist() == [0.0, 2.0, 2.0]


def test_statistics_are_those_of_every_tensor(dataset: Path) -> None:
    opened = open_graphs(dataset)
    graph = opened[3]
    [row] = weight_statistics(opened, np.array([3]))
    weight = graph.state_dict()[graph.template.tensors[0].names[0]].double().numpy()
    expected = [weight.mean(), weight.std(), *np.quantile(weight, [0, 0.25, 0.5, 0.75, 1])]
    assert row[:7] == pytest.approx(expected)
    assert len(row) == 7 * len(graph.template.tensors)


def test_every_method_predicts_the_test_split(dataset: Path, tmp_path: Path) -> None:
    read_command(["baselines", f"--path={dataset}", f"--out={tmp_path}"])()
    test = open_graphs(dataset).split("test").table
    for method in METHODS:
        found = read_predictions(tmp_path / f"{method}.parquet")
        assert found["graph_id"].to_pylist() == test["graph_id"].to_pylist()
        assert np.isfinite(found["prediction"].to_numpy()).all()


def test_scores_are_printed_and_an_unknown_training_accuracy_is_said(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baselines(str(dataset), tmp_path / "known")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:18].strip() for line in lines[3:6]] == [method.replace("_", " ") for method in METHODS]
    assert max(map(len, lines[:6])) <= 80
    for line, method in zip(lines[3:6], METHODS, strict=True):
        found = read_predictions(tmp_path / "known" / f"{method}.parquet")
        expected = r_squared(found["target"].to_numpy(), found["prediction"].to_numpy())
        assert float(line[18:].split()[0]) == pytest.approx(expected, abs=0.0006)

    def unknown(path: str, **settings: object) -> GraphDataModule:
        data = GraphDataModule(path, **settings)  # pyright: ignore[reportArgumentType]
        setup = data.setup

        def forget(stage: str | None = None) -> None:
            setup(stage)
            place = data.table.column_names.index("train_accuracy")
            data.table = data.table.set_column(place, "train_accuracy", [np.full(len(data.table), np.nan)])

        data.setup = forget
        return data

    monkeypatch.setattr("training.graph_data.GraphDataModule", unknown)
    baselines(str(dataset), tmp_path / "unknown")
    assert "training accuracy  not known of every graph" in capsys.readouterr().out
    assert not (tmp_path / "unknown" / "training_accuracy.parquet").exists()
