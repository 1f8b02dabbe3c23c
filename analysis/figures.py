"""Pictures as PNG bytes: CKA of two networks as a heat map, predictions against what was measured as a scatter.

Reads   numbers and names
Writes  nothing: PNG bytes, the same for the same input and version of matplotlib

Only ``Figure`` is used, none of pyplot's global state. Importing matplotlib takes a second, so import this module where
something is drawn. Colours: white is 0, blue towards 1, orange below 0: told apart by every kind of colour vision.
"""

from io import BytesIO

import numpy as np
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

INK, FAINT, UNDEFINED = "#1d2733", "#7b8794", "#eceef1"
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [
        (0.0, "#7f3b08"),
        (0.3, "#e08214"),
        (0.5, "#ffffff"),
        (0.62, "#d3e4f1"),
        (0.75, "#82b8da"),
        (0.88, "#2f79b5"),
        (1.0, "#08306b"),
    ],
)
"""From -1 to 1."""
ORDERED = ("#f4a259", "#2f79b5", "#08306b", "#5c8001", "#7b8794")
"""Of groups in their order, as far as they go."""
DOTS_PER_INCH = 200
LARGE, SMALL = 0.44, 0.2
"""Inches along a cell of a heat map; in large ones every cell carries its number."""
LARGEST = 9.0
"""Inches along all cells; with more layers than fit, cells shrink."""


def heat_map(
    values: Float64[np.ndarray, "La Lb"],
    rows: list[str],
    columns: list[str],
    row_label: str,
    column_label: str,
    cell: float = LARGE,
) -> bytes:
    """CKA of every layer of one network (rows, from below) with every layer of another (columns)."""
    La, Lb = values.shape
    cell = min(cell, LARGEST / max(La, Lb))
    figure = Figure(figsize=(2.35 + cell * Lb, 1.5 + cell * La), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap=SIGNED, norm=Normalize(-1, 1), origin="lower", interpolation="nearest")
    for row, column in np.argwhere(np.isnan(values)).tolist():
        corner = column - 0.5, row - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=UNDEFINED, edgecolor="#c5ccd3", hatch="////", linewidth=0))
    if cell == LARGE:
        annotate(axes, values)
    axes.hlines(np.arange(1, La) - 0.5, -0.5, Lb - 0.5, color="white", linewidth=0.6)
    axes.vlines(np.arange(1, Lb) - 0.5, -0.5, La - 0.5, color="white", linewidth=0.6)
    axes.set_xticks(range(Lb), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(La), rows, fontsize=8)
    axes.set_xlabel(column_label, fontsize=9.5, fontweight="bold", labelpad=7)
    axes.set_ylabel(row_label, fontsize=9.5, fontweight="bold", labelpad=7)
    tidy(axes)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, shrink=0.85, aspect=24)
    lowest = np.floor(float(np.nanmin(values, initial=0.0)) * 5) / 5
    bar.ax.set_ylim(lowest, 1)
    bar.set_ticks(np.arange(lowest, 1.01, 0.2).tolist())
    bar.ax.tick_params(labelsize=8, length=2, color=FAINT, labelcolor=INK)
    bar.set_label("linear CKA, debiased", fontsize=8, color=INK, labelpad=6)
    bar.outline.set_visible(False)  # type: ignore[operator]  # declared as the class of what it is
    return png(figure)


def annotate(axes: Axes, values: Float64[np.ndarray, "La Lb"]) -> None:
    """Every cell's number in it, in black or white."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
            colour = "white" if abs(value) > 0.62 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def scatter(
    target: Float64[np.ndarray, " n"],
    prediction: Float64[np.ndarray, " n"],
    group: Int64[np.ndarray, " n"],
    limits: tuple[float, float],
    title: str,
    label: str,
) -> bytes:
    """Predictions over measurements, one point per graph, coloured by epoch; on the line they agree."""
    figure = Figure(figsize=(2.75, 2.85), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=0.8, zorder=1)
    groups = np.unique(group).tolist()
    coloured = groups if 1 < len(groups) <= len(ORDERED) else [None]
    for place, epoch in enumerate(coloured):
        chosen = slice(None) if epoch is None else group == epoch
        colour = ORDERED[place] if epoch is not None else ORDERED[1]
        points = axes.scatter(target[chosen], prediction[chosen], s=8, color=colour, alpha=0.65, linewidths=0, zorder=2)
        points.set_label(f"epoch {epoch}")
    if len(coloured) > 1:
        axes.legend(fontsize=7.5, frameon=False, loc="lower right", handletextpad=0.1, borderpad=0.2, markerscale=1.5)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(title, fontsize=8.5, fontweight="bold", color=INK, loc="left")
    axes.set_xlabel(f"measured {label}", fontsize=8)
    axes.set_ylabel(f"predicted {label}", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    tidy(axes)
    axes.spines[["left", "bottom"]].set_visible(True)
    axes.spines[["left", "bottom"]].set_color("#c5ccd3")
    axes.grid(color="#eceef1", linewidth=0.7)
    return png(figure)


def tidy(axes: Axes) -> None:
    """No frame, short ticks, one colour of ink."""
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=2, color=FAINT, labelcolor=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def png(figure: Figure) -> bytes:
    """The picture, without the date or anything else that is not in the numbers."""
    content = BytesIO()
    figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.04)
    return content.getvalue()
