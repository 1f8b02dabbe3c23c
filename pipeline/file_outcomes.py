"""Reading many files once, a batch per task, for what is found in each.

Reads   the files: `read_all`
Writes  nothing

Results are in the order of the files, whichever task ends first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.cluster import Machine, cluster, run_tasks
from pipeline.graph_source import ValueFile
from pipeline.progress import progress_bar

File = TypeVar("File", bound=ValueFile)
Found = TypeVar("Found")

FILES_PER_TASK = 64
"""Of a few kilobytes, or milliseconds, each: a task then takes longer than starting it. No more than these are read
without a cluster."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Files that one task reads."""

    index: int
    files: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.index}, {len(self.files)} from {self.files[0].path} on,"


def read_all(files: Sequence[File], read: Callable[[File], Found], machine: Machine) -> list[Found]:
    """``read`` of every file, in their order; as tasks of a cluster if there are many.

    Raises:
        ValueError: a task found bad input, or could not read.
    """
    starts = range(0, len(files), FILES_PER_TASK)
    batches = [
        Batch(index=index, files=tuple(files[start : start + FILES_PER_TASK])) for index, start in enumerate(starts)
    ]
    found: dict[int, list[Found]] = {}
    with progress_bar("reading", "files", len(files)) as bar:
        if len(batches) <= 1:
            found |= {batch.index: read_batch(batch, read) for batch in batches}
            bar.update(len(files))
        else:
            with cluster(machine):
                for batch, results in run_tasks(read_batch, batches, (read,), machine, noun="batch of files"):
                    found[batch.index] = results
                    bar.update(len(results))
    return [result for index in sorted(found) for result in found[index]]


def read_batch(batch: Batch, read: Callable[[Any], Found]) -> list[Found]:
    """What is found in some files; a task."""
    return [read(file) for file in batch.files]
