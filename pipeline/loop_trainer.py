"""Train the runs of a chunk one after another, in plain PyTorch: the reference that other trainers are compared with.

Comes in    resolved runs (`pipeline.zoo`) and images (`pipeline.images`)
Goes out    one `Checkpoint` per run and checkpoint epoch, in that order

One thread, float32, no GPU. All that is random comes from the run's own streams, so a run gives the same bytes alone
and among others. A run whose weights or losses are no longer finite stops: its later checkpoints are rows without
values.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.architectures import initialise
from pipeline.images import Images
from pipeline.network_parts import Dropout
from pipeline.value_layout import lay_out, values_from
from pipeline.zoo import Configuration, ModelSpec

EVALUATION_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One state of a run, and how well it does."""

    run: ModelSpec
    checkpoint: int
    """Position among the run's checkpoints, from 0."""
    step: int
    """Optimizer steps until here."""
    status: Literal["ok", "diverged"]
    """``diverged``: weights or losses were not finite here or before."""
    values: Float32[np.ndarray, " num_values"]
    """As ``pipeline.value_layout`` lays them out; none when diverged."""
    train_loss: float
    """Mean cross-entropy on the run's own training images, in eval mode and without the L2 term; NaN when diverged."""
    train_accuracy: float
    """On the run's own training images, 0 to 1; NaN when diverged."""
    test_loss: float
    """As ``train_loss``, on the test images."""
    test_accuracy: float
    """As ``train_accuracy``, on the test images."""
    correct: Bool[np.ndarray, " num_test"]
    """Which test images it classifies correctly; none when diverged."""


@dataclass(frozen=True, kw_only=True)
class ImageTensors:
    """`Images` as tensors of this process: shared arrays are read-only, which torch does not know."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def train_chunk(runs: Sequence[ModelSpec], images: Images) -> list[Checkpoint]:
    """Train every run from its start to its last checkpoint."""
    tensors = image_tensors(images)
    with one_thread():
        return [checkpoint for run in runs for checkpoint in train_run(run, tensors)]


def image_tensors(images: Images, dtype: torch.dtype = torch.float32, device: str = "cpu") -> ImageTensors:
    """The images for this process; networks are trained in the precision and on the device that these have."""
    return ImageTensors(
        train_images=torch.tensor(images.train_images, dtype=dtype).to(device),
        train_labels=torch.tensor(images.train_labels).to(device),
        test_images=torch.tensor(images.test_images, dtype=dtype).to(device),
        test_labels=torch.tensor(images.test_labels).to(device),
    )


def train_run(run: ModelSpec, tensors: ImageTensors) -> list[Checkpoint]:
    """Train one run and evaluate it at its checkpoints."""
    network = start(run).to(tensors.train_images.dtype)
    weights, parameters = flatten_parameters(network)
    update = optimizer(run.config, weights, kernel_mask(parameters))
    subset = torch.from_numpy(run.subset(len(tensors.train_labels)))
    own = replace(tensors, train_images=tensors.train_images[subset], train_labels=tensors.train_labels[subset])
    checkpoints: list[Checkpoint] = []
    for epoch in range(run.checkpoint_epochs[-1] + 1):
        if epoch > 0:
            for batch in torch.from_numpy(run.batches(epoch)):
                loss = cross_entropy(network(own.train_images[batch]), own.train_labels[batch])
                gradients = torch.autograd.grad(loss, parameters)
                update(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        if not torch.isfinite(weights).all():
            break
        if epoch in run.checkpoint_epochs:
            checkpoint = evaluate(run, len(checkpoints), network, own)
            if checkpoint.status == "diverged":
                break
            checkpoints.append(checkpoint)
    missing = range(len(checkpoints), len(run.checkpoint_epochs))
    return checkpoints + [diverged(run, checkpoint, len(tensors.test_labels)) for checkpoint in missing]


def start(run: ModelSpec, device: str = "cpu") -> nn.Module:
    """The untrained network of a run, in training mode: the same on every device, but for its dropout masks."""
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made, and `initialise` replaces them
        network = run.architecture.build(dropout=run.config.dropout)
    config = run.config
    initialise(network, config.initialisation, config.init_std, torch_generator(run.stream("initial weights")))
    masks = torch_generator(run.stream("dropout masks"), device)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = masks
    return network.to(device).train()


def torch_generator(stream: np.random.Generator, device: str = "cpu") -> torch.Generator:
    """Torch's generator, seeded from a stream; one of a GPU gives other numbers than one of a CPU."""
    return torch.Generator(device).manual_seed(int(stream.integers(2**63)))


def flatten_parameters(network: nn.Module) -> tuple[Tensor, list[nn.Parameter]]:
    """One flat tensor of all parameters, and the parameters, now views of it: to update it is to update them."""
    parameters = list(network.parameters())
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    views = flat.split([parameter.numel() for parameter in parameters])
    for parameter, view in zip(parameters, views, strict=True):
        parameter.data = view.view_as(parameter)
    return flat, parameters


def kernel_mask(parameters: Sequence[Tensor]) -> Tensor:
    """1 where the flat parameters are a kernel's, 0 where a bias's."""
    return torch.cat([torch.full([parameter.numel()], float(parameter.ndim > 1)) for parameter in parameters])


def optimizer(config: Configuration, weights: Tensor, is_kernel: Tensor) -> Callable[[Tensor], None]:
    """The function that updates ``weights`` in place, given the gradient of the loss without the L2 term."""
    match config.optimizer:
        case "sgd":
            assert config.momentum is not None
            step = sgd(weights, config.learning_rate, config.momentum)
        case "adam" | "adamw":
            step = adam(weights, config.learning_rate)
        case "rmsprop":
            step = rmsprop(weights, config.learning_rate)
    is_kernel = is_kernel.to(weights.dtype)
    l2_slope = is_kernel * (2 * config.l2)  # the gradient of l2 * w^2 is 2 * l2 * w

    shrink = 1 - is_kernel * (config.learning_rate * config.weight_decay) if config.weight_decay else None

    def update(gradient: Tensor) -> None:
        gradient.addcmul_(l2_slope, weights)
        if shrink is not None:  # decoupled, before the step (Loshchilov & Hutter 2019, arXiv:1711.05101)
            weights.mul_(shrink)
        step(gradient)

    return update


def sgd(weights: Tensor, learning_rate: float, momentum: float) -> Callable[[Tensor], None]:
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD``."""
    velocity = torch.zeros_like(weights)

    def step(gradient: Tensor) -> None:
        velocity.mul_(momentum).add_(gradient)
        weights.sub_(velocity, alpha=learning_rate)

    return step


def adam(
    weights: Tensor, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8
) -> Callable[[Tensor], None]:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980), as ``torch.optim.Adam``."""
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    steps = 0

    def step(gradient: Tensor) -> None:
        nonlocal steps
        steps += 1
        mean.lerp_(gradient, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        mean_correction, square_correction = 1 - betas[0] ** steps, 1 - betas[1] ** steps
        scale = square.sqrt().div_(math.sqrt(square_correction)).add_(epsilon)
        weights.addcdiv_(mean, scale, value=-learning_rate / mean_correction)

    return step


def rmsprop(
    weights: Tensor, learning_rate: float, decay: float = 0.99, epsilon: float = 1e-8
) -> Callable[[Tensor], None]:
    """RMSprop without momentum, as ``torch.optim.RMSprop`` (its ``alpha`` is ``decay``; epsilon outside the root)."""
    square = torch.zeros_like(weights)

    def step(gradient: Tensor) -> None:
        square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        weights.addcdiv_(gradient, square.sqrt().add_(epsilon), value=-learning_rate)

    return step


def evaluate(run: ModelSpec, checkpoint: int, network: nn.Module, own: ImageTensors) -> Checkpoint:
    """The network's state and its scores on the run's own training images and the test images."""
    network.eval()
    train_loss, train_correct = score(network, own.train_images, own.train_labels)
    test_loss, test_correct = score(network, own.test_images, own.test_labels)
    network.train()
    if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
        return diverged(run, checkpoint, len(test_correct))
    return Checkpoint(
        run=run,
        checkpoint=checkpoint,
        step=run.steps_per_epoch * run.checkpoint_epochs[checkpoint],
        status="ok",
        values=values_of(network),
        train_loss=train_loss,
        train_accuracy=float(train_correct.mean()),
        test_loss=test_loss,
        test_accuracy=float(test_correct.mean()),
        correct=test_correct,
    )


def values_of(network: nn.Module) -> Float32[np.ndarray, " num_values"]:
    """The values of a network, in float32 whatever it was trained in."""
    single = copy.deepcopy(network).float().cpu()
    return values_from(single.state_dict(), *lay_out(single))


@torch.no_grad()
def score(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, Bool[np.ndarray, " n"]]:
    """The mean cross-entropy over some images, and which are classified correctly."""
    logits = torch.cat([network(batch) for batch in images.split(EVALUATION_BATCH)])
    return cross_entropy(logits, labels).item(), (logits.argmax(dim=1) == labels).numpy()


def diverged(run: ModelSpec, checkpoint: int, num_test: int) -> Checkpoint:
    """The row of a checkpoint that a run did not live to see."""
    return Checkpoint(
        run=run,
        checkpoint=checkpoint,
        step=run.steps_per_epoch * run.checkpoint_epochs[checkpoint],
        status="diverged",
        values=np.zeros(0, np.float32),
        train_loss=math.nan,
        train_accuracy=math.nan,
        test_loss=math.nan,
        test_accuracy=math.nan,
        correct=np.zeros(num_test, bool),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: faster on small tensors, and sums have the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
