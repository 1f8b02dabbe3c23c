"""A first layer on vectors or images, wired to others by a function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tiny_networks import Wired

IMAGE = torch.zeros(1, 2, 7, 11)


def hidden(wiring: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    """A hidden layer of four neurons, wired to layers of its own."""
    return Wired(wiring, hidden=nn.Linear(3, 4), **layers)


def imaged(wiring: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    """A convolution that leaves four channels on a 6x10 map, wired to layers of its own."""
    return Wired(wiring, conv=nn.Conv2d(2, 4, 2), **layers)


VECTOR = torch.zeros(1, 3)
