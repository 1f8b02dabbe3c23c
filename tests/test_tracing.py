"""Tracing gives the right graph, of any wiring; what it refuses is in `test_trace_refusals`."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.graph_kinds import NodeKind
from pipeline.symmetry import check
from pipeline.tracing import trace
from tiny_networks import TINY, Wired, traced
from wired_layers import IMAGE, VECTOR, hidden, imaged


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


def test_constants_of_float32_do_not_fail_the_check() -> None:
    """Torch expresses ``lerp`` in others with constants of float32."""
    module = hidden(lambda net, x: torch.lerp(net.hidden(x), net.other(x), 0.3), other=nn.Linear(3, 4))
    check(module, trace(module, VECTOR), VECTOR)


def test_a_check_does_not_depend_on_the_mode_it_is_called_in() -> None:
    module = hidden(lambda net, x: nn.functional.celu(net.hidden(x), 0.7))
    expected = check(module, trace(module, VECTOR), VECTOR)
    with torch.inference_mode():
        assert check(module, trace(module, VECTOR), VECTOR) == expected
