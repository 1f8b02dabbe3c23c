"""What a person sees of a dataset or a zoo: the right numbers, in 80 columns."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.graph_store import open_graphs
from pipeline.inspect_graphs import inspect
from tiny_dataset import make_tiny_dataset


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def printed(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    inspect(path)
    return capsys.readouterr().out.splitlines()


def test_a_dataset_fits_80_columns_and_tells_its_numbers(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(tiny_dataset, capsys)
    assert lines[0] == f"Dataset {tiny_dataset}"
    assert max(map(len, lines[1:])) <= 80
    text = "\n".join(lines)
    for fact in (
        "graphs       13 checkpoints of 5 runs\n  left out     2 diverged",
        "size         0.3 MB, 5 parts, 20 files; float32",
        "split        train 4, test 9",
        "templates    2",
        "7 graphs of 63 nodes, 4,970 edges, 4,970 values",
        open_graphs(tiny_dataset).files.manifest.digest,
    ):
        assert fact in text


def test_the_quantiles_of_each_split_are_those_of_its_test_accuracies(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = open_graphs(tiny_dataset).split("train").table["test_accuracy"].to_numpy()
    [line] = [line for line in printed(tiny_dataset, capsys) if line.startswith("    train ")]
    shown = [float(number) for number in line.split()[1:]]
    assert shown[0] == pytest.approx(accuracy.min(), abs=5e-4)
    assert shown[3] == pytest.approx(np.median(accuracy), abs=5e-4)
    assert shown[6] == pytest.approx(accuracy.max(), abs=5e-4)


def test_the_first_row_is_shown_with_its_whole_configuration(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = open_graphs(tiny_dataset).table
    lines = printed(tiny_dataset, capsys)
    shown = dict(line.split(maxsplit=1) for line in lines[lines.index("  first row") + 1 :])
    assert list(shown) == table.column_names
    assert shown["graph_id"] == table["graph_id"][0].as_py()
    assert shown["config.optimizer"] == table["config.optimizer"][0].as_py()


def test_a_zoo_is_shown_with_its_summary_and_first_row(tiny_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(tiny_dataset.parent / "zoo", capsys)
    assert max(map(len, lines[1:])) <= 80
    assert any(line.split() == ["chunks", "2", "of", "2,", "0.3", "MB"] for line in lines)
    assert "  first row" in lines
    assert any(line.startswith("    config.learning_rate") for line in lines)


def test_a_folder_that_is_neither_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a zoo nor a dataset of parameter graphs here"):
        inspect(tmp_path)
