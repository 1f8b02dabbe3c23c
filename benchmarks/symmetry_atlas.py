"""The symmetry atlas: parameter graphs and symmetry groups of networks no one here wrote.

    python -m benchmarks.symmetry_atlas

Reads   the tiny networks of `tests.atlas_networks`, made of the architectures in `transformers`
Writes  docs/symmetry_atlas.md

Every network is traced and its graph checked against it; what `trace` or `check` refuses is in the table with the
error. Takes some minutes.
"""

from dataclasses import dataclass
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
allows, G(n) is a group of order n found by search. Inert tensors are those of which some values never have an
influence.
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
    refused: bool
    """Whether it stands in the table of errors."""


def main() -> None:
    """Trace and check them all, and write the atlas."""
    torch.set_num_threads(1)
    entries = [entry_of(network) for network in tqdm(NETWORKS)]
    supported, refused = ("".join(entry.line for entry in entries if entry.refused is which) for which in (False, True))
    ATLAS.write_text(TITLE + SUPPORTED + supported + REFUSED + refused, encoding="utf-8")


def entry_of(network: AtlasNetwork) -> AtlasEntry:
    """Trace one network and check its graph."""
    module, example = network.build(), network.example()
    start = f"| {network.family}{_without(network)} | `{network.model}` |"
    try:
        template = trace(module, example)
        report = check(module, template, example)
    except ValueError as error:
        return AtlasEntry(line=f"{start} {short(str(error))} |\n", refused=True)
    inert = ", ".join(f"`{name.removeprefix('model.')}`" for name in report.inert)
    numbers = (
        f"{template.num_nodes:,} | {template.num_edges:,} | {template.num_values:,} | {rounded(report.group_order)}"
    )
    return AtlasEntry(line=f"{start} {numbers} | {report.group} | {inert} |\n", refused=False)


def _without(network: AtlasNetwork) -> str:
    """What was removed from a network, which serves training alone."""
    return f", without {', '.join(name.rpartition('.')[2] for name in network.removed)}" if network.removed else ""


def short(error: str) -> str:
    """An error as a cell of a table."""
    text = " ".join(error.replace("|", "/").split())
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1].rstrip() + "…"


def rounded(order: int) -> str:
    """The order of a group: ``48``, ``5.5e11``."""
    if order < EXACT:
        return f"{order:,}"
    exponent = 0
    while order >= 10**16:  # long integers cannot be converted at once
        order, exponent = order // 10, exponent + 1
    digits = str(order)
    return f"{digits[0]}.{digits[1]}e{exponent + len(digits) - 1}"


if __name__ == "__main__":
    main()
