"""The report's section on CKA: heat maps, the same layer of two networks in numbers, how layers were read, every cell.

Reads   the table of CKA values (analysis.cka_table)
Writes  a section of a page (analysis.page)
"""

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement

import numpy as np
import pyarrow as pa

from analysis.cka_table import CkaTable, PairCells
from analysis.names import by_kind, layer_title, readable, words
from analysis.page import Html, details, figures, paragraph, section, table
from analysis.scores import Score, interval, number

MOST_CELLS = 1500
"""Cells the page lists; of more it says where they are."""


def cka_section(cka: CkaTable, pictures: Sequence[Html]) -> Html:
    """All that the page says about the table; the first picture is shown large."""
    networks, cells = cka.networks, cka.cells
    n, n_units = cells["n"][0].as_py(), cells["n_units"][0].as_py()
    pairs = [cka.both(a.name, b.name) for a, b in combinations(networks, 2)]
    every = [cka.both(a.name, b.name) for a, b in combinations_with_replacement(networks, 2)]
    rows = [row for debiased, biased in every for row in cell_rows(debiased, biased)]
    listed = (
        details(f"All {len(rows):,} cells", cells_table(rows, cka.path.name))
        if len(rows) <= MOST_CELLS
        else paragraph(f"All {len(rows):,} cells are in {cka.path.name}.")
    )
    return section(
        "How alike the layers of the metanetworks are",
        paragraph(
            "Centred kernel alignment (CKA) asks whether two layers arrange the same inputs alike: 1 if their "
            "representations are equal up to rotation and scale, 0 if they are unrelated. Shown is linear CKA, "
            "debiased: unrelated layers come out about 0, on either side of it, whatever their widths. The biased "
            "estimator, which many papers report, mostly gives more; the tables below have both."
        ),
        paragraph(null_text(cells, n, n_units)),
        figures(pictures[:1], "large"),
        *([figures(pictures[1:], "medium")] if pictures[1:] else []),
        paragraph(
            "Blue is alike, the darker the more; orange is below 0. Layers run from the input at the lower left to "
            f"the output at the upper right, those read alike side by side.{undefined_text(cells)}"
            + (f" Shown are {len(pictures)} of {len(every)} pairs." if len(pictures) < len(every) else "")
        ),
        *(same_layer_table(debiased, biased, n, n_units) for debiased, biased in pairs),
        readings_table(cka),
        listed,
    )


def null_text(cells: pa.Table, n: int, n_units: int) -> str:
    """What the values are to be compared with."""
    if n == n_units:
        sd = float(np.nanmax(cells["null_sd"].to_numpy(), initial=0.0))
        return (
            f"All {n:,} graphs are of different runs. Between unrelated layers, debiased values would have a standard "
            f"deviation of {number(sd)} about 0."
        )
    return (
        f"The {n:,} graphs are of {n_units:,} runs. States of one run resemble each other, which lifts values "
        "somewhat, debiased ones too, and leaves open how far from 0 unrelated layers would lie. For a clean "
        "reference, represent the networks on graphs of a single epoch."
    )


def undefined_text(cells: pa.Table) -> str:
    """Why cells are hatched, if some are."""
    reasons = sorted({reason for reason in cells["reason"].to_pylist() if reason})
    return f" Hatched cells have no value ({words(reasons)})." if reasons else ""


def same_layer_table(debiased: PairCells, biased: PairCells, n: int, n_units: int) -> Html:
    """One row per layer that both networks have."""
    independent = n == n_units
    rows = []
    for row in by_kind(debiased.a.layers):
        layer = debiased.a.layers[row]
        if layer in debiased.b.layers:
            column = debiased.b.layers.index(layer)
            z = [f"{debiased.z[row, column]:.0f}".replace("nan", "")] if independent else []
            value = number(float(biased.value[row, column]))
            rows.append([layer_title(layer), *cell_texts(debiased, row, column), *z, value])
    header = ["Layer", "Debiased", "95 % interval", *(["z"] if independent else []), "Biased"]
    caption = (
        f"The same layer in {readable(debiased.a.name)} and in {readable(debiased.b.name)}, on {n:,} graphs of "
        f"{n_units:,} runs. Intervals are from a jackknife that leaves out blocks of whole runs"
        + ("; z is the value in standard deviations of unrelated layers." if independent else ".")
    )
    return table(header, rows, caption, "l" + "r" * (len(header) - 1))


def cell_texts(cells: PairCells, row: int, column: int) -> list[str]:
    """Value, or why there is none, and interval."""
    value, low, high = (float(ends[row, column]) for ends in (cells.value, cells.low, cells.high))
    return [str(cells.reason[row, column]) or number(value), interval(Score(value=value, low=low, high=high))]


def cell_rows(debiased: PairCells, biased: PairCells) -> list[list[str]]:
    """Every cell of two networks."""
    a, b = debiased.a, debiased.b
    return [
        [
            *(readable(a.name), layer_title(a.layers[row]), readable(b.name), layer_title(b.layers[column])),
            *cell_texts(debiased, row, column),
            number(float(biased.value[row, column])),
        ]
        for row, column in np.ndindex(debiased.value.shape)
    ]


def cells_table(rows: Sequence[Sequence[str]], source: str) -> Html:
    header = ["Network", "layer", "and network", "layer", "Debiased", "95 % interval", "Biased"]
    return table(header, rows, f"Rounded from {source}.", "llllrrr")


def readings_table(cka: CkaTable) -> Html:
    """What each layer is, once for all networks."""
    readings: dict[tuple[str, str, int], None] = {}
    for network in cka.networks:
        readings.update(dict.fromkeys(zip(network.layers, network.readings, network.widths, strict=True)))
    rows = [[layer_title(layer), reading, f"{width:,}"] for layer, reading, width in readings]
    caption = "How each layer became one vector per graph. Another reading may give other values of CKA."
    return table(["Layer", "Read as", "Features"], rows, caption, "llr")
