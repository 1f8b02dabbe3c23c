"""What stands under a small network drawn whole: what the nodes of columns are, and the edges of the gaps between.

Reads   an `Outline`
Writes  words with their colours
"""

from collections.abc import Iterator

from pipeline.drawing_canvas import FAINT, FILL, INK, STEPS, name_lines, packed
from pipeline.drawing_words import counted
from pipeline.graph_outline import Outline

Words = tuple[str, str, str]
"""Of a caption: a line, its colour, its weight."""


def set_caption(outline: Outline, number: int) -> Iterator[Words]:
    """What stands under a column about one of its sets: what it is."""
    kind = outline.template.node_sets[number].kind
    for title in name_lines(outline.title(number)):
        yield title, FILL[kind][1], "bold"
    for words in outline.lines(number):
        yield words, INK, "normal"
    if number in outline.ends:
        for words in packed([f"then {operation}" for operation in outline.ends[number]], 24):
            yield words, STEPS, "normal"
        yield "→ output", INK, "normal"


def gap_caption(outline: Outline, number: int) -> Iterator[Words]:
    """What stands under the gap before a column about one of its sets: the edges into it."""
    beside = [other for other, owner in outline.beside.items() if owner == number]
    main = [bundle for bundle in outline.into(number) if bundle.source not in beside]
    for bundle in main:
        for words in packed([f"{operation} then" for operation in bundle.operations], 24):
            yield words, STEPS, "normal"
        origin = [f"from {outline.name(bundle.source)}"] if len(main) > 1 else []
        for words in packed([*bundle.words, counted(bundle.num_edges, "edge", "edges"), *origin], 24):
            yield words, INK, "normal"
    for other in beside:
        count = outline.template.node_sets[other].count
        bundles = outline.into(other) + [bundle for bundle in outline.into(number) if bundle.source == other]
        several = [counted(count, "position", "positions")] if count > 1 and not outline.into(other) else []
        edges = (f"{', '.join(b.words)}, {counted(b.num_edges, 'edge', 'edges')}" for b in bundles)
        for words in packed([*several, *edges], 24):
            yield words, FAINT, "normal"
