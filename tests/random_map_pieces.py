"""Pieces of random networks on images of one to three dimensions: the table `ON_MAPS`.

Maps have three positions or more along each axis, so that the taps of a kernel meet more than padding.
"""

from math import prod
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn
from torch.nn import functional

from random_pieces import CONVOLUTIONS, Features, Piece, activation, fixed_places, layer, mixing, normalised, widths
from random_token_pieces import attention_by_hand, functional_attention
from tiny_networks import Wired
from tiny_operations import Learned

MOST_POSITIONS = 100
"""Of a map that is enlarged; attention takes half of them at most."""
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAXIMA = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGES = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {
    1: [nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d],
    2: [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d],
    3: [nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d],
}
LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def halves(features: Features) -> bool:
    """Whether half of the map is large enough."""
    return min(features.positions) >= 6


def doubles(features: Features) -> bool:
    """Whether a map of twice the extents is small enough."""
    return 2**features.rank * prod(features.positions) <= MOST_POSITIONS


def convolution(draw: DrawFn, features: Features, groups: int = 1, width: int | None = None) -> nn.Module:
    """Strided and dilated where the map stays large enough for every tap to meet it."""
    dilation = tuple(draw(st.integers(1, 2 if size >= 5 else 1)) for size in features.positions)
    kernel = tuple(draw(st.integers(1, 3)) for _ in features.positions)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(
        (r + 1) // 2 if size - r < 3 else draw(st.integers(0, r // 2))
        for size, r in zip(features.positions, reach, strict=True)
    )
    sizes = [size + 2 * p - r for size, p, r in zip(features.positions, padding, reach, strict=True)]
    stride = tuple(draw(st.integers(1, 2 if n >= 5 and k >= 2 else 1)) for n, k in zip(sizes, kernel, strict=True))
    made = CONVOLUTIONS[features.rank](
        *(features.width, width or widths(draw), kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    return nn.Sequential(made, activation(draw))


def grouped_convolution(draw: DrawFn, features: Features) -> nn.Module:
    """A layer of two or three groups of channels, and a convolution within each."""
    groups, inputs, outputs = draw(st.integers(2, 3)), draw(st.integers(2, 3)), draw(st.integers(1, 3))
    before = layer(draw, features, groups * inputs)
    return nn.Sequential(before, convolution(draw, features.of(groups * inputs), groups, groups * outputs))


def depthwise_convolution(draw: DrawFn, features: Features) -> nn.Module:
    multiplier = draw(st.integers(1, 2 if features.width <= 4 else 1))
    return convolution(draw, features, features.width, multiplier * features.width)


def transposed_convolution(draw: DrawFn, features: Features) -> nn.Module:
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if features.width % g == 0]))
    width, kernel = groups * draw(st.integers(1, 3)), draw(st.integers(2, 3))
    stride = draw(st.integers(1, 2)) if doubles(features) else 1
    made = TRANSPOSED[features.rank](
        *(features.width, width, kernel, stride),
        padding=(kernel - 1) // 2,
        output_padding=draw(st.integers(0, stride - 1)),
        groups=groups,
        bias=draw(st.booleans()),
    )
    return nn.Sequential(made, nn.Tanh(), mixing(features, width))


def reflected_padding(draw: DrawFn, features: Features) -> nn.Module:
    made = CONVOLUTIONS[features.rank](features.width, widths(draw), 3, padding=1, padding_mode="reflect")
    return nn.Sequential(made, activation(draw))


def zero_padding(draw: DrawFn, features: Features) -> nn.Module:
    """Zeros before each axis, of the features and so of every channel."""
    made = CONVOLUTIONS[features.rank](features.width, widths(draw), 2, bias=draw(st.booleans()))
    return nn.Sequential(Wired(lambda net, x: functional.pad(x, (1, 0) * features.rank)), made, activation(draw))


def instance_norm(draw: DrawFn, features: Features) -> nn.Module:
    width = widths(draw)
    affine, running = draw(st.booleans()), draw(st.booleans())
    norm = INSTANCE_NORMS[features.rank](width, affine=affine, track_running_stats=running)
    return normalised(draw, features, norm, width)


def layer_norm_of_maps(draw: DrawFn, features: Features) -> nn.Module:
    """Over channels and positions, or over the last axis of positions."""
    width = widths(draw)
    shape = draw(st.sampled_from([[width, *features.positions], [features.positions[-1]]]))
    norm = nn.LayerNorm(shape, elementwise_affine=draw(st.booleans()))
    return nn.Sequential(normalised(draw, features, norm, width), mixing(features, width))


def squeeze_and_excitation(draw: DrawFn, features: Features) -> nn.Module:
    squeezed, axes = widths(draw), tuple(range(2, 2 + features.rank))
    return Wired(
        lambda net, x: x * net.up(net.act(net.down(net.act(x).mean(axes)))).sigmoid().reshape(-1, *features.of_channel),
        down=nn.Linear(features.width, squeezed),
        up=nn.Linear(squeezed, features.width),
        act=activation(draw),
    )


def pixel_shuffle(draw: DrawFn, features: Features) -> nn.Module:
    """Sub-channels become positions; along one or three axes by hand."""
    width, rank, factor = draw(st.integers(1, 2)), features.rank, 2**features.rank

    def shuffled(net: Any, x: Tensor) -> Tensor:
        h = net.layer(x).unflatten(1, (width, *(2 for _ in range(rank))))
        order = [0, 1, *(axis for place in range(rank) for axis in (2 + rank + place, 2 + place))]
        h = h.permute(order)
        for axis in range(rank):
            h = h.flatten(2 + axis, 3 + axis)
        return h.tanh()

    before = layer(draw, features, factor * width)
    upper = nn.Sequential(before, nn.PixelShuffle(2), nn.Tanh()) if rank == 2 else Wired(shuffled, layer=before)
    return nn.Sequential(upper, mixing(features, width))


def merged_patches(draw: DrawFn, features: Features) -> nn.Module:
    """Neighbouring positions as channels, by slices or, on even images, by `nn.PixelUnshuffle`."""
    rank, merged = features.rank, 2**features.rank * features.width
    size = [2 * (n // 2) for n in features.positions]
    starts = [[n >> axis & 1 for axis in range(rank)] for n in range(2**rank)]

    def patches(net: Any, x: Tensor) -> Tensor:
        parts = [
            x[(slice(None), slice(None), *(slice(s, n, 2) for s, n in zip(start, size, strict=True)))]
            for start in starts
        ]
        return net.act(net.layer(torch.cat(parts, dim=1)))

    reader = CONVOLUTIONS[rank](merged, widths(draw), 1)
    if rank == 2 and size == list(features.positions):
        return nn.Sequential(nn.PixelUnshuffle(2), reader, activation(draw))
    return Wired(patches, layer=reader, act=activation(draw))


def zero_padded_shortcut(draw: DrawFn, features: Features) -> nn.Module:
    """A residual block whose shortcut has zeros for new channels, and every second position of a map that is large."""
    stride, rank = 2 if halves(features) else 1, features.rank
    before, behind = draw(st.integers(0, 2)), draw(st.integers(0, 1))
    every = (slice(None), slice(None), *(slice(None, None, stride) for _ in range(rank)))
    return Wired(
        lambda net, x: net.act(functional.pad(x[every], (0, 0) * rank + (before, behind)) + net.block(x)),
        block=CONVOLUTIONS[rank](features.width, features.width + before + behind, 3, stride=stride, padding=1),
        act=activation(draw),
    )


def cropped(draw: DrawFn, features: Features) -> nn.Module:
    """A map without its first positions along one axis."""
    axis = draw(st.integers(0, features.rank - 1))
    least = min(features.positions[axis] - 3, 1)
    return Wired(
        lambda net, x: net.mix(x).narrow(2 + axis, least, x.shape[2 + axis] - least),
        mix=mixing(features, features.width),
    )


def rolled(draw: DrawFn, features: Features) -> nn.Module:
    axis = draw(st.integers(2, 1 + features.rank))
    return Wired(lambda net, x: x + net.act(x.roll(1, axis)), act=activation(draw))


def pool(draw: DrawFn, features: Features) -> nn.Module:
    """Maxima or averages of overlapping regions, or of regions side by side."""
    smaller = [(2, 2, 0), (3, 2, 1)] if halves(features) else []
    size, stride, padding = draw(st.sampled_from([(3, 1, 1), *smaller]))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return MAXIMA[features.rank](size, stride, padding, ceil_mode=ceil)
    return AVERAGES[features.rank](size, stride, padding, ceil_mode=ceil, count_include_pad=draw(st.booleans()))


def adaptive_pool(draw: DrawFn, features: Features) -> nn.Module:
    size = tuple(draw(st.integers(3, n)) for n in features.positions)
    return draw(st.sampled_from(ADAPTIVE[features.rank]))(size if features.rank > 1 else size[0])


def interpolation(draw: DrawFn, features: Features) -> nn.Module:
    size = tuple(n + draw(st.integers(1, 3)) for n in features.positions)
    if prod(size) > MOST_POSITIONS:
        size = tuple(n + 1 for n in features.positions)
    mode = draw(st.sampled_from(["nearest", LINEAR_MODES[features.rank]]))
    corners = None if mode == "nearest" else draw(st.booleans())
    return nn.Sequential(nn.Upsample(size, mode=mode, align_corners=corners), mixing(features, features.width))


def learned_grid(draw: DrawFn, features: Features) -> nn.Module:
    """A number per channel and position, or per position, added."""
    shape = draw(st.sampled_from([features.shape, (1, *features.positions)]))
    return Learned(
        lambda net, x: net.mix(net.act(x + net.grid)),
        {"grid": shape},
        act=activation(draw),
        mix=mixing(features, features.width),
    )


def softmax_over_positions(draw: DrawFn, features: Features) -> nn.Module:
    return Wired(
        lambda net, x: x * net.layer(x).softmax(features.rank + 1), layer=layer(draw, features, features.width)
    )


def attention_over_positions(draw: DrawFn, features: Features) -> nn.Module:
    tokens = Features(layout="tokens", shape=(prod(features.positions), features.width))
    return Wired(
        lambda net, x: x + net.over(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, features.positions),
        over=draw(st.sampled_from([attention_by_hand, functional_attention]))(draw, tokens),
    )


ON_MAPS: dict[str, Piece] = {
    "convolution": convolution,
    "grouped convolution": grouped_convolution,
    "depthwise convolution": depthwise_convolution,
    "transposed convolution": transposed_convolution,
    "reflected padding": reflected_padding,
    "zero padding": zero_padding,
    "instance norm": instance_norm,
    "layer norm of maps": layer_norm_of_maps,
    "squeeze and excitation": squeeze_and_excitation,
    "pixel shuffle": pixel_shuffle,
    "merged patches": merged_patches,
    "zero-padded shortcut": zero_padded_shortcut,
    "cropped": cropped,
    "rolled": rolled,
    "pool": pool,
    "adaptive pool": adaptive_pool,
    "interpolation": interpolation,
    "fixed places": fixed_places,
    "learned grid": learned_grid,
    "softmax over positions": softmax_over_positions,
    "attention over positions": attention_over_positions,
}
