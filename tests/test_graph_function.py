"""The function read from a graph is the module's, for every supported operation; by hand where a hand can follow."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.graph_function import graph_function
from pipeline.symmetry import random_values, run
from pipeline.tracing import trace
from tiny_networks import TINY, traced


@pytest.mark.parametrize("name", TINY)
def test_the_graph_computes_what_the_module_computes(name: str) -> None:
    """In float64 the two sum the same numbers in another order, so that they differ by rounding alone."""
    template = traced(name)[1]
    rng = np.random.default_rng(2)
    values = random_values(template, rng)
    inputs = torch.from_numpy(rng.standard_normal((7, *TINY[name].shape)))
    expected = run(TINY[name].build().double().eval(), template, values, inputs)
    found = graph_function(template, values, inputs)
    assert float((found.reshape(expected.shape) - expected).abs().max()) < 1e-13 * float(expected.abs().max())


def test_two_linear_layers_by_hand() -> None:
    """relu([[1, 2], [3, -4]] (1, 1) + (0, 5)) = (3, 4); then [1, -1] (3, 4) + 0.5 = -0.5."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    template = trace(module, torch.zeros(1, 2))
    values = torch.tensor([1, 2, 3, -4, 0, 5, 1, -1, 0.5], dtype=torch.float64)
    assert graph_function(template, values, torch.ones(1, 2, dtype=torch.float64)).tolist() == [[-0.5]]


def test_a_convolution_and_a_flatten_by_hand() -> None:
    """Kernel (1, -2) on (3, 1, 4) gives (1, -7), plus 10: (11, 3). Its maximum over neighbours, then times 2: 22."""
    module = nn.Sequential(nn.Conv1d(1, 1, 2), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(1, 1, bias=False))
    template = trace(module, torch.zeros(1, 1, 3))
    values = torch.tensor([1, -2, 10, 2], dtype=torch.float64)
    assert graph_function(template, values, torch.tensor([[[3, 1, 4]]], dtype=torch.float64)).tolist() == [[22.0]]
