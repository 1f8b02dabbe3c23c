"""Is a template right? A test of any module's template, against the module itself.

    report = check(module, trace(module, example_input), example_input)

Reads   a `GraphTemplate` and the module it was traced from
Writes  a `CheckReport`

The symmetries themselves are in `pipeline.symmetry_group`, what they do to values in `pipeline.automorphisms`, the
function that a graph describes in `pipeline.graph_function`.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from pipeline.automorphisms import carry_values, cycle, edge_labels, exchangeable_rows, permute_values
from pipeline.graph_function import graph_function
from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.module_copies import copied
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry_group import SymmetryGroup, symmetry_group

TOLERANCE = 1e-9
"""Largest difference of outputs, relative to the largest output, that float64 rounding explains."""
CONSTANTS = 1e-6
"""Largest difference that constants in float32 explain, of which torch makes some where it expresses operations in
others."""
GAINS = (1.0, 2**0.5)
"""Of the random weights, in turn: with the second, signals keep their size through many rectified layers."""
NUM_INPUTS = 16
"""Random inputs to compare outputs on."""
FRUITLESS_DRAWS = 24
"""Of random values, in which no further one acts: in a narrow network, rectified neurons are often off for every input,
and one draw does not tell what never acts."""
BIAS_SCALE = 0.25
"""Small beside what a neuron sums, so that few rectified ones are off for every input."""
NO_INFLUENCE = 1e-11
"""Of a gradient, relative to the largest: rounding."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` tried; it raises where a law is violated, so that a report is always a good one."""

    num_values: int
    graph_difference: float
    """Between the outputs of the module and those read from the graph alone, relative to the largest output."""
    group: str
    """The symmetry group of the template, as `SymmetryGroup.describe` writes it."""
    group_order: int
    """How many relabellings of neurons preserve the function for all values."""
    num_automorphisms: int
    """Sampled relabellings under which the outputs stayed as they were; one for every draw of random values."""
    largest_difference: float
    """Among them, relative to the largest output."""
    num_forbidden: int
    """Permutations of values that the template forbids, which must change the outputs, and did."""
    inert: tuple[str, ...]
    """Tensors some of whose values never had any influence on the outputs, to first order: the bias of attention keys,
    or one before an instance norm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """A module in float64 with several draws of random values, what it computes for them, and what the graph does."""

    network: nn.Module
    template: GraphTemplate
    inputs: Tensor
    draws: list[Float64[Tensor, " num_values"]]
    outputs: list[Float64[Tensor, "n ..."]]
    from_graph: list[Float64[Tensor, "n ..."]]
    acts: Bool[Tensor, " num_values"]
    """Which values had influence on an output in one of the draws."""

    def scale(self, draw: int) -> float:
        """The largest output of one draw; 1 if all are 0."""
        return float(self.outputs[draw].abs().max()) or 1.0

    def change(self, draw: int, permutation: Int64[np.ndarray, " num_values"]) -> float:
        """Largest change of an output when the values of one draw are permuted, relative to the largest output."""
        found = run(self.network, self.template, self.draws[draw][permutation], self.inputs)
        return float((found - self.outputs[draw]).abs().max()) / self.scale(draw)


@torch.inference_mode(mode=False)
def check(module: nn.Module, template: GraphTemplate, example_input: Tensor, num_samples: int = 3) -> CheckReport:
    """Test a template against its module, on a copy in float64 with every parameter drawn at random.

    Values -> graph -> state dict must be the identity; the function read from the graph must be the module's; sampled
    automorphisms must leave the outputs unchanged; relabelling inputs or outputs, or a set of neurons on one side only,
    must change them.

    Raises:
        ValueError: one of these fails, so that the template does not describe the module.
    """
    if not (isinstance(template, GraphTemplate) and isinstance(example_input, Tensor)):
        raise ValueError(
            f"found {type(template).__name__} and {type(example_input).__name__}; expected a template and a tensor"
        )
    try:
        rng = np.random.default_rng(0)
        _check_round_trip(module, template)
        _check_edges_differ(template)
        trial = _make_trial(module, template, example_input, max(1, num_samples), rng)
        difference = _check_function(trial)
        group = symmetry_group(template)
        return CheckReport(
            num_values=template.num_values,
            graph_difference=difference,
            group=group.describe(),
            group_order=group.order,
            num_automorphisms=len(trial.draws),
            largest_difference=_check_automorphisms(trial, group, rng),
            num_forbidden=_check_forbidden(trial),
            inert=tuple(slot.names[0] for slot in template.tensors if not trial.acts[slot.place].all()),
        )
    except ValueError as error:
        raise ValueError(f"{type(module).__name__}: {error}") from error


def random_values(
    template: GraphTemplate, rng: np.random.Generator, gain: float = 1.0
) -> Float64[Tensor, " num_values"]:
    """Normal values, scaled so that activations keep their size and units stay alive; variances are positive."""
    tensors = [
        rng.standard_normal(slot.size)
        * (gain * max(1, prod(slot.shape[1:])) ** -0.5 if len(slot.shape) > 1 else BIAS_SCALE)
        for slot in template.tensors
    ]
    values = np.concatenate([np.empty(0), *tensors])
    # Factors about 1: with smaller ones deep networks forget their inputs, and nothing could be told from the outputs.
    factors = [block.value_index.reshape(-1) for block in template.blocks if block.kind == EdgeKind.NORM_WEIGHT]
    values[np.unique(np.concatenate([np.empty(0, dtype=np.int64), *factors]))] += 1
    for block in template.blocks:
        if block.kind == EdgeKind.NORM_VARIANCE:
            values[block.value_index.reshape(-1)] = np.abs(values[block.value_index.reshape(-1)]) + BIAS_SCALE
    return torch.from_numpy(values)


def random_inputs(template: GraphTemplate, example_input: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal inputs in float64, or words of the vocabulary."""
    shape = (NUM_INPUTS, *example_input.shape[1:])
    if example_input.is_floating_point():
        return torch.from_numpy(rng.standard_normal(shape))
    words = min((nodes.count for nodes in template.node_sets if nodes.kind == NodeKind.TOKEN), default=1)
    return torch.from_numpy(rng.integers(0, words, shape))


def run(module: nn.Module, template: GraphTemplate, values: Float64[Tensor, " num_values"], inputs: Tensor) -> Tensor:
    """The outputs of a float64 module with these values."""
    values = values.detach().requires_grad_()
    learned = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    parameters: dict[str, Tensor] = {}
    for slot in template.tensors:
        tensor = values[slot.place].reshape(slot.shape)
        parameters |= dict.fromkeys(slot.names, tensor if slot.names[0] in learned else tensor.detach())
    if inputs.is_floating_point():
        inputs = inputs.detach().requires_grad_().clone()
    with torch.enable_grad(), _StaysDouble():
        return torch.func.functional_call(copied(module), parameters, (inputs,)).detach()


BLANK = (torch.zeros, torch.empty)
"""What modules make to fill it."""
ATTENTION = (functional.scaled_dot_product_attention, functional.multi_head_attention_forward)
"""Torch 2.13 computes them wrong for float64 queries with a float32 mask, from 16 tokens on."""


class _StaysDouble(TorchFunctionMode):
    """Without the casts to float32 of modules that take their softmax or norm so whatever they get: what depends on
    values or inputs stays float64, also where it fills a tensor. Constants are cast, as they were when the module was
    traced."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        casts = func is Tensor.float or any(given is torch.float32 for given in (*args, *kwargs.values()))
        if casts and isinstance(args[0], Tensor) and args[0].requires_grad and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = [torch.float64 if given is torch.float32 else given for given in args]
            kwargs = {name: torch.float64 if given is torch.float32 else given for name, given in kwargs.items()}
        if func in ATTENTION:
            args, kwargs = tree_map(_doubled, (tuple(args), kwargs))
        result = func(*args, **kwargs)
        if func in BLANK and result.dtype == torch.float32:
            return result.double()
        return result.float().double() if func is torch.tensor and result.dtype == torch.float64 else result


def _doubled(given: Any) -> Any:
    return given.double() if isinstance(given, Tensor) and given.dtype == torch.float32 else given


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
    rows = rows[:, template.edges.value_index >= 0]
    same = rows.shape[1] - np.unique(rows, axis=1).shape[1]
    if same:
        raise ValueError(
            f"{same} edges have the ends and the label of another; the template cannot tell their values apart"
        )


def _make_trial(
    module: nn.Module, template: GraphTemplate, example_input: Tensor, num_draws: int, rng: np.random.Generator
) -> _Trial:
    """Draw random values, until each has acted or none has for a while; at least ``num_draws`` times."""
    network = copied(module).cpu().double().eval()
    inputs = random_inputs(template, example_input, rng)
    acts = torch.zeros(template.num_values, dtype=torch.bool)
    trial = _Trial(network=network, template=template, inputs=inputs, draws=[], outputs=[], from_graph=[], acts=acts)
    fruitless = 0
    touched = torch.zeros(template.num_values, dtype=torch.bool)
    while len(trial.draws) < num_draws or (fruitless < FRUITLESS_DRAWS and not touched.all()):
        values = random_values(template, rng, GAINS[len(trial.draws) % len(GAINS)])
        try:
            expected = run(network, template, values, inputs)
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"it fails on inputs of shape {tuple(inputs.shape)}: {error}") from error
        try:
            found, gradient = _graph_and_gradient(template, values, inputs)
            trial.from_graph.append(_arranged(found, template.output_axes, tuple(expected.shape)))
        except (RuntimeError, IndexError, KeyError, AssertionError) as error:
            raise ValueError(f"no function can be read from the template: {error}") from error
        trial.draws.append(values)
        trial.outputs.append(expected)
        fruitless = 0 if ((gradient != 0) & ~touched).any() else fruitless + 1
        touched.logical_or_(gradient != 0)
        largest = gradient.abs().max() if len(gradient) else 0.0
        acts.logical_or_(gradient.abs() > NO_INFLUENCE * largest)
    largest = max(float(expected.abs().max()) for expected in trial.outputs)
    if not 0 < largest < np.inf:
        raise ValueError(f"its outputs for random values reach {largest}, so that nothing can be compared")
    return trial


def _arranged(
    outputs: Float64[Tensor, "n num_outputs ..."], axes: tuple[int, ...], shape: tuple[int, ...]
) -> Float64[Tensor, "n ..."]:
    """Outputs ``[n, outputs, *map]`` with their axes where the module has them."""
    rest = [axis for axis in range(1, len(shape)) if axis not in axes]
    order = [0, *axes, *rest]
    apart = outputs.reshape([shape[axis] for axis in order])
    return apart.permute([order.index(axis) for axis in range(len(shape))])


def _graph_and_gradient(
    template: GraphTemplate, values: Float64[Tensor, " num_values"], inputs: Tensor
) -> tuple[Tensor, Float64[Tensor, " num_values"]]:
    """The outputs read from the graph, and the gradient of one number made of all of them."""
    with torch.enable_grad():
        values = values.clone().requires_grad_()
        outputs = graph_function(template, values, inputs)
        if not outputs.requires_grad:  # there are no values
            return outputs, torch.zeros_like(values)
        weights = torch.linspace(1, 2, outputs.numel(), dtype=torch.float64).reshape(outputs.shape)
        [gradient] = torch.autograd.grad((weights * outputs.sin()).sum(), values)
    return outputs.detach(), gradient


def _check_function(trial: _Trial) -> float:
    """Largest difference between the module's outputs and those read from the graph, relative to the largest output."""
    pairs = enumerate(zip(trial.outputs, trial.from_graph, strict=True))
    difference = max(float((found - expected).abs().max()) / trial.scale(draw) for draw, (expected, found) in pairs)
    if not difference < CONSTANTS:
        raise ValueError(
            f"the function read from the graph differs from the module's by {difference:.1e} of its size; "
            "the template is wrong, please report the module"
        )
    return difference


def _check_automorphisms(trial: _Trial, group: SymmetryGroup, rng: np.random.Generator) -> float:
    """Largest change of the outputs under one automorphism per draw, relative to the largest output."""
    changes = [
        trial.change(draw, permute_values(trial.template, group.sample(rng))) for draw in range(len(trial.draws))
    ]
    if not max(changes) < TOLERANCE:
        raise ValueError(
            f"an automorphism of the template changes the outputs by {max(changes):.1e} of their size; "
            "the template is wrong, please report the module"
        )
    return max(changes)


def _check_forbidden(trial: _Trial) -> int:
    """How many permutations of values were tried that must change the outputs in one draw at least."""
    forbidden = [
        (nodes, moves)
        for nodes, moves in _forbidden(trial.template)
        if trial.acts[moves != np.arange(len(moves))].any()
    ]
    for nodes, moves in forbidden:
        if not any(trial.change(draw, moves) > TOLERANCE for draw in range(len(trial.draws))):
            raise ValueError(
                f"moving the values of nodes {nodes} leaves the outputs unchanged though the template tells these "
                "nodes apart; do they matter?"
            )
    return len(forbidden)


def _forbidden(template: GraphTemplate) -> list[tuple[list[int], Int64[np.ndarray, " num_values"]]]:
    """Permutations of values that must matter, with the nodes they move.

    The first and the last input exchanged, the first and the last output; and for each set of nodes that are permuted
    freely together with others, the values of the edges that end at them moved, and no other values.
    """
    forbidden: list[tuple[list[int], Int64[np.ndarray, " num_values"]]] = []
    for kind in (NodeKind.INPUT, NodeKind.OUTPUT):
        nodes = np.flatnonzero(template.node_kind == kind)[[0, -1]]
        try:
            forbidden.append((nodes.tolist(), carry_values(template, cycle(template, nodes))))
        except ValueError:
            continue  # the two are wired differently: no values can move with them
    edges = template.edges
    biases = np.flatnonzero(template.node_kind == NodeKind.BIAS)
    for rows in exchangeable_rows(template):
        if np.isin(rows, biases).any():
            continue  # whole layers side by side: their neurons may be alike one by one, which bias nodes forbid
        allowed = permute_values(template, cycle(template, rows))
        for nodes in rows.T:
            values = edges.value_index[np.isin(edges.edge_index[1], nodes)]
            values = np.unique(values[values >= 0])
            moves = np.arange(template.num_values)
            moves[values] = allowed[values]
            whole = (np.sort(moves) == np.arange(template.num_values)).all()
            if whole and (moves != allowed).any():
                forbidden.append((nodes.tolist(), moves))
    return [(nodes, moves) for nodes, moves in forbidden if (moves != np.arange(len(moves))).any()]
