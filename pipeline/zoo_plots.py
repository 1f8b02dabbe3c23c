"""A zoo at a glance: how its runs learn, what decides how well they do, and how well that is measured.

    python -m pipeline inspect runs/digits/zoo --plots zoo.png

Reads   the rows of a zoo's finished chunks
Writes  one picture: .png, .svg or .pdf
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from pipeline.distributions import Distribution
from pipeline.whole_files import write_file
from pipeline.zoo_store import Zoo, finished_chunks, half_accuracies, read_chunk

SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 4
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_KINDS = 12
"""A hyperparameter of more values than this is drawn as numbers."""
WINDOWS = 12
"""Over which a median is taken."""
FEWEST = 8
"""Runs in a window."""
BLUE, INK, FAINT = "#2c6fb0", "#1d2a38", "#8a95a3"


@dataclass(frozen=True, kw_only=True)
class Finals:
    """The last checkpoints of runs that did not diverge, and what they were trained with."""

    accuracy: Float64[np.ndarray, " runs"]
    halves: tuple[Float64[np.ndarray, " runs"], Float64[np.ndarray, " runs"]]
    """On the even and on the odd test images."""
    settings: dict[str, list[Any]]
    """What differs between runs, by name."""


def plot_zoo(zoo: Zoo, path: Path) -> None:
    """Draw a zoo into a file.

    Raises:
        ValueError: the suffix is not one that is drawn, or no run has finished well.
    """
    check_suffix(path)
    rows, halves = read_rows(zoo)
    number = rows["checkpoint"].to_numpy()
    chosen = (number == number.max()) & (rows["status"].to_numpy(zero_copy_only=False) == "ok")
    if not chosen.any():
        raise ValueError(f"{zoo.path}: no run has come to its last checkpoint without diverging; nothing to draw")
    table = rows.filter(pa.array(chosen))
    finals = Finals(
        accuracy=table["test_accuracy"].to_numpy(),
        halves=(halves[0][chosen], halves[1][chosen]),
        settings=differing(table),
    )
    save(draw(zoo, rows, finals), path)


def check_suffix(path: Path) -> None:
    """Refuse a file that is not a picture."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a picture ends in {', '.join(SUFFIXES)}")


def save(figure: Any, path: Path) -> None:
    """Write a figure into a file, whole or not at all."""
    picture = BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(picture, format=path.suffix[1:], dpi=130, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, picture.getvalue())


def read_rows(zoo: Zoo) -> tuple[pa.Table, tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]]:
    """All rows of finished chunks, and the accuracies on both halves of the test images."""
    chunks = [read_chunk(zoo, index) for index in finished_chunks(zoo)]
    if not chunks:
        raise ValueError(f"{zoo.path}: no chunk is trained yet; nothing to draw")
    halves = [half_accuracies(chunk.correct, zoo.spec.num_tested) for chunk in chunks]
    first, second = (np.concatenate(part) for part in zip(*halves, strict=True))
    return pa.concat_tables([chunk.rows for chunk in chunks], promote_options="default"), (first, second)


def differing(table: pa.Table) -> dict[str, list[Any]]:
    """The arguments of architectures and the hyperparameters that are not the same for all runs."""
    arguments = [json.loads(text)["arguments"] for text in table["architecture"].to_pylist()]
    names = dict.fromkeys(name for some in arguments for name in some)
    found = {name: [readable(some.get(name)) for some in arguments] for name in names}
    for column in (name for name in table.column_names if name.startswith("config.")):
        found.setdefault(column.removeprefix("config."), table[column].to_pylist())
    return {name: values for name, values in found.items() if len({str(v) for v in values if v is not None}) > 1}


def readable(value: Any) -> Any:
    """Lists as text."""
    return "-".join(map(str, value)) if isinstance(value, list) else value


def draw(zoo: Zoo, rows: pa.Table, finals: Finals) -> Any:
    """The figure: two panels about all runs, one for each setting."""
    title = f"Zoo {zoo.spec.name!r}: {len(finals.accuracy):,} runs, test accuracy"
    figure, panels = new_figure(title, 2 + len(finals.settings))
    draw_curves(panels[0], rows)
    draw_halves(panels[1], finals)
    draw_settings(panels[2:], zoo, finals.settings, finals.accuracy, (0.0, 1.0))
    return figure


def new_figure(title: str, num_panels: int) -> tuple[Any, list[Any]]:
    """A figure, and its panels in rows of `COLUMNS`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = ceil(num_panels / COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 2.9 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, color=INK, fontsize=13)
    panels = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors=INK)
    for panel in panels[num_panels:]:
        panel.set_axis_off()
    return figure, panels[:num_panels]


def draw_settings(
    panels: Sequence[Any],
    zoo: Zoo,
    settings: dict[str, list[Any]],
    scores: Float64[np.ndarray, " runs"],
    limits: tuple[float, float],
) -> None:
    """A panel for each setting: a score of every run by it."""
    for panel, (name, values) in zip(panels, settings.items(), strict=True):
        how = zoo.spec.drawn.get(name)
        ranges = (how.uniform, how.log_uniform) if isinstance(how, Distribution) else (None, None)
        panel.set_ylim(*limits)
        panel.set_title(name.replace("_", " "), fontsize=10, color=INK)
        given = [(value, score) for value, score in zip(values, scores.tolist(), strict=True) if value is not None]
        kinds = {value for value, _ in given}
        if ranges == (None, None) and (len(kinds) <= MOST_KINDS or any(isinstance(kind, str) for kind in kinds)):
            draw_boxes(panel, given)
        else:
            draw_points(panel, given, logarithmic=ranges[1] is not None)


def draw_curves(panel: Any, rows: pa.Table) -> None:
    """Quantiles of test accuracy over epochs."""
    number = rows["checkpoint"].to_numpy()
    epochs = rows["epoch"].to_numpy()[np.unique(number, return_index=True)[1]]
    accuracy = rows["test_accuracy"].to_numpy()
    known = np.isfinite(accuracy)
    table = np.array(
        [
            np.quantile(some, QUANTILES) if len(some := accuracy[known & (number == place)]) else [np.nan] * 5
            for place in range(len(epochs))
        ]
    )
    for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
        panel.fill_between(epochs, table[:, low], table[:, high], color=BLUE, alpha=alpha, linewidth=0)
    panel.plot(epochs, table[:, 2], color=BLUE, marker="o", markersize=3)
    panel.set_title("learning curves", fontsize=10, color=INK)
    panel.set_xlabel("epoch\n(median; half and nine tenths of runs)", fontsize=8, color=INK)
    panel.set_ylim(0, 1)


def draw_halves(panel: Any, finals: Finals) -> None:
    """Accuracy on one half of the test images against the other."""
    even, odd = finals.halves
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    panel.scatter(even, odd, s=6, alpha=0.5, color=BLUE, linewidths=0, rasterized=True)
    told_apart = len(even) > 1 and even.std() > 0 and odd.std() > 0
    correlation = f"r = {np.corrcoef(even, odd)[0, 1]:.4f}" if told_apart else "runs are too alike for r"
    panel.set_title(f"split halves, {correlation}", fontsize=10, color=INK)
    panel.set_xlabel("on the even test images", fontsize=8, color=INK)
    panel.set_ylabel("on the odd", fontsize=8, color=INK)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)


def draw_boxes(panel: Any, given: Sequence[tuple[Any, float]]) -> None:
    """A score by a setting of few values."""
    kinds = sorted({value for value, _ in given}, key=lambda value: (isinstance(value, str), value))
    groups = [[score for value, score in given if value == kind] for kind in kinds]
    panel.boxplot(
        groups,
        widths=0.6,
        sym="",
        patch_artist=True,
        boxprops={"facecolor": "#cfe0f1", "edgecolor": BLUE},
        medianprops={"color": INK},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
    )
    labels = [f"{kind:.2g}" if isinstance(kind, float) else str(kind).replace("_", "\n") for kind in kinds]
    panel.set_xticks(range(1, len(kinds) + 1), labels, fontsize=7)


def draw_points(panel: Any, given: Sequence[tuple[float, float]], *, logarithmic: bool) -> None:
    """A score by a number, with a running median where there are enough runs for one."""
    numbers, scores = (np.array(part, dtype=np.float64) for part in zip(*given, strict=True))
    if logarithmic:
        panel.set_xscale("log")
    panel.scatter(numbers, scores, s=6, alpha=0.4, color=BLUE, linewidths=0, rasterized=True)
    if len(numbers) < WINDOWS * FEWEST:
        return
    windows = np.array_split(np.argsort(numbers), WINDOWS)
    middle = [(np.median(numbers[window]), np.median(scores[window])) for window in windows]
    panel.plot(*zip(*middle, strict=True), color=INK, linewidth=1.2)
