"""What the report says of data, predictions, conclusions and provenance: its sections but the one on CKA.

Reads   records of the dataset, of predictions and of the CKA table
Writes  sections of a page (analysis.page)

Sentences are about what the tables hold, and say what may not be concluded from them as plainly as what may.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.cka_table import CkaTable
from analysis.names import counted, readable, words
from analysis.page import Html, bullets, figures, paragraph, section, table, warning
from analysis.scores import BOUND, CEILING, Difference, Evaluation, MethodScores, Score, interval, method_name, number
from pipeline.file_records import sha256
from pipeline.parquet_files import equal

DEMONSTRATION = "digits"
"""Zoos of these images are for demonstration: they are too easy for a claim about anything."""
FEW_RUNS = 100
SIDES = {"train": "training", "val": "validation", "test": "testing"}
KINDS = {
    "gmn": "graph metanetworks, which read the parameter graph itself",
    "weight_statistics": "boosted trees on mean, spread and quantiles of every tensor of weights",
    "hyperparameters": "boosted trees on the settings of the run and the epoch, without a look at the weights",
    "training_accuracy": "the best monotone function of the accuracy on the training images",
}
"""What the methods of ``python -m training`` are, by the name in their prediction files."""
PACKAGES = ("numpy", "pyarrow", "pytorch-lightning", "ray", "scikit-learn", "scipy", "torch", "zarr")


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetFacts:
    """A dataset of graphs, as far as the page is concerned."""

    table: pa.Table
    made_of: Mapping[str, Any]
    """The zoos by name with their digests, and the options of the dataset."""
    digest: str
    num_diverged: int
    """Checkpoints that were left out because the run had diverged."""

    @property
    def zoos(self) -> list[str]:
        """Names of the zoos, without their digests."""
        return [name.rpartition("-")[0] or name for name in self.made_of.get("sources", {})]

    @property
    def is_demonstration(self) -> bool:
        return any(name.startswith(DEMONSTRATION) for name in self.zoos)


def data_section(facts: DatasetFacts, evaluation: Evaluation) -> Html:
    """The population, and who saw which part of it."""
    rows = facts.table
    runs_of = {side: len(rows.filter(equal(rows["split"], side))["unit"].unique()) for side in SIDES}
    assigned = words([f"{runs_of[side]:,} to {purpose}" for side, purpose in SIDES.items()])
    diverged = f" {facts.num_diverged:,} checkpoints of runs that diverged are left out." if facts.num_diverged else ""
    blocks = [
        paragraph(
            f"A zoo of small networks was trained: {len(rows['run_id'].unique()):,} runs with different "
            f"hyperparameters. Each was stored after {epochs_of(rows)}, and every stored state became a "
            f"parameter graph, with a node per neuron and an edge per weight: {rows.num_rows:,} graphs.{diverged}"
        ),
        paragraph(
            f"Whole runs were assigned, {assigned}, by a hash of their names. Scores are for the "
            f"{counted(evaluation.rows.num_rows, 'graph')} of {counted(evaluation.num_units, 'run')} that no method "
            "was trained on."
        ),
    ]
    if facts.is_demonstration:
        blocks.append(
            warning(
                "This zoo was trained on scikit-learn's digits. It shows that every step works; it is too small and "
                "too easy to support any claim about metanetworks."
            )
        )
    return section("What was done", *blocks)


def prediction_section(
    evaluation: Evaluation, scores: Sequence[MethodScores], paired: Sequence[Difference], pictures: Sequence[Html]
) -> Html:
    """Scores, the points behind them, and differences."""
    what = readable(evaluation.column)
    n = f"{counted(evaluation.rows.num_rows, 'graph')} of {counted(evaluation.num_units, 'held-out run')}"
    has_ceiling = scores[-1].name == CEILING
    header = ["Method", "R²", "95 % interval", "Kendall τ", "95 % interval"]
    rows = [
        [row.name, *score_cells(row.r_squared), *score_cells(row.kendall_tau, BOUND if row.name == CEILING else "")]
        for row in scores
    ]
    caption = (
        f"Predicting {what} on {n}. R² is 1 for perfect predictions and 0 for always saying the mean; Kendall's τ is 1 "
        "if any two networks are put in the right order and 0 for chance. Intervals are from 1,000 bootstrap samples "
        "of whole runs: how much the scores would vary with other runs, not with other seeds."
    )
    blocks = [
        bullets(kinds_of(evaluation)),
        table(header, rows, caption, "lrrrr", last_apart=has_ceiling),
    ]
    if has_ceiling:
        blocks.append(
            paragraph(
                "The last row is what noise allows. Accuracy is measured on a limited number of test images, so even "
                "the best prediction of it is imperfect. The ceiling of R² follows from how well the accuracies on the "
                "even and on the odd test images agree, corrected for half the images (Spearman and Brown). For τ no "
                "such correction is made: shown is the τ between the two halves, and the true ceiling is higher."
            )
        )
    blocks += [
        figures(pictures, "small"),
        paragraph(
            f"Each point is one graph: its {what} to the right, the prediction upwards; on the line both are equal."
        ),
    ]
    if paired:
        caption = (
            "Differences in R², both methods scored on the same bootstrap samples of runs. An interval that holds 0 "
            "means that these runs do not tell which of the two is better."
        )
        header = ["Method", "Compared with", "R² higher by", "95 % interval"]
        listed = [[row.better, row.worse, *score_cells(row.difference)] for row in paired]
        blocks.append(table(header, listed, caption, "llrr"))
    return section(f"How well {what} can be predicted", *blocks)


def kinds_of(evaluation: Evaluation) -> list[str]:
    """What the methods are, as far as it is known."""
    names = {kind: sorted(method.name for method in evaluation.methods if method.kind == kind) for kind in KINDS}
    return [f"{words(names[kind])}: {purpose}" for kind, purpose in KINDS.items() if names[kind]]


def score_cells(score: Score, sign: str = "") -> list[str]:
    """A score and its interval, as two cells."""
    return [sign + number(score.value), interval(score)]


def conclusions_section(
    facts: DatasetFacts, evaluation: Evaluation, scores: Sequence[MethodScores], cka: CkaTable
) -> Html:
    """What may be concluded, and what not."""
    best, what = scores[0], readable(evaluation.column)
    best_text = (
        f"Among the methods compared, {best.name} predicts {what} of held-out runs best, with an R² of "
        f"{number(best.r_squared.value)}. The table of differences says from which others these runs can tell it."
    )
    seeds_text = (
        f"Nothing about other seeds of the metanetworks: {len(cka.networks)} were compared, and the intervals are over "
        "runs."
    )
    may_not = [
        "Nothing about other zoos, architectures or image data: training and held-out runs are of one population.",
        seeds_text,
        "Nothing about what each method could reach: settings were not tuned with equal budgets.",
        "Not that two layers of high CKA do the same with their input, nor that two of low CKA act differently.",
    ]
    if len(set(evaluation.rows["epoch"].to_pylist())) > 1:
        epochs = epochs_of(evaluation.rows)
        may_not.append(f"Nothing about networks of one age: part of what is predicted is the age ({epochs}).")
    if evaluation.num_units < FEW_RUNS:
        may_not.append(f"Nothing fine: {evaluation.num_units:,} held-out runs are few, as the intervals show.")
    if facts.is_demonstration:
        may_not.insert(0, "Nothing beyond this demonstration: digits are for trying things out.")
    cka_text = (
        "Where the interval of a CKA value stays clear of 0, the two layers arrange these graphs alike to that degree."
    )
    return section(
        "What may be concluded",
        bullets([best_text, cka_text]),
        paragraph("And what may not:"),
        bullets(may_not),
    )


def configuration_section(facts: DatasetFacts) -> Html:
    """The settings of the first run, beside what all runs have."""
    rows = facts.table.take(np.lexsort((facts.table["epoch"].to_numpy(), facts.table["run_id"].to_numpy())))
    names = ["architecture", *(name for name in rows.column_names if name.startswith("config."))]
    listed = [
        [readable(name.removeprefix("config.")), setting(rows[name][0].as_py()), span(rows[name].to_pylist())]
        for name in names
    ]
    run = rows["run_id"][0].as_py()
    caption = f"Resolved settings of the first run, {run}, and of all runs. A dash: a setting that does not act."
    return section("Configuration", table(["Setting", "First run", "All runs"], listed, caption, "lcc"))


def setting(value: object) -> str:
    """A setting as text."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def span(values: Sequence[Any]) -> str:
    """All different values if they are few and short, otherwise their range or number."""
    known = sorted({value for value in values if value is not None})
    texts = [setting(value) for value in known]
    if len(set(values)) == 1:
        return "the same"
    if len(", ".join(texts)) <= 60:
        return ", ".join(texts)
    return f"{len(known):,} different" if isinstance(known[0], str) else f"{texts[0]} to {texts[-1]}"


def provenance_section(facts: DatasetFacts, cka: CkaTable, predictions: Sequence[Path]) -> Html:
    """Digests of everything the page was made from."""
    made_of = facts.made_of
    rows = [[f"zoo {name}", str(digest)] for name, digest in made_of.get("sources", {}).items()]
    rows.append(["dataset of graphs", facts.digest])
    rows += [[f"dataset: {name}", text(made_of[name])] for name in ("seed", "splits") if name in made_of]
    rows += [[f"predictions: {method_name(path)}", sha256(path.read_bytes())] for path in predictions]
    for network in cka.networks:
        name = readable(network.name)
        rows += [[f"{name}: {readable(key)}", text(value)] for key, value in network.made_of.items()]
        rows.append([f"{name}: representation", network.digest])
    rows.append(["CKA: sample ids", cka.cells["sample_digest"][0].as_py()])
    rows += [[f"CKA: {readable(key)}", text(value)] for key, value in cka.description["comparison"].items()]
    versions = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    rows.append(["versions", ", ".join(f"{name} {number}" for name, number in versions.items())])
    caption = "Digests are SHA-256: equal digests, equal bytes. Versions are those that made this page."
    return section("Where it comes from", table(["What", "Value"], rows, caption, "lc"))


def text(value: object) -> str:
    """A word as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def epochs_of(rows: pa.Table) -> str:
    """``epochs 1, 4 and 16``."""
    epochs = sorted(set(rows["epoch"].to_pylist()))
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {words(epochs)}"
