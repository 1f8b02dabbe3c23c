"""Families of networks: what is drawn, that all of it has a parameter graph, and what is refused."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.architectures import Architecture, initialise
from pipeline.distributions import Choice
from pipeline.families import FamilyName, FamilySpec, arguments_of
from pipeline.images import ImageSpec
from pipeline.network_parts import Dropout
from pipeline.symmetry import check
from pipeline.tracing import trace

SPECS: dict[str, dict[str, list[Any]]] = {
    "small_cnn": {"activation": ["relu", "tanh"]},
    "varying_cnn": {
        "width": [4, 6],
        "depth": [1, 3],
        "kernel_size": [3, 5],
        "stride": [2],
        "num_linear": [1, 2],
        "norm": ["none", "batch", "group"],
        "activation": ["relu", "gelu", "silu"],
        "pooling": ["mean", "max"],
    },
    "cnn1d": {
        "width": [4, 6],
        "depth": [1, 2],
        "kernel_size": [9],
        "stride": [4],
        "norm": ["none", "batch", "group"],
        "activation": ["relu", "leaky_relu"],
        "pooling": ["mean", "max"],
    },
    "deepsets": {"width": [4, 6], "depth": [1, 2, 3], "activation": ["relu", "tanh"]},
    "resnet": {
        "widths": [(4,), (4, 6)],
        "blocks_per_stage": [1, 2],
        "norm": ["none", "batch", "group"],
        "activation": ["relu", "sigmoid"],
    },
    "vit": {
        "width": [4, 8],
        "depth": [1, 2],
        "patch_size": [4, 8],
        "num_heads": [1, 2],
        "expansion": [1, 2],
        "activation": ["gelu"],
    },
    "mlp": {"width": [4, 6], "depth": [1, 2], "pool": [1, 2], "activation": ["relu", "tanh"]},
}
SMALL = ImageSpec(name="digits", size=16)


def family(name: str, **changes: Any) -> FamilySpec:
    """A specification with every argument of a family, or others."""
    arguments = {argument: Choice(choice=tuple(values)) for argument, values in SPECS[name].items()}
    return FamilySpec(family=name, **{**arguments, **changes})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", get_args(FamilyName))
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_network_of_a_family_has_a_right_parameter_graph(name: str, seed: int) -> None:
    architecture = family(name).draw(SMALL, lambda argument: np.random.default_rng([seed, len(argument)]))
    network = architecture.build(dropout=0.1)
    initialise(network, "he", None, torch.Generator().manual_seed(seed))
    template = trace(network, architecture.example_input())
    report = check(network, template, architecture.example_input())
    assert all("key" in inert for inert in report.inert)  # the bias of keys, in vit
    assert template.digest == trace(architecture.build(), architecture.example_input()).digest


@pytest.mark.parametrize("name", get_args(FamilyName))
def test_networks_classify_images_and_learn_from_each_of_their_parameters(name: str) -> None:
    architecture = family(name).draw(SMALL, lambda _: np.random.default_rng(1))
    network = architecture.build(dropout=0.2).train()
    initialise(network, "he", None, torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = torch.Generator().manual_seed(1)
    logits = network(torch.randn(5, *SMALL.shape, generator=torch.Generator().manual_seed(2)))
    assert logits.shape == (5, 10)
    logits.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("name", get_args(FamilyName))
def test_dropout_stands_in_every_family(name: str) -> None:
    architecture = family(name).draw(SMALL, lambda _: np.random.default_rng(1))
    assert any(isinstance(module, Dropout) for module in architecture.build(dropout=0.5).modules())


def test_arguments_are_drawn_each_from_a_stream_of_its_own() -> None:
    streams: list[str] = []

    def stream(name: str) -> np.random.Generator:
        streams.append(name)
        return np.random.default_rng(len(streams))

    drawn = family("varying_cnn").draw(SMALL, stream)
    assert sorted(streams) == sorted(arguments_of("varying_cnn"))
    assert drawn.arguments.keys() == {"input_shape", "num_classes", *streams}
    assert Architecture.parse(drawn.document()) == drawn


def test_a_mean_of_two_positions_is_what_a_deep_set_adds() -> None:
    """By hand, for a set of two pixels: each is what it is itself and the mean of both."""
    network = Architecture(
        family="deepsets", arguments={"input_shape": [1, 1, 2], "num_classes": 3, "width": 4, "depth": 2}
    ).build()
    images = torch.randn(2, 1, 1, 2)
    first, own, mean, last = (network.get_submodule(name) for name in ("first", "own.0", "mean.0", "classifier"))
    pixels = [torch.stack([images[:, 0, 0, x], *torch.tensor([[-1.0], [2.0 * x - 1]]).expand(2, 2)], 1) for x in (0, 1)]
    hidden = [first(pixel).relu() for pixel in pixels]
    second = [(own(each) + mean((hidden[0] + hidden[1]) / 2)).relu() for each in hidden]
    assert torch.allclose(network(images), last((second[0] + second[1]) / 2), atol=1e-6)


def test_raster_convolutions_read_row_after_row() -> None:
    """A kernel of three taps, two of them at the end of the first row and one at the start of the second."""
    arguments = {"input_shape": [1, 2, 4], "num_classes": 2, "width": 1, "depth": 1, "kernel_size": 3, "stride": 1}
    network = Architecture(family="cnn1d", arguments={**arguments, "activation": "tanh"}).build()
    conv = network.get_submodule("blocks.0.0")
    assert isinstance(conv, nn.Conv1d)
    image = torch.arange(8.0).reshape(1, 1, 2, 4)
    found = conv(image.flatten(2))[0, 0, 3]
    assert conv.bias is not None
    assert torch.allclose(found, (conv.weight[0, 0] * torch.tensor([2.0, 3.0, 4.0])).sum() + conv.bias[0])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("small_cnn", {"width": [4]}, "architecture: small_cnn has no width; it has activation$"),
        ("mlp", {"depth": None}, r"architecture: mlp needs depth, such as depth: \{choice: \[...\]\}"),
        ("mlp", {"depth": []}, "architecture: depth: choice is empty"),
        ("mlp", {"depth": [2, 0]}, r"architecture: depth is one of \[2, 0\]; expected numbers from 1 on"),
        ("resnet", {"widths": [()]}, r"architecture: widths is one of \[\(\)\]; expected numbers from 1 on"),
    ],
)
def test_impossible_families_are_refused(name: str, changes: dict[str, list[Any] | None], message: str) -> None:
    choices = {key: None if values is None else Choice(choice=tuple(values)) for key, values in changes.items()}
    with pytest.raises(ValueError, match=message):
        family(name, **choices)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("varying_cnn", {"kernel_size": 4}, "varying_cnn: kernel_size is 4; expected an odd number"),
        ("varying_cnn", {"depth": 9}, "varying_cnn: its last convolution sees a map of 1x1, on which a kernel of 3"),
        ("varying_cnn", {"norm": "group", "width": 5}, "group norm of 5 channels; expected a multiple of 2"),
        ("cnn1d", {"depth": 9}, "cnn1d: its last convolution sees a map of 1, on which"),
        ("vit", {"patch_size": 5}, "vit: patch_size is 5; expected a divisor of 16 and 16"),
        ("vit", {"width": 5, "num_heads": 2}, r"vit: width is 5; expected a multiple of 2 \(num_heads\)"),
        ("mlp", {"pool": 3}, "mlp: pool is 3; expected a divisor of 16 and 16"),
        ("cnn1d", {"pooling": "median"}, "unknown pooling 'median'; expected mean or max"),
        ("resnet", {"norm": "layer"}, "unknown norm 'layer'; expected none, batch or group"),
    ],
)
def test_networks_that_do_not_fit_their_images_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    first = {argument: values[0] for argument, values in SPECS[name].items()}
    shape = {"input_shape": list(SMALL.shape), "num_classes": 10}
    architecture = Architecture(family=name, arguments={**shape, **first, "activation": "relu", **arguments})
    with pytest.raises(ValueError, match=message):
        architecture.build()(architecture.example_input())
