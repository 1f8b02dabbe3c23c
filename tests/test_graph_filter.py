"""Graphs chosen by expressions, by splits and by rows: the same graphs whatever the way to them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.parquet_files import where
from tiny_dataset import make_tiny_dataset


@pytest.fixture(name="dataset", scope="module")
def shared_dataset(tmp_path_factory: pytest.TempPathFactory) -> GraphDataset:
    return open_graphs(make_tiny_dataset(tmp_path_factory.getbasetemp()))


def ids(dataset: GraphDataset) -> list[str]:
    return dataset.table["graph_id"].to_pylist()


def the_same(one: GraphDataset, other: GraphDataset) -> bool:
    """The same rows, and the same values behind them."""
    return one.table.equals(other.table) and all(
        a.values.tobytes() == b.values.tobytes() and a.template.digest == b.template.digest
        for a, b in zip(one, other, strict=True)
    )


TABLE = pa.table(
    {
        "number": [0.5, None, float("nan"), 2.0, -1.0],
        "count": pa.array([1, 2, None, 4, 5]),
        "word": ["x", "y", None, "x", ""],
        "repeated": pa.array(["x", "y", None, "x", "z"]).dictionary_encode(),
        "flag": [True, False, None, True, False],
    }
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (pc.field("number") > 0, [0, 3]),
        (pc.field("number") <= 2, [0, 3, 4]),
        (pc.field("count") == 4, [3]),
        ((pc.field("count") > 1) & (pc.field("word") == "x"), [3]),
        ((pc.field("count") == 1) | (pc.field("word") == "y"), [0, 1]),
        (~(pc.field("word") == "x"), [1, 4]),
        (pc.field("word").isin(["x", ""]), [0, 3, 4]),
        (pc.field("count").isin([5, 1, 7]), [0, 4]),
        (pc.field("number").is_null(), [1]),
        (pc.field("number").is_nan(), [2]),
        (pc.field("word").is_valid(), [0, 1, 3, 4]),
        (pc.field("flag"), [0, 3]),
        (pc.field("repeated") == "x", [0, 3]),
        (pc.field("repeated") != "x", [1, 4]),
        (pc.field("repeated").isin(["z", "y"]), [1, 4]),
        (pc.scalar(True), [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_an_expression_holds_for_rows_as_counted_by_hand_and_nowhere_for_a_null(
    expression: pc.Expression, expected: list[int]
) -> None:
    assert where(TABLE, expression).tolist() == expected
    chunked = pa.concat_tables([TABLE.slice(0, 2), TABLE.slice(2, 1), TABLE.slice(3)])
    assert where(chunked, expression).tolist() == expected


@given(numbers=st.lists(st.none() | st.integers(-3, 3), max_size=300), bound=st.integers(-3, 3))
def test_rows_are_found_in_their_order(numbers: list[int | None], bound: int) -> None:
    table = pa.table({"number": pa.array(numbers, type=pa.int64())})
    expected = [row for row, number in enumerate(numbers) if number is not None and number > bound]
    assert where(table, pc.field("number") > bound).tolist() == expected


def test_many_rows_are_found_in_their_order() -> None:
    """More than one batch of 32,768 rows."""
    numbers = np.random.default_rng(0).permutation(100_003)
    assert np.array_equal(where(pa.table({"n": numbers}), pc.field("n") < 50_021), np.flatnonzero(numbers < 50_021))


def test_a_filter_gives_the_graphs_whose_rows_it_holds_for(dataset: GraphDataset) -> None:
    accuracy = dataset.table["test_accuracy"].to_numpy()
    bound = float(np.median(accuracy))
    chosen = dataset.filter(pc.field("test_accuracy") > bound)
    rows = np.flatnonzero(accuracy > bound)
    assert 0 < len(rows) < 13
    assert the_same(chosen, dataset.select(rows))
    assert ids(chosen) == [ids(dataset)[row] for row in rows]
    assert chosen[1].values.tobytes() == dataset[int(rows[1])].values.tobytes()


def test_long_texts_that_are_stored_once_are_compared_as_texts(dataset: GraphDataset) -> None:
    """`template` and `architecture` are dictionary-encoded in an open dataset."""
    assert pa.types.is_dictionary(dataset.table.schema.field("template").type)
    for digest in dataset.templates:
        for expression in (pc.field("template") == digest, pc.field("template").isin([digest])):
            chosen = dataset.filter(expression)
            assert chosen.table["template"].to_pylist() == [digest] * len(chosen)
            assert len(chosen) == dataset.table["template"].to_pylist().count(digest)
            assert all(graph.template.digest == digest for graph in chosen)


def test_columns_with_a_point_in_their_name_can_be_asked_for(dataset: GraphDataset) -> None:
    optimizers = dataset.table["config.optimizer"].to_pylist()
    chosen = dataset.filter(pc.field("config.optimizer") == optimizers[0])
    assert len(chosen) == optimizers.count(optimizers[0])


def test_filter_and_split_in_either_order_are_the_same(dataset: GraphDataset) -> None:
    expression = pc.field("epoch") > 0
    one, other = dataset.filter(expression).split("train"), dataset.split("train").filter(expression)
    assert the_same(one, other)
    assert 0 < len(one) < len(dataset.split("train"))


def test_a_filter_of_a_filter_is_that_of_both(dataset: GraphDataset) -> None:
    late, few = pc.field("epoch") > 0, pc.field("run_id").isin(dataset.table["run_id"].to_pylist()[:4])
    assert the_same(dataset.filter(late).filter(few), dataset.filter(late & few))
    assert the_same(dataset.filter(late).filter(few), dataset.filter(few).filter(late))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (pc.field("accuracy") > 0.5, r"cannot filter by \(accuracy > 0.5\): No match for FieldRef"),
        (pc.field("epoch"), "cannot filter by epoch: Filter expression must evaluate to bool"),
        (pc.field("epoch") + 1, "cannot filter by .*: Filter expression must evaluate to bool"),
        (pc.field("epoch") == "late", "cannot filter by .*: Function 'equal' has no kernel matching"),
        (pc.field("family").isin([1]), "cannot filter by"),
        (pc.field("epoch") > 10**6, r"graphs.zarr: \(epoch > 1000000\) holds for none of 13 graphs"),
        (pc.scalar(False), "holds for none of 13 graphs"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_or_holds_for_nothing_is_refused(
    expression: pc.Expression, message: str, dataset: GraphDataset
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        dataset.filter(expression)
    assert "graphs.zarr: " in str(error.value)
    assert "\n" not in str(error.value)


def test_selected_rows_come_in_the_order_asked_for_and_as_often(dataset: GraphDataset) -> None:
    rows = np.array([5, 0, 12, 5])
    chosen = dataset.select(rows)
    assert ids(chosen) == [ids(dataset)[row] for row in rows]
    assert [graph.values.tobytes() for graph in chosen] == [dataset[int(row)].values.tobytes() for row in rows]
    again = chosen.select(np.array([2, 1]))  # rows of the selection's table
    assert ids(again) == [ids(dataset)[12], ids(dataset)[0]]
    assert again[0].values.tobytes() == dataset[12].values.tobytes()


@pytest.mark.parametrize("rows", [[-1], [13], [0, 13], [3, -2], [2**40]])
def test_rows_that_are_not_there_are_refused(rows: list[int], dataset: GraphDataset) -> None:
    with pytest.raises(IndexError, match=f"rows {min(rows)} to {max(rows)} are asked for; the dataset has 13 graphs"):
        dataset.select(np.array(rows))
    with pytest.raises(IndexError, match="the dataset has 2 graphs"):
        dataset.select(np.array([3, 4])).select(np.array([2]))


def test_no_rows_are_a_dataset_of_no_graphs(dataset: GraphDataset) -> None:
    nothing = dataset.select(np.array([], dtype=np.int64))
    assert len(nothing) == 0
    assert list(nothing) == []
    assert nothing.table.schema == dataset.table.schema
    assert list(nothing.stream()) == []
    with pytest.raises(IndexError):
        nothing[0]


@pytest.mark.parametrize("rows", [np.array([True, False] * 6 + [True]), np.array([0.0, 1.5])], ids=["mask", "floats"])
def test_a_mask_or_numbers_with_a_point_are_no_rows(rows: Any, dataset: GraphDataset) -> None:
    """A mask of the whole table would be rows 0 and 1 again and again. The checks of this suite refuse both before the
    function is called, so it is called without them."""
    unchecked = GraphDataset.select
    while hasattr(unchecked, "__wrapped__"):
        unchecked = unchecked.__wrapped__
    with pytest.raises((ValueError, TypeError, IndexError), match="rows"):
        unchecked(dataset, rows)


def test_a_pickled_selection_has_its_rows(dataset: GraphDataset) -> None:
    for chosen in (
        dataset.filter(pc.field("epoch") == 1),
        dataset.split("test").filter(pc.field("epoch") > 0).select(np.array([3, 0])),
        dataset.select(np.array([], dtype=np.int64)),
    ):
        pickled = pickle.dumps(chosen)
        assert len(pickled) < 1000
        assert the_same(pickle.loads(pickled), chosen)  # noqa: S301  # our own


def test_a_selection_has_all_templates_and_what_was_left_out(dataset: GraphDataset, tmp_path: Path) -> None:
    chosen = dataset.filter(pc.field("epoch") == 1)
    assert set(chosen.templates) == set(dataset.templates)
    assert chosen.left_out.equals(dataset.left_out)
    assert chosen.made_of == dataset.made_of
