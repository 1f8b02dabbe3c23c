"""The function a parameter graph computes, read from the graph alone: what nodes, edges and their features mean.

Reads   a `GraphTemplate`, values and inputs
Writes  outputs

Slow and plain. Nothing here looks at the module that was traced, so where both give the same outputs, the graph says
all that decides the function: the wiring, every value's place, taps, strides, positions and the order of operations
(`pipeline.symmetry`).
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float64
from torch import Tensor

from pipeline.chain_function import after_chain
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation
from pipeline.parameter_graph import Block, GraphTemplate

CONVOLUTIONS = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
TRANSPOSED = {1: torch.conv_transpose1d, 2: torch.conv_transpose2d, 3: torch.conv_transpose3d}


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What the edges of one kind from one source bring to one node."""

    kind: EdgeKind
    source: int
    value: Tensor
    """``[n, 1, *map]``, the value or constant not yet multiplied."""
    where: Tensor
    """One on the positions that are brought, zero on others."""
    factor: Tensor
    """The value or constant."""

    @property
    def contribution(self) -> Tensor:
        """What is brought, zero elsewhere, even where the constant is infinite."""
        return torch.where(self.where > 0, self.factor * self.value, 0.0)


Maps = dict[int, Tensor]
"""What each node computes: ``[n, 1, *map]``, without axes where it has no map."""


def graph_function(
    template: GraphTemplate,
    values: Float64[Tensor, " num_values"],
    inputs: Tensor,
) -> Float64[Tensor, "n num_outputs ..."]:
    """The outputs of the network that a template and values describe, for ``n`` inputs as the network takes them."""
    maps: Maps = {}
    blocks: dict[int, list[Block]] = {}
    first = [0]
    for nodes in template.node_sets:
        first.append(first[-1] + nodes.count)
    set_of = [number for number, nodes in enumerate(template.node_sets) for _ in range(nodes.count)]
    for block in template.blocks:
        blocks.setdefault(set_of[int(block.targets[0])], []).append(block)
    for number in _evaluation_order(template, set_of, blocks):
        kind = template.node_sets[number].kind
        members = range(first[number], first[number + 1])
        if kind == NodeKind.INPUT:
            channels = inputs.movedim(template.input_axes, (1,)) if template.input_axes else inputs.unsqueeze(1)
            maps |= {node: channels[:, [place]] for place, node in enumerate(members)}
        elif kind in (NodeKind.BIAS, NodeKind.POSITION):
            maps |= dict.fromkeys(members, torch.ones(len(inputs), 1, dtype=torch.float64))
        else:
            maps |= _computed(template, number, members, blocks[number], values, maps)
    outputs = [maps[int(node)] for node in template.outputs]
    chains = [template.chains[chain] for chain in template.output_chain]
    return torch.cat([after_chain(chain, x) for chain, x in zip(chains, outputs, strict=True)], dim=1)


def _evaluation_order(template: GraphTemplate, set_of: list[int], blocks: dict[int, list[Block]]) -> list[int]:
    """The sets of nodes, each after those it reads."""
    order: list[int] = []
    waiting = {
        number: {set_of[node] for block in some for node in block.sources.tolist()} for number, some in blocks.items()
    }
    order += [number for number in range(len(template.node_sets)) if number not in waiting]
    left = sorted(waiting)
    while left:
        ready = [number for number in left if waiting[number] <= set(order)]
        if not ready:
            raise ValueError("nodes read each other in a circle")
        order += ready
        left = [number for number in left if number not in ready]
    return order


def _computed(
    template: GraphTemplate, number: int, members: range, blocks: list[Block], values: Tensor, maps: Maps
) -> Maps:
    """What the nodes of one set compute from what their edges bring."""
    nodes = template.node_sets[number]
    sums: Maps = {}
    brought: dict[int, list[Brought]] = {node: [] for node in members}
    for block in blocks:
        if block.kind in (EdgeKind.CONV_WEIGHT, EdgeKind.TRANSPOSED_CONV_WEIGHT) or _is_wide(block):
            for node, contribution in _layer(block, template, values, maps):
                sums[node] = sums[node] + contribution if node in sums else contribution
        else:
            _bring(block, template, values, maps, brought)
    match nodes.kind:
        case NodeKind.PRODUCT:
            return {node: _product([b.contribution for b in some]) for node, some in brought.items()}
        case NodeKind.MAXIMUM:
            return {node: _greatest([b.contribution for b in some]) for node, some in brought.items()}
        case NodeKind.TOKEN:
            return {node: (brought[node][0].value == place).double() for place, node in enumerate(members)}
        case NodeKind.STATISTICS:
            return {node: _statistics(template, nodes.chain, some) for node, some in brought.items()}
        case NodeKind.NORMALISED:
            return {node: _normalised(template, nodes.chain, some, maps) for node, some in brought.items()}
    for node, some in brought.items():
        terms = [b.contribution for b in some] + ([sums[node]] if node in sums else [])
        sums[node] = _total(terms)
    return sums


def _is_wide(block: Block) -> bool:
    """Whether a linear layer can be computed at once: its targets get everything at all positions."""
    return block.kind in (EdgeKind.LINEAR_WEIGHT, EdgeKind.EMBEDDING) and not block.target_site.any()


def _layer(block: Block, template: GraphTemplate, values: Tensor, maps: Maps) -> list[tuple[int, Tensor]]:
    """What the edges of a linear or convolutional block add to each of its targets."""
    weights = values[torch.from_numpy(block.value_index)]
    columns = (block.sources, block.source_site, block.source_chain)
    sources, sites, chains = (column.reshape(block.num_groups, -1).tolist() for column in columns)
    sums: list[tuple[int, Tensor]] = []
    for group, targets in enumerate(block.targets.reshape(block.num_groups, -1).tolist()):
        reads = zip(sources[group], sites[group], chains[group], strict=True)
        read = torch.cat(
            [_read(template, maps[node], site, chain, block.map_size) for node, site, chain in reads], dim=1
        )
        result = _applied(block, weights[group], read)
        sums += [(target, result[:, [place]]) for place, target in enumerate(targets)]
    return sums


def _read(template: GraphTemplate, x: Tensor, site: int, chain: int, map_size: tuple[int, ...]) -> Tensor:
    """A source after the operations of a chain: all of it, or the positions of a site, as a map; a single number for
    all positions has no axes."""
    x = after_chain(template.chains[chain], x)
    region = template.region(site)
    if region is not None:
        assert x.shape[2:].numel() == prod(region.extents), "a site is a place in the map that is read"
        x = x.flatten(2)[:, :, torch.tensor(region.positions)] if x.ndim > 2 else x[:, :, None]
    if x[0, 0].numel() == prod(map_size):
        return x.reshape(*x.shape[:2], *map_size)
    assert x[0, 0].numel() == 1, "one number is read for all positions, or one for each"
    return x.reshape(*x.shape[:2], *(1 for _ in map_size)).expand(-1, -1, *map_size)


def _applied(block: Block, weights: Float64[Tensor, "O I T"], read: Float64[Tensor, "n I ..."]) -> Tensor:
    """The sums of weights and sources, for all targets of a group."""
    if block.kind == EdgeKind.CONV_WEIGHT:
        kernels = weights.reshape(*weights.shape[:2], *block.kernel_size)
        convolution = CONVOLUTIONS[len(block.kernel_size)]
        return convolution(read, kernels, None, block.stride, block.padding, block.dilation)
    if block.kind == EdgeKind.TRANSPOSED_CONV_WEIGHT:
        kernels = weights.transpose(0, 1).reshape(weights.shape[1], weights.shape[0], *block.kernel_size)
        convolution = TRANSPOSED[len(block.kernel_size)]
        return convolution(
            read, kernels, None, block.stride, block.padding, block.output_padding, dilation=block.dilation
        )
    return torch.einsum("oi,ni...->no...", weights[:, :, 0], read)


def _bring(
    block: Block, template: GraphTemplate, values: Tensor, maps: Maps, brought: dict[int, list[Brought]]
) -> None:
    """Note what single edges bring to their targets."""
    columns = (block.sources, block.source_site, block.source_chain, block.target_site, block.constant)
    rows = [column.reshape(block.num_groups, -1).tolist() for column in columns]
    for group, targets in enumerate(block.targets.reshape(block.num_groups, -1).tolist()):
        for place, (node, site, chain, target_site, constant) in enumerate(
            zip(*(row[group] for row in rows), strict=True)
        ):
            value, where = _placed(template, block, maps[node], site, chain, target_site)
            for row, target in enumerate(targets):
                index = int(block.value_index[group, row, place, 0])
                factor = values[index] if index >= 0 else torch.tensor(constant, dtype=torch.float64)
                brought[target].append(Brought(kind=block.kind, source=node, value=value, where=where, factor=factor))


def _placed(
    template: GraphTemplate, block: Block, x: Tensor, site: int, chain: int, target_site: int
) -> tuple[Tensor, Tensor]:
    """What is read, where it belongs on the target's map, and an indicator of these positions."""
    region = template.region(target_site)
    one = torch.ones(1, 1, dtype=torch.float64)
    if block.kind == EdgeKind.STATISTIC:
        return x, one
    if region is None:
        return _read(template, x, site, chain, block.map_size), one
    read = _read(template, x, site, chain, (len(region.positions),))
    positions, size = torch.tensor(region.positions), prod(region.extents)
    spread = torch.zeros(*read.shape[:2], size, dtype=torch.float64).index_copy(2, positions, read)
    where = torch.zeros(size, dtype=torch.float64).index_fill(0, positions, 1.0)
    return spread.reshape(*read.shape[:2], *block.map_size), where.reshape(1, 1, *block.map_size)


def _product(factors: list[Tensor]) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = _broadcast(result, factor)[0] * _broadcast(result, factor)[1]
    return result


def _greatest(terms: list[Tensor]) -> Tensor:
    result = terms[0]
    for term in terms[1:]:
        result = torch.maximum(*_broadcast(result, term))
    return result


def _total(terms: list[Tensor]) -> Tensor:
    result = terms[0]
    for term in terms[1:]:
        first, second = _broadcast(result, term)
        result = first + second
    return result


def _broadcast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two nodes' values with equally many axes: one without a map is the same at all positions."""
    while x.ndim < y.ndim:
        x = x.unsqueeze(-1)
    while y.ndim < x.ndim:
        y = y.unsqueeze(-1)
    return x, y


def _statistics(template: GraphTemplate, chain: int, brought: list[Brought]) -> Tensor:
    """What normalises a group of channels, as ``[n, 2, *map]``: what is taken off and what is multiplied by."""
    [step] = template.chains[chain]
    settings = dict(step.settings)
    x = torch.cat([b.value.reshape(*b.value.shape[:2], *map(int, settings["map_size"])) for b in brought], dim=1)
    axes = [1, *(2 + int(axis) for axis in settings["axes"])]
    match step.operation:
        case Operation.STANDARDISE:
            eps = settings["eps"][0]
            mean, variance = x.mean(dim=axes, keepdim=True), x.var(dim=axes, correction=0, keepdim=True)
            return torch.cat([mean, (variance + eps).rsqrt()], dim=1)
        case Operation.ROOT_MEAN_SQUARE:
            eps = settings["eps"][0] or torch.finfo(x.dtype).eps
            root = ((x * x).mean(dim=axes, keepdim=True) + eps).rsqrt()
            return torch.cat([torch.zeros_like(root), root], dim=1)
        case _:  # softmax and its logarithm: the logarithm of the denominator is taken off
            total = x.logsumexp(dim=1, keepdim=True)
            return torch.cat([total, torch.full_like(total, step.operation == Operation.SOFTMAX)], dim=1)


def _normalised(template: GraphTemplate, chain: int, brought: list[Brought], maps: Maps) -> Tensor:
    """A channel, less what is taken off, times what normalises, times its factor, plus its summand."""
    terms: dict[EdgeKind, list[Brought]] = {}
    for one in brought:
        terms.setdefault(one.kind, []).append(one)
    inputs = terms.get(EdgeKind.NORM_WEIGHT, []) + terms.get(EdgeKind.PASS, [])
    if EdgeKind.STATISTIC in terms:
        [statistic] = terms[EdgeKind.STATISTIC]
        state = maps[statistic.source]
        off, by = state[:, :1], state[:, 1:]
        if EdgeKind.PASS in terms and _is_softmax(template, statistic.source):
            centred = _total([inputs[0].value, -off])
            return torch.where(by.bool(), centred.exp(), centred)
    else:
        [step] = template.chains[chain]
        eps = dict(step.settings)["eps"][0]
        off = _total([b.contribution for b in terms[EdgeKind.NORM_MEAN]])
        by = (_total([b.contribution for b in terms[EdgeKind.NORM_VARIANCE]]) + eps).rsqrt()
    centred = [b.factor * _total([b.value, _product([-off, b.where])]) for b in inputs]
    result = _product([_total(centred), by])
    return _total([result, *(b.contribution for b in terms.get(EdgeKind.NORM_BIAS, []))])


def _is_softmax(template: GraphTemplate, node: int) -> bool:
    for nodes in template.node_sets:
        if node < nodes.count:
            return template.chains[nodes.chain][0].operation in (Operation.SOFTMAX, Operation.LOG_SOFTMAX)
        node -= nodes.count
    raise AssertionError("every node is in a set")
