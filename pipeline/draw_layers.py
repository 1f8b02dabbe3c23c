"""A network drawn layer by layer: a box for every node set, an arrow for every bundle of edges.

Reads   an `Outline`
Writes  a drawing

A column holds, from left to right, room in which lines change lanes, the words of the arrows that arrive, and the
boxes. Every arrow arrives at its own height, with its words around it: that is why no two words can meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log10

from matplotlib.axes import Axes

from pipeline.drawing_canvas import (
    FAINT,
    FILL,
    INK,
    LINE,
    ON_THE_WAY,
    PAPER,
    PLAIN,
    STEPS,
    VALUED,
    Legend,
    Point,
    box,
    head,
    line,
    packed,
    width_of,
    write,
)
from pipeline.drawing_layout import Band, bands, lane_heights
from pipeline.drawing_words import counted
from pipeline.edge_bundles import Bundle
from pipeline.graph_kinds import NodeKind
from pipeline.graph_outline import Outline
from pipeline.layer_cells import Arrival, Cell, constant_lines, measured, stack, statistics_lines

MOST_WIDTH = 16.0
"""Of a band, in inches."""
TURN, HEAD_ROOM, LANE_GAP = 0.42, 0.14, 0.16
ROW = 0.33
"""Height of a bias node under a box."""
PILL = 0.38
"""Height of statistics over a box."""


def draw_layers(axes: Axes, outline: Outline, origin: Point) -> Point:
    """Draw a network downwards from the origin; the width and the height it took."""
    links = sorted({(b.source, outline.beside.get(b.target, b.target)) for b in outline.bundles})
    links = [(source, target) for source, target in links if source not in outline.beside]
    cells = {number: measured(outline, number) for number in outline.column}
    labels, boxes = _widths(outline, cells)
    widths = [TURN + label + width for label, width in zip(labels, boxes, strict=True)]
    y, right = origin[1], 0.0
    for band in bands(outline.column, links, widths, MOST_WIDTH):
        picture = _BandPicture(axes=axes, outline=outline, band=band, cells=cells, labels=labels, boxes=boxes)
        height = picture.draw((origin[0], y))
        y -= height + 0.35
        right = max(right, picture.right)
    return right - origin[0], origin[1] - y - 0.35


def layers_legend(outline: Outline) -> Legend:
    """What the colours of a drawing mean."""
    kinds = sorted({nodes.kind for nodes in outline.template.node_sets}, key=list(FILL).index)
    lines = [(VALUED, "edges with values")]
    if any(not bundle.kind.carries_value for bundle in outline.bundles):
        lines.append((PLAIN, "edges without a value"))
    steps = any(bundle.operations for bundle in outline.bundles) or any(outline.ends.values())
    words = [(FAINT, "◢", "lines are thicker where they stand for more edges")]
    return Legend(kinds=kinds, lines=lines, words=words + [(STEPS, "abc", ON_THE_WAY)] * steps)


def _widths(outline: Outline, cells: dict[int, Cell]) -> tuple[list[float], list[float]]:
    """Room for words, and for boxes, in every column."""
    labels = [0.0] * (max(outline.column.values()) + 1)
    boxes = list(labels)
    for number, column in outline.column.items():
        cell = cells[number]
        boxes[column] = max(boxes[column], cell.width)
        words = [arrival.width + HEAD_ROOM for arrival in cell.arrivals + cell.statistics_arrivals]
        labels[column] = max([labels[column], *words])
    return labels, boxes


def thickness(num_edges: int) -> float:
    """Of an arrow, in points."""
    return 1 + 0.45 * log10(num_edges)


@dataclass(kw_only=True)
class _BandPicture:
    """One band while it is drawn."""

    axes: Axes
    outline: Outline
    band: Band
    cells: dict[int, Cell]
    labels: Sequence[float]
    boxes: Sequence[float]
    left: dict[int, float] = field(default_factory=dict)
    """Where the boxes of a column begin, by item."""
    edges: list[float] = field(default_factory=list)
    """Where columns begin, and the last one ends."""
    middle: dict[int, float] = field(default_factory=dict)
    """Height of every lane's middle."""
    right: float = 0.0

    def draw(self, corner: Point) -> float:
        """Draw it downwards from its upper left corner; its height."""
        for number in self.band.lane:
            self._measure(self.cells[number])
        above = {number: self.cells[number].above for number in self.band.lane}
        below = {number: self.cells[number].below for number in self.band.lane}
        middle, height = lane_heights(self.band, above, below, 0.2, LANE_GAP)
        self.middle = {lane: corner[1] - height + place for lane, place in middle.items()}
        self._place_columns(corner[0])
        for number in self.band.lane:
            self._draw_box(self.cells[number])
            if number not in self.band.copies:
                self._draw_beside(self.cells[number])
                for arrival in self.cells[number].arrivals:
                    self._draw_arrow(arrival, number, self.left[number])
        self._draw_ends()
        return height

    def _measure(self, cell: Cell) -> None:
        """Heights of arrivals, box and what is beside it."""
        words = (len(cell.title) + len(cell.lines)) * LINE / 2 + 0.09
        cell.top, cell.foot = words, -words
        if cell.number in self.band.copies:
            cell.above = cell.below = cell.top = words + LINE / 2
            cell.foot = -cell.top
            return
        cell.arrivals.sort(key=lambda arrival: self._comes_from(arrival.bundle, cell.number))
        lanes = [self._comes_from(arrival.bundle, cell.number) for arrival in cell.arrivals]
        own = self.band.lane[cell.number]
        stack(cell.arrivals, min(range(len(lanes)), key=lambda place: (abs(lanes[place] - own), place), default=0))
        heights = [arrival.height for arrival in cell.arrivals] or [0.0]
        if len(heights) > 1:
            cell.top, cell.foot = max(0.2, max(heights) + 0.2), min(-0.2, min(heights) - 0.2)
        cell.above = max([cell.top, *(arrival.height + arrival.above for arrival in cell.arrivals)])
        cell.below = max([-cell.foot, *(arrival.below - arrival.height for arrival in cell.arrivals)])
        cell.below = max(cell.below, ROW * len(cell.constants) + 0.1 * bool(cell.constants) - cell.foot)
        if cell.statistics >= 0:
            under = max(arrival.below for arrival in cell.statistics_arrivals)
            over = max(arrival.above for arrival in cell.statistics_arrivals)
            cell.statistics_height = max(cell.top + 0.34 + PILL / 2, cell.above + under + 0.06)
            cell.above = cell.statistics_height + max(PILL / 2, over)

    def _comes_from(self, bundle: Bundle, number: int) -> int:
        """The lane an arrow arrives from."""
        return self.band.link_lane.get((bundle.source, number), self.band.lane[bundle.source])

    def _place_columns(self, x: float) -> None:
        shift = {number: self.outline.column[number] for number in self.band.lane}
        for place in range(self.band.num_columns):
            members = [number for number, column in self.band.column.items() if column == place]
            copied = set(members) <= self.band.copies
            label = 0.0 if copied or place == 0 else self.labels[shift[members[0]]] + TURN
            width = max(self.boxes[shift[number]] for number in members) if not copied else self._copy_width(members)
            self.edges.append(x)
            self.left.update(dict.fromkeys(members, x + label))
            for number in members:
                self.cells[number].width = width
            x += label + width
        self.edges.append(x)
        self.right = x

    def _copy_width(self, members: Sequence[int]) -> float:
        cells = [self.cells[number] for number in members]
        words = [width_of(text, 8.5, "bold") for cell in cells for text in cell.title]
        return max(words + [width_of(text, 7.5) for cell in cells for text in cell.lines]) + 0.22

    def _draw_box(self, cell: Cell) -> None:
        copied = cell.number in self.band.copies
        x, y = self.left[cell.number] + cell.width / 2, self.middle[self.band.lane[cell.number]]
        y += (cell.top + cell.foot) / 2
        box(self.axes, self._kind(cell.number), (x, y), cell.width, cell.top - cell.foot, dashed=copied)
        lines = cell.lines + ["from above"] * copied
        top = y + (len(cell.title) + len(lines) - 1) * LINE / 2
        for place, words in enumerate(cell.title):
            write(self.axes, (x, top - place * LINE), words, 8.5, FAINT if copied else INK, weight="bold")
        for place, words in enumerate(lines, start=len(cell.title)):
            write(self.axes, (x, top - place * LINE), words, 7.5, FAINT if copied else INK)

    def _draw_beside(self, cell: Cell) -> None:
        """Statistics over the box, constants under it."""
        left, y = self.left[cell.number], self.middle[self.band.lane[cell.number]]
        foot = y + cell.foot
        for place, number in enumerate(cell.constants):
            kind = self._kind(number)
            count = self.outline.template.node_sets[number].count
            x = left + 0.13 + 0.24 * (len(cell.constants) - 1 - place)
            centre = (x, foot - 0.1 - ROW * (place + 0.5))
            carried = any(b.kind.carries_value for b in self.outline.bundles if b.source == number)
            edge = VALUED if carried else PLAIN
            line(self.axes, [centre, (x, foot - 0.05)], edge, 1.2)
            head(self.axes, (x, foot - 0.005), edge, (0.0, 1.0))
            box(self.axes, kind, centre, max(0.2, width_of(str(count), 7.0) + 0.1), 0.2)
            write(self.axes, centre, str(count), 7.0, PAPER if kind == NodeKind.BIAS else INK)
            lines = constant_lines(self.outline, number)
            start = left + 0.13 + 0.24 * (len(cell.constants) - 1) + 0.15
            for row, words in enumerate(lines):
                height = centre[1] + (len(lines) - 1) * 0.0625 - row * 0.125
                write(self.axes, (start, height), words, 7.0, FAINT, "left")
        if cell.statistics >= 0:
            self._draw_statistics(cell, left + cell.width / 2, y)

    def _draw_statistics(self, cell: Cell, x: float, y: float) -> None:
        height = y + cell.statistics_height
        box(self.axes, NodeKind.STATISTICS, (x, height), cell.width, PILL)
        lines = statistics_lines(self.outline, cell.statistics)
        for place, words in enumerate(lines):
            write(self.axes, (x, height + (len(lines) - 1) * 0.07 - place * 0.14), words, 7.5 if not place else 7.0)
        line(self.axes, [(x, height - PILL / 2), (x, y + cell.top + 0.06)], PLAIN, 1.2)
        head(self.axes, (x, y + cell.top + 0.005), PLAIN, (0.0, -1.0))
        down = sum(bundle.num_edges for bundle in self.outline.into(cell.number) if bundle.source == cell.statistics)
        middle = (height - PILL / 2 + y + cell.top) / 2
        write(self.axes, (x + 0.08, middle), counted(down, "edge", "edges"), 7.0, FAINT, "left")
        for arrival in cell.statistics_arrivals:
            arrival.height = cell.statistics_height
            self._draw_arrow(arrival, cell.number, self.left[cell.number])

    def _draw_arrow(self, arrival: Arrival, target: int, tip: float) -> None:
        """From the box of its source, along its lane, to its own height at the target, with its words."""
        source, colour = arrival.bundle.source, VALUED if arrival.bundle.kind.carries_value else PLAIN
        y = self.middle[self.band.lane[target]] + arrival.height
        begin, end = self.band.column[source] + 1, self.band.column[target]
        points = [(self.edges[begin], self.middle[self.band.lane[source]])]
        if (source, target) in self.band.link_lane:
            along = self.middle[self.band.link_lane[source, target]]
            points += [(self.edges[begin] + TURN, along), (self.edges[end], along)]
        points += [(self.edges[end] + TURN, y), (tip - 0.05, y)]
        line(self.axes, points, colour, thickness(arrival.bundle.num_edges))
        head(self.axes, (tip - 0.005, y), colour)
        x = (self.edges[end] + TURN + tip - 0.06) / 2
        for place, words in enumerate(reversed(arrival.over)):
            write(self.axes, (x, y + (place + 0.5) * LINE + 0.03), words, 7.5, STEPS)
        for place, words in enumerate(arrival.under):
            last = place == len(arrival.under) - 1
            write(self.axes, (x, y - (place + 0.5) * LINE - 0.05), words, 7.5, FAINT if last else INK)

    def _draw_ends(self) -> None:
        """Arrows out of the drawing, and on to the next band."""
        owners = [(b.source, self.outline.beside.get(b.target, b.target)) for b in self.outline.bundles]
        onwards = {source for source, target in owners if target not in self.band.lane}
        for number in set(self.band.lane) - self.band.copies:
            if number in self.outline.ends:
                self._draw_end(number, [*self.outline.ends[number], "output"])
            elif number in onwards and self.band.column[number] == self.band.num_columns - 1:
                self._draw_end(number, ["continued"])

    def _draw_end(self, number: int, words: Sequence[str]) -> None:
        x, y = self.left[number] + self.cells[number].width, self.middle[self.band.lane[number]]
        last = self.band.column[number] == self.band.num_columns - 1
        if not last:
            write(self.axes, (x, y + self.cells[number].top + 0.08), "→ ".join(["", *words]), 7.5, STEPS, "right")
            return
        over, under = packed(words[:-1]), words[-1] if words else ""
        room = max([0.25, *(width_of(text, 7.5) for text in (*over, under))]) + HEAD_ROOM
        line(self.axes, [(x, y), (x + room - 0.05, y)], PLAIN, 1.4)
        head(self.axes, (x + room, y), PLAIN)
        for place, text in enumerate(reversed(over)):
            write(self.axes, (x + room / 2, y + (place + 0.5) * LINE + 0.03), text, 7.5, STEPS)
        write(self.axes, (x + room / 2, y - LINE / 2 - 0.05), under, 7.5)
        self.right = max(self.right, x + room)

    def _kind(self, number: int) -> NodeKind:
        return self.outline.template.node_sets[number].kind
