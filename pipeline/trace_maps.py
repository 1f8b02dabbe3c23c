"""Rules of pooling and resizing, which keep nodes and change their maps.

Reads   calls of the traced program
Writes  steps of chains
"""

from typing import Any

import torch

from pipeline.graph_builder import GraphBuilder, map_extents
from pipeline.graph_kinds import Operation, Step
from pipeline.trace_layers import RANKS, for_ranks, map_of, on_maps, per_axis
from pipeline.traced_tensor import Call, Carried, Rule, UnsupportedError


def pool(builder: GraphBuilder, call: Call, operation: Operation, rank: int) -> Carried:
    """Max or average pooling of ``rank`` axes: the same nodes, a smaller map, one more step in the chain."""
    arguments = call.arguments
    kernel_size = per_axis(arguments["kernel_size"], rank)
    settings = {"kernel_size": kernel_size, "stride": per_axis(arguments["stride"] or kernel_size, rank)}
    settings["padding"] = per_axis(arguments["padding"], rank)
    settings["ceil_mode"] = (int(arguments["ceil_mode"]),)
    if operation == Operation.MAX_POOL:
        settings["dilation"] = per_axis(arguments["dilation"], rank)
    elif arguments.get("divisor_override") is not None:
        raise UnsupportedError(call, "divides by a number of its own", "leave divisor_override unset")
    else:
        settings["count_include_pad"] = (int(arguments["count_include_pad"]),)
    return resized(builder, call, operation, rank, settings)


def adaptive_pool(builder: GraphBuilder, call: Call, operation: Operation, rank: int) -> Carried:
    """To a map of a given size; to one of size one by an average is global average pooling."""
    output_size = per_axis(call.arguments["output_size"], rank)
    output_size = tuple(size or own for size, own in zip(output_size, call.tensor().shape[2:], strict=True))
    if set(output_size) == {1} and operation == Operation.ADAPTIVE_AVERAGE_POOL:
        return resized(builder, call, Operation.GLOBAL_AVERAGE_POOL, rank, {})
    return resized(builder, call, operation, rank, {"output_size": output_size})


def upsample(builder: GraphBuilder, call: Call, operation: Operation, rank: int) -> Carried:
    """To a larger map; scale factors must be the ratio of the sizes. To the size it has, nothing happens."""
    given = call.arguments.get("scale_factors")
    operand = next(iter(call.arguments.values()))
    if operand.shape == call.shape and set(given or [1.0]) == {1.0}:
        return operand
    sizes = call.tensor().shape[2:]
    scaled = None if given is None else tuple(size * scale for size, scale in zip(sizes, given, strict=True))
    if scaled is not None and scaled != call.shape[2:]:
        raise UnsupportedError(call, f"scales {sizes} by {given}", "give sizes, or factors that make whole sizes")
    settings: dict[str, tuple[int, ...]] = {"output_size": call.shape[2:]}
    if operation == Operation.UPSAMPLE_LINEAR:
        settings["align_corners"] = (int(bool(call.arguments["align_corners"])),)
    return resized(builder, call, operation, rank, settings)


def resized(
    builder: GraphBuilder, call: Call, operation: Operation, rank: int, settings: dict[str, tuple[int, ...]]
) -> Carried:
    """The same nodes after a step that changes their maps to that of the call's result."""
    _, channels = map_of(builder, call, rank)
    settings = {**settings, "map_size": map_extents((1, 1, *channels.map_size), (0, 1))}
    numbers = tuple((name, tuple(map(float, settings[name]))) for name in sorted(settings))
    fresh = builder.fresh(channels.node, call.shape, (1,), channels.shared)
    chain = torch.from_numpy(channels.chain).reshape(1, -1, *(1 for _ in range(rank))).expand(call.shape)
    before = Carried(node=fresh.node, site=fresh.site, chain=chain)
    return builder.passed(before, Step(operation=operation, settings=numbers))


def first_of_pair(rule: Any, **arguments: Any) -> Rule:
    """A pooling that also returns where its maxima stand, which nothing here can follow."""
    single = on_maps(rule, **arguments)
    return lambda builder, call: (single(builder, call), None)


_aten = torch.ops.aten

MAPS: dict[Any, Rule] = {
    **for_ranks("max_pool", pool, operation=Operation.MAX_POOL),
    **for_ranks("avg_pool", pool, operation=Operation.AVERAGE_POOL),
    **for_ranks("adaptive_avg_pool", adaptive_pool, operation=Operation.ADAPTIVE_AVERAGE_POOL),
    **{
        getattr(_aten, f"adaptive_max_pool{suffix}").default: first_of_pair(
            adaptive_pool, operation=Operation.ADAPTIVE_MAX_POOL, rank=rank
        )
        for rank, suffix in RANKS.items()
    },
    **for_ranks("upsample_nearest", upsample, "vec", operation=Operation.UPSAMPLE_NEAREST),
    _aten.upsample_linear1d.vec: on_maps(upsample, operation=Operation.UPSAMPLE_LINEAR, rank=1),
    _aten.upsample_bilinear2d.vec: on_maps(upsample, operation=Operation.UPSAMPLE_LINEAR, rank=2),
    _aten.upsample_trilinear3d.vec: on_maps(upsample, operation=Operation.UPSAMPLE_LINEAR, rank=3),
}
