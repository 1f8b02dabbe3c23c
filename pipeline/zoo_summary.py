"""How far a zoo is and how well its networks do: a few lines, from what is on disk.

Reads   a few columns of every finished chunk (pipeline.zoo_store)
Writes  nothing
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from pipeline.inr_zoo import InrSpec
from pipeline.zoo_store import Zoo, finished_chunks, read_rows


def summary(store: Zoo) -> Iterator[str]:
    """A line for each thing there is to say; the zoo may be training at the time."""
    spec, finished = store.spec, finished_chunks(store)
    num_runs = sum(len(spec.chunk(index)) for index in finished)
    num_bytes = sum(file.stat().st_size for index in finished for file in store.chunk_path(index).iterdir())
    yield f"Zoo {spec.name!r} in {store.path}"
    yield f"  chunks          {len(finished)} of {spec.num_chunks}, {num_bytes / 1e6:.1f} MB"
    if isinstance(spec, InrSpec):
        yield f"  runs            {num_runs} of {spec.num_runs}, {spec.fits_per_image} for each image"
    else:
        yield f"  runs            {num_runs} of {spec.num_runs}, {len(spec.checkpoint_epochs)} checkpoints each"
    if not finished:
        return
    measured = ["psnr", "config.psnr", "step"] if isinstance(spec, InrSpec) else ["test_accuracy"]
    columns = ["run_index", "checkpoint", "status", *measured]
    rows = pa.concat_tables(read_rows(store, index, columns) for index in finished)
    diverged = rows["status"].to_numpy(zero_copy_only=False) == "diverged"
    num_diverged = len(np.unique(rows["run_index"].to_numpy()[diverged]))
    yield f"  diverged        {num_diverged} {'run' if num_diverged == 1 else 'runs'}"
    last = rows["checkpoint"].to_numpy() == rows["checkpoint"].to_numpy().max()
    yield from implicit_lines(rows, ~diverged) if isinstance(spec, InrSpec) else accuracy_line(rows, last & ~diverged)


def accuracy_line(rows: pa.Table, chosen: Bool[np.ndarray, " rows"]) -> Iterator[str]:
    """How well networks classify at their last checkpoint."""
    accuracy = rows["test_accuracy"].to_numpy()[chosen]
    if not len(accuracy):
        yield "  final accuracy  none: every run diverged; lower the learning rates"
        return
    low, median, high = np.percentile(accuracy, [5, 50, 95])
    yield f"  final accuracy  median {median:.3f}, 5th to 95th percentile {low:.3f} to {high:.3f} (test)"


def implicit_lines(rows: pa.Table, chosen: Bool[np.ndarray, " rows"]) -> Iterator[str]:
    """How well implicit networks are their images, and after how many steps."""
    psnr, asked, steps = (rows[name].to_numpy()[chosen] for name in ("psnr", "config.psnr", "step"))
    if not len(psnr):
        yield "  PSNR            none: every run diverged; lower the learning rates"
        return
    low, median, high = np.percentile(psnr, [5, 50, 95])
    yield f"  PSNR            median {median:.1f} dB, 5th to 95th percentile {low:.1f} to {high:.1f} dB"
    reached = int((psnr >= asked).sum())
    low, median, high = np.percentile(steps, [5, 50, 95])
    yield f"  reached it      {reached:,} of {len(psnr):,} runs; steps median {median:.0f}, {low:.0f} to {high:.0f}"
