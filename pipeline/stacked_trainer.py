"""Train the runs of a chunk many at once: runs of one architecture and one number of steps in stacks of ``size``.

Comes in    resolved runs (`pipeline.zoo`) and images (`pipeline.images`)
Goes out    one `Checkpoint` per run and checkpoint epoch, in the order of runs

What `pipeline.loop_trainer` does to one run, this does to all runs of a stack in the same operations: each has its own
data order, dropout masks, weights and hyperparameters, from the same streams. Nothing is summed across runs, so that a
run that diverges leaves its neighbours be. Sums have another order than in the loop, and on a GPU yet another: runs
agree with those of the loop to rounding, which a rectifier may magnify (tests/test_stacked_trainer.py).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.images import Images
from pipeline.loop_trainer import (
    EVALUATION_BATCH,
    Checkpoint,
    ImageTensors,
    diverged,
    flatten_parameters,
    image_tensors,
    one_thread,
    start,
    values_of,
)
from pipeline.stacked_layers import StackedConv, StackedLinear, in_stacks, stack, state_of
from pipeline.zoo import ModelSpec


def train_chunk(runs: Sequence[ModelSpec], images: Images, size: int, device: str = "cpu") -> list[Checkpoint]:
    """Train every run from its start to its last checkpoint, at most ``size`` at once."""
    tensors = image_tensors(images, device=device)
    with one_thread(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        found = [found for some in stacks(runs, size) for found in train_stack(some, tensors)]
    place = {run.run_id: place for place, run in enumerate(runs)}
    return sorted(found, key=lambda checkpoint: (place[checkpoint.run.run_id], checkpoint.checkpoint))


def stacks(runs: Sequence[ModelSpec], size: int) -> Iterator[list[ModelSpec]]:
    """Runs that can be trained together: of one architecture, with as many steps."""
    return in_stacks(runs, size, lambda run: (run.architecture.document(), run.num_train))


def train_stack(runs: Sequence[ModelSpec], tensors: ImageTensors) -> list[Checkpoint]:
    """Train some runs together and evaluate them at their checkpoints."""
    device = tensors.train_images.device
    networks = [start(run, str(device)).to(tensors.train_images.dtype) for run in runs]
    network = stack(networks).train()
    weights, parameters = flatten_parameters(network)
    owner, is_kernel = owners(network, len(runs))
    update = optimizer(runs, weights, owner, is_kernel)
    subsets = torch.from_numpy(np.stack([run.subset(len(tensors.train_labels)) for run in runs])).to(device)
    checkpoints: list[Checkpoint] = []
    alive = np.ones(len(runs), dtype=bool)
    last = runs[0].checkpoint_epochs[-1]
    for epoch in range(last + 1):
        if epoch > 0:
            orders = torch.from_numpy(np.stack([run.batches(epoch) for run in runs])).to(device)
            for batch in orders.unbind(1):  # [runs, batch]
                step(network, parameters, update, subsets.gather(1, batch), tensors)
        alive &= finite(weights, owner, len(runs))
        if epoch in runs[0].checkpoint_epochs:
            number = runs[0].checkpoint_epochs.index(epoch)
            found = evaluate(runs, number, network, networks[0], subsets, tensors, alive)
            alive &= [checkpoint.status == "ok" for checkpoint in found]
            checkpoints += found
    return checkpoints


def step(
    network: nn.Module,
    parameters: Sequence[Tensor],
    update: Callable[[Tensor], None],
    chosen: Int64[Tensor, "runs batch"],
    tensors: ImageTensors,
) -> None:
    """One step of every run, each on the training images chosen for it."""
    logits = network(side_by_side(tensors.train_images[chosen]))
    loss = summed_loss(logits, tensors.train_labels[chosen])
    gradients = torch.autograd.grad(loss, parameters)
    update(torch.cat([gradient.reshape(-1) for gradient in gradients]))


def side_by_side(images: Tensor) -> Tensor:
    """Images ``[runs, batch, channels, ...]`` as ``[batch, runs * channels, ...]``, in memory with the channels last,
    as grouped convolutions are fastest: by a third on a CPU."""
    together = images.transpose(0, 1).flatten(1, 2)
    return together.contiguous(memory_format=torch.channels_last) if together.ndim == 4 else together


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over runs of each run's mean cross-entropy: a run's gradient is the one it has alone.

    ``logits`` are ``[batch, runs * classes]``, ``labels`` ``[runs, batch]``.
    """
    num_runs, batch = labels.shape
    apart = logits.unflatten(1, (num_runs, -1)).flatten(0, 1)
    return cross_entropy(apart, labels.T.flatten(), reduction="sum") / batch


def owners(network: nn.Module, num_runs: int) -> tuple[Tensor, Tensor]:
    """For each of the flat parameters, the run it belongs to; and 1 where it is a kernel's, 0 where not."""
    owner: list[Tensor] = []
    is_kernel: list[Tensor] = []
    for name, parameter in network.named_parameters():
        module, device = network.get_submodule(name.rpartition(".")[0]), parameter.device
        owner.append(torch.arange(num_runs, device=device).repeat_interleave(parameter.numel() // num_runs))
        kernel = isinstance(module, StackedConv | StackedLinear) and name.endswith("weight")
        is_kernel.append(torch.full([parameter.numel()], float(kernel), device=device))
    return torch.cat(owner), torch.cat(is_kernel)


def optimizer(runs: Sequence[ModelSpec], weights: Tensor, owner: Tensor, is_kernel: Tensor) -> Callable[[Tensor], None]:
    """The function that updates the weights of all runs in place, each by its own optimizer, as the loop's do."""

    def each(name: str) -> Tensor:
        numbers = [getattr(run.config, name) or 0.0 for run in runs]
        return torch.tensor(numbers, dtype=weights.dtype, device=weights.device)[owner]

    kinds = [run.config.optimizer for run in runs]
    learning_rate, l2_slope = each("learning_rate"), 2 * each("l2") * is_kernel.to(weights)
    shrink = 1 - learning_rate * each("weight_decay") * is_kernel.to(weights)
    rules = {"sgd": sgd, "adam": adam, "adamw": adam, "rmsprop": rmsprop}
    steps = {kind: rules[kind](weights, each("momentum")) for kind in sorted(set(kinds))}
    of_kind = {kind: torch.tensor([other == kind for other in kinds], device=weights.device)[owner] for kind in steps}

    def update(gradient: Tensor) -> None:
        gradient.addcmul_(l2_slope, weights)
        if "adamw" in steps:
            weights.mul_(shrink)
        for kind, step in steps.items():
            change = step(gradient) * learning_rate
            weights.sub_(change if len(steps) == 1 else torch.where(of_kind[kind], change, 0))

    return update


def sgd(weights: Tensor, momentum: Tensor) -> Callable[[Tensor], Tensor]:
    """What to go for each unit of the learning rate, as ``pipeline.loop_trainer.sgd``."""
    velocity = torch.zeros_like(weights)

    def step(gradient: Tensor) -> Tensor:
        return velocity.mul_(momentum).add_(gradient)

    return step


def adam(
    weights: Tensor, _: Tensor, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8
) -> Callable[[Tensor], Tensor]:
    """What to go for each unit of the learning rate, as ``pipeline.loop_trainer.adam``."""
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    steps = 0

    def step(gradient: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        mean.lerp_(gradient, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        mean_correction, square_correction = 1 - betas[0] ** steps, 1 - betas[1] ** steps
        return mean / mean_correction / square.sqrt().div_(math.sqrt(square_correction)).add_(epsilon)

    return step


def rmsprop(weights: Tensor, _: Tensor, decay: float = 0.99, epsilon: float = 1e-8) -> Callable[[Tensor], Tensor]:
    """What to go for each unit of the learning rate, as ``pipeline.loop_trainer.rmsprop``."""
    square = torch.zeros_like(weights)

    def step(gradient: Tensor) -> Tensor:
        square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        return gradient / square.sqrt().add_(epsilon)

    return step


def finite(weights: Tensor, owner: Tensor, num_runs: int) -> Bool[np.ndarray, " runs"]:
    """Which runs have finite weights only."""
    bad = torch.zeros(num_runs, device=weights.device).index_add_(0, owner, (~torch.isfinite(weights)).float())
    return (bad == 0).cpu().numpy()


def evaluate(
    runs: Sequence[ModelSpec],
    checkpoint: int,
    network: nn.Module,
    alone: nn.Module,
    subsets: Tensor,
    tensors: ImageTensors,
    alive: Bool[np.ndarray, " runs"],
) -> list[Checkpoint]:
    """Every run's state and scores; ``alone`` is a network of one run, whose weights are overwritten."""
    network.eval()
    test = torch.arange(len(tensors.test_labels), device=subsets.device).expand(len(runs), -1)
    train_losses, train_correct = score(network, tensors.train_images, tensors.train_labels, subsets)
    test_losses, test_correct = score(network, tensors.test_images, tensors.test_labels, test)
    network.train()
    found: list[Checkpoint] = []
    for number, run in enumerate(runs):
        losses = float(train_losses[number]), float(test_losses[number])
        if not (alive[number] and all(map(math.isfinite, losses))):
            found.append(diverged(run, checkpoint, len(tensors.test_labels)))
            continue
        alone.load_state_dict(state_of(network, number, len(runs)))
        found.append(
            Checkpoint(
                run=run,
                checkpoint=checkpoint,
                step=run.steps_per_epoch * run.checkpoint_epochs[checkpoint],
                status="ok",
                values=values_of(alone),
                train_loss=losses[0],
                train_accuracy=float(train_correct[number].mean()),
                test_loss=losses[1],
                test_accuracy=float(test_correct[number].mean()),
                correct=test_correct[number],
            )
        )
    return found


@torch.no_grad()
def score(
    network: nn.Module, images: Tensor, labels: Tensor, chosen: Tensor
) -> tuple[Tensor, Bool[np.ndarray, "runs n"]]:
    """The mean cross-entropy of every run over the images chosen for it ``[runs, n]``, and which it classifies
    correctly."""
    logits = torch.cat([network(side_by_side(images[part])) for part in chosen.split(EVALUATION_BATCH, dim=1)])
    apart = logits.unflatten(1, (len(chosen), -1)).transpose(0, 1)  # [runs, n, classes]
    losses = cross_entropy(apart.transpose(1, 2), labels[chosen], reduction="none").mean(dim=1)
    return losses, (apart.argmax(dim=2) == labels[chosen]).cpu().numpy()
