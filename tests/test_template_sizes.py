"""Width and depth of networks that can be counted by hand."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.architectures import Architecture
from pipeline.graph_kinds import EdgeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_sizes import depth, width
from pipeline.tracing import trace
from tiny_networks import Wired, traced


class TinyTransformer(nn.Module):
    """Patches of 2x2 of a 4x4 image, one block of attention with one head, the mean over the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 3, 2, stride=2)
        self.position = nn.Parameter(torch.zeros(1, 4, 3))
        self.norm = nn.LayerNorm(3)
        self.query_key_value = nn.Linear(3, 9)
        self.joint = nn.Linear(3, 3)
        self.up = nn.Linear(3, 7)
        self.down = nn.Linear(7, 3)
        self.head = nn.Linear(3, 13)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        query, key, value = self.query_key_value(self.norm(x)).chunk(3, dim=2)
        x = x + self.joint(nn.functional.scaled_dot_product_attention(query, key, value))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return self.head(x.mean(dim=1))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))


def residual() -> nn.Module:
    """Both ways from the stem lead to the sum; the longer one has two layers."""
    return Wired(
        lambda net, x: (lambda h: net.head(h + net.two(net.one(h).relu())))(net.stem(x)),
        stem=nn.Linear(2, 3),
        one=nn.Linear(3, 5),
        two=nn.Linear(5, 3),
        head=nn.Linear(3, 2),
    )


def long_and_short_branch() -> nn.Module:
    """Three layers beside one, joined before the head."""
    return Wired(
        lambda net, x: net.head(torch.cat([net.c(net.b(net.a(x).relu()).relu()).relu(), net.short(x).relu()], dim=1)),
        a=nn.Linear(2, 3),
        b=nn.Linear(3, 5),
        c=nn.Linear(5, 2),
        short=nn.Linear(2, 7),
        head=nn.Linear(9, 1),
    )


def grouped() -> nn.Module:
    """Two groups, then one group a channel."""
    return nn.Sequential(
        nn.Conv2d(4, 6, 2, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 6, 1, groups=6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


COUNTED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int]] = {
    "perceptron": (perceptron, (3,), 7, 3),
    "residual block": (residual, (2,), 5, 4),
    "a long branch and a short one": (long_and_short_branch, (2,), 7, 4),
    "widest at its output": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 11)), (3,), 5, 2),
    "widest at its input": (lambda: nn.Sequential(nn.Linear(11, 3), nn.Tanh(), nn.Linear(3, 2)), (11,), 3, 2),
    "no hidden layer": (lambda: nn.Linear(3, 5), (3,), 0, 1),
    "no hidden layer, then an activation": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (3,), 0, 1),
    "groups": (grouped, (4, 3, 3), 6, 3),
    "batch norm, which is no layer": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 7)).eval(),
        (2,),
        3,
        2,
    ),
    "a map, transposed and returned": (
        lambda: nn.Sequential(
            nn.Conv1d(1, 2, 2), nn.ReLU(), nn.ConvTranspose1d(2, 3, 2), nn.ReLU(), nn.Conv1d(3, 5, 1)
        ),
        (1, 5),
        3,
        3,
    ),
    # The patches, queries keys and values as one layer of 9, the joint, up, down and the head.
    "transformer": (TinyTransformer, (1, 4, 4), 9, 6),
}


@pytest.mark.parametrize("name", COUNTED)
def test_width_and_depth_are_those_counted_by_hand(name: str) -> None:
    build, shape, expected_width, expected_depth = COUNTED[name]
    template = trace(build().eval(), torch.zeros(1, *shape))
    assert (width(template), depth(template)) == (expected_width, expected_depth)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", (3, 2)),
        ("deep linear", (3, 3)),
        ("conv relu conv pool flatten linear", (2, 3)),
        ("one layer used twice", (3, 2)),  # its second use is the output
        ("one hidden layer used twice", (3, 4)),
        ("one layer on two halves", (2, 2)),  # two layers of two, side by side
        ("twin branches", (2, 2)),
        ("input beside features", (2, 2)),
        ("some hidden neurons returned", (2, 2)),  # of three, one is an output
        ("hidden neurons returned", (0, 2)),  # all three are, and something reads them
        ("chunks, reversed", (4, 2)),
        ("tokens", (2, 2)),
        ("conv3d", (2, 2)),
    ],
)
def test_width_and_depth_of_tiny_networks(name: str, expected: tuple[int, int]) -> None:
    template = traced(name)[1]
    assert (width(template), depth(template)) == expected


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_small_cnn_is_sixteen_wide_and_four_deep(activation: str) -> None:
    """Three convolutions to 16 channels, and the head to ten classes."""
    arguments = {"activation": activation, "input_shape": [1, 15, 15], "num_classes": 10}
    architecture = Architecture(family="small_cnn", arguments=arguments)
    template = trace(architecture.build(), architecture.example_input())
    assert (width(template), depth(template)) == (16, 4)


@given(widths=st.lists(st.integers(1, 13), min_size=2, max_size=5))
def test_a_perceptron_is_as_wide_as_its_widest_inner_layer_and_as_deep_as_it_has_layers(widths: list[int]) -> None:
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    template = trace(
        nn.Sequential(*(module for layer in layers for module in (layer, nn.Tanh()))), torch.zeros(1, widths[0])
    )
    assert width(template) == max(widths[1:-1], default=0)
    assert depth(template) == len(layers)


def depth_edge_by_edge(template: GraphTemplate) -> int:
    """Slow reference: the longest way over single edges, by repeating until nothing gets longer."""
    layers = {EdgeKind.LINEAR_WEIGHT, EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT}
    edges = []
    for block in template.blocks:
        sources, targets = block.sources.reshape(block.num_groups, -1), block.targets.reshape(block.num_groups, -1)
        for group in range(block.num_groups):
            edges += [(s, t, block.kind in layers) for s in sources[group].tolist() for t in targets[group].tolist()]
    longest = np.zeros(template.num_nodes, dtype=int)
    while True:
        before = longest.copy()
        for source, target, is_layer in edges:
            longest[target] = max(longest[target], longest[source] + is_layer)
        if np.array_equal(before, longest):
            return int(max(longest[template.outputs]))


@pytest.mark.parametrize("name", ["input beside features", "one layer on two halves", "chunks, reversed", "squeezed"])
def test_depth_is_the_longest_way_over_single_edges(name: str) -> None:
    template = traced(name)[1]
    assert depth(template) == depth_edge_by_edge(template)
    assert depth(trace(residual(), torch.zeros(1, 2))) == depth_edge_by_edge(trace(residual(), torch.zeros(1, 2))) == 4
