"""Fit implicit networks to images, many at once: one batched matrix product a layer for all.

Comes in    networks (`pipeline.siren`) and the images they are to be, one each
Goes out    their values, and how well and after how many steps each was fitted

Every step sees all pixels. A network stops when its image has reached the PSNR asked for, so that all are fitted
equally well and none needlessly; those that have stopped are put aside, and the others go on without them. No operation
mixes networks: one is fitted alike alone and among any others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from pipeline.siren import Siren

PEAK = 2.0
"""From black to white: pixels lie in [-1, 1]."""
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Networks after fitting, in the order they came."""

    values: Float[Tensor, "networks num_values"]
    """As `pipeline.value_layout` lays out a `Siren`: weight, then bias, layer by layer."""
    psnr: Float[Tensor, " networks"]
    """In decibels, of the image as the network has it."""
    steps: Int64[Tensor, " networks"]
    """That were taken; as many as allowed where the PSNR was not reached, or not finite."""


def fit_sirens(
    networks: Sequence[Siren],
    coordinates: Float[Tensor, "pixels 2"],
    images: Float[Tensor, "networks pixels channels"],
    *,
    learning_rate: float,
    most_steps: int,
    psnr: float,
) -> Fit:
    """Fit every network to its image by Adam on the mean squared error, until its PSNR is reached."""
    state = torch.stack([flat_values(network) for network in networks]).to(coordinates)
    found = state.clone()
    reached = torch.full((len(networks),), math.nan, dtype=state.dtype)
    steps = torch.zeros(len(networks), dtype=torch.int64)
    mean, square = torch.zeros_like(state), torch.zeros_like(state)
    left = torch.arange(len(networks))
    for step in range(most_steps + 1):
        state.requires_grad_()
        errors = (images[left] - render(networks[0], state, coordinates)).square().flatten(1).mean(dim=1)
        now = decibels(errors.detach())
        stops = stopping(now, psnr) if step < most_steps else torch.ones_like(now, dtype=torch.bool)
        found[left[stops]], reached[left[stops]], steps[left[stops]] = state.detach()[stops], now[stops], step
        if stops.all():
            break
        [gradient] = torch.autograd.grad(errors.sum(), state)
        go = ~stops
        state, gradient, mean, square, left = (part.detach()[go] for part in (state, gradient, mean, square, left))
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrections = 1 - BETAS[0] ** (step + 1), math.sqrt(1 - BETAS[1] ** (step + 1))
        state = state - learning_rate / corrections[0] * mean / (square.sqrt() / corrections[1] + EPSILON)
    return Fit(values=found, psnr=reached, steps=steps)


def stopping(now: Float[Tensor, " networks"], psnr: float) -> Bool[Tensor, " networks"]:
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
