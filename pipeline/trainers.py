"""Which trainer a zoo is trained with: it decides the bytes, so it is recorded with the zoo.

Reads   nothing
Writes  nothing
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

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
CONSTANT = {"threads": 1, "dtype": "float32"}
"""What all trainers have in common."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How the runs of a chunk are trained. A zoo that was begun is continued with its own trainer only."""

    name: TrainerName = "loop"
    """loop: one after another, for every family. stacked: several in the same
    operations, where they have one architecture and as many steps; not for
    deepsets and vit. Results agree to rounding."""
    stack: int = 2
    """Of stacked: runs at once. On a CPU two are best for convolutions, which
    larger stacks push out of the cache."""

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise ValueError(f"trainer: stack is {self.stack}; expected at least 1")

    @property
    def document(self) -> dict[str, Any]:
        """What is recorded, as plain JSON values."""
        return {"name": self.name, **CONSTANT, **({"stack": self.stack} if self.name == "stacked" else {})}

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Trainer":
        """The trainer of a record.

        Raises:
            ValueError: it is another one's.
        """
        stack = document.get("stack", Trainer.stack)
        for name in get_args(TrainerName):
            if isinstance(stack, int) and (trainer := Trainer(name=name, stack=stack)).document == dict(document):
                return trainer
        raise ValueError(f"the trainer {dict(document)} is not known; expected such as {Trainer().document}")

    def check(self, architecture: Architecture) -> None:
        """Refuse networks that this trainer cannot train; nothing is allocated.

        Raises:
            ValueError: they have a layer, or a parameter outside layers, that cannot be stacked.
        """
        if self.name == "stacked":
            with torch.device("meta"):
                stack([architecture.build()])

    def train(self, runs: Sequence[ModelSpec], images: Images) -> list[Checkpoint]:
        """Train every run from its start to its last checkpoint; checkpoints in the order of runs."""
        if self.name == "loop":
            return loop_trainer.train_chunk(runs, images)
        return stacked_trainer.train_chunk(runs, images, self.stack)


@dataclass(frozen=True, kw_only=True)
class SirenTrainer:
    """How the runs of a chunk of implicit networks are fitted."""

    stack: int = 32
    """Runs fitted at once, where they have one architecture; results agree to
    rounding. On a CPU a few dozen are best, on a GPU thousands."""

    def __post_init__(self) -> None:
        if self.stack < 1:
            raise ValueError(f"trainer: stack is {self.stack}; expected at least 1")

    @property
    def document(self) -> dict[str, Any]:
        """What is recorded, as plain JSON values."""
        return {"name": "siren", **CONSTANT, "stack": self.stack}

    @staticmethod
    def of(document: Mapping[str, Any]) -> "SirenTrainer":
        """The trainer of a record.

        Raises:
            ValueError: it is another one's.
        """
        stack = document.get("stack")
        if isinstance(stack, int) and stack > 0 and (trainer := SirenTrainer(stack=stack)).document == dict(document):
            return trainer
        raise ValueError(f"the trainer {dict(document)} is not known; expected such as {SirenTrainer().document}")

    def train(self, runs: Sequence[InrRun], images: Images) -> list[FittedNetwork]:
        """Fit every run; in the order of runs."""
        return fit_runs(runs, images, self.stack)
