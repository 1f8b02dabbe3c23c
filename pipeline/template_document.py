"""The text of a template: canonical JSON, the same bytes for the same graph.

Reads   the text                 `read_document`
Writes  the text                 `write_document`; `docs/stores.md` specifies it

Long rows of integers are written as runs ``[start, count, step, repeat]``: ``start, start + step, …`` (``count`` numbers), each
``repeat`` times. A text may come from anywhere: sizes are checked before anything is allocated.
"""

import json
from math import prod
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int64

from pipeline.parameter_graph import (
    MAX_RANK,
    Block,
    EdgeKind,
    GraphTemplate,
    IntegerTensor,
    NodeKind,
    NodeSet,
    Operation,
    Step,
    TensorSlot,
)

MAX_NUMBERS = 2**31
"""Most nodes, values or edges a text may speak of; larger ones are taken for damage."""


def write_document(template: GraphTemplate) -> str:
    """The template as canonical JSON: sorted keys, no spaces, runs as long as they can be."""
    document = {
        "node_sets": [[nodes.kind.name, nodes.count, nodes.name] for nodes in template.node_sets],
        "blocks": [_write_block(block) for block in template.blocks],
        "chains": [[[step.operation.name, dict(step.settings)] for step in chain] for chain in template.chains],
        "grids": template.grids,
        "tensors": [[slot.names, slot.shape] for slot in template.tensors],
        "integers": [[item.name, item.dtype, item.shape, item.numbers] for item in template.integers],
        "outputs": write_runs(template.outputs),
        "output_chain": write_runs(template.output_chain),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_document(text: str) -> GraphTemplate:
    """The template of a text.

    Raises:
        ValueError: the text is not a template's, or its numbers do not fit together.
    """
    try:
        document = json.loads(text)
        template = _read_template(document)
    except (
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,
        json.JSONDecodeError,
        RecursionError,
    ) as error:
        raise ValueError(f"not the text of a template: {type(error).__name__}: {error}") from error
    _check(template)
    return template


def write_runs(numbers: Int64[np.ndarray, " n"]) -> list[list[int]]:
    """The numbers as runs ``[start, count, step, repeat]``, greedy from the left."""
    runs: list[list[int]] = []
    values, lengths = _equal_runs(numbers)
    position = 0
    while position < len(values):
        step = values[position + 1] - values[position] if position + 1 < len(values) else 1
        count = 1
        while (
            position + count < len(values)
            and values[position + count] - values[position + count - 1] == step
            and lengths[position + count] == lengths[position]
        ):
            count += 1
        runs.append([values[position], count, step if count > 1 else 1, lengths[position]])
        position += count
    return runs


def read_runs(runs: list[list[int]], limit: int = MAX_NUMBERS) -> Int64[np.ndarray, " n"]:
    """The numbers of runs.

    Raises:
        ValueError: they would be more than ``limit`` numbers, or a run is not four integers.
    """
    total = 0
    for run in runs:
        if len(run) != 4 or not all(type(number) is int and abs(number) < MAX_NUMBERS for number in run):
            raise ValueError(
                f"a run is {run}; expected [start, count, step, repeat], four integers below {MAX_NUMBERS}"
            )
        _, count, _, repeat = run
        if count < 1 or repeat < 1:
            raise ValueError(f"a run is {run}; count and repeat must be positive")
        total += count * repeat
    if total > limit:
        raise ValueError(f"runs describe {total} numbers; at most {limit} fit here")
    pieces = [np.repeat(start + step * np.arange(count, dtype=np.int64), repeat) for start, count, step, repeat in runs]
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces])


def _equal_runs(numbers: Int64[np.ndarray, " n"]) -> tuple[list[int], list[int]]:
    """Neighbouring equal numbers as (number, how often)."""
    if len(numbers) == 0:
        return [], []
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    lengths = np.diff(starts, append=len(numbers))
    return numbers[starts].tolist(), lengths.tolist()


def _write_block(block: Block) -> dict[str, Any]:
    return {
        "kind": block.kind.name,
        "num_groups": block.num_groups,
        "targets": write_runs(block.targets),
        "target_offset": write_runs(block.target_offset),
        "sources": write_runs(block.sources),
        "source_offset": write_runs(block.source_offset),
        "source_site": write_runs(block.source_site),
        "source_chain": write_runs(block.source_chain),
        "kernel_size": block.kernel_size,
        "tap_stride": block.tap_stride,
        "stride": block.stride,
        "padding": block.padding,
        "dilation": block.dilation,
        "map_size": block.map_size,
    }


def _read_block(block: dict[str, Any]) -> Block:
    rows = ("targets", "target_offset", "sources", "source_offset", "source_site", "source_chain")
    geometry = ("kernel_size", "stride", "padding", "dilation", "map_size")
    return Block(
        kind=EdgeKind[block["kind"]],
        num_groups=_count(block["num_groups"]),
        tap_stride=_count(block["tap_stride"]),
        **{name: read_runs(block[name]) for name in rows},
        **{name: _counts(block[name]) for name in geometry},
    )


def _read_template(document: dict[str, Any]) -> GraphTemplate:
    tensors: list[TensorSlot] = []
    offset = 0
    for names, shape in document["tensors"]:
        slot = TensorSlot(names=tuple(map(str, names)), shape=_counts(shape), offset=offset)
        offset += slot.size
        tensors.append(slot)
    return GraphTemplate(
        node_sets=tuple(
            NodeSet(kind=NodeKind[kind], count=_count(count), name=str(name))
            for kind, count, name in document["node_sets"]
        ),
        blocks=tuple(map(_read_block, document["blocks"])),
        chains=tuple(tuple(_read_step(*step) for step in chain) for chain in document["chains"]),
        grids=tuple(map(_counts, document["grids"])),
        tensors=tuple(tensors),
        integers=tuple(
            IntegerTensor(name=str(name), dtype=str(dtype), shape=_counts(shape), numbers=tuple(map(int, numbers)))
            for name, dtype, shape, numbers in document["integers"]
        ),
        outputs=read_runs(document["outputs"]),
        output_chain=read_runs(document["output_chain"]),
    )


def _read_step(operation: str, settings: dict[str, list[float]]) -> Step:
    numbers = tuple((name, tuple(settings[name])) for name in sorted(settings))
    return Step(operation=Operation[operation], settings=numbers)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < MAX_NUMBERS:
        raise ValueError(f"found {number!r} where a count from 0 to {MAX_NUMBERS} belongs")
    return number


def _counts(numbers: list[Any]) -> tuple[int, ...]:
    return tuple(map(_count, numbers))


def _check(template: GraphTemplate) -> None:
    """Refuse a template whose parts do not fit together, before anything is expanded."""
    if template.num_values > MAX_NUMBERS or template.num_nodes > MAX_NUMBERS or template.num_edges > MAX_NUMBERS:
        _refuse(f"more than {MAX_NUMBERS} nodes, values or edges")
    num_sites = sum(map(prod, template.grids))
    if not template.grids or template.grids[0] != () or not template.chains or template.chains[0] != ():
        _refuse("the first grid and the first chain must be empty")
    if num_sites > MAX_NUMBERS or any(len(extents) > MAX_RANK for extents in template.grids):
        _refuse(f"grids of {num_sites} positions or more than {MAX_RANK} axes")
    _check_range("outputs", template.outputs, template.num_nodes)
    _check_range("output_chain", template.output_chain, len(template.chains))
    if len(template.outputs) != len(template.output_chain):
        _refuse(f"{len(template.outputs)} outputs but {len(template.output_chain)} output chains")
    carried = np.zeros(template.num_values, dtype=bool)
    for number, block in enumerate(template.blocks):
        _check_block(f"block {number}", block, template, num_sites)
        carried[block.value_index.reshape(-1)] = True
    if not carried.all():
        _refuse(f"value {int(np.argmin(carried))} is carried by no edge")


def _check_block(label: str, block: Block, template: GraphTemplate, num_sites: int) -> None:
    if block.num_groups < 1 or len(block.targets) % block.num_groups or len(block.sources) % block.num_groups:
        _refuse(
            f"{label}: {len(block.targets)} targets and {len(block.sources)} sources do not divide into {block.num_groups} groups"
        )
    if len(block.targets) == 0 or len(block.sources) == 0:
        _refuse(f"{label}: no targets or no sources")
    if len(block.target_offset) != len(block.targets):
        _refuse(f"{label}: {len(block.targets)} targets but {len(block.target_offset)} target offsets")
    if {len(block.source_offset), len(block.source_site), len(block.source_chain)} != {len(block.sources)}:
        _refuse(f"{label}: source columns of different lengths")
    if block.num_taps < 1 or max(map(len, (block.kernel_size, block.map_size))) > MAX_RANK:
        _refuse(f"{label}: kernel {block.kernel_size} on a map {block.map_size}")
    _check_range(f"{label}: targets", block.targets, template.num_nodes)
    _check_range(f"{label}: sources", block.sources, template.num_nodes)
    _check_range(f"{label}: source_site", block.source_site, num_sites)
    _check_range(f"{label}: source_chain", block.source_chain, len(template.chains))
    _check_range(f"{label}: offsets", np.concatenate([block.target_offset, block.source_offset]), template.num_values)
    last = int(block.target_offset.max() + block.source_offset.max()) + (block.num_taps - 1) * block.tap_stride
    if last >= template.num_values:
        _refuse(f"{label}: value {last} of {template.num_values}")


def _check_range(label: str, numbers: Int64[np.ndarray, " n"], end: int) -> None:
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= end):
        _refuse(f"{label} reach from {numbers.min()} to {numbers.max()}; expected 0 to {end - 1}")


def _refuse(reason: str) -> NoReturn:
    raise ValueError(f"not the text of a template: {reason}")
