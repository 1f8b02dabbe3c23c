"""`check` passes on right templates and raises on wrong ones, of tiny networks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Int64
from torch import nn
from torch.nn import functional

from pipeline.graph_kinds import Operation, Step
from pipeline.parameter_graph import Block, GraphTemplate
from pipeline.symmetry import TOLERANCE, _check_automorphisms, _make_trial, check
from pipeline.symmetry_group import symmetry_group
from pipeline.tracing import trace
from tiny_networks import TINY, Wired, traced


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


WRONG: dict[Callable[[], GraphTemplate], str] = {
    two_targets_exchanged: "linear",
    two_positions_of_one_node_exchanged: "flatten",
    two_positions_of_all_nodes_exchanged: "flatten",
    two_inputs_exchanged: "linear",
    chains_in_another_order: "relu then mean",
    another_activation: "linear",
    outputs_exchanged: "linear",
    activations_of_two_branches_exchanged: "two activations",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_template_computes_another_function(wrong: Callable[[], GraphTemplate]) -> None:
    text = (
        r"the function read from the graph differs from the module's by \S+ of its size; the template is wrong, please"
    )
    with pytest.raises(ValueError, match=r"(Sequential|Wired): " + text):
        check(traced(WRONG[wrong])[0], wrong(), TINY[WRONG[wrong]].example_input)


@pytest.mark.parametrize("wrong", [two_targets_exchanged, two_positions_of_one_node_exchanged])
def test_automorphisms_alone_give_a_wrong_template_away(wrong: Callable[[], GraphTemplate]) -> None:
    rng = np.random.default_rng(0)
    trial = _make_trial(traced(WRONG[wrong])[0], wrong(), TINY[WRONG[wrong]].example_input, 5, rng)
    with pytest.raises(ValueError, match=r"an automorphism of the template changes the outputs by \S+ of their size"):
        _check_automorphisms(trial, symmetry_group(trial.template), rng)


@pytest.mark.parametrize("changes", [{"stride": (3,)}, {"kernel_size": (1, 2)}, {"map_size": (2,)}])
def test_a_template_with_another_geometry_is_refused(changes: dict[str, tuple[int, ...]]) -> None:
    name = "conv1d, strided, dilated, padded"
    template = traced(name)[1]
    wrong = replace(template, blocks=(replace(template.blocks[0], **changes), *template.blocks[1:]))
    with pytest.raises(ValueError, match="Sequential: no function can be read from the template: "):
        check(traced(name)[0], wrong, TINY[name].example_input)


def test_positions_that_are_not_told_apart_are_refused() -> None:
    """One output reads two channels at four positions each; three of four have the ends and the label of the first."""
    text = "Wired: 6 edges have the ends and the label of another; the template cannot tell their"
    with pytest.raises(ValueError, match=text):
        check(traced("flatten")[0], positions_merged(), TINY["flatten"].example_input)


def test_the_template_of_another_module_is_refused() -> None:
    text = "Sequential: 4.weight: the template has no such tensor; if the architecture changed, trace it again"
    with pytest.raises(ValueError, match=text):
        check(traced("deep linear")[0], traced("linear")[1], TINY["linear"].example_input)


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Sequential: it fails on inputs of shape \(16, 5\): mat1 and mat2"):
        check(*traced("linear"), torch.zeros(1, 5))


def test_neurons_that_do_not_matter_are_reported() -> None:
    """relu(sigmoid(.) - 2) is 0, whatever comes in: the two hidden neurons cannot matter."""
    module = Wired(
        lambda net, x: torch.cat([net.b(x), (net.dead(net.hidden(x)).sigmoid() - 2).relu()], dim=1),
        hidden=nn.Linear(2, 2),
        dead=nn.Linear(2, 1),
        b=nn.Linear(2, 1),
    )
    report = check(module, trace(module, torch.zeros(1, 2)), torch.zeros(1, 2))
    assert report.inert == ("hidden.weight", "hidden.bias", "dead.weight", "dead.bias")


def test_values_are_drawn_until_each_has_acted() -> None:
    """Behind six rectified neurons in a row, whatever is drawn is off for all inputs more often than not."""
    layers = [layer for _ in range(6) for layer in (nn.Linear(1, 1), nn.ReLU())]
    module = nn.Sequential(*layers, nn.Linear(1, 2))
    report = check(module, trace(module, torch.zeros(1, 1)), torch.zeros(1, 1))
    assert report.num_automorphisms > 3
    assert report.inert == ()


def test_outputs_that_are_always_zero_are_refused() -> None:
    module = Wired(lambda net, x: (net.layer(x).sigmoid() - 2).relu(), layer=nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match="Wired: its outputs for random values reach 0.0, so that nothing can be compared"
    ):
        check(module, trace(module, torch.zeros(1, 2)), torch.zeros(1, 2))


def test_values_that_do_not_act_are_reported() -> None:
    """Only the upper left position of the padded convolution is read, where the upper and left taps meet padding."""
    module = Wired(
        lambda net, x: net.head(net.conv(x)[:, :, 0, 0]), conv=nn.Conv2d(1, 3, 3, padding=1), head=nn.Linear(3, 2)
    )
    example_input = torch.zeros(1, 1, 5, 5)
    assert check(module, trace(module, example_input), example_input).inert == ("conv.weight",)


@pytest.mark.parametrize("name", ["linear", "flatten", "one hidden layer used twice", "hidden neurons returned"])
def test_a_report_says_what_was_tried(name: str) -> None:
    """Inputs and outputs are exchanged where there are two, and each set of neurons is moved on one side."""
    expected = {"linear": 3, "flatten": 1, "one hidden layer used twice": 3, "hidden neurons returned": 1}
    report = check(*traced(name), TINY[name].example_input, num_samples=5)
    assert (report.num_values, report.num_automorphisms) == (traced(name)[1].num_values, 5)
    assert report.num_forbidden == expected[name]
    assert 0 <= max(report.graph_difference, report.largest_difference) < TOLERANCE


def test_a_diverged_network_can_be_checked() -> None:
    module = TINY["linear"].build()
    next(module.parameters()).data.fill_(float("nan"))
    assert check(module, traced("linear")[1], TINY["linear"].example_input).inert == ()


def test_masks_and_constants_of_float32_are_no_fault_of_a_template() -> None:
    """Torch 2.13 computes attention of float64 queries with a float32 mask wrong from 16 tokens on, and rounds
    ``linspace`` otherwise when it is decomposed."""
    mask = torch.zeros(16, 16).masked_fill(torch.ones(16, 16).tril() == 0, -torch.inf)
    attention = Wired(
        lambda net, x: net.layer(x, x, x, attn_mask=mask, need_weights=False)[0],
        layer=nn.MultiheadAttention(2, 1, bias=False, batch_first=True),
    )
    places = Wired(lambda net, x: functional.mish(net.layer(x + torch.linspace(-1, 1, 28))), layer=nn.Linear(28, 3))
    for module, shape in ((attention, (1, 16, 2)), (places, (1, 28))):
        check(module, trace(module, torch.zeros(shape)), torch.zeros(shape))


def test_signals_pass_many_rectified_layers_in_every_second_draw() -> None:
    """In 80 layers, weights of variance 1 / inputs leave 2^-40 of what comes in beside the biases."""
    layers = [layer for _ in range(80) for layer in (nn.Linear(8, 8), nn.ReLU())]
    module, example = nn.Sequential(*layers, nn.Linear(8, 2)), torch.zeros(1, 8)
    template = trace(module, example)
    trial = _make_trial(module, template, example, 4, np.random.default_rng(0))
    inputs = template.tensors[0]
    moved = np.arange(template.num_values)
    moved[inputs.place] = np.roll(moved[inputs.place].reshape(inputs.shape), 1, axis=1).reshape(-1)
    changes = [trial.change(draw, moved) for draw in range(4)]
    assert max(changes[0::2]) < TOLERANCE < max(changes[1::2])
