"""Where the floating-point tensors of a state dict lie in ``values``, and the two ways between them.

Reads   a module           `lay_out`
        a state dict       `values_from`
Writes  a state dict       `state_dict_from`, the exact inverse: bit for bit, NaN and -0.0 included

``values`` are the float32 tensors of the state dict in its own order, each flattened row-major; a tied tensor lies
there once, at its first name. Integer and Boolean tensors (indices, masks) are no values but part of the template, as
they were when the module was traced. Single numbers are counters, as batch norms have them: they may have gone on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

INTEGER_DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}


@dataclass(frozen=True, kw_only=True)
class TensorSlot:
    """Where a floating-point tensor of the state dict lies in ``values``."""

    names: tuple[str, ...]
    """Its name in the state dict; further names where the tensor is tied."""
    shape: tuple[int, ...]
    offset: int
    """First position in ``values``; the tensor fills ``prod(shape)`` positions in row-major order."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def place(self) -> slice:
        """Its part of ``values``."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True, kw_only=True)
class IntegerTensor:
    """An integer or Boolean tensor of the state dict, restored as it was when the template was made."""

    name: str
    dtype: str
    """One of ``INTEGER_DTYPES``."""
    shape: tuple[int, ...]
    numbers: tuple[int, ...]
    """Its elements in row-major order."""


def lay_out(module: nn.Module) -> tuple[tuple[TensorSlot, ...], tuple[IntegerTensor, ...]]:
    """The floating-point and the integer tensors of a module's state dict, each in its order.

    Raises:
        ValueError: an entry is no tensor with values, is neither float32 nor integer, or overlaps another in memory.
    """
    names: dict[tuple[object, ...], list[str]] = {}
    tensors: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(
                f"{name}: found {type(tensor).__name__} in the state dict; expected a dense tensor with values: "
                "run the module once if it is lazy, and keep anything else out of its state dict"
            )
        place = _place(tensor)
        names.setdefault(place, []).append(name)
        tensors[place] = tensor
    _check_apart({names[place][0]: tensor for place, tensor in tensors.items()})
    slots: list[TensorSlot] = []
    integers: list[IntegerTensor] = []
    for place, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.float32:
            offset = slots[-1].offset + slots[-1].size if slots else 0
            slots.append(TensorSlot(names=tuple(names[place]), shape=tuple(tensor.shape), offset=offset))
        elif dtype in INTEGER_DTYPES:
            numbers = tuple(int(number) for number in tensor.flatten().tolist())
            integers += [
                IntegerTensor(name=name, dtype=dtype, shape=tuple(tensor.shape), numbers=numbers)
                for name in names[place]
            ]
        else:
            raise ValueError(
                f"{names[place][0]}: found dtype {dtype}; values are float32, so cast the module first if that loses "
                "nothing: module.float()"
            )
    return tuple(slots), tuple(integers)


def values_from(
    state_dict: Mapping[str, Tensor], tensors: Sequence[TensorSlot], integers: Sequence[IntegerTensor]
) -> Float32[np.ndarray, " num_values"]:
    """The values of a state dict of this layout.

    Raises:
        ValueError: a name is missing or unknown, a tensor has another shape or dtype, tied names differ in numbers, or
            whole numbers are not those of the template.
    """
    known = {name for slot in tensors for name in slot.names} | {integer.name for integer in integers}
    if unknown := [name for name in state_dict if name not in known]:
        raise ValueError(f"{unknown[0]}: the template has no such tensor; if the architecture changed, trace it again")
    values = np.empty(sum(slot.size for slot in tensors), dtype=np.float32)
    for slot in tensors:
        target = values[slot.place]
        target[:] = _numbers(state_dict, slot, slot.names[0])
        for tied in slot.names[1:]:
            if not np.array_equal(_numbers(state_dict, slot, tied).view(np.int32), target.view(np.int32)):
                raise ValueError(
                    f"{tied}: its numbers differ from those of {slot.names[0]}, but the template has the two tied; "
                    "if they are no longer, trace the module again"
                )
    for integer in integers:
        found = state_dict.get(integer.name)
        if found is not None and integer.shape and tuple(found.flatten().tolist()) != integer.numbers:
            raise ValueError(
                f"{integer.name}: its numbers are not those that the module had when it was traced, and they are part "
                "of the template; trace this module again"
            )
    return values


def state_dict_from(
    values: Float32[np.ndarray, " num_values"], tensors: Sequence[TensorSlot], integers: Sequence[IntegerTensor]
) -> dict[str, Tensor]:
    """The state dict these values came from; tied names share one tensor. Nothing shares memory with ``values``."""
    state_dict: dict[str, Tensor] = {}
    for slot in tensors:
        numbers = values[slot.place].copy()
        state_dict |= dict.fromkeys(slot.names, torch.from_numpy(numbers).reshape(slot.shape))
    for integer in integers:
        numbers = torch.tensor(integer.numbers, dtype=INTEGER_DTYPES[integer.dtype])
        state_dict[integer.name] = numbers.reshape(integer.shape)
    return state_dict


def _numbers(state_dict: Mapping[str, Tensor], slot: TensorSlot, name: str) -> Float32[np.ndarray, " size"]:
    """One tensor of the state dict, flattened."""
    if name not in state_dict:
        raise ValueError(f"{name}: not in the state dict; the template expects a tensor of shape {slot.shape}")
    tensor = state_dict[name]
    if tuple(tensor.shape) != slot.shape or tensor.dtype != torch.float32:
        raise ValueError(
            f"{name}: found shape {tuple(tensor.shape)}, {tensor.dtype}; the template expects {slot.shape}, "
            "torch.float32; if the architecture changed, trace it again"
        )
    return tensor.detach().cpu().numpy().reshape(-1)


def _place(tensor: Tensor) -> tuple[object, ...]:
    """The same for two tensors exactly when they are one: the same numbers in the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _check_apart(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that share some memory without being one: their values could not be changed one by one."""
    extents = sorted(
        (str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + _num_bytes(tensor), name)
        for name, tensor in tensors.items()
        if tensor.numel()
    )
    for (device, _, end, name), (next_device, start, _, next_name) in pairwise(extents):
        if device == next_device and start < end:
            raise ValueError(
                f"{name} and {next_name} share memory without being the same tensor; tie whole tensors, or clone one"
            )


def _num_bytes(tensor: Tensor) -> int:
    """From the first to the last element, whatever lies between."""
    steps = ((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (sum(steps) + 1) * tensor.element_size()
