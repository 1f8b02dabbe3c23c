"""Words for numbers, sizes, names and operations, in drawings, and how they are broken into lines.

Reads   numbers, names, and chains of operations
Writes  words
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from textwrap import wrap

from pipeline.graph_kinds import NO_BOUND, Chain, Operation, Step

OPERATIONS = {
    Operation.RELU: "ReLU",
    Operation.GELU: "GELU",
    Operation.SILU: "SiLU",
    Operation.LEAKY_RELU: "leaky ReLU",
    Operation.ELU: "ELU",
    Operation.GLOBAL_AVERAGE_POOL: "global average",
    Operation.ADAPTIVE_AVERAGE_POOL: "average pool",
    Operation.ADAPTIVE_MAX_POOL: "max pool",
    Operation.MISH: "Mish",
    Operation.UPSAMPLE_NEAREST: "upsample",
    Operation.UPSAMPLE_LINEAR: "upsample linearly",
}
"""Words for operations; for others their names."""
LONG = 28
"""Letters of words that are broken into lines."""
MOST_OF_A_NAME = 18
"""Letters in a line."""


def counted(number: int, one: str, several: str) -> str:
    """A number and a noun."""
    return f"{number:,} {one if number == 1 else several}"


def extents(sizes: Sequence[float] | Sequence[int]) -> str:
    """``3`` for the same number on all axes, else ``3×5``."""
    return f"{sizes[0]:g}" if len(set(sizes)) == 1 else square(sizes)


def square(sizes: Sequence[float] | Sequence[int]) -> str:
    """``3×3``."""
    return "×".join(f"{size:g}" for size in sizes)


def number_words(number: float) -> str:
    """Four digits at most, with the sign of minus."""
    return f"{number:.4g}".replace("-", "−").replace("inf", "∞")


def operation_words(chain: Chain, attended: bool = False) -> Iterator[str]:
    """Words for the operations of a chain, in their order.

    Args:
        attended: whether they act on attention, or on its products with values: on pairs of positions.
    """
    for step in chain:
        settings = dict(step.settings)
        name = OPERATIONS.get(step.operation, step.operation.name.lower().replace("_", " "))
        match step.operation:
            case Operation.MAX_POOL | Operation.AVERAGE_POOL:
                moves = settings["stride"] != settings["kernel_size"]
                stride = f", stride {extents(settings['stride'])}" if moves else ""
                yield f"{name} {square(settings['kernel_size'])}{stride}"
            case Operation.SCALE:
                yield f"× {number_words(settings['number'][0])}"
            case Operation.SHIFT:
                yield f"+ {number_words(settings['number'][0])}"
            case Operation.POWER:
                yield f"power {number_words(settings['exponent'][0])}"
            case Operation.LEAKY_RELU:
                yield f"{name} {number_words(settings['negative_slope'][0])}"
            case Operation.CLAMP:
                yield _clamp_words(step)
            case Operation.SUM | Operation.SOFTMAX if attended and len(settings["axes"]) == 1:
                summed = "summed" if step.operation == Operation.SUM else name
                yield f"{summed} over the {_extent(step)} positions attended to"
            case Operation.MEAN | Operation.SUM | Operation.MAXIMUM:
                every = len(settings["axes"]) == len(settings["map_size"])
                axes = ", ".join(f"{axis + 1:g}" for axis in settings["axes"])
                yield f"{name} over map" if every else f"{name} over axis {axes}"
            case _ if "output_size" in settings:
                yield f"{name} to {square(settings['output_size'])}"
            case _:
                yield name


def _extent(step: Step) -> int:
    """Of the axes an operation runs over."""
    settings = dict(step.settings)
    return int(prod(settings["map_size"][int(axis)] for axis in settings["axes"]))


def _clamp_words(step: Step) -> str:
    settings = dict(step.settings)
    low, high = settings["low"][0], settings["high"][0]
    bounds = [f"from {number_words(low)}"] * (low > -NO_BOUND) + [f"to {number_words(high)}"] * (high < NO_BOUND)
    return " ".join(["clamp", *bounds])


def packed(words: Iterable[str], most: int = 20) -> list[str]:
    """Words in lines, as many in each as fit; long ones are broken at spaces."""
    lines: list[str] = []
    for word in words:
        if len(word) > LONG:
            lines += wrap(word, len(word) // (1 + len(word) // LONG) + 4)
        elif lines and len(lines[-1]) + len(word) + 2 <= most:
            lines[-1] += f", {word}"
        else:
            lines += [word]
    return lines


def name_lines(name: str) -> list[str]:
    """A module's path in two lines at most, broken after a dot; what is too long loses its beginning."""
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)  # XML has no control characters
    if len(name) <= MOST_OF_A_NAME:
        return [name]
    parts, first = name.split("."), ""
    while len(parts) > 1 and len(first) + len(parts[0]) + 1 <= MOST_OF_A_NAME:
        first += parts.pop(0) + "."
    return [*[first] * bool(first), shortened(".".join(parts))]


def shortened(name: str) -> str:
    """A name in a line; what is too long loses its beginning."""
    return name if len(name) <= MOST_OF_A_NAME else "…" + name[-MOST_OF_A_NAME + 1 :]
