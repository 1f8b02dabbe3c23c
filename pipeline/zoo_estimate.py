"""What training a zoo would take, from training a few of its runs for a few steps.

    python -m pipeline zoo --config configs/zoo/digits.yaml --out runs/digits/zoo --dry-run

Reads   a specification, its plan and images
Writes  nothing; `dry_run_lines` for the terminal
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from pipeline.distributions import Choice, Distribution
from pipeline.images import Images
from pipeline.trainers import Trainer
from pipeline.value_layout import lay_out
from pipeline.zoo import ModelSpec, Plan, ZooSpec, resolve

COLUMNS = 80
SAMPLED = 6
"""Runs, evenly spaced, that are tried."""
STEPS = 10
BYTES_PER_ROW = 300
"""Of the table and its bits, compressed, roughly."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of a whole zoo on one processor; within a factor of two, since machines are not idle and runs differ."""

    seconds: float
    """Of training and evaluating all runs."""
    longest: float
    """Of the longest run alone, in seconds."""
    num_bytes: int
    """On disk."""
    num_values: tuple[int, int]
    """Of the smallest and the largest network tried."""


def estimate(spec: ZooSpec, planned: Plan, images: Images, trainer: Trainer) -> Estimate:
    """Try some runs for some steps, and scale by the steps and images of all.

    Costs of a step and of looking at an image are means over the runs that are tried.
    """
    places = np.unique(np.linspace(0, spec.num_runs - 1, SAMPLED).astype(int)).tolist()
    tried = [tried_run(resolve(spec, place), images, trainer) for place in places]
    step, image = (float(np.mean(costs)) for costs in zip(*((one.step, one.image) for one in tried), strict=True))
    num_test, width = len(images.test_labels), np.mean([one.num_values for one in tried])
    looked_at = len(spec.checkpoint_epochs) * (planned.num_train + num_test)
    seconds = planned.num_steps * step + looked_at * image
    return Estimate(
        seconds=float(seconds.sum()),
        longest=float(seconds.max()),
        num_bytes=int(spec.num_runs * len(spec.checkpoint_epochs) * (4 * width + num_test / 8 + BYTES_PER_ROW)),
        num_values=(min(one.num_values for one in tried), max(one.num_values for one in tried)),
    )


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What one run costs, in seconds."""

    step: float
    image: float
    """Evaluated."""
    num_values: int


def tried_run(run: ModelSpec, images: Images, trainer: Trainer) -> Tried:
    """Evaluate an untrained network, then train one for some steps."""
    size = run.config.batch_size
    short = replace(run, num_train=size * min(STEPS, run.steps_per_epoch), checkpoint_epochs=(0, 1))
    trainer.train([replace(short, checkpoint_epochs=(0,))], images)  # what is slow the first time
    seconds: list[float] = []
    for epochs in ((0,), (0, 1)):
        started = time.perf_counter()
        trainer.train([replace(short, checkpoint_epochs=epochs)], images)
        seconds.append(time.perf_counter() - started)
    looked_at = short.num_train + len(images.test_labels)
    return Tried(
        step=max(seconds[1] - 2 * seconds[0], 0.1 * seconds[1]) / short.steps_per_epoch,
        image=seconds[0] / looked_at,
        num_values=sum(slot.size for slot in lay_out(run.architecture.build())[0]),
    )


def dry_run_lines(spec: ZooSpec, planned: Plan, found: Estimate) -> Iterator[str]:
    """What would be trained, from what is drawn, and what it would take, in 80 columns."""
    small, large = found.num_values
    kinds = planned.num_architectures
    yield f"Zoo {spec.name!r}, a dry run: nothing is written"
    yield row("images", f"{spec.images.name}, {'x'.join(map(str, spec.images.shape))}")
    yield row("", f"{spec.images.num_train_images:,} for training, {spec.images.num_test_images:,} for testing")
    yield row("runs", f"{spec.num_runs:,} in {chunks_of(spec.num_chunks)} of {spec.runs_per_chunk}")
    yield row("", f"{spec.epochs} epochs, {len(spec.checkpoint_epochs)} checkpoints each, batches of {spec.batch_size}")
    yield row("networks", f"{spec.architecture.family}, {kinds:,} {'architecture' if kinds == 1 else 'architectures'}")
    yield row("", f"{small:,} values each" if small == large else f"{small:,} to {large:,} values in those tried")
    yield from drawn_rows(spec.drawn)
    yield row(
        "training", f"about {duration(found.seconds)} on one processor, the longest run {duration(found.longest)}"
    )
    yield row("disk", f"about {found.num_bytes / 1e6:,.1f} MB")


def chunks_of(count: int) -> str:
    """A number of chunks."""
    return "1 chunk" if count == 1 else f"{count:,} chunks"


def drawn_rows(drawn: Mapping[str, Choice | Distribution]) -> Iterator[str]:
    """How each thing is drawn that is drawn for a run."""
    for name, how in drawn.items():
        [(kind, values)] = [(kind, values) for kind, values in asdict(how).items() if values is not None]
        yield row(name, f"{kind.replace('_', '-')}: {', '.join(map(setting, values))}")


def row(label: str, text: str) -> str:
    """A line of the report, cut where the terminal ends."""
    line = f"  {label:<18}{text}"
    return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…"


def setting(value: object) -> str:
    """A number, a name, or several."""
    if isinstance(value, tuple):
        return "-".join(map(setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """In the unit that fits."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"
