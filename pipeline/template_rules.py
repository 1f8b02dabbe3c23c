"""What holds in every template: the rules a text must keep to before anything is computed from it.

Reads   a `GraphTemplate` of any origin
Writes  nothing; `check_template` raises

Nothing is expanded before its size is known. The rules make edges unambiguous and memory bounded, and every node's
meaning complete (those of one block are in `pipeline.edge_rules`); that a template is the right one for a module is
another matter (`pipeline.symmetry`).
"""

from collections.abc import Iterable
from itertools import chain, pairwise
from math import isfinite, prod

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.edge_rules import ONES, RETURNED, Sites, check_block, check_range, check_values, check_writes
from pipeline.elementwise import ELEMENTWISE
from pipeline.graph_kinds import MAX_RANK, EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import GraphTemplate
from pipeline.value_layout import INTEGER_DTYPES

MAX_NUMBERS = 2**22
"""Most nodes, positions of grids, and numbers of all rows together; no row of a real network comes near."""
MAX_EDGES = 2**27
"""Most edges, most values, and most positions of the maps of all regions together."""

POOLING = ("kernel_size", "map_size", "padding", "stride")
SETTINGS: dict[Operation, tuple[str, ...]] = {
    **{operation: record.settings for operation, record in ELEMENTWISE.items()},
    Operation.MAX_POOL: ("ceil_mode", "dilation", *POOLING),
    Operation.AVERAGE_POOL: ("ceil_mode", "count_include_pad", *POOLING),
    Operation.GLOBAL_AVERAGE_POOL: ("map_size",),
    Operation.ADAPTIVE_AVERAGE_POOL: ("map_size", "output_size"),
    Operation.ADAPTIVE_MAX_POOL: ("map_size", "output_size"),
    Operation.UPSAMPLE_NEAREST: ("map_size", "output_size"),
    Operation.UPSAMPLE_LINEAR: ("align_corners", "map_size", "output_size"),
    Operation.SOFTMAX: ("axes", "map_size"),
    Operation.LOG_SOFTMAX: ("axes", "map_size"),
    Operation.MEAN: ("axes", "map_size"),
    Operation.SUM: ("axes", "map_size"),
    Operation.MAXIMUM: ("axes", "map_size"),
    Operation.STANDARDISE: ("axes", "eps", "map_size"),
    Operation.ROOT_MEAN_SQUARE: ("axes", "eps", "map_size"),
}
"""The settings of each operation, sorted."""
PER_AXIS = {"kernel_size", "stride", "padding", "dilation", "map_size", "output_size"}
"""Settings with one whole number per axis of the map; ``axes`` has as many as it likes, and all others are one."""
MOST_AXES = 16
"""No tensor has as many."""
COUPLING = {Operation.SOFTMAX, Operation.LOG_SOFTMAX, Operation.STANDARDISE, Operation.ROOT_MEAN_SQUARE}
"""What statistics are taken for. They may run over nodes alone, on a map without axes."""

NORMALISED_EDGES = [
    {channel, *statistics}
    for channel in (EdgeKind.NORM_WEIGHT, EdgeKind.PASS)
    for statistics in ((EdgeKind.STATISTIC,), (EdgeKind.NORM_MEAN, EdgeKind.NORM_VARIANCE))
]
"""What a normalised node takes, besides its bias: itself, and statistics from a node or running ones."""
FACTORS = [{EdgeKind.QUERY, EdgeKind.KEY}, {EdgeKind.ATTENTION, EdgeKind.VALUE}]
"""What the product of two factors takes, besides a product of anything."""


def check_template(template: GraphTemplate) -> None:
    """Refuse a template whose parts do not fit together.

    Raises:
        ValueError: a rule is broken.
    """
    _check_sizes(template)
    for name in ("input_axes", "output_axes"):
        axes = getattr(template, name)
        if list(axes) != sorted(set(axes)) or not all(1 <= axis < MOST_AXES for axis in axes):
            raise ValueError(f"{name} is {list(axes)}; expected axes after that of the batch, ascending, each once")
    _check_tensors(template)
    kinds = _kinds_of_sets(template)
    _check_nodes(template, kinds)
    _check_sites_and_chains(template)
    sites = Sites.of(template)
    for number, block in enumerate(template.blocks):
        try:
            check_block(block, kinds, sites)
        except ValueError as error:
            raise ValueError(f"block {number}: {error}") from error
    check_writes(template, sites)
    _check_order(template, kinds)
    _check_complete(template)
    check_values(template)


def _check_sizes(template: GraphTemplate) -> None:
    maps = [prod(region.extents) for region in template.regions]
    for found, what, most in (
        (template.num_nodes, "nodes", MAX_NUMBERS),
        (sum(map(prod, template.grids)), "positions", MAX_NUMBERS),
        (max(maps, default=0), "positions in the map of a region", MAX_NUMBERS),
        (sum(maps), "positions in the maps of regions", MAX_EDGES),
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
    carrying = sum(block.num_edges for block in template.blocks if block.kind.carries_value)
    if not template.num_values <= carrying <= template.num_edges <= MAX_EDGES:
        raise ValueError(
            f"it has {template.num_edges} edges, {carrying} of them for values; expected as many as its "
            f"{template.num_values} values at least, and at most {MAX_EDGES} in all"
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


def _kinds_of_sets(template: GraphTemplate) -> Int64[np.ndarray, " num_nodes"]:
    """Kinds as the sets have them, of outputs too."""
    kinds = [int(nodes.kind) for nodes in template.node_sets]
    return np.repeat(np.array(kinds, dtype=np.int64), [nodes.count for nodes in template.node_sets])


def _check_nodes(template: GraphTemplate, kinds: Int64[np.ndarray, " num_nodes"]) -> None:
    of_sets = [nodes.kind for nodes in template.node_sets]
    if not of_sets or of_sets[0] != NodeKind.INPUT or NodeKind.INPUT in of_sets[1:] or NodeKind.OUTPUT in of_sets:
        raise ValueError("the first set of nodes must be the inputs, and the others neither inputs nor outputs")
    if not all(nodes.count >= 1 and (nodes.count == 1 or nodes.kind != NodeKind.BIAS) for nodes in template.node_sets):
        raise ValueError("a set of nodes is empty, or holds several biases")
    check_range("outputs", template.outputs, template.num_nodes)
    if not len(template.outputs) == len(np.unique(template.outputs)) == len(template.output_chain) > 0:
        raise ValueError(
            f"{len(template.outputs)} outputs with {len(template.output_chain)} chains; expected one chain each, "
            "and no node twice"
        )
    strange = ~np.isin(kinds[template.outputs], list(RETURNED))
    if strange.any():
        kind = NodeKind(kinds[template.outputs[np.argmax(strange)]])
        raise ValueError(f"an output is of kind {kind.name}; expected one of {', '.join(k.name for k in RETURNED)}")


def _check_sites_and_chains(template: GraphTemplate) -> None:
    """Chains, grids and regions, each once, in the order in which nodes, edges and outputs speak of them."""
    for what, kept in (("chain", template.chains), ("grid", template.grids)):
        if kept[:1] != ((),) or len(set(kept)) != len(kept):
            raise ValueError(f"the first {what} must be empty, and no {what} stand twice")
    if not all(1 <= len(extents) <= MAX_RANK and prod(extents) > 1 for extents in template.grids[1:]):
        raise ValueError(f"a grid has one position, or not 1 to {MAX_RANK} axes")
    for number, region in enumerate(template.regions):
        check_range(f"region {number}: positions", np.array(region.positions, dtype=np.int64), prod(region.extents))
        if not 1 <= len(region.extents) <= MAX_RANK or len(region.positions) < 2:
            raise ValueError(f"region {number} has not 1 to {MAX_RANK} axes, or fewer than two positions")
    if len(set(template.regions)) != len(template.regions):
        raise ValueError("a region stands twice")
    for step in chain.from_iterable(template.chains):
        _check_step(step)
    num_sites = template.first_region + len(template.regions)
    chains = [np.array([nodes.chain for nodes in template.node_sets])]
    for block in template.blocks:
        check_range("source_site", block.source_site, num_sites)
        check_range("target_site", block.target_site, num_sites)
        chains.append(block.source_chain)
    for label, numbers in (("a node set's chain", chains[0]), *(("source_chain", row) for row in chains[1:])):
        check_range(label, numbers, len(template.chains))
    check_range("output_chain", template.output_chain, len(template.chains))
    sites = np.concatenate(
        [[0], *(row for block in template.blocks for row in (block.source_site, block.target_site))]
    ).astype(np.int64)
    sizes = list(map(prod, template.grids))
    grid_of_site = np.repeat(np.arange(len(sizes)), sizes)
    regions = sites[sites >= template.first_region] - template.first_region
    _check_first_use("chain", [0, *np.concatenate([*chains, template.output_chain]).tolist()], len(template.chains))
    _check_first_use("grid", grid_of_site[sites[sites < template.first_region]].tolist(), len(template.grids))
    _check_first_use("region", regions.tolist(), len(template.regions))


def _check_first_use(what: str, mentions: Iterable[int], count: int) -> None:
    if list(dict.fromkeys(mentions)) != list(range(count)):
        raise ValueError(f"a {what} is never used, or used before one that stands before it")


def _check_step(step: Step) -> None:
    names = tuple(name for name, _ in step.settings)
    if names != SETTINGS[step.operation]:
        raise ValueError(f"{step.operation.name} has the settings {names}; expected {SETTINGS[step.operation]}")
    settings = dict(step.settings)
    rank = len(settings.get("map_size", (0,)))
    least_rank = 0 if step.operation in COUPLING else 1
    for name, numbers in step.settings:
        if not least_rank <= rank <= MAX_RANK or not _fits(step.operation, name, numbers, rank):
            raise ValueError(f"{step.operation.name} has {name} {numbers}")


def _fits(operation: Operation, name: str, numbers: tuple[float, ...], rank: int) -> bool:
    """Whether a setting has as many numbers as it must, of the right sort."""
    if name == "axes":
        ascending = all(before < after for before, after in pairwise(numbers))
        return ascending and all(n in range(rank) for n in numbers) and (operation in COUPLING or len(numbers) > 0)
    if name in PER_AXIS:
        least = 0.0 if name == "padding" else 1.0
        return len(numbers) == rank and all(n >= least and n == int(n) for n in numbers)
    return len(numbers) == 1 and (isfinite(numbers[0]) or (operation, name, numbers[0]) in OPEN_ENDS)


OPEN_ENDS = {(Operation.CLAMP, "low", float("-inf")), (Operation.CLAMP, "high", float("inf"))}
"""Settings that may be infinite."""


def _check_order(template: GraphTemplate, kinds: Int64[np.ndarray, " num_nodes"]) -> None:
    """What edges compute is computed, used, and read by later blocks only than those that compute it."""
    last_computed = np.full(template.num_nodes, -1, dtype=np.int64)
    first_read = np.full(template.num_nodes, len(template.blocks), dtype=np.int64)
    used = np.zeros(template.num_nodes, dtype=bool)
    used[template.outputs] = True
    for number, block in enumerate(template.blocks):
        last_computed[block.targets] = number
        first_read[block.sources] = np.minimum(first_read[block.sources], number)
        used[block.sources] = True
    if (last_computed >= first_read).any():
        raise ValueError(f"node {int(np.argmax(last_computed >= first_read))} is read before it is computed")
    given = np.isin(kinds, [NodeKind.INPUT, *ONES])
    idle = ~given & ((last_computed < 0) | ~used)
    if idle.any():
        kind = NodeKind(kinds[np.argmax(idle)])
        raise ValueError(f"node {int(np.argmax(idle))}, {kind.name}, is never computed or never used")


def _check_complete(template: GraphTemplate) -> None:
    """Every node has the edges, and its set the chain, that say what it computes."""
    taken = np.zeros(template.num_nodes, dtype=np.int64)  # kinds of the edges into each node, one bit each
    for block in template.blocks:
        taken[block.targets] |= 1 << block.kind
    first = 0
    for nodes in template.node_sets:
        operations = [step.operation for step in template.chains[nodes.chain]]
        for bits in np.unique(taken[first : first + nodes.count]).tolist():
            kinds = {kind for kind in EdgeKind if bits >> kind & 1}
            if not _complete(nodes.kind, kinds, operations):
                found = ", ".join(sorted(kind.name for kind in kinds)) or "no"
                raise ValueError(
                    f"{nodes.kind.name} nodes from {first} on take {found} edges and have the chain "
                    f"{[operation.name for operation in operations]}; together they say nothing that can be computed"
                )
        first += nodes.count


def _complete(kind: NodeKind, edges: set[EdgeKind], operations: list[Operation]) -> bool:
    """Whether edges of these kinds, and the chain of its set, say what a node computes."""
    match kind:
        case NodeKind.STATISTICS:
            return len(operations) == 1 and operations[0] in COUPLING
        case NodeKind.NORMALISED:
            expected = [Operation.STANDARDISE] if EdgeKind.NORM_MEAN in edges else []
            return edges - {EdgeKind.NORM_BIAS} in NORMALISED_EDGES and operations == expected
        case NodeKind.PRODUCT:
            return not operations and (edges in FACTORS or not edges & set.union(*FACTORS))
        case _:
            return not operations
