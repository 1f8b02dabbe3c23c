"""Sinusoidal networks, each of which is one image: coordinates in, colours out.

Reads   nothing
Writes  nothing

Sitzmann et al. 2020 (arXiv:2006.09661): sine(omega * (W x + b)), the first layer's weights uniform up to 1 / inputs,
the others' up to sqrt(6 / inputs) / omega, so that what goes into every sine is normal whatever the depth.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn


class Siren(nn.Module):
    """``[n, 2]`` coordinates in [-1, 1] to ``[n, channels]``: hidden layers with sines, and a last one without."""

    def __init__(self, *, input_shape: Sequence[int], channels: int, width: int, depth: int, omega: float) -> None:
        super().__init__()
        [num_coordinates] = input_shape
        self.omega = omega
        widths = [num_coordinates, *[width] * depth, channels]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, coordinates: Tensor) -> Tensor:
        hidden = coordinates
        *inner, last = self.layers
        for layer in inner:
            hidden = torch.sin(self.omega * layer(hidden))
        return last(hidden)


def initialise_siren(network: Siren, generator: torch.Generator) -> None:
    """Draw weights and biases as Sitzmann et al.'s code does: biases as torch's linear layers have them."""
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, nn.Linear)
        most = 1 / layer.in_features if number == 0 else sqrt(6 / layer.in_features) / network.omega
        nn.init.uniform_(layer.weight, -most, most, generator=generator)
        nn.init.uniform_(layer.bias, -1 / sqrt(layer.in_features), 1 / sqrt(layer.in_features), generator=generator)


def pixel_coordinates(height: int, width: int) -> Tensor:
    """``[height * width, 2]``: row and column of every pixel's centre in [-1, 1], row by row."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([rows, columns], dim=2).flatten(0, 1)
