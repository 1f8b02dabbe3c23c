"""Does a module treat each example of a batch as it would alone? A parameter graph describes a function of one example.

Reads   an ``nn.Module`` and an example of its input
Writes  nothing; the module is copied and left as it was
"""

from math import prod

import torch
from torch import Tensor, nn

from pipeline.exported_program import plain_attention
from pipeline.module_copies import copied
from pipeline.traced_tensor import NUM_EXAMPLES

MOST_EXAMPLES = 9
"""The largest batch that is tried."""
BATCH_TOLERANCE = 1e-3
"""What float32 may differ by between sizes of a batch, relative to the largest output."""


def check_batch(module: nn.Module, example: Tensor) -> None:
    """Refuse a module that computes something else for one example than for the same example among others.

    Args:
        module: one that returns a tensor.
        example: ``[batch, ...]``; only the shape of its first example and its dtype matter, and whole numbers are kept.

    Raises:
        ValueError: it does, or fails on some sizes of the batch.
    """
    frozen = copied(module).cpu().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in frozen.parameters():  # one that is zero, or not finite, would hide what depends on the batch
        scale = max(1, prod(parameter.shape[1:])) ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    several = example[:1].repeat(MOST_EXAMPLES, *(1 for _ in example.shape[1:]))
    if example.is_floating_point():
        several = torch.randn(several.shape, generator=generator, dtype=example.dtype)

    def outputs(inputs: Tensor) -> Tensor:
        with torch.no_grad(), plain_attention():
            return copied(frozen)(inputs)

    try:
        found = [outputs(several[:size]) for size in (1, NUM_EXAMPLES, MOST_EXAMPLES)]
    except Exception as error:
        raise ValueError(f"{type(module).__name__} fails on some sizes of the batch: {error}") from error
    alone, *among = found  # squeezed, one example may have lost its batch axis
    first = [alone.double().flatten(), *(output[0].double().flatten() for output in among)]
    if any(output.shape != first[0].shape for output in first):
        raise ValueError(
            f"{type(module).__name__} returns shape {tuple(alone.shape)} for an example alone, and "
            f"{tuple(among[-1].shape)} for {MOST_EXAMPLES}; keep the batch axis first, whatever its size"
        )
    tolerance = BATCH_TOLERANCE * max(float(torch.nan_to_num(output, 0, 0, 0).abs().max()) for output in first)
    if not all(torch.allclose(output, first[0], rtol=0, atol=tolerance, equal_nan=True) for output in first):
        raise ValueError(
            f"{type(module).__name__} computes something else for an example alone than for the same example in a "
            f"batch of {NUM_EXAMPLES} or {MOST_EXAMPLES}; a parameter graph describes a function of one example"
        )
