"""The text of a template: canonical JSON, the same bytes for the same graph.

Reads   the text                 `read_document`
Writes  the text                 `write_document`; `docs/stores.md` specifies it

Long rows of integers are written as runs ``[start, count, step, repeat]``: ``start, start + step, …`` (``count``
numbers), each ``repeat`` times; rows of constants as ``[number, count]``. A node set's chain, regions, target sites,
constants and output padding are left out where they say nothing. A text may come from anywhere: what it would expand to
is counted before anything is allocated, what it says must be a template (`pipeline.template_rules`), and must be said
in the one canonical way.
"""

import json
from math import inf, isinf
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.file_records import sha256
from pipeline.graph_kinds import EdgeKind, NodeKind, Operation, Step
from pipeline.parameter_graph import Block, GraphTemplate, NodeSet, Region
from pipeline.template_rules import MAX_NUMBERS, check_template
from pipeline.value_layout import IntegerTensor, TensorSlot

LIMIT = 2**31
"""No single number of a run or a size reaches it."""
MAX_AXES = 8
"""Most axes of a tensor."""
ROWS = ("targets", "target_offset", "sources", "source_offset", "source_site", "source_chain")
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "map_size")
AXES = ("input_axes", "output_axes")
FIRST_AXIS = (1,)
"""Where channels stand in a batch, if nothing else is said."""
INFINITIES = {"-inf": -inf, "inf": inf}
"""How infinite numbers are written, which JSON has none of."""


def write_document(template: GraphTemplate) -> str:
    """The template as canonical JSON: sorted keys, no spaces, runs as long as they can be."""
    document: dict[str, Any] = {
        "node_sets": [_write_node_set(nodes) for nodes in template.node_sets],
        "blocks": [_write_block(block) for block in template.blocks],
        "chains": [[_write_step(step) for step in chain] for chain in template.chains],
        "grids": template.grids,
        "tensors": [[slot.names, slot.shape] for slot in template.tensors],
        "integers": [[item.name, item.dtype, item.shape, item.numbers] for item in template.integers],
        "outputs": write_runs(template.outputs),
        "output_chain": write_runs(template.output_chain),
    }
    if template.regions:
        document["regions"] = [[region.extents, write_runs(_row(region.positions))] for region in template.regions]
    for name in AXES:
        if getattr(template, name) != FIRST_AXIS:
            document[name] = getattr(template, name)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_document(text: str) -> GraphTemplate:
    """The template of a text.

    Raises:
        ValueError: the text is not a template's, its numbers do not fit together, or it is not in the canonical form.
    """
    try:
        template = _read_template(json.loads(text, parse_constant=_refuse_constant))
        check_template(template)
        canonical = write_document(template)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"not the text of a template: {reason}") from error
    if canonical != text:
        pairs = zip(canonical, text, strict=False)
        place = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(canonical), len(text)))
        raise ValueError(
            f"not the text of a template: found {text[place : place + 40]!r} at character {place}; the canonical form "
            f"has {canonical[place : place + 40]!r}"
        )
    vars(template)["digest"] = sha256(text.encode())  # what it would compute by writing the text once more
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


def read_runs(runs: Any, limit: int = MAX_NUMBERS) -> Int64[np.ndarray, " n"]:
    """The numbers of runs.

    Raises:
        ValueError: they would be more than ``limit`` numbers, or a run is not four integers.
    """
    if (total := count_runs(runs)) > limit:
        raise ValueError(f"runs describe {total} numbers; at most {limit} fit here")
    pieces = [np.repeat(start + step * np.arange(count, dtype=np.int64), repeat) for start, count, step, repeat in runs]
    return np.concatenate([np.empty(0, dtype=np.int64), *pieces])


def count_runs(runs: Any) -> int:
    """How many numbers the runs describe.

    Raises:
        ValueError: a run is not four integers, its count and repeat positive.
    """
    for run in runs:
        if type(run) is not list or len(run) != 4 or not all(type(n) is int and abs(n) < LIMIT for n in run):
            raise ValueError(
                f"a run is {run!r:.80}; expected [start, count, step, repeat], four integers below {LIMIT}"
            )
        if run[1] < 1 or run[3] < 1:
            raise ValueError(f"a run is {run}; count and repeat must be positive")
    return sum(count * repeat for _, count, _, repeat in runs)


def write_constants(numbers: Float64[np.ndarray, " n"]) -> list[list[Any]]:
    """The numbers as runs ``[number, count]`` of equal ones; minus zero is zero."""
    values, counts = _equal_runs(numbers + 0.0)
    return [[_write_number(value), count] for value, count in zip(values, counts, strict=True)]


def read_constants(runs: Any) -> Float64[np.ndarray, " n"]:
    """The numbers of runs ``[number, count]``.

    Raises:
        ValueError: they would be too many, or a run is not a number and a count.
    """
    if (total := count_constants(runs)) > MAX_NUMBERS:
        raise ValueError(f"runs describe {total} numbers; at most {MAX_NUMBERS} fit here")
    return np.repeat(np.array([_number(number) for number, _ in runs], dtype=np.float64), [run[1] for run in runs])


def count_constants(runs: Any) -> int:
    """How many numbers the runs describe.

    Raises:
        ValueError: a run is not a number and a positive count.
    """
    for run in runs:
        if type(run) is not list or len(run) != 2 or type(run[1]) is not int or not 1 <= run[1] < LIMIT:
            raise ValueError(f"a run is {run!r:.80}; expected [number, count], the count from 1 to {LIMIT}")
    return sum(run[1] for run in runs)


def _equal_runs(numbers: np.ndarray) -> tuple[list[Any], list[int]]:
    """Neighbouring equal numbers as (number, how often)."""
    if len(numbers) == 0:
        return [], []
    starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    lengths = np.diff(starts, append=len(numbers))
    return numbers[starts].tolist(), lengths.tolist()


def _write_node_set(nodes: NodeSet) -> list[Any]:
    return [nodes.kind.name, nodes.count, nodes.name, *([nodes.chain] if nodes.chain else [])]


def _write_step(step: Step) -> list[Any]:
    return [step.operation.name, {name: list(map(_write_number, numbers)) for name, numbers in step.settings}]


def _write_block(block: Block) -> dict[str, Any]:
    document = {
        "kind": block.kind.name,
        "num_groups": block.num_groups,
        "tap_stride": block.tap_stride,
        **{name: write_runs(getattr(block, name)) for name in ROWS},
        **{name: getattr(block, name) for name in GEOMETRY},
    }
    if block.target_site.any():
        document["target_site"] = write_runs(block.target_site)
    if (block.constant != 1).any():
        document["constant"] = write_constants(block.constant)
    if block.output_padding:
        document["output_padding"] = block.output_padding
    return document


def _read_block(block: Any) -> Block:
    rows = {name: read_runs(block[name]) for name in ROWS}
    num_sources = len(rows["sources"])
    sites = read_runs(block["target_site"]) if "target_site" in block else np.zeros(num_sources, dtype=np.int64)
    constants = read_constants(block["constant"]) if "constant" in block else np.ones(num_sources)
    lengths = [*map(len, rows.values()), len(sites), len(constants)]
    if lengths != [lengths[0]] * 2 + [num_sources] * 6:
        raise ValueError(
            f"a block has columns of {lengths} numbers; expected two for the targets and six for the sources"
        )
    geometry = {name: _counts(block[name]) for name in GEOMETRY}
    return Block(
        kind=EdgeKind[block["kind"]],
        num_groups=_count(block["num_groups"]),
        tap_stride=_count(block["tap_stride"]),
        target_site=sites,
        constant=constants,
        output_padding=_counts(block.get("output_padding", [])),
        **rows,  # pyright: ignore[reportArgumentType]  # it takes any name for any field
        **geometry,
    )


def _read_template(document: Any) -> GraphTemplate:
    if (total := _count_numbers(document)) > MAX_NUMBERS:
        raise ValueError(f"its runs describe {total} numbers; at most {MAX_NUMBERS} are read")
    tensors: list[TensorSlot] = []
    for names, shape in document["tensors"]:
        offset = tensors[-1].offset + tensors[-1].size if tensors else 0
        tensors.append(TensorSlot(names=tuple(map(_text, names)), shape=_counts(shape), offset=offset))
    return GraphTemplate(
        node_sets=tuple(_read_node_set(*nodes) for nodes in document["node_sets"]),
        blocks=tuple(map(_read_block, document["blocks"])),
        chains=tuple(tuple(_read_step(*step) for step in chain) for chain in document["chains"]),
        grids=tuple(map(_counts, document["grids"])),
        regions=tuple(
            Region(extents=_counts(extents), positions=tuple(read_runs(positions).tolist()))
            for extents, positions in document.get("regions", [])
        ),
        tensors=tuple(tensors),
        integers=tuple(
            IntegerTensor(
                name=_text(name), dtype=_text(dtype), shape=_counts(shape), numbers=tuple(map(_whole, numbers))
            )
            for name, dtype, shape, numbers in document["integers"]
        ),
        outputs=read_runs(document["outputs"]),
        output_chain=read_runs(document["output_chain"]),
        **{name: _counts(document.get(name, FIRST_AXIS)) for name in AXES},
    )


def _count_numbers(document: Any) -> int:
    """How many numbers all runs of a document describe."""
    blocks = document["blocks"]
    rows = [block[name] for block in blocks for name in ROWS]
    rows += [block["target_site"] for block in blocks if "target_site" in block]
    rows += [positions for _, positions in document.get("regions", [])]
    constants = [block["constant"] for block in blocks if "constant" in block]
    total = sum(map(count_runs, [*rows, document["outputs"], document["output_chain"]]))
    return total + sum(map(count_constants, constants))


def _read_node_set(kind: Any, count: Any, name: Any, chain: Any = 0) -> NodeSet:
    return NodeSet(kind=NodeKind[kind], count=_count(count), name=_text(name), chain=_count(chain))


def _read_step(operation: Any, settings: Any) -> Step:
    numbers = tuple((name, tuple(map(_number, settings[name]))) for name in sorted(settings))
    return Step(operation=Operation[operation], settings=numbers)


def _counts(numbers: Any) -> tuple[int, ...]:
    if len(numbers) > MAX_AXES:
        raise ValueError(f"found {len(numbers)} sizes of one thing; at most {MAX_AXES} are read")
    return tuple(map(_count, numbers))


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < LIMIT:
        raise ValueError(f"found {number!r:.80} where a count from 0 to {LIMIT} belongs")
    return number


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise ValueError(f"found {number!r:.80} where a whole number belongs")
    return number


def _number(number: Any) -> float:
    if type(number) is str and number in INFINITIES:
        return INFINITIES[number]
    if type(number) is not float:
        raise ValueError(f"found {number!r:.80} where a number with a decimal point belongs")
    return number


def _write_number(number: float) -> float | str:
    return str(number) if isinf(number) else number


def _row(numbers: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    return np.array(numbers, dtype=np.int64)


def _text(text: Any) -> str:
    if type(text) is not str:
        raise ValueError(f"found {text!r:.80} where a name belongs")
    return text


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"found {constant} where a finite number belongs")
