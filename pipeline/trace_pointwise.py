"""Rules of operations on single elements: activations, numbers, sums and products of tensors.

Reads   calls of the traced program
Writes  chains, and nodes where several tensors meet
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import torch

from pipeline.graph_builder import GraphBuilder
from pipeline.graph_kinds import NO_BOUND, NodeKind, Operation, Step
from pipeline.node_operations import carried, combine, pad_safe, scaled
from pipeline.traced_tensor import ZERO, Call, Carried, Constant, Operand, Rule, UnsupportedError, Weights, per_example


def activation(builder: GraphBuilder, call: Call, operation: Operation, **settings: str | float) -> Carried:
    """An operation on every element; ``settings`` are its numbers, or names of the arguments that give them."""
    numbers = {
        name: float(call.arguments[given] if isinstance(given, str) else given) for name, given in settings.items()
    }
    step = Step(operation=operation, settings=tuple((name, (numbers[name],)) for name in sorted(numbers)))
    return pad_safe(builder, call, carried(builder, call, first_argument(call)), step)


def first_argument(call: Call) -> Operand:
    """The operand the call acts on."""
    return next(iter(call.arguments.values()))


def gelu(builder: GraphBuilder, call: Call) -> Carried:
    tanh = float(call.arguments["approximate"] == "tanh")
    return activation(builder, call, Operation.GELU, tanh=tanh)


def celu(builder: GraphBuilder, call: Call) -> Carried:
    alpha = float(call.arguments["alpha"])
    return activation(builder, call, Operation.ELU, alpha=alpha, input_scale=1 / alpha, scale=1.0)


def clamp(builder: GraphBuilder, call: Call, low: str, high: str) -> Carried:
    """Between two numbers, either of which may be missing."""
    bounds = (call.arguments.get(low), call.arguments.get(high))
    least, most = (sign * NO_BOUND if bound is None else bound for bound, sign in zip(bounds, (-1, 1), strict=True))
    return activation(builder, call, Operation.CLAMP, low=least, high=most)


def negative(builder: GraphBuilder, call: Call) -> Operand:
    return scaled(builder, first_argument(call), -1.0)


def operand_of(argument: Any) -> Operand:
    """A tensor, or a number as one."""
    return (
        argument
        if isinstance(argument, Carried | Weights | Constant)
        else Constant(number=torch.tensor(argument, dtype=torch.float64))
    )


def add(builder: GraphBuilder, call: Call, sign: int = 1) -> Carried:
    """The sum, or with ``sign`` -1 the difference, of two tensors, or of a tensor and a number."""
    left, right = (operand_of(call.arguments[name]) for name in ("self", "other"))
    factor = call.arguments.get("alpha", 1) * sign
    check_number(call, right, float(factor))
    return combine(builder, call, NodeKind.SUM, [left, scaled(builder, right, float(factor))])


def reversed_subtract(builder: GraphBuilder, call: Call) -> Carried:
    """A number less a tensor."""
    left = scaled(builder, operand_of(call.arguments["self"]), -float(call.arguments.get("alpha", 1)))
    return combine(builder, call, NodeKind.SUM, [left, operand_of(call.arguments["other"])])


def multiply(builder: GraphBuilder, call: Call) -> Carried:
    left, right = (operand_of(call.arguments[name]) for name in ("self", "other"))
    check_number(call, right, 1.0)
    return combine(builder, call, NodeKind.PRODUCT, [left, right])


def divide(builder: GraphBuilder, call: Call) -> Carried:
    """A tensor over another, or over a number."""
    left, right = (operand_of(call.arguments[name]) for name in ("self", "other"))
    check_number(call, right, 1.0)
    if isinstance(right, Constant):
        if not right.number.all():
            raise UnsupportedError(call, "divides by zero", "remove the operation")
        right = Constant(number=1 / right.number.double())
    else:
        right = builder.passed(carried(builder, call, right), Step(operation=Operation.RECIPROCAL))
    return combine(builder, call, NodeKind.PRODUCT, [left, right])


def check_number(call: Call, operand: Operand, factor: float) -> None:
    """Refuse numbers under which nothing acts."""
    if isinstance(operand, Constant) and operand.number.ndim == 0 and not isfinite(float(operand.number) * factor):
        raise UnsupportedError(call, f"has the number {float(operand.number)}", "remove the operation")


def greater(builder: GraphBuilder, call: Call, sign: int) -> Operand:
    """The element-wise maximum (sign 1) or minimum (-1)."""
    both = [scaled(builder, operand_of(call.arguments[name]), float(sign)) for name in ("self", "other")]
    return scaled(builder, combine(builder, call, NodeKind.MAXIMUM, both), float(sign))


def gated(builder: GraphBuilder, call: Call) -> Carried:
    """GLU: the first half times the sigmoid of the second."""
    halves = [call.tensor().moved(lambda part, h=half: part.chunk(2, call.arguments["dim"])[h]) for half in (0, 1)]
    gate = builder.passed(halves[1], Step(operation=Operation.SIGMOID))
    return combine(builder, call, NodeKind.PRODUCT, [halves[0], gate])


def prelu(builder: GraphBuilder, call: Call) -> Carried:
    """max(0, x) + slope * min(0, x): two parallel edges, of which one carries the slope."""
    operand, slope = call.tensor("self"), call.arguments["weight"]
    if not isinstance(slope, Weights):
        raise UnsupportedError(call, "has a computed slope", "use a parameter of the module as it is")
    spread = [1] * operand.node.ndim
    if len(slope.shape) and slope.shape[0] > 1:
        spread[1 if operand.node.ndim > 1 else 0] = -1
    positive = builder.passed(operand, Step(operation=Operation.RELU))
    below = (("high", (0.0,)), ("low", (-NO_BOUND,)))
    clipped = builder.passed(operand, Step(operation=Operation.CLAMP, settings=below))
    steep = combine(builder, call, NodeKind.PRODUCT, [clipped, replace(slope, value=slope.value.reshape(spread))])
    return combine(builder, call, NodeKind.SUM, [positive, steep])


def masked(builder: GraphBuilder, call: Call, condition: str, kept: str, other: str, when: bool) -> Carried:
    """Elements of one tensor where a constant condition holds (or, if not ``when``, does not), and of another else."""
    mask = call.arguments[condition]
    if not isinstance(mask, Constant):
        raise UnsupportedError(call, "chooses by a mask that depends on the input", "only constant masks have a rule")
    holds = mask.number.bool() if when else ~mask.number.bool()
    operands = [
        masked_out(builder, call, operand_of(call.arguments[name]), keep)
        for name, keep in ((kept, holds), (other, ~holds))
    ]
    return combine(builder, call, NodeKind.SUM, operands)


def masked_out(builder: GraphBuilder, call: Call, operand: Operand, keep: torch.Tensor) -> Operand:
    """An operand with zeros where it is not kept."""
    shape = torch.broadcast_shapes(operand.shape, keep.shape)
    if isinstance(operand, Constant):
        return Constant(number=torch.where(keep, operand.number.double(), 0.0))
    operand = carried(builder, call, operand).moved(lambda part: part.expand(shape))
    return Carried(node=torch.where(keep, operand.node, ZERO), site=operand.site * keep, chain=operand.chain * keep)


def power(builder: GraphBuilder, call: Call) -> Carried:
    exponent = call.arguments["exponent"]
    if not isinstance(exponent, int | float):
        raise UnsupportedError(call, "has an exponent that is a tensor", "use a number")
    return activation(builder, call, Operation.POWER, exponent=float(exponent))


def less_one(builder: GraphBuilder, call: Call) -> Carried:
    """``exp(x) - 1``."""
    return pad_safe(builder, call, activation(builder, call, Operation.EXP), _shift(-1.0))


def one_more(builder: GraphBuilder, call: Call) -> Carried:
    """``log(1 + x)``."""
    operand = pad_safe(builder, call, carried(builder, call, first_argument(call)), _shift(1.0))
    return builder.passed(operand, Step(operation=Operation.LOG))


def _shift(number: float) -> Step:
    return Step(operation=Operation.SHIFT, settings=(("number", (number,)),))


_aten = torch.ops.aten


def _acts(operation: Operation, **settings: str | float) -> Rule:
    return per_example(partial(activation, operation=operation, **settings))


def _halved(call: Call) -> list[int]:
    ndim = len(call.shape)
    return [ndim - call.arguments["dim"] % ndim]


def _joins(rule: Callable[..., Any], **arguments: Any) -> Rule:
    return per_example(partial(rule, **arguments), broadcasts=1)


POINTWISE: dict[Any, Rule] = {
    _aten.relu.default: _acts(Operation.RELU),
    _aten.tanh.default: _acts(Operation.TANH),
    _aten.sigmoid.default: _acts(Operation.SIGMOID),
    _aten.silu.default: _acts(Operation.SILU),
    _aten.sin.default: _acts(Operation.SIN),
    _aten.cos.default: _acts(Operation.COS),
    _aten.exp.default: _acts(Operation.EXP),
    _aten.log.default: _acts(Operation.LOG),
    _aten.abs.default: _acts(Operation.ABS),
    _aten.sign.default: _acts(Operation.SIGN),
    _aten.erf.default: _acts(Operation.ERF),
    _aten.sqrt.default: _acts(Operation.SQUARE_ROOT),
    _aten.reciprocal.default: _acts(Operation.RECIPROCAL),
    _aten.rsqrt.default: _acts(Operation.POWER, exponent=-0.5),
    _aten.square.default: _acts(Operation.POWER, exponent=2.0),
    _aten.pow.Tensor_Scalar: per_example(power),
    _aten.mish.default: _acts(Operation.MISH),
    _aten.hardswish.default: _acts(Operation.HARD_SWISH),
    _aten.hardsigmoid.default: _acts(Operation.HARD_SIGMOID),
    _aten.softplus.default: _acts(Operation.SOFTPLUS, beta="beta", threshold="threshold"),
    _aten.leaky_relu.default: _acts(Operation.LEAKY_RELU, negative_slope="negative_slope"),
    _aten.elu.default: _acts(Operation.ELU, alpha="alpha", input_scale="input_scale", scale="scale"),
    _aten.hardtanh.default: _acts(Operation.CLAMP, low="min_val", high="max_val"),
    _aten.celu.default: per_example(celu),
    _aten.relu6.default: _acts(Operation.CLAMP, low=0.0, high=6.0),
    _aten.clamp.default: per_example(partial(clamp, low="min", high="max")),
    _aten.clamp_min.default: per_example(partial(clamp, low="min", high="")),
    _aten.clamp_max.default: per_example(partial(clamp, low="", high="max")),
    _aten.expm1.default: per_example(less_one),
    _aten.log1p.default: per_example(one_more),
    _aten.gelu.default: per_example(gelu),
    _aten.neg.default: per_example(negative),
    _aten.glu.default: per_example(gated, runs_over=_halved),
    _aten.prelu.default: per_example(prelu),
    _aten.add.Tensor: _joins(add),
    _aten.sub.Tensor: _joins(add, sign=-1),
    _aten.rsub.Scalar: _joins(reversed_subtract),
    _aten.mul.Tensor: _joins(multiply),
    _aten.div.Tensor: _joins(divide),
    _aten.maximum.default: _joins(greater, sign=1),
    _aten.minimum.default: _joins(greater, sign=-1),
    _aten.masked_fill.Scalar: _joins(masked, condition="mask", kept="self", other="value", when=False),
    _aten.where.self: _joins(masked, condition="condition", kept="self", other="other", when=True),
    _aten.where.ScalarOther: _joins(masked, condition="condition", kept="self", other="other", when=True),
    _aten.where.ScalarSelf: _joins(masked, condition="condition", kept="self", other="other", when=True),
}
