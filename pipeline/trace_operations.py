"""What each ATen operation does to a parameter graph: one small function per operation, and the table of them.

A rule takes the graph under construction and the call, and returns the `Carried` of the result. Operations that only
move elements are executed on node identities as they stand; operations without parameters extend the chain; layers make
nodes and blocks. A rule that meets a case it cannot represent exactly raises `UnsupportedError`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from pipeline.graph_builder import Geometry, GraphBuilder
from pipeline.parameter_graph import EdgeKind, Operation, Step
from pipeline.traced_tensor import Call, Carried, Channels, Constant, UnsupportedError
from pipeline.value_layout import TensorSlot

Rule = Callable[[GraphBuilder, Call], Any]


def move(builder: GraphBuilder, call: Call, operation: Callable[..., Any]) -> Any:
    """An operation that only moves, repeats or drops elements, executed on node, site and chain alike."""
    if any(isinstance(value, TensorSlot | Constant) for value in pytree.tree_leaves(call.arguments)):
        raise UnsupportedError(
            call, "rearranges or joins a parameter or constant", "only activations may be rearranged"
        )

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
        raise UnsupportedError(call, "combines two tensors", "sums and products of tensors have no rule yet")
    number = float(number * call.arguments.get("alpha", 1))
    if not isfinite(number) or (operation == Operation.SCALE and number == 0):
        raise UnsupportedError(call, f"has the number {number}", "nothing acts through it; remove the operation")
    if sign == -1:
        number = -number if operation == Operation.SHIFT else 1 / number
    return builder.passed(_tensor(call), Step(operation=operation, settings=(("number", (number,)),)))


def softmax(builder: GraphBuilder, call: Call, operation: Operation) -> Carried:
    """Softmax over all features of one layer, which `GraphBuilder.finish` expects to be outputs."""
    carried = _tensor(call)
    read = builder.read(call, carried, axis=1)
    starts = np.cumsum([0, *(nodes.count for nodes in builder.node_sets)])
    first = int(np.searchsorted(starts, read.node.min(), side="right")) - 1
    whole = np.array_equal(np.sort(read.node), np.arange(starts[first], starts[first + 1]))
    if carried.node.ndim != 2 or call.arguments["dim"] not in (1, -1) or not whole or len(read.node) == 1:
        raise UnsupportedError(
            call,
            "does not run over exactly the features of one layer, two at least",
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
        raise UnsupportedError(call, "divides by a number of its own", "leave divisor_override unset")
    else:
        settings["count_include_pad"] = (int(arguments["count_include_pad"]),)
    return _pooled(builder, call, read, operation, settings)


def adaptive_average_pool(builder: GraphBuilder, call: Call, rank: int) -> Carried:
    read = _map_of(builder, call, rank)
    output_size = _per_axis(call.arguments["output_size"], rank)
    if set(output_size) == {1}:
        return _pooled(builder, call, read, Operation.GLOBAL_AVERAGE_POOL, {})
    return _pooled(builder, call, read, Operation.ADAPTIVE_AVERAGE_POOL, {"output_size": output_size})


def mean(builder: GraphBuilder, call: Call) -> Carried:
    """The mean over all axes of a map: global average pooling."""
    rank = _tensor(call).node.ndim - 2
    axes = {axis % (rank + 2) for axis in call.arguments["dim"] or ()}
    if rank < 1 or axes != set(range(2, rank + 2)):
        raise UnsupportedError(
            call,
            f"averages over axes {sorted(axes)}",
            "only the mean over all axes of a [batch, channels, ...] map has a rule yet",
        )
    return _pooled(builder, call, _map_of(builder, call, rank), Operation.GLOBAL_AVERAGE_POOL, {})


def linear(builder: GraphBuilder, call: Call) -> Carried:
    """A complete bipartite block; a flattened map is read as parallel edges, one per position."""
    weight, bias = _parameters(call)
    if len(weight.shape) != 2:
        raise UnsupportedError(call, "has a weight that is no matrix", "give the weight an axis of outputs")
    axis = len(call.shape) - 1
    read = builder.read(call, _tensor(call), axis)
    kinds = (EdgeKind.LINEAR_WEIGHT, EdgeKind.LINEAR_BIAS)
    return builder.fresh(builder.add_layer(call, read, kinds, weight, bias, Geometry()), call.shape, axis)


def convolution(builder: GraphBuilder, call: Call, rank: int) -> Carried:
    """A convolution of ``rank`` axes: one parallel edge per kernel tap."""
    weight, bias = _parameters(call)
    if call.arguments["groups"] != 1:
        raise UnsupportedError(call, f"has {call.arguments['groups']} groups", "grouped convolution has no rule yet")
    read = _map_of(builder, call, rank)
    kernel_size = weight.shape[2:]
    dilation = _per_axis(call.arguments["dilation"], rank)
    geometry = Geometry(
        kernel_size=kernel_size,
        stride=_per_axis(call.arguments["stride"], rank),
        padding=_padding(call, rank, kernel_size, dilation),
        dilation=dilation,
    )
    _check_taps_act(call, read.map_size, geometry)
    kinds = (EdgeKind.CONV_WEIGHT, EdgeKind.CONV_BIAS)
    return builder.fresh(builder.add_layer(call, read, kinds, weight, bias, geometry), call.shape, axis=1)


def _tensor(call: Call) -> Carried:
    """The first argument, which must be computed from the input."""
    value = next(iter(call.arguments.values()))
    if not isinstance(value, Carried):
        raise UnsupportedError(
            call,
            "acts on a parameter or constant, not on an activation",
            "compute it before tracing and store the result as the parameter",
        )
    return value


def _parameters(call: Call) -> tuple[TensorSlot, TensorSlot | None]:
    """Weight and bias, which must be whole tensors of the state dict."""
    weight, bias = call.arguments["weight"], call.arguments["bias"]
    if not isinstance(weight, TensorSlot) or not isinstance(bias, TensorSlot | None):
        raise UnsupportedError(
            call, "has a computed weight or bias", "weights must be float32 tensors of the state dict, used as they are"
        )
    return weight, bias


def _map_of(builder: GraphBuilder, call: Call, rank: int) -> Channels:
    """The call's tensor ``[batch, C, *map]`` read channel by channel."""
    carried = _tensor(call)
    if carried.node.ndim != rank + 2:
        raise UnsupportedError(
            call,
            f"does not get [batch, channels] and {rank} axes of a map",
            "keep the batch axis first and do not merge it with others",
        )
    return builder.read(call, carried, axis=1)


def _pooled(
    builder: GraphBuilder, call: Call, read: Channels, operation: Operation, settings: dict[str, tuple[int, ...]]
) -> Carried:
    """The channels after pooling, as a tensor of the call's shape; a removed axis of the map counts as one position."""
    if read.site.any():
        raise UnsupportedError(call, "pools a map cropped to one position", "pool before you select")
    settings = {**settings, "map_size": read.map_size}
    numbers = tuple((name, tuple(map(float, settings[name]))) for name in sorted(settings))
    fresh = builder.fresh(read.node, call.shape, axis=1)
    column = (1, -1, *(1 for _ in call.shape[2:]))
    chain = torch.from_numpy(read.chain).reshape(column).expand(call.shape)
    carried = Carried(node=fresh.node, site=fresh.site, chain=chain)
    return builder.passed(carried, Step(operation=operation, settings=numbers))


def _per_axis(numbers: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One number per axis; ATen writes a single one for all."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return numbers * rank if len(numbers) == 1 else numbers


def _padding(call: Call, rank: int, kernel_size: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Zeros on either side of each axis; a one-sided 'same' padding cannot be written so."""
    padding = call.arguments["padding"]
    if padding == "valid":
        return (0,) * rank
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        if any(zeros % 2 for zeros in total):
            raise UnsupportedError(
                call,
                f"pads kernel {kernel_size} to 'same', more on one side than on the other",
                "use odd kernels or give the padding",
            )
        return tuple(zeros // 2 for zeros in total)
    return _per_axis(padding, rank)


def _check_taps_act(call: Call, map_size: tuple[int, ...], geometry: Geometry) -> None:
    """Every tap must meet the map somewhere on each axis: weights that meet padding alone never act."""
    for axis, extent in enumerate(map_size):
        places = geometry.stride[axis] * np.arange(call.shape[2 + axis])[:, None]
        places = places + geometry.dilation[axis] * np.arange(geometry.kernel_size[axis]) - geometry.padding[axis]
        if not ((places >= 0) & (places < extent)).any(axis=0).all():
            raise UnsupportedError(
                call,
                f"has kernel taps that meet nothing but padding on a map {map_size}, so that their weights never act",
                "take a larger input, a smaller kernel or less padding",
            )


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
            _aten.t.default,
            _aten.squeeze.default,
            _aten.squeeze.dim,
            _aten.squeeze.dims,
            _aten.unsqueeze.default,
            _aten.select.int,
            _aten.slice.Tensor,
            _aten.split.Tensor,
            _aten.split_with_sizes.default,
            _aten.chunk.default,
            _aten.unbind.int,
            _aten.cat.default,
            _aten.stack.default,
            _aten.expand.default,
            _aten.flip.default,
        )
    },
    **dict.fromkeys(
        (_aten.view.default, _aten._unsafe_view.default),
        partial(move, operation=lambda self, size: self.reshape(size)),  # our strides may differ from the module's
    ),
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
