"""Is a template right? A test of any module's template, against the module itself.

    report = check(module, trace(module, example_input), example_input)

Reads   a `GraphTemplate` and the module it was traced from
Writes  a `CheckReport`

The symmetries themselves are in `pipeline.automorphisms`, the function that a graph describes in
`pipeline.graph_function`.
"""

import copy
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from pipeline.automorphisms import cycle, edge_labels, exchangeable_nodes, permute_values, sample_automorphism
from pipeline.graph_function import graph_function
from pipeline.parameter_graph import GraphTemplate, NodeKind

TOLERANCE = 1e-9
"""Largest difference of outputs, relative to the largest output, that float64 rounding explains."""
NUM_INPUTS = 16
"""Random inputs to compare outputs on."""
MOST_DRAWS = 32
"""Of random values, until each has acted: in a narrow network, rectified neurons are often off for every input."""
BIAS_SCALE = 0.25
"""Small beside what a neuron sums, so that few rectified ones are off for every input."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` tried; it raises where a law is violated, so that a report is always a good one."""

    num_values: int
    graph_difference: float
    """Between the outputs of the module and those read from the graph alone, relative to the largest output."""
    num_automorphisms: int
    """Sampled relabellings under which the outputs stayed as they were; one for every draw of random values."""
    largest_difference: float
    """Among them, relative to the largest output."""
    num_forbidden: int
    """Permutations of values that the template forbids, which must change the outputs, and did."""
    inert: tuple[str, ...]
    """Tensors some of whose values never had any influence on the outputs, to first order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """A module in float64 with several draws of random values, what it computes for them, and what the graph does."""

    network: nn.Module
    template: GraphTemplate
    inputs: Float64[Tensor, "n ..."]
    draws: list[Float64[Tensor, " num_values"]]
    outputs: list[Float64[Tensor, "n ..."]]
    from_graph: list[Float64[Tensor, "n ..."]]
    acts: Bool[Tensor, " num_values"]
    """Which values had influence on an output in one of the draws."""

    @property
    def scale(self) -> float:
        """The largest output of all draws."""
        return max(float(expected.abs().max()) for expected in self.outputs)

    def change(self, draw: int, permutation: Int64[np.ndarray, " num_values"]) -> float:
        """Largest change of an output when the values of one draw are permuted, relative to the largest output."""
        found = run(self.network, self.template, self.draws[draw][permutation], self.inputs)
        return float((found - self.outputs[draw]).abs().max()) / self.scale


def check(module: nn.Module, template: GraphTemplate, example_input: Tensor, num_samples: int = 3) -> CheckReport:
    """Test a template against its module, on a copy in float64 with every parameter drawn at random.

    Values -> graph -> state dict must be the identity; the function read from the graph must be the module's; sampled
    automorphisms must leave the outputs unchanged; relabelling inputs or outputs, or a set of neurons on one side only,
    must change them.

    Raises:
        ValueError: one of these fails, so that the template does not describe the module.
    """
    try:
        _check_round_trip(module, template)
        _check_edges_differ(template)
        rng = np.random.default_rng(0)
        trial = _make_trial(module, template, example_input, max(1, num_samples), rng)
        return CheckReport(
            num_values=template.num_values,
            graph_difference=_check_function(trial),
            num_automorphisms=len(trial.draws),
            largest_difference=_check_automorphisms(trial, rng),
            num_forbidden=_check_forbidden(trial),
            inert=tuple(slot.names[0] for slot in template.tensors if not trial.acts[slot.place].all()),
        )
    except ValueError as error:
        raise ValueError(f"{type(module).__name__}: {error}") from error


def random_values(template: GraphTemplate, rng: np.random.Generator) -> Float64[Tensor, " num_values"]:
    """Normal values, scaled so that activations keep their size and units stay alive; no value is special."""
    tensors = [
        rng.standard_normal(slot.size) * (max(1, prod(slot.shape[1:])) ** -0.5 if len(slot.shape) > 1 else BIAS_SCALE)
        for slot in template.tensors
    ]
    return torch.from_numpy(np.concatenate(tensors))


def run(module: nn.Module, template: GraphTemplate, values: Float64[Tensor, " num_values"], inputs: Tensor) -> Tensor:
    """The outputs of a float64 module with these values."""
    parameters = {name: values[slot.place].reshape(slot.shape) for slot in template.tensors for name in slot.names}
    with torch.no_grad():
        return torch.func.functional_call(module, parameters, (inputs,))


def _check_round_trip(module: nn.Module, template: GraphTemplate) -> None:
    expected = module.state_dict()
    found = template.graph(module).state_dict()
    if set(found) != set(expected):
        raise ValueError(f"the graph's state dict has {sorted(set(found) ^ set(expected))} in excess or missing")
    for name, tensor in expected.items():
        if tensor.is_floating_point() and found[name].numpy().tobytes() != tensor.cpu().contiguous().numpy().tobytes():
            raise ValueError(f"{name}: the graph does not give back the values of the module")


def _check_edges_differ(template: GraphTemplate) -> None:
    """Two edges between the same nodes with the same label would be exchangeable, whatever their values do."""
    rows = np.concatenate([template.edges.edge_index, edge_labels(template)[None]])
    same = rows.shape[1] - np.unique(rows, axis=1).shape[1]
    if same:
        raise ValueError(
            f"{same} edges have the ends and the label of another; the template cannot tell their values apart"
        )


def _make_trial(
    module: nn.Module, template: GraphTemplate, example_input: Tensor, num_draws: int, rng: np.random.Generator
) -> _Trial:
    """Draw random values, until each has acted; at least ``num_draws`` times."""
    network = copy.deepcopy(module).cpu().double().eval()
    inputs = torch.from_numpy(rng.standard_normal((NUM_INPUTS, *example_input.shape[1:])))
    trial = _Trial(
        network=network,
        template=template,
        inputs=inputs,
        draws=[],
        outputs=[],
        from_graph=[],
        acts=torch.zeros(template.num_values, dtype=torch.bool),
    )
    while len(trial.draws) < num_draws or (len(trial.draws) < MOST_DRAWS and not trial.acts.all()):
        values = random_values(template, rng)
        try:
            expected = run(network, template, values, inputs)
        except RuntimeError as error:
            raise ValueError(f"it fails on inputs of shape {tuple(inputs.shape)}: {error}") from error
        try:
            found, influence = _graph_and_influence(template, values, inputs)
            trial.from_graph.append(found.reshape(expected.shape))
        except (RuntimeError, IndexError, KeyError) as error:
            raise ValueError(f"no function can be read from the template: {error}") from error
        trial.draws.append(values)
        trial.outputs.append(expected)
        trial.acts.logical_or_(influence)
    if not 0 < trial.scale < np.inf:
        raise ValueError(f"its outputs for random values reach {trial.scale}, so that nothing can be compared")
    return trial


def _graph_and_influence(
    template: GraphTemplate, values: Float64[Tensor, " num_values"], inputs: Tensor
) -> tuple[Tensor, Bool[Tensor, " num_values"]]:
    """The outputs read from the graph, and which values have influence on them, to first order."""
    with torch.enable_grad():
        values = values.clone().requires_grad_()
        outputs = graph_function(template, values, inputs)
        weights = torch.linspace(1, 2, outputs.numel(), dtype=torch.float64).reshape(outputs.shape)
        [gradient] = torch.autograd.grad((weights * outputs).sum(), values)
    return outputs.detach(), gradient != 0


def _check_function(trial: _Trial) -> float:
    """Largest difference between the module's outputs and those read from the graph, relative to the largest output."""
    pairs = zip(trial.outputs, trial.from_graph, strict=True)
    difference = max(float((found - expected).abs().max()) for expected, found in pairs) / trial.scale
    if not difference < TOLERANCE:
        raise ValueError(
            f"the function read from the graph differs from the module's by {difference:.1e} of its size; "
            "the template is wrong, please report the module"
        )
    return difference


def _check_automorphisms(trial: _Trial, rng: np.random.Generator) -> float:
    """Largest change of the outputs under one automorphism per draw, relative to the largest output."""
    changes = [
        trial.change(draw, permute_values(trial.template, sample_automorphism(trial.template, rng)))
        for draw in range(len(trial.draws))
    ]
    if not max(changes) < TOLERANCE:
        raise ValueError(
            f"an automorphism of the template changes the outputs by {max(changes):.1e} of their size; "
            "the template is wrong, please report the module"
        )
    return max(changes)


def _check_forbidden(trial: _Trial) -> int:
    """How many permutations of values were tried that must change the outputs in one draw at least."""
    forbidden = _forbidden(trial.template)
    for nodes, permutation in forbidden:
        if not max(trial.change(draw, permutation) for draw in range(len(trial.draws))) > TOLERANCE:
            raise ValueError(
                f"moving the values of nodes {nodes} leaves the outputs unchanged though the template tells these "
                "nodes apart; do they matter?"
            )
    return len(forbidden)


def _forbidden(template: GraphTemplate) -> list[tuple[list[int], Int64[np.ndarray, " num_values"]]]:
    """Permutations of values that must matter, with the nodes they move.

    The first and the last input exchanged, the first and the last output; and each set of exchangeable neurons, on the
    side of the edges that end there alone.
    """
    forbidden: list[tuple[list[int], Int64[np.ndarray, " num_values"]]] = []
    for kind in (NodeKind.INPUT, NodeKind.OUTPUT):
        nodes = np.flatnonzero(template.node_kind == kind)[[0, -1]]
        try:
            forbidden.append((nodes.tolist(), permute_values(template, cycle(template, nodes))))
        except ValueError:
            continue  # the two are wired differently: no values can move with them
    edges = template.edges
    for nodes in exchangeable_nodes(template):
        ends_there = np.isin(edges.edge_index[1], nodes)
        values = np.setdiff1d(edges.value_index[ends_there], edges.value_index[~ends_there])
        permutation = np.arange(template.num_values)
        permutation[values] = permute_values(template, cycle(template, nodes))[values]
        forbidden.append((nodes.tolist(), permutation))
    return [(nodes, moves) for nodes, moves in forbidden if (moves != np.arange(len(moves))).any()]
