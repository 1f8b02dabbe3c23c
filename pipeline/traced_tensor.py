"""What tracing knows of a tensor, and of an operation on tensors; the words `pipeline.trace_operations` is written in.

Reads   nothing
Writes  nothing

A network is traced on a batch of two examples whose elements differ in identity: a module that looks at the batch axis
(merges it, reverses it, takes its first example) computes no function of one example, and is refused where they turn
out mixed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.value_layout import TensorSlot

NUM_EXAMPLES = 2
NEXT_EXAMPLE = 2**40
"""An element of the second example carries its node plus this."""
SITES_PER_GRID = 2**32
"""While tracing, a site is ``grid * SITES_PER_GRID + position``; a template numbers only the grids it uses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """A tensor computed from the input: three int64 tensors of its full shape."""

    node: Tensor
    """Node each element belongs to; the second example's are ``NEXT_EXAMPLE`` further."""
    site: Tensor
    """Position in its map, as grid * SITES_PER_GRID + row-major index; 0 where a node has one element."""
    chain: Tensor
    """Operations the element has passed since it left its node, as an index into ``GraphBuilder.chains``."""


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A tensor that is neither computed from the input nor a floating-point tensor of the state dict."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Channels:
    """A tensor read channel by channel: each channel is one node, passed through one chain."""

    node: Int64[np.ndarray, " num_channels"]
    site: Int64[np.ndarray, " num_channels"]
    """The one position that is read; 0 where the channel is a whole map."""
    chain: Int64[np.ndarray, " num_channels"]
    map_size: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One operation of the traced program."""

    operation: str
    """Its ATen name: ``aten.conv2d.default``."""
    module: str
    """Path of the module that calls it; ``""`` is the traced module itself."""
    arguments: dict[str, Any]
    """By the names of the ATen schema; tensors are `Carried`, `TensorSlot` or `Constant`."""
    shape: tuple[int, ...]
    """Of its result."""


class UnsupportedError(ValueError):
    """An operation or wiring that has no exact parameter graph."""

    def __init__(self, call: Call, reason: str, remedy: str) -> None:
        shapes = [
            f"{name} {tuple(value.node.shape) if isinstance(value, Carried) else value.shape}"
            for name, values in call.arguments.items()
            for value in pytree.tree_leaves(values)
            if isinstance(value, Carried | TensorSlot | Constant)
        ]
        where = f"{call.operation} in module {call.module or '(root)'!r}"
        super().__init__(f"{where} ({', '.join(shapes) or 'no tensors'} -> {call.shape}) {reason}; {remedy}")
