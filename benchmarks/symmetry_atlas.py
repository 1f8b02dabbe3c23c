"""The symmetry atlas: parameter graphs and symmetry groups of networks no one here wrote.

    python -m benchmarks.symmetry_atlas

Reads   the tiny networks of `tests.atlas_networks`, made of the architectures in `transformers`
Writes  docs/symmetry_atlas.md

Every network is traced, and its graph checked against it. What `trace` refuses is in the table with the error; a wrong
graph ends the program. Takes some minutes on one core.
"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from pipeline.symmetry import check
from pipeline.tracing import trace
from tests.atlas_networks import NETWORKS, AtlasNetwork

ATLAS = Path(__file__).parents[1] / "docs" / "symmetry_atlas.md"
EXACT = 10**7
"""Orders below are written with all digits."""
LONGEST_ERROR = 240
"""Characters of an error that the table shows."""

TITLE = """# The symmetry atlas

Written by `python -m benchmarks.symmetry_atlas`; the networks are in `tests/atlas_networks.py`.

Tiny configurations with random weights of architectures in [transformers](https://github.com/huggingface/transformers),
each traced to its parameter graph (`pipeline.tracing.trace`), and the graph tested against the network
(`pipeline.symmetry.check`). The group is that of all relabellings of neurons that preserve the function whatever the
weights: S(n) exchanges n neurons freely, `A wr S(n)` exchanges n rows (heads, groups) and in each, on its own, what A
allows, G(n) is a group of order n found by search. Inert tensors are those of which some values never have an
influence; they stand under the ends of their names, without numbers.
"""
SUPPORTED = """
## Supported

| Family | Class | Nodes | Edges | Values | Order | Group | Inert tensors |
|---|---|--:|--:|--:|--:|---|---|
"""
REFUSED = """
## Refused

| Family | Class | Error |
|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class AtlasEntry:
    """A network's row of the table."""

    line: str
    """In Markdown."""
    supported: bool
    """Or else it stands in the table of errors."""


def main() -> None:
    """Trace and check them all, and write the atlas."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    entries: list[AtlasEntry] = []
    for network in (bar := tqdm(NETWORKS)):
        bar.set_description(network.family)
        entries.append(entry_of(network))
    supported = [entry.line for entry in entries if entry.supported]
    refused = [entry.line for entry in entries if not entry.supported]
    counts = f"\n{len(supported)} networks are supported and {len(refused)} refused.\n"
    ATLAS.write_text("".join([TITLE, counts, SUPPORTED, *supported, REFUSED, *refused]), encoding="utf-8")


def entry_of(network: AtlasNetwork) -> AtlasEntry:
    """Trace one network, and check its graph.

    Raises:
        ValueError: the graph is wrong.
    """
    module, example = network.build(), network.example()
    removed = ", ".join(name.rpartition(".")[2] for name in network.removed)
    names = [f"{network.family}, without {removed}" if removed else network.family, f"`{network.model}`"]
    try:
        template = trace(module, example)
    except ValueError as error:
        return AtlasEntry(line=row(*names, shortened(str(error))), supported=False)
    report = check(module, template, example)
    sizes = [f"{size:,}" for size in (template.num_nodes, template.num_edges, template.num_values)]
    line = row(*names, *sizes, rounded(report.group_order), report.group, summary(report.inert))
    return AtlasEntry(line=line, supported=True)


def row(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |\n"


def shortened(error: str) -> str:
    """An error as a cell of a table."""
    text = " ".join(error.replace("|", "/").split())
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1].rstrip() + "…"


def rounded(order: int) -> str:
    """The order of a group: ``48``, ``5.5e11``."""
    return f"{order:,}" if order < EXACT else f"{Decimal(order):.1e}".replace("e+", "e")


def summary(names: tuple[str, ...]) -> str:
    """The ends of names without numbers, each once with how many names have it."""
    counts = Counter(".".join([part for part in name.split(".") if not part.isdigit()][-3:]) for name in names)
    return ", ".join(f"`{end}` x{count}" if count > 1 else f"`{end}`" for end, count in counts.items())


if __name__ == "__main__":
    main()
