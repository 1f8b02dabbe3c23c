"""The metanetwork against its definition, edge by edge, and against the symmetries of what it reads."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hand_built import HAND_BUILT, WIDTH, masked_attention, residual_layer_norm
from networks import FACTORIES, template_of
from pipeline.automorphisms import carry_values, permute_values, sample_automorphism
from pipeline.images import load_images
from pipeline.loop_trainer import train_chunk
from pipeline.parameter_graph import ParameterGraph, relative_coordinates
from pipeline.tracing import trace
from pipeline.zoo import expand
from tiny_zoo import tiny_spec
from training.gmn import GraphMetanetwork, GraphMetanetworkSettings
from training.graph_batch import batch_graphs
from training.graph_layout import Encoding, block_features, constant_features, fan_in, layout_of
from training.message_passing import Aggregation, MetanetworkLayer

ENCODINGS: tuple[Encoding, ...] = ("taps", "bundles")
ROUNDING = 1e-12
"""Of float64 sums in another order, on outputs of order one."""


def network(encoding: Encoding = "bundles", aggregation: Aggregation = "root", seed: int = 0) -> GraphMetanetwork:
    torch.manual_seed(seed)
    settings = GraphMetanetworkSettings(width=7, depth=2, aggregation=aggregation, encoding=encoding)
    return GraphMetanetwork(settings, num_outputs=3).double()


def graphs(seed: int = 0) -> list[ParameterGraph]:
    """Freshly initialised networks of both architectures, in mixed order."""
    torch.manual_seed(seed)
    return [template_of(name).graph(FACTORIES[name]()) for name in [*FACTORIES, *FACTORIES, "flattening"]]


def hand_built(seed: int = 0) -> list[ParameterGraph]:
    """Random values of every hand-built template, which have edges without values."""
    rng = np.random.default_rng(seed)
    templates = [make() for make in HAND_BUILT.values()]
    return [template.graph(rng.standard_normal(template.num_values, dtype=np.float32)) for template in templates]


def layer_by_the_definition(
    layer: MetanetworkLayer, graph: ParameterGraph, encoding: Encoding, nodes: Tensor, edges: list[Tensor]
):
    """One layer on one graph with a Python loop over edges and concatenated inputs; the slow and obvious version."""
    layout = layout_of(graph.template, encoding, torch.device("cpu"), torch.float64)
    concatenated = torch.cat([layer.from_source.weight, layer.from_target.weight, layer.from_edge.weight], dim=1)
    normed = layer.node_norm(nodes)
    incoming: list[list[Tensor]] = [[] for _ in nodes]
    outgoing: list[list[Tensor]] = [[] for _ in nodes]
    updated = [edge.clone() for edge in edges]
    for block, edge, new in zip(layout.blocks, edges, updated, strict=True):
        for g, o, i in np.ndindex(*edge.shape[:3]):
            source, target = int(block.sources[g, i]), int(block.targets[g, o])
            inputs = torch.cat([normed[source], normed[target], layer.edge_norm(edge[g, o, i])])
            hidden = functional.silu(concatenated @ inputs + layer.from_edge.bias)
            incoming[target].append(hidden)
            outgoing[source].append(hidden)
            new[g, o, i] = edge[g, o, i] + layer.edge_update(hidden)
    zero = torch.zeros_like(nodes[0])
    power = {"sum": 0.0, "root": 0.5, "mean": 1.0}[layer.aggregation]
    sums = [[sum(m, zero) / max(1, len(m)) ** power for m in messages] for messages in (incoming, outgoing)]
    inputs = torch.cat([normed, *(torch.stack(rows) for rows in sums)], dim=1)
    return nodes + layer.node_update(functional.silu(layer.node_hidden(inputs))), updated


@pytest.mark.parametrize("aggregation", ["sum", "mean", "root"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("number", range(len(FACTORIES) + len(HAND_BUILT)))
def test_a_layer_equals_its_definition_edge_by_edge(number: int, encoding: Encoding, aggregation: Aggregation) -> None:
    model = network(encoding, aggregation)
    layer = model.layers[0]
    assert isinstance(layer, MetanetworkLayer)
    graph = [*graphs()[: len(FACTORIES)], *hand_built()][number]
    [group] = batch_graphs([graph]).groups
    features = list(model.layer_features(group))
    (nodes, edges), (new_nodes, new_edges) = features[0], features[1]
    with torch.no_grad():
        expected_nodes, expected_edges = layer_by_the_definition(
            layer, graph, encoding, nodes[0], [e[0] for e in edges]
        )
    assert (new_nodes[0] - expected_nodes).abs().max() < ROUNDING
    for found, expected in zip(new_edges, expected_edges, strict=True):
        assert (found[0] - expected).abs().max() < ROUNDING


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_batch_equals_its_graphs_one_by_one(encoding: Encoding) -> None:
    model, several = network(encoding), [*graphs(), *hand_built(), *hand_built(seed=1)]
    together = model(batch_graphs(several))
    alone = torch.cat([model(batch_graphs([graph])) for graph in several])
    assert (together - alone).abs().max() < ROUNDING


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_gradient_of_a_batch_is_the_sum_over_its_graphs(encoding: Encoding) -> None:
    together, alone = network(encoding), network(encoding)
    several = [*graphs(), *hand_built()]
    together(batch_graphs(several)).square().sum().backward()
    for graph in several:
        alone(batch_graphs([graph])).square().sum().backward()
    for (name, left), right in zip(together.named_parameters(), alone.parameters(), strict=True):
        assert left.grad is not None, name
        assert right.grad is not None, name
        assert (left.grad - right.grad).abs().max() < 1e-10, name


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("seed", range(3))
def test_automorphisms_leave_every_output_unchanged(encoding: Encoding, seed: int) -> None:
    model, rng = network(encoding), np.random.default_rng(seed)
    originals = [*graphs(seed), *hand_built(seed)[:2]]
    moved = [
        g.template.graph(g.values[permute_values(g.template, sample_automorphism(g.template, rng))]) for g in originals
    ]
    assert all((left.values != right.values).any() for left, right in zip(originals, moved, strict=True))
    assert (model(batch_graphs(originals)) - model(batch_graphs(moved))).abs().max() < ROUNDING


def edges_by_the_definition(model: GraphMetanetwork, graph: ParameterGraph) -> list[Tensor]:
    """The encoded edges of one graph in the encoding of taps, by a Python loop over the edges of the template."""
    encoder, template = model.edge_encoder, graph.template
    chains = model.chain_encoder(layout_of(template, "taps", torch.device("cpu"), torch.float64))
    blocks = []
    for block in template.blocks:
        G, O, I, T = block.value_index.shape
        static = encoder.kind.weight[block.kind] + encoder.block(torch.from_numpy(block_features(block)))
        rows = []
        for g, o, i, t in np.ndindex(G, O, I, T):
            source = g * I + i
            if block.kind.carries_value:
                scaled = torch.tensor(float(graph.values[block.value_index[g, o, i, t]])) * np.sqrt(fan_in(block))
                features = torch.stack([scaled.asinh(), scaled.tanh()])
            else:
                features = torch.from_numpy(constant_features(block.constant[[source]])[0])
            sites = [template.site_features[site[source]] for site in (block.source_site, block.target_site)]
            place = np.concatenate([relative_coordinates(block.kernel_size)[t], *sites])
            maps = encoder.slot(torch.from_numpy(place).double()) + encoder.slot_kind.weight[block.kind]
            value = features.double() @ maps.unflatten(0, (2, -1))
            rows.append(static + chains[block.source_chain[source]] + value)
        blocks.append(torch.stack(rows).unflatten(0, (G, O, I * T)))
    return blocks


@pytest.mark.parametrize("name", HAND_BUILT)
def test_encoded_edges_equal_their_definition_edge_by_edge(name: str) -> None:
    model, template = network("taps"), HAND_BUILT[name]()
    values = np.random.default_rng(0).standard_normal(template.num_values, dtype=np.float32)
    [group] = batch_graphs([template.graph(values)]).groups
    _, edges = next(model.layer_features(group))
    for found, expected in zip(edges, edges_by_the_definition(model, template.graph(values)), strict=True):
        assert (found[0] - expected).abs().max() < 1e-6  # features of places are float32


def relabelled(values: np.ndarray, order: np.ndarray, parts: set[str]) -> np.ndarray:
    """Values of the residual network with its channels in another order, in all places but those left out."""
    shapes = {"first": (WIDTH, 3), "second": (WIDTH, WIDTH), "weight": (WIDTH,), "bias": (WIDTH,), "last": (2, WIDTH)}
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    pieces = np.split(values, ends[:-1])
    named = {name: piece.reshape(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
    moved = {
        "first": named["first"][order],
        "second": named["second"][order][:, order],
        "weight": named["weight"][order],
        "bias": named["bias"][order],
        "last": named["last"][:, order],
    }
    return np.concatenate([(moved if name in parts else named)[name].reshape(-1) for name in shapes])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_channels_joined_by_sums_and_norms_are_relabelled_together_or_not_at_all(encoding: Encoding) -> None:
    """The residual sum and the layer norm, edges without values, tie the channels of three layers to each other: one
    order of all leaves the output unchanged, and an order of any tensor alone changes it."""
    model, rng = network(encoding), np.random.default_rng(0)
    template = residual_layer_norm()
    values = rng.standard_normal(template.num_values, dtype=np.float32)
    order = np.array([3, 0, 4, 1, 2])
    parts = {"first", "second", "weight", "bias", "last"}
    before = model(batch_graphs([template.graph(values)]))

    def change(some: set[str]) -> float:
        moved = relabelled(values, order, some)
        assert (moved != values).any()
        return float((model(batch_graphs([template.graph(moved)])) - before).detach().abs().max())

    assert change(parts) < ROUNDING
    for part in sorted(parts):
        assert change({part}) > 1e-8, part
        assert change(parts - {part}) > 1e-8, part


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_queries_and_keys_are_relabelled_together_or_not_at_all(encoding: Encoding) -> None:
    """Their product nodes couple them; rows 0 and 1 of the query's weight stand at 6 to 9, of the key's at 10 to 13."""
    model, template = network(encoding), masked_attention()
    values = np.random.default_rng(0).standard_normal(template.num_values, dtype=np.float32)
    queries, keys = [8, 9, 6, 7], [12, 13, 10, 11]
    before = model(batch_graphs([template.graph(values)]))

    def change(**places: list[int]) -> float:
        moved = values.copy()
        for start, rows in zip((6, 10), (places.get("query"), places.get("key")), strict=True):
            if rows:
                moved[start : start + 4] = values[rows]
        return float((model(batch_graphs([template.graph(moved)])) - before).detach().abs().max())

    assert change(query=queries, key=keys) < ROUNDING
    assert change(query=queries) > 100 * ROUNDING
    assert change(key=keys) > 100 * ROUNDING


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_edges_without_values_say_changes_the_output(encoding: Encoding) -> None:
    """A mask, a constant, the sites that are written and read, the axes of statistics, the eps of a batch norm."""
    model, template = network(encoding), masked_attention()
    values = np.random.default_rng(0).standard_normal(template.num_values, dtype=np.float32)
    before = model(batch_graphs([template.graph(values)]))
    blocks = {
        "mask": (9, {"constant": np.array([-5.0])}),
        "constant": (7, {"constant": np.array([0.25, 0.25])}),
        "written": (9, {"target_site": np.array([0])}),
        "read": (20, {"source_site": np.array([0])}),
        "padding": (15, {"output_padding": (0,)}),
    }
    others = {
        what: replace(
            template, blocks=tuple(replace(b, **change) if n == number else b for n, b in enumerate(template.blocks))
        )
        for what, (number, change) in blocks.items()
    }
    softmax, norm = template.chains[1][0], template.chains[2][0]
    axes = replace(softmax, settings=(("axes", (0.0,)), *softmax.settings[1:]))
    eps = replace(norm, settings=(norm.settings[0], ("eps", (1e-5,)), norm.settings[2]))
    others["axes"] = replace(template, chains=((), (axes,), *template.chains[2:]))
    others["eps"] = replace(template, chains=(*template.chains[:2], (eps,), *template.chains[3:]))
    for what, other in others.items():
        after = model(batch_graphs([other.graph(values)]))
        assert (after - before).abs().max() > 1e-8, what


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_really_trained_networks_and_their_relabelled_twins_are_one_to_the_metanetwork(encoding: Encoding) -> None:
    """Small CNNs of a zoo after two epochs on digits; the twins compute the same function and get the same output."""
    spec = tiny_spec(num_runs=3)
    images = load_images(spec.images)
    model, rng = network(encoding), np.random.default_rng(0)
    inputs = torch.from_numpy(images.test_images[:11])
    for checkpoint in train_chunk(expand(spec), images):
        if checkpoint.checkpoint == 0:
            continue  # the untrained one
        module = checkpoint.run.architecture.build().eval()
        graph = trace(module, checkpoint.run.architecture.example_input()).graph(checkpoint.values)
        relabelling = sample_automorphism(graph.template, rng)
        twin = graph.template.graph(graph.values[permute_values(graph.template, relabelling)])
        assert (twin.values != graph.values).mean() > 0.5
        module.load_state_dict(graph.state_dict())
        expected = module(inputs)
        module.load_state_dict(twin.state_dict())
        torch.testing.assert_close(module(inputs), expected, rtol=1e-4, atol=1e-5)
        outputs = model(batch_graphs([graph, twin]))
        assert (outputs[0] - outputs[1]).abs().max() < ROUNDING


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_permutations_of_a_tensor_change_the_output(encoding: Encoding) -> None:
    """Reversing the order of one tensor's values is no relabelling of neurons, for any tensor with two or more of
    them."""
    model = network(encoding)
    for graph in graphs()[:2]:
        before = model(batch_graphs([graph]))
        for slot in graph.template.tensors:
            if slot.names[0].endswith("bias"):
                continue  # reversing a bias alone may look like nothing to an untrained model's eyes; weights must show
            values = graph.values.copy()
            values[slot.offset : slot.offset + slot.size] = values[slot.offset : slot.offset + slot.size][::-1]
            after = model(batch_graphs([graph.template.graph(values)]))
            assert (before - after).abs().max() > 1e-8, slot.names


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_exchanging_two_inputs_or_two_outputs_changes_the_output(encoding: Encoding) -> None:
    model = network(encoding)
    for graph in graphs()[:2]:
        for nodes in (np.array([0, 1]), graph.template.outputs[:2]):
            relabelling = np.arange(graph.template.num_nodes)
            relabelling[nodes] = nodes[::-1]
            moved = graph.template.graph(graph.values[carry_values(graph.template, relabelling)])
            assert (model(batch_graphs([graph])) - model(batch_graphs([moved]))).abs().max() > 1e-8


def test_an_empty_batch_has_no_outputs() -> None:
    assert network()(batch_graphs([])).shape == (0, 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_parameter_has_a_gradient(encoding: Encoding) -> None:
    model = network(encoding)
    model(batch_graphs(graphs())).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_representations_are_named_in_order_and_end_in_the_output() -> None:
    model, batch = network(), batch_graphs(graphs())
    representations = model.representations(batch)
    assert list(representations) == [
        *(f"layer{number}.{part}" for number in range(3) for part in ("nodes", "edges")),
        "graph",
        "output",
    ]
    assert (representations["output"] - model(batch)).abs().max() < ROUNDING
    assert all(len(features) == batch.num_graphs for features in representations.values())


def test_a_network_without_width_or_depth_is_refused() -> None:
    for make in (partial(GraphMetanetworkSettings, width=0), partial(GraphMetanetworkSettings, depth=0)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            make()
