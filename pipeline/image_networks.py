"""Networks of zoos on images, without residuals: convolutional, on raster pixels, on sets of pixels, fully connected.

Reads   images ``[batch, channels, height, width]``
Writes  logits ``[batch, num_classes]``

`VaryingCNN`, `CNN1d` and `DeepSets` are three of the five families of Lim et al. (ICLR 2024, arXiv:2312.04501), whose
exact zoos are not published: layers are as their code builds them, sizes are ours.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.network_parts import Dropout, activation_module, convolution_block, fully_connected, pooled


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


class VaryingCNN(nn.Module):
    """Convolutions with a norm, an activation and dropout each; then the mean or maximum over the map, and linear
    layers."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int,
        depth: int,
        kernel_size: int,
        stride: int,
        num_linear: int,
        norm: str = "none",
        activation: str = "relu",
        pooling: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_kernel("varying_cnn", kernel_size, stride, halved(input_shape[1:], depth - 1, stride))
        widths = [input_shape[0], *[width] * depth]
        self.blocks = nn.Sequential(
            *(
                convolution_block(before, after, kernel_size, stride, norm, activation, dropout, rank=2)
                for before, after in pairwise(widths)
            )
        )
        self.pooling = pooling
        self.classifier = fully_connected([width] * num_linear, num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(pooled(self.blocks(images), self.pooling))


class CNN1d(nn.Module):
    """Convolutions over the pixels in raster order, each row after the one above; otherwise as `VaryingCNN`."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int,
        depth: int,
        kernel_size: int = 9,
        stride: int = 4,
        norm: str = "none",
        activation: str = "relu",
        pooling: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_kernel("cnn1d", kernel_size, stride, halved([prod(input_shape[1:])], depth - 1, stride))
        widths = [input_shape[0], *[width] * depth]
        self.blocks = nn.Sequential(
            *(
                convolution_block(before, after, kernel_size, stride, norm, activation, dropout, rank=1)
                for before, after in pairwise(widths)
            )
        )
        self.pooling = pooling
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(pooled(self.blocks(images.flatten(2)), self.pooling))


def halved(extents: Sequence[int], times: int, stride: int) -> list[int]:
    """The extents of a map after so many convolutions that keep its size but for their stride."""
    for _ in range(times):
        extents = [-(-size // stride) for size in extents]
    return list(extents)


def check_kernel(family: str, kernel_size: int, stride: int, extents: Sequence[int]) -> None:
    """Refuse kernels with an even size, and those with taps that meet nothing but padding in the last convolution."""
    if kernel_size % 2 == 0:
        raise ValueError(f"{family}: kernel_size is {kernel_size}; expected an odd number")
    padding = kernel_size // 2
    last_start = (-(-min(extents) // stride) - 1) * stride - padding  # where the first tap stands at the last position
    if min(extents) <= padding or last_start < 0:
        raise ValueError(
            f"{family}: its last convolution sees a map of {'x'.join(map(str, extents))}, on which a kernel of "
            f"{kernel_size} meets nothing but padding at its rim; take fewer layers, a smaller kernel or stride"
        )


class DeepSets(nn.Module):
    """Layers that are equivariant to the order of the pixels (Zaheer et al. 2017): each pixel beside the mean of all.

    A pixel is its colours and its two coordinates in [-1, 1]; the first layer reads each alone, since the mean of the
    coordinates is 0 for every image. After the layers follow the mean over all pixels and a linear layer.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int,
        depth: int,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, across = input_shape
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, across), indexing="ij")
        self.register_buffer("coordinates", torch.stack([rows, columns], dim=2).flatten(0, 1), persistent=False)
        self.first = nn.Linear(channels + 2, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.mean = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth - 1))
        self.activation = activation_module(activation)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(2).transpose(1, 2)
        coordinates = self.get_buffer("coordinates")
        hidden = self.first(torch.cat([pixels, coordinates.expand(len(pixels), -1, -1)], dim=2))
        elements = self.dropout(self.activation(hidden))
        for own, mean in zip(self.own, self.mean, strict=True):
            hidden = own(elements) + mean(elements.mean(dim=1, keepdim=True))
            elements = self.dropout(self.activation(hidden))
        return self.classifier(elements.mean(dim=1))


class MLP(nn.Module):
    """Linear layers on all pixels, of an image that is made smaller first by averaging ``pool x pool`` pixels."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int,
        depth: int,
        pool: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, across = input_shape
        if height % pool or across % pool:
            raise ValueError(f"mlp: pool is {pool}; expected a divisor of {height} and {across}")
        self.pool = pool
        self.layers = fully_connected(
            [channels * (height // pool) * (across // pool), *[width] * depth], num_classes, activation, dropout
        )

    def forward(self, images: Tensor) -> Tensor:
        small = functional.avg_pool2d(images, self.pool) if self.pool > 1 else images
        return self.layers(small.flatten(1))
