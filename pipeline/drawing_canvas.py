"""Ink for drawings: words that are measured before they are placed, boxes, lines, a legend, and the bytes of the file.

Reads   nothing
Writes  nothing: SVG, PNG or PDF bytes, the same for the same drawing and version of matplotlib

Lengths are inches, y grows upwards. Importing matplotlib takes a second, so import this where something is drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from itertools import pairwise
from textwrap import wrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path

from pipeline.graph_kinds import NodeKind

INK, FAINT, PAPER = "#1d2733", "#5f6c79", "#ffffff"
VALUED, PLAIN, STEPS = "#2f79b5", "#7b8794", "#a3245f"
"""Edges with values, edges without, and the operations between layers."""
FONT = "DejaVu Sans"
LINE = 0.145
"""Height of a line of words."""
LONG = 28
"""Letters of words that are broken into lines."""
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
MEANING = {
    NodeKind.INPUT: "input",
    NodeKind.NEURON: "neurons: weighted sums",
    NodeKind.SUM: "sums",
    NodeKind.PRODUCT: "products",
    NodeKind.MAXIMUM: "maxima",
    NodeKind.NORMALISED: "normalised",
    NodeKind.STATISTICS: "statistics of a norm",
    NodeKind.HEAD: "attention scores, a node a head",
    NodeKind.BIAS: "bias node, a constant 1",
    NodeKind.POSITION: "table of positions",
    NodeKind.TOKEN: "vocabulary",
}
"""For the legend."""
ON_THE_WAY = "operations on what is read, before the edges act"
"""Likewise."""

Point = tuple[float, float]


def new_axes() -> Axes:
    """An empty drawing, to be cut to size at the end."""
    figure = Figure(facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


@cache
def width_of(words: str, size: float, weight: str = "normal") -> float:
    """Inches that words take."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] / 72


def write(
    axes: Axes,
    place: Point,
    words: str,
    size: float = 8.0,
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


def box(axes: Axes, kind: NodeKind, centre: Point, width: float, height: float, dashed: bool = False) -> None:
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


def dot(axes: Axes, kind: NodeKind, centre: Point, radius: float = 0.075) -> None:
    """A node."""
    inside, edge = FILL[kind]
    axes.add_patch(Circle(centre, radius, facecolor=inside, edgecolor=edge, linewidth=1.2, zorder=4))


def line(axes: Axes, points: Sequence[Point], colour: str, width: float, zorder: float = 2) -> None:
    """A line through points: level where two share their height, else a soft step from one height to the other."""
    vertices, codes = [points[0]], [Outline.MOVETO]
    for (x, y), (next_x, next_y) in pairwise(points):
        if y == next_y or x == next_x:
            vertices, codes = [*vertices, (next_x, next_y)], [*codes, Outline.LINETO]
        else:
            middle = (x + next_x) / 2
            vertices += [(middle, y), (middle, next_y), (next_x, next_y)]
            codes += [Outline.CURVE4] * 3
    axes.add_patch(
        PathPatch(
            Outline(vertices, codes),
            facecolor="none",
            edgecolor=colour,
            linewidth=width,
            capstyle="butt",
            joinstyle="round",
            zorder=zorder,
        )
    )


def head(axes: Axes, tip: Point, colour: str, direction: Point = (1.0, 0.0)) -> None:
    """The head of an arrow."""
    (x, y), (right, up), long, wide = tip, direction, 0.085, 0.042
    foot = (x - long * right, y - long * up)
    corners = [tip, (foot[0] - wide * up, foot[1] + wide * right), (foot[0] + wide * up, foot[1] - wide * right)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor="none", zorder=2.5))


def packed(words: Iterable[str], most: int = 20) -> list[str]:
    """Words in lines, as many in each as fit; long ones are broken at spaces."""
    lines: list[str] = []
    for word in words:
        if len(word) > LONG:
            lines += wrap(word, len(word) // (1 + len(word) // LONG) + 4)
        elif lines and len(lines[-1]) + len(word) + 2 <= most:
            lines[-1] += f", {word}"
        else:
            lines += [word]
    return lines


def name_lines(name: str, most: int = 18) -> list[str]:
    """A module's path in two lines at most, broken after a dot; what is too long loses its beginning."""
    if len(name) <= most:
        return [name]
    parts, first = name.split("."), ""
    while len(parts) > 1 and len(first) + len(parts[0]) + 1 <= most:
        first += parts.pop(0) + "."
    rest = ".".join(parts)
    shortened = rest if len(rest) <= most else "…" + rest[-most + 1 :]
    return [first, shortened] if first else [shortened]


@dataclass(kw_only=True)
class Legend:
    """Entries of a legend: a sample and words each."""

    kinds: list[NodeKind] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    """Colours of lines, and words."""
    words: list[tuple[str, str, str]] = field(default_factory=list)
    """Colours, samples and words."""
    small: bool = False
    """Whether nodes are drawn as dots, and edges without a value dashed."""

    def draw(self, axes: Axes, corner: Point, width: float) -> float:
        """Draw it downwards from its upper left corner; its height."""
        x, y = corner
        for sample, words in self._entries():
            needed = 0.36 + width_of(words, 7.5) + 0.22
            if x > corner[0] and x + needed > corner[0] + width:
                x, y = corner[0], y - 0.22
            self._draw_sample(axes, sample, (x, y - 0.11))
            write(axes, (x + 0.36, y - 0.11), words, 7.5, FAINT, "left")
            x += needed
        return corner[1] - y + 0.22

    def _entries(self) -> list[tuple[NodeKind | tuple[str, ...], str]]:
        kinds = [(kind, MEANING[kind]) for kind in self.kinds]
        return [*kinds, *(((c,), words) for c, words in self.lines), *(((c, s), words) for c, s, words in self.words)]

    def _draw_sample(self, axes: Axes, sample: NodeKind | tuple[str, ...], place: Point) -> None:
        x, y = place
        if isinstance(sample, NodeKind):
            if self.small:
                dot(axes, sample, (x + 0.2, y))
            else:
                box(axes, sample, (x + 0.15, y), 0.24, 0.13)
        elif len(sample) == 1:
            style = "dashed" if self.small and sample[0] == PLAIN else "solid"
            axes.plot([x + 0.02, x + 0.26], [y, y], color=sample[0], linewidth=1.6, linestyle=style)
        else:
            write(axes, (x + 0.15, y), sample[1], 7.5, sample[0])


def as_bytes(axes: Axes, left: float, bottom: float, right: float, top: float, file_format: str) -> bytes:
    """The drawing cut to size, without the date or anything else that is not in it."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.set_size_inches(right - left, top - bottom)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    content = BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[file_format]
    dots = min(DOTS_PER_INCH, MOST_DOTS / max(right - left, top - bottom))
    with rc_context({"svg.hashsalt": "metazoo", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(content, format=file_format, dpi=dots, metadata=metadata, facecolor=PAPER)
    return content.getvalue()
