"""A template's text: exact round trips, and what stands in it."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hand_built import HAND_BUILT, masked_attention
from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.parameter_graph import GraphTemplate
from pipeline.template_document import (
    read_constants,
    read_document,
    read_runs,
    write_constants,
    write_document,
    write_runs,
)
from pipeline.tracing import trace
from template_texts import base
from tiny_networks import TINY, traced


def check_round_trip(template: GraphTemplate) -> None:
    text = write_document(template)
    again = read_document(text)
    assert write_document(again) == text
    assert again.digest == template.digest == hashlib.sha256(text.encode()).hexdigest()
    for left, right in zip(again.blocks, template.blocks, strict=True):
        assert (left.geometry, left.num_groups, left.tap_stride) == (right.geometry, right.num_groups, right.tap_stride)
        for row in ROWS:
            assert np.array_equal(getattr(left, row), getattr(right, row)), row
    for field in ("node_sets", "chains", "grids", "regions", "tensors", "integers"):
        assert getattr(again, field) == getattr(template, field), field
    assert np.array_equal(again.node_chain, template.node_chain)


ROWS = (
    *("targets", "target_offset", "sources", "source_offset"),
    *("source_site", "source_chain", "target_site", "constant", "value_index"),
)


@pytest.mark.parametrize("name", TINY)
def test_reading_undoes_writing(name: str) -> None:
    check_round_trip(traced(name)[1])


@pytest.mark.parametrize("name", HAND_BUILT)
def test_reading_undoes_writing_of_all_that_a_template_may_hold(name: str) -> None:
    check_round_trip(HAND_BUILT[name]())


def test_what_says_nothing_is_left_out() -> None:
    """So that templates of plain networks keep the texts, and the digests, they have always had."""
    block_keys = {"kind", "num_groups", "tap_stride", "targets", "target_offset", "sources", "source_offset"}
    block_keys |= {"source_site", "source_chain", "kernel_size", "stride", "padding", "dilation", "map_size"}
    keys = {"node_sets", "blocks", "chains", "grids", "tensors", "integers", "outputs", "output_chain"}
    document = base()
    assert document.keys() == keys
    assert all(block.keys() == block_keys for block in document["blocks"])
    assert all(len(nodes) == 3 for nodes in document["node_sets"])
    rich = json.loads(write_document(masked_attention()))
    assert rich.keys() == keys | {"regions"}
    more = [block.keys() - block_keys for block in rich["blocks"]]
    assert {frozenset(names) for names in more} == {
        frozenset(),
        frozenset({"target_site"}),
        frozenset({"constant"}),
        frozenset({"target_site", "constant"}),
        frozenset({"output_padding"}),
    }


def test_the_hand_built_templates_hold_every_kind() -> None:
    """But inputs that are outputs, and biases of layers, which traced ones hold."""
    templates = [make() for make in HAND_BUILT.values()]
    edges = {block.kind for template in templates for block in template.blocks}
    nodes = {nodes.kind for template in templates for nodes in template.node_sets}
    assert set(EdgeKind) - edges == {EdgeKind.LINEAR_BIAS, EdgeKind.CONV_BIAS, EdgeKind.CONV_WEIGHT, EdgeKind.SCALE}
    assert set(NodeKind) - nodes == {NodeKind.OUTPUT, NodeKind.MAXIMUM}


def test_a_text_is_short_whatever_the_size_of_the_network() -> None:
    """One run says it all where numbers rise evenly."""
    sizes = [len(write_document(traced(name)[1])) for name in TINY]
    assert max(sizes) < 4000


def test_runs_by_hand() -> None:
    numbers = np.array([3, 3, 5, 5, 7, 7, 7, 0, -4, -8, 9])
    runs = [[3, 2, 2, 2], [7, 1, 1, 3], [0, 3, -4, 1], [9, 1, 1, 1]]
    assert write_runs(numbers) == runs
    assert read_runs(runs).tolist() == numbers.tolist()
    assert read_runs([]).tolist() == []


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 5), st.integers(-3, 3), st.integers(1, 4)), max_size=6)
    | st.lists(st.integers(-9, 9).map(lambda number: (number, 1, 1, 1)), max_size=20)
)
def test_reading_runs_undoes_writing_them(pieces: list[tuple[int, int, int, int]]) -> None:
    numbers = read_runs([list(piece) for piece in pieces])
    runs = write_runs(numbers)
    assert np.array_equal(read_runs(runs), numbers)
    assert write_runs(read_runs(runs)) == runs
    assert len(runs) <= len(numbers)


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([[0, 3, 1]], r"a run is \[0, 3, 1\]; expected \[start, count, step, repeat\], four integers below 2147483648"),
        ([[0, 3, 1, 1.0]], r"a run is \[0, 3, 1, 1.0\]; expected"),
        ([[0, True, 1, 1]], r"a run is \[0, True, 1, 1\]; expected"),
        ([[2**31, 1, 1, 1]], r"a run is \[2147483648, 1, 1, 1\]; expected"),
        (["abcd"], "a run is 'abcd'; expected"),
        ([[0, 0, 1, 1]], r"a run is \[0, 0, 1, 1\]; count and repeat must be positive"),
        ([[0, 1, 1, -1]], r"a run is \[0, 1, 1, -1\]; count and repeat must be positive"),
        ([[0, 2**30, 0, 2**30]], "runs describe 1152921504606846976 numbers; at most 4194304 fit here"),
        ([[0, 2**20, 0, 1]] * 5, "runs describe 5242880 numbers; at most 4194304 fit here"),
    ],
)
def test_runs_that_are_none_are_refused(runs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_runs(runs)


def test_runs_of_constants_by_hand() -> None:
    numbers = np.array([1.0, 1.0, -np.inf, 0.25, -0.0, 0.0])
    runs = [[1.0, 2], ["-inf", 1], [0.25, 1], [0.0, 2]]
    assert write_constants(numbers) == runs
    assert json.dumps(runs[3]) == json.dumps(write_constants(numbers)[3])
    assert read_constants(runs).tolist() == numbers.tolist()
    assert read_constants([]).tolist() == []


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.integers(1, 4)), max_size=8))
def test_reading_runs_of_constants_undoes_writing_them(pieces: list[tuple[float, int]]) -> None:
    numbers = np.array([number for number, count in pieces for _ in range(count)], dtype=np.float64)
    runs = write_constants(numbers)
    assert np.array_equal(read_constants(json.loads(json.dumps(runs))), numbers)
    assert write_constants(read_constants(runs)) == runs


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([[1.0]], r"a run is \[1.0\]; expected \[number, count\], the count from 1 to 2147483648"),
        ([[1.0, 0]], r"a run is \[1.0, 0\]; expected"),
        ([[1.0, True]], r"a run is \[1.0, True\]; expected"),
        ([[1.0, 2**31]], r"a run is \[1.0, 2147483648\]; expected"),
        ([[1, 1]], "found 1 where a number with a decimal point belongs"),
        ([["nan", 1]], "found 'nan' where a number with a decimal point belongs"),
        (["ab"], "a run is 'ab'; expected"),
        ([[1.0, 2**30]] * 2, "runs describe 2147483648 numbers; at most 4194304 fit here"),
    ],
)
def test_runs_of_constants_that_are_none_are_refused(runs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_constants(runs)


def test_the_axes_of_channels_are_written_where_they_are_not_the_first() -> None:
    """A layer on tokens takes and gives its channels on the last axis."""
    template = trace(nn.Linear(3, 2), torch.zeros(1, 5, 3))
    assert (template.input_axes, template.output_axes) == ((2,), (2,))
    text = write_document(template)
    assert json.loads(text)["input_axes"] == json.loads(text)["output_axes"] == [2]
    again = read_document(text)
    assert (again.input_axes, again.output_axes, again.digest) == ((2,), (2,), template.digest)
    for wrong in ("[0]", "[2,2]", "[3,2]", "[99]"):
        with pytest.raises(ValueError, match="expected axes after that of the batch, ascending, each once"):
            read_document(text.replace('"input_axes":[2]', f'"input_axes":{wrong}'))
