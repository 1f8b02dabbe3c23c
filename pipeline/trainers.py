"""Which trainer a zoo is trained with: it decides the bytes, so it is recorded with the zoo.

Reads   nothing
Writes  nothing
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import torch

from pipeline import loop_trainer, stacked_trainer
from pipeline.architectures import Architecture
from pipeline.images import Images
from pipeline.inr_zoo import InrRun
from pipeline.loop_trainer import Checkpoint
from pipeline.siren_trainer import FittedNetwork, fit_runs
from pipeline.stacked_layers import stack
from pipeline.zoo import ModelSpec

TrainerName = Literal["loop", "stacked"]
Device = Literal["cpu", "cuda"]
LARGEST_STACK = 2**20
STACKED_ON_CPU, SIRENS_ON_CPU = 2, 32
"""Runs in a stack, measured (benchmarks/zoo_training.py)."""
CONSTANT = {"threads": 1, "dtype": "float32"}
"""What all trainers have in common."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How the runs of a chunk are trained. A zoo that was begun is continued with its own trainer only."""

    name: TrainerName = "loop"
    """loop: one after another, for every family. stacked: several in the same
    operations, where they have one architecture and as many steps; not for
    deepsets and vit. Results agree to rounding."""
    stack: int | None = None
    """Of stacked: runs at once. If not given, 2 on a CPU, where larger stacks of
    convolutions leave the cache; on a GPU as many as its memory holds, which is
    tried once and recorded."""
    device: Device = "cpu"
    """Of stacked: cpu, or cuda with machine.gpus_per_task above 0. Dropout has
    other masks on a GPU."""

    def __post_init__(self) -> None:
        check_stack(self.stack)
        if self.name == "loop" and (self.device != "cpu" or self.stack is not None):
            raise ValueError(
                f"trainer: the loop trains on cpu, one run after another; found device {self.device} and stack "
                f"{self.stack}, which are for stacked"
            )

    @property
    def settled(self) -> "Trainer":
        """With as many runs in a stack as are best on a CPU, where that is left open."""
        return replace(self, stack=STACKED_ON_CPU) if self.name == "stacked" and self.stack is None else self

    @property
    def document(self) -> dict[str, Any]:
        """What is recorded, as plain JSON values."""
        stacked = {"stack": self.stack, **device_document(self.device)} if self.name == "stacked" else {}
        return {"name": self.name, **CONSTANT, **stacked}

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Trainer":
        """The trainer of a record.

        Raises:
            ValueError: it is another one's.
        """
        known = {name: document[name] for name in ("name", "stack", "device") if name in document}
        return recorded(Trainer, known, document)

    def check(self, architecture: Architecture) -> None:
        """Refuse networks that this trainer cannot train; nothing is allocated.

        Raises:
            ValueError: they have a layer, or a parameter outside layers, that cannot be stacked, or read another axis
                than that of channels.
        """
        if self.name == "loop":
            return
        channels, *extents = architecture.arguments["input_shape"]
        with torch.device("meta"):
            network, images = stack([architecture.build()] * 2), torch.empty(3, 2 * channels, *extents)
            try:
                stackable = network(images).shape == (3, 2 * architecture.arguments["num_classes"])
            except RuntimeError:
                stackable = False
        if not stackable:
            raise ValueError(
                f"{architecture.family}: its layers read another axis than that of channels, so that networks cannot "
                "be stacked; train with the loop (trainer.name)"
            )

    def train(self, runs: Sequence[ModelSpec], images: Images) -> list[Checkpoint]:
        """Train every run from its start to its last checkpoint; checkpoints in the order of runs."""
        if self.name == "loop":
            return loop_trainer.train_chunk(runs, images)
        check_device(self.device)
        assert self.stack is not None, "settled before the first chunk"
        return stacked_trainer.train_chunk(runs, images, self.stack, self.device)


@dataclass(frozen=True, kw_only=True)
class SirenTrainer:
    """How the runs of a chunk of implicit networks are fitted."""

    stack: int | None = None
    """Runs fitted at once, where they have one architecture; results agree to
    rounding. If not given, 32 on a CPU; on a GPU as many as its memory holds,
    which is tried once and recorded."""
    device: Device = "cpu"
    """cpu, or cuda with machine.gpus_per_task above 0."""

    def __post_init__(self) -> None:
        check_stack(self.stack)

    @property
    def settled(self) -> "SirenTrainer":
        """With as many runs in a stack as are best on a CPU, where that is left open."""
        return self if self.stack else replace(self, stack=SIRENS_ON_CPU)

    @property
    def document(self) -> dict[str, Any]:
        """What is recorded, as plain JSON values."""
        return {"name": "siren", **CONSTANT, "stack": self.stack, **device_document(self.device)}

    @staticmethod
    def of(document: Mapping[str, Any]) -> "SirenTrainer":
        """The trainer of a record.

        Raises:
            ValueError: it is another one's.
        """
        return recorded(
            SirenTrainer, {name: document[name] for name in ("stack", "device") if name in document}, document
        )

    def train(self, runs: Sequence[InrRun], images: Images) -> list[FittedNetwork]:
        """Fit every run; in the order of runs."""
        check_device(self.device)
        assert self.stack is not None, "settled before the first chunk"
        return fit_runs(runs, images, self.stack, self.device)


AnyTrainer = TypeVar("AnyTrainer", Trainer, SirenTrainer)


def recorded(kind: type[AnyTrainer], settings: Mapping[str, Any], document: Mapping[str, Any]) -> AnyTrainer:
    """The trainer of these settings, if its record is the one that was found."""
    known = {"name": get_args(TrainerName), "device": get_args(Device), "stack": range(1, LARGEST_STACK + 1)}
    if all(value in known[name] for name, value in settings.items()):
        with suppress(ValueError):
            if (trainer := kind(**settings)).document == dict(document):
                return trainer
    raise ValueError(f"the trainer {dict(document)} is not known; expected such as {kind().document}")


def check_stack(stack: int | None) -> None:
    """Refuse stacks of nothing."""
    if stack is not None and not 1 <= stack <= LARGEST_STACK:
        raise ValueError(f"trainer: stack is {stack}; expected at least 1, at most {LARGEST_STACK:,}")


def device_document(device: Device) -> dict[str, str]:
    """What is recorded of a device: nothing of a CPU."""
    return {} if device == "cpu" else {"device": device}


def check_device(device: Device) -> None:
    """Refuse a GPU that this process does not see."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "trainer: device is cuda, and this process sees no GPU; have Ray give one to each task, or a part of one "
            "(machine.gpus_per_task), on machines with a GPU and a torch that was built for it"
        )
