"""Saved tables -> scores, figures and one page that anybody can read: no network is run, none is needed.

    python -m analysis report --cka runs/digits/cka.parquet --predictions runs/digits \\
        --graphs runs/digits/graphs.zarr --out runs/digits/report

Reads   the table of CKA values (analysis.cka_table), predictions (training.predictions), the dataset's tables
Writes  OUT/report.html, scores.parquet, scores.csv, figures/*.png; each file whole, replacing older ones
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from analysis.cka_section import cka_section
from analysis.cka_table import CkaTable, parquet_of, read_cka_table
from analysis.names import by_kind, counted, file_name, layer_title, readable
from analysis.page import Html, figure, page
from analysis.scores import (
    Evaluation,
    MethodScores,
    differences,
    find_predictions,
    number,
    read_evaluation,
    score_methods,
    scores_table,
    scores_text,
)
from analysis.sections import (
    DatasetFacts,
    conclusions_section,
    configuration_section,
    data_section,
    prediction_section,
    provenance_section,
)
from pipeline.checked_files import refuse_inside_dataset
from pipeline.whole_files import write_file

MOST_PAIRS = 12
"""Heat maps of this many pairs of networks, at most."""


def report(cka: Path, predictions: Path | list[Path], graphs: Path, out: Path) -> None:
    """Write scores, figures and a page from saved tables.

    Args:
        cka: a table made by ``python -m analysis cka``.
        predictions: files made by ``python -m training predict`` and ``baselines``, or folders in which to look for
            them (and in the folders in those). ``gmn-seed-0/predictions.parquet`` appears as "gmn seed 0".
        graphs: the dataset they were made from.
        out: folder of the report.
    """
    from analysis.figures import LARGE, SMALL  # imports matplotlib

    refuse_inside_dataset(out)
    table = read_cka_table(cka)
    facts = read_facts(graphs)
    paths = find_predictions(predictions if isinstance(predictions, list) else [predictions])
    evaluation = read_evaluation(paths, facts.table)
    scores = score_methods(evaluation)
    heat_maps, scatters = draw_heat_maps(table, LARGE), draw_scatters(evaluation, scores)
    shown = [*pictures(heat_maps)[:1], *pictures(draw_heat_maps(table, SMALL))[1:]]
    html = page(
        f"Networks that read networks: {', '.join(facts.zoos)}",
        f"How well trained networks' {readable(evaluation.column)} is predicted, by "
        f"{counted(len(evaluation.methods), 'method')}, and how alike the layers of "
        f"{counted(len(table.networks), 'metanetwork')} are.",
        [
            data_section(facts, evaluation),
            prediction_section(
                evaluation, scores, differences(evaluation, [row.name for row in scores]), pictures(scatters)
            ),
            cka_section(table, shown),
            conclusions_section(facts, evaluation, scores, table),
            configuration_section(facts),
            provenance_section(facts, table, paths),
        ],
        "Made by python -m analysis report. Every number is in scores.csv, scores.parquet and the table of CKA values.",
    )
    saved = scores_table(evaluation, scores)
    csv = pa.BufferOutputStream()
    pyarrow.csv.write_csv(saved, csv)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    write_file(out / "scores.parquet", parquet_of(saved))
    write_file(out / "scores.csv", csv.getvalue().to_pybytes())
    for title, content in {**heat_maps, **scatters}.items():
        write_file(out / "figures" / f"{file_name(title)}.png", content)
    write_file(out / "report.html", html.encode())
    print("\n".join(scores_text(evaluation, scores)))
    print(f"\nwrote {out / 'report.html'} (open it in a browser; it needs no network)")
    print(f"      {out / 'scores.csv'}, scores.parquet")
    print(f"      {out / 'figures'}: {counted(len(heat_maps), 'heat map')}, {counted(len(scatters), 'scatter')}")


def read_facts(graphs: Path) -> DatasetFacts:
    """What the page says of a dataset."""
    from pipeline.graph_store import open_graphs  # imports torch

    dataset = open_graphs(graphs)
    return DatasetFacts(
        table=dataset.table,
        made_of=dataset.made_of,
        digest=dataset.files.manifest.digest,
        num_diverged=dataset.left_out["reason"].to_pylist().count("diverged"),
    )


def draw_heat_maps(table: CkaTable, cell: float) -> dict[str, bytes]:
    """Debiased CKA of pairs of networks, by a title: different networks first, then each with itself."""
    from analysis.figures import heat_map

    networks = table.networks
    pairs = [*combinations(networks, 2), *((network, network) for network in networks)]
    drawn = {}
    for a, b in pairs[:MOST_PAIRS]:
        rows, columns = by_kind(a.layers), by_kind(b.layers)
        drawn[f"{readable(a.name)} and {readable(b.name) if a is not b else 'itself'}"] = heat_map(
            table.pair(a.name, b.name, "debiased").value[np.ix_(rows, columns)],
            [layer_title(a.layers[row]) for row in rows],
            [layer_title(b.layers[column]) for column in columns],
            readable(a.name),
            readable(b.name),
            cell,
        )
    return drawn


def draw_scatters(evaluation: Evaluation, scores: list[MethodScores]) -> dict[str, bytes]:
    """Predictions over measurements, by method, the best first; all on the same axes."""
    from analysis.figures import scatter

    predictions = {method.name: method.prediction for method in evaluation.methods}
    everything = np.concatenate([evaluation.target, *predictions.values()])
    low, high = np.percentile(everything[np.isfinite(everything)], [0, 100]).tolist()
    margin = 0.03 * ((high - low) or 1)
    epoch = evaluation.rows["epoch"].to_numpy().astype(np.int64)
    return {
        row.name: scatter(
            evaluation.target,
            predictions[row.name],
            epoch,
            (low - margin, high + margin),
            f"{row.name}   R² {number(row.r_squared.value)}",
            readable(evaluation.column),
        )
        for row in scores
        if row.name in predictions
    }


def pictures(drawn: dict[str, bytes]) -> list[Html]:
    """Pictures for the page."""
    return [figure(content, title) for title, content in drawn.items()]
