"""The symmetry atlas in docs/ is what tracing and checking give today.

A few networks that are quick to check stand for all; `python -m benchmarks.symmetry_atlas` looks at every one.
"""

import pytest

from benchmarks.symmetry_atlas import ATLAS, entry_of, rounded, short
from tests.atlas_networks import NETWORKS

QUICK = (
    "ResNet",
    "ConvNeXt",
    "ConvNeXtV2",
    "TextNet",
    "FocalNet",
    "SegFormer",
    "DistilBERT",
    "ELECTRA",
    "GPT-1",
    "T5 encoder",
    "RoBERTa, counting its own positions",
    "Mixtral",
)
"""Families: convolutional, transformer, and refused."""


@pytest.mark.parametrize("family", QUICK)
def test_a_network_has_the_graph_and_the_group_that_the_atlas_says(family: str) -> None:
    [network] = [network for network in NETWORKS if network.family == family]
    entry = entry_of(network)
    assert entry.line in ATLAS.read_text(encoding="utf-8")


def test_every_network_is_in_the_atlas_once_and_most_are_supported() -> None:
    supported, refused = ATLAS.read_text(encoding="utf-8").split("## Refused")
    rows = [line.split(" | ")[1] for line in f"{supported}{refused}".splitlines() if " | `" in line]
    assert sorted(rows) == sorted(f"`{network.model}`" for network in NETWORKS)
    assert supported.count(" | `") >= max(15, 2 * refused.count(" | `"))


@pytest.mark.parametrize(
    ("order", "text"), [(1, "1"), (9_999_999, "9,999,999"), (10**7, "1.0e7"), (37 * 10**1000, "3.7e1001")]
)
def test_large_orders_are_rounded(order: int, text: str) -> None:
    assert rounded(order) == text


def test_an_error_is_one_cell_of_the_table() -> None:
    assert short("a |\n b") == "a / b"
    assert len(short("word " * 100)) <= 240
