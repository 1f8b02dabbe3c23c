"""Both encodings carry the same values on the same edges."""

import numpy as np
import pytest
import torch

from hand_built import HAND_BUILT, WIDTH, embedded_words, masked_attention, residual_layer_norm, selected
from networks import FACTORIES, template_of
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import GraphTemplate, coordinates, relative_coordinates
from pipeline.template_rules import SETTINGS
from training.graph_layout import (
    NUM_EDGE_KINDS,
    NUM_NODE_KINDS,
    NUM_OPERATIONS,
    STEP_SETTINGS,
    Encoding,
    GraphLayout,
    constant_features,
    fan_in,
    layout_of,
    step_features,
)

CPU = torch.device("cpu")
TEMPLATES = [*FACTORIES, *HAND_BUILT]


def template_named(name: str) -> GraphTemplate:
    return HAND_BUILT[name]() if name in HAND_BUILT else template_of(name)


def layout(template: GraphTemplate, encoding: Encoding) -> GraphLayout:
    return layout_of(template, encoding, CPU, torch.float32)


def entries(layout: GraphLayout) -> list[tuple[float, ...]]:
    """Every slot of a layout as (kind, value index, source, target, chain, constant, where it acts), sorted."""
    found = []
    for block in layout.blocks:
        G, O, I, S = block.value_index.shape
        slots = block.slot_features.expand(G, I, -1, -1)
        for g, o, i, s in np.ndindex(G, O, I, S):
            constant = () if block.constant_features is None else tuple(block.constant_features[g, i, s].tolist())
            ends = int(block.sources[g, i]), int(block.targets[g, o]), int(block.source_chain[g, i])
            found.append(
                (int(block.kind), int(block.value_index[g, o, i, s]), *ends, *constant, *slots[g, i, s].tolist())
            )
    return sorted(found)


def edges_of(template: GraphTemplate) -> list[tuple[float, ...]]:
    """The same of the template's own edges."""
    found = []
    for block in template.blocks:
        G, O, I, T = block.value_index.shape
        taps = relative_coordinates(block.kernel_size)
        for g, o, i, t in np.ndindex(G, O, I, T):
            source, target = g * I + i, g * O + o
            constant = () if block.kind.carries_value else constant_features(block.constant[[source]])[0]
            ends = int(block.sources[source]), int(block.targets[target]), int(block.source_chain[source])
            sites = [template.site_features[site[source]] for site in (block.source_site, block.target_site)]
            numbers = np.concatenate([constant, taps[t], *sites]).astype(np.float32).tolist()
            found.append((int(block.kind), int(block.value_index[g, o, i, t]), *ends, *numbers))
    return sorted(found)


@pytest.mark.parametrize("name", TEMPLATES)
def test_both_encodings_carry_what_the_edges_of_the_template_carry(name: str) -> None:
    template = template_named(name)
    assert entries(layout(template, "taps")) == entries(layout(template, "bundles")) == edges_of(template)


def test_parallel_edges_are_bundled_within_groups_that_read_different_positions() -> None:
    """Two groups with two positions of one channel each; then channels 0 and 1 at two, and neurons 2 and 3 at one."""
    taps, bundles = (layout(selected(), encoding).blocks for encoding in ("taps", "bundles"))
    assert [tuple(block.value_index.shape) for block in taps] == [(2, 1, 2, 1), (1, 1, 6, 1)]
    assert [tuple(block.value_index.shape) for block in bundles] == [(2, 1, 1, 2), (1, 1, 6, 1)]
    assert [tuple(block.slot_features.shape[:3]) for block in bundles] == [(2, 1, 2), (1, 6, 1)]
    assert bundles[0].slot_features[:, 0, :, 3:6].tolist() == [[[0, -1, -1], [0, -1, 1]], [[0, -1, 0], [0, 1, 1]]]


def test_edges_without_a_value_have_a_constant_and_no_other_edge_has_one() -> None:
    template = masked_attention()
    for block, laid_out in zip(template.blocks, layout(template, "bundles").blocks, strict=True):
        assert (laid_out.constant_features is None) == block.kind.carries_value
        assert (laid_out.value_index < 0).all() == (not block.kind.carries_value)


def test_constants_are_finite_and_a_mask_is_unlike_any_number() -> None:
    """asinh(1) = 0.881, tanh(1) = 0.762; no number has asinh 0 and tanh -1."""
    features = constant_features(np.array([1.0, -np.inf, 0.0, -1e300]))
    assert np.isfinite(features).all()
    assert features[:3].round(3).tolist() == [[0.881, 0.762], [0.0, -1.0], [0.0, 0.0]]
    assert features[3, 0] < -600


def test_fan_in_counts_what_is_summed_at_one_position() -> None:
    """A residual sum of one each, a norm, then a table of three positions, a vocabulary of five, a kernel of two taps
    on two channels."""
    residual, attention, words = residual_layer_norm(), masked_attention(), embedded_words()
    assert [fan_in(block) for block in residual.blocks] == [3, WIDTH, 1, 1, WIDTH, 1, 1, 1, WIDTH]
    of_kind = {block.kind: fan_in(block) for template in (attention, words) for block in template.blocks}
    assert of_kind[EdgeKind.OFFSET] == 1
    assert of_kind[EdgeKind.EMBEDDING] == 1
    assert of_kind[EdgeKind.TRANSPOSED_CONV_WEIGHT] == 4


def test_statistics_and_outputs_have_their_chains() -> None:
    attention = layout(masked_attention(), "bundles")
    assert attention.set_chain.nonzero().tolist() == [[18], [24]]
    assert attention.set_chain[[18, 24]].tolist() == [1, 2]
    assert attention.output_chain.nonzero().tolist() == [[25]]
    assert attention.output_chain[25] == 4


def test_taps_are_one_value_an_edge_and_bundles_join_parallel_edges() -> None:
    """A 3x3 kernel is one bundle of nine slots; 2x2 positions of three channels are three bundles of four slots."""
    taps, bundles = (layout(template_of("flattening"), encoding) for encoding in ("taps", "bundles"))
    assert all(block.value_index.shape[-1] == 1 for block in taps.blocks)
    convolution, linear = bundles.blocks[0], bundles.blocks[2]
    assert tuple(convolution.value_index.shape) == (1, 3, 2, 9)
    assert tuple(linear.value_index.shape) == (1, 5, 3, 4)


def test_slots_of_a_kernel_are_placed_from_minus_one_to_one() -> None:
    [[slots]] = layout(template_of("flattening"), "bundles").blocks[0].slot_features
    expected = coordinates((3, 3))[:, 1:] - 1
    assert torch.equal(slots[:, 1:3], torch.from_numpy(expected).float())
    assert not slots[:, [0, *range(3, 17)]].any()


def test_degrees_count_the_edges_of_the_encoding() -> None:
    laid_out = layout(template_of("small_convolutional"), "bundles")
    first = laid_out.blocks[0].targets[0, 0]
    assert laid_out.in_degree[first] == 2 + 1  # two input channels and the bias node
    assert laid_out.out_degree[first] == 3  # the three channels of the second convolution


@pytest.mark.parametrize("operation", [operation for operation in Operation if SETTINGS[operation]])
def test_every_setting_of_every_operation_reaches_the_metanetwork(operation: Operation) -> None:
    """Steps that differ in one number have different features, for each setting, wherever it may differ."""
    plain = {name: (2.0, 2.0, 2.0) if name in STEP_SETTINGS else (1.0,) for name in SETTINGS[operation]}
    others = {"axes": [(), (0.0,), (0.0, 1.0)], "low": [(float("-inf"),)], "high": [(float("inf"),)]}
    steps = [plain]
    for name, numbers in plain.items():
        changed = [(*numbers[:axis], 3.0, *numbers[axis + 1 :]) for axis in range(len(numbers))]
        steps += [plain | {name: other} for other in [*others.get(name, []), *(changed if name != "axes" else [])]]
    features = [step_features(Step(operation=operation, settings=tuple(sorted(step.items())))) for step in steps]
    assert np.isfinite(features).all()
    assert len({row.astype(np.float32).tobytes() for row in features}) == len(steps)


def test_a_small_eps_is_seen() -> None:
    """1e-5 is ten millionths, and log(1 + 10) = 2.398."""
    step = Step(operation=Operation.STANDARDISE, settings=(("axes", ()), ("eps", (1e-5,)), ("map_size", ())))
    assert step_features(step).max() == pytest.approx(2.398, abs=1e-3)


def test_a_setting_without_a_column_is_not_dropped_in_silence() -> None:
    with pytest.raises(AssertionError, match="has no column"):
        step_features(Step(operation=Operation.SCALE, settings=(("unheard_of", (1.0,)),)))


def test_embeddings_have_room_for_all_kinds_and_operations() -> None:
    assert len(NodeKind) <= NUM_NODE_KINDS
    assert len(EdgeKind) <= NUM_EDGE_KINDS
    assert max(Operation) < NUM_OPERATIONS
