"""Permutations of values, three ways: products of permutations of the axes of tensors, what a network computes with
them, and what the symmetry group of its template does."""

from itertools import permutations
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from pipeline.automorphisms import permute_values
from pipeline.parameter_graph import GraphTemplate
from pipeline.symmetry import TOLERANCE, random_values, run
from pipeline.symmetry_group import symmetry_group

AT_ONCE = 2**12
NUM_INPUTS = 41


def axis_products(
    template: GraphTemplate, most: int, still: tuple[str, ...] = ()
) -> Int64[np.ndarray, "products num_values"]:
    """Every product of permutations of the axes of all tensors, as positions in ``values``; of too many, some.

    Tensors named in ``still`` stay as they are.
    """
    axes = [
        [tuple(range(size))] if slot.names[0] in still else list(permutations(range(size)))
        for slot in template.tensors
        for size in slot.shape
    ]
    total = prod(map(len, axes))
    chosen = np.arange(total) if total <= most else np.random.default_rng(0).integers(0, total, most)
    places = np.unravel_index(chosen, [len(orders) for orders in axes]) if axes else ()
    table, axis = np.empty((len(chosen), template.num_values), dtype=np.int64), 0
    for slot in template.tensors:
        numbers = np.zeros((len(chosen), *slot.shape), dtype=np.int64)
        for place, size in enumerate(slot.shape):
            orders = np.array(axes[axis], dtype=np.int64)[places[axis]]
            stride = prod(slot.shape[place + 1 :])
            numbers += stride * orders.reshape(-1, *(size if here == place else 1 for here in range(len(slot.shape))))
            axis += 1
        table[:, slot.place] = slot.offset + numbers.reshape(len(chosen), -1)
    return table


def preserving(
    network: nn.Module, template: GraphTemplate, shape: tuple[int, ...], moves: Int64[np.ndarray, "n num_values"]
) -> Bool[np.ndarray, " n"]:
    """Which permutations of random values leave the outputs of a network in float64 unchanged."""
    rng = np.random.default_rng(1)
    values = random_values(template, rng)
    inputs = torch.from_numpy(rng.standard_normal((NUM_INPUTS, *shape)))
    expected = run(network, template, values, inputs)

    def outputs(permuted: Tensor) -> Tensor:
        tensors = {name: permuted[slot.place].reshape(slot.shape) for slot in template.tensors for name in slot.names}
        return torch.func.functional_call(network, tensors, (inputs,))

    many = torch.vmap(outputs)
    found = [many(values[torch.from_numpy(some)]) for some in np.array_split(moves, len(moves) // AT_ONCE + 1)]
    change = (torch.cat(found) - expected).abs().flatten(1).amax(dim=1)
    return (change < TOLERANCE * expected.abs().max()).numpy()


def generated(template: GraphTemplate, most: int | None = None) -> set[bytes]:
    """All products of the generators of the symmetry group, as permutations of the values; or the first ``most``."""
    generators = [permute_values(template, relabelling) for relabelling in symmetry_group(template).generators]
    found = {np.arange(template.num_values).tobytes()}
    newest = list(found)
    while newest and (most is None or len(found) < most):
        products = {
            np.frombuffer(before, dtype=np.int64)[generator].tobytes() for before in newest for generator in generators
        }
        newest = list(products - found)
        found |= products
    return found
