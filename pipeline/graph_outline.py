"""What a drawing shows of a template: its node sets in columns, the edges between two of them in bundles, and words.

Reads   the blocks of a `GraphTemplate`, never its single edges
Writes  an `Outline`
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.graph_kinds import NO_BOUND, Chain, EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import Block, GraphTemplate

COUNTED = {
    NodeKind.INPUT: ("channel", "channels"),
    NodeKind.NEURON: ("neuron", "neurons"),
    NodeKind.OUTPUT: ("output", "outputs"),
    NodeKind.BIAS: ("bias node", "bias nodes"),
    NodeKind.SUM: ("sum", "sums"),
    NodeKind.PRODUCT: ("product", "products"),
    NodeKind.MAXIMUM: ("maximum", "maxima"),
    NodeKind.STATISTICS: ("statistic", "statistics"),
    NodeKind.NORMALISED: ("normalised", "normalised"),
    NodeKind.HEAD: ("head", "heads"),
    NodeKind.POSITION: ("position", "positions"),
    NodeKind.TOKEN: ("word", "words"),
}
"""One, and several."""
EDGES = {
    EdgeKind.LINEAR_WEIGHT: "linear",
    EdgeKind.LINEAR_BIAS: "bias",
    EdgeKind.CONV_WEIGHT: "conv",
    EdgeKind.CONV_BIAS: "bias",
    EdgeKind.TRANSPOSED_CONV_WEIGHT: "transposed conv",
    EdgeKind.NORM_BIAS: "bias",
    EdgeKind.NORM_MEAN: "mean",
    EdgeKind.NORM_VARIANCE: "variance",
}
"""Words for kinds of edges; for others their names."""
FACTORS = {EdgeKind.QUERY, EdgeKind.KEY, EdgeKind.ATTENTION, EdgeKind.VALUE}
"""Of products of matrices, which spread their factors over a map by their nature."""
GROUPED = {EdgeKind.LINEAR_WEIGHT, EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT}
OPERATIONS = {
    Operation.RELU: "ReLU",
    Operation.GELU: "GELU",
    Operation.SILU: "SiLU",
    Operation.LEAKY_RELU: "leaky ReLU",
    Operation.ELU: "ELU",
    Operation.GLOBAL_AVERAGE_POOL: "global average",
    Operation.ADAPTIVE_AVERAGE_POOL: "average pool",
    Operation.ADAPTIVE_MAX_POOL: "max pool",
    Operation.MISH: "Mish",
    Operation.UPSAMPLE_NEAREST: "upsample",
    Operation.UPSAMPLE_LINEAR: "upsample linearly",
}
"""Words for operations; for others their names."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """All edges from one node set to another that say the same."""

    source: int
    """Number of a node set."""
    target: int
    kind: EdgeKind
    operations: tuple[str, ...]
    """What happens to the source before it is read."""
    words: tuple[str, ...]
    """What distinguishes the edges, their kind first."""
    num_edges: int


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a drawing shows of a template."""

    template: GraphTemplate
    bundles: tuple[Bundle, ...]
    beside: Mapping[int, int]
    """Node sets that are drawn beside the one they belong to, by number: bias nodes, statistics, positions."""
    column: Mapping[int, int]
    """Of all other node sets: edges on the longest way from the inputs."""
    ends: Mapping[int, tuple[str, ...]]
    """Node sets the network returns, with what happens to them before."""

    def title(self, number: int) -> str:
        """What a node set is called."""
        nodes = self.template.node_sets[number]
        return nodes.name or COUNTED[nodes.kind][0]

    def size(self, number: int) -> str:
        """How many nodes there are of which kind."""
        nodes = self.template.node_sets[number]
        if nodes.kind == NodeKind.HEAD:
            width = self._head_width(number)
            return counted(nodes.count, "head", "heads") + (f" of width {width}" if width else "")
        return counted(nodes.count, *(COUNTED[nodes.kind] if nodes.name else ("node", "nodes")))

    def into(self, number: int) -> list[Bundle]:
        """The bundles that end at a node set."""
        return [bundle for bundle in self.bundles if bundle.target == number]

    def _head_width(self, number: int) -> int:
        """Channels an attention head compares, if all heads compare as many."""
        incoming, count = self.into(number), self.template.node_sets[number].count
        return incoming[0].num_edges // count if len(incoming) == 1 and incoming[0].num_edges % count == 0 else 0


def outline(template: GraphTemplate) -> Outline:
    """What a drawing shows of a template.

    Raises:
        ValueError: two node sets feed each other, so that there is no order of columns.
    """
    sets = np.repeat(np.arange(len(template.node_sets)), [nodes.count for nodes in template.node_sets])
    bundles = _merged(bundle for block in template.blocks for bundle in _bundles(template, block, sets))
    beside = _beside(template, bundles)
    ends: dict[int, tuple[str, ...]] = {}
    for number in np.unique(sets[template.outputs]).tolist():
        chain = int(template.output_chain[np.argmax(sets[template.outputs] == number)])
        ends[number] = tuple(operation_words(template.chains[chain]))
    column = _columns(template, bundles, beside)
    return Outline(template=template, bundles=tuple(bundles), beside=beside, column=column, ends=ends)


def counted(number: int, one: str, several: str) -> str:
    """A number and a noun."""
    return f"{number:,} {one if number == 1 else several}"


def operation_words(chain: Chain) -> Iterator[str]:
    """Words for the operations of a chain, in their order."""
    for step in chain:
        settings = dict(step.settings)
        name = OPERATIONS.get(step.operation, step.operation.name.lower().replace("_", " "))
        match step.operation:
            case Operation.MAX_POOL | Operation.AVERAGE_POOL:
                moves = settings["stride"] != settings["kernel_size"]
                stride = f", stride {extents(settings['stride'])}" if moves else ""
                yield f"{name} {_square(settings['kernel_size'])}{stride}"
            case Operation.SCALE:
                yield f"× {number_words(settings['number'][0])}"
            case Operation.SHIFT:
                yield f"+ {number_words(settings['number'][0])}"
            case Operation.POWER:
                yield f"power {number_words(settings['exponent'][0])}"
            case Operation.LEAKY_RELU:
                yield f"{name} {number_words(settings['negative_slope'][0])}"
            case Operation.CLAMP:
                yield _clamp_words(step)
            case Operation.MEAN | Operation.SUM | Operation.MAXIMUM:
                every = len(settings["axes"]) == len(settings["map_size"])
                axes = ", ".join(f"{axis + 1:g}" for axis in settings["axes"])
                yield f"{name} over map" if every else f"{name} over axis {axes}"
            case _ if "output_size" in settings:
                yield f"{name} to {_square(settings['output_size'])}"
            case _:
                yield name


def _clamp_words(step: Step) -> str:
    settings = dict(step.settings)
    low, high = settings["low"][0], settings["high"][0]
    bounds = [f"from {number_words(low)}"] * (low > -NO_BOUND) + [f"to {number_words(high)}"] * (high < NO_BOUND)
    return " ".join(["clamp", *bounds])


def extents(sizes: Sequence[float] | Sequence[int]) -> str:
    """``3`` for the same number on all axes, else ``3×5``."""
    return f"{sizes[0]:g}" if len(set(sizes)) == 1 else _square(sizes)


def number_words(number: float) -> str:
    """Four digits at most, with the sign of minus."""
    return f"{number:.4g}".replace("-", "−").replace("inf", "∞")


def _square(sizes: Sequence[float] | Sequence[int]) -> str:
    return "×".join(f"{size:g}" for size in sizes)


def _bundles(template: GraphTemplate, block: Block, sets: Int64[np.ndarray, " num_nodes"]) -> Iterator[Bundle]:
    """The edges of a block, apart by set of the source, set of the target, and chain."""
    source, per_source = _per_group(np.stack([sets[block.sources], block.source_chain]), block.num_groups)
    target, per_target = _per_group(sets[block.targets][None], block.num_groups)
    count = per_source.T @ per_target * block.num_taps
    for row, place in np.argwhere(count).tolist():
        number, chain = source[:, row].tolist()
        chosen = (sets[block.sources] == number) & (block.source_chain == chain)
        yield Bundle(
            source=number,
            target=int(target[0, place]),
            kind=block.kind,
            operations=tuple(operation_words(template.chains[chain])),
            words=tuple(_words(template, block, chosen)),
            num_edges=int(count[row, place]),
        )


def _per_group(
    keys: Int64[np.ndarray, "k n"], num_groups: int
) -> tuple[Int64[np.ndarray, "k distinct"], Int64[np.ndarray, "G distinct"]]:
    """The distinct columns of some keys, and how often each stands in every group."""
    distinct, place = np.unique(keys, axis=1, return_inverse=True)
    group = np.repeat(np.arange(num_groups), keys.shape[1] // num_groups)
    counts = np.zeros((num_groups, distinct.shape[1]), dtype=np.int64)
    np.add.at(counts, (group, place.reshape(-1)), 1)
    return distinct, counts


def _words(template: GraphTemplate, block: Block, chosen: np.ndarray) -> Iterator[str]:
    """What distinguishes some edges of a block, by their sources; their kind first."""
    name = EDGES.get(block.kind, block.kind.name.lower().replace("_", " "))
    yield f"{name} {_square(block.kernel_size)}" if block.kernel_size else name
    for word, numbers in (("stride", block.stride), ("dilation", block.dilation)):
        if any(number != 1 for number in numbers):
            yield f"{word} {extents(numbers)}"
    if block.num_groups > 1 and block.kind in GROUPED:
        yield "depthwise" if block.num_targets == block.num_sources == 1 else f"{block.num_groups} groups"
    if factor := _factor(block.constant[chosen]):
        yield factor
    for word, sites in (("from", block.source_site[chosen]), ("to", block.target_site[chosen])):
        distinct = np.unique(sites[sites > 0])
        if len(distinct) and block.kind not in FACTORS:
            yield _places(template, word, distinct)


def _places(template: GraphTemplate, word: str, sites: Int64[np.ndarray, " n"]) -> str:
    """Single positions, or regions of several, that are read or written."""
    if (sites < template.first_region).all():
        return f"{word} {counted(len(sites), 'position', 'positions')}"
    regions = [region for site in sites.tolist() if (region := template.region(site)) is not None]
    if any(len(set(region.positions)) < len(region.positions) for region in regions):
        return "repeated over the map"
    sizes = {(len(region.positions), prod(region.extents)) for region in regions}
    times = f"{len(sites)} × " if len(sites) > 1 else ""
    if len(sizes) > 1:
        return f"{word} {len(sites)} regions"
    [(inside, all_positions)] = sizes
    return f"{word} {times}{inside} of {all_positions} positions"


def _factor(constants: Float64[np.ndarray, " n"]) -> str:
    distinct = np.unique(constants)
    if len(distinct) > 1:
        return f"{len(distinct)} constants"
    return "" if distinct[0] == 1 else f"× {number_words(float(distinct[0]))}"


def _merged(bundles: Iterable[Bundle]) -> list[Bundle]:
    """One for all that say the same."""
    merged: dict[tuple[object, ...], Bundle] = {}
    for bundle in bundles:
        key = (bundle.source, bundle.target, bundle.kind, bundle.operations, bundle.words)
        before = merged[key].num_edges if key in merged else 0
        merged[key] = replace(bundle, num_edges=bundle.num_edges + before)
    return list(merged.values())


def _beside(template: GraphTemplate, bundles: Sequence[Bundle]) -> dict[int, int]:
    """Sets that serve one other set, and that set."""
    targets: dict[int, set[int]] = {}
    for bundle in bundles:
        targets.setdefault(bundle.source, set()).add(bundle.target)
    beside: dict[int, int] = {}
    fed = {bundle.target for bundle in bundles}
    for number, nodes in enumerate(template.node_sets):
        [*owners] = targets.get(number, ())
        constant = nodes.kind in (NodeKind.BIAS, NodeKind.POSITION) and number not in fed
        if len(owners) == 1 and (constant or nodes.kind == NodeKind.STATISTICS):
            beside[number] = owners[0]
    return {number: owner for number, owner in beside.items() if owner not in beside}


def _columns(template: GraphTemplate, bundles: Sequence[Bundle], beside: Mapping[int, int]) -> dict[int, int]:
    """Columns of the sets that are not beside others: as early as the inputs allow, or as late as what they serve."""
    links = {(bundle.source, beside.get(bundle.target, bundle.target)) for bundle in bundles}
    links = {(source, target) for source, target in links if source not in beside}
    column = {number: 0 for number in range(len(template.node_sets)) if number not in beside}
    for _ in range(len(column) + 1):
        before = dict(column)
        for source, target in sorted(links):
            column[target] = max(column[target], column[source] + 1)
        if column == before:
            break
    else:
        raise ValueError("two node sets feed each other, in a circle; a drawing needs an order of columns")
    fed = {number for number, nodes in enumerate(template.node_sets) if nodes.kind == NodeKind.INPUT}
    for _, source, target in sorted((column[source], source, target) for source, target in links):
        fed |= {target} if source in fed else set()
    for number in sorted(set(column) - fed, key=lambda number: -column[number]):
        column[number] = min((column[target] - 1 for source, target in links if source == number), default=0)
    return column
