"""Rules of matrix products: with parameters they are linear layers, of activations they are attention.

Reads   calls of the traced program
Writes  product nodes, heads, and what `pipeline.trace_layers` writes
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pipeline.graph_builder import GraphBuilder
from pipeline.graph_kinds import NodeKind, Operation
from pipeline.node_operations import carried, combine, scaled
from pipeline.node_reductions import product_of_matrices
from pipeline.trace_layers import linear_of
from pipeline.trace_norms import softmax
from pipeline.traced_tensor import Call, Carried, Constant, Operand, Rule, UnsupportedError, Weights, per_example


def matrix_product(builder: GraphBuilder, call: Call, left: str = "self", right: str = "other") -> Carried:
    """``left @ right``: a linear layer where one is a matrix of parameters, else a product of activations."""
    return product(builder, call, call.arguments[left], call.arguments[right])


def product(builder: GraphBuilder, call: Call, left: Operand, right: Operand) -> Carried:
    if isinstance(left, Carried) and isinstance(right, Weights) and len(right.shape) == 2:
        return linear_of(builder, call, left, replace(right, value=right.value.T), None)
    if isinstance(left, Weights) and isinstance(right, Carried) and len(left.shape) == 2:
        swapped = linear_of(builder, call, right.moved(lambda part: part.transpose(-1, -2)), left, None)
        return swapped.moved(lambda part: part.transpose(-1, -2))
    if isinstance(left, Constant) or isinstance(right, Constant):
        raise UnsupportedError(
            call,
            "multiplies by a constant matrix",
            "constants that mix channels or positions cannot be represented; make it a parameter of a linear layer",
        )
    first, second = (carried(builder, call, operand) for operand in (left, right))
    if first.node.ndim < 2 or second.node.ndim < 2:
        raise UnsupportedError(call, "multiplies vectors", "give both operands two axes at least")
    return product_of_matrices(builder, call, first, second)


def linear_with_bias(builder: GraphBuilder, call: Call) -> Carried:
    """``addmm`` and ``baddbmm``: a summand and a matrix product, with factors."""
    alpha, beta = (float(call.arguments.get(name, 1)) for name in ("alpha", "beta"))
    left, right = (
        (call.arguments[name] for name in ("mat1", "mat2"))
        if "mat1" in call.arguments
        else (call.arguments[name] for name in ("batch1", "batch2"))
    )
    total = scaled(builder, product(builder, call, left, right), alpha)
    return combine(builder, call, NodeKind.SUM, [scaled(builder, call.arguments["self"], beta), total])


def attention(builder: GraphBuilder, call: Call) -> Carried:
    """``softmax(query @ key.T * scale + mask) @ value``, wherever the heads stand."""
    query, key, value = (carried(builder, call, call.arguments[name]) for name in ("query", "key", "value"))
    if call.arguments.get("enable_gqa"):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (each.moved(lambda part: part.repeat_interleave(repeats, -3)) for each in (key, value))
    scale = call.arguments.get("scale")
    scores = product_of_matrices(builder, call, query, key.moved(lambda part: part.transpose(-1, -2)))
    scores = scaled(builder, scores, query.shape[-1] ** -0.5 if scale is None else scale)
    assert isinstance(scores, Carried)
    mask = call.arguments.get("attn_mask")
    if call.arguments.get("is_causal"):
        mask = Constant(number=torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if isinstance(mask, Constant) and mask.number.dtype == torch.bool:
        mask = Constant(number=torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask.number, -torch.inf))
    if mask is not None and not (isinstance(mask, Constant) and not mask.number.any()):
        scores = combine(builder, replace(call, shape=scores.shape), NodeKind.SUM, [scores, mask])
    weights = softmax(
        builder, replace(call, arguments={"self": scores, "dim": -1}, shape=scores.shape), Operation.SOFTMAX
    )
    return product_of_matrices(builder, call, weights, value)


_aten = torch.ops.aten


def _summed(call: Call) -> list[int]:
    """The axes, from the last, that a matrix product sums over, or that it cannot keep apart: of the left factor the
    last, of the right one the last but one; of two activations, both."""
    operands = [value for value in call.arguments.values() if isinstance(value, Carried | Weights | Constant)]
    left, right = operands[-2:]
    if isinstance(left, Carried) and isinstance(right, Carried):
        return [1, 2]
    return [1] if isinstance(left, Carried) else [2]


def _matrices(right: str) -> Rule:
    return per_example(partial(matrix_product, right=right), runs_over=_summed, broadcasts=3)


PRODUCTS: dict[Any, Rule] = {
    _aten.matmul.default: _matrices("other"),
    _aten.mm.default: _matrices("mat2"),
    _aten.bmm.default: _matrices("mat2"),
    _aten.addmm.default: per_example(linear_with_bias, runs_over=_summed, broadcasts=3),
    _aten.baddbmm.default: per_example(linear_with_bias, runs_over=_summed, broadcasts=3),
    _aten.scaled_dot_product_attention.default: per_example(attention, runs_over=lambda call: (1, 2), broadcasts=3),
}
