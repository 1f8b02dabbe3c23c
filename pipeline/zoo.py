"""What a zoo is, and every run in it: a pure function from a specification to resolved runs.

Reads   nothing (a specification is a YAML file under configs/zoo/)
Writes  nothing

Each random decision of a run has a stream of its own, made from (zoo seed, run index, purpose). So a run is the same
whatever the number of runs, their grouping into chunks and the machine, and a hyperparameter that is added changes no
other one, but for grids, which take turns.
"""

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.architectures import Architecture, Initialisation
from pipeline.distributions import Choice, Distribution, check_lists, turns
from pipeline.families import FamilySpec
from pipeline.images import ImageSpec
from pipeline.network_parts import Activation
from pipeline.specifications import chunk_of, chunks_in, digest_of, document_of

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How each run's training is drawn. Every hyperparameter is drawn independently."""

    optimizer: Choice[Optimizer]
    """sgd (with momentum), adam, adamw or rmsprop; all but the first with torch's other settings."""
    learning_rate: Distribution
    """Above 0; constant over the run."""
    momentum: Distribution
    """Of sgd, 0 to below 1; other optimizers do without, and it is null in their rows."""
    l2: Distribution
    """At least 0: l2 times the sum of squares of the kernels, not the biases,
    is part of the loss, under every optimizer. Its gradient is 2 * l2 * w;
    torch's weight_decay, on kernels alone, would have to be 2 * l2."""
    dropout: Distribution
    """Probability of zeroing an activation in training, 0 to below 1."""
    initialisation: Choice[Initialisation]
    """How kernels start: glorot, he, normal, truncated_normal or orthogonal.
    Biases start at 0."""
    init_std: Distribution
    """Above 0, of normal and truncated_normal; other initialisations do
    without, and it is null in their rows."""
    train_fraction: Distribution
    """Above 0, at most 1: a run trains on this part of the training images,
    the first of a permutation of its own."""
    weight_decay: Distribution | None = None
    """Of adamw, at least 0: each step makes kernels, not biases, smaller by
    learning_rate * weight_decay of themselves. Other optimizers do without,
    and it is null in their rows."""

    def __post_init__(self) -> None:
        self.optimizer.check("optimizer")
        self.learning_rate.check("learning_rate", above=0.0)
        self.momentum.check("momentum", least=0.0, below=1.0)
        self.l2.check("l2", least=0.0)
        self.dropout.check("dropout", least=0.0, below=1.0)
        self.initialisation.check("initialisation")
        self.init_std.check("init_std", above=0.0)
        self.train_fraction.check("train_fraction", above=0.0, most=1.0)
        if "adamw" in self.optimizer.values and self.weight_decay is None:
            raise ValueError("adamw needs weight_decay, such as weight_decay: {log_uniform: [1.0e-4, 1.0e-1]}")
        if self.weight_decay is not None:
            self.weight_decay.check("weight_decay", least=0.0)


@dataclass(frozen=True, kw_only=True)
class ZooSpec:
    """What a zoo is: everything that decides its bytes, nothing about machines."""

    name: str
    """What the zoo is called in reports."""
    images: ImageSpec
    """What its networks are trained and tested on."""
    architecture: FamilySpec
    """The family of networks, and the ranges its arguments are drawn from."""
    hyperparameters: Hyperparameters
    """How each run's training is drawn."""
    num_runs: int
    """Networks trained, numbered from 0."""
    seed: int
    """Of every random decision, 0 to 2^32 - 1."""
    epochs: int
    """Passes of a run over its own training images; an incomplete last batch of a pass is left out."""
    batch_size: int
    """Images a step."""
    checkpoint_epochs: tuple[int, ...]
    """Epochs after which a run is kept and evaluated, ascending; 0 is the untrained network. The last ends a run."""
    runs_per_chunk: int
    """Runs that one task trains and writes together; some minutes of work is a good size."""

    def __post_init__(self) -> None:
        for name in ("num_runs", "epochs", "batch_size", "runs_per_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.name:
            raise ValueError("name is empty; expected what the zoo is called")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected 0 to 2^32 - 1")
        kept = self.checkpoint_epochs
        if not kept or kept != tuple(sorted(set(kept))) or kept[0] < 0 or kept[-1] > self.epochs:
            raise ValueError(
                f"checkpoint_epochs is {list(kept)}; expected at least one epoch, ascending, each once, from 0 to "
                f"{self.epochs} (epochs)"
            )

        check_lists(self.drawn, self.num_runs)

    @cached_property
    def drawn(self) -> dict[str, Choice[Any] | Distribution]:
        """All that is drawn for a run, by name."""
        given = {field.name: getattr(self.hyperparameters, field.name) for field in fields(self.hyperparameters)}
        return {**self.architecture.choices, **{name: how for name, how in given.items() if how is not None}}

    def document(self) -> dict[str, Any]:
        """The specification as plain JSON values, without what is not given."""
        return document_of(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document, in hexadecimal."""
        return digest_of(self.document())

    @property
    def num_tested(self) -> int:
        """Test images that each run classifies."""
        return self.images.num_test_images

    @property
    def num_chunks(self) -> int:
        """Chunks are numbered from 0; the last may be smaller."""
        return chunks_in(self.num_runs, self.runs_per_chunk)

    def chunk(self, index: int) -> range:
        """The run indices of a chunk."""
        return chunk_of(index, self.num_runs, self.runs_per_chunk)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The resolved configuration of a run: the columns ``config.<name>`` of its rows; null what does not act."""

    optimizer: Optimizer
    learning_rate: float
    momentum: float | None
    l2: float
    weight_decay: float | None
    dropout: float
    initialisation: Initialisation
    init_std: float | None
    train_fraction: float
    activation: Activation
    batch_size: int
    epochs: int
    zoo_seed: int


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One run, resolved: all that its training depends on besides the images."""

    run_id: str
    """First 8 hexadecimal digits of the specification's digest, a dash, the run index in 6 digits."""
    run_index: int
    """Position in the zoo, from 0."""
    architecture: Architecture
    config: Configuration
    num_train: int
    """Training images of this run: the first of its permutation of the zoo's."""
    checkpoint_epochs: tuple[int, ...]
    """As in the specification."""

    @property
    def steps_per_epoch(self) -> int:
        return self.num_train // self.config.batch_size

    @property
    def num_steps(self) -> int:
        """Optimizer steps until the last checkpoint, which ends the run: what its training costs."""
        return self.steps_per_epoch * self.checkpoint_epochs[-1]

    def subset(self, num_images: int) -> Int64[np.ndarray, " num_train"]:
        """Which of the zoo's training images are its own; of a larger fraction, the first are the same."""
        return self.stream("training subset").permutation(num_images)[: self.num_train]

    def batches(self, epoch: int) -> Int64[np.ndarray, "steps_per_epoch batch_size"]:
        """The batches of an epoch (from 1) as positions in its subset, without the incomplete last batch."""
        order = self.stream(f"order of epoch {epoch}").permutation(self.num_train)
        return order[: self.steps_per_epoch * self.config.batch_size].reshape(-1, self.config.batch_size)

    def stream(self, purpose: str) -> np.random.Generator:
        """A fresh generator for one purpose of this run; the same purpose gives the same numbers."""
        return run_stream(self.config.zoo_seed, self.run_index, purpose)


def run_stream(zoo_seed: int, run_index: int, purpose: str) -> np.random.Generator:
    """The random stream of (zoo seed, run index, purpose); the purpose enters as the number its letters spell."""
    spelled = int.from_bytes(purpose.encode(), "little")
    return np.random.default_rng(np.random.SeedSequence(zoo_seed, spawn_key=(run_index, spelled)))


def expand(spec: ZooSpec) -> tuple[ModelSpec, ...]:
    """Every run of a zoo, in the order of run indices."""
    return tuple(resolve(spec, run_index) for run_index in range(spec.num_runs))


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What a zoo costs, without its runs: those of a million would take gigabytes."""

    num_steps: Int64[np.ndarray, " num_runs"]
    num_train: Int64[np.ndarray, " num_runs"]
    """Training images of each run."""
    num_architectures: int

    def chunk_steps(self, spec: ZooSpec) -> list[int]:
        """Optimizer steps of each chunk: what its training costs."""
        return [int(self.num_steps[spec.chunk(index)].sum()) for index in range(spec.num_chunks)]


def plan(spec: ZooSpec) -> Plan:
    """Resolve every run, and keep what it costs.

    Raises:
        ValueError: a run is impossible.
    """
    costs = np.empty((spec.num_runs, 2), dtype=np.int64)
    architectures: set[str] = set()
    for run_index in range(spec.num_runs):
        run = resolve(spec, run_index)
        costs[run_index] = run.num_steps, run.num_train
        architectures.add(run.architecture.document())
    return Plan(num_steps=costs[:, 0], num_train=costs[:, 1], num_architectures=len(architectures))


def resolve(spec: ZooSpec, run_index: int) -> ModelSpec:
    """One run of a zoo.

    Raises:
        ValueError: its part of the training images is less than one batch, or its network does not fit them.
    """

    def stream(name: str) -> np.random.Generator:
        return run_stream(spec.seed, run_index, name)

    turn = turns(spec.drawn, run_index)

    def draw(name: str) -> Any:
        return spec.drawn[name].draw(stream(name), turn.get(name, 0))

    architecture = spec.architecture.draw(spec.images, stream, turn)
    try:
        check_fits(architecture.document())
    except ValueError as error:
        raise ValueError(f"run {run_index}: {error}") from error
    optimizer, initialisation = draw("optimizer"), draw("initialisation")
    config = Configuration(
        optimizer=optimizer,
        learning_rate=draw("learning_rate"),
        momentum=draw("momentum") if optimizer == "sgd" else None,
        l2=draw("l2"),
        weight_decay=draw("weight_decay") if optimizer == "adamw" else None,
        dropout=draw("dropout"),
        initialisation=initialisation,
        init_std=draw("init_std") if initialisation in ("normal", "truncated_normal") else None,
        train_fraction=draw("train_fraction"),
        activation=architecture.arguments["activation"],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        zoo_seed=spec.seed,
    )
    num_train = round(config.train_fraction * spec.images.num_train_images)
    if num_train < spec.batch_size:
        raise ValueError(
            f"run {run_index}: train_fraction {config.train_fraction} of {spec.images.num_train_images} training "
            f"images is {num_train} images, less than one batch (batch_size {spec.batch_size}); raise the smallest "
            "train_fraction or images.num_train, or lower batch_size"
        )
    return ModelSpec(
        run_id=f"{spec.digest[:8]}-{run_index:06d}",
        run_index=run_index,
        architecture=architecture,
        config=config,
        num_train=num_train,
        checkpoint_epochs=spec.checkpoint_epochs,
    )


@lru_cache(maxsize=100_000)
def check_fits(architecture: str) -> None:
    """Refuse an architecture whose sizes do not fit together; nothing is allocated."""
    with torch.device("meta"):
        Architecture.parse(architecture).build()
