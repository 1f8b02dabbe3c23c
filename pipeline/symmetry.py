"""The symmetries of a parameter graph: which relabellings of neurons describe the same network, and a check that they do.

Reads   a `GraphTemplate`, and for `check` the module it was traced from
Writes  nothing

A *relabelling* is a permutation of the nodes. It is an *automorphism* if it fixes inputs and outputs and maps edges onto edges with
the same features, values aside; it then permutes the values, and the network with permuted values computes the same function
(Lim et al., ICLR 2024, proposition 1). Law B says that these are the only permutations of weights along their axes that do.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from pipeline.parameter_graph import GraphTemplate, NodeKind

TOLERANCE = 1e-9
"""Largest difference of outputs, relative to the largest output, that float64 rounding explains."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` tried; it raises where a law is violated, so that a report is always a good one."""

    num_values: int
    num_automorphisms: int
    """Sampled relabellings under which the outputs stayed as they were."""
    largest_difference: float
    """Among them, relative to the largest output."""
    num_forbidden: int
    """Relabellings of inputs or outputs, which must change the outputs, and did."""


def check(module: nn.Module, template: GraphTemplate, example_input: Tensor, num_samples: int = 3) -> CheckReport:
    """Test a template against its module, on a copy in float64 with every parameter drawn at random.

    Values -> graph -> state dict must be the identity; sampled automorphisms must leave the outputs unchanged; relabelled inputs and
    outputs must change them.

    Raises:
        ValueError: one of these fails, so that the template does not describe the module.
    """
    _check_round_trip(module, template)
    rng = np.random.default_rng(0)
    frozen = copy.deepcopy(module).cpu().double().eval()
    values = random_values(template, rng)
    inputs = torch.from_numpy(rng.standard_normal((5, *example_input.shape[1:])))
    expected = run(frozen, template, values, inputs)
    scale = float(expected.abs().max())
    differences: list[float] = []
    for _ in range(num_samples):
        moved = values[permute_values(template, sample_automorphism(template, rng))]
        differences.append(float((run(frozen, template, moved, inputs) - expected).abs().max()) / scale)
    if not max(differences, default=0.0) < TOLERANCE:
        raise ValueError(
            f"{type(module).__name__}: an automorphism of the template changes the outputs by {max(differences):.1e} of their size; "
            "the template is wrong, please report the module"
        )
    forbidden = [relabelling for kind in (NodeKind.INPUT, NodeKind.OUTPUT) for relabelling in _moves_of(template, kind)]
    for relabelling in forbidden:
        moved = values[permute_values(template, relabelling)]
        if float((run(frozen, template, moved, inputs) - expected).abs().max()) / scale < TOLERANCE:
            raise ValueError(
                f"{type(module).__name__}: exchanging nodes {np.flatnonzero(relabelling != np.arange(len(relabelling))).tolist()} leaves the "
                "outputs unchanged though the template tells them apart; do those inputs or outputs matter?"
            )
    return CheckReport(
        num_values=template.num_values,
        num_automorphisms=num_samples,
        largest_difference=max(differences, default=0.0),
        num_forbidden=len(forbidden),
    )


def exchangeable_nodes(template: GraphTemplate) -> list[Int64[np.ndarray, " count"]]:
    """Sets of two or more hidden nodes that can be permuted freely: nodes with the same neighbours over edges of the same label.

    These generate every automorphism that moves single neurons; whole groups that move together (heads, groups) are not among them.
    """
    edges, label = template.edges, edge_labels(template)
    source, target = edges.edge_index
    ends = np.concatenate([source, target])
    rows = np.stack([np.concatenate([target, source]), np.repeat([0, 1], len(label)), np.tile(label, 2)])
    order = np.lexsort((*rows, ends))
    starts = np.searchsorted(ends[order], np.arange(template.num_nodes + 1))
    sorted_rows = np.ascontiguousarray(rows[:, order].T)
    twins: dict[tuple[int, bytes], list[int]] = {}
    for node in np.flatnonzero(template.node_kind == NodeKind.NEURON).tolist():
        neighbours = sorted_rows[starts[node] : starts[node + 1]].tobytes()
        twins.setdefault((int(template.node_chain[node]), neighbours), []).append(node)
    return [np.array(nodes, dtype=np.int64) for nodes in twins.values() if len(nodes) > 1]


def sample_automorphism(template: GraphTemplate, rng: np.random.Generator) -> Int64[np.ndarray, " num_nodes"]:
    """A random automorphism: node ``i`` is relabelled ``result[i]``."""
    relabelling = np.arange(template.num_nodes)
    for nodes in exchangeable_nodes(template):
        relabelling[nodes] = rng.permutation(nodes)
    return relabelling


def permute_values(
    template: GraphTemplate, relabelling: Int64[np.ndarray, " num_nodes"]
) -> Int64[np.ndarray, " num_values"]:
    """What a relabelling does to the values: ``values[result]`` are those of the relabelled network.

    Raises:
        ValueError: the relabelling does not map edges onto edges with the same label, or pulls a shared value apart.
    """
    edges, label = template.edges, edge_labels(template)
    source, target = edges.edge_index
    before = np.lexsort((label, target, source))
    after = np.lexsort((label, relabelling[target], relabelling[source]))
    same = (
        (source[before] == relabelling[source][after])
        & (target[before] == relabelling[target][after])
        & (label[before] == label[after])
    )
    if not same.all():
        raise ValueError(f"the relabelling maps {int((~same).sum())} of {len(label)} edges onto none of the same label")
    result = np.empty(template.num_values, dtype=np.int64)
    result[edges.value_index[before]] = edges.value_index[after]
    if (result[edges.value_index[before]] != edges.value_index[after]).any():
        raise ValueError("the relabelling pulls a shared value apart")
    return result


def edge_labels(template: GraphTemplate) -> Int64[np.ndarray, " num_edges"]:
    """A number per edge, equal exactly where all features but the value are: kind, geometry, tap, position read and chain."""
    edges = template.edges
    kinds = {
        geometry: number for number, geometry in enumerate(dict.fromkeys(block.geometry for block in template.blocks))
    }
    of_block = np.array([kinds[block.geometry] for block in template.blocks], dtype=np.int64)
    rows = np.stack([of_block[edges.block], edges.tap, edges.site, edges.chain])
    _, label = np.unique(rows, axis=1, return_inverse=True)
    return label.reshape(-1).astype(np.int64)


def random_values(template: GraphTemplate, rng: np.random.Generator) -> Float64[np.ndarray, " num_values"]:
    """Normal values, each tensor scaled so that activations keep their size; no value is special."""
    tensors = [
        rng.standard_normal(slot.size) / np.sqrt(max(1, slot.size // max(1, slot.shape[0] if slot.shape else 1)))
        for slot in template.tensors
    ]
    return np.concatenate([np.empty(0), *tensors])


def run(
    module: nn.Module, template: GraphTemplate, values: Float64[np.ndarray, " num_values"], inputs: Tensor
) -> Tensor:
    """The outputs of a float64 module with these values."""
    parameters = {
        name: torch.from_numpy(values[slot.offset : slot.offset + slot.size]).reshape(slot.shape)
        for slot in template.tensors
        for name in slot.names
    }
    with torch.no_grad():
        return torch.func.functional_call(module, parameters, (inputs,))


def _check_round_trip(module: nn.Module, template: GraphTemplate) -> None:
    expected = module.state_dict()
    found = template.graph(module).state_dict()
    if list(found) != [*expected] and set(found) != set(expected):
        raise ValueError(f"the graph's state dict has {sorted(set(found) ^ set(expected))} in excess or missing")
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not torch.equal(found[name], tensor.cpu()):
            raise ValueError(f"{name}: the graph does not give back the values of the module")


def _moves_of(template: GraphTemplate, kind: NodeKind) -> list[Int64[np.ndarray, " num_nodes"]]:
    """Relabellings that exchange the first and the last node of a kind, where edges allow it."""
    nodes = np.flatnonzero(template.node_kind == kind)
    if len(nodes) < 2:
        return []
    relabelling = np.arange(template.num_nodes)
    relabelling[nodes[[0, -1]]] = nodes[[-1, 0]]
    try:
        permute_values(template, relabelling)
    except ValueError:
        return []  # the two are wired differently: no values can move with them
    return [relabelling]
