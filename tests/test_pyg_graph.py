"""Parameter graphs as PyTorch Geometric data: what the columns hold, and that its own models train on them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINEConv, global_add_pool

from hand_built import HAND_BUILT
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation
from pipeline.parameter_graph import GraphTemplate, ParameterGraph
from pipeline.pyg_graph import CHAIN_LENGTH, to_pyg
from pipeline.tracing import trace
from tiny_networks import TINY, traced

STEPS = 30
NODE_FEATURES, EDGE_FEATURES = 15, 38


def template_named(name: str) -> GraphTemplate:
    return HAND_BUILT[name]() if name in HAND_BUILT else traced(name)[1]


def graphs(name: str, count: int) -> Iterator[ParameterGraph]:
    """Networks of one template with different weights."""
    template = template_named(name)
    for seed in range(count):
        values = np.random.default_rng(seed).standard_normal(template.num_values, dtype=np.float32)
        yield template.graph(values)


class Gine(nn.Module):
    """Two layers of ``torch_geometric.nn.GINEConv`` and a sum over nodes."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 16)) for width in (NODE_FEATURES, 16)]
        self.convolutions = nn.ModuleList([GINEConv(layer, edge_dim=EDGE_FEATURES) for layer in layers])
        self.head = nn.Linear(16, 1)

    def forward(self, data: Data) -> Tensor:
        x = data["x"]
        for convolution in self.convolutions:
            x = convolution(x, data["edge_index"], data["edge_attr"]).relu()
        return self.head(global_add_pool(x, data["batch"])).squeeze(1)


def test_an_unmodified_gine_model_trains_on_batches_of_different_templates() -> None:
    """It learns the mean of the values of a few networks of three architectures by heart."""
    data = []
    for name in ("linear", "conv relu conv pool flatten linear", "masked attention"):
        for graph in graphs(name, 4):
            item = graph.to_pyg()
            item.y = torch.tensor([graph.values.mean()])
            data.append(item)
    torch.manual_seed(0)
    model = Gine()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(STEPS):
        for batch in DataLoader(data, batch_size=6, shuffle=True):
            loss = (model(batch) - batch.y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) / 4


@pytest.mark.parametrize("name", [*TINY, *HAND_BUILT])
def test_columns_have_the_documented_shapes_and_ranges(name: str) -> None:
    [graph] = graphs(name, 1)
    template, data = graph.template, to_pyg(graph)
    nodes, edges = template.num_nodes, template.num_edges
    assert data.validate(raise_on_error=True)
    assert {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in data.items()} == {
        "x": (torch.float32, (nodes, NODE_FEATURES)),
        "edge_index": (torch.int64, (2, edges)),
        "edge_attr": (torch.float32, (edges, EDGE_FEATURES)),
        "edge_geometry": (torch.float32, (edges, 18)),
        "edge_chain": (torch.int64, (edges, CHAIN_LENGTH)),
        "node_chain": (torch.int64, (nodes, CHAIN_LENGTH)),
        "node_kind": (torch.int64, (nodes,)),
        "edge_kind": (torch.int64, (edges,)),
        "value_index": (torch.int64, (edges,)),
    }
    x, edge_attr, value_index = data["x"], data["edge_attr"], data["value_index"]
    carries = torch.from_numpy(template.edges.value_index >= 0)
    assert torch.equal(value_index >= 0, carries)
    assert np.array_equal(value_index[carries], template.edges.value_index[carries])
    assert np.array_equal(edge_attr[carries, 0], graph.values[value_index[carries]])
    assert all(tensor.isfinite().all() for tensor in data.to_dict().values() if tensor.is_floating_point())
    assert torch.equal(x[:, :12], nn.functional.one_hot(data["node_kind"], len(NodeKind)).float())
    assert torch.equal(edge_attr[:, 19:], nn.functional.one_hot(data["edge_kind"], len(EdgeKind)).float())
    assert x[:, 12:14].min() == 0
    assert x[:, 12:14].max() == 1
    assert edge_attr[:, 2:5].abs().max() <= 1
    assert (data["edge_geometry"] >= 0).all()
    ranked = torch.isin(data["node_kind"], torch.tensor([0, 2, 10, 11]))  # inputs, outputs, positions, tokens
    assert (x[~ranked, 14] == -1).all()
    assert ((x[ranked, 14] >= 0) & (x[ranked, 14] <= 1)).all()


def test_edges_without_a_value_carry_their_constant_and_masks_are_finite() -> None:
    """Blocks 7 (products to head, a half), 8 (head) and 9 (mask) of the attention are edges 2 + 6 + 3 * 4 + 4 on."""
    [graph] = graphs("masked attention", 1)
    data, first = to_pyg(graph), 2 + 6 + 12 + 4
    assert data["edge_attr"][first : first + 4, :2].tolist() == [[0.5, 0], [0.5, 0], [1, 0], [0, 1]]
    assert (data["value_index"][first : first + 4] < 0).all()
    assert data["edge_attr"][:2, :2].tolist() == [[1, 0], [1, 0]]


def test_sites_that_are_read_and_written_are_columns_of_their_own() -> None:
    """Positions 0 to 2 of three are written by the table; the last edge reads 0, 3 and 5 of seven, and writes all.

    Relative to their maps: -1, 0 and 1; and -1, 0 and 2/3, of mean -1/9, whose steps are 1 and 2/3.
    """
    [graph] = graphs("masked attention", 1)
    table, last = to_pyg(graph)["edge_attr"][2:5], to_pyg(graph)["edge_attr"][-1]
    assert not table[:, 5:12].any()
    assert table[:, 12:15].tolist() == [[0, 0, -1], [0, 0, 0], [0, 0, 1]]
    assert table[:, 18].tolist() == pytest.approx([np.log(2)] * 3)
    assert last[5:12].tolist() == pytest.approx([0, 0, -1 / 9, 0, 0, 5 / 6, np.log(4)])
    assert not last[12:19].any()


def test_ranks_of_tables_run_from_zero_to_one() -> None:
    [words], [attention] = graphs("embedded words", 1), graphs("masked attention", 1)
    assert to_pyg(words)["x"][:, 14].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, -1, -1, 0]
    assert to_pyg(attention)["x"][:6, 14].tolist() == [0, 1, 0, 0.5, 1, -1]


def test_taps_positions_geometry_and_chains_by_hand() -> None:
    """Conv1d(1, 3, 2, stride=2) on 11, SiLU, Conv1d(3, 2, 2, dilation=2, padding=1) on 5, a mean, Linear(2, 1)."""
    [graph] = graphs("conv1d, strided, dilated, padded", 1)
    data = to_pyg(graph)
    first, second, last = 0, 3 * 2 + 3, 3 * 2 + 3 + 2 * 3 * 2 + 2
    assert data["edge_attr"][first : first + 4, 2:5].tolist() == [[0, 0, -1], [0, 0, 1], [0, 0, -1], [0, 0, 1]]
    assert data["edge_geometry"][first].tolist() == [0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 11]
    assert data["edge_geometry"][second].tolist() == [0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 5]
    assert data["edge_chain"][second].tolist() == [Operation.SILU, 0, 0, 0, 0, 0, 0, 0]
    assert data["edge_chain"][last].tolist() == [Operation.GLOBAL_AVERAGE_POOL, 0, 0, 0, 0, 0, 0, 0]
    [flatten] = graphs("flatten", 1)
    positions = to_pyg(flatten)["edge_attr"][-8:-4, 5:8]
    assert positions.tolist() == [[0, -1, -1], [0, -1, 1], [0, 1, -1], [0, 1, 1]]


def test_a_node_carries_the_operations_on_what_it_takes() -> None:
    """Statistics of a softmax, a batch norm, and the mean after the output; then all at the batch norm's node."""
    [graph] = graphs("masked attention", 1)
    chains, kinds = to_pyg(graph)["node_chain"], to_pyg(graph)["node_kind"]
    assert chains[kinds == NodeKind.STATISTICS, 0].tolist() == [Operation.SOFTMAX]
    assert chains[kinds == NodeKind.NORMALISED, 0].tolist() == [0, Operation.STANDARDISE]
    assert chains[kinds == NodeKind.OUTPUT, 0].tolist() == [Operation.MEAN]
    assert chains[:, 1:].sum() == 0
    moved = replace(graph.template, outputs=np.array([24]))  # its channel is 24
    assert to_pyg(moved.graph(graph.values))["node_chain"][24, :3].tolist() == [
        Operation.STANDARDISE,
        Operation.MEAN,
        0,
    ]


def test_in_a_batch_indices_point_into_the_joined_nodes_and_values() -> None:
    """Graphs of different numbers of nodes and values, some with edges that have none."""
    items = [*graphs("linear", 2), *graphs("conv mean linear", 1), *graphs("masked attention", 2), *graphs("linear", 1)]
    batch = Batch.from_data_list([to_pyg(graph) for graph in items])
    values = np.concatenate([graph.values for graph in items])
    carries = torch.from_numpy(np.concatenate([graph.template.edges.value_index >= 0 for graph in items]))
    assert torch.equal(batch["value_index"] >= 0, carries)
    assert np.array_equal(batch["edge_attr"][carries, 0], values[batch["value_index"][carries]])
    assert torch.equal(batch.get_example(3)["value_index"], to_pyg(items[3])["value_index"])
    firsts = np.cumsum([0, *(graph.template.num_nodes for graph in items)])[:-1]
    expected = [first + graph.template.edges.edge_index for first, graph in zip(firsts, items, strict=True)]
    assert np.array_equal(batch["edge_index"], np.concatenate(expected, axis=1))


def test_graphs_of_a_template_share_all_tensors_but_the_values_and_nothing_writes_to_them() -> None:
    first, second = (to_pyg(graph) for graph in graphs("linear", 2))
    before = {key: tensor.clone() for key, tensor in first.items()}
    shared = {key for key, tensor in first.items() if tensor.data_ptr() == second[key].data_ptr()}
    assert shared == set(first.keys()) - {"edge_attr"}
    for batch in DataLoader([first, second], batch_size=2):
        for tensor in batch.to_dict().values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[key]) for key, tensor in first.items())


def test_what_is_added_to_one_graph_stays_there() -> None:
    [graph] = graphs("linear", 1)
    first = to_pyg(graph)
    first.y = torch.ones(1)
    first["edge_attr"].zero_()
    assert "y" not in to_pyg(graph)
    assert graph.values.all()
    assert to_pyg(graph)["edge_attr"][:, 0].all()


def test_a_chain_of_nine_operations_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2), *(nn.Tanh() for _ in range(9)), nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"a chain has 9 operations \(TANH TANH .*\); to_pyg has columns for 8"):
        trace(module, torch.zeros(1, 2)).graph(module).to_pyg()
