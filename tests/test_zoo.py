"""From a specification to runs: the same every time, each run and each draw independent of the others."""

from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.distributions import Choice, Distribution
from pipeline.images import ImageSpec
from pipeline.specifications import parse_as
from pipeline.zoo import ModelSpec, ZooSpec, expand, resolve, run_stream
from tiny_zoo import DECAY, TINY, tiny_spec


def draws(runs: tuple[ModelSpec, ...]) -> list[tuple]:
    """What was drawn for each run, without its name."""
    return [(run.config, run.architecture, run.num_train) for run in runs]


def test_the_same_specification_gives_the_same_runs() -> None:
    assert expand(TINY) == expand(tiny_spec())


def test_more_runs_leave_the_earlier_ones_as_they_were() -> None:
    assert draws(expand(tiny_spec(num_runs=11)))[:5] == draws(expand(TINY))


def test_chunks_do_not_change_what_is_drawn() -> None:
    assert draws(expand(tiny_spec(runs_per_chunk=1))) == draws(expand(TINY))


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "l2", "dropout", "init_std", "train_fraction"])
def test_drawing_one_number_otherwise_changes_no_other(name: str) -> None:
    changed = expand(tiny_spec(**{name: Distribution(choice=(0.75,))}))
    for before, after in zip(expand(TINY), changed, strict=True):
        same = {name: getattr(before.config, name)}
        assert replace(after.config, **same) == before.config
        assert after.architecture == before.architecture
        assert getattr(after.config, name) in (0.75, None)


EVERY = Choice(choice=("sgd", "adam", "adamw", "rmsprop"))


def test_every_hyperparameter_differs_between_runs_and_another_seed_gives_others() -> None:
    runs = expand(tiny_spec(num_runs=41, optimizer=EVERY, weight_decay=DECAY))
    for field in fields(TINY.hyperparameters):
        assert len({getattr(run.config, field.name) for run in runs}) > 1, field.name
    assert {run.config.activation for run in runs} == {"relu", "tanh"}
    other = expand(tiny_spec(num_runs=41, seed=8, optimizer=EVERY, weight_decay=DECAY))
    assert all(a.config.learning_rate != b.config.learning_rate for a, b in zip(runs, other, strict=True))


def test_a_hyperparameter_that_does_not_act_is_null() -> None:
    for run in expand(tiny_spec(num_runs=41, optimizer=EVERY, weight_decay=DECAY)):
        assert (run.config.momentum is None) == (run.config.optimizer != "sgd")
        assert (run.config.weight_decay is None) == (run.config.optimizer != "adamw")
        assert (run.config.init_std is None) == (run.config.initialisation not in ("normal", "truncated_normal"))


@given(
    seed=st.integers(0, 2**32 - 1),
    one=st.tuples(st.integers(0, 10**6), st.text()),
    other=st.tuples(st.integers(0, 10**6), st.text()),
)
def test_streams_are_the_same_only_for_the_same_run_and_purpose(
    seed: int, one: tuple[int, str], other: tuple[int, str]
) -> None:
    def numbers(key: tuple[int, str]) -> list[int]:
        return run_stream(seed, *key).integers(2**63, size=3).tolist()

    assert numbers(one) == numbers(one)
    assert (numbers(one) == numbers(other)) == (one == other)


def test_streams_are_those_of_the_first_version() -> None:
    """A change here changes every zoo: the numbers were written down when the format was made."""
    assert run_stream(7, 3, "learning_rate").integers(1000, size=4).tolist() == [616, 581, 289, 241]
    config = resolve(TINY, 3).config
    assert (config.optimizer, config.learning_rate) == ("sgd", pytest.approx(0.003811085017264789, rel=1e-12))


def test_run_ids_name_the_specification_and_the_run() -> None:
    ids = [run.run_id for run in expand(TINY)]
    assert ids == [f"{TINY.digest[:8]}-{index:06d}" for index in range(5)]
    assert tiny_spec(seed=8).digest != TINY.digest


@given(num_runs=st.integers(1, 200), runs_per_chunk=st.integers(1, 50))
def test_every_run_is_in_one_chunk(num_runs: int, runs_per_chunk: int) -> None:
    spec = tiny_spec(num_runs=num_runs, runs_per_chunk=runs_per_chunk)
    chunks = [spec.chunk(index) for index in range(spec.num_chunks)]
    assert [run for chunk in chunks for run in chunk] == list(range(num_runs))
    assert all(0 < len(chunk) <= runs_per_chunk for chunk in chunks)


def test_a_specification_is_its_document() -> None:
    assert parse_as(ZooSpec, TINY.document()) == TINY
    assert parse_as(ZooSpec, TINY.document()).digest == TINY.digest
    assert TINY.document()["hyperparameters"]["momentum"] == {"uniform": [0.5, 0.9]}


def test_steps_count_full_batches_only() -> None:
    """Of 101 images a batch of 23 leaves 9 over: 4 steps an epoch, 8 in two epochs."""
    run = resolve(tiny_spec(train_fraction=Distribution(choice=(1.0,))), 0)
    assert (run.num_train, run.steps_per_epoch, run.num_steps) == (101, 4, 8)


def test_a_run_without_a_full_batch_is_refused_by_its_fraction_and_batch_size() -> None:
    message = (
        r"run 0: train_fraction 0.2 of 101 training images is 20 images, less than one batch \(batch_size 23\); "
        "raise the smallest train_fraction or images.num_train, or lower batch_size"
    )
    with pytest.raises(ValueError, match=message):
        expand(tiny_spec(train_fraction=Distribution(choice=(0.2,))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_runs": 0}, "num_runs is 0; expected at least 1"),
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"runs_per_chunk": 0}, "runs_per_chunk is 0; expected at least 1"),
        ({"seed": 2**32}, r"seed is 4294967296; expected 0 to 2\^32 - 1"),
        ({"checkpoint_epochs": ()}, r"checkpoint_epochs is \[\]; expected at least one epoch"),
        ({"checkpoint_epochs": (1, 0)}, r"checkpoint_epochs is \[1, 0\]; expected at least one epoch, ascending"),
        ({"checkpoint_epochs": (1, 1)}, r"checkpoint_epochs is \[1, 1\]; .* each once"),
        ({"checkpoint_epochs": (-1, 2)}, r"checkpoint_epochs is \[-1, 2\]; .* from 0 to 2 \(epochs\)"),
        ({"checkpoint_epochs": (0, 3)}, r"checkpoint_epochs is \[0, 3\]; .* from 0 to 2 \(epochs\)"),
        ({"learning_rate": Distribution(choice=(0.0,))}, r"learning_rate: choice is \[0.0\]; expected numbers above 0"),
        ({"momentum": Distribution(choice=(1.0,))}, "momentum: .* expected numbers at least 0 and below 1"),
        ({"l2": Distribution(choice=(-1.0,))}, "l2: .* expected numbers at least 0"),
        ({"dropout": Distribution(choice=(1.0,))}, "dropout: .* expected numbers at least 0 and below 1"),
        ({"init_std": Distribution(choice=(0.0,))}, "init_std: .* expected numbers above 0"),
        ({"train_fraction": Distribution(choice=(1.1,))}, "train_fraction: .* expected numbers above 0 and at most 1"),
        ({"optimizer": Choice(choice=())}, "optimizer: choice is empty"),
        ({"optimizer": Choice(choice=("adamw",))}, "adamw needs weight_decay, such as weight_decay: {log_uniform"),
        ({"weight_decay": Distribution(choice=(-0.1,))}, "weight_decay: .* expected numbers at least 0"),
        ({"l2": Distribution(each=(0.1, 0.2))}, "l2: each has 2 values; expected 5"),
        ({"initialisation": Choice(choice=())}, "initialisation: choice is empty"),
    ],
)
def test_an_impossible_specification_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_spec(**changes)


def test_a_network_that_does_not_fit_the_images_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(ValueError, match="run 0: small_cnn: images are 14x14 pixels"):
        expand(tiny_spec(images=ImageSpec(name="digits", size=14)))


def test_a_family_without_an_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation: choice is empty; expected at least one value"):
        replace(TINY.architecture, activation=Choice(choice=()))


def test_the_record_of_a_run_is_plain() -> None:
    """Every field of the configuration is text, a number or null, so that it is a column."""
    for value in asdict(resolve(TINY, 0).config).values():
        assert value is None or isinstance(value, str | int | float)
        assert not isinstance(value, np.generic)
