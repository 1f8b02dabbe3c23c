"""Rules of layers: linear, convolution and embedding.

Reads   calls of the traced program
Writes  nodes and blocks
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from pipeline.channel_reading import Channels, channel_axes, read, whole
from pipeline.graph_builder import Entries, Geometry, GraphBuilder
from pipeline.graph_kinds import EdgeKind, NodeKind
from pipeline.node_operations import carried
from pipeline.traced_tensor import SHARED, Call, Carried, Constant, Rule, UnsupportedError, Weights, per_example

KINDS = {
    "linear": (EdgeKind.LINEAR_WEIGHT, EdgeKind.LINEAR_BIAS),
    "convolution": (EdgeKind.CONV_WEIGHT, EdgeKind.CONV_BIAS),
    "transposed convolution": (EdgeKind.TRANSPOSED_CONV_WEIGHT, EdgeKind.CONV_BIAS),
}


def layer(
    builder: GraphBuilder,
    call: Call,
    read: Channels,
    kinds: tuple[EdgeKind, EdgeKind],
    values: Int64[np.ndarray, "G O I T"],
    bias: Weights | None,
    geometry: Geometry,
) -> Int64[np.ndarray, " all_targets"]:
    """New nodes that read these channels, group by group, through weights, and a node for the bias.

    Args:
        kinds: of the weight's edges and of the bias's.
        values: position in ``values`` of every weight.

    Raises:
        UnsupportedError: one element is read twice, or the weights are not laid out as rows and columns.
    """
    if 0 in values.shape:
        raise UnsupportedError(call, "has a weight without elements", "a layer needs at least one input and one output")
    G, O, I, _ = values.shape
    rows, columns, tap_stride = laid_out(call, values)
    tap_stride = tap_stride if geometry.kernel_size else 0
    group = np.repeat(np.arange(G), I)
    entries = Entries.of(group, read.node, read.site, read.chain, value=columns.reshape(-1))
    order = np.lexsort((entries.chain, entries.site, entries.node, group))
    keys = np.stack([group, entries.node, entries.site, entries.chain])[:, order]
    if (keys[:, 1:] == keys[:, :-1]).all(axis=0).any():
        raise UnsupportedError(
            call,
            "reads one element twice, so that two values could not be told apart",
            "a parameter graph needs distinct inputs: do not repeat elements before it, and give constants as inputs",
        )
    entries = entries.chosen(order)
    biases = None if bias is None else (bias.value.numpy().tobytes(), bias.chain)

    def make() -> Int64[np.ndarray, " all_targets"]:
        nodes = builder.add_nodes(NodeKind.NEURON, G * O, call.module)
        targets = rows.reshape(-1)
        builder.add_block(kinds[0], nodes, entries, G, targets, geometry, tap_stride, read.map_size)
        if bias is not None:
            one = builder.add_nodes(NodeKind.BIAS, 1, call.module)
            offsets = np.broadcast_to(bias.value.numpy(), G * O)
            builder.add_block(
                kinds[1], nodes, Entries.of(np.zeros(1, dtype=np.int64), one, chain=bias.chain), 1, offsets
            )
        return nodes

    digest = hashlib.sha256(
        np.ascontiguousarray(values).data
    ).digest()  # the numbers themselves would take 8 bytes a value
    key = ("layer", kinds, digest, biases, geometry, read.map_size, entries.key)
    return builder.once(key, make)


def laid_out(
    call: Call, values: Int64[np.ndarray, "G O I T"]
) -> tuple[Int64[np.ndarray, "G O"], Int64[np.ndarray, "G I"], int]:
    """Weights as a contribution of each target, one of each source, and a distance between taps."""
    least = values[:, :1, :, 0].argmin(axis=2)[:, 0]
    group = np.arange(len(values))
    rows = values[group, :, least, 0]
    columns = values[:, 0, :, 0] - rows[:, :1]
    tap_stride = int(values[0, 0, 0, 1] - values[0, 0, 0, 0]) if values.shape[3] > 1 else 1
    taps = np.arange(values.shape[3]) * tap_stride
    if tap_stride < 1 or (rows[:, :, None, None] + columns[:, None, :, None] + taps != values).any():
        raise UnsupportedError(
            call, "has a weight whose elements were rearranged", "use the weight as it is, transposed or cut at most"
        )
    return rows, columns, tap_stride


def parameters(call: Call, weight_name: str = "weight", bias_name: str = "bias") -> tuple[Weights, Weights | None]:
    """Weight and bias, which must be elements of the state dict."""
    weight, bias = call.arguments[weight_name], call.arguments[bias_name]
    if not isinstance(weight, Weights) or not isinstance(bias, Weights | None) or weight.chain:
        raise UnsupportedError(
            call,
            "has a computed weight or bias",
            "weights must be float32 tensors of the state dict, used as they are: compute it before tracing and store "
            "the result, as torch.nn.utils.parametrize.remove_parametrizations does",
        )
    return weight, bias


def linear(builder: GraphBuilder, call: Call) -> Carried:
    """A complete bipartite block; a flattened map is read as parallel edges, one per position."""
    weight, bias = parameters(call)
    operand = call.arguments["input"]
    if isinstance(operand, Constant) and not operand.number.any():  # the first state of a recurrent network
        return _of_nothing(builder, call, bias)
    return linear_of(builder, call, carried(builder, call, operand), weight, bias)


def _of_nothing(builder: GraphBuilder, call: Call, bias: Weights | None) -> Carried:
    """What a linear layer makes of zeros: its bias."""
    if bias is None:
        return carried(builder, call, Constant(number=torch.zeros(call.shape)))
    return carried(builder, call, replace(bias, value=bias.value.expand(call.shape)))


def linear_of(builder: GraphBuilder, call: Call, operand: Carried, weight: Weights, bias: Weights | None) -> Carried:
    """The product of the last axis with a weight ``[O, I]``, and a bias."""
    if len(weight.shape) != 2:
        raise UnsupportedError(call, "has a weight that is no matrix", "give the weight an axis of outputs")
    axis = operand.node.ndim - 1
    check_no_mixing(call, operand, axis)
    channels = read(builder, call, operand, (axis,))
    values = weight.value.numpy()[None, :, :, None]
    nodes = layer(builder, call, channels, KINDS["linear"], values, bias, Geometry())
    shape = (*operand.shape[:axis], weight.shape[0])
    return builder.fresh(nodes, shape, (axis,), channels.shared)


def check_no_mixing(call: Call, operand: Carried, axis: int) -> None:
    """Refuse a layer that runs over positions, with channels on another axis: it mixes tokens."""
    axes = channel_axes([operand], operand.node.ndim)
    if axes and axis not in axes and operand.shape[axis] > 1 and bool((operand.node < SHARED).any()):
        raise UnsupportedError(
            call,
            f"mixes tokens: it runs over axis {axis} of positions, with channels on axis {axes[-1]}",
            "token-mixing linear maps have no rule: their weights belong to positions, not to neurons",
        )


def map_of(builder: GraphBuilder, call: Call, rank: int) -> tuple[Carried, Channels]:
    """The call's tensor ``[batch, C, *map]``, and it read channel by channel."""
    operand = call.tensor()
    if operand.node.ndim != rank + 2 or operand.shape[0] != 1:
        raise UnsupportedError(
            call,
            f"does not get [batch, channels] and {rank} axes of a map",
            "keep the batch axis first and do not merge it with others",
        )
    operand = whole(builder, call, operand, (1,))
    return operand, read(builder, call, operand, (1,))


def convolution(builder: GraphBuilder, call: Call, rank: int, transposed: bool = False) -> Carried:
    """A convolution of ``rank`` axes: one parallel edge per kernel tap; groups read only their own channels."""
    weight, bias = parameters(call)
    G = int(call.arguments["groups"])
    _, channels = map_of(builder, call, rank)
    kernel_size = tuple(weight.shape[2:])
    dilation = per_axis(call.arguments["dilation"], rank)
    geometry = Geometry(
        kernel_size=kernel_size,
        stride=per_axis(call.arguments["stride"], rank),
        padding=same_padding(call, rank, kernel_size, dilation),
        dilation=dilation,
        output_padding=per_axis(call.arguments["output_padding"], rank) if transposed else (),
    )
    check_taps_act(call, channels.map_size, geometry, transposed)
    values = weight.value.flatten(2)
    grouped = values.unflatten(0, (G, -1)).transpose(1, 2) if transposed else values.unflatten(0, (G, -1))
    kinds = KINDS["transposed convolution" if transposed else "convolution"]
    nodes = layer(builder, call, channels, kinds, grouped.numpy(), bias, geometry)
    return builder.fresh(nodes, call.shape, (1,))


def embedding(builder: GraphBuilder, call: Call) -> Any:
    """Tokens of the input: a node per word of the vocabulary, and an edge per entry. Constant indices only select."""
    weight, indices = call.arguments["weight"], call.arguments["indices"]
    if isinstance(indices, Constant) and isinstance(weight, Weights):
        return Weights(name=weight.name, value=weight.value[indices.number], chain=weight.chain)
    if not isinstance(weight, Weights) or not isinstance(indices, Carried):
        raise UnsupportedError(call, "looks up something computed", "look up the input in a parameter")
    ids = indices.moved(lambda part: part.unsqueeze(-1))
    return per_example(looked_up)(builder, replace(call, arguments={"indices": ids, "weight": weight}))


def looked_up(builder: GraphBuilder, call: Call) -> Carried:
    """The rows of a weight ``[V, d]`` that an input ``[..., 1]`` names."""
    weight, ids = call.arguments["weight"], call.tensor("indices")
    axis = ids.node.ndim - 1
    channels = read(builder, call, ids, (axis,))
    V, d = weight.shape

    def make() -> Int64[np.ndarray, " V"]:
        nodes = builder.add_nodes(NodeKind.TOKEN, V, call.module)
        rows = Entries.of(np.zeros(1, dtype=np.int64), channels.node, channels.site, channels.chain)
        builder.add_block(EdgeKind.PASS, nodes, rows, map_size=channels.map_size)
        return nodes

    tokens = builder.once(("tokens", V, channels.map_size, channels.entries().key), make)
    read_tokens = Channels(
        node=tokens, site=np.zeros(V, np.int64), chain=np.zeros(V, np.int64), map_size=channels.map_size, shared=False
    )
    values = weight.value.numpy().T[None, :, :, None]
    kinds = (EdgeKind.EMBEDDING, EdgeKind.LINEAR_BIAS)
    nodes = layer(builder, call, read_tokens, kinds, values, None, Geometry())
    return builder.fresh(nodes, (*ids.shape[:-1], d), (axis,))


def on_maps(rule: Any, **arguments: Any) -> Rule:
    """A rule for ``[batch, channels, ...]``: nothing but the first axis may be the batch."""
    return per_example(partial(rule, **arguments), runs_over=lambda call: range(1, len(call.shape)))


def per_axis(numbers: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One number per axis; ATen writes a single one for all."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return numbers * rank if len(numbers) == 1 else numbers


def same_padding(call: Call, rank: int, kernel_size: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
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
    return per_axis(padding, rank)


def check_taps_act(call: Call, map_size: tuple[int, ...], geometry: Geometry, transposed: bool) -> None:
    """Every tap must meet the map somewhere on each axis: weights that meet padding alone never act."""
    for axis, extent in enumerate(map_size):
        here, there = (extent, call.shape[2 + axis]) if transposed else (call.shape[2 + axis], extent)
        places = geometry.stride[axis] * np.arange(here)[:, None]
        places = places + geometry.dilation[axis] * np.arange(geometry.kernel_size[axis]) - geometry.padding[axis]
        if not ((places >= 0) & (places < there)).any(axis=0).all():
            raise UnsupportedError(
                call,
                f"has kernel taps that meet nothing but padding on a map {map_size}, so that their weights never act",
                "take a larger input, a smaller kernel or less padding",
            )


_aten = torch.ops.aten
RANKS = {1: "1d", 2: "2d", 3: "3d"}


def for_ranks(name: str, rule: Any, overload: str = "default", **arguments: Any) -> dict[Any, Rule]:
    """The rule for ATen's one-, two- and three-dimensional operation of a name."""
    return {
        getattr(getattr(_aten, name + suffix), overload): on_maps(rule, rank=rank, **arguments)
        for rank, suffix in RANKS.items()
    }


LAYERS: dict[Any, Rule] = {
    _aten.linear.default: per_example(linear, runs_over=lambda call: (1,)),
    _aten.embedding.default: embedding,
    **for_ranks("conv", convolution),
    **for_ranks("conv", convolution, "padding"),
    _aten.conv_transpose1d.default: on_maps(convolution, rank=1, transposed=True),
    _aten.conv_transpose2d.input: on_maps(convolution, rank=2, transposed=True),
    _aten.conv_transpose3d.input: on_maps(convolution, rank=3, transposed=True),
}
