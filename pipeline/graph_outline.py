"""What a drawing shows of a template: its node sets in columns, the edges between two of them in bundles, and words.

Reads   the blocks of a `GraphTemplate`, never its single edges
Writes  an `Outline`
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.drawing_words import operation_words
from pipeline.edge_bundles import Bundle, attended_sets, bundles_of
from pipeline.graph_kinds import NodeKind
from pipeline.parameter_graph import GraphTemplate, NodeSet
from pipeline.set_words import SetWords, words_of_sets


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a drawing shows of a template."""

    template: GraphTemplate
    bundles: tuple[Bundle, ...]
    words: tuple[SetWords, ...]
    """Of every node set."""
    beside: Mapping[int, int]
    """Node sets that are drawn beside the one they belong to, by number: bias nodes, statistics, positions."""
    column: Mapping[int, int]
    """Of all other node sets: edges on the longest way from the inputs."""
    ends: Mapping[int, tuple[str, ...]]
    """Node sets the network returns, with what happens to them before."""

    @property
    def node_sets(self) -> tuple[NodeSet, ...]:
        return self.template.node_sets

    @property
    def links(self) -> list[tuple[int, int]]:
        """From one column to another; what feeds statistics feeds the set they stand beside."""
        return _links(self.bundles, self.beside)

    def nodes(self, number: int) -> range:
        """The nodes of a set."""
        first = sum(nodes.count for nodes in self.node_sets[:number])
        return range(first, first + self.node_sets[number].count)

    def constants(self, number: int) -> list[int]:
        """Bias nodes and tables of positions that stand under a node set."""
        return [other for other in self._beside(number) if self.node_sets[other].kind != NodeKind.STATISTICS]

    def statistics(self, number: int) -> list[int]:
        """Statistics that stand over a node set."""
        return [other for other in self._beside(number) if self.node_sets[other].kind == NodeKind.STATISTICS]

    def _beside(self, number: int) -> list[int]:
        return [other for other, owner in self.beside.items() if owner == number]

    def into(self, number: int) -> list[Bundle]:
        """The bundles that end at a node set, but for those from what stands beside it."""
        return [bundle for bundle in self.bundles if bundle.target == number and bundle.source not in self.beside]

    def out_of(self, number: int) -> list[Bundle]:
        """The bundles that start at a node set."""
        return [bundle for bundle in self.bundles if bundle.source == number]


def outline(template: GraphTemplate) -> Outline:
    """What a drawing shows of a template.

    Raises:
        ValueError: two node sets feed each other, so that there is no order of columns.
    """
    sets = np.repeat(np.arange(len(template.node_sets)), [nodes.count for nodes in template.node_sets])
    attended = attended_sets(template, sets)
    bundles = bundles_of(template, sets, attended)
    beside = _beside(template, bundles)
    ends: dict[int, tuple[str, ...]] = {}
    for number in np.unique(sets[template.outputs]).tolist():
        chain = int(template.output_chain[np.argmax(sets[template.outputs] == number)])
        ends[number] = tuple(operation_words(template.chains[chain], number in attended))
    return Outline(
        template=template,
        bundles=tuple(bundles),
        words=words_of_sets(template, bundles, sets, beside),
        beside=beside,
        column=_columns(template, _links(bundles, beside), beside),
        ends=ends,
    )


def _links(bundles: Iterable[Bundle], beside: Mapping[int, int]) -> list[tuple[int, int]]:
    return sorted({(b.source, beside.get(b.target, b.target)) for b in bundles if b.source not in beside})


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


def _columns(template: GraphTemplate, links: Sequence[tuple[int, int]], beside: Mapping[int, int]) -> dict[int, int]:
    """Columns of the sets that are not beside others: as early as the inputs allow, or as late as what they serve."""
    column = {number: 0 for number in range(len(template.node_sets)) if number not in beside}
    for _ in range(len(column) + 1):
        before = dict(column)
        for source, target in links:
            column[target] = max(column[target], column[source] + 1)
        if column == before:
            break
    else:
        raise ValueError("two node sets feed each other, in a circle; a drawing needs an order of columns")
    fed = {number for number, nodes in enumerate(template.node_sets) if nodes.kind == NodeKind.INPUT}
    for source, target in sorted(links, key=lambda link: column[link[0]]):
        fed |= {target} if source in fed else set()
    for number in sorted(set(column) - fed, key=lambda number: -column[number]):
        column[number] = min((column[target] - 1 for source, target in links if source == number), default=0)
    return column
