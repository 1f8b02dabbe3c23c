"""What operations without parameters compute: the meaning of every `Step`.

Reads   chains of steps, and what a node computes, ``[n, 1, *map]``
Writes  the same after the chain
"""

from jaxtyping import Num
from torch import Tensor
from torch.nn import functional

from pipeline.elementwise import ELEMENTWISE
from pipeline.graph_kinds import Chain, Operation, Step

MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
ADAPTIVE_AVERAGES = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}
ADAPTIVE_MAXIMA = {
    1: functional.adaptive_max_pool1d,
    2: functional.adaptive_max_pool2d,
    3: functional.adaptive_max_pool3d,
}
LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def after_chain(chain: Chain, x: Num[Tensor, "n c ..."]) -> Tensor:
    """What a node computes, after the operations of a chain in their order."""
    for step in chain:
        x = _on_map(step, x) if "map_size" in dict(step.settings) else _on_elements(step, x)
    return x


def _on_elements(step: Step, x: Tensor) -> Tensor:
    """An operation on every element by itself."""
    return ELEMENTWISE[step.operation].function(x, **{name: numbers[0] for name, numbers in step.settings})


def _on_map(step: Step, x: Tensor) -> Tensor:
    """An operation on a map; what is left of a map of one position has no axes."""
    numbers = {name: tuple(map(int, setting)) for name, setting in step.settings}
    x = x.reshape(*x.shape[:2], *numbers["map_size"])
    rank = x.ndim - 2
    axes = [2 + axis for axis in numbers.get("axes", ())]
    match step.operation:
        case Operation.GLOBAL_AVERAGE_POOL:
            return x.mean(dim=tuple(range(2, x.ndim)))
        case Operation.ADAPTIVE_AVERAGE_POOL:
            return ADAPTIVE_AVERAGES[rank](x, numbers["output_size"])
        case Operation.ADAPTIVE_MAX_POOL:
            return ADAPTIVE_MAXIMA[rank](x, numbers["output_size"])
        case Operation.AVERAGE_POOL:
            window = (numbers["kernel_size"], numbers["stride"], numbers["padding"])
            return AVERAGE_POOLS[rank](x, *window, bool(numbers["ceil_mode"][0]), bool(numbers["count_include_pad"][0]))
        case Operation.MAX_POOL:
            window = (numbers["kernel_size"], numbers["stride"], numbers["padding"], numbers["dilation"])
            return MAX_POOLS[rank](x, *window, bool(numbers["ceil_mode"][0]))
        case Operation.UPSAMPLE_NEAREST:
            return functional.interpolate(x, numbers["output_size"], mode="nearest")
        case Operation.UPSAMPLE_LINEAR:
            corners = bool(numbers["align_corners"][0])
            return functional.interpolate(x, numbers["output_size"], mode=LINEAR_MODES[rank], align_corners=corners)
        case Operation.SOFTMAX:
            return x.flatten(2).softmax(-1).reshape(x.shape) if len(axes) == rank else x.softmax(axes[0])
        case Operation.LOG_SOFTMAX:
            return x.flatten(2).log_softmax(-1).reshape(x.shape) if len(axes) == rank else x.log_softmax(axes[0])
        case Operation.MEAN:
            return x.mean(dim=axes, keepdim=True)
        case Operation.SUM:
            return x.sum(dim=axes, keepdim=True)
        case Operation.MAXIMUM:
            return x.amax(dim=axes, keepdim=True)
    raise AssertionError(f"no meaning is written down for {step.operation!r}")
