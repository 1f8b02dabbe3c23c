"""A parameter-graph dataset at a glance: its labels, what it consists of, how large networks and their values are.

    python -m pipeline inspect runs/digits/graphs.zarr --plots graphs.png

Reads   the table of a dataset, and the values of at most two hundred graphs
Writes  one picture: .png, .svg or .pdf
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.edge_values import spread, values_by_kind
from pipeline.export_rows import MAIN_LABELS, main_label, numbers
from pipeline.graph_groups import MARKS, OTHERS, family_names, largest, side_colours
from pipeline.graph_store import GraphDataset
from pipeline.zoo_plots import BLUE, FAINT, INK, QUANTILES, check_suffix, new_figure, save

FEWEST_BARS, MOST_BARS = 8, 30
MOST_ROWS = 12
"""Bars of families."""
MOST_POINTS = 2000
FEW_SIZES = 12
"""So many sizes or fewer are drawn as columns of some width, because points of one size hide one another."""
LONGEST = 16
"""Letters of a name."""
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.2),
    "ncols": 3,
    "fontsize": 7,
    "frameon": False,
    "labelcolor": INK,
    "columnspacing": 1.0,
    "handlelength": 1.2,
}
"""A legend below its panel, where it hides nothing."""


def plot_dataset(dataset: GraphDataset, file: Path) -> None:
    """Draw a dataset into a file.

    Raises:
        ValueError: the suffix is not one that is drawn, or a value cannot be read.
    """
    check_suffix(file)
    save(draw(dataset), file)


def draw(dataset: GraphDataset) -> Any:
    """The figure: labels, families, sizes, values."""
    table, label = dataset.table, main_label(dataset.table)
    families = family_names(table)
    figure, panels = new_figure(f"Dataset {plain(dataset.files.root.name)}: {len(dataset):,} graphs", 4)
    if label is None:
        say(panels[0], "labels", "no label is known")
        say(panels[2], "size and label", "no label is known")
    else:
        draw_labels(panels[0], table, label)
        draw_sizes(panels[2], table, label, families)
    draw_families(panels[1], table, families)
    draw_values(panels[3], dataset)
    return figure


def draw_labels(panel: Any, table: pa.Table, label: str) -> None:
    """How often a label occurs, by side of the split: shares of each, since sides differ in size."""
    score, side = numbers(table, label), np.array(table["split"].to_pylist(), dtype=object)
    known = np.isfinite(score)
    limits = (0.0, 1.0) if label.endswith("accuracy") else (float(score[known].min()), float(score[known].max()))
    counts = Counter(side[known].tolist())
    bars = int(np.clip(np.sqrt(min(counts.values())), FEWEST_BARS, MOST_BARS))
    for name, colour in side_colours(list(counts)).items():
        some = score[known & (side == name)]
        share = np.full(len(some), 100 / len(some))
        style = {"histtype": "step", "linewidth": 1.3} if name != "train" else {"alpha": 0.35}
        panel.hist(
            some, bins=bars, range=limits, weights=share, color=colour, label=f"{short(name)} {len(some):,}", **style
        )
    caption(panel, "labels", MAIN_LABELS[label], "% of the graphs of a side")
    panel.legend(fontsize=7, frameon=False, labelcolor=INK)


def draw_families(panel: Any, table: pa.Table, families: Sequence[str]) -> None:
    """Graphs of each family on the sides of every split, as bars one after another."""
    splits = [name for name in table.column_names if name.startswith("split")][:MOST_ROWS]
    shown = largest(families, max(MOST_ROWS // len(splits), 1))
    group = [name if name in shown else OTHERS for name in families]
    colours = side_colours(sorted({side for split in splits for side in table[split].unique().to_pylist() if side}))
    counts = {split: Counter(zip(group, table[split].to_pylist(), strict=True)) for split in splits}
    middles = np.arange(len(shown)) * (len(splits) + (len(splits) > 1)) + (len(splits) - 1) / 2
    for middle, family in zip(middles.tolist(), shown, strict=True):
        for place, split in enumerate(splits, start=int(middle - (len(splits) - 1) / 2)):
            left = 0
            for side, colour in colours.items():
                number = counts[split][family, side]
                panel.barh(place, number, left=left, color=colour, height=0.8)
                left += number
            if len(splits) > 1:
                panel.text(left, place, f" {short(split)}", va="center", fontsize=5.5, color=INK)
    panel.set_yticks(middles, [short(name) for name in shown], fontsize=7)
    panel.set_ylim(max(middles[-1] + len(splits) / 2, 2.5) + 0.1, -0.6)
    panel.set_xlim(0, max(Counter(group).values()) * (1.4 if len(splits) > 1 else 1.05))
    panel.locator_params(axis="x", nbins=4)
    caption(panel, f"families ({len(set(families)):,}) and sides", "graphs")
    handles = [panel.barh(0, 0, color=colour) for colour in colours.values()]
    panel.legend(handles, [short(name) for name in colours], **BELOW)


def draw_sizes(panel: Any, table: pa.Table, label: str, families: Sequence[str]) -> None:
    """A label by the number of values, in the colour and shape of the family."""
    score, size = numbers(table, label), table["length"].to_numpy().astype(np.float64)
    known = np.flatnonzero(np.isfinite(score))
    known = known[spread(len(known), MOST_POINTS)]
    score, size, family = score[known], size[known], np.array(families, dtype=object)[known]
    sizes = np.unique(size)
    if len(sizes) <= FEW_SIZES:
        width = min(0.15, 0.4 * float(np.diff(np.log(sizes)).min(initial=1.0)))
        size = size * np.exp(np.random.default_rng(0).uniform(-width, width, len(size)))
    shown = largest(families, len(MARKS) + 1)
    for place, name in enumerate(shown):
        some = family == name if name != OTHERS else ~np.isin(family, shown)
        colour, mark = MARKS[place] if place < len(MARKS) else (FAINT, ".")
        panel.scatter(
            size[some], score[some], s=6, alpha=0.4, color=colour, marker=mark, linewidths=0, label=short(name)
        )
    panel.set_xscale("log")
    panel.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    panel.minorticks_off()
    ticks = size_ticks(sizes)
    panel.set_xticks(ticks, [in_short(tick) for tick in ticks])
    if label.endswith("accuracy"):
        panel.set_ylim(0, 1)
    spread_out = "\n(points of one size lie side by side)" if len(sizes) <= FEW_SIZES else ""
    caption(panel, "size and label", f"values of a network{spread_out}", MAIN_LABELS[label])
    for handle in panel.legend(markerscale=2, **BELOW).legend_handles:
        handle.set_alpha(1)


def size_ticks(sizes: Float64[np.ndarray, " sizes"]) -> list[int]:
    """Where the axis has words: at the sizes there are, or at round numbers; at most four."""
    if len(sizes) <= 4:
        apart = np.diff(np.log(sizes), prepend=-np.inf) > np.log(sizes[-1] / sizes[0] * 2.25) / 6
        return [int(size) for size in sizes[apart]]
    powers = 10.0 ** np.arange(np.floor(np.log10(sizes[0] / 1.5)), np.log10(sizes[-1] * 1.5) + 1)
    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        ticks = np.outer(powers, steps).reshape(-1)
        ticks = ticks[(ticks >= sizes[0] / 1.5) & (ticks <= sizes[-1] * 1.5) & (ticks >= 1)].astype(np.int64)
        if len(ticks) <= 4:
            break
    return ticks[:: -(-len(ticks) // 4) or 1].tolist()


def draw_values(panel: Any, dataset: GraphDataset) -> None:
    """Quantiles of the values on edges of each kind."""
    found = values_by_kind(dataset)
    for place, values in enumerate(found.values()):
        low, quarter, middle, three_quarters, high = np.quantile(values, QUANTILES).tolist()
        for start, end, alpha in ((low, high, 0.25), (quarter, three_quarters, 0.6)):
            panel.barh(place, end - start, left=start, color=BLUE, alpha=alpha, height=0.7, linewidth=0)
        panel.plot([middle, middle], [place - 0.35, place + 0.35], color=INK, linewidth=1.2)
    panel.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    panel.use_sticky_edges = False
    panel.margins(x=0.05)
    panel.set_yticks(range(len(found)), [kind.name.lower().replace("_", " ") for kind in found], fontsize=7)
    panel.set_ylim(max(len(found), 3) - 0.4, -0.6)
    panel.locator_params(axis="x", nbins=5)
    caption(panel, "values by kind of edge", "value\n(median; half and nine tenths)")


def caption(panel: Any, title: str, below: str, beside: str = "") -> None:
    """The words of a panel."""
    panel.set_title(title, fontsize=10, color=INK)
    panel.set_xlabel(below, fontsize=8, color=INK)
    panel.set_ylabel(beside, fontsize=8, color=INK)


def say(panel: Any, title: str, words: str) -> None:
    """A panel with nothing to draw says why."""
    panel.set_axis_off()
    panel.set_title(title, fontsize=10, color=INK)
    panel.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, color=FAINT, transform=panel.transAxes)


def short(name: str) -> str:
    """A name that fits beside a bar."""
    return plain(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")


def plain(name: str) -> str:
    """A name as matplotlib draws it letter by letter: no mathematics in it, and not hidden from legends."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def in_short(number: int) -> str:
    """4,970, 20k, 1.5M."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.4g}k" if number < 1e6 else f"{number / 1e6:.4g}M"
