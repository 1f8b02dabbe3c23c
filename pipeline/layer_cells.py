"""What stands in a box of a drawing by layers, and on the arrows that arrive there, measured before it is placed.

Reads   an `Outline`
Writes  `Cell`s
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.drawing_canvas import LINE, name_lines, packed, width_of
from pipeline.drawing_words import counted
from pipeline.edge_bundles import Bundle
from pipeline.graph_kinds import NodeKind, Operation
from pipeline.graph_outline import Outline

STATISTICS = {Operation.STANDARDISE: "mean, deviation", Operation.ROOT_MEAN_SQUARE: "root mean square"}


@dataclass(kw_only=True)
class Arrival:
    """An arrow where it arrives."""

    bundle: Bundle
    over: list[str]
    """Lines above the arrow: operations."""
    under: list[str]
    height: float = 0.0
    """Over the middle of the lane."""

    @property
    def above(self) -> float:
        return max(1, len(self.over)) * LINE + 0.03

    @property
    def below(self) -> float:
        return len(self.under) * LINE + 0.05

    @property
    def width(self) -> float:
        return max(width_of(words, 7.5) for words in self.over + self.under)


@dataclass(kw_only=True)
class Cell:
    """A node set with what stands beside it, measured from the middle of its lane."""

    number: int
    title: list[str]
    lines: list[str]
    arrivals: list[Arrival] = field(default_factory=list)
    top: float = 0.0
    """Of the box."""
    foot: float = 0.0
    """Of the box; negative."""
    constants: list[int] = field(default_factory=list)
    """Bias nodes and positions, under the box."""
    statistics: int = -1
    statistics_height: float = 0.0
    statistics_arrivals: list[Arrival] = field(default_factory=list)
    above: float = 0.0
    below: float = 0.0
    width: float = 0.0


def measured(outline: Outline, number: int) -> Cell:
    """A node set measured, before anything is placed."""
    beside = [other for other, owner in outline.beside.items() if owner == number]
    kinds = [outline.template.node_sets[other].kind for other in beside]
    cell = Cell(number=number, title=name_lines(outline.title(number)), lines=outline.lines(number))
    cell.constants = [o for o, kind in zip(beside, kinds, strict=True) if kind != NodeKind.STATISTICS]
    cell.statistics = next((o for o, k in zip(beside, kinds, strict=True) if k == NodeKind.STATISTICS), -1)
    cell.arrivals = [arrival(b) for b in outline.into(number) if b.source not in beside]
    if cell.statistics >= 0:
        cell.statistics_arrivals = [arrival(bundle) for bundle in outline.into(cell.statistics)]
    words = [width_of(title, 8.5, "bold") for title in cell.title] + [width_of(words, 7.5) for words in cell.lines]
    for place, other in enumerate(reversed(cell.constants)):
        lines = constant_lines(outline, other)
        words.append(max(width_of(text, 7.0) for text in lines) + 0.24 * place + 0.2)
    if cell.statistics >= 0:
        words.append(max(width_of(text, 7.0) for text in statistics_lines(outline, cell.statistics)))
    cell.width = max(0.8, max(words) + 0.2)
    return cell


def arrival(bundle: Bundle) -> Arrival:
    """The words of an arrow."""
    under = [*packed(bundle.words), counted(bundle.num_edges, "edge", "edges")]
    return Arrival(bundle=bundle, over=packed(bundle.operations), under=under)


def constant_lines(outline: Outline, number: int) -> list[str]:
    """What is said beside a bias node or a table of positions."""
    bundles = [bundle for bundle in outline.bundles if bundle.source == number]
    counts = sorted({bundle.num_edges for bundle in bundles})
    words = [", ".join(bundle.words) for bundle in bundles]
    if len(counts) > 1:
        return [f"{text}: {bundle.num_edges:,}" for text, bundle in zip(words, bundles, strict=True)]
    times = f"{len(bundles)} × " if len(bundles) > 1 else ""
    return [", ".join(words), times + counted(counts[0], "edge", "edges")]


def statistics_lines(outline: Outline, number: int) -> list[str]:
    """What is said in a box of statistics."""
    nodes = outline.template.node_sets[number]
    chain = outline.template.chains[nodes.chain]
    return [*(STATISTICS.get(step.operation, "sum of exponentials") for step in chain), *outline.lines(number)]


def stack(arrivals: Sequence[Arrival], first: int) -> None:
    """Heights of arrivals, top to bottom, so that their words do not meet; that of one of them is 0."""
    for place in range(first - 1, -1, -1):
        upper, lower = arrivals[place], arrivals[place + 1]
        upper.height = lower.height + lower.above + upper.below + 0.04
    for place in range(first + 1, len(arrivals)):
        upper, lower = arrivals[place - 1], arrivals[place]
        lower.height = upper.height - upper.below - lower.above - 0.04
