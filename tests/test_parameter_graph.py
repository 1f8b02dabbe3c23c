"""Law A: every value is carried by exactly one edge, the right one; by counting and by indexing the weights
themselves."""

import numpy as np
import pytest
import torch
from torch import nn

from hand_built import masked_attention
from networks import template_of
from pipeline.architectures import Architecture
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import GraphTemplate, Region, coordinates, relative_coordinates, right_align
from pipeline.tracing import trace
from tiny_networks import TINY, Wired, traced

SHARED = {"one layer used twice", "one hidden layer used twice", "one layer on two halves"}


def small_cnn() -> nn.Module:
    """Unterthiner et al. 2020: three 3x3 convolutions of stride 2 with 16 filters, a global average, ten classes."""
    layers: list[nn.Module] = []
    for inputs in (1, 16, 16):
        layers += [nn.Conv2d(inputs, 16, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def numbered(module: nn.Module) -> nn.Module:
    """The same module with all weights different: 0, 1, 2, ... in the order of its values."""
    count = 0
    for parameter in module.parameters():
        parameter.data = torch.arange(count, count + parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
        count += parameter.numel()
    return module


def edge_table(
    template: GraphTemplate, module: nn.Module
) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...], float]]:
    """Source, target, tap, position and value of every edge, in edge order; axes that do not exist are left out."""
    edges, values = template.edges, template.graph(module).values
    rows = []
    for number, (source, target) in enumerate(edges.edge_index.T.tolist()):
        block = template.blocks[edges.block[number]]
        tap = coordinates(block.kernel_size)[edges.tap[number]]
        where = tuple(place for place in tap.tolist() if place >= 0), position(template, int(edges.site[number]))
        rows.append((source, target, *where, float(values[edges.value_index[number]])))
    return rows


def position(template: GraphTemplate, site: int) -> tuple[int, ...]:
    """Coordinates of the single position that is read; none where all are."""
    region = template.region(site)
    if region is None:
        return ()
    [place] = region.positions
    return tuple(map(int, np.unravel_index(place, region.extents)))


DIGESTS = {
    "relu": "f34c6ebaeaff3d8b3be909cf511b01277b61e17578263aad3d8d659868aa20d4",
    "tanh": "511b5b46a29a8d53c9245a426a4c48fd1a77308da933d216f3028fac10ee9027",
}
"""Of the small CNN, as the first datasets have them."""


@pytest.mark.parametrize("activation", DIGESTS)
def test_a_template_has_the_digest_it_has_in_datasets_on_disk(activation: str) -> None:
    """What is new in templates must not change the documents of networks that have none of it."""
    arguments = {"input_shape": [1, 16, 16], "num_classes": 10, "activation": activation}
    architecture = Architecture(family="small_cnn", arguments=arguments)
    assert trace(architecture.build(), architecture.example_input()).digest == DIGESTS[activation]


def test_small_cnn_has_63_nodes_and_4970_edges() -> None:
    """Nodes: 1 input, 3 * 16 channels, 10 classes, 4 biases. Edges: 9*16 + 16, twice 9*16*16 + 16, 16*10 + 10.

    That is 160 + 2 * 2,320 + 170 = 4,970, as many as it has parameters.
    """
    template = trace(small_cnn(), torch.zeros(1, 1, 15, 15))
    assert (template.num_nodes, template.num_edges, template.num_values) == (63, 4970, 4970)
    assert np.bincount(template.node_kind).tolist() == [1, 48, 10, 4]
    assert np.bincount(template.edges.kind).tolist() == [160, 10, 9 * 16 + 2 * 9 * 16 * 16, 48]
    assert sorted(template.edges.value_index) == list(range(4970))


@pytest.mark.parametrize("name", TINY)
def test_every_value_is_carried_once_unless_it_is_shared(name: str) -> None:
    _, template = traced(name)
    index = template.edges.value_index
    carried = np.bincount(index[index >= 0], minlength=template.num_values)
    assert carried.min() >= 1
    assert carried.max() == (2 if name in SHARED else 1)
    assert template.num_edges == len(template.edges.kind)
    assert np.array_equal(index >= 0, [EdgeKind(kind).carries_value for kind in template.edges.kind])


def test_a_layer_used_twice_carries_its_values_twice() -> None:
    """Linear(3, 3) on itself: 9 weights and 3 biases, each on one edge of the first use and one of the second."""
    template = traced("one layer used twice")[1]
    assert (template.num_values, template.num_edges) == (12, 24)
    assert template.edges.value_index.tolist() == [*range(9), *range(9, 12)] * 2


def test_linear_edges_join_what_the_weight_joins() -> None:
    """Nodes: inputs 0, 1; neurons 2, 3, 4; their bias 5; outputs 6, 7; their bias 8. Values: numbered through the
    tensors."""
    module, template = numbered(TINY["linear"].build()), traced("linear")[1]
    first = [(i, 2 + o, (), (), 2.0 * o + i) for o in range(3) for i in range(2)]
    first_bias = [(5, 2 + o, (), (), 6.0 + o) for o in range(3)]
    second = [(2 + i, 6 + o, (), (), 9.0 + 3 * o + i) for o in range(2) for i in range(3)]
    second_bias = [(8, 6 + o, (), (), 15.0 + o) for o in range(2)]
    assert edge_table(template, module) == first + first_bias + second + second_bias


def test_kernel_taps_are_parallel_edges_in_the_memory_order_of_the_weight() -> None:
    """Conv2d(2, 3, (2, 3)): inputs 0, 1; outputs 2, 3, 4; bias 5; value of tap (h, w) is weight[o, i, h, w]."""
    module = numbered(nn.Conv2d(2, 3, (2, 3)))
    template = trace(module, torch.zeros(1, 2, 5, 7))
    weight = module.state_dict()["weight"]
    expected = [
        (i, 2 + o, (h, w), (), float(weight[o, i, h, w]))
        for o in range(3)
        for i in range(2)
        for h in range(2)
        for w in range(3)
    ]
    assert edge_table(template, module) == expected + [(5, 2 + o, (), (), 36.0 + o) for o in range(3)]


def flattening(rearrange: str) -> nn.Module:
    """Three channels on a 2x5 map, flattened in an order of axes; ``chw`` is plain."""
    axes = tuple(1 + "chw".index(letter) for letter in rearrange)
    return Wired(
        lambda net, x: net.head(net.conv(x).permute(0, *axes).flatten(1)),
        conv=nn.Conv2d(2, 3, 1),
        head=nn.Linear(30, 7),
    )


@pytest.mark.parametrize("rearrange", ["chw", "cwh", "hwc", "whc", "hcw", "wch"])
def test_flattened_positions_are_parallel_edges_wherever_the_axes_went(rearrange: str) -> None:
    """Inputs 0, 1; channels 2, 3, 4; bias 5; outputs 6 to 12. Column j of the weight reads what stands j-th after the
    flatten."""
    module = numbered(flattening(rearrange))
    template = trace(module, torch.zeros(1, 2, 2, 5))
    weight = module.state_dict()["head.weight"]
    extents = dict(zip("chw", (3, 2, 5), strict=True))
    column = {  # which column of the weight reads channel c at (h, w)
        tuple(place[rearrange.index(letter)] for letter in "chw"): number
        for number, place in enumerate(np.ndindex(*(extents[letter] for letter in rearrange)))
    }
    expected = [
        (2 + c, 6 + o, (), (h, w), float(weight[o, column[c, h, w]]))
        for o in range(7)
        for c in range(3)
        for h in range(2)
        for w in range(5)
    ]
    conv_edges, bias_edges = 2 * 3 + 3, 7
    assert edge_table(template, module)[conv_edges:-bias_edges] == expected


@pytest.mark.parametrize("name", TINY)
def test_edges_are_ordered_by_block_target_source_position_and_tap(name: str) -> None:
    template = traced(name)[1]
    edges = template.edges
    places = (edges.constant, edges.target_site, edges.chain, edges.site)
    columns = (edges.tap, *places, *edges.edge_index, edges.block)
    assert np.array_equal(np.lexsort(columns), np.arange(template.num_edges))
    assert [block.num_edges for block in template.blocks] == np.bincount(edges.block).tolist()


@pytest.mark.parametrize("name", TINY)
def test_sources_come_before_targets_and_biases_before_nothing(name: str) -> None:
    """A block reads only inputs, biases, positions and what earlier blocks computed."""
    template = traced(name)[1]
    given = [NodeKind.INPUT, NodeKind.BIAS, NodeKind.POSITION]
    known = set(np.flatnonzero(np.isin(template.node_kind, given)).tolist())
    for block in template.blocks:
        assert set(block.sources.tolist()) <= known
        known |= set(block.targets.tolist())
    assert known == set(range(template.num_nodes))


def test_kinds_ranks_and_depths_of_nodes() -> None:
    """Inputs 0, 1; neurons 2, 3, 4; bias 5; output 6 with bias 7; the neurons are returned too, before it.

    Longest paths: input -> neuron -> output. Neurons that are returned are outputs at depth 1 with one edge to go.
    """
    template = traced("hidden neurons returned")[1]
    assert template.node_kind.tolist() == [0, 0, 2, 2, 2, 3, 2, 3]
    assert template.node_rank.tolist() == [0, 1, 0, 1, 2, -1, 3, -1]
    assert template.depth_from_input.tolist() == [0, 0, 1, 1, 1, 0, 2, 0]
    assert template.depth_to_output.tolist() == [2, 2, 1, 1, 1, 2, 0, 1]


def test_chains_say_what_happens_between_two_nodes_in_order() -> None:
    pooling = {
        "ceil_mode": (0.0,),
        "dilation": (1.0, 1.0),
        "kernel_size": (1.0, 4.0),
        "map_size": (2.0, 4.0),
        "padding": (0.0, 0.0),
        "stride": (1.0, 4.0),
    }
    template = traced("conv relu conv pool flatten linear")[1]
    assert template.chains == (
        (),
        (Step(operation=Operation.RELU),),
        (Step(operation=Operation.MAX_POOL, settings=tuple(pooling.items())),),
    )
    by_block = [sorted(set(block.source_chain.tolist())) for block in template.blocks]
    assert by_block == [[0], [0], [1], [0], [2], [0]]
    shifted = traced("shifted and scaled")[1]
    ends = shifted.node_chain[shifted.node_kind == NodeKind.OUTPUT]
    assert [[step.operation.name for step in shifted.chains[chain]] for chain in ends] == [["SHIFT"]] * 2
    assert not shifted.node_chain[shifted.node_kind != NodeKind.OUTPUT].any()


def test_a_node_has_the_chain_of_its_set_unless_a_chain_ends_there() -> None:
    """Statistics are 18, the batch norm is 24 and the output, after a mean, 25."""
    template = masked_attention()
    assert np.flatnonzero(template.node_chain).tolist() == [18, 24, 25]
    assert template.node_chain[[18, 24, 25]].tolist() == [1, 2, 4]


def test_positions_and_words_have_ranks_and_hidden_nodes_have_none() -> None:
    assert masked_attention().node_rank.tolist() == [0, 1, 0, 1, 2, *[-1] * 20, 0]


def test_geometry_and_map_stand_on_every_block() -> None:
    """Conv1d(1, 3, 2, stride=2) on 11 positions gives 5; the second, dilated and padded, slides over those."""
    template = traced("conv1d, strided, dilated, padded")[1]
    kinds = [EdgeKind.CONV_WEIGHT, EdgeKind.CONV_BIAS, EdgeKind.CONV_WEIGHT, EdgeKind.CONV_BIAS]
    assert [block.kind for block in template.blocks] == [*kinds, EdgeKind.LINEAR_WEIGHT, EdgeKind.LINEAR_BIAS]
    assert [block.geometry[1:] for block in template.blocks[:3]] == [
        ((2,), (2,), (0,), (1,), (), (11,)),
        ((), (), (), (), (), ()),
        ((2,), (1,), (1,), (2,), (), (5,)),
    ]


def test_coordinates_are_right_aligned() -> None:
    assert right_align((5, 7), 1) == (1, 5, 7)
    assert coordinates((2, 3)).tolist() == [[-1, h, w] for h in range(2) for w in range(3)]
    assert coordinates(()).tolist() == [[-1, -1, -1]]
    assert relative_coordinates((2, 3)).tolist() == [[0, h, w] for h in (-1, 1) for w in (-1, 0, 1)]
    assert relative_coordinates((1, 2)).tolist() == [[0, 0, -1], [0, 0, 1]]


def test_sites_are_all_positions_then_single_ones_then_regions() -> None:
    """A grid of three, then positions 1, 2 and 5 of 3x3, then 0, 3 and 5 of seven."""
    template = masked_attention()
    assert template.first_region == 4
    assert template.region(0) is None
    assert [template.region(site) for site in (1, 3)] == [
        Region(extents=(3,), positions=(0,)),
        Region(extents=(3,), positions=(2,)),
    ]
    assert [template.region(site) for site in (4, 5)] == list(template.regions)


def test_features_of_sites_by_hand() -> None:
    """Positions 1, 2 and 5 of 3x3 are (-1, 0), (-1, 1) and (0, 1): of mean (-2/3, 2/3), half a step each on average."""
    features = masked_attention().site_features
    assert features.shape == (6, 7)
    assert not features[0].any()
    assert features[3].tolist() == pytest.approx([0, 0, 1, 0, 0, 0, np.log(2)])
    assert features[4].tolist() == pytest.approx([0, -2 / 3, 2 / 3, 0, 0.5, 0.5, np.log(4)])


def test_a_template_is_shown_by_its_sizes() -> None:
    """Two inputs, five and three channels, seven outputs and three bias nodes are 20."""
    template = template_of("small_convolutional")
    assert repr(template) == f"GraphTemplate(20 nodes, 261 edges, 261 values, digest {template.digest[:12]})"
