"""The function a parameter graph computes, read from the graph alone: what the features of nodes and edges mean.

Reads   a `GraphTemplate`, values and inputs
Writes  outputs

Slow and plain. Nothing here looks at the module that was traced, so where both give the same outputs, the graph says
all that decides the function: the wiring, every value's place, taps, strides, positions and the order of operations
(`pipeline.symmetry`).
"""

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional

from pipeline.parameter_graph import Block, Chain, EdgeKind, GraphTemplate, NodeKind, Operation, Step

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
ADAPTIVE_POOLS = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}

Maps = dict[int, Tensor]
"""What each node computes: ``[n, 1, ...]`` with its map, if it has one, in the last axes."""


def graph_function(
    template: GraphTemplate,
    values: Float64[Tensor, " num_values"],
    inputs: Float64[Tensor, "n num_inputs ..."],
) -> Float64[Tensor, "n num_outputs ..."]:
    """The outputs of the network that a template and values describe, for ``n`` inputs."""
    maps: Maps = {}
    for node, kind in enumerate(template.node_kind.tolist()):
        if kind == NodeKind.INPUT:
            maps[node] = inputs[:, len(maps), None]
    for block in template.blocks:
        for node, contribution in _contributions(block, template, values, maps):
            maps[node] = maps[node] + contribution if node in maps else contribution
    outputs = torch.cat([maps[int(node)] for node in template.outputs], dim=1)
    return _after_chains(template, outputs)


def _contributions(
    block: Block, template: GraphTemplate, values: Float64[Tensor, " num_values"], maps: Maps
) -> list[tuple[int, Tensor]]:
    """What the edges of one block add to each of its targets."""
    weights = values[torch.from_numpy(block.value_index)]
    targets, sources, sites, chains = (
        column.reshape(block.num_groups, -1).tolist()
        for column in (block.targets, block.sources, block.source_site, block.source_chain)
    )
    sums: list[tuple[int, Tensor]] = []
    for group in range(block.num_groups):
        if block.kind in (EdgeKind.LINEAR_BIAS, EdgeKind.CONV_BIAS):
            read = torch.ones(1, 1, dtype=torch.float64)
        else:
            reads = zip(sources[group], sites[group], chains[group], strict=True)
            read = torch.cat(
                [_read(template, maps[node], site, template.chains[chain]) for node, site, chain in reads], dim=1
            )
        result = _apply(block, weights[group], read)
        sums += [(target, result[:, [place]]) for place, target in enumerate(targets[group])]
    return sums


def _read(template: GraphTemplate, carried: Tensor, site: int, chain: Chain) -> Tensor:
    """One element of a source, or its whole map, after the operations of a chain."""
    for step in chain:
        carried = _after(step, carried)
    if site == 0:
        return carried
    position = [index for index in template.site_position[site].tolist() if index >= 0]
    return carried[(slice(None), slice(None), *position)]


def _apply(block: Block, weights: Float64[Tensor, "O I T"], read: Float64[Tensor, "n I ..."]) -> Tensor:
    """The sums of weights and sources, for all targets of a group."""
    if block.kind == EdgeKind.CONV_WEIGHT:
        convolution = CONVOLUTIONS[len(block.kernel_size)]
        kernels = weights.reshape(*weights.shape[:2], *block.kernel_size)
        read = read.reshape(*read.shape[:2], *block.map_size)
        return convolution(read, kernels, None, block.stride, block.padding, block.dilation)
    if block.kind == EdgeKind.LINEAR_WEIGHT:
        read = read.reshape(*read.shape[:2], *block.map_size)
    return torch.einsum("oi,ni...->no...", weights[:, :, 0], read)


def _after_chains(template: GraphTemplate, outputs: Float64[Tensor, "n num_outputs ..."]) -> Tensor:
    """The outputs after the chains that end at them; a softmax runs over the outputs of one layer."""
    node_set = [number for number, nodes in enumerate(template.node_sets) for _ in range(nodes.count)]
    layers = [(node_set[node], chain) for node, chain in zip(template.outputs, template.output_chain, strict=True)]
    columns: list[Tensor] = [outputs] * len(layers)
    for layer in dict.fromkeys(layers):
        mine = [place for place, other in enumerate(layers) if other == layer]
        carried = outputs[:, mine]
        for step in template.chains[layer[1]]:
            carried = _after(step, carried)
        for place, column in zip(mine, carried.split(1, dim=1), strict=True):
            columns[place] = column
    return torch.cat(columns, dim=1)


def _after(step: Step, x: Float64[Tensor, "n c ..."]) -> Tensor:
    """One operation without parameters; pooling runs over the map, softmax over ``c``."""
    settings = {name: numbers[0] for name, numbers in step.settings}
    match step.operation:
        case Operation.RELU:
            return x.relu()
        case Operation.TANH:
            return x.tanh()
        case Operation.SIGMOID:
            return x.sigmoid()
        case Operation.GELU:
            return functional.gelu(x, approximate="tanh" if settings["tanh"] else "none")
        case Operation.SILU:
            return functional.silu(x)
        case Operation.LEAKY_RELU:
            return functional.leaky_relu(x, settings["negative_slope"])
        case Operation.ELU:
            alpha, scale, input_scale = settings["alpha"], settings["scale"], settings["input_scale"]
            return scale * torch.where(x > 0, x, alpha * torch.expm1(x * input_scale))
        case Operation.SIN:
            return x.sin()
        case Operation.SCALE:
            return x * settings["number"]
        case Operation.SHIFT:
            return x + settings["number"]
        case Operation.SOFTMAX:
            return x.softmax(1)
        case Operation.LOG_SOFTMAX:
            return x.log_softmax(1)
        case _:
            return _pooled(step, x)


def _pooled(step: Step, x: Float64[Tensor, "n c ..."]) -> Tensor:
    """Pooling of a map; what is left of a map of one position has no axes."""
    numbers = {name: tuple(map(int, setting)) for name, setting in step.settings}
    x = x.reshape(*x.shape[:2], *numbers["map_size"])
    rank = x.ndim - 2
    match step.operation:
        case Operation.GLOBAL_AVERAGE_POOL:
            return x.mean(dim=tuple(range(2, x.ndim)))
        case Operation.ADAPTIVE_AVERAGE_POOL:
            return ADAPTIVE_POOLS[rank](x, numbers["output_size"])
        case Operation.AVERAGE_POOL:
            window = (numbers["kernel_size"], numbers["stride"], numbers["padding"])
            return AVERAGE_POOLS[rank](x, *window, bool(numbers["ceil_mode"][0]), bool(numbers["count_include_pad"][0]))
        case Operation.MAX_POOL:
            window = (numbers["kernel_size"], numbers["stride"], numbers["padding"], numbers["dilation"])
            return MAX_POOLS[rank](x, *window, bool(numbers["ceil_mode"][0]))
    raise AssertionError(f"no meaning is written down for {step.operation!r}")
