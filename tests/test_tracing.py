"""Tracing gives the right graph or an error, never a wrong graph."""

import copy
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.graph_kinds import NodeKind
from pipeline.symmetry import check
from pipeline.tracing import trace
from tiny_networks import TINY, Wired, traced

IMAGE = torch.zeros(1, 2, 7, 11)


def convolutional(
    *,
    activation: nn.Module | None = None,
    pool: nn.Module | None = None,
    swap: bool = False,
    dropout: float = 0.1,
    **conv: Any,
) -> nn.Module:
    """A convolution of 3x3, an activation, a pool, dropout, and a head that averages whatever is left."""
    between = [activation or nn.ReLU(), pool or nn.MaxPool2d(2)]
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, **{"padding": 1, **conv}),
        *(between[::-1] if swap else between),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 5),
    )


DIFFERENT: dict[str, Callable[[], nn.Module]] = {
    "plain": convolutional,
    "stride": lambda: convolutional(stride=2),
    "padding": lambda: convolutional(padding=0),
    "dilation": lambda: convolutional(dilation=2),
    "tanh": lambda: convolutional(activation=nn.Tanh()),
    "gelu": lambda: convolutional(activation=nn.GELU()),
    "gelu by tanh": lambda: convolutional(activation=nn.GELU(approximate="tanh")),
    "leaky relu": lambda: convolutional(activation=nn.LeakyReLU()),
    "leakier relu": lambda: convolutional(activation=nn.LeakyReLU(0.1)),
    "elu": lambda: convolutional(activation=nn.ELU()),
    "no activation": lambda: convolutional(activation=nn.Identity()),
    "average pool": lambda: convolutional(pool=nn.AvgPool2d(2)),
    "average pool without padding": lambda: convolutional(pool=nn.AvgPool2d(2, padding=1, count_include_pad=False)),
    "pool of 3": lambda: convolutional(pool=nn.MaxPool2d(3)),
    "overlapping pool": lambda: convolutional(pool=nn.MaxPool2d(2, stride=1)),
    "padded pool": lambda: convolutional(pool=nn.MaxPool2d(2, padding=1)),
    "dilated pool": lambda: convolutional(pool=nn.MaxPool2d(2, dilation=2)),
    "pool rounded up": lambda: convolutional(pool=nn.MaxPool2d(2, ceil_mode=True)),
    "adaptive pool": lambda: convolutional(pool=nn.AdaptiveAvgPool2d((2, 3))),
    "no pool": lambda: convolutional(pool=nn.Identity()),
    "pool before activation": lambda: convolutional(swap=True),
    "twice the same activation": lambda: convolutional(pool=nn.ReLU()),
}


def test_whatever_changes_the_function_changes_the_digest() -> None:
    digests = {name: trace(build(), IMAGE).digest for name, build in DIFFERENT.items()}
    assert len(set(digests.values())) == len(DIFFERENT), digests


@pytest.mark.parametrize("first", [nn.Conv2d(2, 2, 3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3), nn.MaxPool2d(2)])
def test_another_resolution_is_another_template(first: nn.Module) -> None:
    """Also where no layer sees the map, only a mean."""
    module = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    assert trace(module, IMAGE).digest != trace(module, torch.zeros(1, 2, 7, 13)).digest


def test_another_position_is_another_template() -> None:
    def reading(row: int) -> nn.Module:
        return Wired(lambda net, x: net.head(net.conv(x)[:, :, row, 2]), conv=nn.Conv2d(2, 3, 3), head=nn.Linear(3, 5))

    assert trace(reading(0), IMAGE).digest != trace(reading(1), IMAGE).digest


def test_weights_dropout_mode_batch_and_gradients_do_not_change_the_digest() -> None:
    expected = trace(convolutional(), IMAGE).digest
    assert trace(convolutional().eval(), IMAGE).digest == expected
    assert trace(convolutional(dropout=0.7).train(), torch.randn(5, 2, 7, 11)).digest == expected
    assert trace(convolutional().requires_grad_(False), IMAGE.clone().requires_grad_()).digest == expected
    assert trace(convolutional(activation=nn.ReLU(inplace=True)), IMAGE).digest == expected
    channels_last = convolutional()
    for parameter in channels_last.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    assert trace(channels_last, IMAGE).digest == expected


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_left_as_it_was(training: bool) -> None:
    module = convolutional().train(training)
    module[3].eval()  # pyright: ignore[reportIndexIssue]
    before = copy.deepcopy(module)
    parameters = list(module.parameters())
    state = torch.get_rng_state()
    trace(module, IMAGE)
    check(module, trace(module, IMAGE), IMAGE)
    assert [part.training for part in module.modules()] == [part.training for part in before.modules()]
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", TINY)
def test_tiny_networks_pass_the_check(name: str) -> None:
    module, template = traced(name)
    assert check(module, template, TINY[name].example_input).inert == ()


def test_memory_format_is_not_wiring() -> None:
    """The flatten after a change of memory format reads channels first all the same."""
    module = Wired(
        lambda net, x: net.head(net.conv(x).contiguous(memory_format=torch.channels_last).flatten(1)),
        conv=nn.Conv2d(2, 3, 3),
        head=nn.Linear(3 * 5 * 9, 5),
    )
    template = trace(module, IMAGE)
    plain = Wired(
        lambda net, x: net.head(net.conv(x).flatten(1)), conv=nn.Conv2d(2, 3, 3), head=nn.Linear(3 * 5 * 9, 5)
    )
    assert template.digest == trace(plain, IMAGE).digest
    check(module, template, IMAGE)


def hidden(wiring: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    """A hidden layer of four neurons, wired to layers of its own."""
    return Wired(wiring, hidden=nn.Linear(3, 4), **layers)


def imaged(wiring: Callable[[Any, Tensor], Any], **layers: nn.Module) -> nn.Module:
    """A convolution that leaves four channels on a 6x10 map, wired to layers of its own."""
    return Wired(wiring, conv=nn.Conv2d(2, 4, 2), **layers)


class Scaled(nn.Module):
    """A tensor that is no layer's acts on the features."""

    def __init__(self, scale: Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        if isinstance(scale, nn.Parameter):
            self.scale = scale
        else:
            self.register_buffer("scale", scale, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x) * self.scale


VECTOR = torch.zeros(1, 3)

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

WIRED_ON_VECTORS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
    "residual": lambda: hidden(lambda net, x: net.hidden(x) + net.other(x), other=nn.Linear(3, 4)),
    "learned scale": lambda: Scaled(nn.Parameter(torch.ones(4))),
    "buffer": lambda: Scaled(torch.ones(4)),
    "constant": lambda: hidden(lambda net, x: net.hidden(x) * torch.ones(4)),
    "computed weight": lambda: hidden(lambda net, x: functional.linear(net.hidden(x), net.hidden.weight.T)),
    "input returned": nn.Identity,
    "input returned beside features": lambda: hidden(lambda net, x: torch.cat([net.hidden(x), x], dim=1)),
    "feature returned twice": lambda: hidden(lambda net, x: (lambda h: torch.cat([h, h.relu()], dim=1))(net.hidden(x))),
    "batch merged": lambda: Wired(lambda net, x: net.head(x.reshape(-1, 1)).reshape(-1, 3), head=nn.Linear(1, 1)),
    "softmax inside": lambda: hidden(lambda net, x: net.head(net.hidden(x).softmax(1)), head=nn.Linear(4, 2)),
    "softmax over two layers": lambda: hidden(
        lambda net, x: torch.cat([net.hidden(x), net.other(x)], dim=1).softmax(1), other=nn.Linear(3, 2)
    ),
    "softmax over one feature": lambda: nn.Sequential(nn.Linear(3, 1), nn.Softmax(1)),
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

WIRED_ON_IMAGES: dict[str, Callable[[], nn.Module]] = {
    "grouped": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, 3),
    "reflected": lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
    "cropped": lambda: imaged(lambda net, x: net.next(net.conv(x)[:, :, 1:]), next=nn.Conv2d(4, 3, 2)),
    "axes exchanged": lambda: imaged(lambda net, x: net.next(net.conv(x).mT), next=nn.Conv2d(4, 3, 2)),
    "axes exchanged, square": lambda: imaged(
        lambda net, x: net.next(functional.adaptive_avg_pool2d(net.conv(x), 5).transpose(2, 3)),
        next=nn.Conv2d(4, 3, 2),
    ),
    "every second row": lambda: imaged(lambda net, x: net.next(net.conv(x)[:, :, ::2]), next=nn.Conv2d(4, 3, 2)),
    "mean of a line": lambda: imaged(lambda net, x: net.head(net.conv(x).flatten(2).mean(2)), head=nn.Linear(4, 3)),
    "mean over rows": lambda: imaged(lambda net, x: net.next(net.conv(x).mean(2)), next=nn.Conv1d(4, 3, 2)),
    "positions to channels": lambda: imaged(
        lambda net, x: net.next(net.conv(x).reshape(-1, 24, 1, 10)), next=nn.Conv2d(24, 3, 1)
    ),
    "channels to positions": lambda: imaged(
        lambda net, x: net.next(net.conv(x).reshape(-1, 2, 12, 10)), next=nn.Conv2d(2, 3, 2)
    ),
    "pixel shuffle": lambda: imaged(
        lambda net, x: net.next(functional.pixel_shuffle(net.conv(x), 2)), next=nn.Conv2d(1, 3, 2)
    ),
    "unflattened": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(154, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 2, 2)
    ),
    "half a map through relu": lambda: imaged(
        lambda net, x: (lambda h: net.next(torch.cat([h[:, :, :3].relu(), h[:, :, 3:]], dim=2)))(net.conv(x)),
        next=nn.Conv2d(4, 3, 2),
    ),
    "one position pooled": lambda: imaged(
        lambda net, x: net.next(functional.max_pool2d(net.conv(x)[:, :, :1, :1], 1)), next=nn.Conv2d(4, 3, 1)
    ),
    "one position returned": lambda: imaged(lambda net, x: net.conv(x)[:, :, 2, 3]),
    "flattened and returned": lambda: imaged(lambda net, x: net.conv(x).flatten(1)),
    "a map with one position spread": lambda: imaged(
        lambda net, x: net.next(net.conv(x).mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)),
        next=nn.Conv2d(4, 3, 2),
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


class Keeping(nn.Linear):
    """Keeps what it has computed, and fills a tensor with it."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x)
        result = torch.zeros(len(x), 5)
        result[:, :2], result[:, 2:] = self.kept.sin(), x
        return result


def test_a_module_may_keep_and_fill_tensors() -> None:
    module = Keeping()
    module(VECTOR)
    kept = module.kept
    check(module, trace(module, VECTOR), VECTOR)
    assert module.kept is kept


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


@pytest.mark.parametrize("name", WIRED_ON_VECTORS)
def test_a_wired_network_of_vectors_passes_the_check(name: str) -> None:
    module = WIRED_ON_VECTORS[name]()
    check(module, trace(module, VECTOR), VECTOR)


@pytest.mark.parametrize("name", WIRED_ON_IMAGES)
def test_a_wired_network_of_images_passes_the_check(name: str) -> None:
    module = WIRED_ON_IMAGES[name]()
    check(module, trace(module, IMAGE), IMAGE)


def test_a_map_of_four_axes_counts_as_one() -> None:
    module, example = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)), torch.zeros(1, 2, 2, 3, 2, 3)
    template = trace(module, example)
    assert template.grids == ((), (36,))
    check(module, template, example)


KEPT = torch.tensor([True, False, True])

WORDS: dict[str, Callable[[], nn.Module]] = {
    "turned": lambda: Wired(
        lambda net, x: net.head(net.words(x.flip(1)).flatten(1)), words=nn.Embedding(5, 2), head=nn.Linear(6, 2)
    ),
    "counted down": lambda: Wired(
        lambda net, x: net.head(net.words(4 - x).flatten(1)), words=nn.Embedding(5, 2), head=nn.Linear(6, 2)
    ),
    "one by one": lambda: Wired(
        lambda net, x: net.head(net.words(x[:, 0]) * net.others(x[:, 1]) + net.words(x[:, 2])),
        words=nn.Embedding(5, 2),
        others=nn.Embedding(5, 2),
        head=nn.Linear(2, 2),
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_may_be_moved_and_counted_with_before_they_are_looked_up(name: str) -> None:
    module, example = WORDS[name](), torch.zeros(1, 3, dtype=torch.int64)
    check(module, trace(module, example), example)


@pytest.mark.parametrize(
    "wiring",
    [
        lambda net, x: net.head(net.hidden(x).tanh() if x.shape[0] == 1 else net.hidden(x).sin()),
        lambda net, x: net.head(net.hidden(x).tanh()) / x.shape[0],
        lambda net, x: net.head(net.hidden(x).tanh() * (1 if x.shape[0] < 5 else 2)),
    ],
)
def test_a_network_that_looks_at_the_size_of_the_batch_is_refused(wiring: Callable[[Any, Tensor], Tensor]) -> None:
    module = hidden(wiring, head=nn.Linear(4, 2))
    with pytest.raises(ValueError, match="Wired computes something else for an example alone than for the same"):
        trace(module, VECTOR)


def test_pieces_between_one_another_are_still_channels() -> None:
    """Neurons 0 and 2 pass one function and neuron 1 another: the two are alike."""
    module = Wired(
        lambda net, x: net.head(torch.where(KEPT, net.hidden(x).tanh(), net.hidden(x).sin())),
        hidden=nn.Linear(3, 3),
        head=nn.Linear(3, 1),
    )
    assert check(module, trace(module, VECTOR), VECTOR).group == "S(2)"


def test_constants_and_products_of_pairs_beside_features_can_be_read() -> None:
    factors = torch.tensor([1.0, 2.0, 4.0])
    for wiring, width in (
        (lambda net, x: net.head(torch.cat([net.hidden(x).tanh(), torch.ones(x.shape[0], 1)], dim=1)), 5),
        (lambda net, x: net.head((net.hidden(x)[..., None] * factors).flatten(-2).sin()), 12),
        (lambda net, x: net.head((lambda y: (y[:, :, None] * y[:, None, :]).flatten(1))(net.hidden(x))), 16),
    ):
        module = hidden(wiring, head=nn.Linear(width, 2))
        check(module, trace(module, VECTOR), VECTOR)


@pytest.mark.filterwarnings(
    "ignore:The tensor attributes self.layer"
)  # torch.export, about how nn.LSTM keeps its weights
@pytest.mark.parametrize("build", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_networks_are_unrolled(build: Callable[..., nn.Module]) -> None:
    """Hidden units are alike, each with its gates and its part of the state; the state is zero at first."""
    module = Wired(
        lambda net, x: net.head(net.layer(x)[0].tanh()), layer=build(2, 3, batch_first=True), head=nn.Linear(3, 2)
    )
    example = torch.zeros(1, 4, 2)
    report = check(module, trace(module, example), example)
    assert (report.group_order, report.inert) == (6, ())


def test_what_is_thrown_away_is_no_part_of_the_graph() -> None:
    """One of four outputs is normalised, so that the other three normalised ones are not there."""
    module = hidden(lambda net, x: (lambda h: torch.cat([h.softmax(1)[:, :1], h[:, 1:]], dim=1))(net.hidden(x)))
    template = trace(module, VECTOR)
    assert [nodes.count for nodes in template.node_sets if nodes.kind == NodeKind.NORMALISED] == [1]
    check(module, template, VECTOR)


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


def test_a_batch_of_one_that_loses_its_axis_is_refused_where_it_matters() -> None:
    """Squeezed, the softmax runs over positions for one example, and over channels for several."""
    module = hidden(lambda net, x: net.head(net.hidden(x).squeeze().softmax(1)), head=nn.Linear(4, 2))
    with pytest.raises(ValueError, match="Wired computes something else for an example alone than for the same"):
        trace(module, torch.zeros(1, 5, 3))


def test_a_network_is_tried_with_random_weights_whatever_it_has() -> None:
    """A head of zeros would hide what depends on the size of the batch."""
    module = hidden(
        lambda net, x: net.head(net.hidden(x).tanh() if x.shape[0] > 1 else net.hidden(x).abs()), head=nn.Linear(4, 2)
    )
    nn.init.zeros_(module.get_submodule("head").weight)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Wired computes something else for an example alone"):
        trace(module, VECTOR)


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


def test_constants_of_float32_do_not_fail_the_check() -> None:
    """Torch expresses ``lerp`` in others with constants of float32."""
    module = hidden(lambda net, x: torch.lerp(net.hidden(x), net.other(x), 0.3), other=nn.Linear(3, 4))
    check(module, trace(module, VECTOR), VECTOR)


def test_a_check_does_not_depend_on_the_mode_it_is_called_in() -> None:
    module = hidden(lambda net, x: nn.functional.celu(net.hidden(x), 0.7))
    expected = check(module, trace(module, VECTOR), VECTOR)
    with torch.inference_mode():
        assert check(module, trace(module, VECTOR), VECTOR) == expected
