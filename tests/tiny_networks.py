"""Networks of a few neurons each, of every supported operation and wiring: small enough to try all permutations of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.parameter_graph import GraphTemplate
from pipeline.tracing import trace


class Wired(nn.Module):
    """Layers under their names, and a function that wires them."""

    def __init__(self, wiring: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Any:
        return self.wiring(self, x)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A network and the shape of its input without the batch."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    @property
    def example_input(self) -> Tensor:
        return torch.zeros(1, *self.shape)


def two_branches(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], bias: bool) -> nn.Module:
    """Two linear layers of one input, each with its activation, joined by a third."""
    return Wired(
        lambda net, x: net.joint(torch.cat([first(net.a(x)), second(net.b(x))], dim=1)),
        a=nn.Linear(2, 2, bias=bias),
        b=nn.Linear(2, 2, bias=bias),
        joint=nn.Linear(4, 1),
    )


def flattened(rearrange: Callable[[Tensor], Tensor]) -> nn.Module:
    """Two channels on a 2x2 map, rearranged and flattened into a linear layer."""
    return Wired(
        lambda net, x: net.head(rearrange(net.conv(x).relu()).flatten(1)),
        conv=nn.Conv2d(1, 2, 1, bias=False),
        head=nn.Linear(8, 1, bias=False),
    )


def pooled(*between: nn.Module, positions: int = 2) -> nn.Module:
    """A convolution, whatever stands between, and a linear layer that reads all positions of its two channels."""
    return nn.Sequential(nn.Conv1d(1, 2, 2), *between, nn.Flatten(), nn.Linear(2 * positions, 1))


TINY: dict[str, Tiny] = {
    "linear": Tiny(build=lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), shape=(2,)),
    "deep linear": Tiny(
        build=lambda: nn.Sequential(
            nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 2, bias=False), nn.GELU(), nn.Linear(2, 1)
        ),
        shape=(1,),
    ),
    "conv relu conv pool flatten linear": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv2d(1, 2, (2, 1)),
            nn.ReLU(),
            nn.Conv2d(2, 2, (1, 2)),
            nn.MaxPool2d((1, 4)),
            nn.Flatten(),
            nn.Linear(4, 1),
        ),
        shape=(1, 3, 5),
    ),
    "conv mean linear": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.conv(x).relu().mean(dim=(2, 3))),
            conv=nn.Conv2d(2, 3, (1, 2)),
            head=nn.Linear(3, 2),
        ),
        shape=(2, 3, 5),
    ),
    "conv1d, strided, dilated, padded": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv1d(1, 3, 2, stride=2),
            nn.SiLU(),
            nn.Conv1d(3, 2, 2, dilation=2, padding=1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(2, 1),
        ),
        shape=(1, 11),
    ),
    "conv3d": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv3d(1, 2, (1, 2, 2)), nn.Sigmoid(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(2, 2)
        ),
        shape=(1, 2, 3, 3),
    ),
    "flatten": Tiny(build=lambda: flattened(lambda x: x), shape=(1, 2, 2)),
    "flatten, height and width exchanged": Tiny(build=lambda: flattened(lambda x: x.transpose(2, 3)), shape=(1, 2, 2)),
    "flatten, channels last": Tiny(build=lambda: flattened(lambda x: x.permute(0, 2, 3, 1)), shape=(1, 2, 2)),
    "flatten, one channel": Tiny(
        build=lambda: nn.Sequential(nn.Conv2d(1, 1, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 2)), shape=(1, 3, 3)
    ),
    "flatten, upside down": Tiny(build=lambda: flattened(lambda x: x.flip(2)), shape=(1, 2, 2)),
    "flatten, some positions": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.conv(x).relu()[:, :, ::2, 1::2].flatten(1)),
            conv=nn.Conv2d(1, 2, 2),
            head=nn.Linear(4, 1),
        ),
        shape=(1, 4, 4),
    ),
    "one position": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.conv(x)[:, :, 1, 0].relu()), conv=nn.Conv2d(1, 3, 2), head=nn.Linear(3, 2)
        ),
        shape=(1, 3, 4),
    ),
    "one position as a map": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.point(net.conv(x)[:, :, 1:2, 0:1]).tanh().flatten(1)),
            conv=nn.Conv2d(1, 2, 2),
            point=nn.Conv2d(2, 2, 1),
            head=nn.Linear(2, 1),
        ),
        shape=(1, 3, 4),
    ),
    "two positions and the mean": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: net.head(torch.cat([h[:, :, 0, 0], h[:, :, 1, 1], h.mean(dim=(2, 3))], dim=1)))(
                net.conv(x).relu()
            ),
            conv=nn.Conv2d(1, 2, 2),
            head=nn.Linear(6, 1),
        ),
        shape=(1, 3, 3),
    ),
    "channels read at different positions": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: net.head(torch.cat([h[:, :1, 0], h[:, 1:, 2]], dim=1)))(net.conv(x).tanh()),
            conv=nn.Conv1d(1, 3, 2),
            head=nn.Linear(3, 2),
        ),
        shape=(1, 5),
    ),
    "tokens": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.token(x.transpose(1, 2)).relu().flatten(1)),
            token=nn.Linear(2, 2),
            head=nn.Linear(6, 1),
        ),
        shape=(2, 3),
    ),
    "tokens, channels first": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(net.token(x.transpose(1, 2)).relu().transpose(1, 2).flatten(1)),
            token=nn.Linear(2, 2),
            head=nn.Linear(6, 1),
        ),
        shape=(2, 3),
    ),
    "flattened input": Tiny(
        build=lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), shape=(1, 2, 2)
    ),
    "input beside features": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(torch.cat([net.hidden(x).relu(), x], dim=1)),
            hidden=nn.Linear(2, 2),
            head=nn.Linear(4, 1),
        ),
        shape=(2,),
    ),
    "input map beside feature maps": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(torch.cat([x, net.hidden(x).tanh()], dim=1)),
            hidden=nn.Conv1d(1, 2, 3, padding=1),
            head=nn.Conv1d(3, 2, 2),
        ),
        shape=(1, 5),
    ),
    "relu then mean": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv1d(1, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)
        ),
        shape=(1, 5),
    ),
    "mean then relu": Tiny(
        build=lambda: nn.Sequential(
            nn.Conv1d(1, 3, 2), nn.AdaptiveAvgPool1d(1), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)
        ),
        shape=(1, 5),
    ),
    "relu then mean beside mean then relu": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: net.head(torch.cat([h.relu().mean(dim=2), h.mean(dim=2).relu()], dim=1)))(
                net.conv(x)
            ),
            conv=nn.Conv1d(1, 2, 2),
            head=nn.Linear(4, 2),
        ),
        shape=(1, 5),
    ),
    "overlapping maxima": Tiny(build=lambda: pooled(nn.MaxPool1d(3, stride=2, padding=1), nn.ELU()), shape=(1, 5)),
    "dilated maxima": Tiny(
        build=lambda: pooled(nn.LeakyReLU(0.3), nn.MaxPool1d(2, stride=2, dilation=2)), shape=(1, 6)
    ),
    "averages without padding": Tiny(
        build=lambda: pooled(
            nn.AvgPool1d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), positions=3
        ),
        shape=(1, 5),
    ),
    "adaptive averages": Tiny(build=lambda: pooled(nn.SiLU(), nn.AdaptiveAvgPool1d(2)), shape=(1, 6)),
    "two activations": Tiny(build=lambda: two_branches(torch.relu, torch.tanh, bias=True), shape=(2,)),
    "twin branches": Tiny(build=lambda: two_branches(torch.relu, torch.relu, bias=True), shape=(2,)),
    "twin branches without biases": Tiny(build=lambda: two_branches(torch.relu, torch.relu, bias=False), shape=(2,)),
    "branches of two strides": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(torch.cat([net.a(x).relu().mean(dim=2), net.b(x).relu().mean(dim=2)], dim=1)),
            a=nn.Conv1d(1, 2, 2, stride=2, bias=False),
            b=nn.Conv1d(1, 2, 2, stride=3, bias=False),
            head=nn.Linear(4, 1),
        ),
        shape=(1, 5),
    ),
    "split and joined in another order": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda p, q: net.head(torch.cat([q.tanh(), p.relu()], dim=1)))(
                *net.hidden(x).split([1, 3], dim=1)
            ),
            hidden=nn.Linear(2, 4),
            head=nn.Linear(4, 1),
        ),
        shape=(2,),
    ),
    "chunks, reversed": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(torch.cat(net.hidden(x).relu().chunk(2, dim=1)[::-1], dim=1).flip(1)),
            hidden=nn.Linear(2, 4),
            head=nn.Linear(4, 1),
        ),
        shape=(2,),
    ),
    "transposed twice": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(torch.stack(net.hidden(x).sin().T.T.unbind(1)[::-1], dim=1)),
            hidden=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "one layer used twice": Tiny(
        build=lambda: Wired(lambda net, x: net.layer(net.layer(x).tanh()), layer=nn.Linear(3, 3)), shape=(3,)
    ),
    "one hidden layer used twice": Tiny(
        build=lambda: Wired(
            lambda net, x: net.last(net.layer(net.layer(net.first(x).tanh()).relu()).tanh()),
            first=nn.Linear(1, 3, bias=False),
            layer=nn.Linear(3, 3),
            last=nn.Linear(3, 1, bias=False),
        ),
        shape=(1,),
    ),
    "one layer on two halves": Tiny(
        build=lambda: Wired(
            lambda net, x: net.joint(torch.cat([net.part(x[:, :2]).relu(), net.part(x[:, 2:]).relu()], dim=1)),
            part=nn.Linear(2, 2),
            joint=nn.Linear(4, 1),
        ),
        shape=(4,),
    ),
    "one layer twice on one input": Tiny(
        build=lambda: Wired(
            lambda net, x: net.joint(torch.cat([net.layer(x), net.layer(x).tanh()], dim=1)),
            layer=nn.Linear(2, 2),
            joint=nn.Linear(4, 2),
        ),
        shape=(2,),
    ),
    "hidden neurons returned": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: torch.cat([h, net.head(h.relu())], dim=1))(net.hidden(x)),
            hidden=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "some hidden neurons returned": Tiny(
        build=lambda: Wired(
            lambda net, x: (lambda h: torch.cat([net.head(h.relu()), h[:, 1:2]], dim=1))(net.hidden(x)),
            hidden=nn.Linear(2, 3),
            head=nn.Linear(3, 1),
        ),
        shape=(2,),
    ),
    "softmax": Tiny(
        build=lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(dim=1)), shape=(2,)
    ),
    "log softmax with a temperature": Tiny(
        build=lambda: Wired(
            lambda net, x: ((net.head(net.hidden(x).relu()) - 0.5) / 3).log_softmax(dim=-1),
            hidden=nn.Linear(2, 3),
            head=nn.Linear(3, 2),
        ),
        shape=(2,),
    ),
    "shifted and scaled": Tiny(
        build=lambda: Wired(
            lambda net, x: torch.sub(net.head(torch.add(2 * net.hidden(x), 0.5, alpha=3).sin() / 4 + 1), 0.25, alpha=2),
            hidden=nn.Linear(2, 3),
            head=nn.Linear(3, 2),
        ),
        shape=(2,),
    ),
    "a map returned": Tiny(
        build=lambda: nn.Sequential(nn.Conv2d(1, 3, (1, 2)), nn.GELU(approximate="tanh"), nn.Conv2d(3, 2, (2, 1))),
        shape=(1, 3, 4),
    ),
    "nested, with dropout and in place": Tiny(
        build=lambda: nn.Sequential(
            nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.4))),
            nn.Identity(),
            nn.Linear(3, 2),
        ),
        shape=(2,),
    ),
    "squeezed": Tiny(
        build=lambda: Wired(
            lambda net, x: net.head(functional.relu_(net.conv(x)).squeeze()),
            conv=nn.Conv2d(1, 3, (2, 3)),
            head=nn.Linear(3, 2),
        ),
        shape=(1, 2, 3),
    ),
}


@cache
def traced(name: str) -> tuple[nn.Module, GraphTemplate]:
    """A network of `TINY` with fixed weights, and its template; do not change either."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = TINY[name].build()
    return module, trace(module, TINY[name].example_input)
