"""The stacked trainer does to every run what the loop does to it alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from pipeline.distributions import Choice, Distribution
from pipeline.families import FamilySpec
from pipeline.images import Images, load_images
from pipeline.loop_trainer import (
    Checkpoint,
    ImageTensors,
    flatten_parameters,
    image_tensors,
    one_thread,
    start,
    train_chunk,
    train_run,
)
from pipeline.stacked_layers import stack, state_of
from pipeline.stacked_trainer import optimizer, owners, stacks, step, train_stack
from pipeline.stacked_trainer import train_chunk as train_stacked
from pipeline.zoo import ModelSpec, expand
from tiny_zoo import DECAY, TINY, tiny_spec


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(TINY.images)


def chosen(**arguments: Sequence[Any]) -> dict[str, Any]:
    return {name: Choice(choice=tuple(values)) for name, values in arguments.items()}


SMALL = FamilySpec(family="small_cnn", **chosen(activation=["tanh"]))
VARYING = FamilySpec(
    family="varying_cnn",
    **chosen(
        activation=["gelu"],
        width=[4],
        depth=[2],
        kernel_size=[3],
        stride=[2],
        norm=["none", "batch", "group"],
        pooling=["mean", "max"],
        num_linear=[2],
    ),
)
RASTER = FamilySpec(
    family="cnn1d",
    **chosen(activation=["silu"], width=[4], depth=[2], kernel_size=[5], stride=[4], norm=["batch"], pooling=["mean"]),
)
RESIDUAL = FamilySpec(
    family="resnet", **chosen(activation=["tanh"], widths=[(4, 6)], blocks_per_stage=[1], norm=["batch", "group"])
)
DENSE = FamilySpec(family="mlp", **chosen(activation=["tanh"], width=[5], depth=[2], pool=[1]))
FAMILIES = {"small_cnn": SMALL, "varying_cnn": VARYING, "cnn1d": RASTER, "resnet": RESIDUAL, "mlp": DENSE}


def both(runs: Sequence[ModelSpec], images: Images, dtype: torch.dtype) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Checkpoints of the loop and of stacks of three, in the same order."""
    tensors = image_tensors(images, dtype)
    with one_thread():
        loop = [checkpoint for run in runs for checkpoint in train_run(run, tensors)]
        stacked = [checkpoint for some in stacks(runs, 3) for checkpoint in train_stack(some, tensors)]
    place = {run.run_id: place for place, run in enumerate(runs)}
    return loop, sorted(stacked, key=lambda checkpoint: (place[checkpoint.run.run_id], checkpoint.checkpoint))


def assert_alike(loop: Sequence[Checkpoint], stacked: Sequence[Checkpoint], tolerance: float) -> None:
    for one, other in zip(loop, stacked, strict=True):
        assert (one.run, one.checkpoint, one.step, one.status) == (
            other.run,
            other.checkpoint,
            other.step,
            other.status,
        )
        assert one.train_loss == pytest.approx(other.train_loss, rel=tolerance, abs=tolerance)
        assert one.test_loss == pytest.approx(other.test_loss, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(one.values, other.values, atol=max(tolerance, 1e-7), rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_in_double_precision_stacks_equal_the_loop_over_tens_of_steps(
    images: Images, family: str, optimizer: str
) -> None:
    """40 steps with dropout, both L2 terms, every fraction. Adaptive optimizers divide by what may be rounding alone: a
    gradient of 1e-17 where the other has 0 moves a weight by 1e-9 of the learning rate, and the first steps of RMSprop
    are ten times as long, so that at larger rates training itself magnifies what is there."""
    spec = tiny_spec(
        optimizer=Choice(choice=(optimizer,)),
        weight_decay=DECAY,
        learning_rate=Distribution(log_uniform=(1e-4, 1e-3)),
        architecture=FAMILIES[family],
        num_runs=7,
        epochs=10,
        checkpoint_epochs=(0, 10),
    )
    loop, stacked = both(expand(spec), images, torch.float64)
    assert max(checkpoint.step for checkpoint in loop) == 40
    assert_alike(loop, stacked, 1e-10 if optimizer == "sgd" else 1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_single_precision_stacks_equal_the_loop_for_a_few_steps(images: Images, family: str) -> None:
    """All optimizers in one stack; one to four steps. Gradients of a bias before a group norm are rounding in part,
    which adaptive optimizers make steps of; a wrong step would be as long as the learning rate, 1e-3 to 1e-1."""
    spec = tiny_spec(architecture=FAMILIES[family], num_runs=9, epochs=1, checkpoint_epochs=(0, 1))
    loop, stacked = both(expand(spec), images, torch.float32)
    assert_alike(loop, stacked, 8e-4)


def test_a_run_is_the_same_alone_and_in_any_stack_to_rounding(images: Images) -> None:
    runs = expand(tiny_spec(architecture=SMALL, num_runs=8))
    reference = train_stacked(runs, images, size=8)
    for size in (1, 3):
        assert_alike(reference, train_stacked(runs, images, size=size), 1e-4)


def test_checkpoints_come_in_the_order_of_runs_whatever_is_stacked(images: Images) -> None:
    runs = expand(tiny_spec(architecture=VARYING, num_runs=6))[::-1]
    found = [(checkpoint.run.run_id, checkpoint.checkpoint) for checkpoint in train_stacked(runs, images, size=2)]
    assert found == [(run.run_id, number) for run in runs for number in (0, 1)]


def test_a_run_that_diverges_leaves_its_neighbours_as_they_are(images: Images) -> None:
    spec = tiny_spec(architecture=SMALL, num_runs=4, train_fraction=Distribution(choice=(0.5,)))
    runs = list(expand(spec))
    wild = replace(runs[1], config=replace(runs[1].config, optimizer="sgd", momentum=0.0, learning_rate=1e30))
    [reference, found] = [train_stacked(some, images, size=4) for some in (runs, [runs[0], wild, *runs[2:]])]
    assert [checkpoint.status for checkpoint in found[2:4]] == ["ok", "diverged"]
    assert len(found[3].values) == 0
    for one, other in zip(reference[:2] + reference[4:], found[:2] + found[4:], strict=True):
        assert one.values.tobytes() == other.values.tobytes()


def test_accuracies_are_distributed_as_those_of_the_loop(images: Images) -> None:
    """Weights part where a rectifier's input is near 0, so whole zoos are compared: Kolmogorov and Smirnov's test does
    not tell them apart."""
    spec = tiny_spec(num_runs=60, epochs=6, checkpoint_epochs=(6,), optimizer=Choice(choice=("sgd", "adam")))
    runs = expand(spec)
    loop, stacked = (
        np.array([checkpoint.test_accuracy for checkpoint in found])
        for found in (train_chunk(runs, images), train_stacked(runs, images, size=8))
    )
    assert loop.std() > 0.05
    assert ks_2samp(loop, stacked).pvalue > 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stack_computes_what_its_networks_do_and_gives_them_back() -> None:
    architecture = VARYING.draw(TINY.images, lambda name: np.random.default_rng(len(name)))
    networks = [architecture.build().eval() for _ in range(3)]
    network = stack(networks).eval()
    images = torch.randn(5, 3, *TINY.images.shape[1:])
    logits = network(images).unflatten(1, (3, 10))
    for number, each in enumerate(networks):
        assert torch.allclose(logits[:, number], each(images[:, number : number + 1]), atol=1e-5)
        state = state_of(network, number, 3)
        assert state.keys() == each.state_dict().keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in each.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LayerNorm(3), "0 is a LayerNorm, which cannot be stacked; train with the loop"),
        (nn.PReLU(), "0 is a PReLU, which cannot be stacked"),
    ],
)
def test_layers_that_cannot_be_stacked_are_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stack([nn.Sequential(layer)] * 2)


def test_a_vision_transformer_cannot_be_stacked() -> None:
    family = FamilySpec(
        family="vit",
        **chosen(activation=["gelu"], width=[4], depth=[1], patch_size=[17], num_heads=[2], expansion=[1]),
    )
    networks = [family.draw(TINY.images, lambda _: np.random.default_rng(0)).build()] * 2
    with pytest.raises(ValueError, match="positions is a parameter outside layers, which cannot be stacked"):
        stack(networks)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_on_another_device_meets_nothing_that_is_elsewhere(family: str) -> None:
    """Torch's device without data stands for a GPU: sums and products of tensors on two devices are errors."""
    spec = tiny_spec(
        architecture=FAMILIES[family],
        optimizer=Choice(choice=("sgd", "adam", "adamw", "rmsprop")),
        weight_decay=DECAY,
        dropout=Distribution(choice=(0.0,)),
        num_runs=30,
    )
    runs = max(stacks(expand(spec), 30), key=len)
    assert len({run.config.optimizer for run in runs}) > 1
    network = stack([start(run) for run in runs]).to("meta")
    weights, parameters = flatten_parameters(network)
    update = optimizer(runs, weights, *owners(network, len(runs)))
    images, labels = torch.empty(9, 1, 17, 17, device="meta"), torch.zeros(9, dtype=torch.int64)
    here = ImageTensors(train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    there = replace(here, train_labels=labels.to("meta"))
    batch = torch.zeros(len(runs), 4, dtype=torch.int64)
    step(network, parameters, update, batch.to("meta"), there)
    with pytest.raises(RuntimeError, match="device"):
        step(network, parameters, update, batch, here)
