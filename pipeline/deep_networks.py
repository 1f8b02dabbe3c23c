"""Networks of zoos with residuals: small ResNets and vision transformers.

Reads   images ``[batch, channels, height, width]``
Writes  logits ``[batch, num_classes]``

Two of the five families of Lim et al. (ICLR 2024, arXiv:2312.04501), at sizes of our own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.network_parts import Dropout, activation_module, norm_module

POSITION_STD = 0.02
"""Of the positions a vision transformer starts with, as in Dosovitskiy et al. 2021."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a norm each, and what came in beside them (He et al. 2016); by a 1x1 convolution where
    the number of channels or the size changes."""

    def __init__(self, before: int, after: int, stride: int, norm: str, activation: str, dropout: float) -> None:
        super().__init__()
        bias = norm != "batch"  # before a batch norm it would not act
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=bias)
        self.norm1 = norm_module(norm, after, rank=2)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=bias)
        self.norm2 = norm_module(norm, after, rank=2)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=bias), norm_module(norm, after, rank=2))
        )
        self.activation = activation_module(activation)
        self.dropout = Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.norm1(self.conv1(maps))))
        return self.activation(self.norm2(self.conv2(hidden)) + self.shortcut(maps))


class ResNet(nn.Module):
    """A convolution of stride 2, stages of basic blocks, each but the first of half the size, the mean over the map
    and a linear layer."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int],
        blocks_per_stage: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], widths[0], 3, stride=2, padding=1, bias=norm != "batch"),
            norm_module(norm, widths[0], rank=2),
            activation_module(activation),
        )
        before = widths[0]
        self.stages = nn.Sequential()
        for stage, width in enumerate(widths):
            for block in range(blocks_per_stage):
                stride = 2 if stage and not block else 1
                self.stages.append(BasicBlock(before, width, stride, norm, activation, dropout))
                before = width
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stages(self.stem(images)).mean(dim=(2, 3)))


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each on the normed tokens and beside them (Vaswani et al. 2017, norm first)."""

    def __init__(self, width: int, num_heads: int, expansion: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.first = nn.Linear(width, expansion * width)
        self.second = nn.Linear(expansion * width, width)
        self.activation = activation_module(activation)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        query, key, value = (
            layer(normed).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.dropout(self.out(attended))
        return tokens + self.dropout(self.second(self.activation(self.first(self.norm2(tokens)))))


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021): patches, learned positions, encoder layers, a norm, the mean over
    the tokens and a linear layer."""

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_classes: int,
        width: int,
        depth: int,
        patch_size: int,
        num_heads: int = 2,
        expansion: int = 2,
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, across = input_shape
        if height % patch_size or across % patch_size:
            raise ValueError(f"vit: patch_size is {patch_size}; expected a divisor of {height} and {across}")
        if width % num_heads:
            raise ValueError(f"vit: width is {width}; expected a multiple of {num_heads} (num_heads)")
        self.embed = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.zeros((height // patch_size) * (across // patch_size), width))
        self.layers = nn.Sequential(
            *(EncoderLayer(width, num_heads, expansion, activation, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        return self.classifier(self.norm(self.layers(tokens)).mean(dim=1))

    def draw_own_parameters(self, generator: torch.Generator) -> None:
        """Draw what belongs to no layer."""
        nn.init.normal_(self.positions, std=POSITION_STD, generator=generator)
