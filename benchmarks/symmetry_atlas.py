"""The symmetry atlas: parameter graphs and symmetry groups of networks no one here wrote.

    python -m benchmarks.symmetry_atlas

Reads   the tiny networks of `tests.atlas_networks`, made of the architectures in `transformers`
Writes  docs/symmetry_atlas.md

Every network is traced and its graph checked against it; what `trace` or `check` refuses is in the table with the
error. Takes some minutes on one core.
"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
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
allows, G(n) is a group of order n found by search. Inert tensors, under the last two parts of their names, are those of
which some values never have an influence.
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
    entries = [entry_of(network) for network in tqdm(NETWORKS)]
    supported = [entry.line for entry in entries if entry.supported]
    refused = [entry.line for entry in entries if not entry.supported]
    ATLAS.write_text("".join([TITLE, SUPPORTED, *supported, REFUSED, *refused]), encoding="utf-8")


def entry_of(network: AtlasNetwork) -> AtlasEntry:
    """Trace one network and check its graph."""
    module, example = network.build(), network.example()
    parts = ", ".join(name.rpartition(".")[2] for name in network.removed)
    family = f"{network.family}, without {parts}" if parts else network.family
    try:
        template = trace(module, example)
        report = check(module, template, example)
    except ValueError as error:
        return AtlasEntry(line=row(family, f"`{network.model}`", shortened(str(error))), supported=False)
    sizes = [f"{size:,}" for size in (template.num_nodes, template.num_edges, template.num_values)]
    group = [rounded(report.group_order), report.group, summary(report.inert)]
    return AtlasEntry(line=row(family, f"`{network.model}`", *sizes, *group), supported=True)


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
    """The last two parts of names, each pair once with how many names share it."""
    counts = Counter(".".join(name.split(".")[-2:]) for name in names)
    return ", ".join(f"`{ending}`" if count == 1 else f"`{ending}` x{count}" for ending, count in counts.items())


if __name__ == "__main__":
    main()
