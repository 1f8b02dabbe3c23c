"""Copies of modules that have run: they may keep tensors that torch does not copy.

Reads   any ``nn.Module``
Writes  another, with nothing in common
"""

import copy
from typing import Any

from torch import Tensor, nn


def copied(module: nn.Module) -> nn.Module:
    """A deep copy; activations that a module has kept as attributes are copied as they are, without their gradients.

    Raises:
        ValueError: the module holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for kept in vars(part).values():
            if isinstance(kept, Tensor) and not kept.is_leaf:
                memo[id(kept)] = kept.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # a part of anybody's module
        reason = str(error).strip().split("  ")[0]
        raise ValueError(
            f"{type(module).__name__} cannot be copied: {reason}; trace it before it has run, or without what it keeps"
        ) from error
