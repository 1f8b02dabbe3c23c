"""Shuffled training batches from a dataset of ours, from the datasets of PyTorch Geometric, and from plain files.

Reads   a dataset of small CNNs (`benchmarks.synthetic_datasets`)
Writes  the alternatives beside it, of the same graphs; run by itself it does nothing

Two tables, since batches hold two different things. Ours holds the values of its graphs, and their topology once: what
our metanetworks take. A ``Batch`` of PyTorch Geometric holds nodes and edges of every graph: what its layers take. Each
is compared with others that end in the same; `MB/batch` says how much that is. One process, one thread, no workers;
files come from the page cache.
"""

import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data, InMemoryDataset, OnDiskDataset
from torch_geometric.loader import DataLoader as PygDataLoader

from benchmarks.dataset_reading import BATCH, batched, streamed
from benchmarks.measuring import MB, Row, interleaved
from benchmarks.synthetic_datasets import small_document, write_dataset
from pipeline.graph_plan import DatasetSpec
from pipeline.graph_store import GraphDataset, open_graphs
from pipeline.parameter_graph import ParameterGraph
from training.epoch_plan import PlanSettings, plan_training
from training.graph_batch import GraphBatch, batch_graphs
from training.graph_data import LabelledBatch, LabelledGraphs

KEYS = ("x", "edge_index", "edge_attr")
"""What is kept of the ``Data`` of `to_pyg`, in all that end in a ``Batch`` of it; without a limit on memory one would
keep the rest too."""
PARTS_IN_MEMORY = 4
"""The window of the stream and no more, so that every epoch decodes every part."""
SCHEMA = {
    "x": {"dtype": torch.float32, "size": (-1, 15)},
    "edge_index": {"dtype": torch.int64, "size": (2, -1)},
    "edge_attr": {"dtype": torch.float32, "size": (-1, 38)},
}
"""Spares `OnDiskDataset` the pickling."""

Batches = Iterator[Any]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to come by the batches of a shuffled epoch."""

    name: str
    holds: str
    """What a batch is made of."""
    epoch: Callable[[], Batches]
    """A new order each time."""


class GraphsInMemory(InMemoryDataset):
    """All graphs joined in memory, as its ``process`` would have left them."""

    def __init__(self, graphs: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(graphs)


class GraphsOnDisk(OnDiskDataset):
    """All graphs in a database, their tensors as bytes."""

    def __init__(self, root: str) -> None:
        super().__init__(root, schema=SCHEMA, log=False)

    def serialize(self, data: Any) -> dict[str, Tensor]:
        return data.to_dict()

    def deserialize(self, data: Any) -> Data:
        return Data.from_dict(data)


def batch_tables(folder: Path, num_graphs: int, pyg_graphs: int, part: DatasetSpec, rounds: int) -> list[list[Row]]:
    """Both tables."""
    path = write_dataset(folder / "graphs.zarr", [small_document()], num_graphs, part)
    dataset = open_graphs(path, PARTS_IN_MEMORY)
    flat = dataset.materialise(folder / "copy")
    values = measure(value_ways(dataset, flat, folder), num_graphs, rounds, "numpy memmap")
    some = flat.select(np.arange(pyg_graphs))
    pyg = measure(pyg_ways(some, path, folder), pyg_graphs, rounds, "PyG InMemoryDataset")
    return [values, pyg]


def measure(ways: Sequence[Way], num_graphs: int, rounds: int, reference: str) -> list[Row]:
    """All ways in turn, and their speed as a share of that of one of them."""
    all_seconds = interleaved([lambda way=way: deque(way.epoch(), maxlen=0) for way in ways], rounds)
    seconds = {way.name: mine for way, mine in zip(ways, all_seconds, strict=True)}
    rows: list[Row] = []
    for way in ways:
        mine = statistics.median(seconds[way.name])
        pairs = zip(seconds[reference], seconds[way.name], strict=True)
        row: Row = {"way": way.name, "batch holds": way.holds, "MB/batch": round(size_of(next(way.epoch())) / MB, 2)}
        row |= {"batches/s": round(num_graphs / BATCH / mine, 1), "graphs/s": round(num_graphs / mine)}
        rows.append(row | {f"times {reference}": round(statistics.median(a / b for a, b in pairs), 3)})
    return rows


def size_of(batch: object) -> int:
    """Bytes of the tensors of a batch, but for a topology that is shared."""
    match batch:
        case LabelledBatch():
            return size_of(batch.graphs)
        case GraphBatch():
            return sum(group.values.nbytes for group in batch.groups)
        case Tensor():
            return batch.nbytes
        case _:
            assert isinstance(batch, Data)
            return sum(tensor.nbytes for tensor in batch.to_dict().values() if isinstance(tensor, Tensor))


def shuffles(length: int) -> Callable[[], list[int]]:
    """A new order of so many numbers at each call."""
    rng = np.random.default_rng(0)
    return lambda: rng.permutation(length).tolist()


# Values, and topology once


def value_ways(dataset: GraphDataset, flat: GraphDataset, folder: Path) -> list[Way]:
    """Batches of values alone; those of ours have the template besides."""
    epochs, order = count(), shuffles(len(dataset))
    length = int(dataset.table["length"][0].as_py())
    matrix = np.memmap(folder / "copy" / "values.f32", dtype="<f4", mode="r").reshape(-1, length)
    files = [folder / "values" / f"{row}.pt" for row in range(len(matrix))]
    files[0].parent.mkdir()
    for file, row in zip(files, matrix, strict=True):
        torch.save(torch.tensor(row), file)

    def plan_and_load() -> Batches:
        part, size = (dataset.table[name].to_numpy().astype(np.int64) for name in ("part", "length"))
        settings = PlanSettings(values_per_micro_batch=BATCH * length)
        plan = plan_training(part, size, np.arange(len(dataset)), settings, 0, next(epochs))
        graphs = LabelledGraphs(dataset, np.zeros(len(dataset)), plan.micro_batches)
        return iter(DataLoader(graphs, batch_size=None))

    ours, values = "values, topology once", "values"
    return [
        Way(name="numpy memmap", holds=values, epoch=lambda: (torch.from_numpy(matrix[b]) for b in batched(order()))),
        Way(name="ours, streamed", holds=ours, epoch=lambda: streamed(dataset, next(epochs))),
        Way(name="ours, training's loader", holds=ours, epoch=plan_and_load),
        Way(name="ours, materialised, random", holds=ours, epoch=lambda: at_random(flat, order())),
        Way(
            name="torch.save a model, stacked",
            holds=values,
            epoch=lambda: (torch.stack([torch.load(files[row]) for row in rows]) for rows in batched(order())),
        ),
    ]


def at_random(dataset: GraphDataset, order: list[int]) -> Iterator[GraphBatch]:
    """Batches of ours in any order of the whole dataset."""
    for rows in batched(order):
        yield batch_graphs([dataset[row] for row in rows])


# Batches of PyTorch Geometric


def pyg_ways(flat: GraphDataset, path: Path, folder: Path) -> list[Way]:
    """Batches with nodes and edges of every graph; the last three hold less, and are here for comparison."""
    order = shuffles(len(flat))
    graphs = [reduced(graph) for graph in flat]
    in_memory, on_disk = GraphsInMemory(graphs), GraphsOnDisk(str(folder / "on_disk"))
    files = [folder / "data" / f"{number}.pt" for number in range(len(flat))]
    files[0].parent.mkdir()
    for some in batched(graphs):
        on_disk.extend(some)
    for file, graph in zip(files, graphs, strict=True):
        torch.save(graph.to_dict(), file)
    lean = GraphsInMemory([Data(x=g.x, edge_index=g.edge_index, edge_attr=values_of(g)) for g in graphs])
    del graphs
    fixed, epochs, rows = flat[0].to_pyg(), count(), np.arange(len(flat))

    def streamed_to_pyg() -> Batches:
        anew = open_graphs(path, PARTS_IN_MEMORY).select(rows)  # else its few parts would stay decoded
        return (joined(reduced(graph) for _, graph in some) for some in batched(anew.stream(epoch=next(epochs))))

    def loaded(file: Path) -> Data:
        return Data.from_dict(torch.load(file))

    three, all_of_it = "x, edge_index, edge_attr [E, 38]", "all 9 tensors of to_pyg"
    return [
        Way(name="PyG InMemoryDataset", holds=three, epoch=lambda: iter(PygDataLoader(in_memory, BATCH, shuffle=True))),
        Way(name="PyG OnDiskDataset", holds=three, epoch=lambda: iter(PygDataLoader(on_disk, BATCH, shuffle=True))),
        Way(
            name="torch.save a model, Batch",
            holds=three,
            epoch=lambda: (joined(loaded(files[row]) for row in some) for some in batched(order())),
        ),
        Way(
            name="ours, materialised, to PyG",
            holds=three,
            epoch=lambda: (joined(reduced(flat[row]) for row in some) for some in batched(order())),
        ),
        Way(name="ours, streamed, to PyG", holds=three, epoch=streamed_to_pyg),
        Way(
            name="ours, materialised, all to PyG",
            holds=all_of_it,
            epoch=lambda: (Batch.from_data_list([flat[row].to_pyg() for row in some]) for some in batched(order())),
        ),
        Way(
            name="PyG InMemoryDataset, lean",
            holds="x, edge_index, edge_attr [E, 1]",
            epoch=lambda: iter(PygDataLoader(lean, BATCH, shuffle=True)),
        ),
        Way(
            name="ours, materialised, lean to PyG",
            holds="x, edge_index, edge_attr [E, 1]",
            epoch=lambda: (joined(lean_graph(flat[row], fixed) for row in some) for some in batched(order())),
        ),
        Way(name="ours, materialised", holds="values, topology once", epoch=lambda: at_random(flat, order())),
    ]


def lean_graph(graph: ParameterGraph, fixed: Data) -> Data:
    """The graph as PyTorch Geometric has it, of each edge the value alone; ``fixed`` is what its template shares."""
    values = torch.from_numpy(graph.values)[fixed["value_index"]]
    return Data(x=fixed.x, edge_index=fixed.edge_index, edge_attr=values[:, None])


def reduced(graph: ParameterGraph) -> Data:
    """The graph as PyTorch Geometric has it, without what `KEYS` leaves out."""
    whole = graph.to_pyg()
    return Data(**{key: whole[key] for key in KEYS})


def values_of(graph: Data) -> Tensor:
    """The column of the values, as a tensor of its own."""
    assert graph.edge_attr is not None
    return graph.edge_attr[:, :1].clone()


def joined(graphs: Iterator[Data]) -> Batch:
    """One ``Batch``."""
    return Batch.from_data_list(list(graphs))
