"""Rules of means, sums, maxima, norms and variances over axes, of positions or of channels.

Reads   calls of the traced program
Writes  what `pipeline.node_reductions` writes
"""

from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch

from pipeline.graph_builder import GraphBuilder
from pipeline.graph_kinds import NodeKind, Operation, Step
from pipeline.node_operations import combine, scaled
from pipeline.node_reductions import reduce
from pipeline.traced_tensor import Call, Carried, Rule, UnsupportedError, per_example


def reduction(builder: GraphBuilder, call: Call, operation: Operation, dim: str = "dim") -> Carried:
    """The mean, sum or maximum over some axes, or all."""
    operand = call.tensor()
    ndim = operand.node.ndim
    given = call.arguments.get(dim)
    axes = sorted({axis % ndim for axis in ([given] if isinstance(given, int) else given or range(ndim))})
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(operand.shape))

    def over_axes(builder: GraphBuilder, call: Call) -> Carried:
        return reduce(builder, call, call.tensor(), operation, axes)

    whole_call = Call(operation=call.operation, module=call.module, arguments=call.arguments, shape=kept)
    result = per_example(over_axes, runs_over=lambda call: [ndim - axis for axis in axes])(builder, whole_call)
    return result if call.arguments.get("keepdim") else result.moved(lambda part: part.squeeze(axes))


def vector_norm(builder: GraphBuilder, call: Call) -> Carried:
    """The Euclidean or the absolute norm over some axes."""
    order = call.arguments["ord"]
    if order not in (1, 2):
        raise UnsupportedError(call, f"is a norm of order {order}", "only orders 1 and 2 have a rule")
    first = Step(operation=Operation.ABS) if order == 1 else Step(operation=Operation.POWER, settings=SQUARED)
    passed = builder.passed(call.tensor(), first)
    total = reduction(builder, replace(call, arguments=call.arguments | {"self": passed}), Operation.SUM)
    return total if order == 1 else builder.passed(total, Step(operation=Operation.SQUARE_ROOT))


def variance(builder: GraphBuilder, call: Call) -> Carried:
    """The variance over some axes: the mean square of what is left when the mean is taken off."""
    operand = call.tensor()
    kept = call.arguments | {"keepdim": True}
    mean = reduction(builder, replace(call, arguments=kept), Operation.MEAN)
    centre = per_example(lambda builder, call: combine(builder, call, NodeKind.SUM, list(call.arguments.values())))
    off = scaled(builder, mean, -1.0)
    centred = centre(builder, replace(call, arguments={"self": operand, "mean": off}, shape=operand.shape))
    squared = builder.passed(centred, Step(operation=Operation.POWER, settings=SQUARED))
    result = reduction(builder, replace(call, arguments=call.arguments | {"self": squared}), Operation.MEAN)
    given = call.arguments["dim"]
    n = prod(operand.shape[axis] for axis in (given if given is not None else range(operand.node.ndim)))
    correction = 1 if call.arguments["correction"] is None else call.arguments["correction"]
    if n <= correction:
        raise UnsupportedError(call, "is a variance of too few elements", "take it over more, or without correction")
    corrected = scaled(builder, result, n / (n - correction))
    assert isinstance(corrected, Carried)
    return corrected


SQUARED = (("exponent", (2.0,)),)


_aten = torch.ops.aten

REDUCTIONS: dict[Any, Rule] = {
    _aten.mean.dim: partial(reduction, operation=Operation.MEAN),
    _aten.sum.dim_IntList: partial(reduction, operation=Operation.SUM),
    _aten.amax.default: partial(reduction, operation=Operation.MAXIMUM),
    _aten.max.dim: lambda builder, call: (reduction(builder, call, Operation.MAXIMUM), None),
    _aten.linalg_vector_norm.default: vector_norm,
    _aten.var.correction: variance,
}
