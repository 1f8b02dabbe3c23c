"""A small network drawn whole: a dot for every node, a line for every edge, coloured by its value.

Reads   an `Outline` and perhaps values
Writes  a drawing

Edges with the same ends are bent apart. What the lines are, and which operations come before them, stands under the gap
between two columns that they cross, and what the nodes are below it, so that no words lie among the lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from pipeline.drawing_canvas import (
    FAINT,
    FILL,
    LINE,
    ON_THE_WAY,
    PLAIN,
    STEPS,
    VALUED,
    Legend,
    Point,
    dot,
    head,
    name_lines,
    width_of,
    write,
)
from pipeline.drawing_layout import Band, bands, lane_heights
from pipeline.drawing_words import number_words
from pipeline.graph_kinds import NodeKind
from pipeline.graph_outline import Outline
from pipeline.node_captions import Words, gap_caption, set_caption

MOST_WIDTH = 14.5
"""Of a band, in inches."""
STEP = 0.27
"""From one node of a set to the next."""
NEAREST = 1.55
"""From one column to the next, at least."""
ASIDE = 0.5
"""From a node to the bias node beside it."""
SIGNED = LinearSegmentedColormap.from_list(
    "signed", [(0.0, "#8a3b04"), (0.25, "#e08214"), (0.5, "#b3bac2"), (0.75, "#4f97cc"), (1.0, "#08306b")], 257
)
"""From the most negative value to the largest, grey at 0; told apart by every kind of colour vision."""
UNDEFINED = "#d0021b"
"""For values that are no numbers."""


def draw_nodes(
    axes: Axes, outline: Outline, origin: Point, values: Float32[np.ndarray, " num_values"] | None
) -> tuple[float, float]:
    """Draw a network downwards from the origin; the width and the height it took."""
    links = sorted({(b.source, outline.beside.get(b.target, b.target)) for b in outline.bundles})
    links = [(source, target) for source, target in links if source not in outline.beside]
    captions = {number: list(set_caption(outline, number)) for number in outline.column}
    gaps = {number: list(gap_caption(outline, number)) for number in outline.column}
    lines = [line for caption in (*captions.values(), *gaps.values()) for line in caption]
    widest = max(width_of(words, 7.5, weight) for words, _, weight in lines) + 0.25
    widths = [max(NEAREST, widest)] * (max(outline.column.values()) + 1)
    y, right = origin[1], 0.0
    for band in bands(outline.column, links, widths, MOST_WIDTH):
        picture = _BandPicture(
            axes=axes, outline=outline, band=band, widths=widths, captions=captions, gaps=gaps, values=values
        )
        y -= picture.draw((origin[0], y)) + 0.3
        right = max(right, picture.right)
    if values is not None:
        _draw_scale(axes, max(right, 4.5), _largest(values))
    return right - origin[0], origin[1] - y - 0.3


def nodes_legend(outline: Outline, values: Float32[np.ndarray, " num_values"] | None) -> Legend:
    """What the colours of a drawing mean."""
    kinds = sorted({nodes.kind for nodes in outline.template.node_sets}, key=list(FILL).index)
    lines = [(VALUED, "edges with values")]
    if values is not None:
        lines = [(to_hex(SIGNED(0.92)), "edges with values: coloured by them, thicker the further they are from 0")]
    if any(not bundle.kind.carries_value for bundle in outline.bundles):
        lines.append((PLAIN, "dashed: edges without a value"))
    steps = any(bundle.operations for bundle in outline.bundles) or any(outline.ends.values())
    words = [(STEPS, "abc", ON_THE_WAY)] if steps else []
    return Legend(kinds=kinds, lines=lines, words=words, small=True)


def _largest(values: Float32[np.ndarray, " num_values"]) -> float:
    """The end of the scale of colours."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0


def _draw_scale(axes: Axes, right: float, largest: float) -> None:
    """The colours of values, at the upper right."""
    words = number_words(float(f"{largest:.2g}"))
    left = right - 1.5 - width_of(words, 7.5)
    for place in range(48):
        colour = to_hex(SIGNED((place + 0.5) / 48))
        axes.add_patch(Rectangle((left + place * 0.025, -0.05), 0.0255, 0.1, facecolor=colour, edgecolor="none"))
    write(axes, (left - 0.06, 0.0), f"−{words}", 7.5, FAINT, "right")
    write(axes, (left + 48 * 0.025 + 0.06, 0.0), words, 7.5, FAINT, "left")
    write(axes, (left - 0.06 - width_of(f"−{words}", 7.5) - 0.12, 0.0), "values of edges", 7.5, FAINT, "right")


@dataclass(kw_only=True)
class _BandPicture:
    """One band while it is drawn."""

    axes: Axes
    outline: Outline
    band: Band
    widths: Sequence[float]
    captions: dict[int, list[Words]]
    """Of every set, under its column."""
    gaps: dict[int, list[Words]]
    """Likewise, under the gap before it."""
    values: Float32[np.ndarray, " num_values"] | None
    place: dict[int, Point] = field(default_factory=dict)
    """Of every node of the band."""
    centres: list[float] = field(default_factory=list)
    """Of the columns."""
    middle: dict[int, float] = field(default_factory=dict)
    """Height of every lane's middle."""
    right: float = 0.0

    def draw(self, corner: Point) -> float:
        """Draw it downwards from its upper left corner; its height."""
        above, below = {}, {}
        for number in self.band.lane:
            half = STEP * (self._count(number) - 1) / 2 + 0.12
            statistics, constants = self._beside(number)
            above[number] = half + 0.24 + (0.36 + STEP * (len(statistics) - 1) if statistics else 0)
            below[number] = half + (0.3 + STEP * (len(constants) - 1) if constants else 0)
        middle, height = lane_heights(self.band, above, below, 0.3, 0.16)
        self.middle = {lane: corner[1] - height + place for lane, place in middle.items()}
        self._place_nodes(corner[0])
        self._draw_edges()
        for number in self.band.lane:
            self._draw_set(number, self.middle[self.band.lane[number]] + above[number] - 0.08)
        return height + 0.15 + self._draw_captions(corner[1] - height - 0.15)

    def _count(self, number: int) -> int:
        return self.outline.template.node_sets[number].count

    def _nodes(self, number: int) -> range:
        first = sum(self._count(other) for other in range(number))
        return range(first, first + self._count(number))

    def _beside(self, number: int) -> tuple[list[int], list[int]]:
        """Nodes over and under a set: statistics, and constants."""
        if number in self.band.copies:
            return [], []
        beside = [other for other, owner in self.outline.beside.items() if owner == number]
        kinds = self.outline.template.node_sets
        over = [node for o in beside if kinds[o].kind == NodeKind.STATISTICS for node in self._nodes(o)]
        return over, [node for o in beside if kinds[o].kind != NodeKind.STATISTICS for node in self._nodes(o)]

    def _place_nodes(self, left: float) -> None:
        x = left
        for column in range(self.band.num_columns):
            members = [number for number, place in self.band.column.items() if place == column]
            original = [number for number in members if number not in self.band.copies] or members
            width = max(self.widths[self.outline.column[number]] for number in original)
            self.centres.append(x + width / 2)
            x += width
        self.right = x
        for number, lane in self.band.lane.items():
            x, y = self.centres[self.band.column[number]], self.middle[lane]
            half = STEP * (self._count(number) - 1) / 2
            for row, node in enumerate(self._nodes(number)):
                self.place[node] = (x, y + half - STEP * row)
            statistics, constants = self._beside(number)
            for row, node in enumerate(statistics):
                self.place[node] = (x - ASIDE, y + half + 0.36 + STEP * row)
            for row, node in enumerate(constants):
                self.place[node] = (x - ASIDE, y - half - 0.3 - STEP * row)

    def _draw_set(self, number: int, top: float) -> None:
        copied = number in self.band.copies
        kinds = self.outline.template.node_sets
        for node in self._nodes(number):
            dot(self.axes, kinds[number].kind, self.place[node])
        title = name_lines(self.outline.title(number))[-1] + " (from above)" * copied
        write(self.axes, (self.centres[self.band.column[number]], top), title, 7.5, FAINT)
        for other, owner in self.outline.beside.items():
            if owner == number and not copied:
                for node in self._nodes(other):
                    dot(self.axes, kinds[other].kind, self.place[node])

    def _draw_captions(self, top: float) -> float:
        """Under every gap, what its edges are, and under every column, what it is; the height they take."""
        lowest = top
        for column, x in enumerate(self.centres[1:], start=1):
            lowest = min(lowest, self._draw_tier(self.gaps, column, (self.centres[column - 1] + x) / 2, top - 0.04))
            ends = (self.centres[column - 1] + 0.1, x - 0.1)
            self.axes.plot(ends, (top, top), color=FAINT, linewidth=0.8, solid_capstyle="butt")
            head(self.axes, (ends[1], top), FAINT)
        below = lowest - LINE / 2
        return top - min(self._draw_tier(self.captions, column, x, below) for column, x in enumerate(self.centres))

    def _draw_tier(self, captions: dict[int, list[Words]], column: int, x: float, top: float) -> float:
        """The words of all sets of a column, one under another; their foot."""
        members = [n for n, place in self.band.column.items() if place == column and n not in self.band.copies]
        y = top
        for number in sorted(members, key=lambda number: self.band.lane[number]):
            for words, colour, weight in captions[number]:
                y -= LINE
                write(self.axes, (x, y), words, 7.5, colour, weight=weight)
            y -= LINE / 2
        return y

    def _draw_edges(self) -> None:
        """All edges that end in the band, the strongest last."""
        template, edges = self.outline.template, self.outline.template.edges
        sets = np.repeat(np.arange(len(template.node_sets)), [nodes.count for nodes in template.node_sets])
        source, target = edges.edge_index
        bend, spread = _bends(edges.edge_index), _bends(sets[edges.edge_index])
        owners = np.array([self.outline.beside.get(number, number) for number in range(len(template.node_sets))])
        inside = [number for number in self.band.lane if number not in self.band.copies]
        chosen = np.flatnonzero(np.isin(owners[sets[target]], inside))
        size = np.zeros(len(source))
        carried = edges.value_index >= 0
        if self.values is not None:
            size[carried] = np.nan_to_num(np.abs(self.values[edges.value_index[carried]]))
        for order, edge in enumerate(chosen[np.argsort(size[chosen], kind="stable")].tolist()):
            ends = int(sets[source[edge]]), int(owners[sets[target[edge]]])
            colour, width, dashed = self._ink(int(edges.value_index[edge]))
            begin, end = self.place[int(source[edge])], self.place[int(target[edge])]
            apart = float(spread[edge] if ends in self.band.link_lane else bend[edge])
            self._draw_edge(begin, end, ends, apart, (colour, width, dashed), 2 + order * 1e-4)

    def _ink(self, value: int) -> tuple[str, float, bool]:
        """Colour, width in points, and whether it is dashed."""
        if value < 0:
            return PLAIN, 0.9, True
        if self.values is None:
            return VALUED, 0.8, False
        number = float(self.values[value])
        if not np.isfinite(number):
            return UNDEFINED, 1.0, False
        relative = number / _largest(self.values)
        return to_hex(SIGNED((relative + 1) / 2)), 0.9 + 1.3 * abs(relative), False

    def _draw_edge(
        self,
        begin: Point,
        end: Point,
        ends: tuple[int, int],
        bend: float,
        ink: tuple[str, float, bool],
        zorder: float,
    ) -> None:
        (x, y), (last_x, last_y) = begin, end
        code = [Curve.MOVETO]
        if ends in self.band.link_lane:
            along = self.middle[self.band.link_lane[ends]] - 0.1 * bend
            first, final = self.centres[self.band.column[ends[0]] + 1], self.centres[self.band.column[ends[1]] - 1]
            first, final = first - 0.35, final + 0.35
            a, b = (x + first) / 2, (final + last_x) / 2
            points = [begin, (a, y), (a, along), (first, along), (final, along), (b, along), (b, last_y), end]
            code += [Curve.CURVE4] * 3 + [Curve.LINETO] + [Curve.CURVE4] * 3
        elif ends[0] in self.outline.beside:
            away = 0.12 * bend
            points = [begin, ((x + last_x) / 2 - away, (y + last_y) / 2 + away * np.sign(last_x - x)), end]
            code += [Curve.CURVE3] * 2
        else:
            reach = 0.4 * (last_x - x)
            points = [begin, (x + reach, y + 0.35 * bend), (last_x - reach, last_y + 0.35 * bend), end]
            code += [Curve.CURVE4] * 3
        colour, width, dashed = ink
        style = (0, (2.2, 1.6)) if dashed else "-"
        curve = Curve(points, code)
        self.axes.add_patch(
            PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=width, linestyle=style, zorder=zorder)
        )


def _bends(edge_index: Int64[np.ndarray, "2 num_edges"]) -> Float32[np.ndarray, " num_edges"]:
    """From -1 to 1 over the edges with the same ends; 0 where there is one."""
    _, pair, size = np.unique(edge_index, axis=1, return_inverse=True, return_counts=True)
    pair = pair.reshape(-1)
    rank = np.empty(len(pair), dtype=np.int64)
    order = np.argsort(pair, kind="stable")
    rank[order] = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
    number = size[pair]
    return np.where(number > 1, 2 * rank / np.maximum(number - 1, 1) - 1, 0).astype(np.float32)
