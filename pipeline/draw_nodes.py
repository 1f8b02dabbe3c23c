"""A small network drawn whole: a dot for every node, a line for every edge, coloured by its value.

Reads   an `Outline` and perhaps values
Writes  a drawing

Edges with the same ends are bent apart. What the lines are, and which operations come before them, stands under the gap
between two columns that they cross, and what the nodes are below it, so that no words lie among the lines.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import Rectangle

from pipeline.drawing_canvas import FAINT, LINE, PLAIN, VALUED, Point, dot, head, stroke, width_of, write
from pipeline.drawing_layout import Band, bands, lane_heights
from pipeline.drawing_words import name_lines, number_words
from pipeline.graph_outline import Outline
from pipeline.node_captions import Words, gap_caption, set_caption

MOST_WIDTH = 14.5
"""Of a band, in inches."""
STEP = 0.27
"""From one node of a set to the next."""
NEAREST = 1.55
"""From one column to the next, at least."""
ASIDE, OVER, UNDER = 0.5, 0.36, 0.3
"""From the first node of a set to statistics, and from the last one to bias nodes."""
BAND_GAP = 0.3
SIGNED = LinearSegmentedColormap.from_list(
    "signed", [(0.0, "#8a3b04"), (0.25, "#e08214"), (0.5, "#b3bac2"), (0.75, "#4f97cc"), (1.0, "#08306b")], 257
)
"""From the most negative value to the largest, grey at 0; told apart by every kind of colour vision."""
UNDEFINED = "#d0021b"
"""For values that are no numbers."""

Values = Float32[np.ndarray, " num_values"]


def draw_nodes(axes: Axes, outline: Outline, origin: Point, values: Values | None) -> Point:
    """Draw a network downwards from the origin; the width and the height it took."""
    captions = {number: list(set_caption(outline, number)) for number in outline.column}
    gaps = {number: list(gap_caption(outline, number)) for number in outline.column}
    lines = [line for caption in (*captions.values(), *gaps.values()) for line in caption]
    width = max(NEAREST, 0.25 + max(width_of(words, weight=weight) for words, _, weight in lines))
    widths = [width] * (max(outline.column.values()) + 1)
    y, most = origin[1], 0
    for band in bands(outline.column, outline.links, widths, MOST_WIDTH):
        y = _draw_band(axes, outline, band, values, (origin[0], y), width)
        centres = [origin[0] + (column + 0.5) * width for column in range(band.num_columns)]
        y = _draw_captions(axes, band, centres, captions, gaps, y - 0.15) - BAND_GAP
        most = max(most, band.num_columns)
    return most * width, origin[1] - y - BAND_GAP


def value_colours(values: Values | None) -> Iterator[tuple[str, str]]:
    """For the legend: colours of edges with values, and what they mean."""
    if values is None:
        yield VALUED, "edges with values"
        return
    yield to_hex(SIGNED(0.92)), "edges with values: coloured by them, thicker the further they are from 0"
    if not np.isfinite(values).all():
        yield UNDEFINED, "values that are no numbers"


def draw_scale(axes: Axes, corner: Point, values: Values) -> float:
    """The colours of values, to the right of a place; where they end."""
    (x, y), words = corner, number_words(float(f"{_largest(values):.2g}"))
    for text in ("values of edges", f"−{words}"):
        write(axes, (x, y), text, colour=FAINT, align="left")
        x += width_of(text) + 0.1
    for place in range(48):
        colour = to_hex(SIGNED((place + 0.5) / 48))
        axes.add_patch(Rectangle((x + place * 0.025, y - 0.05), 0.0255, 0.1, facecolor=colour, edgecolor="none"))
    write(axes, (x + 48 * 0.025 + 0.06, y), words, colour=FAINT, align="left")
    return x + 48 * 0.025 + 0.06 + width_of(words)


def _largest(values: Values) -> float:
    """The end of the scale of colours."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0


def _draw_band(
    axes: Axes, outline: Outline, band: Band, values: Values | None, corner: Point, column_width: float
) -> float:
    """One band downwards from its upper left corner; its foot."""
    above, below = {}, {}
    for number in band.lane:
        half = STEP * (outline.node_sets[number].count - 1) / 2 + 0.12
        statistics, constants = _beside(outline, band, number)
        above[number] = half + 0.24 + (OVER + STEP * (len(statistics) - 1) if statistics else 0)
        below[number] = half + (UNDER + STEP * (len(constants) - 1) if constants else 0)
    middle, height = lane_heights(band, above, below, 0.3, 0.16)
    middle = {lane: corner[1] - height + place for lane, place in middle.items()}
    places: dict[int, Point] = {}
    for number, lane in band.lane.items():
        x, y = corner[0] + (band.column[number] + 0.5) * column_width, middle[lane]
        places |= _places(outline, band, number, (x, y))
        words = outline.words[number]
        title = f"{name_lines(words.title)[-1]} {words.place}".rstrip() + " (from above)" * (number in band.copies)
        write(axes, (x, y + above[number] - 0.08), title, colour=FAINT)
    for number, nodes in enumerate(outline.node_sets):
        for node in outline.nodes(number):
            if node in places:
                dot(axes, places[node], nodes.kind)
    _draw_edges(axes, outline, band, values, places, middle)
    return corner[1] - height


def _beside(outline: Outline, band: Band, number: int) -> tuple[list[int], list[int]]:
    """Nodes over and under a set: statistics, and constants."""
    if number in band.copies:
        return [], []
    over = [node for other in outline.statistics(number) for node in outline.nodes(other)]
    return over, [node for other in outline.constants(number) for node in outline.nodes(other)]


def _places(outline: Outline, band: Band, number: int, centre: Point) -> dict[int, Point]:
    """Of the nodes of a set, and of those beside it."""
    (x, y), half = centre, STEP * (outline.node_sets[number].count - 1) / 2
    statistics, constants = _beside(outline, band, number)
    return {
        **{node: (x, y + half - STEP * row) for row, node in enumerate(outline.nodes(number))},
        **{node: (x - ASIDE, y + half + OVER + STEP * row) for row, node in enumerate(statistics)},
        **{node: (x - ASIDE, y - half - UNDER - STEP * row) for row, node in enumerate(constants)},
    }


def _draw_captions(
    axes: Axes,
    band: Band,
    centres: Sequence[float],
    captions: Mapping[int, Sequence[Words]],
    gaps: Mapping[int, Sequence[Words]],
    top: float,
) -> float:
    """Under every gap, what its edges are, and under every column, what it is; the foot of it all."""
    columns: list[list[int]] = [[] for _ in centres]
    for number in sorted(set(band.lane) - band.copies, key=lambda number: band.lane[number]):
        columns[band.column[number]].append(number)
    lowest = top
    for members, left, right in zip(columns[1:], centres, centres[1:], strict=False):
        axes.plot((left + 0.1, right - 0.1), (top, top), color=FAINT, linewidth=0.8, solid_capstyle="butt")
        head(axes, (right - 0.1, top), FAINT)
        lowest = min(lowest, _draw_tier(axes, [gaps[number] for number in members], (left + right) / 2, top - 0.04))
    tiers = [[captions[number] for number in members] for members in columns]
    return min(_draw_tier(axes, tier, x, lowest - LINE / 2) for tier, x in zip(tiers, centres, strict=True))


def _draw_tier(axes: Axes, captions: Sequence[Sequence[Words]], x: float, top: float) -> float:
    """Captions, one under another; their foot."""
    y = top
    for caption in captions:
        for words, colour, weight in caption:
            y -= LINE
            write(axes, (x, y), words, colour=colour, weight=weight)
        y -= LINE / 2
    return y


def _draw_edges(
    axes: Axes,
    outline: Outline,
    band: Band,
    values: Values | None,
    places: Mapping[int, Point],
    middle: Mapping[int, float],
) -> None:
    """All edges that end in the band, the strongest last."""
    edges, counts = outline.template.edges, [nodes.count for nodes in outline.node_sets]
    sets = np.repeat(np.arange(len(counts)), counts)
    bend, spread = _bends(edges.edge_index), _bends(sets[edges.edge_index])
    relative = np.zeros(len(edges.value_index))
    if values is not None:
        carried = edges.value_index >= 0
        relative[carried] = values[edges.value_index[carried]].astype(np.float64) / _largest(values)
    for order, edge in enumerate(np.argsort(np.nan_to_num(np.abs(relative)), kind="stable").tolist()):
        source, target = edges.edge_index[:, edge].tolist()
        link = int(sets[source]), outline.beside.get(int(sets[target]), int(sets[target]))
        if link[1] not in band.lane or link[1] in band.copies:
            continue
        begin, end = places[source], places[target]
        if link in band.link_lane:
            gap = (end[0] - begin[0]) / (band.column[link[1]] - band.column[link[0]])
            vertices, codes = _detour(begin, end, middle[band.link_lane[link]] - 0.1 * float(spread[edge]), gap)
        elif link[0] in outline.beside:
            vertices, codes = _short_curve(begin, end, 0.12 * float(bend[edge]))
        else:
            vertices, codes = _curve(begin, end, 0.35 * float(bend[edge]))
        is_plain = bool(edges.value_index[edge] < 0)
        colour, width = (PLAIN, 0.9) if is_plain else (VALUED, 0.8) if values is None else _ink(float(relative[edge]))
        stroke(axes, vertices, codes, colour, width, is_plain, 2 + order * 1e-4)


def _ink(relative: float) -> tuple[str, float]:
    """Colour and width of a value from -1 to 1."""
    if not np.isfinite(relative):
        return UNDEFINED, 1.0
    return to_hex(SIGNED((relative + 1) / 2)), 0.9 + 1.3 * abs(relative)


def _curve(begin: Point, end: Point, bend: float) -> tuple[list[Point], str]:
    """From column to column, level at both ends."""
    (x, y), (last_x, last_y) = begin, end
    reach = 0.4 * (last_x - x)
    return [begin, (x + reach, y + bend), (last_x - reach, last_y + bend), end], "MCCC"


def _short_curve(begin: Point, end: Point, bend: float) -> tuple[list[Point], str]:
    """To what the source stands beside: straight, but for its bend."""
    (x, y), (last_x, last_y) = begin, end
    middle = ((x + last_x) / 2 - bend, (y + last_y) / 2 + bend)
    return [begin, middle, end], "MQQ"


def _detour(begin: Point, end: Point, along: float, gap: float) -> tuple[list[Point], str]:
    """Along a lane of its own from the next column to the one before the last."""
    (x, y), (last_x, last_y) = begin, end
    first, final = x + gap - 0.35, last_x - gap + 0.35
    a, b = (x + first) / 2, (final + last_x) / 2
    vertices = [begin, (a, y), (a, along), (first, along), (final, along), (b, along), (b, last_y), end]
    return vertices, "MCCCLCCC"


def _bends(edge_index: Int64[np.ndarray, "2 num_edges"]) -> Float64[np.ndarray, " num_edges"]:
    """From -1 to 1 over the edges with the same ends; 0 where there is one."""
    _, pair, size = np.unique(edge_index, axis=1, return_inverse=True, return_counts=True)
    pair = pair.reshape(-1)
    rank = np.empty(len(pair), dtype=np.int64)
    order = np.argsort(pair, kind="stable")
    rank[order] = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
    return np.where(size[pair] > 1, 2 * rank / np.maximum(size[pair] - 1, 1) - 1, 0.0)
