"""Hypothesis strategies for networks of every supported piece, a few neurons wide."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tiny_networks import Wired

Layer = Callable[..., nn.Module]

ACTIVATIONS: list[Layer] = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU]
CONVOLUTIONS: dict[int, Layer] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS: dict[int, list[Layer]] = {
    1: [nn.MaxPool1d, nn.AvgPool1d],
    2: [nn.MaxPool2d, nn.AvgPool2d],
    3: [nn.MaxPool3d, nn.AvgPool3d],
}
MEANS: dict[int, Layer] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * (x - 0.25).sin()


def output_shape(layers: list[nn.Module], shape: tuple[int, ...]) -> tuple[int, ...]:
    """What layers make of one example of a shape."""
    return tuple(nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1:])


@st.composite
def convolutions(draw: st.DrawFn, shape: tuple[int, ...]) -> list[nn.Module]:
    """One to three convolutions, with an activation and perhaps a pool after each, in either order."""
    rank = len(shape) - 1
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        channels, *extents = output_shape(layers, shape)
        kernel = tuple(draw(st.integers(1, min(3, size))) for size in extents)
        roomy = min(extents) > 3  # on a smaller map some taps might meet padding alone
        padding = tuple(draw(st.integers(0, size // 2 if roomy else 0)) for size in kernel)
        stride, bias = draw(st.integers(1, 2)), draw(st.booleans())
        width = draw(st.integers(2, 5))
        layers.append(CONVOLUTIONS[rank](channels, width, kernel, padding=padding, stride=stride, bias=bias))
        between = [draw(st.sampled_from([*ACTIVATIONS, Sine]))()]
        if min(output_shape(layers, shape)[1:]) >= 2 and draw(st.booleans()):
            between.append(draw(st.sampled_from(POOLS[rank]))(2, stride=draw(st.integers(1, 2))))
        layers += draw(st.permutations(between))
    return layers


@st.composite
def branches(draw: st.DrawFn, inputs: int) -> nn.Module:
    """Two linear layers, each with an activation, joined."""
    first, second = (draw(st.sampled_from(ACTIVATIONS))() for _ in range(2))
    return Wired(
        lambda net, x: torch.cat([net.second(net.b(x)), net.first(net.a(x))], dim=1),
        a=nn.Linear(inputs, draw(st.integers(1, 4))),
        b=nn.Linear(inputs, 2),
        first=first,
        second=second,
    )


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Convolutions, a flatten or a global mean, and linear layers, perhaps in branches; and an example input."""
    rank = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), *(draw(st.sampled_from([5, 7, 9])) for _ in range(rank)))
    layers = draw(convolutions(shape))
    if draw(st.booleans()):
        layers.append(MEANS[rank](1))
    layers.append(nn.Flatten())
    for _ in range(draw(st.integers(1, 2))):
        [width] = output_shape(layers, shape)
        layers += [nn.Linear(width, draw(st.integers(1, 5))), draw(st.sampled_from(ACTIVATIONS))()]
    if draw(st.booleans()):
        [width] = output_shape(layers, shape)
        layers.append(draw(branches(width)))
    [width] = output_shape(layers, shape)
    layers.append(nn.Linear(width, draw(st.integers(1, 5))))
    return nn.Sequential(*layers), torch.zeros(1, *shape)
