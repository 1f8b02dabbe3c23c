"""The epoch, defined once: which graphs each optimizer step sees, on any number of ranks.

Reads   the sizes of the graphs of a split, part by part
Writes  an `EpochPlan`, a pure function of (sizes, settings, seed, epoch)

Parts are permuted; windows of several parts are shuffled together, so that reading goes by whole parts and memory stays
bounded; the sequence is cut into *micro-batches* by size. An optimizer step is ``micro_batches_per_step`` of them; rank
r of W takes those whose index is r modulo W and accumulates, so that any W that divides the step gives the same steps.
The last step is filled up with empty micro-batches, which weigh nothing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pipeline.graph_stream import windows


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How an epoch is cut up."""

    values_per_micro_batch: int = 160_000
    """Size of a micro-batch: the values of its graphs add up to at most this, but it holds at least one graph."""
    micro_batches_per_step: int = 2
    """Micro-batches per optimizer step, over all ranks; the number of ranks must divide it."""
    parts_per_window: int = 4
    """Parts that are in memory, and shuffled, together."""

    def __post_init__(self) -> None:
        if min(self.values_per_micro_batch, self.micro_batches_per_step, self.parts_per_window) < 1:
            raise ValueError(f"{self}: every number must be at least 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """What one rank computes at once."""

    rows: Int64[np.ndarray, " num_graphs"]
    """Rows of the dataset's table; empty in a micro-batch that only fills up a step."""
    graphs_in_step: int
    """Graphs in the whole optimizer step, over all its micro-batches; what the loss is divided by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochPlan:
    """All micro-batches of one epoch, in their global order."""

    micro_batches: tuple[MicroBatch, ...]
    micro_batches_per_step: int

    @property
    def num_steps(self) -> int:
        return len(self.micro_batches) // self.micro_batches_per_step

    def of_rank(self, rank: int, num_ranks: int) -> tuple[MicroBatch, ...]:
        """The micro-batches of one rank; every rank gets equally many.

        Raises:
            ValueError: the ranks do not divide a step.
        """
        if self.micro_batches_per_step % num_ranks:
            raise ValueError(
                f"{num_ranks} ranks cannot share steps of {self.micro_batches_per_step} micro-batches; "
                f"set micro_batches_per_step to a multiple of {num_ranks}"
            )
        return self.micro_batches[rank::num_ranks]


def plan_training(
    part: Int64[np.ndarray, " num_rows"],
    size: Int64[np.ndarray, " num_rows"],
    rows: Int64[np.ndarray, " num_chosen"],
    settings: PlanSettings,
    seed: int,
    epoch: int,
) -> EpochPlan:
    """The training epoch over ``rows``: each exactly once, in a random order.

    Args:
        part: the part every row of the table lies in.
        size: the number of values of every row of the table.
        rows: the rows to train on.
    """
    order = windows(part, rows, settings.parts_per_window, seed, epoch)
    return _cut(np.concatenate([np.empty(0, dtype=np.int64), *order]), size, settings)


def plan_evaluation(
    size: Int64[np.ndarray, " num_rows"], rows: Int64[np.ndarray, " num_chosen"], settings: PlanSettings
) -> EpochPlan:
    """Every row of ``rows`` exactly once, in the order given."""
    return _cut(rows, size, settings)


def _cut(rows: Int64[np.ndarray, " n"], size: Int64[np.ndarray, " num_rows"], settings: PlanSettings) -> EpochPlan:
    """Cut a sequence of rows by size, and group the pieces into full steps."""
    pieces: list[list[int]] = []
    room = 0
    for row in rows.tolist():
        if not pieces or size[row] > room:
            pieces.append([])
            room = settings.values_per_micro_batch
        pieces[-1].append(row)
        room -= int(size[row])
    step = settings.micro_batches_per_step
    pieces += [[]] * (-len(pieces) % step)
    in_step = [sum(map(len, pieces[start : start + step])) for start in range(0, len(pieces), step)]
    micro_batches = tuple(
        MicroBatch(rows=np.array(piece, dtype=np.int64), graphs_in_step=in_step[number // step])
        for number, piece in enumerate(pieces)
    )
    return EpochPlan(micro_batches=micro_batches, micro_batches_per_step=step)
