"""Random damage of every kind to the tiny dataset: ``verify`` finds it, and readers refuse it or give what they gave
before. `campaign_damage.py` draws hundreds, each in a process of its own."""

import random
from pathlib import Path

import pytest

from pipeline.verify_graphs import verify
from random_damage import KINDS, Reading, draw, judge, read_everything
from tiny_dataset import make_tiny_dataset

SEED = 1
ELSEWHERE = ("options of the manifest",)
"""Kinds that give functions arguments of any type, which the checks of types in tests refuse before the functions."""


@pytest.fixture(name="tiny_dataset")
def shared_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """What is read of the dataset before anything is done to it."""
    return read_everything(make_tiny_dataset(tmp_path_factory.getbasetemp()))


def test_all_of_a_sound_dataset_can_be_read(tiny_dataset: Path, sound: Reading) -> None:
    verify(tiny_dataset)
    assert not sound.errors
    assert len([key for key in sound.given if key[0] == "graph"]) == 13


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # zarr's, of offsets near 2^64
@pytest.mark.parametrize("name", [name for name in KINDS if name not in ELSEWHERE])
def test_damage_is_found_and_never_read_as_something_else(
    name: str, tiny_dataset: Path, sound: Reading, tmp_path: Path
) -> None:
    what = draw(KINDS[name], tiny_dataset, tmp_path / "graphs.zarr", random.Random(f"{SEED}/{name}"))
    assert not judge(KINDS[name], tmp_path / "graphs.zarr", sound).problem, what
