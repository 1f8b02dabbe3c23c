"""Rules of norms and softmax: what couples channels has a statistics node.

Reads   calls of the traced program
Writes  statistics nodes, normalised nodes and their edges; a softmax over positions is a step of a chain
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.channel_reading import Channels, channel_axes, read, whole
from pipeline.graph_builder import Entries, GraphBuilder, map_extents
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.node_operations import add_offsets, carried, position_classes
from pipeline.node_reductions import group_of_channel, map_step
from pipeline.trace_layers import on_maps
from pipeline.traced_tensor import Call, Carried, Rule, UnsupportedError, Weights, per_example


def normalised(
    builder: GraphBuilder,
    call: Call,
    operand: Carried,
    channels: tuple[int, ...],
    group: Int64[np.ndarray, " C"],
    statistic: Step,
    weight: Weights | None = None,
    bias: Weights | None = None,
) -> Carried:
    """The channels of a tensor, normalised by the statistics of their group, with learned factors and summands.

    Args:
        group: of every channel, numbered from 0; each has a statistics node.
        weight: ``[C, positions]``, as is ``bias``.
    """
    shape = operand.shape
    extents = map_extents(shape, channels)
    found = read(builder, call, operand, channels)
    G, C = int(group.max()) + 1, found.count
    inputs = Entries.of(group, found.node, found.site, found.chain)
    chain = builder.intern((statistic,))

    def make() -> Int64[np.ndarray, " C"]:
        statistics = builder.add_nodes(NodeKind.STATISTICS, G, call.module, chain)
        builder.add_pointwise(EdgeKind.NORM_INPUT, statistics, inputs, extents)
        nodes = builder.add_nodes(NodeKind.NORMALISED, C, call.module)
        _add_factors(builder, call, nodes, found, weight, extents)
        rows = Entries.of(np.arange(C), statistics[group])
        builder.add_pointwise(EdgeKind.STATISTIC, nodes, rows, extents)
        if bias is not None:
            add_offsets(builder, call, nodes, bias, EdgeKind.NORM_BIAS, extents)
        return nodes

    learned = tuple(None if w is None else w.value.numpy().tobytes() for w in (weight, bias))
    nodes = builder.once(("norm", chain, extents, inputs.key, learned), make)
    return builder.fresh(nodes, shape, channels, found.shared)


def _add_factors(
    builder: GraphBuilder,
    call: Call,
    nodes: Int64[np.ndarray, " C"],
    found: Channels,
    weight: Weights | None,
    extents: tuple[int, ...],
) -> None:
    """The edge from each channel to its normalised self, with its learned factor if there is one."""
    target = np.arange(found.count)
    if weight is None:
        rows = Entries.of(target, found.node, found.site, found.chain)
        builder.add_pointwise(EdgeKind.PASS, nodes, rows, extents)
        return
    parts = position_classes(weight.value.numpy())
    if len(parts) > 1 and found.site.any():
        raise UnsupportedError(call, "has a factor per position of a part of a map", "normalise before you select")
    entries = []
    for positions, numbers in parts:
        place = builder.place(extents, positions) if len(parts) > 1 else 0
        site = place if len(parts) > 1 else found.site
        entries.append(Entries.of(target, found.node, site, found.chain, place, value=numbers))
    builder.add_pointwise(EdgeKind.NORM_WEIGHT, nodes, Entries.joined(entries), extents)


def batch_norm(builder: GraphBuilder, call: Call) -> Carried:
    """Normalised by running statistics, which are values: channels are not coupled."""
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (_parameter(call, name) for name in names)
    operand = call.tensor()
    if mean is None or variance is None:
        return instance_norm_of(builder, call, operand, weight, bias)
    channels = (1,)
    found = read(builder, call, operand, channels)
    extents = map_extents(operand.shape, channels)
    eps = (("axes", ()), ("eps", (float(call.arguments["eps"]),)), ("map_size", ()))
    chain = builder.intern((Step(operation=Operation.STANDARDISE, settings=eps),))
    running = {EdgeKind.NORM_BIAS: bias, EdgeKind.NORM_MEAN: mean, EdgeKind.NORM_VARIANCE: variance}

    def make() -> Int64[np.ndarray, " C"]:
        nodes = builder.add_nodes(NodeKind.NORMALISED, found.count, call.module, chain)
        column = None if weight is None else _column(weight)
        _add_factors(builder, call, nodes, found, column, extents)
        one = builder.add_nodes(NodeKind.BIAS, 1, call.module)
        for kind, values in running.items():
            if values is not None:
                add_offsets(builder, call, nodes, _column(values), kind, extents, one)
        return nodes

    learned = tuple(None if w is None else w.value.numpy().tobytes() for w in (weight, bias, mean, variance))
    nodes = builder.once(("batch norm", chain, extents, found.entries().key, learned), make)
    return builder.fresh(nodes, operand.shape, channels, found.shared)


def instance_norm(builder: GraphBuilder, call: Call) -> Carried:
    """Normalised by the statistics of each channel's own map, or by running ones."""
    if call.arguments["use_input_stats"]:
        weight, bias = _parameter(call, "weight"), _parameter(call, "bias")
        return instance_norm_of(builder, call, call.tensor(), weight, bias)
    return batch_norm(builder, call)


def instance_norm_of(
    builder: GraphBuilder, call: Call, operand: Carried, weight: Weights | None, bias: Weights | None
) -> Carried:
    return _grouped(builder, call, operand, operand.shape[1], weight, bias)


def group_norm(builder: GraphBuilder, call: Call) -> Carried:
    """Normalised by the statistics of a group of channels and their maps."""
    weight, bias = _parameter(call, "weight"), _parameter(call, "bias")
    return _grouped(builder, call, call.tensor(), int(call.arguments["num_groups"]), weight, bias)


def _grouped(
    builder: GraphBuilder, call: Call, operand: Carried, num_groups: int, weight: Weights | None, bias: Weights | None
) -> Carried:
    shape = operand.shape
    if shape[0] != 1:
        raise UnsupportedError(call, "does not get [batch, channels, ...]", "keep the batch axis first and unmerged")
    operand = whole(builder, call, operand, (1,))
    over_map = list(range(2, len(shape)))
    step = map_step(call, Operation.STANDARDISE, shape, (1,), over_map, eps=call.arguments["eps"])
    group = np.repeat(np.arange(num_groups), shape[1] // num_groups)
    columns = (None if w is None else _column(w) for w in (weight, bias))
    return normalised(builder, call, operand, (1,), group, step, *columns)


def layer_norm(builder: GraphBuilder, call: Call, operation: Operation) -> Carried:
    """Layer norm, and RMS norm: over the last axes, channels and positions alike."""
    operand = carried(builder, call, next(iter(call.arguments.values())))
    ndim = operand.node.ndim
    axes = list(range(ndim - len(call.arguments["normalized_shape"]), ndim))
    channels = channel_axes([operand], ndim)
    if len(axes) == 1 and axes[0] not in channels and _is_mixed(operand, axes[0]):
        channels = (axes[0],)
    over_map = [axis for axis in axes if axis not in channels]
    if over_map:
        operand = whole(builder, call, operand, channels)
    eps = call.arguments["eps"]
    step = map_step(call, operation, operand.shape, channels, over_map, eps=0.0 if eps is None else eps)
    group = group_of_channel(operand.shape, channels, axes)
    rest = [axis for axis in range(ndim) if axis not in channels]

    def table(weights: Weights | None) -> Weights | None:
        if weights is None:
            return None
        value = weights.value.expand(operand.shape).permute([*channels, *rest]).reshape(len(group), -1)
        return Weights(name=weights.name, value=value, chain=weights.chain)

    bias = _parameter(call, "bias") if "bias" in call.arguments else None
    return normalised(builder, call, operand, channels, group, step, table(_parameter(call, "weight")), table(bias))


def _is_mixed(operand: Carried, axis: int) -> bool:
    """Whether several nodes stand along an axis of positions: pieces that a layer over this axis reads as channels."""
    node = operand.node
    return bool((node != node.narrow(axis, 0, 1)).any())


def softmax(builder: GraphBuilder, call: Call, operation: Operation) -> Carried:
    """Over channels: statistics couple them. Over positions: a step of the chain."""
    operand = call.tensor()
    ndim = operand.node.ndim
    axis = call.arguments["dim"] % ndim
    channels = channel_axes([operand], ndim)
    if axis in channels:
        step = map_step(call, operation, operand.shape, channels, [])
        return normalised(builder, call, operand, channels, group_of_channel(operand.shape, channels, [axis]), step)
    operand = whole(builder, call, operand, channels)
    return builder.passed(operand, map_step(call, operation, operand.shape, channels, [axis]))


def _parameter(call: Call, name: str) -> Weights | None:
    value = call.arguments.get(name)
    if value is not None and not isinstance(value, Weights):
        raise UnsupportedError(
            call,
            f"has a {name} that is computed or constant",
            "norms take float32 tensors of the state dict as they are",
        )
    return value


def _column(weights: Weights) -> Weights:
    """One value per channel, for all positions."""
    return Weights(name=weights.name, value=weights.value.reshape(-1, 1), chain=weights.chain)


_aten = torch.ops.aten


def first_of_three(builder: GraphBuilder, call: Call) -> tuple[Any, ...]:
    """Batch norm as torch exports it, with two results that nobody reads in eval mode."""
    return (on_maps(batch_norm)(builder, call), None, None)


def batch_norm_in_eval(builder: GraphBuilder, call: Call) -> Carried:
    """Batch norm as a module calls it."""
    if call.arguments["training"]:
        raise UnsupportedError(call, "normalises over the examples of a batch", "give it running statistics")
    return on_maps(batch_norm)(builder, call)


def _layer_norms(operation: Operation) -> Rule:
    def over(call: Call) -> range:
        return range(1, len(call.arguments["normalized_shape"]) + 1)

    return per_example(partial(layer_norm, operation=operation), runs_over=over)


def _softmaxes(operation: Operation) -> Rule:
    def over(call: Call) -> list[int]:
        return [len(call.shape) - call.arguments["dim"] % len(call.shape)]

    return per_example(partial(softmax, operation=operation), runs_over=over)


NORMS: dict[Any, Rule] = {
    _aten.batch_norm.default: batch_norm_in_eval,
    _aten._native_batch_norm_legit_no_training.default: first_of_three,
    _aten.instance_norm.default: on_maps(instance_norm),
    _aten.group_norm.default: on_maps(group_norm),
    _aten.layer_norm.default: _layer_norms(Operation.STANDARDISE),
    _aten.rms_norm.default: _layer_norms(Operation.ROOT_MEAN_SQUARE),
    _aten.softmax.int: _softmaxes(Operation.SOFTMAX),
    _aten._softmax.default: _softmaxes(Operation.SOFTMAX),
    _aten.log_softmax.int: _softmaxes(Operation.LOG_SOFTMAX),
    _aten._log_softmax.default: _softmaxes(Operation.LOG_SOFTMAX),
}
