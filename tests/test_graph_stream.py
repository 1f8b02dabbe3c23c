"""Law 7: over all readers, whatever their number, every graph is read once, and every part by one reader."""

import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipeline import graph_store, graph_stream
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.graph_stream import GraphStream, windows
from pipeline.parameter_graph import ParameterGraph
from tiny_dataset import make_tiny_dataset
from tiny_networks import traced
from training.epoch_plan import PlanSettings, plan_training

GRAPH = traced("linear")[1].graph(np.zeros(traced("linear")[1].num_values, dtype=np.float32))
PARTS = st.lists(st.integers(0, 11), max_size=60)
"""The part of every row of a table; parts stand in any order, as in a selection, and some are not there."""


class Numbered(GraphDataset):
    """A dataset of rows in parts, all of one graph."""

    def __init__(self, part: list[int]) -> None:
        self.table = pa.table({"part": pa.array(part, type=pa.int32())})

    def __getitem__(self, index: int) -> ParameterGraph:
        return GRAPH


def stream_of(
    part: list[int], *, seed: int = 0, epoch: int = 0, parts_per_window: int = 4, rank: int = 0, num_ranks: int = 1
) -> GraphStream:
    """A stream of a dataset of rows in these parts."""
    return GraphStream(
        Numbered(part), seed=seed, epoch=epoch, parts_per_window=parts_per_window, rank=rank, num_ranks=num_ranks
    )


def rows_of(stream: GraphStream) -> list[int]:
    return [row for row, _ in stream]


def by_reader(part: list[int], window: int, ranks: int, workers: int, seed: int = 0, epoch: int = 0) -> list[list[int]]:
    """What each worker of each rank reads, in order."""
    found = []
    for rank in range(ranks):
        stream = stream_of(part, seed=seed, epoch=epoch, parts_per_window=window, rank=rank, num_ranks=ranks)
        for worker in range(workers):
            with pytest.MonkeyPatch.context() as monkeypatch:
                info = SimpleNamespace(id=worker, num_workers=workers)
                monkeypatch.setattr(graph_stream, "get_worker_info", lambda info=info: info)
                found.append(rows_of(stream))
    return found


@given(
    part=PARTS,
    window=st.integers(1, 5),
    ranks=st.integers(1, 4),
    workers=st.integers(1, 3),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_each_graph_is_seen_once_over_all_ranks_and_workers(
    part: list[int], window: int, ranks: int, workers: int, seed: int, epoch: int
) -> None:
    readers = by_reader(part, window, ranks, workers, seed, epoch)
    assert sorted(row for rows in readers for row in rows) == list(range(len(part)))
    parts_of_readers = [{part[row] for row in rows} for rows in readers]
    assert sum(map(len, parts_of_readers)) == len(set(part))  # no part is read by two
    assert readers == by_reader(part, window, ranks, workers, seed, epoch)


@given(part=PARTS, window=st.integers(1, 5), ranks=st.integers(1, 4), workers=st.integers(1, 3))
def test_readers_take_the_windows_of_one_order_in_turn(part: list[int], window: int, ranks: int, workers: int) -> None:
    """Slow reference: what one reader reads, cut where a window ends, dealt out like cards."""
    [whole] = by_reader(part, window, 1, 1)
    order = list(dict.fromkeys(part[row] for row in whole))
    window_of = {number: place // window for place, number in enumerate(order)}
    dealt: list[list[int]] = [[] for _ in range(ranks * workers)]
    for row in whole:
        dealt[window_of[part[row]] % len(dealt)].append(row)
    assert by_reader(part, window, ranks, workers) == dealt


@given(part=PARTS, window=st.integers(1, 5))
def test_a_window_is_read_to_its_end_before_the_next(part: list[int], window: int) -> None:
    """Every window but the last has as many parts as it may have, and no part comes back."""
    stream = stream_of(part, parts_per_window=window)
    met = [{part[row] for row in rows.tolist()} for rows in stream.windows()]
    assert all(len(parts) == window for parts in met[:-1])
    assert all(1 <= len(parts) <= window for parts in met)
    assert sum(map(len, met)) == len(set(part))


@given(
    part=PARTS,
    size=st.integers(1, 9),
    window=st.integers(1, 5),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
    micro_batches=st.integers(1, 3),
)
def test_the_order_is_that_of_the_training_plan(
    part: list[int], size: int, window: int, seed: int, epoch: int, micro_batches: int
) -> None:
    settings = PlanSettings(values_per_micro_batch=20, micro_batches_per_step=micro_batches, parts_per_window=window)
    number, sizes = np.array(part, dtype=np.int64), np.full(len(part), size)
    plan = plan_training(number, sizes, np.arange(len(part)), settings, seed, epoch)
    planned = [row for micro_batch in plan.micro_batches for row in micro_batch.rows.tolist()]
    assert rows_of(stream_of(part, seed=seed, epoch=epoch, parts_per_window=window)) == planned


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    part = np.repeat(np.arange(5), 7).tolist()

    def order(seed: int, epoch: int) -> list[int]:
        return rows_of(stream_of(part, seed=seed, epoch=epoch, parts_per_window=2))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_graphs_of_the_parts_of_a_window_are_mixed() -> None:
    """Of two parts of 50 in one window, 25 of each are in the first half on average; four deviations of 2.5 are 10."""
    rows = rows_of(stream_of([0] * 50 + [1] * 50, parts_per_window=2))
    assert 15 <= sum(row < 50 for row in rows[:50]) <= 35
    apart = rows_of(stream_of([0] * 50 + [1] * 50, parts_per_window=1))
    assert sum(row < 50 for row in apart[:50]) in (0, 50)


def test_another_epoch_is_set_and_not_counted() -> None:
    stream = stream_of([0, 1, 1, 2, 2, 2, 3] * 3, parts_per_window=2)
    first = rows_of(stream)
    assert rows_of(stream) == first
    stream.set_epoch(4)
    assert rows_of(stream) == rows_of(stream_of([0, 1, 1, 2, 2, 2, 3] * 3, epoch=4, parts_per_window=2)) != first


def test_chosen_rows_are_in_windows_of_the_parts_they_lie_in() -> None:
    """Rows 1 and 5 lie in parts 0 and 2; part 1 has none and takes no place in a window."""
    found = windows(np.array([0, 0, 1, 1, 2, 2]), np.array([1, 5]), parts_per_window=2, seed=0, epoch=0)
    assert [sorted(rows.tolist()) for rows in found] == [[1, 5]]
    assert windows(np.array([0, 0]), np.array([], dtype=np.int64), 2, 0, 0) == []


@pytest.mark.parametrize(("rank", "num_ranks"), [(-1, 2), (2, 2), (0, 0), (3, 2), (0, -1)])
def test_a_rank_that_there_is_not_is_refused(rank: int, num_ranks: int) -> None:
    with pytest.raises(ValueError, match=f"rank is {rank} of {num_ranks}; expected 0 to {num_ranks - 1}"):
        stream_of([0], rank=rank, num_ranks=num_ranks)


@pytest.mark.parametrize("window", [0, -1])
def test_windows_of_no_parts_are_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"parts_per_window is {window}; expected at least 1"):
        stream_of([0], parts_per_window=window)


@pytest.fixture(name="path", scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


def test_a_stream_reads_each_part_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many parts stay in memory as a window has."""
    decoded: list[str] = []
    decode = graph_store.decode_values
    monkeypatch.setattr(
        graph_store, "decode_values", lambda folder, *rest: decoded.append(folder.name) or decode(folder, *rest)
    )
    assert sorted(rows_of(open_graphs(path, parts_in_memory=2).stream(parts_per_window=2))) == list(range(13))
    assert Counter(decoded) == dict.fromkeys(("00000", "00001", "00002", "00003", "00004"), 1)


def test_a_window_of_more_parts_than_stay_in_memory_is_refused_or_read_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else almost every graph decodes a part anew: 16 MiB for one graph."""
    decoded: list[str] = []
    decode = graph_store.decode_values
    monkeypatch.setattr(
        graph_store, "decode_values", lambda folder, *rest: decoded.append(folder.name) or decode(folder, *rest)
    )
    try:
        rows_of(open_graphs(path, parts_in_memory=1).stream(parts_per_window=5))
    except ValueError as error:
        assert "parts_in_memory" in str(error)  # noqa: PT017  # refusing is one of two answers
    else:
        assert len(decoded) == 5


def test_a_stream_of_a_selection_has_its_rows_and_no_others(path: Path) -> None:
    """The rows are those of the selection's own table."""
    dataset = open_graphs(path)
    for chosen in (
        dataset.split("train"),
        dataset.filter(pc.field("epoch") == 0),
        dataset.select(np.array([12, 3, 0])),
    ):
        found = list(chosen.stream(seed=1, parts_per_window=2))
        assert sorted(row for row, _ in found) == list(range(len(chosen)))
        for row, graph in found:
            assert graph.values.tobytes() == chosen[row].values.tobytes()
            assert graph.template.digest == chosen.table["template"][row].as_py()
    names = set(dataset.split("train").table["graph_id"].to_pylist())
    train = dataset.split("train")
    assert {train.table["graph_id"][row].as_py() for row, _ in train.stream()} == names


def test_a_pickled_stream_goes_through_the_same_rows(path: Path) -> None:
    stream = open_graphs(path).split("test").stream(seed=3, epoch=2, parts_per_window=2, rank=1, num_ranks=2)
    pickled = pickle.dumps(stream)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301  # our own
    assert [(row, graph.values.tobytes()) for row, graph in again] == [
        (row, graph.values.tobytes()) for row, graph in stream
    ]
    assert (again.rank, again.num_ranks, again.epoch) == (1, 2, 2)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_read_every_graph_once(start: str, path: Path) -> None:
    """The parent has read values and templates before: what it holds (threads, open files) does not survive a fork."""
    dataset = open_graphs(path)
    expected = {row: graph.values.tobytes() for row, graph in enumerate(dataset)}
    stream = dataset.stream(seed=5, parts_per_window=1)
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120)

    def seen() -> Iterator[tuple[int, bytes]]:
        for row, graph in loader:
            yield row, graph.values.tobytes()

    found = list(seen())
    assert len(found) == 13
    assert dict(found) == expected
    if start == "fork":  # the loader asks its workers in turn, so that the order is a law too
        assert found == list(seen())
        stream.set_epoch(1)
        assert [row for row, _ in seen()] != [row for row, _ in found]
