"""Operations on single elements, one record each: what it computes, which numbers it takes, what it makes of zero.

Reads   nothing
Writes  nothing

Tracing, templates and their meaning all take what they have to know of an operation from its record here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.graph_kinds import Operation


@dataclass(frozen=True, kw_only=True)
class Elementwise:
    """An operation on every element by itself."""

    function: Callable[..., Tensor]
    """Takes the elements, and the settings by their names."""
    settings: tuple[str, ...] = ()
    """Names of its numbers, sorted."""
    keeps_zero: bool = False
    """Whether it makes zero of zero, for all settings, so that padding stays padding."""


def _elu(x: Tensor, alpha: float, input_scale: float, scale: float) -> Tensor:
    return scale * torch.where(x > 0, x, alpha * torch.expm1(x * input_scale))


def _gelu(x: Tensor, tanh: float) -> Tensor:
    return functional.gelu(x, approximate="tanh" if tanh else "none")


ELEMENTWISE: dict[Operation, Elementwise] = {
    Operation.RELU: Elementwise(function=torch.relu, keeps_zero=True),
    Operation.TANH: Elementwise(function=torch.tanh, keeps_zero=True),
    Operation.SIGMOID: Elementwise(function=torch.sigmoid),
    Operation.GELU: Elementwise(function=_gelu, settings=("tanh",), keeps_zero=True),
    Operation.SILU: Elementwise(function=functional.silu, keeps_zero=True),
    Operation.LEAKY_RELU: Elementwise(function=functional.leaky_relu, settings=("negative_slope",), keeps_zero=True),
    Operation.ELU: Elementwise(function=_elu, settings=("alpha", "input_scale", "scale"), keeps_zero=True),
    Operation.SIN: Elementwise(function=torch.sin, keeps_zero=True),
    Operation.COS: Elementwise(function=torch.cos),
    Operation.EXP: Elementwise(function=torch.exp),
    Operation.LOG: Elementwise(function=torch.log),
    Operation.ABS: Elementwise(function=torch.abs, keeps_zero=True),
    Operation.SIGN: Elementwise(function=torch.sign, keeps_zero=True),
    Operation.ERF: Elementwise(function=torch.erf, keeps_zero=True),
    Operation.SQUARE_ROOT: Elementwise(function=torch.sqrt, keeps_zero=True),
    Operation.RECIPROCAL: Elementwise(function=torch.reciprocal),
    Operation.POWER: Elementwise(function=lambda x, exponent: x.pow(exponent), settings=("exponent",)),
    Operation.SOFTPLUS: Elementwise(function=functional.softplus, settings=("beta", "threshold")),
    Operation.MISH: Elementwise(function=functional.mish, keeps_zero=True),
    Operation.HARD_SIGMOID: Elementwise(function=functional.hardsigmoid),
    Operation.HARD_SWISH: Elementwise(function=functional.hardswish, keeps_zero=True),
    Operation.CLAMP: Elementwise(function=lambda x, low, high: x.clamp(low, high), settings=("high", "low")),
    Operation.SCALE: Elementwise(function=lambda x, number: x * number, settings=("number",), keeps_zero=True),
    Operation.SHIFT: Elementwise(function=lambda x, number: x + number, settings=("number",)),
}
