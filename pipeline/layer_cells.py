"""What stands in a box of a drawing by layers, beside it, and on the arrows that arrive there, before it is placed.

Reads   an `Outline`
Writes  `Cell`s, and how high they are
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.drawing_canvas import LINE, SMALL, TITLE, widest
from pipeline.drawing_words import counted, name_lines, packed
from pipeline.edge_bundles import Bundle
from pipeline.graph_kinds import NodeKind, Operation
from pipeline.graph_outline import Outline

STATISTICS = {Operation.STANDARDISE: "mean, deviation", Operation.ROOT_MEAN_SQUARE: "root mean square"}
ROW = 0.33
"""Height of a bias node under a box."""
PILL = 0.38
"""Height of statistics over a box."""
NEXT_CONSTANT = 0.24
"""From one bias node to the one to its right, in the row above."""
HEAD_ROOM = 0.14
"""Of an arrow, beyond its words."""


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A bundle of edges where it arrives."""

    bundle: Bundle
    over: tuple[str, ...]
    """Lines above the arrow: operations."""
    under: tuple[str, ...]
    count: str
    """The last line under it."""

    @property
    def above(self) -> float:
        return max(1, len(self.over)) * LINE + 0.03

    @property
    def below(self) -> float:
        return (len(self.under) + 1) * LINE + 0.05

    @property
    def width(self) -> float:
        return widest([*self.over, *self.under, self.count]) + HEAD_ROOM


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Bias nodes, or positions, under a box."""

    kind: NodeKind
    count: int
    lines: tuple[str, ...]
    carries_value: bool
    """Whether their edges do."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is over a box."""

    arrows: tuple[Arrow, ...]
    lines: tuple[str, ...]
    num_edges: int
    """To the box."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A node set with what stands beside it."""

    kind: NodeKind
    title: tuple[str, ...]
    lines: tuple[str, ...]
    arrows: tuple[Arrow, ...] = ()
    constants: tuple[Constant, ...] = ()
    statistics: Statistics | None = None
    is_copy: bool = False
    """Whether it stands for a box drawn further up."""

    @property
    def width(self) -> float:
        """Of the box."""
        beside = [widest(self.statistics.lines)] if self.statistics else []
        for place, constant in enumerate(reversed(self.constants)):
            beside.append(widest(constant.lines, SMALL) + NEXT_CONSTANT * place + 0.2)
        return max(0.8, max([widest(self.title, TITLE, "bold"), widest(self.lines), *beside]) + 0.2)

    @property
    def label_width(self) -> float:
        """Of the arrows before it."""
        arrows = [*self.arrows, *(self.statistics.arrows if self.statistics else ())]
        return max((arrow.width for arrow in arrows), default=0.0)

    def copy(self) -> "Cell":
        """What stands for it further down."""
        lines = (*self.lines, "from above")
        return replace(self, lines=lines, arrows=(), constants=(), statistics=None, is_copy=True)


def measured(outline: Outline, number: int) -> Cell:
    """A node set with what stands beside it."""
    statistics = None
    for other in outline.statistics(number):
        statistics = Statistics(
            arrows=tuple(_arrow(bundle) for bundle in outline.into(other)),
            lines=tuple(_statistics_lines(outline, other)),
            num_edges=sum(bundle.num_edges for bundle in outline.out_of(other)),
        )
    return Cell(
        kind=outline.node_sets[number].kind,
        title=tuple(name_lines(outline.words[number].title)),
        lines=tuple(outline.words[number].lines),
        arrows=tuple(_arrow(bundle) for bundle in outline.into(number)),
        constants=tuple(_constant(outline, other) for other in outline.constants(number)),
        statistics=statistics,
    )


def _arrow(bundle: Bundle) -> Arrow:
    return Arrow(
        bundle=bundle,
        over=tuple(packed(bundle.operations)),
        under=tuple(packed(bundle.words)),
        count=counted(bundle.num_edges, "edge", "edges"),
    )


def _constant(outline: Outline, number: int) -> Constant:
    nodes, bundles = outline.node_sets[number], outline.out_of(number)
    counts = {bundle.num_edges for bundle in bundles}
    words = [", ".join(bundle.words) for bundle in bundles]
    if len(counts) > 1:
        lines = [f"{text}: {bundle.num_edges:,}" for text, bundle in zip(words, bundles, strict=True)]
    else:
        times = f"{len(bundles)} × " if len(bundles) > 1 else ""
        lines = [", ".join(words), times + counted(counts.pop(), "edge", "edges")]
    carries_value = any(bundle.kind.carries_value for bundle in bundles)
    return Constant(kind=nodes.kind, count=nodes.count, lines=tuple(lines), carries_value=carries_value)


def _statistics_lines(outline: Outline, number: int) -> Iterable[str]:
    for step in outline.template.chains[outline.node_sets[number].chain]:
        yield STATISTICS.get(step.operation, "sum of exponentials")
    yield from outline.words[number].lines


@dataclass(frozen=True, kw_only=True)
class Heights:
    """Of a cell, over the middle of its lane."""

    arrows: tuple[tuple[Arrow, float], ...]
    """To the box, and to the statistics over it."""
    top: float
    """Of the box."""
    foot: float
    """Of the box; negative."""
    statistics: tuple[float, float]
    """Foot and top of their box."""
    above: float
    """How far the cell reaches."""
    below: float
    """How far it reaches under the middle of its lane."""


def heights(cell: Cell, lane: Mapping[int, int], own: int) -> Heights:
    """The arrow from the nearest lane is level; the others keep the order of the lanes they come from.

    Args:
        lane: by source, that of its arrow; positive ones are further down.
        own: the cell's.
    """
    arrows = sorted(cell.arrows, key=lambda arrow: lane[arrow.bundle.source])
    distances = [abs(lane[arrow.bundle.source] - own) for arrow in arrows]
    placed = _stacked(arrows, distances.index(min(distances)) if distances else 0)
    top = foot = 0.0
    if len(placed) > 1:
        top, foot = placed[0][1] + 0.2, placed[-1][1] - 0.2
    missing = (len(cell.title) + len(cell.lines)) * LINE + 0.18 - (top - foot)
    top, foot = top + max(0.0, missing / 2), foot - max(0.0, missing / 2)
    above = max([top, *(height + arrow.above for arrow, height in placed)])
    below = max([-foot, *(arrow.below - height for arrow, height in placed)])
    if cell.constants:
        below = max(below, 0.1 + ROW * len(cell.constants) - foot)
    statistics = (0.0, 0.0)
    if cell.statistics:
        over = sorted(cell.statistics.arrows, key=lambda arrow: lane[arrow.bundle.source])
        lowest = max(top + 0.34 + PILL / 2, above + over[-1].below + 0.06)
        raised = [(arrow, lowest + height) for arrow, height in _stacked(over, len(over) - 1)]
        statistics = (lowest - PILL / 2, raised[0][1] + PILL / 2)
        above = max(statistics[1], raised[0][1] + raised[0][0].above)
        placed += raised
    return Heights(arrows=tuple(placed), top=top, foot=foot, statistics=statistics, above=above, below=below)


def _stacked(arrows: Sequence[Arrow], level: int) -> list[tuple[Arrow, float]]:
    """Heights of arrows, top to bottom, so that their words do not meet; that of one of them is 0."""
    steps = [upper.below + lower.above + 0.04 for upper, lower in pairwise(arrows)]
    return [(arrow, sum(steps[place:level], 0.0) - sum(steps[level:place])) for place, arrow in enumerate(arrows)]
