"""A module that treats an example otherwise alone than among others has no parameter graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.tracing import trace
from wired_layers import VECTOR, hidden


@pytest.mark.parametrize(
    "wiring",
    [
        lambda net, x: net.head(net.hidden(x).tanh() if x.shape[0] == 1 else net.hidden(x).sin()),
        lambda net, x: net.head(net.hidden(x).tanh()) / x.shape[0],
        lambda net, x: net.head(net.hidden(x).tanh() * (1 if x.shape[0] < 5 else 2)),
    ],
)
def test_a_network_that_looks_at_the_size_of_the_batch_is_refused(wiring: Callable[[Any, Tensor], Tensor]) -> None:
    module = hidden(wiring, head=nn.Linear(4, 2))
    with pytest.raises(ValueError, match="Wired computes something else for an example alone than for the same"):
        trace(module, VECTOR)


def test_a_batch_of_one_that_loses_its_axis_is_refused_where_it_matters() -> None:
    """Squeezed, the softmax runs over positions for one example, and over channels for several."""
    module = hidden(lambda net, x: net.head(net.hidden(x).squeeze().softmax(1)), head=nn.Linear(4, 2))
    with pytest.raises(ValueError, match="Wired computes something else for an example alone than for the same"):
        trace(module, torch.zeros(1, 5, 3))


def test_a_network_is_tried_with_random_weights_whatever_it_has() -> None:
    """A head of zeros would hide what depends on the size of the batch."""
    module = hidden(
        lambda net, x: net.head(net.hidden(x).tanh() if x.shape[0] > 1 else net.hidden(x).abs()), head=nn.Linear(4, 2)
    )
    nn.init.zeros_(module.get_submodule("head").weight)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Wired computes something else for an example alone"):
        trace(module, VECTOR)


def test_numbers_that_are_none_are_compared_too() -> None:
    """The logarithm of what is below zero is NaN, alone as among others; a factor beside it still shows."""
    trace(hidden(lambda net, x: net.hidden(x).log()), VECTOR)
    with pytest.raises(ValueError, match="Wired computes something else for an example alone"):
        trace(hidden(lambda net, x: net.hidden(x).log() * (1 if x.shape[0] < 5 else 2)), VECTOR)
