"""What fitting a zoo of implicit networks would take, from fitting a stack of its runs.

    python -m pipeline inr --config configs/inr/tiny.yaml --out runs/inr/zoo --dry-run

Reads   a specification and images
Writes  nothing; `dry_run_lines` for the terminal
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.images import Images
from pipeline.inr_zoo import InrSpec, resolve_inr
from pipeline.siren_trainer import flat_values, started
from pipeline.trainers import SirenTrainer
from pipeline.zoo_estimate import BYTES_PER_ROW, chunks_of, drawn_rows, duration, row

SAMPLED = 32
"""Runs, evenly spaced, that are fitted to their end."""


@dataclass(frozen=True, kw_only=True)
class InrEstimate:
    """Of a whole zoo on one processor; within a factor of two, since machines are not idle and images differ."""

    seconds: float
    num_bytes: int
    """On disk."""
    num_values: tuple[int, int]
    """Of the smallest and the largest network tried."""
    steps: float
    """Median of those tried."""
    reached: int
    """How many of those tried came to their PSNR."""
    tried: int


def estimate(spec: InrSpec, images: Images, trainer: SirenTrainer) -> InrEstimate:
    """Fit some runs to their end, and scale by all."""
    places = np.unique(np.linspace(0, spec.num_runs - 1, min(SAMPLED, trainer.stack or SAMPLED)).astype(int)).tolist()
    runs = [resolve_inr(spec, place) for place in places]
    before = time.perf_counter()
    found = trainer.train(runs, images)
    seconds = time.perf_counter() - before
    widths = [flat_values(started(run)).numel() for run in runs]  # also of those that diverge
    return InrEstimate(
        seconds=seconds / len(runs) * spec.num_runs,
        num_bytes=int(spec.num_runs * (4 * float(np.mean(widths)) + BYTES_PER_ROW)),
        num_values=(min(widths), max(widths)),
        steps=float(np.median([network.step for network in found])),
        reached=sum(network.psnr >= network.run.config.psnr for network in found),
        tried=len(runs),
    )


def dry_run_lines(spec: InrSpec, found: InrEstimate) -> Iterator[str]:
    """What would be fitted, from what is drawn, and what it would take, in 80 columns."""
    small, large = found.num_values
    yield f"Zoo {spec.name!r}, a dry run: nothing is written"
    yield row("images", f"{spec.images.name}, {'x'.join(map(str, spec.images.shape))}, {spec.num_images:,} in all")
    yield row("runs", f"{spec.num_runs:,} in {chunks_of(spec.num_chunks)} of {spec.runs_per_chunk}")
    yield row("", f"{spec.fits_per_image} for each image, at most {spec.most_steps:,} steps")
    yield row(
        "networks", f"siren, {small:,} values each" if small == large else f"siren, {small:,} to {large:,} values"
    )
    yield from drawn_rows(spec.drawn)
    yield row("fitting", f"{found.reached} of {found.tried} tried reach it; median of {found.steps:,.0f} steps")
    yield row("", f"about {duration(found.seconds)} on one processor")
    yield row("disk", f"about {found.num_bytes / 1e6:,.1f} MB")
