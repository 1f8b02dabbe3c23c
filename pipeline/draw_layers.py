"""A network drawn layer by layer: a box for every node set, an arrow for every bundle of edges.

Reads   an `Outline`
Writes  a drawing

A column holds, from left to right, room in which lines change lanes, the words of the arrows that arrive, and the
boxes. Every arrow arrives at its own height, with its words around it: that is why no two words can meet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

from matplotlib.axes import Axes

from pipeline.drawing_canvas import (
    FAINT,
    INK,
    LINE,
    PAPER,
    PLAIN,
    SMALL,
    STEPS,
    TEXT,
    TITLE,
    VALUED,
    Point,
    box,
    head,
    line,
    widest,
    width_of,
    write,
)
from pipeline.drawing_layout import Band, bands, lane_heights
from pipeline.drawing_words import counted, packed
from pipeline.graph_kinds import NodeKind
from pipeline.graph_outline import Outline
from pipeline.layer_cells import HEAD_ROOM, NEXT_CONSTANT, ROW, Arrow, Cell, Heights, heights, measured

MOST_WIDTH = 16.0
"""Of a band, in inches."""
TURN, LANE_GAP, BAND_GAP = 0.42, 0.16, 0.35


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A cell in its place."""

    cell: Cell
    heights: Heights
    y: float
    """Middle of its lane."""
    begin: float
    """Where its column begins: the room in which lines change lanes."""
    left: float
    """Of its box."""
    right: float

    @property
    def top(self) -> float:
        """Of its box."""
        return self.y + self.heights.top

    @property
    def foot(self) -> float:
        """Of its box."""
        return self.y + self.heights.foot


def draw_layers(axes: Axes, outline: Outline, origin: Point) -> Point:
    """Draw a network downwards from the origin; the width and the height it took."""
    cells = {number: measured(outline, number) for number in outline.column}
    widths = [sum(_widths(cells, outline.column, place)) for place in range(max(outline.column.values()) + 1)]
    (x, y), right = origin, 0.0
    for band in bands(outline.column, outline.links, widths, MOST_WIDTH):
        shown = {number: cells[number].copy() if number in band.copies else cells[number] for number in band.lane}
        placed, middle, y = _placed(band, shown, (x, y))
        for number, target in placed.items():
            _draw_box(axes, target)
            _draw_constants(axes, target)
            _draw_statistics(axes, target)
            for arrow, height in target.heights.arrows:
                lane = band.link_lane.get((arrow.bundle.source, number))
                _draw_arrow(
                    axes, arrow, placed[arrow.bundle.source], target, height, None if lane is None else middle[lane]
                )
            is_last = band.column[number] == band.num_columns - 1
            right = max(right, _draw_end(axes, outline, number, target, is_last))
        y -= BAND_GAP
    return right - x, origin[1] - y - BAND_GAP


def _widths(cells: Mapping[int, Cell], column: Mapping[int, int], place: int) -> tuple[float, float]:
    """Of a column: before its boxes, and of these."""
    members = [cell for number, cell in cells.items() if column[number] == place]
    return TURN + max(cell.label_width for cell in members), max(cell.width for cell in members)


def _placed(band: Band, cells: Mapping[int, Cell], corner: Point) -> tuple[dict[int, _Placed], dict[int, float], float]:
    """A band downwards from its upper left corner: its cells, the middles of its lanes, and its foot."""
    found: dict[int, Heights] = {}
    for number, cell in cells.items():
        lanes = {source: band.link_lane.get((source, number), lane) for source, lane in band.lane.items()}
        found[number] = heights(cell, lanes, band.lane[number])
    above = {number: height.above for number, height in found.items()}
    below = {number: height.below for number, height in found.items()}
    middle, taken = lane_heights(band, above, below, 0.2, LANE_GAP)
    middle = {lane: corner[1] - taken + height for lane, height in middle.items()}
    begin, placed = corner[0], {}
    for place in range(band.num_columns):
        label, width = _widths(cells, band.column, place)
        left = begin + (label if place else 0)
        for number in (number for number, column in band.column.items() if column == place):
            y = middle[band.lane[number]]
            placed[number] = _Placed(
                cell=cells[number], heights=found[number], y=y, begin=begin, left=left, right=left + width
            )
        begin = left + width
    return placed, middle, corner[1] - taken


def _draw_box(axes: Axes, placed: _Placed) -> None:
    cell, x, y = placed.cell, (placed.left + placed.right) / 2, (placed.top + placed.foot) / 2
    box(axes, (x, y), cell.kind, placed.right - placed.left, placed.top - placed.foot, cell.is_copy)
    top, ink = y + (len(cell.title) + len(cell.lines) - 1) * LINE / 2, FAINT if cell.is_copy else INK
    for place, words in enumerate((*cell.title, *cell.lines)):
        size, weight = (TITLE, "bold") if place < len(cell.title) else (TEXT, "normal")
        write(axes, (x, top - place * LINE), words, size, ink, weight=weight)


def _draw_constants(axes: Axes, placed: _Placed) -> None:
    """Under the box, from right to left, so that no words stand under an arrow."""
    constants, foot = placed.cell.constants, placed.foot
    last = placed.left + 0.13 + NEXT_CONSTANT * (len(constants) - 1)
    for place, constant in enumerate(constants):
        x, y = last - NEXT_CONSTANT * place, foot - 0.1 - ROW * (place + 0.5)
        colour = VALUED if constant.carries_value else PLAIN
        line(axes, [(x, y), (x, foot - 0.05)], colour, 1.2)
        head(axes, (x, foot - 0.005), colour, (0.0, 1.0))
        box(axes, (x, y), constant.kind, max(0.2, width_of(str(constant.count), SMALL) + 0.1), 0.2)
        write(axes, (x, y), str(constant.count), SMALL, PAPER if constant.kind == NodeKind.BIAS else INK)
        for row, words in enumerate(constant.lines):
            height = y + (len(constant.lines) - 1) * 0.0625 - row * 0.125
            write(axes, (last + 0.15, height), words, SMALL, FAINT, "left")


def _draw_statistics(axes: Axes, placed: _Placed) -> None:
    """Over the box."""
    statistics, x = placed.cell.statistics, (placed.left + placed.right) / 2
    if statistics is None:
        return
    foot, top = (placed.y + height for height in placed.heights.statistics)
    box(axes, (x, (foot + top) / 2), NodeKind.STATISTICS, placed.right - placed.left, top - foot)
    for place, words in enumerate(statistics.lines):
        y = (foot + top) / 2 + (len(statistics.lines) - 1) * 0.07 - place * 0.14
        write(axes, (x, y), words, SMALL if place else TEXT)
    line(axes, [(x, foot), (x, placed.top + 0.06)], PLAIN, 1.2)
    head(axes, (x, placed.top + 0.005), PLAIN, (0.0, -1.0))
    words = counted(statistics.num_edges, "edge", "edges")
    write(axes, (x + 0.08, (foot + placed.top) / 2), words, SMALL, FAINT, "left")


def _draw_arrow(axes: Axes, arrow: Arrow, source: _Placed, target: _Placed, height: float, along: float | None) -> None:
    """From the box of its source, along a lane of its own if it has one, to its height at the target."""
    colour = VALUED if arrow.bundle.kind.carries_value else PLAIN
    y, turned = target.y + height, target.begin + TURN
    detour = [] if along is None else [(source.right + TURN, along), (target.begin, along)]
    points = [(source.right, source.y), *detour, (turned, y), (target.left - 0.05, y)]
    line(axes, points, colour, thickness(arrow.bundle.num_edges))
    head(axes, (target.left - 0.005, y), colour)
    _write_around(axes, ((turned + target.left - 0.06) / 2, y), arrow.over, arrow.under, arrow.count)


def _draw_end(axes: Axes, outline: Outline, number: int, placed: _Placed, is_last: bool) -> float:
    """The arrow out of the drawing, or on to the next band, if there is one; where it ends."""
    x, y, over, under = placed.right, placed.y, outline.ends.get(number, ()), "output"
    if placed.cell.is_copy:
        return x
    if number not in outline.ends:
        if not (is_last and any(source == number for source, _ in outline.links)):
            return x
        under = "continued"
    if not is_last:
        write(axes, (x, placed.top + 0.08), "→ ".join(["", *over, under]), colour=STEPS, align="right")
        return x
    over = packed(over)
    room = max(0.25, widest([*over, under])) + HEAD_ROOM
    line(axes, [(x, y), (x + room - 0.05, y)], PLAIN, 1.4)
    head(axes, (x + room, y), PLAIN)
    _write_around(axes, (x + room / 2, y), over, [under])
    return x + room


def _write_around(axes: Axes, middle: Point, over: Sequence[str], under: Sequence[str], count: str = "") -> None:
    """Words over and under an arrow."""
    x, y = middle
    for place, words in enumerate(reversed(over)):
        write(axes, (x, y + (place + 0.5) * LINE + 0.03), words, colour=STEPS)
    for place, words in enumerate((*under, count)):
        write(axes, (x, y - (place + 0.5) * LINE - 0.05), words, colour=FAINT if place == len(under) else INK)


def thickness(num_edges: int) -> float:
    """Of an arrow, in points."""
    return 1 + 0.45 * log10(num_edges)
