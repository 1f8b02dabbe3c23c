"""Law B for random compositions of operations, and counter-examples that a wrong graph would get wrong.

The permutations of weights that preserve the function of a tiny network are the automorphisms of its template, as in
`test_automorphisms`, for two or three operations one after another.
"""

from collections.abc import Callable
from dataclasses import replace
from math import factorial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.automorphisms import permute_values
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry import check
from pipeline.symmetry_group import symmetry_group
from pipeline.tracing import trace
from tiny_networks import Wired
from tiny_operations import Learned
from value_permutations import axis_products, generated, preserving

MOST_PRODUCTS = 6_000
MOST_ELEMENTS = 3_000


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Module:
    return nn.Conv1d(inputs, outputs, kernel, groups=groups, bias=False)


def attention(width: int) -> nn.Module:
    """One head over positions; the residual keeps the input."""

    def wiring(net: Any, x: Tensor) -> Tensor:
        tokens = x.transpose(1, 2)
        scores = net.query(tokens) @ net.key(tokens).transpose(1, 2)
        return x + net.out(scores.softmax(-1) @ net.value(tokens)).transpose(1, 2)

    return Wired(
        wiring,
        query=nn.Linear(width, 2, bias=False),
        key=nn.Linear(width, 2, bias=False),
        value=nn.Linear(width, 2, bias=False),
        out=nn.Linear(2, width, bias=False),
    )


PIECES: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda w: conv(w, w),
    "conv of 2": lambda w: nn.Sequential(nn.ZeroPad1d((1, 0)), conv(w, w, 2)),
    "depthwise": lambda w: conv(w, w, 1, groups=w),
    "grouped": lambda w: conv(w, w, 1, groups=2 if w % 2 == 0 else 1),
    "batch norm": nn.BatchNorm1d,
    "bare batch norm": lambda w: nn.BatchNorm1d(w, affine=False),
    "group norm": lambda w: nn.GroupNorm(2 if w % 2 == 0 else 1, w, affine=False),
    "instance norm": nn.InstanceNorm1d,
    "layer norm": lambda w: Wired(lambda net, x: net.norm(x.transpose(1, 2)).transpose(1, 2), norm=nn.LayerNorm(w)),
    "tanh": lambda w: nn.Tanh(),
    "silu": lambda w: nn.SiLU(),
    "slopes": nn.PReLU,
    "residual": lambda w: Wired(lambda net, x: x + net.conv(x).tanh(), conv=conv(w, w)),
    "gate": lambda w: Wired(lambda net, x: x * net.conv(x).sigmoid(), conv=conv(w, w)),
    "squeeze": lambda w: Wired(
        lambda net, x: x * net.up(x.mean(2)).sigmoid()[:, :, None], up=nn.Linear(w, w, bias=False)
    ),
    "softmax over channels": lambda w: nn.Softmax(1),
    "softmax over positions": lambda w: nn.Softmax(2),
    "less the mean": lambda w: Wired(lambda net, x: x - x.mean(1, keepdim=True)),
    "over the sum": lambda w: Wired(lambda net, x: x / (x.square().sum(1, keepdim=True) + 1)),
    "squared": lambda w: Wired(lambda net, x: x * x),
    "maximum": lambda w: Wired(lambda net, x: torch.maximum(x, net.conv(x)), conv=conv(w, w)),
    "beside itself": lambda w: Wired(
        lambda net, x: net.conv(torch.cat([x.sin(), x.tanh()], dim=1)), conv=conv(2 * w, w)
    ),
    "rolled": lambda w: Wired(lambda net, x: x + x.roll(1, 2).tanh()),
    "layer scale": lambda w: Learned(lambda net, x: x + net.factor[:, None] * x.sin(), {"factor": (w,)}),
    "places": lambda w: Learned(lambda net, x: (x + net.place).tanh(), {"place": (w, 3)}),
    "averaged": lambda w: nn.AvgPool1d(3, 1, 1),
    "attention": attention,
}


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(st.lists(st.sampled_from(sorted(PIECES)), min_size=2, max_size=3), st.sampled_from([3, 4]))
def test_compositions_have_the_symmetries_of_their_templates_and_no_others(names: list[str], width: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(2, width), *(PIECES[name](width) for name in names), conv(width, 2))
    example = torch.zeros(1, 2, 3)
    template = trace(module, example)
    report = check(module, template, example)
    network = module.double().eval()
    products = axis_products(template, MOST_PRODUCTS, still=report.inert)
    found = {row.tobytes() for row in products[preserving(network, template, (2, 3), products)]}
    elements = generated(template, MOST_ELEMENTS)
    if report.group_order <= MOST_ELEMENTS:
        assert found == elements & {row.tobytes() for row in products}
    moves = np.stack([np.frombuffer(element, dtype=np.int64) for element in list(elements)[:500]])
    assert preserving(network, template, (2, 3), moves).all()


def between(*layers: nn.Module, width: int = 4) -> nn.Module:
    return nn.Sequential(conv(1, width), *layers, conv(width, 1))


def counted(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How many products of axis permutations preserve the function, how many there are, and the group's order."""
    torch.manual_seed(0)
    template = trace(module, torch.zeros(1, *shape))
    products = axis_products(template, 400_000)
    kept = preserving(module.double().eval(), template, shape, products)
    return int(kept.sum()), len(products), symmetry_group(template).order


def test_eight_of_twenty_four_orders_of_four_channels_survive_a_norm_of_two_groups() -> None:
    assert counted(between(nn.GroupNorm(2, 4, affine=False), nn.Tanh()), (1, 3)) == (8, factorial(4) ** 2, 8)


def test_thirty_two_pairs_of_orders_survive_a_grouped_convolution() -> None:
    """Two orders within each group of inputs, two within each of outputs, and both groups exchanged: 2^4 * 2.

    Exchanging part of a group with part of another is none of them. An axis of the weight orders the inputs of both
    groups alike, so that half of them are products of axis permutations.
    """
    kept, _, order = counted(between(conv(4, 4, groups=2), nn.Tanh()), (1, 3))
    assert (kept, order) == (16, 32)


def test_pools_and_rectifiers_do_not_commute() -> None:
    digests = {
        trace(between(*layers), torch.zeros(1, 1, 4)).digest
        for layers in ((nn.AvgPool1d(2), nn.ReLU()), (nn.ReLU(), nn.AvgPool1d(2)))
    }
    assert len(digests) == 2


def relabelled(template: GraphTemplate, first: int, second: int) -> np.ndarray:
    """Two nodes exchanged."""
    order = np.arange(template.num_nodes)
    order[[first, second]] = second, first
    return order


def test_positions_of_a_flattened_batch_norm_are_not_exchanged() -> None:
    """Two channels at two positions become four normalised features, tied in pairs; one position of one channel cannot
    change places with another."""
    module = nn.Sequential(conv(1, 2, 2), nn.Flatten(), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    template = trace(module, torch.zeros(1, 1, 3))
    assert symmetry_group(template).order == 2
    [start] = [
        sum(nodes.count for nodes in template.node_sets[:number])
        for number, nodes in enumerate(template.node_sets)
        if nodes.count == 4
    ]
    with pytest.raises(ValueError, match="the relabelling maps"):
        permute_values(template, relabelled(template, start, start + 1))


def test_sub_channels_of_a_pixel_shuffle_are_not_exchanged() -> None:
    """Four channels become one map of four times the size: each has its own place in it."""
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2), nn.Tanh(), nn.Conv2d(1, 1, 2))
    template = trace(module, torch.zeros(1, 2, 2, 2))
    assert symmetry_group(template).order == 1
    with pytest.raises(ValueError, match="the relabelling maps"):
        permute_values(template, relabelled(template, 2, 3))


def test_features_of_two_heads_are_not_scrambled() -> None:
    """Within a head, queries with keys and values with outputs; whole heads; but no feature across heads."""
    module = nn.TransformerEncoderLayer(4, 2, 3, batch_first=True)
    template = trace(nn.Sequential(module, nn.Linear(4, 1)), torch.zeros(1, 3, 4))
    assert symmetry_group(template).describe() == "(S(2)^2) wr S(2) x S(3)"


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.GroupNorm(1, 3)])
def test_a_fresh_norm_with_wrongly_moved_factors_is_caught(norm: nn.Module) -> None:
    """Factors are 1 and summands 0 at the start: a graph that joined them to the wrong channels would look right."""
    module = nn.Sequential(conv(1, 3), norm, nn.Tanh(), conv(3, 1))
    example = torch.zeros(1, 1, 2)
    template = trace(module, example)
    check(module, template, example)
    for number, block in enumerate(template.blocks):
        if block.kind.name in ("NORM_WEIGHT", "NORM_BIAS"):
            moved = replace(block, target_offset=np.roll(block.target_offset, 1))
            blocks = (*template.blocks[:number], moved, *template.blocks[number + 1 :])
            with pytest.raises(ValueError, match="the function read from the graph differs from the module's"):
                check(module, replace(template, blocks=blocks), example)
