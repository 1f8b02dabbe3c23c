"""Networks of a few neurons each, one or more for every row of the design's table of operations: small enough to try
all permutations of the axes of their tensors.

Whatever has no influence on the function (the bias of attention keys, one before an instance norm) is left out: moving
it would preserve the function without being a symmetry.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.parameter_graph import GraphTemplate
from pipeline.tracing import trace
from tiny_networks import TINY, Tiny, Wired


class Learned(nn.Module):
    """Parameters and layers under their names, and a function that wires them."""

    def __init__(
        self, wiring: Callable[[Any, Tensor], Tensor], parameters: dict[str, tuple[int, ...]], **layers: nn.Module
    ):
        super().__init__()
        for name, shape in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


def between(*layers: nn.Module, width: int = 2, out: int | None = None, bias: bool = False) -> nn.Module:
    """Layers between two 1x1 convolutions of one channel on maps of three positions."""
    last = width if out is None else out
    return nn.Sequential(nn.Conv1d(1, width, 1, bias=bias), *layers, nn.Conv1d(last, 1, 1, bias=False))


def joined(
    join: Callable[[Tensor, Tensor], Tensor], width: int = 2, last: int | None = None, **layers: nn.Module
) -> nn.Module:
    """Two linear layers of one input, joined, and a layer that reads the result."""
    return Wired(
        lambda net, x: net.head(join(net.a(x).tanh(), net.b(x).sigmoid())),
        a=nn.Linear(2, width, bias=False),
        b=nn.Linear(2, width, bias=False),
        head=nn.Linear(width if last is None else last, 1, bias=False),
        **layers,
    )


def nested(join: Callable[[Tensor, Tensor, Tensor], Tensor]) -> nn.Module:
    """Three linear layers of one input, joined in two steps."""
    layers = {name: nn.Linear(2, 2, bias=False) for name in "abc"}
    return Wired(
        lambda net, x: net.head(join(net.a(x).tanh(), net.b(x).tanh(), net.c(x).tanh()).tanh()),
        **layers,
        head=nn.Linear(2, 1, bias=False),
    )


def attention(
    scores: Callable[[Tensor, Tensor], Tensor] = lambda q, k: q @ k.transpose(-1, -2),
    heads: int = 1,
    shared: int = 1,
) -> nn.Module:
    """Attention of two features a head written by hand, ``shared`` heads to each key and value."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, 2)).transpose(1, 2)

    def wiring(net: Any, x: Tensor) -> Tensor:
        q, k, v = split(net.query(x)), split(net.key(x)), split(net.value(x))
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        return net.out((scores(q, k).softmax(-1) @ v).transpose(1, 2).flatten(2))

    width, kept = 2 * heads, 2 * heads // shared
    return Wired(
        wiring,
        query=nn.Linear(2, width, bias=False),
        key=nn.Linear(2, kept, bias=False),
        value=nn.Linear(2, kept, bias=False),
        out=nn.Linear(width, 1, bias=False),
    )


def scaled_residual(num_factors: int) -> nn.Module:
    """A residual block of three neurons whose branch has a learned factor for each, or one for all."""
    return Learned(
        lambda net, x: (lambda h: net.head((h + net.factor * net.block(h).relu()).tanh()))(net.first(x)),
        {"factor": (num_factors,)},
        first=nn.Linear(2, 3, bias=False),
        block=nn.Linear(3, 3, bias=False),
        head=nn.Linear(3, 1, bias=False),
    )


def masked(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).masked_fill(torch.ones(q.shape[-2], k.shape[-2]).tril() == 0, -torch.inf)


def shortcut(net: Any, x: Tensor) -> Tensor:
    """A residual block whose shortcut has every second position and zeros for new channels (option A)."""
    hidden = net.first(x)
    return net.head((functional.pad(hidden[:, :, ::2], (0, 0, 1, 0)) + net.block(hidden)).tanh())


def squeeze_and_excite(net: Any, x: Tensor) -> Tensor:
    hidden = net.conv(x)
    gate = net.up(net.down(hidden.mean(2)).relu()).sigmoid()
    return net.head(hidden * gate[:, :, None])


def class_token(net: Any, x: Tensor) -> Tensor:
    tokens = torch.cat([net.token.expand(x.shape[0], -1, -1), net.embed(x)], dim=1) + net.places
    return net.head(tokens.tanh()[:, 0] * 0.5 + tokens.tanh().mean(1))


def relative(net: Any, x: Tensor) -> Tensor:
    """Attention with a learned bias for each distance between two positions."""
    places = torch.arange(3)
    bias = net.table[places[:, None] - places + 2]
    scores = net.query(x) @ net.key(x).transpose(1, 2) + bias
    return net.out(scores.softmax(-1) @ net.value(x))


def tri_planar(net: Any, x: Tensor) -> Tensor:
    """Features of a learned 2x2 grid for each channel, added to a map."""
    return net.head((net.conv(x) + net.grid).tanh())


def patches(net: Any, x: Tensor) -> Tensor:
    """Four neighbouring positions of every channel as features of one."""
    h = net.conv(x).permute(0, 2, 3, 1)
    return net.head(torch.cat([h[:, 0::2, 0::2], h[:, 1::2, 0::2], h[:, 0::2, 1::2], h[:, 1::2, 1::2]], dim=3))


def equivariant(net: Any, x: Tensor) -> Tensor:
    """A DeepSets layer: each element beside the mean of all."""
    return net.head((net.own(x) + net.mean(x.mean(1, keepdim=True))).relu().sum(1))


def rotated(net: Any, x: Tensor) -> Tensor:
    """Queries and keys turned by the angle of their position: their two features are no longer alike."""
    angle = torch.arange(3.0)[:, None]

    def turned(q: Tensor) -> Tensor:
        a, b = q.chunk(2, dim=-1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)

    scores = turned(net.query(x)) @ turned(net.key(x)).transpose(1, 2)
    return net.out(scores.softmax(-1) @ net.value(x))


OPERATIONS: dict[str, Tiny] = {
    "grouped convolution": Tiny(build=lambda: between(nn.Conv1d(4, 4, 1, groups=2, bias=False), width=4), shape=(1, 3)),
    "depthwise convolution": Tiny(build=lambda: between(nn.Conv1d(3, 3, 2, groups=3), width=3), shape=(1, 3)),
    "transposed convolution": Tiny(
        build=lambda: between(nn.ConvTranspose1d(2, 3, 2, stride=2), nn.Tanh(), out=3), shape=(1, 3)
    ),
    "grouped transposed convolution": Tiny(
        build=lambda: between(nn.ConvTranspose1d(2, 2, 2, groups=2, bias=False), nn.Tanh()), shape=(1, 3)
    ),
    "batch norm": Tiny(build=lambda: between(nn.BatchNorm1d(2), nn.Tanh()), shape=(1, 3)),
    "batch norm without factors": Tiny(build=lambda: between(nn.BatchNorm1d(2, affine=False), nn.Tanh()), shape=(1, 3)),
    "batch norm of a flattened map": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv1d(1, 2, 2, bias=False), nn.Flatten(), nn.BatchNorm1d(4, affine=False), nn.Tanh(), nn.Linear(4, 1)
        ),
        shape=(1, 3),
    ),
    "layer norm": Tiny(
        build=lambda: nn.Sequential(nn.Linear(2, 3, bias=False), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 1)),
        shape=(2,),
    ),
    "layer norm of maps": Tiny(build=lambda: between(nn.LayerNorm([2, 2]), nn.Tanh(), width=2), shape=(1, 2)),
    "layer norm over positions": Tiny(build=lambda: between(nn.LayerNorm(3), nn.Tanh(), bias=False), shape=(1, 3)),
    "group norm": Tiny(build=lambda: between(nn.GroupNorm(2, 4, affine=False), nn.Tanh(), width=4), shape=(1, 3)),
    "group norm with factors": Tiny(build=lambda: between(nn.GroupNorm(1, 2), nn.Tanh()), shape=(1, 3)),
    "instance norm": Tiny(build=lambda: between(nn.InstanceNorm1d(2, affine=True), nn.Tanh()), shape=(1, 3)),
    "running instance norm": Tiny(
        build=lambda: between(nn.InstanceNorm1d(2, track_running_stats=True), nn.Tanh()), shape=(1, 3)
    ),
    "root mean square norm": Tiny(
        build=lambda: nn.Sequential(nn.Linear(2, 3), nn.RMSNorm(3), nn.Tanh(), nn.Linear(3, 1)), shape=(2,)
    ),
    "root mean square norm by hand": Tiny(
        build=lambda: Learned(
            lambda net, x: (lambda h: net.head(net.factor * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)))(
                net.first(x)
            ),
            {"factor": (3,)},
            first=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "sum": Tiny(build=lambda: joined(lambda a, b: a + b), shape=(2,)),
    "sum with coefficients": Tiny(build=lambda: joined(lambda a, b: torch.add(2 * a, b, alpha=3)), shape=(2,)),
    "difference": Tiny(build=lambda: joined(lambda a, b: a - b), shape=(2,)),
    "twice the same": Tiny(build=lambda: joined(lambda a, b: a + a + b * b), shape=(2,)),
    "product": Tiny(build=lambda: joined(lambda a, b: a * b), shape=(2,)),
    "quotient": Tiny(build=lambda: joined(lambda a, b: a / (b + 1)), shape=(2,)),
    "maximum": Tiny(build=lambda: joined(torch.maximum), shape=(2,)),
    "minimum": Tiny(build=lambda: joined(torch.minimum), shape=(2,)),
    "sum of a sum": Tiny(build=lambda: nested(lambda a, b, c: a + (b + c)), shape=(2,)),
    "difference from a sum": Tiny(build=lambda: nested(lambda a, b, c: a - 2 * (b - c)), shape=(2,)),
    "product of a product": Tiny(build=lambda: nested(lambda a, b, c: a * b * c), shape=(2,)),
    "maximum of a maximum": Tiny(
        build=lambda: nested(lambda a, b, c: torch.maximum(torch.maximum(a, b), c)), shape=(2,)
    ),
    "minimum of a minimum": Tiny(
        build=lambda: nested(lambda a, b, c: torch.minimum(a, torch.minimum(b, c))), shape=(2,)
    ),
    "sum that others read too": Tiny(
        build=lambda: nested(lambda a, b, c: (lambda h: h + h.sin() * c)(a + b)), shape=(2,)
    ),
    "maximum over neurons": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.a(x).unflatten(1, (2, 2)).amax(1)), a=nn.Linear(2, 4), head=nn.Linear(2, 1)
        ),
        shape=(2,),
    ),
    "gated linear unit": Tiny(
        build=lambda: nn.Sequential(nn.Linear(2, 4, bias=False), nn.GLU(1), nn.Linear(2, 1)), shape=(2,)
    ),
    "squeeze and excitation": Tiny(
        build=lambda: Wired(
            squeeze_and_excite,
            conv=nn.Conv1d(1, 2, 2, bias=False),
            down=nn.Linear(2, 2, bias=False),
            up=nn.Linear(2, 2, bias=False),
            head=nn.Conv1d(2, 1, 1, bias=False),
        ),
        shape=(1, 3),
    ),
    "layer scale": Tiny(build=lambda: scaled_residual(3), shape=(2,)),
    "rezero": Tiny(build=lambda: scaled_residual(1), shape=(2,)),
    "slopes": Tiny(build=lambda: between(nn.PReLU(3), width=3), shape=(1, 3)),
    "one slope": Tiny(build=lambda: between(nn.PReLU(), width=3), shape=(1, 3)),
    "channel shuffle": Tiny(
        build=lambda: between(
            nn.Conv1d(4, 4, 1, groups=2, bias=False), nn.Tanh(), nn.Unflatten(1, (2, 2)), Transposed(), width=4
        ),
        shape=(1, 3),
    ),
    "pixel shuffle": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv2d(1, 4, 1, bias=False), nn.PixelShuffle(2), nn.Tanh(), nn.Conv2d(1, 1, 2, bias=False)
        ),
        shape=(1, 2, 2),
    ),
    "pixel unshuffle": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv2d(1, 2, 1, bias=False), nn.PixelUnshuffle(2), nn.Tanh(), nn.Conv2d(8, 1, 1, bias=False)
        ),
        shape=(1, 2, 2),
    ),
    "patch merging": Tiny(
        build=lambda: Wired(patches, conv=nn.Conv2d(1, 2, 1, bias=False), head=nn.Linear(8, 1)), shape=(1, 2, 2)
    ),
    "zero-padded shortcut": Tiny(
        build=lambda: Wired(
            shortcut,
            first=nn.Conv1d(1, 2, 1, bias=False),
            block=nn.Conv1d(2, 3, 1, stride=2, bias=False),
            head=nn.Conv1d(3, 1, 1, bias=False),
        ),
        shape=(1, 3),
    ),
    "decoder": Tiny(
        build=lambda: nn.Sequential(
            nn.Linear(2, 6, bias=False), nn.Tanh(), nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 1, 2, bias=False)
        ),
        shape=(2,),
    ),
    "reflected padding": Tiny(
        build=lambda: between(nn.Conv1d(2, 2, 2, padding=1, padding_mode="reflect", bias=False), nn.Tanh()),
        shape=(1, 3),
    ),
    "zero padding": Tiny(
        build=lambda: between(nn.ZeroPad1d((1, 0)), nn.Tanh(), nn.Conv1d(2, 2, 2, bias=False)), shape=(1, 2)
    ),
    "class token and places": Tiny(
        build=lambda: Learned(
            class_token,
            {"token": (1, 1, 2), "places": (1, 3, 2)},
            embed=nn.Linear(2, 2, bias=False),
            head=nn.Linear(2, 1),
        ),
        shape=(2, 2),
    ),
    "attention": Tiny(build=attention, shape=(3, 2)),
    "attention of two heads": Tiny(build=lambda: attention(heads=2), shape=(2, 2)),
    "attention of shared keys": Tiny(build=lambda: attention(heads=2, shared=2), shape=(2, 2)),
    "scaled attention": Tiny(build=lambda: attention(lambda q, k: q @ k.transpose(-1, -2) / 3), shape=(3, 2)),
    "masked attention": Tiny(build=lambda: attention(masked), shape=(3, 2)),
    "functional attention": Tiny(
        build=lambda: Wired(
            lambda net, x: net.out(
                functional.scaled_dot_product_attention(net.query(x), net.key(x), net.value(x), is_causal=True)
            ),
            query=nn.Linear(2, 2, bias=False),
            key=nn.Linear(2, 2, bias=False),
            value=nn.Linear(2, 2),
            out=nn.Linear(2, 1),
        ),
        shape=(3, 2),
    ),
    "attention with relative places": Tiny(
        build=lambda: Learned(
            relative,
            {"table": (5,)},
            query=nn.Linear(2, 2, bias=False),
            key=nn.Linear(2, 2, bias=False),
            value=nn.Linear(2, 2, bias=False),
            out=nn.Linear(2, 1, bias=False),
        ),
        shape=(3, 2),
    ),
    "rotary attention": Tiny(
        build=lambda: Wired(
            rotated,
            query=nn.Linear(2, 2, bias=False),
            key=nn.Linear(2, 2, bias=False),
            value=nn.Linear(2, 2, bias=False),
            out=nn.Linear(2, 1, bias=False),
        ),
        shape=(3, 2),
    ),
    "softmax over neurons": Tiny(
        build=lambda: nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1), nn.Linear(3, 1)), shape=(2,)
    ),
    "softmax over positions": Tiny(build=lambda: between(nn.Softmax(dim=2), nn.Tanh(), width=3), shape=(1, 3)),
    "learned grid": Tiny(
        build=lambda: Learned(
            tri_planar, {"grid": (2, 2, 2)}, conv=nn.Conv2d(1, 2, 1, bias=False), head=nn.Conv2d(2, 1, 1, bias=False)
        ),
        shape=(1, 2, 2),
    ),
    "deep sets": Tiny(
        build=lambda: Wired(equivariant, own=nn.Linear(2, 3), mean=nn.Linear(2, 3, bias=False), head=nn.Linear(3, 1)),
        shape=(3, 2),
    ),
    "tied encoder and decoder": Tiny(
        build=lambda: Wired(
            lambda net, x: functional.linear(functional.linear(x, net.a.weight).relu(), net.a.weight.t()),
            a=nn.Linear(2, 3, bias=False),
        ),
        shape=(2,),
    ),
    "matrices instead of layers": Tiny(
        build=lambda: Learned(lambda net, x: (x @ net.a + net.b).relu() @ net.c, {"a": (2, 3), "b": (3,), "c": (3, 1)}),
        shape=(2,),
    ),
    "fixed positions": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head((net.embed(x) + torch.arange(4.0).reshape(2, 2)).relu().mean(1)),
            embed=nn.Linear(2, 2, bias=False),
            head=nn.Linear(2, 1),
        ),
        shape=(2, 2),
    ),
    "enlarged": Tiny(
        build=lambda: between(nn.Upsample(scale_factor=2), nn.Conv1d(2, 2, 2, bias=False), nn.Tanh()), shape=(1, 2)
    ),
    "enlarged, interpolated": Tiny(
        build=lambda: between(nn.Upsample(5, mode="linear"), nn.Tanh(), nn.Conv1d(2, 2, 2, bias=False)), shape=(1, 3)
    ),
    "largest of a region": Tiny(build=lambda: between(nn.AdaptiveMaxPool1d(2), nn.Tanh()), shape=(1, 5)),
    "sine": Tiny(
        build=lambda: Wired(
            lambda net, x: net.last((30 * net.first(x)).sin()), first=nn.Linear(2, 3), last=nn.Linear(3, 1)
        ),
        shape=(2,),
    ),
    "euclidean norm": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(functional.normalize(net.first(x), dim=-1)),
            first=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "variance over neurons": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head((lambda h: h / h.std(1, keepdim=True))(net.first(x))),
            first=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "error function": Tiny(
        build=lambda: Wired(
            lambda net, x: net.last(net.first(x).erf() + net.first(x).expm1() + net.first(x).abs().log1p()),
            first=nn.Linear(2, 3),
            last=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "two steps in time": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head((net.first(x[:, 1]) + net.state(net.first(x[:, 0]).tanh())).tanh()),
            first=nn.Linear(1, 3, bias=False),
            state=nn.Linear(3, 3, bias=False),
            head=nn.Linear(3, 1, bias=False),
        ),
        shape=(2, 1),
    ),
    "sums over neurons and positions": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: h * net.head(h).mean(dim=(1, 2), keepdim=True))(net.conv(x).tanh()).sum(1),
            conv=nn.Conv1d(1, 2, 2, bias=False),
            head=nn.Conv1d(2, 2, 1, bias=False),
        ),
        shape=(1, 3),
    ),
}


class Transposed(nn.Module):
    """``[batch, 2, 2, ...]`` with the two axes exchanged and merged: a channel shuffle."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(1, 2)


ALL: dict[str, Tiny] = {**TINY, **OPERATIONS}


@cache
def traced(name: str) -> tuple[nn.Module, GraphTemplate]:
    """A network of `ALL` with fixed weights, and its template; do not change either."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ALL[name].build()
    return module, trace(module, ALL[name].example_input)
