"""The symmetry atlas in docs/ is what tracing and checking give today.

A few networks that are quick to check stand for all; `python -m benchmarks.symmetry_atlas` looks at every one.
"""

import pytest

from benchmarks.symmetry_atlas import ATLAS, entry_of, rounded, shortened, summary
from tests.atlas_networks import CONVOLUTIONAL, LANGUAGE_MODELS, NETWORKS, VISION_TRANSFORMERS

QUICK = (
    *("RegNet", "ConvNeXtV2", "EfficientNet", "HGNetV2", "BiT"),
    *("DINOv3 ViT", "PVTv2", "ALBERT", "GPT-2", "LLaMA", "T5 encoder", "Mixtral"),
)
"""Families: convolutional ones, then transformers; three are refused."""


@pytest.mark.parametrize("family", QUICK)
def test_a_network_has_the_row_that_the_atlas_says(family: str) -> None:
    [network] = [network for network in NETWORKS if network.family == family]
    entry = entry_of(network)
    supported, refused = ATLAS.read_text(encoding="utf-8").split("## Refused")
    assert entry.line in (supported if entry.supported else refused).splitlines(keepends=True)


def test_every_network_is_in_the_atlas_once() -> None:
    rows = [line.split(" | ")[1] for line in ATLAS.read_text(encoding="utf-8").splitlines() if " | `" in line]
    assert sorted(rows) == sorted(f"`{network.model}`" for network in NETWORKS)


def test_the_atlas_supports_most_networks_of_each_kind() -> None:
    supported, _ = ATLAS.read_text(encoding="utf-8").split("## Refused")
    for networks in (CONVOLUTIONAL, VISION_TRANSFORMERS, LANGUAGE_MODELS):
        found = [network for network in networks if f" | `{network.model}` | " in supported]
        assert len(found) >= 2 / 3 * len(networks)


@pytest.mark.parametrize(
    ("order", "text"), [(1, "1"), (9_999_999, "9,999,999"), (10**7, "1.0e7"), (376 * 10**1000, "3.8e1002")]
)
def test_large_orders_are_rounded(order: int, text: str) -> None:
    assert rounded(order) == text


def test_an_error_is_one_cell_of_the_table() -> None:
    assert shortened("a |\n b") == "a / b"
    assert len(shortened("word " * 100)) <= 240


def test_names_of_inert_tensors_that_end_alike_are_counted() -> None:
    names = ("encoder.layer.0.key.bias", "norm.bias", "encoder.layer.1.key.bias")
    assert summary(names) == "`layer.key.bias` x2, `norm.bias`"
