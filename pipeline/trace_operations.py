"""What each ATen operation does to a parameter graph: one small function per operation, and the table of them.

A rule takes the graph under construction and the call, and returns the `Carried` of the result. Operations that only move elements
are executed on node identities as they stand; operations without parameters extend the chain; layers make nodes and blocks. A rule
that meets a case it cannot represent exactly raises `Unsupported`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pipeline.graph_builder import Call, Carried, Channels, Constant, GraphBuilder, Unsupported, channels_of
from pipeline.parameter_graph import EdgeKind, NodeKind, Operation, Step, TensorSlot

Rule = Callable[[GraphBuilder, Call], Any]


def move(builder: GraphBuilder, call: Call, operation: Callable[..., Any]) -> Any:
    """An operation that only moves, repeats or drops elements, executed on node, site and chain alike."""
    if any(isinstance(value, TensorSlot | Constant) for value in pytree.tree_leaves(call.arguments)):
        raise Unsupported(call, "rearranges or joins a parameter or constant", "only activations may be rearranged")

    def part(name: str) -> Any:
        arguments = pytree.tree_map(
            lambda value: getattr(value, name) if isinstance(value, Carried) else value, call.arguments
        )
        return operation(**arguments)

    node, site, chain = part("node"), part("site"), part("chain")
    if isinstance(node, torch.Tensor):
        return Carried(node=node, site=site, chain=chain)
    return [Carried(node=n, site=s, chain=c) for n, s, c in zip(node, site, chain, strict=True)]


def identity(builder: GraphBuilder, call: Call) -> Carried:
    """Dropout in eval mode, copies: nothing happens."""
    return _tensor(call)


def elementwise(builder: GraphBuilder, call: Call, operation: Operation, settings: tuple[str, ...] = ()) -> Carried:
    """An activation; ``settings`` are the arguments that decide what it computes."""
    numbers = tuple((name, (float(call.arguments[name]),)) for name in sorted(settings))
    return builder.passed(_tensor(call), Step(operation=operation, settings=numbers))


def gelu(builder: GraphBuilder, call: Call) -> Carried:
    tanh = float(call.arguments["approximate"] == "tanh")
    return builder.passed(_tensor(call), Step(operation=Operation.GELU, settings=(("tanh", (tanh,)),)))


def scalar(builder: GraphBuilder, call: Call, operation: Operation, sign: int) -> Carried:
    """Adding (sign 1), subtracting (-1), multiplying (1) or dividing (-1) by a Python number."""
    number = call.arguments["other"]
    if not isinstance(number, int | float):
        raise Unsupported(call, "combines two tensors", "sums and products of tensors have no rule yet")
    number *= call.arguments.get("alpha", 1)
    number = float(number) if sign == 1 else -float(number) if operation == Operation.SHIFT else 1 / float(number)
    return builder.passed(_tensor(call), Step(operation=operation, settings=(("number", (number,)),)))


def softmax(builder: GraphBuilder, call: Call, operation: Operation) -> Carried:
    """Softmax over all features of one layer; over anything else it would couple nodes that the graph does not join."""
    carried = _tensor(call)
    nodes = carried.node.reshape(-1)
    starts = np.cumsum([0, *(nodes.count for nodes in builder.node_sets)])
    place = int(np.searchsorted(starts, int(nodes.min()), side="right")) - 1
    whole = torch.equal(nodes.sort().values, torch.arange(starts[place], starts[place + 1]))
    if carried.node.ndim != 2 or call.arguments["dim"] not in (1, -1) or not whole:
        raise Unsupported(
            call,
            "does not run over exactly the features of one layer",
            "only softmax over [batch, features] has a rule yet",
        )
    return builder.passed(carried, Step(operation=operation))


def pool(builder: GraphBuilder, call: Call, operation: Operation, rank: int) -> Carried:
    """Max or average pooling of ``rank`` axes: the same nodes, a smaller map, one more step in the chain."""
    arguments = call.arguments
    read = _map_of(builder, call, rank)
    kernel_size = _per_axis(arguments["kernel_size"], rank)
    settings = {"kernel_size": kernel_size, "stride": _per_axis(arguments["stride"] or kernel_size, rank)}
    settings["padding"] = _per_axis(arguments["padding"], rank)
    settings["ceil_mode"] = (int(arguments["ceil_mode"]),)
    if operation == Operation.MAX_POOL:
        settings["dilation"] = _per_axis(arguments["dilation"], rank)
    elif arguments.get("divisor_override") is not None:
        raise Unsupported(call, "divides by a number of its own", "leave divisor_override unset")
    else:
        settings["count_include_pad"] = (int(arguments["count_include_pad"]),)
    return _pooled(builder, call, read, Step(operation=operation, settings=_settings(settings)))


def adaptive_average_pool(builder: GraphBuilder, call: Call, rank: int) -> Carried:
    read = _map_of(builder, call, rank)
    output_size = _per_axis(call.arguments["output_size"], rank)
    if set(output_size) == {1}:
        return _pooled(builder, call, read, Step(operation=Operation.GLOBAL_AVERAGE_POOL))
    step = Step(operation=Operation.ADAPTIVE_AVERAGE_POOL, settings=_settings({"output_size": output_size}))
    return _pooled(builder, call, read, step)


def mean(builder: GraphBuilder, call: Call) -> Carried:
    """The mean over all axes of a map: global average pooling."""
    rank = _tensor(call).node.ndim - 2
    axes = {axis % (rank + 2) for axis in call.arguments["dim"] or ()}
    if rank < 1 or axes != set(range(2, rank + 2)):
        raise Unsupported(
            call,
            f"averages over axes {sorted(axes)}",
            "only the mean over all axes of a [batch, channels, ...] map has a rule yet",
        )
    return _pooled(builder, call, _map_of(builder, call, rank), Step(operation=Operation.GLOBAL_AVERAGE_POOL))


def linear(builder: GraphBuilder, call: Call) -> Carried:
    """A complete bipartite block; a flattened map is read as parallel edges, one per position."""
    weight, bias = _parameters(call)
    O, I = weight.shape
    axis = len(call.shape) - 1
    read = channels_of(call, builder, _tensor(call), axis)
    targets = builder.add_nodes(NodeKind.NEURON, O, call.module)
    builder.add_block(
        call,
        read,
        kind=EdgeKind.LINEAR_WEIGHT,
        targets=targets,
        target_offset=weight.offset + I * np.arange(O),
        source_offset=np.arange(I),
        map_size=read.map_size,
    )
    if bias is not None:
        builder.add_bias(call, EdgeKind.LINEAR_BIAS, targets, bias)
    return builder.fresh(targets, call.shape, axis)


def convolution(builder: GraphBuilder, call: Call, rank: int) -> Carried:
    """A convolution of ``rank`` axes: one parallel edge per kernel tap."""
    weight, bias = _parameters(call)
    if call.arguments["groups"] != 1:
        raise Unsupported(call, f"has {call.arguments['groups']} groups", "grouped convolution has no rule yet")
    O, I, *kernel_size = weight.shape
    read = _map_of(builder, call, rank)
    taps = int(np.prod(kernel_size))
    targets = builder.add_nodes(NodeKind.NEURON, O, call.module)
    dilation = _per_axis(call.arguments["dilation"], rank)
    builder.add_block(
        call,
        read,
        kind=EdgeKind.CONV_WEIGHT,
        targets=targets,
        target_offset=weight.offset + I * taps * np.arange(O),
        source_offset=taps * np.arange(I),
        kernel_size=tuple(kernel_size),
        tap_stride=1,
        stride=_per_axis(call.arguments["stride"], rank),
        padding=_padding(call, rank, kernel_size, dilation),
        dilation=dilation,
        map_size=read.map_size,
    )
    if bias is not None:
        builder.add_bias(call, EdgeKind.CONV_BIAS, targets, bias)
    return builder.fresh(targets, call.shape, axis=1)


def _tensor(call: Call) -> Carried:
    """The first argument, which must be computed from the input."""
    value = next(iter(call.arguments.values()))
    if not isinstance(value, Carried):
        raise Unsupported(
            call,
            "acts on a parameter or constant, not on an activation",
            "compute it before tracing and store the result as the parameter",
        )
    return value


def _parameters(call: Call) -> tuple[TensorSlot, TensorSlot | None]:
    """Weight and bias, which must be whole tensors of the state dict."""
    weight, bias = call.arguments["weight"], call.arguments["bias"]
    if not isinstance(weight, TensorSlot) or not isinstance(bias, TensorSlot | None):
        raise Unsupported(
            call, "has a computed weight or bias", "weights must be float32 tensors of the state dict, used as they are"
        )
    return weight, bias


def _map_of(builder: GraphBuilder, call: Call, rank: int) -> Channels:
    """The call's tensor ``[1, C, *map]`` read channel by channel."""
    carried = _tensor(call)
    if carried.node.ndim != rank + 2:
        raise Unsupported(
            call,
            f"expects [1, channels] and {rank} axes of a map",
            "keep the batch axis first and do not merge it with others",
        )
    return channels_of(call, builder, carried, axis=1)


def _pooled(builder: GraphBuilder, call: Call, read: Channels, step: Step) -> Carried:
    """The channels after pooling, as a tensor of the call's shape; a removed axis of the map counts as one position."""
    shape = call.shape
    column = (1, -1, *(1 for _ in shape[2:]))
    fresh = builder.fresh(read.node, shape, axis=1)
    chain = torch.from_numpy(read.chain).reshape(column).expand(shape)
    return builder.passed(Carried(node=fresh.node, site=fresh.site, chain=chain), step)


def _per_axis(numbers: int | list[int], rank: int) -> tuple[int, ...]:
    """One number per axis; ATen writes a single one for all."""
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    return tuple(numbers * rank if len(numbers) == 1 else numbers)


def _padding(call: Call, rank: int, kernel_size: list[int], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Zeros on either side of each axis; a one-sided 'same' padding cannot be written so."""
    padding = call.arguments["padding"]
    if padding == "valid":
        return (0,) * rank
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        if any(zeros % 2 for zeros in total):
            raise Unsupported(
                call,
                f"pads kernel {tuple(kernel_size)} to 'same', more on one side than on the other",
                "use odd kernels or give the padding",
            )
        return tuple(zeros // 2 for zeros in total)
    return _per_axis(padding, rank)


def _settings(settings: dict[str, tuple[int, ...]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return tuple((name, tuple(map(float, settings[name]))) for name in sorted(settings))


_aten = torch.ops.aten

RULES: dict[Any, Rule] = {
    **{
        operation: partial(move, operation=operation)
        for operation in (
            _aten.reshape.default,
            _aten.flatten.using_ints,
            _aten.unflatten.int,
            _aten.permute.default,
            _aten.transpose.int,
            _aten.squeeze.default,
            _aten.squeeze.dim,
            _aten.squeeze.dims,
            _aten.unsqueeze.default,
            _aten.select.int,
            _aten.slice.Tensor,
            _aten.split.Tensor,
            _aten.split_with_sizes.default,
            _aten.chunk.default,
            _aten.cat.default,
            _aten.expand.default,
            _aten.flip.default,
        )
    },
    _aten.view.default: partial(move, operation=lambda self, size: self.reshape(size)),  # strides may differ from ours
    **dict.fromkeys(
        (_aten.clone.default, _aten.contiguous.default, _aten.alias.default, _aten.detach.default), identity
    ),
    _aten.relu.default: partial(elementwise, operation=Operation.RELU),
    _aten.tanh.default: partial(elementwise, operation=Operation.TANH),
    _aten.sigmoid.default: partial(elementwise, operation=Operation.SIGMOID),
    _aten.silu.default: partial(elementwise, operation=Operation.SILU),
    _aten.sin.default: partial(elementwise, operation=Operation.SIN),
    _aten.leaky_relu.default: partial(elementwise, operation=Operation.LEAKY_RELU, settings=("negative_slope",)),
    _aten.elu.default: partial(elementwise, operation=Operation.ELU, settings=("alpha", "input_scale", "scale")),
    _aten.gelu.default: gelu,
    _aten.mul.Tensor: partial(scalar, operation=Operation.SCALE, sign=1),
    _aten.div.Tensor: partial(scalar, operation=Operation.SCALE, sign=-1),
    _aten.add.Tensor: partial(scalar, operation=Operation.SHIFT, sign=1),
    _aten.sub.Tensor: partial(scalar, operation=Operation.SHIFT, sign=-1),
    _aten.softmax.int: partial(softmax, operation=Operation.SOFTMAX),
    _aten.log_softmax.int: partial(softmax, operation=Operation.LOG_SOFTMAX),
    _aten.max_pool1d.default: partial(pool, operation=Operation.MAX_POOL, rank=1),
    _aten.max_pool2d.default: partial(pool, operation=Operation.MAX_POOL, rank=2),
    _aten.max_pool3d.default: partial(pool, operation=Operation.MAX_POOL, rank=3),
    _aten.avg_pool1d.default: partial(pool, operation=Operation.AVERAGE_POOL, rank=1),
    _aten.avg_pool2d.default: partial(pool, operation=Operation.AVERAGE_POOL, rank=2),
    _aten.avg_pool3d.default: partial(pool, operation=Operation.AVERAGE_POOL, rank=3),
    _aten.adaptive_avg_pool1d.default: partial(adaptive_average_pool, rank=1),
    _aten.adaptive_avg_pool2d.default: partial(adaptive_average_pool, rank=2),
    _aten.adaptive_avg_pool3d.default: partial(adaptive_average_pool, rank=3),
    _aten.mean.dim: mean,
    _aten.linear.default: linear,
    _aten.conv1d.default: partial(convolution, rank=1),
    _aten.conv2d.default: partial(convolution, rank=2),
    _aten.conv3d.default: partial(convolution, rank=3),
    _aten.conv1d.padding: partial(convolution, rank=1),
    _aten.conv2d.padding: partial(convolution, rank=2),
    _aten.conv3d.padding: partial(convolution, rank=3),
}
