"""Fit implicit networks to images, many at once: one batched matrix product a layer for all.

Comes in    resolved runs (`pipeline.inr_zoo`) and images (`pipeline.images`)
Goes out    one `FittedNetwork` per run, in the order of runs

Every step sees all pixels. A network stops when its image has reached the PSNR asked for, so that all are fitted
equally well and none needlessly; those that have stopped are put aside, and the others go on without them. No operation
mixes networks: one is fitted alike alone and among any others, to rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from pipeline.images import Images
from pipeline.inr_zoo import InrRun
from pipeline.loop_trainer import one_thread, torch_generator
from pipeline.siren import Siren, initialise_siren, pixel_coordinates
from pipeline.stacked_layers import in_stacks

PEAK = 2.0
"""From black to white: pixels lie in [-1, 1]."""
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedNetwork:
    """A run at its end."""

    run: InrRun
    image_class: int
    """Label of its image."""
    status: Literal["ok", "diverged"]
    """``diverged``: its image is not finite."""
    step: int
    """Steps taken."""
    psnr: float
    """In decibels, of the image as the network has it; NaN when diverged."""
    values: Float32[np.ndarray, " num_values"]
    """As ``pipeline.value_layout`` lays them out; none when diverged."""

    @property
    def loss(self) -> float:
        """The mean squared error of its pixels."""
        return PEAK**2 / 10 ** (self.psnr / 10)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Networks after fitting, in the order they came."""

    values: Float[Tensor, "networks num_values"]
    """As `pipeline.value_layout` lays out a `Siren`: weight, then bias, layer by layer."""
    psnr: Float64[Tensor, " networks"]
    """In decibels, of the image as the network has it."""
    steps: Int64[Tensor, " networks"]
    """That were taken; as many as allowed where the PSNR was not reached, or not finite."""


def fit_runs(runs: Sequence[InrRun], images: Images, size: int, device: str = "cpu") -> list[FittedNetwork]:
    """Fit every run, at most ``size`` at once."""
    with one_thread():
        stacks = in_stacks(runs, size, lambda run: run.architecture.document())
        found = [network for some in stacks for network in fit_stack(some, images, device)]
    return sorted(found, key=lambda network: network.run.run_index)


def fit_stack(runs: Sequence[InrRun], images: Images, device: str) -> list[FittedNetwork]:
    """Fit some runs together."""
    num_train = len(images.train_images)

    def of_each(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.stack([train[run.image] if run.image < num_train else test[run.image - num_train] for run in runs])

    pictures = torch.from_numpy(of_each(images.train_images, images.test_images))
    fit = fit_sirens(
        [started(run) for run in runs],
        pixel_coordinates(*pictures.shape[2:]).to(device),
        pictures.flatten(2).transpose(1, 2).to(device),
        learning_rate=torch.tensor([run.config.learning_rate for run in runs]).to(device),
        psnr=torch.tensor([run.config.psnr for run in runs], dtype=torch.float64).to(device),
        most_steps=runs[0].config.most_steps,
    )
    labels = of_each(images.train_labels, images.test_labels).tolist()
    return [
        fitted(run, *of_run)
        for run, *of_run in zip(
            runs, labels, fit.psnr.tolist(), fit.steps.tolist(), fit.values.cpu().numpy(), strict=True
        )
    ]


def fitted(
    run: InrRun, image_class: int, psnr: float, step: int, values: Float32[np.ndarray, " num_values"]
) -> FittedNetwork:
    """A run at its end; a PSNR that is infinite is that of a network which is its image exactly."""
    ok = psnr > -math.inf  # not where it is NaN
    return FittedNetwork(
        run=run,
        image_class=image_class,
        status="ok" if ok else "diverged",
        step=step,
        psnr=psnr if ok else math.nan,
        values=values if ok else values[:0],
    )


def started(run: InrRun) -> Siren:
    """The network of a run before it is fitted."""
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made, and these are replaced
        network = run.architecture.build()
    assert isinstance(network, Siren)
    initialise_siren(network, torch_generator(run.start_stream()))
    return network


def fit_sirens(
    networks: Sequence[Siren],
    coordinates: Float[Tensor, "pixels 2"],
    images: Float[Tensor, "networks pixels channels"],
    *,
    learning_rate: Float[Tensor, " networks"],
    psnr: Float64[Tensor, " networks"],
    most_steps: int,
) -> Fit:
    """Fit every network to its image by Adam on the mean squared error, until its PSNR is reached.

    The networks are of one architecture; each has its own learning rate and its own PSNR, in decibels.
    """
    state = torch.stack([flat_values(network) for network in networks]).to(coordinates)
    found = state.clone()
    reached = torch.full_like(psnr, math.nan)
    steps = torch.zeros_like(psnr, dtype=torch.int64)
    mean, square = torch.zeros_like(state), torch.zeros_like(state)
    left = torch.arange(len(networks), device=state.device)
    for step in range(most_steps + 1):
        state.requires_grad_()
        errors = (images[left] - render(networks[0], state, coordinates)).square().flatten(1).mean(dim=1)
        now = decibels(errors.detach().double())
        stops = stopping(now, psnr[left]) if step < most_steps else torch.ones_like(now, dtype=torch.bool)
        found[left[stops]], reached[left[stops]], steps[left[stops]] = state.detach()[stops], now[stops], step
        if stops.all():
            break
        [gradient] = torch.autograd.grad(errors.sum(), state)
        go = ~stops
        state, gradient, mean, square, left = (part.detach()[go] for part in (state, gradient, mean, square, left))
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrections = 1 - BETAS[0] ** (step + 1), math.sqrt(1 - BETAS[1] ** (step + 1))
        rate = (learning_rate[left] / corrections[0]).unsqueeze(1)
        state = state - rate * mean / (square.sqrt() / corrections[1] + EPSILON)
    return Fit(values=found, psnr=reached, steps=steps)


def stopping(now: Float64[Tensor, " networks"], psnr: Float64[Tensor, " networks"]) -> Bool[Tensor, " networks"]:
    """Which networks are done: good enough, or lost."""
    return (now >= psnr) | ~torch.isfinite(now)


def decibels(errors: Tensor) -> Tensor:
    """The PSNR of mean squared errors."""
    return 10 * torch.log10(PEAK**2 / errors)


def flat_values(network: Siren) -> Tensor:
    """Weight, then bias, layer by layer."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def render(network: Siren, values: Float[Tensor, "networks num_values"], coordinates: Tensor) -> Tensor:
    """The images ``[networks, pixels, channels]`` of networks with these values, all shaped as ``network`` is."""
    hidden = coordinates.expand(len(values), -1, -1)
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    parts = iter(values.split([math.prod(shape) for shape in shapes], dim=1))
    num_layers = len(shapes) // 2
    for number, (weight, bias) in enumerate(zip(parts, parts, strict=True)):
        shape = shapes[2 * number]
        hidden = torch.baddbmm(bias[:, None], hidden, weight.unflatten(1, shape).transpose(1, 2))
        if number < num_layers - 1:
            hidden = torch.sin(network.omega * hidden)
    return hidden
