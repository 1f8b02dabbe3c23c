"""Networks to trace, small and large, for the programs beside this one.

Reads   nothing
Writes  nothing; run by itself it does nothing
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.architectures import Architecture

NARROWEST, WIDTHS = 8, 24
"""The three widths of a numbered network are 8 to 31: 13,824 networks."""


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = normed_convolution(before, after, 3, stride)
        self.second = normed_convolution(after, after, 3, 1)
        self.shortcut = nn.Identity() if before == after else normed_convolution(before, after, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(maps))) + self.shortcut(maps))


class VisionTransformer(nn.Module):
    """Patches of 8 by 8 pixels, a class token, learned positions, encoder layers with the norm first."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.position
        return self.head(self.norm(self.encoder(tokens)[:, 0]))


def normed_convolution(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    """A convolution that keeps the map but for its stride, without a bias."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(after)
    )


def small_cnn() -> nn.Module:
    """The network of the Small CNN Zoo, 4,970 parameters."""
    arguments = {"activation": "relu", "input_shape": [1, 28, 28], "num_classes": 10}
    return Architecture(family="small_cnn", arguments=arguments).build()


def numbered_cnn(number: int) -> nn.Module:
    """One of 13,824 networks like the small CNN, of three widths each."""
    widths = [1, *(NARROWEST + int(place) for place in np.unravel_index(number, (WIDTHS,) * 3))]
    layers = [(nn.Conv2d(i, o, 3, stride=2), nn.ReLU()) for i, o in pairwise(widths)]
    return nn.Sequential(*chain.from_iterable(layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def mlp() -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def resnet8() -> nn.Module:
    """78,042 parameters."""
    blocks = [ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(normed_convolution(3, 16, 3, 1), nn.ReLU(), *blocks, *head)


def wide_cnn(parameters: int) -> nn.Module:
    """Eight convolutions of one width."""
    width = round(math.sqrt(parameters / 63))
    layers = [(nn.Conv2d(3 if layer == 0 else width, width, 3, padding=1), nn.ReLU()) for layer in range(8)]
    return nn.Sequential(*chain.from_iterable(layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def wide_transformer(parameters: int) -> nn.Module:
    """Six layers of eight heads."""
    return VisionTransformer(width=8 * round(math.sqrt(parameters / 72) / 8), depth=6, heads=8)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small CNN": (small_cnn, (1, 1, 28, 28)),
    "MLP": (mlp, (1, 1, 28, 28)),
    "ResNet-8": (resnet8, (1, 3, 32, 32)),
    "ViT": (partial(VisionTransformer, width=32, depth=2, heads=4), (1, 3, 32, 32)),
}
LARGE: dict[str, Callable[[int], nn.Module]] = {"CNN": wide_cnn, "ViT": wide_transformer}
