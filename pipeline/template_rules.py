"""What holds in every template: the rules a text must keep to before anything is computed from it.

Reads   a `GraphTemplate` of any origin
Writes  nothing; `check_template` raises

Nothing is expanded before its size is known. The rules make edges unambiguous and memory bounded; that a template is
the right one for a module is another matter (`pipeline.symmetry`).
"""

from itertools import chain
from math import isfinite, prod

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.parameter_graph import MAX_RANK, Block, EdgeKind, GraphTemplate, NodeKind, Operation, Step
from pipeline.value_layout import INTEGER_DTYPES

MAX_NUMBERS = 2**22
"""Most nodes, positions of grids, and numbers of all rows together; no row of a real network comes near."""
MAX_EDGES = 2**27
"""Most edges and most values."""
EDGES_AT_ONCE = 2**18

POOLING = ("kernel_size", "map_size", "padding", "stride")
SETTINGS: dict[Operation, tuple[str, ...]] = {
    Operation.RELU: (),
    Operation.TANH: (),
    Operation.SIGMOID: (),
    Operation.GELU: ("tanh",),
    Operation.SILU: (),
    Operation.LEAKY_RELU: ("negative_slope",),
    Operation.ELU: ("alpha", "input_scale", "scale"),
    Operation.SIN: (),
    Operation.MAX_POOL: ("ceil_mode", "dilation", *POOLING),
    Operation.AVERAGE_POOL: ("ceil_mode", "count_include_pad", *POOLING),
    Operation.GLOBAL_AVERAGE_POOL: ("map_size",),
    Operation.ADAPTIVE_AVERAGE_POOL: ("map_size", "output_size"),
    Operation.SOFTMAX: (),
    Operation.LOG_SOFTMAX: (),
    Operation.SCALE: ("number",),
    Operation.SHIFT: ("number",),
}
"""The settings of each operation, sorted."""
PER_AXIS = {"kernel_size", "stride", "padding", "dilation", "map_size", "output_size"}
"""Settings with one whole number per axis of the map; all others are one number."""


def check_template(template: GraphTemplate) -> None:
    """Refuse a template whose parts do not fit together.

    Raises:
        ValueError: a rule is broken.
    """
    _check_sizes(template)
    _check_tensors(template)
    _check_nodes(template)
    _check_chains_and_grids(template)
    for number, block in enumerate(template.blocks):
        try:
            _check_block(block, template)
        except ValueError as error:
            raise ValueError(f"block {number}: {error}") from error
    _check_order(template)
    _check_values(template)


def _check_sizes(template: GraphTemplate) -> None:
    for found, what, most in (
        (template.num_nodes, "nodes", MAX_NUMBERS),
        (sum(map(prod, template.grids)), "positions", MAX_NUMBERS),
        (template.num_values, "values", MAX_EDGES),
    ):
        if found > most:
            raise ValueError(f"it has {found} {what}; at most {most} are read")
    for number, block in enumerate(template.blocks):
        if not 1 <= block.num_groups <= min(len(block.targets), len(block.sources)):
            raise ValueError(
                f"block {number}: {len(block.targets)} targets and {len(block.sources)} sources do not make "
                f"{block.num_groups} groups"
            )
    if not template.num_values <= template.num_edges <= MAX_EDGES:
        raise ValueError(
            f"it has {template.num_edges} edges; expected as many as its {template.num_values} values at least, "
            f"and at most {MAX_EDGES}"
        )


def _check_tensors(template: GraphTemplate) -> None:
    names = [name for slot in template.tensors for name in slot.names] + [item.name for item in template.integers]
    if len(set(names)) != len(names) or not all(slot.names for slot in template.tensors):
        raise ValueError("a tensor has no name, or a name is given twice")
    for item in template.integers:
        if item.dtype not in INTEGER_DTYPES:
            raise ValueError(f"{item.name}: found dtype {item.dtype!r}; expected one of {', '.join(INTEGER_DTYPES)}")
        dtype = INTEGER_DTYPES[item.dtype]
        low, high = (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        if len(item.numbers) != prod(item.shape) or not all(low <= number <= high for number in item.numbers):
            raise ValueError(
                f"{item.name}: its {len(item.numbers)} numbers make no tensor {item.shape} of {item.dtype}"
            )


def _check_nodes(template: GraphTemplate) -> None:
    kinds = [nodes.kind for nodes in template.node_sets]
    if not kinds or kinds[0] != NodeKind.INPUT or NodeKind.INPUT in kinds[1:] or NodeKind.OUTPUT in kinds:
        raise ValueError("the first set of nodes must be the inputs, and the others neurons or biases")
    if not all(nodes.count >= 1 and (nodes.count == 1 or nodes.kind != NodeKind.BIAS) for nodes in template.node_sets):
        raise ValueError("a set of nodes is empty, or holds several biases")
    _check_range("outputs", template.outputs, template.num_nodes)
    if not len(template.outputs) == len(np.unique(template.outputs)) == len(template.output_chain) > 0:
        raise ValueError(
            f"{len(template.outputs)} outputs with {len(template.output_chain)} chains; expected one chain each, "
            "and no node twice"
        )
    if (_kinds(template)[template.outputs] != NodeKind.NEURON).any():
        raise ValueError("an output is an input or a bias")


def _check_chains_and_grids(template: GraphTemplate) -> None:
    """Each once, in the order in which edges and outputs speak of them, after the empty one."""
    if template.chains[:1] != ((),) or len(set(template.chains)) != len(template.chains):
        raise ValueError("the first chain must be empty, and no chain stand twice")
    if template.grids[:1] != ((),) or len(set(template.grids)) != len(template.grids):
        raise ValueError("the first grid must be empty, and no grid stand twice")
    if not all(1 <= len(extents) <= MAX_RANK and prod(extents) > 1 for extents in template.grids[1:]):
        raise ValueError(f"a grid has one position, or not 1 to {MAX_RANK} axes")
    for step in chain.from_iterable(template.chains):
        _check_step(step)
    sizes = list(map(prod, template.grids))
    for block in template.blocks:
        _check_range("source_site", block.source_site, sum(sizes))
        _check_range("source_chain", block.source_chain, len(template.chains))
    _check_range("output_chain", template.output_chain, len(template.chains))
    grid_of_site = np.repeat(np.arange(len(sizes)), sizes)
    chains = [block.source_chain for block in template.blocks]
    grids = [grid_of_site[block.source_site] for block in template.blocks]
    for what, numbers, count in (
        ("chain", [*chains, template.output_chain], len(template.chains)),
        ("grid", grids, len(template.grids)),
    ):
        if list(dict.fromkeys([0, *np.concatenate(numbers).tolist()])) != list(range(count)):
            raise ValueError(f"a {what} is never used, or used before one that stands before it")


def _check_step(step: Step) -> None:
    names = tuple(name for name, _ in step.settings)
    if names != SETTINGS[step.operation]:
        raise ValueError(f"{step.operation.name} has the settings {names}; expected {SETTINGS[step.operation]}")
    settings = dict(step.settings)
    rank = len(settings.get("map_size", (0,)))
    for name, numbers in step.settings:
        length = rank if name in PER_AXIS else 1
        least = 0.0 if name == "padding" else 1.0
        fits = all(n >= least and n == int(n) for n in numbers) if name in PER_AXIS else all(map(isfinite, numbers))
        if len(numbers) != length or not 1 <= rank <= MAX_RANK or not fits:
            raise ValueError(f"{step.operation.name} has {name} {numbers}")


def _check_block(block: Block, template: GraphTemplate) -> None:
    G = block.num_groups
    if len(block.targets) % G or len(block.sources) % G:
        raise ValueError(f"{len(block.targets)} targets and {len(block.sources)} sources do not make {G} groups")
    _check_range("targets", block.targets, template.num_nodes)
    _check_range("sources", block.sources, template.num_nodes)
    kinds = _kinds(template)
    bias = block.kind in (EdgeKind.LINEAR_BIAS, EdgeKind.CONV_BIAS)
    if (kinds[block.targets] != NodeKind.NEURON).any() or ((kinds[block.sources] == NodeKind.BIAS) != bias).any():
        raise ValueError("its ends are not of the kind that its edges join")
    _check_geometry(block, bias)
    sources = np.stack([block.sources, block.source_site, block.source_chain]).reshape(3, G, -1)
    targets = block.targets.reshape(1, G, -1)
    if not _increasing(sources) or not _increasing(targets) or len(np.unique(block.targets)) != len(block.targets):
        raise ValueError("its targets or sources are not in order, or one stands twice")


def _check_geometry(block: Block, bias: bool) -> None:
    ranks = {len(block.kernel_size), len(block.stride), len(block.padding), len(block.dilation)}
    positive = (*block.kernel_size, *block.stride, *block.dilation, *block.map_size, 1)
    rank = len(block.map_size)
    right = (
        rank == 0 and not block.source_site.any() and not block.source_chain.any() if bias else 0 <= rank <= MAX_RANK
    )
    expected = {rank} if block.kind == EdgeKind.CONV_WEIGHT else {0}
    if ranks != expected or not right or min(positive) < 1 or (block.tap_stride > 0) != bool(block.kernel_size):
        raise ValueError(f"{block.kind.name} with the geometry {block.geometry[1:]}, tap_stride {block.tap_stride}")


def _check_order(template: GraphTemplate) -> None:
    """Every neuron is computed, used, and read by later blocks only than those that compute it."""
    last_computed = np.full(template.num_nodes, -1, dtype=np.int64)
    first_read = np.full(template.num_nodes, len(template.blocks), dtype=np.int64)
    used = np.zeros(template.num_nodes, dtype=bool)
    used[template.outputs] = True
    for number, block in enumerate(template.blocks):
        last_computed[block.targets] = number
        first_read[block.sources] = np.minimum(first_read[block.sources], number)
        used[block.sources] = True
    neurons = _kinds(template) == NodeKind.NEURON
    if (last_computed >= first_read).any():
        raise ValueError(f"node {int(np.argmax(last_computed >= first_read))} is read before it is computed")
    if (neurons & ((last_computed < 0) | ~used)).any():
        raise ValueError("a neuron is never computed or never used")


def _check_values(template: GraphTemplate) -> None:
    """Every value is carried by an edge, and no edge carries anything else."""
    carried = np.zeros(template.num_values, dtype=bool)
    for number, block in enumerate(template.blocks):
        _check_range(f"block {number}: target_offset", block.target_offset, template.num_values)
        _check_range(f"block {number}: source_offset", block.source_offset, template.num_values)
        last = int(block.target_offset.max() + block.source_offset.max()) + (block.num_taps - 1) * block.tap_stride
        if last >= template.num_values:
            raise ValueError(f"block {number} carries value {last}; expected 0 to {template.num_values - 1}")
        _, O, I, _ = shape = (block.num_groups, block.num_targets, block.num_sources, block.num_taps)
        for start in range(0, block.num_edges, EDGES_AT_ONCE):
            edges = np.arange(start, min(start + EDGES_AT_ONCE, block.num_edges))
            g, o, i, t = np.unravel_index(edges, shape)
            carried[block.target_offset[g * O + o] + block.source_offset[g * I + i] + t * block.tap_stride] = True
    if not carried.all():
        raise ValueError(f"value {int(np.argmin(carried))} is carried by no edge")


def _kinds(template: GraphTemplate) -> Int64[np.ndarray, " num_nodes"]:
    """Kinds as the sets have them: outputs are neurons."""
    kinds = [int(nodes.kind) for nodes in template.node_sets]
    return np.repeat(np.array(kinds, dtype=np.int64), [nodes.count for nodes in template.node_sets])


def _increasing(columns: Int64[np.ndarray, "columns groups n"]) -> bool:
    """Whether the rows of every group increase strictly, the first column counting most."""
    later = np.zeros(columns[0, :, 1:].shape, dtype=bool)
    equal = ~later
    for before, after in ((column[:, :-1], column[:, 1:]) for column in columns):
        later |= equal & (after > before)
        equal &= after == before
    return bool(later.all())


def _check_range(label: str, numbers: Int64[np.ndarray, " n"], end: int) -> None:
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= end):
        raise ValueError(f"{label} reach from {numbers.min()} to {numbers.max()}; expected 0 to {end - 1}")
