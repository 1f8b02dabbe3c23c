"""The reference trainer: equal to an obvious loop, the same alone and in company, undisturbed by a diverged run."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.distributions import Choice, Distribution
from pipeline.images import Images, load_images
from pipeline.loop_trainer import Checkpoint, adam, one_thread, rmsprop, sgd, start, train_chunk
from pipeline.zoo import ModelSpec, Optimizer, expand, resolve
from tiny_zoo import DECAY, tiny_spec


@pytest.fixture(scope="module")
def images() -> Images:
    """The images of the tiny zoo, with 541 of its test images: more than are evaluated at a time."""
    images = load_images(tiny_spec().images)
    return replace(images, test_images=images.test_images[:541], test_labels=images.test_labels[:541])


def run_with(**changes: Any) -> ModelSpec:
    """Run 2 of the tiny zoo with changed draws."""
    constants = {
        name: Distribution(choice=(value,)) if isinstance(value, float) else value for name, value in changes.items()
    }
    return resolve(tiny_spec(**constants), 2)


def content(checkpoint: Checkpoint) -> tuple:
    """Everything in a checkpoint but its run, comparable bit for bit."""
    metrics = [checkpoint.train_loss, checkpoint.train_accuracy, checkpoint.test_loss, checkpoint.test_accuracy]
    return (
        (checkpoint.checkpoint, checkpoint.step, checkpoint.status),
        np.array(metrics).tobytes(),
        checkpoint.values.tobytes(),
        checkpoint.correct.tobytes(),
    )


def test_a_run_gives_the_same_bytes_alone_and_among_others_in_any_order(images: Images) -> None:
    runs = expand(tiny_spec())
    together = train_chunk(runs[::-1], images)
    for run in runs:
        company = [content(checkpoint) for checkpoint in together if checkpoint.run == run]
        assert [content(checkpoint) for checkpoint in train_chunk([run], images)] == company


def test_training_neither_uses_nor_moves_the_global_random_state(images: Images) -> None:
    run = run_with(dropout=0.5)
    torch.manual_seed(1)
    first = train_chunk([run], images)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = train_chunk([run], images)
    assert torch.equal(torch.get_rng_state(), before)
    assert [content(checkpoint) for checkpoint in first] == [content(checkpoint) for checkpoint in second]


def test_the_number_of_threads_is_one_inside_and_what_it_was_outside() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def obvious(run: ModelSpec, images: Images) -> nn.Module:
    """Training as a textbook writes it: torch's optimizer on the loss with its L2 term."""
    network = start(run)
    config = run.config
    match config.optimizer:
        case "sgd":
            stepper = torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum or 0)
        case "adam":
            stepper = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        case "adamw":
            kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
            biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
            decayed = {"params": kernels, "weight_decay": config.weight_decay}
            stepper = torch.optim.AdamW([decayed, {"params": biases, "weight_decay": 0.0}], lr=config.learning_rate)
        case "rmsprop":
            stepper = torch.optim.RMSprop(network.parameters(), lr=config.learning_rate)
    subset = run.subset(len(images.train_labels))
    pixels, labels = torch.tensor(images.train_images[subset]), torch.tensor(images.train_labels[subset])
    kernels = [parameter for name, parameter in network.named_parameters() if name.endswith("weight")]
    for epoch in range(1, config.epochs + 1):
        for batch in run.batches(epoch):
            stepper.zero_grad()
            squares = sum((kernel**2).sum() for kernel in kernels)
            loss = cross_entropy(network(pixels[batch]), labels[batch]) + config.l2 * squares
            loss.backward()
            stepper.step()
    return network


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_it_equals_an_obvious_loop_with_torchs_optimizers(
    images: Images, optimizer: Optimizer, activation: str
) -> None:
    """Four steps with dropout and a strong L2 term; float32 rounds differently, hence 1e-5."""
    family = replace(tiny_spec().architecture, activation=Choice(choice=(activation,)))
    run = run_with(
        optimizer=Choice(choice=(optimizer,)),
        weight_decay=DECAY,
        l2=0.1,
        dropout=0.3,
        architecture=family,
        train_fraction=0.5,
    )
    [_, trained] = train_chunk([run], images)
    with one_thread():
        network = obvious(run, images)
    state = torch.cat([tensor.reshape(-1) for tensor in network.state_dict().values()]).numpy()
    assert trained.step == 4
    np.testing.assert_allclose(trained.values, state, atol=1e-5)


def test_without_the_l2_term_the_result_is_another(images: Images) -> None:
    """So that the comparison above means something."""
    values = [train_chunk([run_with(l2=l2, train_fraction=0.5)], images)[-1].values for l2 in (0.1, 0.0)]
    assert np.abs(values[0] - values[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda weights: sgd(weights, 0.03, 0.7), lambda tensors: torch.optim.SGD(tensors, lr=0.03, momentum=0.7)),
        (lambda weights: adam(weights, 0.03), lambda tensors: torch.optim.Adam(tensors, lr=0.03)),
        (lambda weights: rmsprop(weights, 0.03), lambda tensors: torch.optim.RMSprop(tensors, lr=0.03)),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
def test_updates_by_hand_equal_torchs_in_float64(
    ours: Callable[[Tensor], Callable[[Tensor], None]], torchs: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(13, dtype=torch.float64, generator=generator)
    expected = weights.clone()
    step, stepper = ours(weights), torchs([expected])
    for _ in range(17):
        gradient = torch.randn(13, dtype=torch.float64, generator=generator)
        step(gradient.clone())
        expected.grad = gradient
        stepper.step()
        assert torch.allclose(weights, expected, rtol=0, atol=1e-12)


def test_one_step_of_sgd_from_rest_moves_against_the_gradient_and_momentum_carries_on() -> None:
    """1 - 0.1 * 2 = 0.8 with velocity 2; then velocity 0.5 * 2 + 0 = 1, and 0.8 - 0.1 * 1 = 0.7."""
    weights = torch.tensor([1.0], dtype=torch.float64)
    step = sgd(weights, learning_rate=0.1, momentum=0.5)
    step(torch.tensor([2.0], dtype=torch.float64))
    assert weights.item() == pytest.approx(0.8)
    step(torch.tensor([0.0], dtype=torch.float64))
    assert weights.item() == pytest.approx(0.7)


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate() -> None:
    """The corrected mean is the gradient and the corrected root mean square its size, whatever the gradient."""
    weights = torch.zeros(2, dtype=torch.float64)
    adam(weights, learning_rate=0.1)(torch.tensor([5.0, -0.01], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([-0.1, 0.1], rel=1e-5)


def test_checkpoints_come_at_their_epochs_and_the_first_is_the_untrained_network(images: Images) -> None:
    """Of 50 images, two batches of 23 an epoch."""
    run = resolve(tiny_spec(train_fraction=Distribution(choice=(0.5,)), epochs=5, checkpoint_epochs=(0, 1, 4)), 0)
    checkpoints = train_chunk([run], images)
    assert [(checkpoint.checkpoint, checkpoint.step) for checkpoint in checkpoints] == [(0, 0), (1, 2), (2, 8)]
    untrained = torch.cat([tensor.reshape(-1) for tensor in start(run).state_dict().values()]).numpy()
    assert np.array_equal(checkpoints[0].values, untrained)
    assert not np.array_equal(checkpoints[1].values, untrained)


def test_more_checkpoints_do_not_change_the_training(images: Images) -> None:
    last = [
        train_chunk([resolve(tiny_spec(epochs=3, checkpoint_epochs=kept), 1)], images)[-1] for kept in [(3,), (0, 2, 3)]
    ]
    assert last[0].values.tobytes() == last[1].values.tobytes()


def test_scores_are_those_of_the_stored_values_in_eval_mode(images: Images) -> None:
    run = run_with(dropout=0.5)
    checkpoint = train_chunk([run], images)[-1]
    network = run.architecture.build().eval()
    sizes = [tensor.numel() for tensor in network.state_dict().values()]
    stored = torch.from_numpy(checkpoint.values).split(sizes)
    state = {
        name: values.view_as(tensor)
        for (name, tensor), values in zip(network.state_dict().items(), stored, strict=True)
    }
    network.load_state_dict(state)
    subset = run.subset(len(images.train_labels))
    train, test = network(torch.tensor(images.train_images[subset])), network(torch.tensor(images.test_images))
    train_labels, test_labels = torch.tensor(images.train_labels[subset]), torch.tensor(images.test_labels)
    assert checkpoint.train_loss == pytest.approx(cross_entropy(train, train_labels).item(), rel=1e-5)
    assert checkpoint.test_loss == pytest.approx(cross_entropy(test, test_labels).item(), rel=1e-5)
    assert checkpoint.train_accuracy == (train.argmax(dim=1) == train_labels).double().mean().item()
    assert np.array_equal(checkpoint.correct, (test.argmax(dim=1) == test_labels).numpy())
    assert checkpoint.test_accuracy == checkpoint.correct.mean()


def test_a_run_learns(images: Images) -> None:
    spec = tiny_spec(
        optimizer=Choice(choice=("adam",)),
        learning_rate=Distribution(choice=(0.01,)),
        dropout=Distribution(choice=(0.0,)),
        initialisation=Choice(choice=("he",)),
        train_fraction=Distribution(choice=(1.0,)),
        epochs=29,
        checkpoint_epochs=(29,),
    )
    assert train_chunk([resolve(spec, 0)], images)[0].train_accuracy > 0.8


def test_a_diverged_run_is_rows_without_values_and_does_not_disturb_its_neighbours(images: Images) -> None:
    wild = run_with(optimizer=Choice(choice=("sgd",)), learning_rate=1e30)
    before, after = resolve(tiny_spec(), 0), resolve(tiny_spec(), 1)
    checkpoints = train_chunk([before, wild, after], images)
    untrained, lost = checkpoints[2:4]
    assert (untrained.status, lost.status) == ("ok", "diverged")
    assert (lost.checkpoint, lost.step) == (1, wild.num_steps)
    assert lost.values.shape == (0,)
    assert not lost.correct.any()
    assert lost.correct.shape == (541,)
    metrics = (lost.train_loss, lost.train_accuracy, lost.test_loss, lost.test_accuracy)
    assert all(math.isnan(metric) for metric in metrics)
    neighbours = [content(checkpoint) for checkpoint in checkpoints[:2] + checkpoints[4:]]
    assert neighbours == [content(checkpoint) for checkpoint in train_chunk([before, after], images)]


def test_finite_weights_with_an_infinite_loss_have_diverged_too(images: Images) -> None:
    """Standard deviation 1e15 in four layers gives logits beyond float32's 3e38."""
    relu = replace(tiny_spec().architecture, activation=Choice(choice=("relu",)))
    run = run_with(initialisation=Choice(choice=("normal",)), init_std=1e15, architecture=relu)
    assert [checkpoint.status for checkpoint in train_chunk([run], images)] == ["diverged", "diverged"]


def test_a_larger_fraction_adds_to_the_images_of_a_smaller_one() -> None:
    small, large = (run_with(train_fraction=fraction).subset(101) for fraction in (0.25, 0.5))
    assert (len(small), len(large), len(set(large.tolist()))) == (25, 50, 50)
    assert np.array_equal(large[:25], small)


def test_an_epoch_shows_each_image_at_most_once_and_each_epoch_in_another_order() -> None:
    run = run_with(train_fraction=1.0)
    first, second = run.batches(1), run.batches(2)
    assert first.shape == (4, 23)
    assert len(set(first.ravel().tolist())) == 92
    assert set(first.ravel().tolist()) <= set(range(101))
    assert not np.array_equal(first, second)
