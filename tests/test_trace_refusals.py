"""What has no exact graph is refused, never traced wrong; errors say what, where, and what to do."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.tracing import trace
from tiny_networks import Wired
from wired_layers import IMAGE, VECTOR, hidden, imaged

REFUSED_ON_VECTORS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lifted constant": (
        lambda: hidden(lambda net, x: net.hidden(x)[:, torch.tensor([1, 0])]),
        r"6 of the 12 values of hidden.weight \(4, 3\) never act on the result; make it smaller",
    ),
    "set in place": (
        lambda: hidden(set_first_to_zero),
        r"reads a channel that is always zero; leave the padding away there",
    ),
    "branch on data": (
        lambda: hidden(lambda net, x: net.hidden(x) if x.sum() > 0 else -net.hidden(x)),
        "Wired cannot be traced: torch.export says .*data-dependent control flow has no parameter graph",
    ),
    "conditional operator": (
        lambda: hidden(lambda net, x: torch.cond(x.sum() > 0, torch.relu, torch.tanh, (net.hidden(x),))),
        r"aten.sum.dim_IntList .* does not find the examples of the batch one by one along an axis",
    ),
    "half precision inside": (
        lambda: hidden(lambda net, x: net.hidden(x).half().float()),
        r"aten._to_copy.default .* computes in torch.float16; keep the whole module in float32",
    ),
    "dropout that never stops": (
        lambda: hidden(lambda net, x: functional.dropout(net.hidden(x))),
        "aten.dropout",
    ),
    "multiplied by nothing": (
        lambda: hidden(lambda net, x: net.hidden(x) * 0),
        r"the module returns something that does not depend on its input",
    ),
    "divided by nothing": (
        lambda: hidden(lambda net, x: net.hidden(x) / 0),
        r"aten.div.Tensor .* divides by zero; remove the operation",
    ),
    "weight used in part": (
        lambda: hidden(lambda net, x: functional.linear(x, net.hidden.weight[:2])),
        r"6 of the 12 values of hidden.weight \(4, 3\) never act on the result; make it smaller",
    ),
    "activation of a weight": (
        lambda: hidden(lambda net, x: functional.linear(x, net.hidden.weight.tanh())),
        r"aten.linear.default .* has a computed weight or bias; weights must be float32 tensors of the state",
    ),
    "weight normalisation": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))),
        r"aten.linalg_vector_norm.default in module '0.parametrizations.weight.0' .* acts on a parameter",
    ),
    "activation as weight": (
        lambda: hidden(lambda net, x: functional.linear(net.hidden(x), net.hidden(x))),
        "has a computed weight or bias; weights must be float32 tensors of the state dict, used as they are",
    ),
    "vector as weight": (
        lambda: hidden(lambda net, x: functional.linear(net.hidden(x), net.hidden.bias).unsqueeze(1)),
        r"does not find the examples of the batch one by one along an axis",
    ),
    "two outputs": (
        lambda: hidden(lambda net, x: (net.hidden(x), net.other(x)), other=nn.Linear(3, 2)),
        "the module returns a tuple of 2; expected one tensor: wrap it in a module that returns the one",
    ),
    "nothing returned": (
        lambda: hidden(lambda net, x: None),
        "the module returns no tensor; expected one tensor",
    ),
    "input changed in place": (
        lambda: hidden(lambda net, x: net.hidden(x.mul_(2))),
        "the module changes x in place; compute a new tensor instead",
    ),
    "buffer changed in place": (
        lambda: Counting(),
        "the module changes count in place; compute a new tensor instead",
    ),
    "feature never read": (
        lambda: hidden(lambda net, x: net.head(net.hidden(x)[:, :3]), head=nn.Linear(3, 2)),
        r"3 of the 12 values of hidden.weight \(4, 3\) never act on the result; make it smaller",
    ),
    "unused parameter": (
        lambda: hidden(lambda net, x: net.hidden(x), other=nn.Linear(3, 2)),
        r"other.weight \(2, 3\) never act on the result; remove it from the module",
    ),
    "element read twice": (
        lambda: hidden(
            lambda net, x: net.head(net.one(net.hidden(x)).expand(-1, 3)), one=nn.Linear(4, 1), head=nn.Linear(3, 2)
        ),
        r"in module 'head' .* reads one element twice, so that two values could not be told apart; a parameter",
    ),
    "one layer twice on one input": (
        lambda: hidden(lambda net, x: net.head(torch.cat([net.hidden(x), net.hidden(x)], dim=1)), head=nn.Linear(8, 2)),
        "reads one element twice",
    ),
    "batch reversed": (
        lambda: hidden(lambda net, x: net.head(net.hidden(x).flip(0)), head=nn.Linear(4, 2)),
        "the examples of",
    ),
    "first example": (
        lambda: hidden(lambda net, x: net.head(net.hidden(x)[:1]), head=nn.Linear(4, 2)),
        "the examples of",
    ),
    "batch axis moved": (
        lambda: hidden(lambda net, x: net.hidden(x)[None]),
        "returns .* for two examples; keep the batch",
    ),
    "transposed": (lambda: Wired(lambda net, x: net.head(x.T), head=nn.Linear(2, 2)), "the examples of the batch"),
    "no batch returned": (
        lambda: hidden(lambda net, x: net.hidden(x).flatten()),
        r"the module does not return \[batch, ...\]: one example gives \(4,\); keep the batch axis first",
    ),
    "group with a channel that nothing reads": (
        lambda: Wired(
            lambda net, x: net.grouped(x[:, :, None])[:, 1:].flatten(1), grouped=nn.Conv1d(3, 6, 1, groups=3)
        ),
        "computes a feature that nothing reads",
    ),
    "softmax over the batch": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Softmax(0)),
        r"aten.softmax.int .* does not find the examples of the batch one by one along an axis",
    ),
    "nothing read": (
        lambda: hidden(lambda net, x: net.hidden(x)[:, :0]),
        r"the module returns something that does not depend on its input",
    ),
    "float64": (
        lambda: nn.Linear(3, 2).double(),
        "weight: found dtype float64; values are float32, so cast the module first",
    ),
    "another width": (
        lambda: nn.Linear(5, 2),
        r"Linear fails on an input of shape \(2, 3\): mat1 and mat2 shapes cannot",
    ),
    "uncopyable": (
        lambda: Uncopyable(),
        "Uncopyable cannot be copied: cannot pickle '_thread.lock' object; trace it before it has run",
    ),
}


REFUSED_ON_IMAGES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "even kernel, same size": (
        lambda: nn.Conv2d(2, 4, 2, padding="same"),
        r"pads kernel \(2, 2\) to 'same', more on one side than on the other; use odd kernels or give the padding",
    ),
    "taps in the padding": (
        lambda: imaged(lambda net, x: net.wide(net.conv(x)[:, :, :1, :1]), wide=nn.Conv2d(4, 3, 3, padding=1)),
        r"has kernel taps that meet nothing but padding on a map \(1, 1\), so that their weights never act; take",
    ),
    "too small": (
        lambda: nn.Conv2d(2, 4, 8),
        r"Conv2d fails on an input of shape \(2, 2, 7, 11\): Calculated padded input size",
    ),
    "mean in float64": (
        lambda: imaged(lambda net, x: net.conv(x).mean((2, 3), dtype=torch.float64)),
        "computes in torch.float64; keep the whole",
    ),
    "tokens mixed": (
        lambda: imaged(lambda net, x: net.mix(net.conv(x)), mix=nn.Linear(10, 3)),
        r"aten.linear.default in module 'mix' .* mixes tokens: it runs over axis 3 of positions, with channels",
    ),
    "channels as a batch": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(154, 4), nn.MaxPool1d(2)),
        r"does not get \[batch, channels\]",
    ),
    "divided by its own number": (
        lambda: imaged(lambda net, x: functional.avg_pool2d(net.conv(x), 2, divisor_override=3)),
        "aten.avg_pool2d.default .* divides by a number of its own; leave divisor_override unset",
    ),
}


def set_first_to_zero(net: Any, x: Tensor) -> Tensor:
    features = net.hidden(x)
    features[:, 0] = 0
    return features


class Counting(nn.Linear):
    """Counts how often it runs."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x)


class Uncopyable(nn.Linear):
    """Holds a lock."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.lock = Lock()


@pytest.mark.parametrize("name", REFUSED_ON_VECTORS)
def test_a_network_of_vectors_that_has_no_exact_graph_is_refused(name: str) -> None:
    build, text = REFUSED_ON_VECTORS[name]
    with pytest.raises(ValueError, match=text):
        trace(build(), VECTOR)


def test_what_cannot_be_traced_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    """The error says it all; torch.export would print its program beside it."""
    build, text = REFUSED_ON_VECTORS["branch on data"]
    with pytest.raises(ValueError, match=text):
        trace(build(), VECTOR)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", REFUSED_ON_IMAGES)
def test_a_network_of_images_that_has_no_exact_graph_is_refused(name: str) -> None:
    build, text = REFUSED_ON_IMAGES[name]
    with pytest.raises(ValueError, match=text):
        trace(build(), IMAGE)


@pytest.mark.parametrize("example", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(())])
def test_an_example_without_batch_and_channels_is_refused(example: Tensor) -> None:
    with pytest.raises(ValueError, match=r"example_input has shape \(.*\); expected \[batch, channels, ...\]"):
        trace(nn.Linear(3, 2), example)


def test_where_maxima_stand_is_not_followed() -> None:
    module = hidden(lambda net, x: (lambda y: y.gather(1, y.max(1, keepdim=True)[1]))(net.hidden(x)))
    with pytest.raises(ValueError, match="aten.gather.default .* reads where maxima stand, or another result"):
        trace(module, VECTOR)


class Hiding(nn.Module):
    """Reaches a parameter of its own through something else."""

    def __init__(self, hide: Callable[["Hiding"], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(3, 4), nn.Parameter(torch.ones(4))
        self.act = hide(self)
        self.kept = [self.first.bias]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.first(x)) * self.scale


HIDDEN: dict[str, Callable[[Hiding], Callable[[Tensor], Tensor]]] = {
    "scale": lambda net: lambda h: torch.tanh(h * net.scale),
    "first.bias": lambda net: partial(torch.mul, net.first.bias),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_parameter_that_is_reached_by_another_way_is_refused(name: str) -> None:
    """Torch.export and `check` alike would take it for a constant, and the graph would be wrong for other values."""
    with pytest.raises(ValueError, match=rf"Hiding reaches {name} by another way than as its attribute"):
        trace(Hiding(HIDDEN[name]), VECTOR)


def test_fractions_in_whole_numbers_are_refused() -> None:
    module = Wired(lambda net, x: net.words(x + torch.full_like(x, 0.7)).sum(1), words=nn.Embedding(5, 2))
    with pytest.raises(ValueError, match=r"aten.full_like.default .* makes whole numbers of others; round before"):
        trace(module, torch.zeros(1, 3, dtype=torch.int64))


def test_what_is_no_plain_module_is_refused() -> None:
    with pytest.raises(ValueError, match="is scripted; trace the module that it was made from"):
        trace(torch.jit.ScriptModule(), VECTOR)
    with pytest.raises(ValueError, match="example_input is torch.sparse_coo; expected a dense tensor"):
        trace(nn.Linear(3, 2), VECTOR.to_sparse())
    empty = nn.Linear(3, 1)
    empty.weight, empty.bias = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.zeros(0))
    with pytest.raises(ValueError, match="has a weight without elements"):
        trace(empty, VECTOR)
    with pytest.raises(ValueError, match="Wired fails on an input of shape .*: enough"):
        trace(hidden(stop), VECTOR)


def stop(net: Any, x: Tensor) -> Tensor:
    raise SystemExit("enough")
