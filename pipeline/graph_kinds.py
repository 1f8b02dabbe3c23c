"""The vocabulary of parameter graphs: kinds of nodes and of edges, and operations without parameters.

Reads   nothing
Writes  nothing

Files have the names of kinds; numbers index the embeddings of metanetworks, so new kinds come last.
"""

from dataclasses import dataclass
from enum import IntEnum

MAX_RANK = 3
"""Most axes of a kernel or a map (depth, height, width); coordinates are right-aligned in this many columns."""


class NodeKind(IntEnum):
    INPUT = 0
    """A channel of the input."""
    NEURON = 1
    """A channel or feature of a layer: the sum of what its edges bring."""
    OUTPUT = 2
    """A node of any kind that the network returns."""
    BIAS = 3
    """The constant one that a layer's biases, and constants, are edges from."""
    SUM = 4
    """The sum of what its edges bring: residual sums, and channels joined from pieces."""
    PRODUCT = 5
    """The product of what its edges bring."""
    MAXIMUM = 6
    """The greatest of what its edges bring."""
    STATISTICS = 7
    """What couples normalised channels: mean and spread, or the denominator of a softmax."""
    NORMALISED = 8
    """A channel after a norm."""
    HEAD = 9
    """The scores of an attention head: the sum of products of queries and keys."""
    POSITION = 10
    """A constant one that entries of a learned table are edges from: one node per position, in their order."""
    TOKEN = 11
    """A word of a vocabulary, one where the input is this word, and zero elsewhere."""


class EdgeKind(IntEnum):
    """Those from ``PASS`` on carry no value."""

    LINEAR_WEIGHT = 0
    LINEAR_BIAS = 1
    CONV_WEIGHT = 2
    CONV_BIAS = 3
    TRANSPOSED_CONV_WEIGHT = 4
    SCALE = 5
    """A learned factor of one channel: LayerScale, the slope of a PReLU."""
    OFFSET = 6
    """A learned summand: position embeddings, class tokens, parameters used as they are."""
    EMBEDDING = 7
    """An entry of a token embedding, from a `NodeKind.TOKEN`."""
    NORM_WEIGHT = 8
    NORM_BIAS = 9
    NORM_MEAN = 10
    """A running mean."""
    NORM_VARIANCE = 11
    """A running variance."""
    PASS = 12
    """Brings what it reads, times a constant."""
    QUERY = 13
    """The left factor of a product that is summed over nodes."""
    KEY = 14
    """The right factor."""
    ATTENTION = 15
    """The left factor of a product that is summed over positions."""
    VALUE = 16
    """The right factor."""
    NORM_INPUT = 17
    """From a channel to the statistics it takes part in."""
    STATISTIC = 18
    """From statistics to the channels they normalise."""

    @property
    def carries_value(self) -> bool:
        return self < EdgeKind.PASS


class Operation(IntEnum):
    """Operations without parameters; 0 is kept free for padding."""

    RELU = 1
    TANH = 2
    SIGMOID = 3
    GELU = 4
    SILU = 5
    LEAKY_RELU = 6
    ELU = 7
    SIN = 8
    MAX_POOL = 9
    AVERAGE_POOL = 10
    GLOBAL_AVERAGE_POOL = 11
    ADAPTIVE_AVERAGE_POOL = 12
    SOFTMAX = 13
    LOG_SOFTMAX = 14
    SCALE = 15
    SHIFT = 16
    POWER = 17
    EXP = 18
    LOG = 19
    ABS = 20
    COS = 21
    SOFTPLUS = 22
    MISH = 23
    HARD_SIGMOID = 24
    HARD_SWISH = 25
    CLAMP = 26
    SQUARE_ROOT = 27
    RECIPROCAL = 28
    MEAN = 29
    """Over axes of the map, which it keeps with extent one; so do the two after it."""
    SUM = 30
    MAXIMUM = 31
    ADAPTIVE_MAX_POOL = 32
    STANDARDISE = 33
    """Less the mean, over the standard deviation."""
    ROOT_MEAN_SQUARE = 34
    """Over the root of the mean square."""
    UPSAMPLE_NEAREST = 35
    UPSAMPLE_LINEAR = 36
    SIGN = 37
    ERF = 38


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation without parameters, with the numbers that decide what it computes."""

    operation: Operation
    settings: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Names and numbers, sorted by name: ``(("kernel_size", (2.0, 2.0)), ...)``, one number per axis of the map where
    axes matter; `pipeline.template_rules` lists the names of each operation."""


def scale(number: float) -> Step:
    """Times a number."""
    return Step(operation=Operation.SCALE, settings=(("number", (float(number),)),))


NO_BOUND = float("inf")
"""A clamp to it is no clamp."""

Chain = tuple[Step, ...]
"""Operations in the order they act, between the node that is read and the edge that reads it."""
