"""Ink for drawings: words that are measured before they are placed, boxes, lines, a legend, and the bytes of the file.

Reads   nothing
Writes  nothing: SVG, PNG or PDF bytes, the same for the same drawing and version of matplotlib

Lengths are inches, y grows upwards. Importing matplotlib takes a second, so import this where something is drawn.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from itertools import pairwise

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from pipeline.graph_kinds import NodeKind

INK, FAINT, PAPER = "#1d2733", "#5f6c79", "#ffffff"
VALUED, PLAIN, STEPS = "#2f79b5", "#7b8794", "#a3245f"
"""Edges with values, edges without, and the operations between layers."""
FONT = "DejaVu Sans"
TITLE, TEXT, SMALL = 8.5, 7.5, 7.0
"""Sizes of words, in points."""
LINE = 0.145
"""Height of a line of words."""
CODES = {"M": Path.MOVETO, "L": Path.LINETO, "Q": Path.CURVE3, "C": Path.CURVE4}
DOTS_PER_INCH, MOST_DOTS = 160, 24_000

FILL = {
    NodeKind.INPUT: ("#cdd4db", "#5f6c79"),
    NodeKind.NEURON: ("#f3f5f8", "#2b3643"),
    NodeKind.SUM: ("#e7f1d6", "#5c8001"),
    NodeKind.PRODUCT: ("#f6e1ee", "#a8508a"),
    NodeKind.MAXIMUM: ("#fbe0dc", "#b8442f"),
    NodeKind.STATISTICS: ("#b9e0da", "#187a72"),
    NodeKind.NORMALISED: ("#e0f3f0", "#187a72"),
    NodeKind.HEAD: ("#e6e0f6", "#6548b0"),
    NodeKind.BIAS: ("#3b4754", "#1d2733"),
    NodeKind.POSITION: ("#fff3b5", "#a98a00"),
    NodeKind.TOKEN: ("#eef0d8", "#74783a"),
}
"""Inside and edge of nodes by the kind of their set. None is orange or blue: these are the colours of edges."""

Point = tuple[float, float]
Sample = Callable[[Axes, Point], None]
"""Draws what an entry of a legend explains, in the middle of a place."""


def new_axes() -> Axes:
    """An empty drawing, to be cut to size at the end."""
    figure = Figure(facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


@cache
def width_of(words: str, size: float = TEXT, weight: str = "normal") -> float:
    """Inches that words take."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    with _boxes_for_missing_letters():
        return text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] / 72


def widest(lines: Iterable[str], size: float = TEXT, weight: str = "normal") -> float:
    """Inches that the longest of some lines takes."""
    return max((width_of(words, size, weight) for words in lines), default=0.0)


def write(
    axes: Axes,
    place: Point,
    words: str,
    size: float = TEXT,
    colour: str = INK,
    align: str = "center",
    weight: str = "normal",
) -> None:
    """Words at a place, their middle on its height."""
    axes.text(
        *place,
        words,
        fontsize=size,
        color=colour,
        ha=align,
        va="center_baseline",
        fontweight=weight,
        family=FONT,
        parse_math=False,
        zorder=5,
    )


def box(axes: Axes, centre: Point, kind: NodeKind, width: float, height: float, dashed: bool = False) -> None:
    """A rounded box in the colours of a kind; dashed and pale where it stands for one drawn elsewhere."""
    inside, edge = FILL[kind]
    radius = min(0.09, height / 2.01)
    axes.add_patch(
        FancyBboxPatch(
            (centre[0] - width / 2, centre[1] - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor=PAPER if dashed else inside,
            edgecolor=edge,
            linewidth=1.2,
            linestyle=(0, (3, 2)) if dashed else "-",
            zorder=3,
        )
    )


def dot(axes: Axes, centre: Point, kind: NodeKind) -> None:
    """A node."""
    inside, edge = FILL[kind]
    axes.add_patch(Circle(centre, 0.075, facecolor=inside, edgecolor=edge, linewidth=1.2, zorder=4))


def stroke(
    axes: Axes,
    vertices: Sequence[Point],
    codes: str,
    colour: str,
    width: float,
    dashed: bool = False,
    zorder: float = 2,
) -> None:
    """A path; codes are as in SVG, a letter a vertex: Move, Line, Quadratic and Cubic curves with their controls."""
    axes.add_patch(
        PathPatch(
            Path(vertices, [CODES[code] for code in codes]),
            facecolor="none",
            edgecolor=colour,
            linewidth=width,
            linestyle=(0, (2.2, 1.6)) if dashed else "-",
            capstyle="butt",
            joinstyle="round",
            zorder=zorder,
        )
    )


def line(axes: Axes, points: Sequence[Point], colour: str, width: float, dashed: bool = False) -> None:
    """A line through points: level where two share their height, else a soft step from one height to the other."""
    vertices, codes = [points[0]], "M"
    for (x, y), (next_x, next_y) in pairwise(points):
        if y == next_y or x == next_x:
            vertices, codes = [*vertices, (next_x, next_y)], codes + "L"
        else:
            middle = (x + next_x) / 2
            vertices += [(middle, y), (middle, next_y), (next_x, next_y)]
            codes += "CCC"
    stroke(axes, vertices, codes, colour, width, dashed)


def head(axes: Axes, tip: Point, colour: str, direction: Point = (1.0, 0.0)) -> None:
    """The head of an arrow."""
    (x, y), (right, up), long, wide = tip, direction, 0.085, 0.042
    foot = (x - long * right, y - long * up)
    corners = [tip, (foot[0] - wide * up, foot[1] + wide * right), (foot[0] + wide * up, foot[1] - wide * right)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none", zorder=2.5))


def draw_legend(axes: Axes, corner: Point, entries: Iterable[tuple[Sample, str]], width: float) -> float:
    """Samples with their words, downwards from the upper left corner; the height they take."""
    x, y = corner
    for sample, words in entries:
        needed = 0.58 + width_of(words)
        if x > corner[0] and x + needed > corner[0] + width:
            x, y = corner[0], y - 0.22
        sample(axes, (x + 0.15, y - 0.11))
        write(axes, (x + 0.36, y - 0.11), words, colour=FAINT, align="left")
        x += needed
    return corner[1] - y + 0.22


def as_bytes(axes: Axes, left: float, bottom: float, right: float, top: float, file_format: str) -> bytes:
    """The drawing cut to size, without the date or anything else that is not in it."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.set_size_inches(right - left, top - bottom)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    content = BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[file_format]
    dots = min(DOTS_PER_INCH, MOST_DOTS / max(right - left, top - bottom))
    with (
        rc_context({"svg.hashsalt": "metazoo", "svg.fonttype": "none", "pdf.fonttype": 42}),
        _boxes_for_missing_letters(),
    ):
        figure.savefig(content, format=file_format, dpi=dots, metadata=metadata, facecolor=PAPER)
    if file_format == "svg":  # the viewer's fonts are used: for one that lacks ours, another of nearly the same widths
        return content.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
    return content.getvalue()


@contextmanager
def _boxes_for_missing_letters() -> Iterator[None]:
    """PNG and PDF have small boxes for letters the font lacks; matplotlib would warn of each of them every time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
