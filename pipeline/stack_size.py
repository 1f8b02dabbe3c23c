"""How many runs a stack has, where that is left open: a constant on a CPU, on a GPU as many as its memory holds.

Reads   a specification and images; on a GPU, trains some stacks for one step each
Writes  nothing

It is settled once, before the first chunk, and recorded with the zoo, since it decides bytes.
"""

from collections.abc import Callable
from dataclasses import replace
from math import floor, log2
from typing import Any

import numpy as np
import torch

from pipeline.images import Images
from pipeline.inr_zoo import InrRun, InrSpec, resolve_inr
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.zoo import ModelSpec, ZooSpec, resolve

SAMPLED = 8
"""Runs, evenly spaced, of which the one that takes most memory is tried in a stack."""
PROBED = 8
"""Runs in that stack."""
USABLE = 0.85
"""Of a GPU's memory: the rest is for what allocators and libraries keep."""

Peak = Callable[[Callable[[], object]], int]


def gpu_peak(work: Callable[[], object]) -> int:
    """The most memory that tensors take on the GPU while this is done, in bytes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated()


def gpu_memory() -> int:
    """Of the GPU that this process sees, in bytes."""
    return torch.cuda.get_device_properties(0).total_memory


def measured_stack(
    spec: ZooSpec | InrSpec,
    trainer: Trainer | SirenTrainer,
    images: Images,
    share: float,
    peak: Peak = gpu_peak,
    memory: Callable[[], int] = gpu_memory,
) -> int:
    """Runs of a zoo that fit into the memory of a GPU, of which this process has a ``share``; of several it uses one.

    Raises:
        ValueError: not even one does.
    """
    places = np.unique(np.linspace(0, spec.num_runs - 1, SAMPLED).astype(int)).tolist()
    tried = [short_run(spec, place) for place in places]

    def used(runs: list[ModelSpec | InrRun]) -> int:
        train: Any = replace(trainer, stack=len(runs)).train  # runs and trainer are of one kind
        return peak(lambda: train(runs, images))

    peaks = [used([run]) for run in tried]
    largest = int(np.argmax(peaks))
    return fitting_stack(
        one=peaks[largest],
        some=used([tried[largest]] * PROBED),
        budget=int(memory() * min(share, 1.0) * USABLE),
        most=spec.runs_per_chunk,
    )


def short_run(spec: ZooSpec | InrSpec, run_index: int) -> ModelSpec | InrRun:
    """A run, cut to a step."""
    if isinstance(spec, InrSpec):
        run = resolve_inr(spec, run_index)
        return replace(run, config=replace(run.config, most_steps=1))
    return replace(resolve(spec, run_index), num_train=spec.batch_size, checkpoint_epochs=(1,))


def fitting_stack(*, one: int, some: int, budget: int, most: int) -> int:
    """The largest power of two, at most ``most``, of runs that fit into ``budget``, by the line through the memory of
    one run and of `PROBED`, in bytes.

    Raises:
        ValueError: not even one fits.
    """
    if one > budget:
        raise ValueError(
            f"a stack of one run takes {one / 1e9:.2f} GB on a GPU, of which a task has {budget / 1e9:.2f}; give tasks "
            "a larger part of one (machine.gpus_per_task), or train on fewer images at once (spec.batch_size)"
        )
    each = max((some - one) / (PROBED - 1), 1)
    return 2 ** floor(log2(min(1 + (budget - one) / each, most)))
