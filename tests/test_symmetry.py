"""`check` passes on right templates and raises on wrong ones, of tiny networks and of random larger ones."""

import copy
from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Int64
from torch import Tensor, nn

from pipeline.parameter_graph import Block, GraphTemplate, Operation, Step
from pipeline.symmetry import TOLERANCE, check, random_values, run
from pipeline.template_document import read_document, write_document
from pipeline.tracing import trace
from tiny_networks import TINY, Wired, traced

ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU]


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * (x - 0.25).sin()


@st.composite
def convolutions(draw: st.DrawFn, rank: int) -> tuple[list[nn.Module], tuple[int, ...]]:
    """One to three convolutions of ``rank`` axes with whatever may stand between them, and the shape of what they leave."""
    channels, extents = draw(st.integers(1, 3)), tuple(draw(st.sampled_from([5, 7, 9])) for _ in range(rank))
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    pools = ((nn.MaxPool1d, nn.AvgPool1d), (nn.MaxPool2d, nn.AvgPool2d), (nn.MaxPool3d, nn.AvgPool3d))[rank - 1]
    layers: list[nn.Module] = []
    shape = (channels, *extents)
    for _ in range(draw(st.integers(1, 3))):
        kernel = tuple(draw(st.integers(1, min(3, size))) for size in shape[1:])
        padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
        settings = {"stride": draw(st.integers(1, 2)), "bias": draw(st.booleans())}
        layers.append(conv(shape[0], draw(st.integers(2, 5)), kernel, padding=padding, **settings))
        between = [draw(st.sampled_from([*ACTIVATIONS, Sine]))()]
        if min(output_shape(layers, channels, extents)[1:]) >= 2 and draw(st.booleans()):
            between.append(draw(st.sampled_from(pools))(2, stride=draw(st.integers(1, 2))))
        layers += draw(st.permutations(between))
        shape = output_shape(layers, channels, extents)
    return layers, (channels, *extents)


def output_shape(layers: list[nn.Module], channels: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(nn.Sequential(*layers)(torch.zeros(1, channels, *extents)).shape[1:])


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A network of convolutions, a flatten or a global mean, and linear layers, perhaps in two branches; and its input."""
    rank = draw(st.integers(1, 3))
    layers, shape = draw(convolutions(rank))
    layers.append(
        draw(
            st.sampled_from(
                [nn.Identity(), (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1](1)]
            )
        )
    )
    layers.append(nn.Flatten())
    [features] = output_shape(layers, shape[0], shape[1:])
    width, hidden, classes = (draw(st.integers(1, 5)) for _ in range(3))
    layers += [nn.Linear(features, width), draw(st.sampled_from(ACTIVATIONS))()]
    if draw(st.booleans()):
        first, second = (draw(st.sampled_from(ACTIVATIONS))() for _ in range(2))
        layers.append(
            Wired(
                lambda net, x: torch.cat([net.second(net.b(x)), net.first(net.a(x))], dim=1),
                a=nn.Linear(width, hidden),
                b=nn.Linear(width, 2),
                first=first,
                second=second,
            )
        )
        width = hidden + 2
    layers.append(nn.Linear(width, classes))
    return nn.Sequential(*layers), torch.zeros(1, *shape)


@given(networks(), st.randoms(use_true_random=False))
def test_random_networks_have_the_symmetries_of_their_templates_and_no_others(
    network: tuple[nn.Module, Tensor], random
) -> None:
    """`check` tries automorphisms and forbidden moves of neurons; here each axis of each tensor is permuted on its own too."""
    module, example_input = network
    try:
        template = trace(module, example_input)
    except ValueError as error:
        assert "meet nothing but padding" in str(error)
        return
    assert read_document(write_document(template)).digest == template.digest
    report = check(module, template, example_input)
    assert report.num_automorphisms == 3
    double = copy.deepcopy(module).double().eval()
    rng = np.random.default_rng(random.randrange(2**32))
    inputs = torch.from_numpy(rng.standard_normal((32, *example_input.shape[1:])))
    values = random_values(template, rng)
    expected = run(double, template, values, inputs)
    for slot in template.tensors:
        for axis, size in enumerate(slot.shape):
            if size == 1 or slot.names[0] in report.inert:
                continue
            moved = np.arange(template.num_values)
            places = moved[slot.offset : slot.offset + slot.size].reshape(slot.shape)
            moved[slot.offset : slot.offset + slot.size] = np.roll(places, 1, axis=axis).reshape(-1)
            change = (run(double, template, values[moved], inputs) - expected).abs().max()
            assert change > TOLERANCE * expected.abs().max(), (slot.names, axis)


def with_block(template: GraphTemplate, number: int, **changes: Int64[np.ndarray, " n"]) -> GraphTemplate:
    """The template with another column in one of its blocks."""
    blocks = list(template.blocks)
    blocks[number] = replace(blocks[number], **changes)
    return replace(template, blocks=tuple(blocks))


def exchanged(column: Int64[np.ndarray, " n"], first: int, second: int) -> Int64[np.ndarray, " n"]:
    """A column with two entries exchanged."""
    column = column.copy()
    column[[first, second]] = column[[second, first]]
    return column


def block_of(name: str, number: int) -> tuple[GraphTemplate, Block]:
    template = traced(name)[1]
    return template, template.blocks[number]


def two_targets_exchanged() -> GraphTemplate:
    template, block = block_of("linear", 0)
    return with_block(template, 0, target_offset=exchanged(block.target_offset, 0, 1))


def two_positions_of_one_node_exchanged() -> GraphTemplate:
    template, block = block_of("flatten", 1)
    assert block.sources[0] == block.sources[1]
    return with_block(template, 1, source_site=exchanged(block.source_site, 0, 1))


def two_positions_of_all_nodes_exchanged() -> GraphTemplate:
    """No symmetry gives this away: the same wrong positions everywhere."""
    template, block = block_of("flatten", 1)
    site = exchanged(exchanged(block.source_site, 0, 1), 4, 5)
    return with_block(template, 1, source_site=site)


def positions_merged() -> GraphTemplate:
    template, block = block_of("flatten", 1)
    return with_block(template, 1, source_site=np.zeros_like(block.source_site))


def two_inputs_exchanged() -> GraphTemplate:
    template, block = block_of("linear", 0)
    return with_block(template, 0, source_offset=exchanged(block.source_offset, 0, 1))


def another_stride() -> GraphTemplate:
    return with_block(traced("conv1d, strided, dilated, padded")[1], 0, stride=(3,))


def another_kernel() -> GraphTemplate:
    return with_block(traced("conv1d, strided, dilated, padded")[1], 0, kernel_size=(1, 2))


def chains_in_another_order() -> GraphTemplate:
    template = traced("relu then mean")[1]
    chains = tuple(chain[::-1] for chain in template.chains)
    return replace(template, chains=chains)


def another_activation() -> GraphTemplate:
    return replace(traced("linear")[1], chains=((), (Step(operation=Operation.TANH),)))


def outputs_exchanged() -> GraphTemplate:
    template = traced("linear")[1]
    return replace(template, outputs=template.outputs[::-1].copy())


def activations_of_two_branches_exchanged() -> GraphTemplate:
    template = traced("two activations")[1]
    return replace(template, chains=(template.chains[0], template.chains[2], template.chains[1]))


WRONG = {
    two_targets_exchanged: "linear",
    two_positions_of_one_node_exchanged: "flatten",
    two_positions_of_all_nodes_exchanged: "flatten",
    two_inputs_exchanged: "linear",
    another_stride: "conv1d, strided, dilated, padded",
    chains_in_another_order: "relu then mean",
    another_activation: "linear",
    outputs_exchanged: "linear",
    activations_of_two_branches_exchanged: "two activations",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_template_computes_another_function(wrong: Callable[[], GraphTemplate]) -> None:
    name = WRONG[wrong]
    text = r": the function read from the graph differs from the module's by \S+ of its size; the template is wrong, please report"
    with pytest.raises(ValueError, match=type(traced(name)[0]).__name__ + text):
        check(traced(name)[0], wrong(), TINY[name].example_input)
