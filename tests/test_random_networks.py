"""Law B on random networks of every piece: permutations of values preserve the function exactly if they are
automorphisms of the template.

Four sorts of permutations are tried:

- *sampled* elements of the symmetry group;
- *rolls*: one axis of one tensor, which few networks survive;
- *coupled*: one permutation of all axes of a size, or of all but one, in all tensors at once. Widths are drawn, so that
  such axes are often just those of one layer of neurons: a symmetry that the template lacks would be found;
- *uncoupled*: a sampled element on all tensors but one.

What is left out, and why:

- Tensors that `check` reports as inert stay where they are: moving values without influence (the bias of attention
  keys, one before an instance norm) preserves the function and is no symmetry. A permutation that becomes an
  automorphism when these tensors move too is tried so.
- Values of different tensors are exchanged only by sampled elements: parallel layers, and sums that others read too,
  have more symmetries than automorphisms (docs/operations.md). Networks in which permuting the axes of single
  tensors would do that too are not drawn (`random_pieces`).
- Products of different permutations of several axes, but for sampled ones: the exhaustive tests of tiny networks.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Int64, UInt64
from torch import Tensor, nn

from pipeline.automorphisms import edge_labels, permute_values
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry import TOLERANCE, check, random_inputs, random_values
from pipeline.symmetry_group import symmetry_group
from pipeline.template_document import read_document, write_document
from pipeline.tracing import trace
from random_networks import INPUTS, networks

NUM_DRAWS = 24
"""Of values: a rectified neuron may be off for all inputs in many of them."""
NUM_SURE = 3
"""Draws in which an automorphism must preserve the function."""

Moves = Int64[np.ndarray, " num_values"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Function:
    """What a network in float64 computes for several draws of values."""

    network: nn.Module
    template: GraphTemplate
    inputs: Tensor
    draws: list[Tensor]

    @cached_property
    def outputs(self) -> list[Tensor]:
        return [self.of(values) for values in self.draws]

    def of(self, values: Tensor) -> Tensor:
        tensors = {
            name: values[slot.place].reshape(slot.shape) for slot in self.template.tensors for name in slot.names
        }
        with torch.no_grad():
            return torch.func.functional_call(self.network, tensors, (self.inputs,))

    def changes(self, moves: Moves, draw: int) -> bool:
        change = (self.of(self.draws[draw][moves]) - self.outputs[draw]).abs().max()
        return bool(change > TOLERANCE * self.outputs[draw].abs().max())


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch.export, about how nn.LSTM keeps its weights
@pytest.mark.parametrize("kind", INPUTS)
@settings(max_examples=settings().max_examples // 6)  # each is traced, which takes a while
@given(st.data(), st.integers(0, 2**32 - 1))
def test_random_networks_have_the_symmetries_of_their_templates_and_no_others(
    kind: str, data: st.DataObject, seed: int
) -> None:
    module, example = data.draw(networks(kind))
    template = trace(module, example)
    assert read_document(write_document(template)).digest == template.digest
    report = check(module, template, example)
    rng = np.random.default_rng(seed)
    function = Function(
        network=copy.deepcopy(module).double().eval(),
        template=template,
        inputs=random_inputs(template, example, rng),
        draws=[random_values(template, rng) for _ in range(NUM_DRAWS)],
    )
    group = symmetry_group(template)
    sampled = [permute_values(template, group.sample(rng)) for _ in range(NUM_SURE)]
    for draw, moves in enumerate(sampled):
        assert automorphism(template, moves, still=()) is not None
        assert not function.changes(moves, draw)
    inert = report.inert
    tried = [*rolls(template, inert), *coupled(template, inert, rng), *uncoupled(template, inert, sampled[0])]
    for what, moves in tried:
        allowed = automorphism(template, moves, inert)
        if allowed is None:
            assert any(function.changes(moves, draw) for draw in range(NUM_DRAWS)), what
        else:
            assert not any(function.changes(allowed, draw) for draw in range(NUM_SURE)), what


def rolls(template: GraphTemplate, inert: tuple[str, ...]) -> Iterator[tuple[object, Moves]]:
    """Each axis of each tensor, moved on by one."""
    for place, axis, size in axes(template, inert):
        yield (template.tensors[place].names, axis), moved(template, {(place, axis)}, np.roll(np.arange(size), 1))


def coupled(
    template: GraphTemplate, inert: tuple[str, ...], rng: np.random.Generator
) -> Iterator[tuple[object, Moves]]:
    """All axes of a size permuted alike, and all but one."""
    listed = axes(template, inert)
    for size in sorted({size for _, _, size in listed}):
        alike = {(place, axis) for place, axis, extent in listed if extent == size}
        order = rng.permutation(size)
        for left_out in [set(), *({one} for one in sorted(alike) if len(alike) > 1)]:
            yield (size, order.tolist(), left_out), moved(template, alike - left_out, order)


def uncoupled(template: GraphTemplate, inert: tuple[str, ...], moves: Moves) -> Iterator[tuple[object, Moves]]:
    """A permutation without what it does to one tensor."""
    for slot in template.tensors:
        within = np.isin(moves[slot.place], np.arange(template.num_values)[slot.place]).all()
        if within and slot.names[0] not in inert:
            others = moves.copy()
            others[slot.place] = np.arange(template.num_values)[slot.place]
            yield slot.names, others


def axes(template: GraphTemplate, inert: tuple[str, ...]) -> list[tuple[int, int, int]]:
    """Tensor, axis and size of every axis that can be permuted."""
    return [
        (place, axis, size)
        for place, slot in enumerate(template.tensors)
        if slot.names[0] not in inert
        for axis, size in enumerate(slot.shape)
        if size > 1
    ]


def moved(template: GraphTemplate, chosen: set[tuple[int, int]], order: Int64[np.ndarray, " size"]) -> Moves:
    """Some axes of some tensors permuted alike."""
    result = np.arange(template.num_values)
    for place, slot in enumerate(template.tensors):
        numbers = result[slot.place].reshape(slot.shape)
        for axis in range(numbers.ndim):
            if (place, axis) in chosen:
                numbers = numbers.take(order, axis)
        result[slot.place] = numbers.reshape(-1)
    return result


def automorphism(template: GraphTemplate, moves: Moves, still: tuple[str, ...]) -> Moves | None:
    """The automorphism that does this to the values of all tensors but those named in ``still``, or none.

    Every value is a colour of its own, so that colours of nodes, refined by the edges that join them, say which node
    goes where; they are refined in the graph and in the graph with permuted values at once.
    """
    acts = np.ones(template.num_values, dtype=bool)
    for slot in template.tensors:
        acts[slot.place] = slot.names[0] not in still
    before = refined(template, np.where(acts, np.arange(template.num_values), -1))
    after = refined(template, np.where(acts, moves, -1))
    order_before, order_after = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
    if (before[order_before] != after[order_after]).any():
        return None
    relabelling = np.empty(template.num_nodes, dtype=np.int64)
    relabelling[order_before] = order_after
    found = permute_values(template, relabelling)
    assert (found[acts] == moves[acts]).all(), "nodes that no value tells apart were matched wrongly"
    return found


def refined(template: GraphTemplate, colours: Moves) -> UInt64[np.ndarray, " num_nodes"]:
    """A colour per node: what it is, and all edges and nodes that reach it or that it reaches, as a hash."""
    edges = template.edges
    source, target = edges.edge_index
    value = np.append(colours, -1)[edges.value_index]  # -1 for edges without a value
    joined = mixed(mixed(edge_labels(template).astype(np.uint64)) + value.astype(np.uint64))
    colour = np.zeros(template.num_nodes, dtype=np.uint64)
    for of_node in (template.node_kind, template.node_rank, template.node_chain):
        colour = mixed(colour + of_node.astype(np.int64).astype(np.uint64))
    count = 0
    while count < (count := len(np.unique(colour))):
        sums = colour.copy()
        np.add.at(sums, target, mixed(joined + mixed(colour[source])))
        np.add.at(sums, source, mixed(joined - mixed(colour[target])))
        colour = mixed(sums)
    return colour


def mixed(numbers: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Numbers scattered over 64 bits (splitmix64)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
