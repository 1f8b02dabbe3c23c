"""Both encodings carry the same values on the same edges."""

import numpy as np
import pytest
import torch

from networks import FACTORIES, template_of
from pipeline.parameter_graph import GraphTemplate, Operation, Step, coordinates
from training.graph_layout import GraphLayout, layout_of, step_features

CPU = torch.device("cpu")


def entries(layout: GraphLayout) -> list[tuple[int, int, int, int, tuple[float, ...]]]:
    """Every value of a layout as (value index, source, target, chain, where it acts), sorted."""
    found = []
    for block in layout.blocks:
        G, O, I, S = block.value_index.shape
        slots = block.slot_features.expand(I, -1, -1) if len(block.slot_features) == 1 else block.slot_features
        for g, o, i, s in np.ndindex(G, O, I, S):
            place = tuple(slots[i, s].tolist())
            ends = int(block.sources[g, i]), int(block.targets[g, o])
            found.append((int(block.value_index[g, o, i, s]), *ends, int(block.source_chain[g, i]), place))
    return sorted(found)


def edges_of(template: GraphTemplate) -> list[tuple[int, int, int, int]]:
    edges = template.edges
    return sorted(zip(edges.value_index.tolist(), *edges.edge_index.tolist(), edges.chain.tolist(), strict=True))


@pytest.mark.parametrize("name", FACTORIES)
def test_bundled_and_tap_encodings_carry_the_same_values_on_the_same_edges(name: str) -> None:
    taps, bundles = (
        entries(layout_of(template_of(name), encoding, CPU, torch.float32)) for encoding in ("taps", "bundles")
    )
    assert taps == bundles
    assert [entry[:4] for entry in taps] == edges_of(template_of(name))


def test_taps_are_one_value_an_edge_and_bundles_join_parallel_edges() -> None:
    """A 3x3 kernel is one bundle of nine slots; 2x2 positions of three channels are three bundles of four slots."""
    taps, bundles = (
        layout_of(template_of("flattening"), encoding, CPU, torch.float32) for encoding in ("taps", "bundles")
    )
    assert all(block.value_index.shape[-1] == 1 for block in taps.blocks)
    convolution, linear = bundles.blocks[0], bundles.blocks[2]
    assert tuple(convolution.value_index.shape) == (1, 3, 2, 9)
    assert tuple(linear.value_index.shape) == (1, 5, 3, 4)


def test_slots_of_a_kernel_are_placed_from_minus_one_to_one() -> None:
    [slots] = layout_of(template_of("flattening"), "bundles", CPU, torch.float32).blocks[0].slot_features
    expected = coordinates((3, 3))[:, 1:] - 1
    assert torch.equal(slots[:, 1:3], torch.from_numpy(expected).float())
    assert not slots[:, [0, 3, 4, 5]].any()


def test_degrees_count_the_edges_of_the_encoding() -> None:
    layout = layout_of(template_of("small_convolutional"), "bundles", CPU, torch.float32)
    first = layout.blocks[0].targets[0, 0]
    assert layout.in_degree[first] == 2 + 1  # two input channels and the bias node
    assert layout.out_degree[first] == 3  # the three channels of the second convolution


def test_every_setting_of_every_operation_reaches_the_metanetwork() -> None:
    """Two steps that differ in one number have different features, for each setting that tracing writes."""
    operations = {
        Operation.MAX_POOL: ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "map_size"),
        Operation.AVERAGE_POOL: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "map_size"),
        Operation.ADAPTIVE_AVERAGE_POOL: ("output_size", "map_size"),
        Operation.GELU: ("tanh",),
        Operation.LEAKY_RELU: ("negative_slope",),
        Operation.ELU: ("alpha", "input_scale", "scale"),
        Operation.SCALE: ("number",),
    }
    for operation, names in operations.items():
        steps = [Step(operation=operation, settings=((name, (number,)),)) for name in names for number in (2.0, 3.0)]
        assert len({step_features(step).tobytes() for step in steps}) == len(steps), operation


def test_a_setting_without_a_column_is_not_dropped_in_silence() -> None:
    with pytest.raises(AssertionError, match="has no column"):
        step_features(Step(operation=Operation.SCALE, settings=(("unheard_of", (1.0,)),)))
