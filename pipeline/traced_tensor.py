"""What tracing knows of a tensor, and of an operation on tensors; the words the rules of tracing are written in.

Reads   nothing
Writes  nothing

A network is traced on a batch of two examples whose elements differ in identity. Moving elements around is followed
wherever it leads; before anything is computed, `per_example` takes the two apart, wherever the batch lies by then, and
refuses a module that has mixed them: it computes no function of one example.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.value_layout import TensorSlot

NUM_EXAMPLES = 2
SECOND = 2**40
"""An element of the second example carries its node plus this."""
SHARED = 2**41
"""An element that is computed from parameters alone, and so the same in both examples, carries its node plus this."""
ZERO = -1
"""The node of an element that is zero: padding."""
SITES_PER_GRID = 2**32
"""While tracing, a position is ``grid * SITES_PER_GRID + position``; a template numbers only the grids it uses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """A tensor computed from the input: three int64 tensors of its full shape."""

    node: Tensor
    """Node each element belongs to, with the marks above."""
    site: Tensor
    """Position in its map, as grid * SITES_PER_GRID + row-major index; 0 where a node has one element."""
    chain: Tensor
    """Operations the element has passed since it left its node, as an index into ``GraphBuilder.chains``."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.node.shape)

    def moved(self, operation: Callable[[Tensor], Tensor]) -> "Carried":
        """The same elements elsewhere."""
        return Carried(node=operation(self.node), site=operation(self.site), chain=operation(self.chain))


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Elements of the state dict's floating-point tensors, as they are, wherever they were moved."""

    name: str
    value: Tensor
    """Int64: position in ``values`` of each element."""
    chain: int = 0
    """What a summand passes before it is added, as an index into ``GraphBuilder.chains``: a scale, or nothing."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @staticmethod
    def of(slot: TensorSlot) -> "Weights":
        """A whole tensor of the state dict."""
        numbers = torch.arange(slot.offset, slot.offset + slot.size).reshape(slot.shape)
        return Weights(name=slot.names[0], value=numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A tensor that depends neither on the input nor on the floating-point tensors of the state dict."""

    number: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.number.shape)


Operand = Carried | Weights | Constant


@dataclass(frozen=True, kw_only=True)
class Call:
    """One operation of the traced program."""

    operation: str
    """Its ATen name: ``aten.conv2d.default``."""
    module: str
    """Path of the module that calls it; ``""`` is the traced module itself."""
    arguments: dict[str, Any]
    """By the names of the ATen schema; tensors are `Carried`, `Weights` or `Constant`."""
    shape: tuple[int, ...]
    """Of its result."""

    def tensor(self, name: str = "") -> Carried:
        """An argument, the first if no name is given, which must be computed from the input."""
        value = self.arguments[name] if name else next(iter(self.arguments.values()))
        if not isinstance(value, Carried):
            raise UnsupportedError(
                self,
                "acts on a parameter or constant, not on an activation",
                "compute it before tracing and store the result as the parameter, as "
                "torch.nn.utils.parametrize.remove_parametrizations does",
            )
        return value


class UnsupportedError(ValueError):
    """An operation or wiring that has no exact parameter graph."""

    def __init__(self, call: Call, reason: str, remedy: str) -> None:
        shapes = [
            f"{name} {value.shape}"
            for name, values in call.arguments.items()
            for value in pytree.tree_leaves(values)
            if isinstance(value, Carried | Weights | Constant)
        ]
        where = f"{call.operation} in module {call.module or '(root)'!r}"
        super().__init__(f"{where} ({', '.join(shapes) or 'no tensors'} -> {call.shape}) {reason}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class BatchAxis:
    """Where the two examples lie in a tensor: on an axis, counted from the last, in runs of some elements."""

    from_last: int
    run: int
    """1 for a batch axis of its own; longer where it was merged with axes after it."""

    def split(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Both examples, each with as many axes as the tensor."""
        axis = tensor.ndim - self.from_last
        apart = tensor.unflatten(axis, (-1, NUM_EXAMPLES, self.run))
        first, second = (apart.select(axis + 1, example).flatten(axis, axis + 1) for example in range(NUM_EXAMPLES))
        return first, second

    def join(self, first: Tensor, in_second: Callable[[Tensor], Tensor]) -> Tensor:
        """The inverse of `split`: both examples, the second being a function of the first, element by element."""
        axis = first.ndim - self.from_last
        apart = without_copies(first, but=axis).unflatten(axis, (-1, self.run))
        joined = torch.stack([apart, in_second(apart)], dim=axis + 1).flatten(axis, axis + 2)
        return joined.expand(*first.shape[:axis], -1, *first.shape[axis + 1 :])


def without_copies(tensor: Tensor, but: int = -1) -> Tensor:
    """The tensor with one element on every axis it is merely expanded along; maps of large networks stay small so."""
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0 and axis != but and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


Rule = Callable[[Any, Call], Any]
"""Of an operation: takes the graph under construction and the call, and returns what the result is."""


def per_example(
    rule: Rule, runs_over: Callable[[Call], Iterable[int]] = lambda call: (), broadcasts: int | None = None
) -> Rule:
    """A rule for tensors of both examples, from one for tensors of the first.

    The result has its batch axis as far from the last axis as the arguments have.

    Args:
        runs_over: axes, counted from the last (1), that the operation combines the elements of; the batch may not be
            one.
        broadcasts: parameters and constants are broadcast against the arguments, so that they may have been repeated
            for every example too, on an axis this far from the last or farther.
    """

    def for_both(builder: Any, call: Call) -> Any:
        leaves = [leaf for leaf in pytree.tree_leaves(call.arguments) if isinstance(leaf, Carried)]
        found: dict[Carried, BatchAxis] = {}
        for leaf in leaves:
            if (axis := _batch_axis(call, leaf)) is not None:
                found[leaf] = axis
        axes = set(found.values())
        if not axes:
            repeated = _repeated_axis(call, runs_over)
            return rule(builder, call) if repeated is None else _once_for_both(rule, builder, call, repeated)
        if len(axes) > 1:
            raise _mixed(call)
        axis = axes.pop()
        place = len(call.shape) - axis.from_last
        sizes = {leaf.shape[-axis.from_last] for leaf in found}
        if axis.from_last in runs_over(call) or place < 0 or {call.shape[place]} != sizes:
            raise _mixed(call)

        def first(leaf: Any) -> Any:
            if isinstance(leaf, Carried) and axis.from_last <= len(leaf.shape):
                repeated = leaf in found or leaf.shape[-axis.from_last] in sizes
                return _first(call, leaf, axis) if repeated else leaf
            repeated = broadcasts is not None and broadcasts <= axis.from_last <= len(getattr(leaf, "shape", ()))
            if repeated and isinstance(leaf, Weights | Constant) and leaf.shape[-axis.from_last] in sizes:
                return _first_of_fixed(call, leaf, axis)
            return leaf

        shape = tuple(size // NUM_EXAMPLES if here == place else size for here, size in enumerate(call.shape))
        arguments = pytree.tree_map(first, call.arguments)
        result = rule(builder, replace(call, arguments=arguments, shape=shape))
        return Carried(
            node=axis.join(result.node, _in_second),
            site=axis.join(result.site, torch.clone),
            chain=axis.join(result.chain, torch.clone),
        )

    return for_both


def _repeated_axis(call: Call, runs_over: Callable[[Call], Iterable[int]]) -> int | None:
    """An axis along which parameters, computed from nothing else, were repeated for every example."""
    combined = set(runs_over(call))
    operands = [leaf for leaf in pytree.tree_leaves(call.arguments) if isinstance(leaf, Carried | Weights | Constant)]
    operands = [leaf for leaf in operands if len(leaf.shape) == len(call.shape)]
    for axis, size in enumerate(call.shape):
        repeated = [leaf for leaf in operands if leaf.shape[axis] != 1]
        if size == NUM_EXAMPLES and len(call.shape) - axis not in combined and len(call.shape) > 2 and repeated:
            parts = [part.expand(leaf.shape) for leaf in repeated for part in _parts(leaf)]
            if all((part == part.narrow(axis, 0, 1)).all() for part in parts):
                return axis
    return None


def _once_for_both(rule: Rule, builder: Any, call: Call, axis: int) -> Carried:
    """What a rule makes of the first of the examples that are the same, for both."""

    def first(leaf: Any) -> Any:
        if not isinstance(leaf, Carried | Weights | Constant) or len(leaf.shape) != len(call.shape):
            return leaf
        if isinstance(leaf, Carried):
            return leaf.moved(lambda part: part.narrow(axis, 0, 1))
        if isinstance(leaf, Weights):
            return replace(leaf, value=leaf.value.narrow(axis, 0, 1))
        return Constant(number=leaf.number.narrow(axis, 0, 1))

    shape = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    result = rule(builder, replace(call, arguments=pytree.tree_map(first, call.arguments), shape=shape))
    return result.moved(lambda part: part.expand(call.shape))


def _parts(leaf: Carried | Weights | Constant) -> list[Tensor]:
    if isinstance(leaf, Carried):
        return [leaf.node, leaf.site, leaf.chain]
    return [leaf.value if isinstance(leaf, Weights) else leaf.number]


def _in_second(node: Tensor) -> Tensor:
    """The nodes of the second example, given those of the first."""
    return torch.where((node == ZERO) | (node >= SHARED), node, node + SECOND)


def _batch_axis(call: Call, carried: Carried) -> BatchAxis | None:
    """Where the examples lie; none in a tensor that is the same for both."""
    depends = (carried.node != ZERO) & (carried.node < SHARED)
    if not depends.any():
        return None
    is_second = carried.node >= SECOND
    for axis, size in enumerate(carried.shape):
        runs = [run for run in range(1, size // NUM_EXAMPLES + 1) if size % (NUM_EXAMPLES * run) == 0]
        for run in runs:
            column = (torch.arange(size) // run % NUM_EXAMPLES == 1).reshape(
                -1, *(1 for _ in carried.shape[axis + 1 :])
            )
            if not (depends & (is_second != column)).any():
                return BatchAxis(from_last=carried.node.ndim - axis, run=run)
    raise _mixed(call)


def _first(call: Call, carried: Carried, axis: BatchAxis) -> Carried:
    """The first example; the second must be the same in its own nodes."""
    if carried.shape[carried.node.ndim - axis.from_last] == 1:  # the same for both, to be broadcast
        return carried
    (node, second_node), (site, second_site), (chain, second_chain) = (
        axis.split(part) for part in (carried.node, carried.site, carried.chain)
    )
    alike = torch.equal(_in_second(node), second_node) and torch.equal(site, second_site)
    if not (alike and torch.equal(chain, second_chain)):
        raise _mixed(call)
    return Carried(node=node, site=site, chain=chain)


def _first_of_fixed(call: Call, leaf: Weights | Constant, axis: BatchAxis) -> Weights | Constant:
    """A parameter or constant without the copies for the second example."""
    first, second = axis.split(leaf.value if isinstance(leaf, Weights) else leaf.number)
    if not torch.equal(first, second):
        raise _mixed(call)
    return replace(leaf, value=first) if isinstance(leaf, Weights) else Constant(number=first)


def _mixed(call: Call) -> UnsupportedError:
    return UnsupportedError(
        call,
        "does not find the examples of the batch one by one along an axis",
        "keep the examples of a batch apart (tracing uses a batch of two)",
    )
