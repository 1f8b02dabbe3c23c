"""Parts that the networks of zoos share: activations, norms, dropout with a generator of its own.

Reads   nothing
Writes  nothing
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "gelu", "silu", "sigmoid", "leaky_relu"]
Norm = Literal["none", "batch", "group"]
Pooling = Literal["mean", "max"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
}
NUM_GROUPS = 2
"""Of group norms, as in Lim et al.'s zoos."""


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
        return x * self.mask(x) if self.training and self.rate else x

    def mask(self, x: Tensor) -> Tensor:
        """What to multiply ``x`` by: float32 whatever it is, so that higher precision has the same masks."""
        if not self.rate:
            return torch.ones_like(x)
        drawn = torch.rand(x.shape, generator=self.generator, dtype=torch.float32, device=x.device)
        return drawn.ge_(self.rate).div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def activation_module(name: str) -> nn.Module:
    """The activation of a name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; expected {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def norm_module(name: str, num_channels: int, rank: Literal[1, 2]) -> nn.Module:
    """The norm of a name, for maps of one axis or two."""
    match name:
        case "none":
            return nn.Identity()
        case "batch":
            return (nn.BatchNorm1d if rank == 1 else nn.BatchNorm2d)(num_channels)
        case "group":
            if num_channels % NUM_GROUPS:
                raise ValueError(f"group norm of {num_channels} channels; expected a multiple of {NUM_GROUPS}")
            return nn.GroupNorm(NUM_GROUPS, num_channels)
    raise ValueError(f"unknown norm {name!r}; expected none, batch or group")


def convolution_block(
    before: int,
    after: int,
    kernel_size: int,
    stride: int,
    norm: str,
    activation: str,
    dropout: float,
    *,
    rank: Literal[1, 2],
) -> nn.Sequential:
    """A convolution that keeps the size of the map but for its stride, a norm, an activation and dropout; without a
    bias before a batch norm, where it would not act."""
    convolution = nn.Conv1d if rank == 1 else nn.Conv2d
    return nn.Sequential(
        convolution(before, after, kernel_size, stride=stride, padding=kernel_size // 2, bias=norm != "batch"),
        norm_module(norm, after, rank),
        activation_module(activation),
        Dropout(dropout),
    )


def fully_connected(widths: Sequence[int], num_classes: int, activation: str, dropout: float) -> nn.Sequential:
    """Linear layers ``widths[0] -> widths[1] -> ... -> num_classes``, an activation and dropout after all but the
    last."""
    layers: list[nn.Module] = []
    for width, wider in pairwise(widths):
        layers += [nn.Linear(width, wider), activation_module(activation), Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))


def pooled(maps: Tensor, pooling: str) -> Tensor:
    """The mean or the maximum over the positions of ``[batch, channels, ...]``."""
    if pooling not in ("mean", "max"):
        raise ValueError(f"unknown pooling {pooling!r}; expected mean or max")
    flat = maps.flatten(2)
    return flat.mean(dim=2) if pooling == "mean" else flat.amax(dim=2)
