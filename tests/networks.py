"""Small networks that several test files trace; sizes are distinct primes where an axis could be mistaken for
another."""

from functools import cache

import torch
from torch import nn

from pipeline.parameter_graph import GraphTemplate
from pipeline.tracing import trace

IMAGE = torch.zeros(1, 2, 11, 11)


def small_convolutional() -> nn.Module:
    """Global average pooling before the head."""
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(5, 3, 3),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 7),
    )


def flattening() -> nn.Module:
    """A map flattened into a linear layer: parallel edges, one per position."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(12, 5), nn.Sigmoid(), nn.Linear(5, 7)
    )


FACTORIES = {"small_convolutional": small_convolutional, "flattening": flattening}


@cache
def template_of(name: str) -> GraphTemplate:
    """The template of one of `FACTORIES`, traced once."""
    return trace(FACTORIES[name](), IMAGE)
