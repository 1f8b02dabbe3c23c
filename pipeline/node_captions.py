"""What stands under a small network drawn whole: what the nodes of columns are, and the edges of the gaps between.

Reads   an `Outline`
Writes  words with their colours
"""

from collections.abc import Iterator

from pipeline.drawing_canvas import FAINT, FILL, INK, STEPS
from pipeline.drawing_words import counted, name_lines, packed
from pipeline.graph_outline import Outline

Words = tuple[str, str, str]
"""Of a caption: a line, its colour, its weight."""
LETTERS = 24
"""In a line, about."""


def set_caption(outline: Outline, number: int) -> Iterator[Words]:
    """What stands under a column about one of its sets: what it is."""
    words = outline.words[number]
    for line in name_lines(words.title):
        yield line, FILL[outline.node_sets[number].kind][1], "bold"
    for line in words.lines:
        yield line, INK, "normal"
    if number in outline.ends:
        for line in packed([f"then {operation}" for operation in outline.ends[number]], LETTERS):
            yield line, STEPS, "normal"
        yield "→ output", INK, "normal"


def gap_caption(outline: Outline, number: int) -> Iterator[Words]:
    """What stands under the gap before a column about one of its sets: the edges into it."""
    bundles = outline.into(number)
    for bundle in bundles:
        for line in packed([f"{operation} then" for operation in bundle.operations], LETTERS):
            yield line, STEPS, "normal"
        words = [*bundle.words, counted(bundle.num_edges, "edge", "edges")]
        if len({bundle.source for bundle in bundles}) > 1:
            words += [f"from {line}" for line in name_lines(outline.words[bundle.source].name)[-1:]]
        for line in packed(words, LETTERS):
            yield line, INK, "normal"
    for other in (*outline.statistics(number), *outline.constants(number)):
        into, count = outline.into(other), outline.node_sets[other].count
        words = [counted(count, "position", "positions")] if count > 1 and not into else []
        for bundle in (*into, *outline.out_of(other)):
            words += [f"{', '.join(bundle.words)}, {counted(bundle.num_edges, 'edge', 'edges')}"]
        for line in packed(words, LETTERS):
            yield line, FAINT, "normal"
