"""A zoo specification that trains in a second, for several test files."""

from dataclasses import replace
from typing import Any

from pipeline.distributions import Choice, Distribution
from pipeline.families import FamilySpec
from pipeline.images import ImageSpec
from pipeline.zoo import Hyperparameters, ZooSpec

TINY = ZooSpec(
    name="tiny",
    images=ImageSpec(name="digits", size=17, num_train=101),
    architecture=FamilySpec(family="small_cnn", activation=Choice(choice=("relu", "tanh"))),
    hyperparameters=Hyperparameters(
        optimizer=Choice(choice=("sgd", "adam", "rmsprop")),
        learning_rate=Distribution(log_uniform=(1e-3, 1e-2)),
        momentum=Distribution(uniform=(0.5, 0.9)),
        l2=Distribution(log_uniform=(1e-6, 1e-3)),
        dropout=Distribution(uniform=(0.0, 0.5)),
        initialisation=Choice(choice=("glorot", "he", "normal", "truncated_normal", "orthogonal")),
        init_std=Distribution(log_uniform=(0.05, 0.5)),
        train_fraction=Distribution(choice=(0.25, 0.5, 1.0)),
    ),
    num_runs=5,
    seed=7,
    epochs=2,
    batch_size=23,
    checkpoint_epochs=(0, 2),
    runs_per_chunk=3,
)
"""Five runs in two chunks; 25, 50 or 101 training images, so 1, 2 or 4 steps an epoch; 1,696 test images."""


DECAY = Distribution(log_uniform=(1e-4, 1e-1))
"""For specifications with AdamW."""


def tiny_spec(**changes: Any) -> ZooSpec:
    """`TINY` with other fields; names of hyperparameters change those."""
    drawn = {name: changes.pop(name) for name in list(changes) if hasattr(TINY.hyperparameters, name)}
    return replace(TINY, hyperparameters=replace(TINY.hyperparameters, **drawn), **changes)
