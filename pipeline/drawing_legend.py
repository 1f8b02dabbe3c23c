"""The legend of a drawing: what its colours and lines mean.

Reads   an `Outline`
Writes  samples with words
"""

from collections.abc import Iterable, Iterator
from functools import partial

from pipeline.drawing_canvas import FAINT, PLAIN, STEPS, Axes, Point, Sample, box, dot, line, write
from pipeline.graph_kinds import NodeKind
from pipeline.graph_outline import Outline

MEANING = {
    NodeKind.INPUT: "input",
    NodeKind.NEURON: "neurons: weighted sums",
    NodeKind.SUM: "sums",
    NodeKind.PRODUCT: "products",
    NodeKind.MAXIMUM: "maxima",
    NodeKind.STATISTICS: "statistics of a norm",
    NodeKind.NORMALISED: "normalised",
    NodeKind.HEAD: "attention scores, a node a head",
    NodeKind.BIAS: "bias node, a constant 1",
    NodeKind.POSITION: "table of positions",
    NodeKind.TOKEN: "vocabulary",
}


def legend(
    outline: Outline, every_node: bool, value_colours: Iterable[tuple[str, str]]
) -> Iterator[tuple[Sample, str]]:
    """Entries for what there is.

    Args:
        every_node: whether nodes are dots and their edges lines, not boxes and arrows.
        value_colours: of edges with values, and what they mean.
    """
    kinds = {nodes.kind for nodes in outline.node_sets}
    for kind in (kind for kind in MEANING if kind in kinds):
        yield partial(dot, kind=kind) if every_node else partial(box, kind=kind, width=0.24, height=0.13), MEANING[kind]
    carried = {bundle.kind.carries_value for bundle in outline.bundles}
    if True in carried:
        for colour, words in value_colours:
            yield partial(_dash, colour=colour), words
    if False in carried:
        yield partial(_dash, colour=PLAIN, dashed=every_node), "dashed: " * every_node + "edges without a value"
    if not every_node:
        yield partial(write, words="◢", colour=FAINT), "lines are thicker where they stand for more edges"
    if any(bundle.operations for bundle in outline.bundles) or any(outline.ends.values()):
        yield partial(write, words="abc", colour=STEPS), "operations on what is read, before the edges act"


def _dash(axes: Axes, centre: Point, colour: str, dashed: bool = False) -> None:
    """A short line."""
    x, y = centre
    line(axes, [(x - 0.12, y), (x + 0.12, y)], colour, 1.6, dashed)
