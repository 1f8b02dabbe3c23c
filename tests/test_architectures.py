"""The networks of zoos: their shapes, their documents, how weights start, and dropout."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.architectures import Architecture, Initialisation, initialise
from pipeline.image_networks import SmallCNN
from pipeline.network_parts import Dropout
from pipeline.tracing import trace


def small_cnn(activation: str = "relu", size: int = 17) -> Architecture:
    arguments = {"input_shape": [1, size, size], "num_classes": 10, "activation": activation}
    return Architecture(family="small_cnn", arguments=arguments)


def test_small_cnn_has_the_tensors_of_the_small_cnn_zoo() -> None:
    """Its layout.csv: kernels of 144, 2304, 2304 and 160 floats, biases of 16, 16, 16 and 10; 4,970 in all."""
    shapes = {name: tuple(tensor.shape) for name, tensor in small_cnn().build().state_dict().items()}
    assert shapes == {
        "conv1.weight": (16, 1, 3, 3),
        "conv1.bias": (16,),
        "conv2.weight": (16, 16, 3, 3),
        "conv2.bias": (16,),
        "conv3.weight": (16, 16, 3, 3),
        "conv3.bias": (16,),
        "classifier.weight": (10, 16),
        "classifier.bias": (10,),
    }
    assert sum(math.prod(shape) for shape in shapes.values()) == 4970


def test_small_cnn_shrinks_a_28_pixel_image_to_2_and_averages_the_map() -> None:
    """28 -> 13 -> 6 -> 2. With all kernels 0 but their biases, every map is constant, and so is its mean."""
    network = small_cnn(size=28).build()
    assert isinstance(network, SmallCNN)
    maps = network.conv3(network.conv2(network.conv1(torch.zeros(3, 1, 28, 28))))
    assert maps.shape == (3, 16, 2, 2)
    for conv in (network.conv1, network.conv2, network.conv3):
        nn.init.zeros_(conv.weight)
    assert network.conv3.bias is not None
    expected = network.classifier(network.conv3.bias.relu())
    assert torch.allclose(network(torch.randn(3, 1, 28, 28)), expected.expand(3, 10))


def test_a_zoo_network_is_traced_and_its_dropout_leaves_no_trace() -> None:
    relu, tanh = small_cnn("relu"), small_cnn("tanh")
    template = trace(relu.build(dropout=0.3), relu.example_input())
    assert template.num_values == 4970
    assert template.digest == trace(relu.build(), relu.example_input()).digest
    assert template.digest != trace(tanh.build(), tanh.example_input()).digest


def test_an_architecture_is_its_document() -> None:
    architecture = small_cnn("tanh")
    expected = '{"arguments":{"activation":"tanh","input_shape":[1,17,17],"num_classes":10},"family":"small_cnn"}'
    assert architecture.document() == expected
    assert Architecture.parse(expected) == architecture
    assert architecture.example_input().shape == (1, 1, 17, 17)


def test_dropout_is_not_part_of_the_architecture() -> None:
    assert small_cnn().build(dropout=0.5).state_dict().keys() == small_cnn().build().state_dict().keys()


def test_images_of_15_pixels_are_just_large_enough() -> None:
    assert small_cnn(size=15).build()(torch.zeros(2, 1, 15, 15)).shape == (2, 10)
    with pytest.raises(
        ValueError, match="small_cnn: images are 14x14 pixels; its three convolutions .* at least 15x15"
    ):
        small_cnn(size=14).build()


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (
            Architecture(family="big_cnn", arguments={}),
            "unknown architecture family 'big_cnn'; expected one of small_cnn",
        ),
        (Architecture(family="small_cnn", arguments={"width": 3}), 'architecture {"arguments":{"width":3},"family"'),
        (small_cnn("gelux"), "unknown activation 'gelux'; expected relu, tanh, gelu"),
    ],
)
def test_an_unknown_architecture_is_refused(architecture: Architecture, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architecture.build()


@pytest.mark.parametrize("text", ["small_cnn", "[1]", '{"family":"small_cnn"}'])
def test_a_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected an architecture as JSON \(family, arguments\); found '"):
        Architecture.parse(text)


def started(scheme: Initialisation, std: float | None = None, seed: int = 3) -> dict[str, torch.Tensor]:
    network = small_cnn().build()
    initialise(network, scheme, std, torch.Generator().manual_seed(seed))
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("scheme", "std", "expected"),
    [
        ("glorot", None, math.sqrt(2 / (144 + 144))),  # conv2 has 16 * 9 inputs and outputs to an output channel
        ("he", None, math.sqrt(2 / 144)),
        ("normal", 0.07, 0.07),
        ("truncated_normal", 0.07, 0.07 * 0.8796),  # standard deviation of a normal cut at two of its own
        ("orthogonal", None, 1 / 12),  # 16 orthonormal rows of 144: mean square 1 / 144
    ],
)
def test_kernels_start_with_the_spread_of_their_scheme_and_biases_at_zero(
    scheme: Initialisation, std: float | None, expected: float
) -> None:
    """2,304 draws: the standard deviation of their standard deviation is 1.5 per cent, so 6 per cent is four of it."""
    state = started(scheme, std)
    assert state["conv2.weight"].std().item() == pytest.approx(expected, rel=0.06)
    assert all(not tensor.any() for name, tensor in state.items() if name.endswith("bias"))


def test_truncated_normal_stays_within_two_standard_deviations() -> None:
    assert started("truncated_normal", 0.07)["conv2.weight"].abs().max() <= 0.14
    assert started("normal", 0.07)["conv2.weight"].abs().max() > 0.14


def test_orthogonal_kernels_have_orthonormal_rows() -> None:
    rows = started("orthogonal")["conv2.weight"].reshape(16, 144)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-5)


def test_initial_weights_come_from_the_generator_and_from_nothing_else() -> None:
    torch.manual_seed(1)
    first = started("he")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    network = small_cnn().build()
    built = torch.get_rng_state()
    initialise(network, "he", None, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), built)
    assert not torch.equal(before, built)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in first.items())
    assert not torch.equal(started("he", seed=5)["conv1.weight"], first["conv1.weight"])


def test_a_module_whose_start_is_not_defined_is_refused() -> None:
    with pytest.raises(ValueError, match="1 is a PReLU; how its parameters start is not defined"):
        initialise(nn.Sequential(nn.Conv2d(1, 2, 3), nn.PReLU()), "he", None, torch.Generator())


@given(rate=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
def test_dropout_zeroes_its_rate_of_elements_and_keeps_the_mean(rate: float, seed: int) -> None:
    """10,007 elements: six standard deviations of the rate that is found are 6 * 0.5 / 100 = 0.03."""
    dropout = Dropout(rate)
    dropout.generator = torch.Generator().manual_seed(seed)
    result = dropout(torch.ones(10007))
    assert (result == 0).float().mean().item() == pytest.approx(rate, abs=0.03)
    assert torch.allclose(result[result != 0], torch.tensor(1 / (1 - rate)))


def test_dropout_does_nothing_at_rate_zero_or_in_eval_mode() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_dropout_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=f"dropout is {rate}; expected at least 0 and less than 1"):
        Dropout(rate)
