"""The networks that zoos are made of, as plain modules, and how their weights start.

Reads   nothing
Writes  nothing

An `Architecture` is a family's name and plain arguments. It decides every shape, and the function for given weights,
but nothing about training: dropout, which acts in training only, is an argument of `Architecture.build` and not part
of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh"]
Initialisation = Literal["glorot", "he", "normal", "truncated_normal", "orthogonal"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without its weights."""

    family: str
    """``small_cnn``."""
    arguments: dict[str, Any]
    """Plain JSON values; every family has ``input_shape`` ([channels, height, width]) and ``num_classes``."""

    def document(self) -> str:
        """The canonical text: JSON, keys sorted, no spaces. Equal architectures have equal documents."""
        document = {"family": self.family, "arguments": self.arguments}
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> "Architecture":
        """The architecture a document describes."""
        try:
            document = json.loads(text)
            return Architecture(family=document["family"], arguments=document["arguments"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected an architecture as JSON (family, arguments); found {text[:80]!r}") from error

    def build(self, dropout: float = 0.0) -> nn.Module:
        """The network, with weights drawn from torch's global generator as its layers do by themselves."""
        families = {"small_cnn": SmallCNN}
        if self.family not in families:
            raise ValueError(f"unknown architecture family {self.family!r}; expected one of {', '.join(families)}")
        try:
            return families[self.family](**self.arguments, dropout=dropout)
        except TypeError as error:
            raise ValueError(f"architecture {self.document()}: {error}") from error

    def example_input(self) -> Tensor:
        """One input of the right shape, all zeros."""
        return torch.zeros(1, *self.arguments["input_shape"])


class SmallCNN(nn.Module):
    """The network of the Small CNN Zoo (Unterthiner et al. 2020, arXiv:2002.11448): 4,970 parameters on grey images.

    Three times a 3x3 convolution with 16 filters, stride 2 and no padding, an activation and dropout; then the mean
    over the map and a linear layer. Tensors are in torch's order, weight before bias; the published ones have the
    bias first.
    """

    width = 16
    smallest = 15  # 15 -> 7 -> 3 -> 1

    def __init__(
        self, *, input_shape: Sequence[int], num_classes: int, activation: str = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.check_input(input_shape)
        self.conv1 = nn.Conv2d(input_shape[0], self.width, kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(self.width, self.width, kernel_size=3, stride=2)
        self.conv3 = nn.Conv2d(self.width, self.width, kernel_size=3, stride=2)
        self.classifier = nn.Linear(self.width, num_classes)
        self.activation = activation_module(activation)
        self.dropout = Dropout(dropout)

    @classmethod
    def check_input(cls, input_shape: Sequence[int]) -> None:
        """Refuse images that the three convolutions would shrink to nothing."""
        _, height, width = input_shape
        if min(height, width) < cls.smallest:
            raise ValueError(
                f"small_cnn: images are {height}x{width} pixels; its three convolutions of stride 2 need at least "
                f"{cls.smallest}x{cls.smallest}, so make them larger (images.size)"
            )

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for conv in (self.conv1, self.conv2, self.conv3):
            maps = self.dropout(self.activation(conv(maps)))
        return self.classifier(maps.mean(dim=(2, 3)))


class Dropout(nn.Module):
    """While training, each element is 0 with probability ``rate``, else divided by ``1 - rate``; in eval mode, nothing.

    Unlike ``nn.Dropout`` it draws from a generator that the trainer may set, so that a network's masks are its own
    whatever is trained beside it; and it compares uniform numbers, which is several times faster than torch's
    ``bernoulli_``.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout is {rate}; expected at least 0 and less than 1")
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        mask = torch.rand(x.shape, generator=self.generator).ge_(self.rate)
        return x * mask.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def activation_module(name: str) -> nn.Module:
    """The activation of a name."""
    match name:
        case "relu":
            return nn.ReLU()
        case "tanh":
            return nn.Tanh()
    raise ValueError(f"unknown activation {name!r}; expected relu or tanh")


def initialise(network: nn.Module, scheme: Initialisation, std: float | None, generator: torch.Generator) -> None:
    """Draw the weights a network starts with from ``generator``, in the order of its modules; biases start at 0.

    ``glorot`` is normal with variance 2 / (fan_in + fan_out) and ``he`` normal with 2 / fan_in. ``normal`` has standard
    deviation ``std``; so has ``truncated_normal`` before it is cut at two of them. ``orthogonal`` has gain 1.
    """
    for name, module in network.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        if not isinstance(module, nn.Conv2d | nn.Linear):
            raise ValueError(f"{name} is a {type(module).__name__}; how its parameters start is not defined")
        draw(module.weight, scheme, std, generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def draw(weight: Tensor, scheme: Initialisation, std: float | None, generator: torch.Generator) -> None:
    """Fill one weight in place."""
    match scheme:
        case "glorot":
            nn.init.xavier_normal_(weight, generator=generator)
        case "he":
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        case "normal":
            assert std is not None
            nn.init.normal_(weight, std=std, generator=generator)
        case "truncated_normal":
            assert std is not None
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        case "orthogonal":
            nn.init.orthogonal_(weight, generator=generator)
