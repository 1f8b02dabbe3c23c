"""Graphs in a random order, read part by part: what a dataset larger than the memory is trained on.

    for row, graph in dataset.stream(seed=0, epoch=3):
        ...

Reads   whole parts of a dataset, a window of them at a time
Writes  nothing

The order of the windows, and of the graphs in each, is a function of (dataset, seed, epoch). Readers, which are ranks
and the workers of a `torch.utils.data.DataLoader`, take whole windows in turn: together they read every graph once,
and no two read the same part.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.parameter_graph import ParameterGraph

if TYPE_CHECKING:
    from pipeline.graph_store import GraphDataset

EPOCH_STREAM = 1
"""Keeps these random numbers apart from those of other purposes with the same seed."""


class GraphStream(IterableDataset[tuple[int, ParameterGraph]]):
    """Every graph of a dataset once, with its row in the dataset's table. A new epoch is a new order (`set_epoch`)."""

    def __init__(
        self,
        dataset: "GraphDataset",
        *,
        seed: int = 0,
        epoch: int = 0,
        parts_per_window: int = 4,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if parts_per_window < 1:
            raise ValueError(f"parts_per_window is {parts_per_window}; expected at least 1")
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank is {rank} of {num_ranks}; expected 0 to {num_ranks - 1}")
        self.dataset = dataset
        self.seed = seed
        self.epoch = epoch
        self.parts_per_window = parts_per_window
        self.rank = rank
        self.num_ranks = num_ranks

    def set_epoch(self, epoch: int) -> None:
        """What the next iteration goes through; a `DataLoader` whose workers persist does not see it."""
        self.epoch = epoch

    def windows(self) -> list[Int64[np.ndarray, " num_rows"]]:
        """The rows of every window, in the order they are read."""
        part = self.dataset.table["part"].to_numpy().astype(np.int64)
        return windows(part, np.arange(len(part)), self.parts_per_window, self.seed, self.epoch)

    def __iter__(self) -> Iterator[tuple[int, ParameterGraph]]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for window in self.windows()[self.rank * count + number :: self.num_ranks * count]:
            for row in window.tolist():
                yield row, self.dataset[row]


def windows(
    part: Int64[np.ndarray, " num_rows"],
    rows: Int64[np.ndarray, " num_chosen"],
    parts_per_window: int,
    seed: int,
    epoch: int,
) -> list[Int64[np.ndarray, " num_in_window"]]:
    """Chosen rows in a random order that goes by whole parts: windows of some parts each, shuffled inside.

    Args:
        part: the part every row of the table lies in.
        rows: those that are wanted.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(EPOCH_STREAM, epoch)))
    parts = rng.permutation(np.unique(part[rows]))
    window_of = np.empty(int(part.max(initial=-1)) + 1, dtype=np.int64)
    window_of[parts] = np.arange(len(parts)) // parts_per_window
    window = window_of[part[rows]]
    order = np.argsort(window, kind="stable")
    starts = np.searchsorted(window[order], np.arange(1, -(-len(parts) // parts_per_window)))
    return [rng.permutation(rows[mine]) for mine in np.split(order, starts)] if len(rows) else []
