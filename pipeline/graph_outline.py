"""What a drawing shows of a template: its node sets in columns, the edges between two of them in bundles, and words.

Reads   the blocks of a `GraphTemplate`, never its single edges
Writes  an `Outline`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.drawing_words import operation_words
from pipeline.edge_bundles import Bundle, attended_sets, bundles_of
from pipeline.graph_kinds import NodeKind
from pipeline.parameter_graph import GraphTemplate
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

    def title(self, number: int) -> str:
        """What a node set is called."""
        return self.words[number].title

    def lines(self, number: int) -> list[str]:
        """What a node set is, and how many nodes of which extent it has."""
        words = self.words[number]
        last = ", ".join([*words.role[-1:], *[words.place] * bool(words.place)])
        return [*words.role[:-1], *[last] * bool(last), *words.size]

    def name(self, number: int) -> str:
        """What a node set is called where it is mentioned elsewhere."""
        return " ".join([self.title(number), *self.words[number].place.split()])

    def into(self, number: int) -> list[Bundle]:
        """The bundles that end at a node set."""
        return [bundle for bundle in self.bundles if bundle.target == number]


def outline(template: GraphTemplate) -> Outline:
    """What a drawing shows of a template.

    Raises:
        ValueError: two node sets feed each other, so that there is no order of columns.
    """
    sets = np.repeat(np.arange(len(template.node_sets)), [nodes.count for nodes in template.node_sets])
    bundles = bundles_of(template, sets)
    beside = _beside(template, bundles)
    attended = attended_sets(template, sets)
    ends: dict[int, tuple[str, ...]] = {}
    for number in np.unique(sets[template.outputs]).tolist():
        chain = int(template.output_chain[np.argmax(sets[template.outputs] == number)])
        ends[number] = tuple(operation_words(template.chains[chain], number in attended))
    return Outline(
        template=template,
        bundles=tuple(bundles),
        words=words_of_sets(template, bundles, sets, beside),
        beside=beside,
        column=_columns(template, bundles, beside),
        ends=ends,
    )


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
