"""How the architectures of a zoo are drawn: a family's name, and a choice for each of its arguments.

    architecture:
      family: varying_cnn
      width: {choice: [8, 16, 32]}
      depth: {choice: [2, 3, 4]}
      ...

Reads   nothing
Writes  nothing

One record has the arguments of all families, each of which takes some: a union of records would be tidier, and its
errors unreadable. Each argument is drawn from a stream of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from pipeline.architectures import FAMILIES, Architecture
from pipeline.distributions import Choice
from pipeline.images import ImageSpec
from pipeline.network_parts import Activation, Norm, Pooling

FamilyName = Literal["small_cnn", "varying_cnn", "cnn1d", "deepsets", "resnet", "vit", "mlp"]
GIVEN = ("input_shape", "num_classes", "dropout")
"""Arguments of every network that are decided elsewhere."""


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """The family of networks, and what its arguments are drawn from; a family takes all of its own, and no others."""

    family: FamilyName
    """small_cnn: the Small CNN Zoo's network; images of at least 15x15.
    varying_cnn: convolutions with norms, then linear layers.
    cnn1d: convolutions over the pixels in raster order.
    deepsets: layers on the set of pixels, each with its position.
    resnet: basic blocks. vit: vision transformers. mlp: linear layers."""
    activation: Choice[Activation]
    """Of one network's layers, all the same."""
    width: Choice[int] | None = None
    """Channels or features of every layer; of all families but small_cnn and resnet. Even where the norm may be group,
    a multiple of num_heads in vit."""
    widths: Choice[tuple[int, ...]] | None = None
    """Of resnet: channels of every stage, each but the first of which halves the map."""
    depth: Choice[int] | None = None
    """Convolutions, layers or hidden layers; of all families but small_cnn and resnet."""
    kernel_size: Choice[int] | None = None
    """Of varying_cnn and cnn1d: of every convolution, odd."""
    stride: Choice[int] | None = None
    """Of varying_cnn and cnn1d: of every convolution."""
    norm: Choice[Norm] | None = None
    """Of varying_cnn, cnn1d and resnet: after every convolution, none, batch or group (of two groups)."""
    pooling: Choice[Pooling] | None = None
    """Of varying_cnn and cnn1d: over the map after the last convolution, mean or max."""
    num_linear: Choice[int] | None = None
    """Of varying_cnn: linear layers after the pooling, at least 1."""
    blocks_per_stage: Choice[int] | None = None
    """Of resnet: basic blocks, of two convolutions each."""
    patch_size: Choice[int] | None = None
    """Of vit: height and width of a patch, a divisor of the image's."""
    num_heads: Choice[int] | None = None
    """Of vit: of attention."""
    expansion: Choice[int] | None = None
    """Of vit: hidden features of an encoder layer for each of a token."""
    pool: Choice[int] | None = None
    """Of mlp: pixels along each axis that are averaged before the first layer, a divisor of the image's size."""

    def __post_init__(self) -> None:
        wanted, given = arguments_of(self.family), self.choices
        for name in (name for name in wanted if name not in given):
            raise ValueError(f"architecture: {self.family} needs {name}, such as {name}: {{choice: [...]}}")
        for name in (name for name in given if name not in wanted):
            raise ValueError(f"architecture: {self.family} has no {name}; it has {', '.join(wanted)}")
        for name, choice in given.items():
            choice.check(f"architecture: {name}")
            sizes = [size for value in choice.values for size in (value if isinstance(value, tuple) else (value,))]
            if () in choice.values or any(isinstance(size, int) and size < 1 for size in sizes):
                raise ValueError(f"architecture: {name} is one of {list(choice.values)}; expected numbers from 1 on")

    @property
    def choices(self) -> dict[str, Choice[Any]]:
        """What is given, by argument."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "family"}
        return {name: choice for name, choice in found.items() if choice is not None}

    def draw(
        self,
        images: ImageSpec,
        stream: Callable[[str], np.random.Generator],
        turns: Mapping[str, int] = MappingProxyType({}),
    ) -> Architecture:
        """One network of the family; ``stream`` gives the generator of each argument by its name, ``turns`` its place
        in a grid or list."""
        drawn = {name: choice.draw(stream(name), turns.get(name, 0)) for name, choice in self.choices.items()}
        drawn = {name: list(value) if isinstance(value, tuple) else value for name, value in drawn.items()}
        shape = {"input_shape": list(images.shape), "num_classes": images.num_classes}
        return Architecture(family=self.family, arguments={**shape, **drawn})


def arguments_of(family: str) -> list[str]:
    """The arguments of a family's networks that a zoo draws."""
    return [name for name in signature(FAMILIES[family]).parameters if name not in GIVEN]
