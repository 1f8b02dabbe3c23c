"""What a piece of a random network reads, and the pieces that stand anywhere: in images, among tokens, in vectors.

Reads   what stands before a piece (`Features`), and Hypothesis' choices
Writes  modules; the table is `ANYWHERE`

Some compositions have more symmetries than their graph has automorphisms (docs/operations.md), others hide values from
the output altogether. Pieces are built so that neither is drawn:

- What makes positions of features or kernel taps (a decoder, a pixel shuffle, a transposed convolution, a resizing)
  ends with a convolution that tells the positions apart (`mixing`): a mean over them would not.
- What holds a value per position (places, a grid, a norm over a map) ends so too: the next piece may skip a position.
- An activation stands between a sum or a norm and a mean over positions: of sums of learned numbers, a mean lets those
  of different positions change places, and the mean of a normalised map is zero.
- Sums of parts of a layer have an activation between: the biases of the parts could change places without the weights.
- Norms run over three numbers at least: of two they leave a sign.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, nn
from torch.nn import functional

from tiny_networks import Wired
from tiny_operations import Learned

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * (x - 0.25).sin()


ACTIVATIONS = [nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, Sine]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a piece reads."""

    layout: str
    """``maps`` [batch, width, *positions], ``tokens`` [batch, tokens, width], or ``vectors`` [batch, width]."""
    shape: tuple[int, ...]
    """Of one example."""

    @property
    def axis(self) -> int:
        """The axis of channels."""
        return 2 if self.layout == "tokens" else 1

    @property
    def width(self) -> int:
        return self.shape[self.axis - 1]

    @property
    def positions(self) -> tuple[int, ...]:
        return self.shape[: self.axis - 1] + self.shape[self.axis :]

    @property
    def rank(self) -> int:
        return len(self.positions)

    @property
    def of_channel(self) -> tuple[int, ...]:
        """The shape of a parameter with a number per channel."""
        return (self.width, *(1 for _ in self.positions)) if self.layout == "maps" else (self.width,)

    def of(self, width: int) -> "Features":
        shape = (*self.shape[: self.axis - 1], width, *self.shape[self.axis :])
        return Features(layout=self.layout, shape=shape)

    def after(self, module: nn.Module, layout: str) -> "Features":
        """What the module makes of them."""
        words = isinstance(module, nn.Embedding)
        example = torch.zeros(1, *self.shape, dtype=torch.int64 if words else torch.float32)
        return Features(layout=layout, shape=tuple(module.eval()(example).shape[1:]))


Piece = Callable[[DrawFn, Features], nn.Module]


def widths(draw: DrawFn, least: int = 2) -> int:
    return draw(st.integers(least, 8))


def activation(draw: DrawFn) -> nn.Module:
    return draw(st.sampled_from(ACTIVATIONS))()


def layer(draw: DrawFn, features: Features, outputs: int, inputs: int | None = None) -> nn.Module:
    """A linear layer, or a convolution that keeps the map."""
    inputs, bias = inputs or features.width, draw(st.booleans())
    if features.layout != "maps":
        return nn.Linear(inputs, outputs, bias=bias)
    kernel = draw(st.sampled_from([1, 3]))
    return CONVOLUTIONS[features.rank](inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def mixing(features: Features, width: int) -> nn.Module:
    """A convolution that reads every position, from where it stands and from beside, and an activation."""
    convolution = CONVOLUTIONS[features.rank](width, width, 3, padding=1)
    return nn.Sequential(as_map(convolution) if features.layout == "tokens" else convolution, nn.Tanh())


def as_map(module: nn.Module) -> nn.Module:
    """A module of sequences ``[batch, width, positions]``, on tokens."""
    return Wired(lambda net, x: net.over(x.transpose(1, 2)).transpose(1, 2), over=module)


def channels_last(module: nn.Module) -> nn.Module:
    """A module of the last axis, on the channels of maps."""
    return Wired(lambda net, x: net.over(x.movedim(1, -1)).movedim(-1, 1), over=module)


def joined(join: Callable[[Tensor, Tensor], Tensor]) -> Piece:
    """Features joined with what a layer and an activation make of them."""

    def piece(draw: DrawFn, features: Features) -> nn.Module:
        return Wired(
            lambda net, x: join(x, net.act(net.layer(x))),
            layer=layer(draw, features, features.width),
            act=activation(draw),
        )

    return piece


def scaled(shape: Callable[[Features], tuple[int, ...]]) -> Piece:
    """A residual layer with a learned factor."""

    def piece(draw: DrawFn, features: Features) -> nn.Module:
        return Learned(
            lambda net, x: x + net.factor * net.act(net.layer(x)),
            {"factor": shape(features)},
            layer=layer(draw, features, features.width),
            act=activation(draw),
        )

    return piece


def plain(draw: DrawFn, features: Features) -> nn.Module:
    return nn.Sequential(layer(draw, features, widths(draw)), activation(draw))


def residual(draw: DrawFn, features: Features) -> nn.Module:
    first, second = (draw(st.sampled_from([1, 2, -0.5])) for _ in range(2))
    return joined(lambda a, b: torch.add(first * a, b, alpha=second))(draw, features)


def nested(join: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Piece:
    """Three parts of a layer, joined in two steps."""

    def piece(draw: DrawFn, features: Features) -> nn.Module:
        return Wired(
            lambda net, x: join(*net.act(net.layer(x)).chunk(3, dim=features.axis)).tanh(),
            layer=layer(draw, features, 3 * widths(draw)),
            act=activation(draw),
        )

    return piece


def gated_linear_unit(draw: DrawFn, features: Features) -> nn.Module:
    return nn.Sequential(layer(draw, features, 2 * widths(draw)), nn.GLU(features.axis))


def slopes(draw: DrawFn, features: Features) -> nn.Module:
    width = widths(draw)
    slope = nn.PReLU(draw(st.sampled_from([1, width])))
    of_channels = slope if features.layout != "tokens" else as_map(slope)
    return nn.Sequential(layer(draw, features, width), of_channels)


def normalised(draw: DrawFn, features: Features, norm: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(layer(draw, features, width), norm, activation(draw))


def batch_norm(draw: DrawFn, features: Features) -> nn.Module:
    width = widths(draw)
    norm = BATCH_NORMS[max(1, features.rank)](width, affine=draw(st.booleans()))
    return normalised(draw, features, as_map(norm) if features.layout == "tokens" else norm, width)


def group_norm(draw: DrawFn, features: Features) -> nn.Module:
    groups = draw(st.integers(1, 2))
    width = groups * draw(st.integers(3, 4))
    norm = nn.GroupNorm(groups, width, affine=draw(st.booleans()))
    return normalised(draw, features, as_map(norm) if features.layout == "tokens" else norm, width)


def norm_over_channels(make: Callable[..., nn.Module]) -> Piece:
    def piece(draw: DrawFn, features: Features) -> nn.Module:
        width = widths(draw, least=3)
        norm = make(width, elementwise_affine=draw(st.booleans()))
        return normalised(draw, features, channels_last(norm) if features.layout == "maps" else norm, width)

    return piece


def root_mean_square_by_hand(draw: DrawFn, features: Features) -> nn.Module:
    axis = features.axis
    return Learned(
        lambda net, x: net.act(net.factor * x * torch.rsqrt(x.pow(2).mean(axis, keepdim=True) + 1e-5)),
        {"factor": features.of_channel},
        act=activation(draw),
    )


def beside(draw: DrawFn, features: Features) -> nn.Module:
    """Features beside what a layer makes of them, read by another."""
    more, axis = widths(draw), features.axis
    return Wired(
        lambda net, x: net.joint(torch.cat([x, net.act(net.layer(x))], dim=axis)).tanh(),
        layer=layer(draw, features, more),
        act=activation(draw),
        joint=layer(draw, features, widths(draw), inputs=features.width + more),
    )


def branches(draw: DrawFn, features: Features) -> nn.Module:
    """Two layers, each with an activation, joined along the channels in the other order."""
    first, second, axis = draw(st.integers(1, 4)), draw(st.integers(1, 4)), features.axis
    return Wired(
        lambda net, x: torch.cat([net.second(net.b(x)), net.first(net.a(x))], dim=axis),
        a=layer(draw, features, first),
        b=layer(draw, features, second),
        first=activation(draw),
        second=activation(draw),
    )


def split(draw: DrawFn, features: Features) -> nn.Module:
    """Some channels of a layer are activated in one way, the others in another, and exchanged."""
    sizes, axis = [draw(st.integers(1, 4)), draw(st.integers(1, 4))], features.axis
    return Wired(
        lambda net, x: (lambda a, b: torch.cat([net.first(b), net.second(a)], dim=axis))(
            *net.layer(x).split(sizes, dim=axis)
        ),
        layer=layer(draw, features, sum(sizes)),
        first=activation(draw),
        second=activation(draw),
    )


def chunks(draw: DrawFn, features: Features) -> nn.Module:
    """The halves of a layer, one a gate of the other."""
    axis = features.axis
    return Wired(
        lambda net, x: (lambda a, b: a * b.tanh())(*net.layer(x).chunk(2, dim=axis)),
        layer=layer(draw, features, 2 * widths(draw)),
    )


def channel_shuffle(draw: DrawFn, features: Features) -> nn.Module:
    """Two groups of channels, interleaved; then one half is activated."""
    width, axis = draw(st.integers(2, 4)), features.axis
    return Wired(
        lambda net, x: (lambda h: torch.cat([h.narrow(axis, 0, width).tanh(), h.narrow(axis, width, width)], dim=axis))(
            net.layer(x).unflatten(axis, (2, width)).transpose(axis, axis + 1).flatten(axis, axis + 1)
        ),
        layer=layer(draw, features, 2 * width),
    )


def used_twice(draw: DrawFn, features: Features) -> nn.Module:
    return Wired(
        lambda net, x: net.act(net.layer(net.act(net.layer(x)))),
        layer=layer(draw, features, features.width),
        act=activation(draw),
    )


def over_channels(reduce: Callable[[Tensor, int], Tensor]) -> Piece:
    """A layer, and something that couples its channels."""

    def piece(draw: DrawFn, features: Features) -> nn.Module:
        return Wired(
            lambda net, x: reduce(net.layer(x), features.axis).tanh(), layer=layer(draw, features, widths(draw, 3))
        )

    return piece


def largest_of_groups(draw: DrawFn, features: Features) -> nn.Module:
    """Maxout."""
    width, axis = widths(draw), features.axis
    return Wired(
        lambda net, x: net.layer(x).unflatten(axis, (2, width)).amax(axis), layer=layer(draw, features, 2 * width)
    )


def sine(draw: DrawFn, features: Features) -> nn.Module:
    return Wired(lambda net, x: (3 * net.layer(x)).sin(), layer=layer(draw, features, widths(draw)))


def other_functions(draw: DrawFn, features: Features) -> nn.Module:
    return Wired(
        lambda net, x: (lambda h: h.erf() + h.abs().log1p())(net.layer(x)), layer=layer(draw, features, widths(draw))
    )


def times_the_mean(draw: DrawFn, features: Features) -> nn.Module:
    """Features times one number, the mean of what a layer makes of all of them."""
    axes = tuple(range(1, 2 + features.rank))
    return joined(lambda a, b: a * b.mean(dim=axes, keepdim=True))(draw, features)


def fixed_places(draw: DrawFn, features: Features) -> nn.Module:
    """A constant per position, -1, 0 and 1 in turn, added."""
    shape = (*features.positions, 1) if features.layout == "tokens" else features.positions
    return Wired(lambda net, x: net.act(x + (torch.arange(prod(shape)) % 3 - 1).reshape(shape)), act=activation(draw))


ANYWHERE: dict[str, Piece] = {
    "layer": plain,
    "residual": residual,
    "difference": joined(lambda a, b: a - b),
    "gate": joined(lambda a, b: a * b.sigmoid()),
    "quotient": joined(lambda a, b: a / (b.square() + 1)),
    "maximum": joined(torch.maximum),
    "minimum": joined(torch.minimum),
    "sum of a sum": nested(lambda a, b, c: a - 2 * (b + c)),
    "product of a product": nested(lambda a, b, c: a * b * c),
    "maximum of a maximum": nested(lambda a, b, c: torch.maximum(torch.maximum(a, b), c)),
    "sum that others read too": nested(lambda a, b, c: (lambda h: h + h.sin() * c)(a + b)),
    "twice the same": joined(lambda a, b: a + a + b * b),
    "times the mean": times_the_mean,
    "gated linear unit": gated_linear_unit,
    "layer scale": scaled(lambda features: features.of_channel),
    "rezero": scaled(lambda features: (1,)),
    "slopes": slopes,
    "batch norm": batch_norm,
    "group norm": group_norm,
    "layer norm": norm_over_channels(nn.LayerNorm),
    "root mean square norm": norm_over_channels(nn.RMSNorm),
    "root mean square norm by hand": root_mean_square_by_hand,
    "concatenation": beside,
    "branches": branches,
    "split": split,
    "chunks": chunks,
    "channel shuffle": channel_shuffle,
    "used twice": used_twice,
    "softmax over channels": over_channels(lambda x, axis: x * x.softmax(axis)),
    "less the mean": over_channels(lambda x, axis: x - x.mean(axis, keepdim=True)),
    "euclidean norm": over_channels(lambda x, axis: functional.normalize(x, dim=axis)),
    "variance": over_channels(lambda x, axis: x / (x.var(axis, keepdim=True) + 1)),
    "largest of groups": largest_of_groups,
    "sine": sine,
    "other functions": other_functions,
}
