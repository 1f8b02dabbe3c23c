"""How large stacks are where that is left open: what a GPU holds, told by numbers made up here, or a constant."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster import Machine
from pipeline.images import load_images
from pipeline.inr_zoo import InrSpec
from pipeline.stack_size import PROBED, USABLE, fitting_stack, measured_stack
from pipeline.train_zoo import zoo
from pipeline.trainers import CONSTANT, SirenTrainer, Trainer
from pipeline.zoo import ZooSpec
from pipeline.zoo_job import continued, settled
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


def test_on_a_cpu_it_is_a_constant_and_what_was_recorded_stays() -> None:
    images, open_size = load_images(TINY.images), Trainer(name="stacked")
    assert settled(open_size, TINY, images, Machine()) == Trainer(name="stacked", stack=2)
    assert settled(Trainer(), TINY, images, Machine()) == Trainer()
    assert settled(SirenTrainer(), TINY_INR, images, Machine()) == SirenTrainer(stack=32)
    five = Trainer(name="stacked", stack=5)
    assert continued(open_size, five) == five
    assert continued(Trainer(name="stacked", stack=3), five) == Trainer(name="stacked", stack=3)
    assert continued(Trainer(), five) == Trainer()


def test_of_several_gpus_a_stack_uses_one() -> None:
    images, trainer = load_images(TINY.images), Trainer(name="stacked")
    spec = replace(TINY, runs_per_chunk=1000)

    def counted(work: Callable[[], Any]) -> int:
        return len(work())

    one, two = (measured_stack(spec, trainer, images, share, counted, lambda: 100) for share in (1.0, 2.0))
    assert one == two


def test_a_gpu_must_be_asked_for_and_be_there(tmp_path: Path) -> None:
    gpu = Trainer(name="stacked", stack=4, device="cuda")
    with pytest.raises(ValueError, match="device is cuda, and machine.gpus_per_task is 0"):
        zoo(TINY, tmp_path / "zoo", trainer=gpu)
    assert not (tmp_path / "zoo").exists()
    with pytest.raises(ValueError, match="device is cuda, and this process sees no GPU; have Ray give one"):
        gpu.train([], load_images(TINY.images))
    assert settled(gpu, TINY, load_images(TINY.images), Machine(gpus_per_task=0.5)) is gpu


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "the loop trains on cpu, one run after another; found device cuda and stack None"),
        ({"stack": 4}, "found device cpu and stack 4, which are for stacked"),
        ({"name": "stacked", "stack": 0}, "trainer: stack is 0; expected at least 1"),
    ],
)
def test_impossible_trainers_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "fused"},
        {"name": "stacked", "stack": 2, "device": "tpu"},
        {"name": "stacked", "stack": 2, "device": "cpu"},
        {"name": "stacked", "stack": "2"},
        {"name": "stacked", "stack": [2]},
        {"name": "stacked"},
        {"stack": 2},
        {},
    ],
)
def test_what_is_no_record_of_a_trainer_is_refused(settings: dict[str, Any]) -> None:
    """Of a CPU nothing is recorded, and stacks always have a size."""
    for kind in (Trainer, SirenTrainer):
        with pytest.raises(ValueError, match="is not known; expected such as"):
            kind.of({**CONSTANT, **settings})
