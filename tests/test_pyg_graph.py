"""Parameter graphs as PyTorch Geometric data: what the columns hold, and that its own models train on them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINEConv, global_add_pool

from pipeline.parameter_graph import NodeKind, Operation, ParameterGraph
from pipeline.pyg_graph import CHAIN_LENGTH, to_pyg
from pipeline.tracing import trace
from tiny_networks import TINY, traced

STEPS = 30


def graphs(name: str, count: int) -> Iterator[ParameterGraph]:
    """Networks of one template with different weights."""
    template = traced(name)[1]
    for seed in range(count):
        values = np.random.default_rng(seed).standard_normal(template.num_values, dtype=np.float32)
        yield template.graph(values)


class Gine(nn.Module):
    """Two layers of ``torch_geometric.nn.GINEConv`` and a sum over nodes."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 16)) for width in (7, 16)]
        self.convolutions = nn.ModuleList([GINEConv(layer, edge_dim=11) for layer in layers])
        self.head = nn.Linear(16, 1)

    def forward(self, data: Data) -> Tensor:
        x = data["x"]
        for convolution in self.convolutions:
            x = convolution(x, data["edge_index"], data["edge_attr"]).relu()
        return self.head(global_add_pool(x, data["batch"])).squeeze(1)


def test_an_unmodified_gine_model_trains_on_batches_of_different_templates() -> None:
    """It learns the mean of the values of a few networks of three architectures by heart."""
    data = []
    for name in ("linear", "conv relu conv pool flatten linear", "softmax"):
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


@pytest.mark.parametrize("name", TINY)
def test_columns_have_the_documented_shapes_and_ranges(name: str) -> None:
    [graph] = graphs(name, 1)
    template, data = graph.template, to_pyg(graph)
    nodes, edges = template.num_nodes, template.num_edges
    assert data.validate(raise_on_error=True)
    assert {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in data.items()} == {
        "x": (torch.float32, (nodes, 7)),
        "edge_index": (torch.int64, (2, edges)),
        "edge_attr": (torch.float32, (edges, 11)),
        "edge_geometry": (torch.float32, (edges, 15)),
        "edge_chain": (torch.int64, (edges, CHAIN_LENGTH)),
        "node_chain": (torch.int64, (nodes, CHAIN_LENGTH)),
        "node_kind": (torch.int64, (nodes,)),
        "edge_kind": (torch.int64, (edges,)),
        "value_index": (torch.int64, (edges,)),
    }
    assert np.array_equal(data["edge_attr"][:, 0], graph.values[template.edges.value_index])
    assert torch.equal(data["x"][:, :4].argmax(dim=1), data["node_kind"])
    assert torch.equal(data["edge_attr"][:, 7:].argmax(dim=1), data["edge_kind"])
    assert (data["x"][:, :4].sum(dim=1) == 1).all()
    assert (data["edge_attr"][:, 7:].sum(dim=1) == 1).all()
    assert data["x"][:, 4:6].min() == 0
    assert data["x"][:, 4:6].max() == 1
    assert data["edge_attr"][:, 1:7].abs().max() <= 1
    assert (data["edge_geometry"] >= 0).all()
    hidden = (data["node_kind"] == NodeKind.NEURON) | (data["node_kind"] == NodeKind.BIAS)
    assert (data["x"][hidden, 6] == -1).all()
    assert ((data["x"][~hidden, 6] >= 0) & (data["x"][~hidden, 6] <= 1)).all()
    assert (data["node_chain"][hidden] == 0).all()


def test_taps_positions_geometry_and_chains_by_hand() -> None:
    """Conv1d(1, 3, 2, stride=2) on 11, SiLU, Conv1d(3, 2, 2, dilation=2, padding=1) on 5, a mean, Linear(2, 1)."""
    [graph] = graphs("conv1d, strided, dilated, padded", 1)
    data = to_pyg(graph)
    first, second, last = 0, 3 * 2 + 3, 3 * 2 + 3 + 2 * 3 * 2 + 2
    assert data["edge_attr"][first : first + 4, 1:4].tolist() == [[0, 0, -1], [0, 0, 1], [0, 0, -1], [0, 0, 1]]
    assert data["edge_geometry"][first].tolist() == [0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 11]
    assert data["edge_geometry"][second].tolist() == [0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0, 2, 0, 0, 5]
    assert data["edge_chain"][second].tolist() == [Operation.SILU, 0, 0, 0, 0, 0, 0, 0]
    assert data["edge_chain"][last].tolist() == [Operation.GLOBAL_AVERAGE_POOL, 0, 0, 0, 0, 0, 0, 0]
    [flatten] = graphs("flatten", 1)
    positions = to_pyg(flatten)["edge_attr"][-8:-4, 4:7]
    assert positions.tolist() == [[0, -1, -1], [0, -1, 1], [0, 1, -1], [0, 1, 1]]


def test_an_output_node_carries_the_chain_that_ends_there() -> None:
    [graph] = graphs("log softmax with a temperature", 1)
    data = to_pyg(graph)
    chain = [Operation.SHIFT, Operation.SCALE, Operation.LOG_SOFTMAX, 0, 0, 0, 0, 0]
    assert data["node_chain"][data["node_kind"] == NodeKind.OUTPUT].tolist() == [chain] * 2


def test_in_a_batch_indices_point_into_the_joined_nodes_and_values() -> None:
    """Graphs of 9 nodes and 17 values, and of 11 nodes and 37 values."""
    items = [*graphs("linear", 2), *graphs("conv mean linear", 1), *graphs("linear", 1)]
    batch = Batch.from_data_list([to_pyg(graph) for graph in items])
    values = np.concatenate([graph.values for graph in items])
    assert np.array_equal(batch["edge_attr"][:, 0], values[batch["value_index"]])
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
