"""What a drawing says of a node set: its name, what it is, how many nodes it has, and on which map they live.

Reads   the node sets, chains and blocks of a `GraphTemplate`, and its edges in bundles
Writes  `SetWords`

Nodes that a convolution writes or that are images are channels, all others features; sums, products and norms are
called what they read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from pipeline.drawing_words import counted, square
from pipeline.edge_bundles import FACTORS, Bundle
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation
from pipeline.parameter_graph import Block, GraphTemplate, NodeSet

COUNTED = {
    NodeKind.INPUT: ("input", "inputs"),
    NodeKind.NEURON: ("neuron", "neurons"),
    NodeKind.OUTPUT: ("output", "outputs"),
    NodeKind.BIAS: ("bias node", "bias nodes"),
    NodeKind.SUM: ("sum", "sums"),
    NodeKind.PRODUCT: ("product", "products"),
    NodeKind.MAXIMUM: ("maximum", "maxima"),
    NodeKind.STATISTICS: ("statistics node", "statistics nodes"),
    NodeKind.NORMALISED: ("normalised", "normalised"),
    NodeKind.HEAD: ("head", "heads"),
    NodeKind.POSITION: ("position", "positions"),
    NodeKind.TOKEN: ("word", "words"),
}
"""One, and several."""
PLAIN_COUNT = {NodeKind.BIAS, NodeKind.POSITION, NodeKind.TOKEN, NodeKind.STATISTICS}
"""Kinds of nodes that have no map, or whose map goes without saying."""
CONVOLVED = {EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT}
CONSTANTS = {EdgeKind.LINEAR_BIAS, EdgeKind.CONV_BIAS, EdgeKind.NORM_BIAS, EdgeKind.NORM_MEAN, EdgeKind.NORM_VARIANCE}
READ_AS = {EdgeKind.QUERY: "queries", EdgeKind.KEY: "keys", EdgeKind.VALUE: "values"}


@dataclass(frozen=True, kw_only=True)
class SetWords:
    """What is said of a node set."""

    title: str
    role: tuple[str, ...] = ()
    """Lines: what it is, where its name and its colour do not say so."""
    place: str = ""
    """``1 of 2`` where others have the same title and role."""
    size: tuple[str, ...] = ()
    """Lines: how many nodes, and the map they live on."""

    @property
    def name(self) -> str:
        """In a line, where the set is mentioned elsewhere."""
        return f"{self.title} {self.place}".rstrip()

    @property
    def lines(self) -> list[str]:
        """Under the title."""
        last = ", ".join(filter(None, [*self.role[-1:], self.place]))
        return [*self.role[:-1], *[last] * bool(last), *self.size]


def words_of_sets(
    template: GraphTemplate, bundles: Sequence[Bundle], sets: Int64[np.ndarray, " num_nodes"], beside: Mapping[int, int]
) -> tuple[SetWords, ...]:
    """What is said of every node set; no two of those that have a box of their own are called the same.

    Args:
        sets: number of every node's set.
        beside: sets without a box of their own.
    """
    maps = _maps(template, sets)
    channels = _channel_sets(template, bundles, maps)
    paired = _paired_sets(template, bundles, maps)
    words = []
    for number, nodes in enumerate(template.node_sets):
        into = [bundle for bundle in bundles if bundle.target == number]
        role = tuple(_roles(template, bundles, number))
        paired_noun = "product" if nodes.kind == NodeKind.PRODUCT else "score"
        noun = "channel" if number in channels else paired_noun if number in paired else "feature"
        noun = "head" if nodes.kind == NodeKind.HEAD else noun
        size = tuple(_sizes(nodes, into, maps.get(number, ()), noun))
        words.append(SetWords(title=nodes.name or COUNTED[nodes.kind][0], role=role, size=size))
    return tuple(_told_apart(words, bundles, beside))


def _told_apart(words: Sequence[SetWords], bundles: Sequence[Bundle], beside: Mapping[int, int]) -> Iterator[SetWords]:
    """With the operation for sets that share a name, and numbers for those that share this too."""
    boxes = [number for number in range(len(words)) if number not in beside]
    titles = [words[number].title for number in boxes]
    told = list(words)
    for number in boxes:
        first = next((b.words[0] for b in bundles if b.target == number and b.source not in beside), "")
        if titles.count(words[number].title) > 1 and not words[number].role and first not in ("", "pass"):
            told[number] = replace(words[number], role=(first,))
    names = {number: (told[number].title, told[number].role) for number in boxes}
    for number, name in names.items():
        alike = [other for other in boxes if names[other] == name]
        if len(alike) > 1:
            told[number] = replace(told[number], place=f"{alike.index(number) + 1} of {len(alike)}")
    yield from told


def _roles(template: GraphTemplate, bundles: Sequence[Bundle], number: int) -> Iterator[str]:
    """Lines that say what a node set is."""
    nodes = template.node_sets[number]
    into = {bundle.kind for bundle in bundles if bundle.target == number}
    match nodes.kind:
        case NodeKind.NORMALISED:
            yield from _norm_words(template, bundles, number)
        case NodeKind.HEAD:
            yield "scores"
        case NodeKind.PRODUCT if EdgeKind.QUERY in into:
            yield "queries × keys"
        case NodeKind.PRODUCT if EdgeKind.ATTENTION in into:
            yield "attention × values"
        case NodeKind.NEURON | NodeKind.INPUT:
            read_as = {bundle.kind for bundle in bundles if bundle.source == number}
            words = [word for kind, word in READ_AS.items() if kind in read_as]
            if words:
                yield ", ".join(words)
            elif into == {EdgeKind.OFFSET}:
                yield "learned constants"
        case NodeKind.SUM | NodeKind.PRODUCT | NodeKind.MAXIMUM if nodes.name:
            yield COUNTED[nodes.kind][0]


def _norm_words(template: GraphTemplate, bundles: Sequence[Bundle], number: int) -> Iterator[str]:
    """Which norm it is, by the step and the number of its statistics, and what these run over."""
    into = [bundle for bundle in bundles if bundle.target == number]
    statistics = [bundle.source for bundle in into if bundle.kind == EdgeKind.STATISTIC]
    if not statistics:
        yield from ("batch norm", "(running statistics)")
        return
    nodes = template.node_sets[statistics[0]]
    step = template.chains[nodes.chain][0]
    settings = dict(step.settings)
    over_map = len(settings["axes"]) > 0
    count, groups = nodes.count, f"({counted(nodes.count, 'group', 'groups')})"
    per_place = any(word.startswith("to ") for bundle in into for word in bundle.words)
    match step.operation:
        case Operation.SOFTMAX | Operation.LOG_SOFTMAX:
            yield step.operation.name.lower().replace("_", " ") + f" {groups}" * (count > 1)
        case Operation.ROOT_MEAN_SQUARE:
            yield "RMS norm" + f" {groups}" * (count > 1)
        case _ if over_map and count == template.node_sets[number].count:
            yield "instance norm"
        case _ if (count > 1 and (over_map or not settings["map_size"])) or (over_map and not per_place):
            yield f"group norm {groups}"
        case _:
            yield "layer norm" + f" {groups}" * (count > 1)
    if settings["map_size"]:
        yield "over positions" if over_map else "per position"


def _sizes(nodes: NodeSet, into: Sequence[Bundle], map_size: tuple[int, ...], noun: str) -> Iterator[str]:
    """Lines that say how many nodes there are, and the map they live on."""
    if nodes.kind in PLAIN_COUNT:
        yield counted(nodes.count, *COUNTED[nodes.kind])
        return
    words, longer = counted(nodes.count, noun, f"{noun}s"), [extent for extent in map_size if extent > 1]
    if noun == "channel":
        length = "length " if len(map_size) == 1 else ""
        yield words + (f" of {length}{square(map_size)}" if map_size else "")
        return
    if noun == "head" and len(into) == 1 and into[0].num_edges % nodes.count == 0:
        width = into[0].num_edges // nodes.count
        yield f"{words} of width {width}"
        yield f"each sums {counted(width, 'product', 'products')}"
    else:
        yield words
    if noun in ("product", "score", "head") and len(longer) == 2:
        yield f"pairs of positions {square(longer)}"
    elif longer:
        yield f"at {square(longer)} positions"


def _maps(template: GraphTemplate, sets: Int64[np.ndarray, " num_nodes"]) -> dict[int, tuple[int, ...]]:
    """The map each node set lives on: what is written, else what is read as it is."""
    found: dict[int, tuple[int, ...]] = {}
    for block in template.blocks:
        if block.kind not in CONSTANTS:
            for number in np.unique(sets[block.targets]).tolist():
                found.setdefault(number, _written(block))
    empty = np.array([not chain for chain in template.chains])
    for block in template.blocks:
        untouched = empty[block.source_chain]
        for number in np.unique(sets[block.sources[untouched]]).tolist():
            chosen = untouched & (sets[block.sources] == number)
            region = template.region(int(block.source_site[chosen][0]))
            found.setdefault(number, region.extents if region else block.map_size)
    return found


def _written(block: Block) -> tuple[int, ...]:
    """The map a block writes."""
    if not block.stride:
        return block.map_size
    axes = zip(block.map_size, block.kernel_size, block.stride, block.padding, block.dilation, strict=True)
    if block.kind == EdgeKind.TRANSPOSED_CONV_WEIGHT:
        more = block.output_padding or (0,) * len(block.stride)
        return tuple((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for (n, k, s, p, d), o in zip(axes, more, strict=True))
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


def _channel_sets(template: GraphTemplate, bundles: Sequence[Bundle], maps: Mapping[int, tuple[int, ...]]) -> set[int]:
    """Sets whose nodes are called channels."""
    found = {bundle.target for bundle in bundles if bundle.kind in CONVOLVED}
    for bundle in bundles:
        if template.node_sets[bundle.source].kind == NodeKind.INPUT:
            image = sum(extent > 1 for extent in maps.get(bundle.source, ())) > 1 or bundle.kind in CONVOLVED
            found |= {bundle.source} if image else set()
    own = {bundle.target for bundle in bundles if bundle.kind in (EdgeKind.LINEAR_WEIGHT, EdgeKind.EMBEDDING)}
    alike = [b for b in bundles if b.target not in own and len(maps.get(b.source, ())) == len(maps.get(b.target, ()))]
    while more := {bundle.target for bundle in alike if bundle.source in found} - found:
        found |= more
    return found


def _paired_sets(template: GraphTemplate, bundles: Sequence[Bundle], maps: Mapping[int, tuple[int, ...]]) -> set[int]:
    """Products of factors from two positions, the scores that sum them, and these with a mask."""
    found = {bundle.target for bundle in bundles if bundle.kind in FACTORS}
    for bundle in bundles:
        summed = template.node_sets[bundle.target].kind in (NodeKind.HEAD, NodeKind.SUM)
        if bundle.source in found and summed and maps.get(bundle.source) == maps.get(bundle.target):
            found.add(bundle.target)
    return found
