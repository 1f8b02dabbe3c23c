"""How large stacks are where that is left open: what a GPU holds, told by numbers made up here, or a constant."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import zoo_job
from pipeline.cluster import Machine
from pipeline.images import load_images
from pipeline.inr_zoo import InrSpec
from pipeline.stack_size import PROBED, USABLE, fitting_stack, measured_stack
from pipeline.train_zoo import zoo
from pipeline.trainers import SirenTrainer, Trainer
from pipeline.zoo import ZooSpec
from pipeline.zoo_job import settled
from pipeline.zoo_store import create_zoo
from test_inr_zoo import TINY_INR
from tiny_zoo import TINY


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(0, 10**11), st.integers(1, 4096))
def test_stacks_are_the_largest_power_of_two_that_fits(fixed: int, each: int, room: int, most: int) -> None:
    """Memory is fixed + each * runs; from one run's on there is room for more."""
    budget = fixed + each + room
    found = fitting_stack(one=fixed + each, some=fixed + PROBED * each, budget=budget, most=most)
    assert found & (found - 1) == 0
    assert found <= most
    assert fixed + each * found <= budget
    assert 2 * found > most or fixed + each * 2 * found > budget


def test_where_not_one_fits_that_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one run takes 3.00 GB on a GPU, of which a task has 2.00; .*gpus_per_task"):
        fitting_stack(one=3 * 10**9, some=10**10, budget=2 * 10**9, most=8)


@pytest.mark.parametrize(
    ("spec", "trainer", "runs"),
    [(replace(TINY, runs_per_chunk=50), Trainer(name="stacked"), 32), (TINY_INR, SirenTrainer(), 8)],
    ids=["classifiers", "implicit"],
)
def test_a_stack_is_tried_by_training_one(spec: ZooSpec | InrSpec, trainer: Trainer | SirenTrainer, runs: int) -> None:
    """Each run takes 1 MB; half of 100 MB is ours, of which 42 may be used, and chunks have 50 or 10 runs."""
    sizes: list[int] = []

    def peak(work: Callable[[], Any]) -> int:
        sizes.append(len(work()))
        return sizes[-1] * 10**6

    images = load_images(spec.images)
    assert USABLE == 0.85
    assert measured_stack(spec, trainer, images, 0.5, peak, lambda: 100 * 10**6) == runs
    assert sizes[-1] == PROBED
    assert set(sizes[:-1]) == {1}


def test_on_a_cpu_it_is_a_constant_and_what_was_recorded_stays(tmp_path: Path) -> None:
    images = load_images(TINY.images)
    machine, out, open_size = Machine(), tmp_path / "zoo", Trainer(name="stacked")
    assert settled(open_size, out, TINY, images, machine) == Trainer(name="stacked", stack=2)
    assert settled(Trainer(), out, TINY, images, machine) == Trainer()
    assert settled(SirenTrainer(), out, TINY_INR, images, machine) == SirenTrainer(stack=32)
    create_zoo(out, TINY, Trainer(name="stacked", stack=5))
    assert settled(open_size, out, TINY, None, machine) == Trainer(name="stacked", stack=5)
    assert settled(Trainer(name="stacked", stack=3), out, TINY, None, machine) == Trainer(name="stacked", stack=3)


def test_a_gpu_must_be_asked_for_and_be_there(tmp_path: Path) -> None:
    gpu = Trainer(name="stacked", stack=4, device="cuda")
    with pytest.raises(ValueError, match="device is cuda, and machine.gpus_per_task is 0"):
        zoo(TINY, tmp_path / "zoo", trainer=gpu)
    assert not (tmp_path / "zoo").exists()
    with pytest.raises(ValueError, match="device is cuda, and this process sees no GPU; have Ray give one"):
        gpu.train([], load_images(TINY.images))
    with pytest.raises(ValueError, match="device is cuda; the loop trains on cpu"):
        Trainer(device="cuda")
    assert zoo_job.settled(gpu, tmp_path / "zoo", TINY, None, Machine(gpus_per_task=0.5)) is gpu
