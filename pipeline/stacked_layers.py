"""Many networks of one architecture as one network: the layers of K networks side by side, each with its own weights.

    network = stack([build(run) for run in runs])
    logits = network(images)          # [batch, K * channels, height, width] -> [batch, K * num_classes]

Reads   K networks of one architecture
Writes  a network of the same class, whose layers are stacked

Channels of network k stand at ``k * channels`` on axis 1 everywhere, so whatever treats channels one by one
(activations, pooling, sums, flatten) does what it does to one network. Convolutions become grouped ones, linear layers
batched matrix products, norms norms of more channels; nothing reads across networks, so a network that diverges leaves
the others be.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.network_parts import Dropout

Run = TypeVar("Run")
CHANNELWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.LeakyReLU, nn.Identity)
"""Layers that are the same for one network and for many."""


def in_stacks(runs: Iterable[Run], size: int, kind: Callable[[Run], Any]) -> Iterator[list[Run]]:
    """Runs of one kind together, at most ``size``; kinds in their order, runs of a kind as they come."""
    for _, group in groupby(sorted(runs, key=kind), key=kind):
        alike = list(group)
        for first in range(0, len(alike), size):
            yield alike[first : first + size]


class StackedConv(nn.Module):
    """Convolutions of one or two axes: ``[batch, K * in, ...] -> [batch, K * out, ...]``."""

    def __init__(self, layers: Sequence[nn.Conv1d | nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        self.num_networks = len(layers)
        self.stride, self.padding, self.dilation, self.groups = (
            first.stride,
            first.padding,
            first.dilation,
            first.groups,
        )
        self.convolve = functional.conv1d if isinstance(first, nn.Conv1d) else functional.conv2d
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases)) if biases else None

    def forward(self, maps: Tensor) -> Tensor:
        groups = self.num_networks * self.groups
        return self.convolve(maps, self.weight, self.bias, self.stride, self.padding, self.dilation, groups)


class StackedLinear(nn.Module):
    """Linear layers: ``[batch, K * in] -> [batch, K * out]``."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases)) if biases else None

    def forward(self, features: Tensor) -> Tensor:
        apart = features.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        product = torch.bmm(apart, self.weight.transpose(1, 2))
        return (product if self.bias is None else product + self.bias[:, None]).transpose(0, 1).flatten(1)


class StackedDropout(nn.Module):
    """Dropout of each network at its own rate, by its own generator, as `Dropout` draws."""

    def __init__(self, layers: Sequence[Dropout]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or all(layer.rate == 0 for layer in self.layers):
            return x
        parts = x.unflatten(1, (len(self.layers), -1)).unbind(1)
        masks = [layer.mask(part) for layer, part in zip(self.layers, parts, strict=True)]
        return x * torch.stack(masks, dim=1).flatten(1, 2)


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """One network that computes what these do, from images side by side on the axis of channels.

    Raises:
        ValueError: they have a layer, or a parameter outside layers, that cannot be stacked.
    """
    network = copy.deepcopy(networks[0])
    for name, part in networks[0].named_modules():
        if list(part.children()) or not name:
            loose = [f"{name}.{own}".lstrip(".") for own, _ in part.named_parameters(recurse=False)]
            if loose:
                raise ValueError(
                    f"{loose[0]} is a parameter outside layers, which cannot be stacked; train with the loop"
                )
        else:
            network.set_submodule(name, _stacked(name, [each.get_submodule(name) for each in networks]))
    return network


def _stacked(name: str, layers: Sequence[nn.Module]) -> nn.Module:
    """One layer for those of K networks."""
    first = layers[0]
    match first:
        case nn.Conv1d() | nn.Conv2d():
            return StackedConv(layers)  # type: ignore[arg-type]
        case nn.Linear():
            return StackedLinear(layers)  # type: ignore[arg-type]
        case Dropout():
            return StackedDropout(layers)  # type: ignore[arg-type]
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.GroupNorm():
            return _stacked_norm(layers)
        case _ if isinstance(first, CHANNELWISE):
            return copy.deepcopy(first)
    raise ValueError(f"{name} is a {type(first).__name__}, which cannot be stacked; train with the loop")


def _stacked_norm(layers: Sequence[nn.Module]) -> nn.Module:
    """A norm of the channels of all networks: batch norm treats each alone, group norm has more groups."""
    norm = copy.deepcopy(layers[0])
    for name in ("num_features", "num_channels", "num_groups"):
        if hasattr(norm, name):
            setattr(norm, name, getattr(norm, name) * len(layers))
    for name, _ in layers[0].named_parameters():
        setattr(norm, name, nn.Parameter(torch.cat([layer.get_parameter(name).detach() for layer in layers])))
    for name, tensor in layers[0].named_buffers():
        if tensor.ndim:
            norm.register_buffer(name, torch.cat([layer.get_buffer(name) for layer in layers]))
    return norm


def state_of(network: nn.Module, number: int, num_networks: int) -> dict[str, Tensor]:
    """The state dict of one of the networks in a stack."""
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if isinstance(network.get_submodule(name.rpartition(".")[0]), StackedLinear):
            state[name] = tensor[number]
        else:  # counters have no axis, and are the same for all
            state[name] = tensor.unflatten(0, (num_networks, -1))[number] if tensor.ndim else tensor
    return state
