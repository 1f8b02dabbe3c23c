"""The networks that zoos are made of, as plain modules, and how their weights start.

Reads   nothing
Writes  nothing

An `Architecture` is a family's name and plain arguments. It decides every shape, and the function for given weights,
but nothing about training: dropout, which acts in training only, is an argument of `Architecture.build` and not part
of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pipeline.deep_networks import ResNet, ViT
from pipeline.image_networks import MLP, CNN1d, DeepSets, SmallCNN, VaryingCNN
from pipeline.siren import Siren

Initialisation = Literal["glorot", "he", "normal", "truncated_normal", "orthogonal"]

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": SmallCNN,
    "varying_cnn": VaryingCNN,
    "cnn1d": CNN1d,
    "deepsets": DeepSets,
    "resnet": ResNet,
    "vit": ViT,
    "mlp": MLP,
    "siren": Siren,
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without its weights."""

    family: str
    """One of `FAMILIES`."""
    arguments: dict[str, Any]
    """Plain JSON values; every family has ``input_shape`` ([channels, height, width], or [coordinates] of siren)."""

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
        if self.family not in FAMILIES:
            raise ValueError(f"unknown architecture family {self.family!r}; expected one of {', '.join(FAMILIES)}")
        try:
            return FAMILIES[self.family](**self.arguments, **({"dropout": dropout} if dropout else {}))
        except TypeError as error:
            raise ValueError(f"architecture {self.document()}: {error}") from error

    def example_input(self) -> Tensor:
        """One input of the right shape, all zeros."""
        return torch.zeros(1, *self.arguments["input_shape"])


@runtime_checkable
class HasOwnParameters(Protocol):
    """A module with parameters that belong to none of its layers."""

    def draw_own_parameters(self, generator: torch.Generator) -> None:
        """Draw the values they start with."""
        ...


def initialise(network: nn.Module, scheme: Initialisation, std: float | None, generator: torch.Generator) -> None:
    """Draw the weights a network starts with from ``generator``, in the order of its modules; biases start at 0.

    ``glorot`` is normal with variance 2 / (fan_in + fan_out) and ``he`` normal with 2 / fan_in. ``normal`` has standard
    deviation ``std``; so has ``truncated_normal`` before it is cut at two of them. ``orthogonal`` has gain 1. Norms
    start with factors of 1 and summands of 0.
    """
    for name, module in network.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            draw(module.weight, scheme, std, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, HasOwnParameters):
            module.draw_own_parameters(generator)
        else:
            raise ValueError(f"{name} is a {type(module).__name__}; how its parameters start is not defined")


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
