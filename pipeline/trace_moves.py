"""Rules of operations that move, repeat or drop elements: executed on node, site and chain as they stand.

Reads   calls of the traced program
Writes  nothing but the `Carried`, `Weights` or `Constant` of the result
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.graph_builder import GraphBuilder
from pipeline.node_operations import carried
from pipeline.traced_tensor import ZERO, Call, Carried, Constant, Rule, UnsupportedError, Weights


def move(builder: GraphBuilder, call: Call, operation: Callable[..., Any]) -> Any:
    """Execute the operation on each part; parameters stay parameters unless they are joined with activations."""
    chosen_by = pytree.tree_leaves([call.arguments.get(name) for name in ("index", "indices")])
    if any(isinstance(leaf, Carried | Weights) for leaf in chosen_by):
        raise UnsupportedError(
            call, "chooses by a tensor that depends on the input", "look rows up with torch.nn.functional.embedding"
        )
    leaves = [leaf for leaf in pytree.tree_leaves(call.arguments) if isinstance(leaf, Carried | Weights | Constant)]
    moved = [leaf for leaf in leaves if not _is_index(leaf)]
    if len(moved) > 1 and not all(isinstance(leaf, Weights) for leaf in moved):
        arguments = pytree.tree_map(
            lambda leaf: carried_or_zero(builder, call, leaf) if _is_one_of(leaf, moved) else leaf, call.arguments
        )
    else:
        arguments = call.arguments
    parameters = [leaf for leaf in moved if isinstance(leaf, Weights)]
    if len(parameters) == len(moved):
        weights = parameters[0]
        if len({leaf.chain for leaf in parameters}) > 1:
            raise UnsupportedError(call, "joins parameters that were scaled differently", "join them before scaling")
        return _results(
            _executed(operation, arguments, lambda leaf: leaf.value if isinstance(leaf, Weights) else leaf),
            lambda value: Weights(name=weights.name, value=value, chain=weights.chain),
        )
    parts = [
        _executed(operation, arguments, lambda leaf, n=name: getattr(leaf, n) if isinstance(leaf, Carried) else leaf)
        for name in ("node", "site", "chain")
    ]
    if isinstance(parts[0], Tensor):
        return Carried(node=parts[0], site=parts[1], chain=parts[2])
    return [Carried(node=node, site=site, chain=chain) for node, site, chain in zip(*parts, strict=True)]


def carried_or_zero(builder: GraphBuilder, call: Call, leaf: Carried | Weights | Constant) -> Carried:
    """An operand as an activation; zeros as padding."""
    if isinstance(leaf, Constant) and not bool(leaf.number.any()):
        nothing = torch.zeros(leaf.shape, dtype=torch.int64)
        return Carried(node=nothing + ZERO, site=nothing, chain=nothing)
    return carried(builder, call, leaf)


def dropped(builder: GraphBuilder, call: Call) -> Any:
    """Dropout, which does nothing in eval mode."""
    if call.arguments["train"] and call.arguments["p"]:
        raise UnsupportedError(call, "is random", "a parameter graph describes one function; remove the randomness")
    return identity(builder, call)


def padded(builder: GraphBuilder, call: Call) -> Carried:
    """Padding with zeros, or with elements of the map itself."""
    mode, number = call.arguments["mode"], call.arguments["value"]
    pad, operand = call.arguments["pad"], call.tensor()
    if mode != "constant":
        return operand.moved(lambda part: torch.nn.functional.pad(part.double(), pad, mode=mode).to(torch.int64))
    if number:
        raise UnsupportedError(
            call, f"pads with {number}", "only padding with zeros, or with the map itself, has a rule"
        )
    return constant_padded(operand, pad)


def constant_padded(operand: Carried, pad: list[int]) -> Carried:
    """Zeros around a tensor."""
    node, site, chain = (
        torch.nn.functional.pad(part, pad, value=fill)
        for part, fill in ((operand.node, ZERO), (operand.site, 0), (operand.chain, 0))
    )
    return Carried(node=node, site=site, chain=chain)


def pad_with_number(builder: GraphBuilder, call: Call) -> Carried:
    """``constant_pad_nd``."""
    if call.arguments["value"]:
        raise UnsupportedError(call, f"pads with {call.arguments['value']}", "only padding with zeros has a rule")
    return constant_padded(call.tensor(), call.arguments["pad"])


def identity(builder: GraphBuilder, call: Call) -> Any:
    """Dropout in eval mode, copies, casts to the same dtype: nothing happens."""
    return next(iter(call.arguments.values()))


def filled(builder: GraphBuilder, call: Call) -> Constant:
    """A tensor of one number, as large as another."""
    return Constant(number=torch.full(call.shape, call.arguments["fill_value"]))


def copied(builder: GraphBuilder, call: Call) -> Carried:
    """What is written into a part of a tensor, in the shape of that part."""
    return carried_or_zero(builder, call, call.arguments["src"]).moved(lambda part: part.expand(call.shape))


def folded(builder: GraphBuilder, call: Call) -> Any:
    """Patches put back where they were cut; they may not overlap, or they would be summed."""
    names = ("output_size", "kernel_size", "dilation", "padding", "stride")
    size, kernel, dilation, padding, stride = (call.arguments[name] for name in names)
    if list(kernel) != list(stride) or any(padding) or set(dilation) != {1}:
        raise UnsupportedError(call, "sums patches that overlap", "fold patches with a stride of their size")
    if any(extent % step for extent, step in zip(size, stride, strict=True)):
        raise UnsupportedError(call, f"leaves a part of {size} empty", "take a size that patches fill")
    return move(builder, call, _as_numbers(_aten.col2im.default))


def _executed(operation: Callable[..., Any], arguments: dict[str, Any], part: Callable[[Any], Any]) -> Any:
    def plain(leaf: Any) -> Any:
        return leaf.number if isinstance(leaf, Constant) else part(leaf)

    return operation(**pytree.tree_map(plain, arguments))


def _results(results: Any, wrap: Callable[[Tensor], Any]) -> Any:
    return wrap(results) if isinstance(results, Tensor) else [wrap(result) for result in results]


def _is_index(leaf: Any) -> bool:
    """Whether a tensor says where elements go, instead of being moved itself."""
    return isinstance(leaf, Constant) and not leaf.number.is_floating_point()


def _is_one_of(leaf: Any, leaves: list[Any]) -> bool:
    return any(leaf is other for other in leaves)


def _as_numbers(operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that torch has for floating-point numbers only; node numbers are exact in float64."""

    def on_doubles(*, self: Tensor, **arguments: Any) -> Tensor:
        return operation(self.double(), **arguments).to(torch.int64)

    return on_doubles


_aten = torch.ops.aten

MOVES: dict[Any, Rule] = {
    **{
        operation: partial(move, operation=operation)
        for operation in (
            _aten.reshape.default,
            _aten.flatten.using_ints,
            _aten.unflatten.int,
            _aten.permute.default,
            _aten.movedim.int,
            _aten.transpose.int,
            _aten.swapaxes.default,
            _aten.t.default,
            _aten.squeeze.default,
            _aten.squeeze.dim,
            _aten.squeeze.dims,
            _aten.unsqueeze.default,
            _aten.select.int,
            _aten.slice.Tensor,
            _aten.narrow.default,
            _aten.split.Tensor,
            _aten.split_with_sizes.default,
            _aten.chunk.default,
            _aten.unbind.int,
            _aten.cat.default,
            _aten.stack.default,
            _aten.expand.default,
            _aten.expand_as.default,
            _aten.repeat.default,
            _aten.repeat_interleave.self_int,
            _aten.tile.default,
            _aten.flip.default,
            _aten.roll.default,
            _aten.rot90.default,
            _aten.index_select.default,
            _aten.index.Tensor,
            _aten.gather.default,
            _aten.slice_scatter.default,
            _aten.select_scatter.default,
            _aten.pixel_shuffle.default,
            _aten.pixel_unshuffle.default,
            _aten.channel_shuffle.default,
            _aten.unfold.default,
        )
    },
    **dict.fromkeys(
        (_aten.view.default, _aten._unsafe_view.default),
        partial(move, operation=lambda self, size: self.reshape(size)),  # our strides may differ from the module's
    ),
    **dict.fromkeys(
        (_aten.clone.default, _aten.contiguous.default, _aten.alias.default, _aten.detach.default), identity
    ),
    _aten.dropout.default: dropped,
    _aten.im2col.default: partial(move, operation=_as_numbers(_aten.im2col.default)),
    _aten.col2im.default: folded,
    _aten.copy.default: copied,
    _aten.full_like.default: filled,
    _aten.pad.default: padded,
    _aten.constant_pad_nd.default: pad_with_number,
}
