"""Every zoo in configs/ is one that can be trained: families and sizes fit together."""

from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipeline.architectures import FAMILIES, Architecture
from pipeline.families import FamilyName
from pipeline.inr_zoo import InrSpec, resolve_inr
from pipeline.specifications import parse_as
from pipeline.tracing import trace
from pipeline.zoo import ZooSpec, resolve

TRACED = 12
ZOOS = Path(__file__).parents[1] / "configs" / "zoo"
FILES = {folder: sorted((ZOOS / folder).glob("*.yaml")) for folder in ("family", "size")}


def document(*files: Path) -> dict[str, Any]:
    """The specification that files make together, as the command line merges them."""
    merged: dict[str, Any] = {}
    for file in files:
        merged |= yaml.safe_load(file.read_text())["spec"]
    return merged


def test_there_is_a_file_for_every_family() -> None:
    assert {file.stem for file in FILES["family"]} == set(get_args(FamilyName)) == set(FAMILIES) - {"siren"}
    assert {file.stem for file in FILES["size"]} == {"tiny", "local", "cluster"}


@pytest.mark.parametrize(("family", "size"), list(product(*FILES.values())), ids=lambda file: file.stem)
def test_a_family_and_a_size_are_a_zoo(family: Path, size: Path) -> None:
    """The first runs are resolved, so that their networks fit the images and they have a batch."""
    spec = parse_as(ZooSpec, document(family, size))
    runs = [resolve(spec, run_index) for run_index in range(20)]
    assert {run.architecture.family for run in runs} == {family.stem}
    assert all(run.num_steps > 0 for run in runs)


@pytest.mark.parametrize("family", FILES["family"], ids=lambda file: file.stem)
def test_small_networks_of_a_family_can_be_traced(family: Path) -> None:
    """At the smallest images, where convolutions run out of map first."""
    spec = parse_as(ZooSpec, document(family, ZOOS / "size" / "tiny.yaml"))
    for text in sorted({resolve(spec, run_index).architecture.document() for run_index in range(TRACED)}):
        architecture = Architecture.parse(text)
        trace(architecture.build(), architecture.example_input())


@pytest.mark.parametrize("file", sorted((ZOOS.parent / "inr").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_file_is_a_zoo_of_implicit_networks(file: Path) -> None:
    spec = parse_as(InrSpec, document(file))
    assert resolve_inr(spec, spec.num_runs - 1).architecture.family == "siren"


@pytest.mark.parametrize("file", sorted(ZOOS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_file_alone_is_a_zoo(file: Path) -> None:
    spec = parse_as(ZooSpec, document(file))
    assert resolve(spec, spec.num_runs - 1).num_steps > 0
