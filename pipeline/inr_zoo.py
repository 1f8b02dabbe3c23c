"""What a zoo of implicit networks is, and every run in it: one network for one image, fitted once or several times.

    spec:
      name: inr-digits
      images: {name: digits, size: 8}
      width: {choice: [32]}
      ...

Reads   nothing (a specification is a YAML file under configs/inr/)
Writes  nothing

As in `pipeline.zoo`, each random decision of a run has a stream of its own, from (zoo seed, run index, purpose). Only
shared starts are drawn without the run index: what is shared is the same for every image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pipeline.architectures import Architecture
from pipeline.distributions import Choice, Distribution, check_lists, turns
from pipeline.images import ImageSpec, image_names
from pipeline.specifications import chunk_of, chunks_in, digest_of, document_of
from pipeline.zoo import run_stream

Start = Literal["shared", "independent"]
DRAWN = ("width", "depth", "omega", "initialisation", "learning_rate", "psnr")


@dataclass(frozen=True, kw_only=True)
class InrSpec:
    """What a zoo of implicit networks is: everything that decides its bytes, nothing about machines."""

    name: str
    """What the zoo is called in reports."""
    images: ImageSpec
    """What is fitted: all of them, those for training first; each is a unit, which splits keep together."""
    width: Choice[int]
    """Neurons of every hidden layer."""
    depth: Choice[int]
    """Hidden layers."""
    omega: Choice[float]
    """Above 0: frequency of the sines, sin(omega * (W x + b)); 30 in Sitzmann et al. 2020 (arXiv:2006.09661)."""
    initialisation: Choice[Start]
    """independent: every run starts from weights of its own. shared: the first fits of all images start from the same
    weights, the second ones from other weights, and so on."""
    learning_rate: Distribution
    """Above 0, of Adam; every step sees all pixels."""
    psnr: Distribution
    """In decibels: a run stops when its image is this good."""
    most_steps: int
    """A run stops here however good its image is."""
    seed: int
    """Of every random decision, 0 to 2^32 - 1."""
    runs_per_chunk: int
    """Runs that one task fits and writes together; some minutes of work is a good size."""
    fits_per_image: int = 1
    """Runs for each image, one after another."""

    def __post_init__(self) -> None:
        for name in ("most_steps", "runs_per_chunk", "fits_per_image"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.name:
            raise ValueError("name is empty; expected what the zoo is called")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected 0 to 2^32 - 1")
        for name in ("width", "depth", "omega", "initialisation"):
            choice: Choice[Any] = getattr(self, name)
            choice.check(name)
            if not all(isinstance(value, str) or 0 < value < math.inf for value in choice.values):
                raise ValueError(f"{name} is one of {list(choice.values)}; expected positive numbers")
        self.learning_rate.check("learning_rate", above=0.0)
        self.psnr.check("psnr", above=0.0)
        check_lists(self.drawn, self.num_runs)

    @cached_property
    def drawn(self) -> dict[str, Choice[Any] | Distribution]:
        """All that is drawn for a run, by name."""
        return {name: getattr(self, name) for name in DRAWN}

    @property
    def num_images(self) -> int:
        return self.images.num_train_images + self.images.num_test_images

    @property
    def num_runs(self) -> int:
        """Runs are numbered from 0: all fits of the first image, then those of the next."""
        return self.num_images * self.fits_per_image

    @property
    def num_tested(self) -> int:
        """Test images that a run classifies: none."""
        return 0

    @property
    def num_chunks(self) -> int:
        """Chunks are numbered from 0; the last may be smaller."""
        return chunks_in(self.num_runs, self.runs_per_chunk)

    def chunk(self, index: int) -> range:
        """The run indices of a chunk."""
        return chunk_of(index, self.num_runs, self.runs_per_chunk)

    def document(self) -> dict[str, Any]:
        """The specification as plain JSON values, without what is not given."""
        return document_of(self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document, in hexadecimal."""
        return digest_of(self.document())

    @cached_property
    def image_names(self) -> list[str]:
        """By image."""
        return image_names(self.images)


@dataclass(frozen=True, kw_only=True)
class InrConfiguration:
    """The resolved configuration of a run: the columns ``config.<name>`` of its rows."""

    omega: float
    initialisation: Start
    learning_rate: float
    psnr: float
    """At which it was to stop."""
    most_steps: int
    zoo_seed: int


@dataclass(frozen=True, kw_only=True)
class InrRun:
    """One network for one image, resolved: all that its fitting depends on besides the image."""

    run_id: str
    """As in `pipeline.zoo.ModelSpec`."""
    run_index: int
    architecture: Architecture
    config: InrConfiguration
    image: int
    """Position among the images of the zoo, those for training first."""
    image_name: str
    fit: int
    """Which of the runs for this image, from 0."""

    def start_stream(self) -> np.random.Generator:
        """A fresh generator for the weights it starts from."""
        if self.config.initialisation == "independent":
            return run_stream(self.config.zoo_seed, self.run_index, "initial weights")
        return run_stream(self.config.zoo_seed, self.fit, "shared initial weights")


def resolve_inr(spec: InrSpec, run_index: int) -> InrRun:
    """One run of a zoo of implicit networks."""
    turn: Mapping[str, int] = turns(spec.drawn, run_index)
    drawn: dict[str, Any] = {
        name: how.draw(run_stream(spec.seed, run_index, name), turn.get(name, 0)) for name, how in spec.drawn.items()
    }
    image, fit = divmod(run_index, spec.fits_per_image)
    shape = {"input_shape": [2], "channels": spec.images.shape[0]}
    return InrRun(
        run_id=f"{spec.digest[:8]}-{run_index:06d}",
        run_index=run_index,
        architecture=Architecture(
            family="siren", arguments={**shape, **{name: drawn[name] for name in ("width", "depth", "omega")}}
        ),
        config=InrConfiguration(
            omega=drawn["omega"],
            initialisation=drawn["initialisation"],
            learning_rate=drawn["learning_rate"],
            psnr=drawn["psnr"],
            most_steps=spec.most_steps,
            zoo_seed=spec.seed,
        ),
        image=image,
        image_name=spec.image_names[image],
        fit=fit,
    )
