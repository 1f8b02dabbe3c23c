"""Implicit networks: their functions, their graphs, and many fitted at once as each alone."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.siren import Siren, initialise_siren, pixel_coordinates
from pipeline.siren_trainer import decibels, fit_sirens, flat_values, render
from pipeline.symmetry import check
from pipeline.tracing import trace
from pipeline.value_layout import lay_out, values_from

SIZE = 6


def siren(seed: int = 0, channels: int = 1) -> Siren:
    network = Siren(input_shape=[2], channels=channels, width=8, depth=2, omega=10.0)
    initialise_siren(network, torch.Generator().manual_seed(seed))
    return network


def images(count: int, channels: int = 1) -> Tensor:
    """Smooth ones: products of waves, in [-1, 1]."""
    rows, columns = pixel_coordinates(SIZE, SIZE).unbind(1)
    waves = [torch.sin((1 + number) * rows) * torch.cos(number * columns) for number in range(count * channels)]
    return torch.stack(waves).reshape(count, channels, -1).transpose(1, 2)


def test_a_siren_is_what_its_formula_says() -> None:
    network, point = siren(), torch.tensor([[0.3, -0.7]])
    state = network.state_dict()
    (first, one), (second, two), (last, three) = (
        (state[f"layers.{number}.weight"], state[f"layers.{number}.bias"]) for number in range(3)
    )
    hidden = torch.sin(10 * (second @ torch.sin(10 * (first @ point[0] + one)) + two))
    assert torch.allclose(network(point)[0], last @ hidden + three, atol=1e-6)


def test_its_graph_is_right_and_exchanges_hidden_neurons() -> None:
    report = check(siren(), trace(siren(), torch.zeros(1, 2)), torch.zeros(1, 2))
    assert (report.group, report.inert) == ("S(8)^2", ())


def test_weights_bring_numbers_of_unit_variance_into_every_sine() -> None:
    """Sitzmann et al., beside the biases, from the second layer on; over 64 neurons and 1,024 places."""
    network = Siren(input_shape=[2], channels=1, width=64, depth=5, omega=30.0)
    initialise_siren(network, torch.Generator().manual_seed(0))
    hidden = pixel_coordinates(32, 32)
    for number, layer in enumerate(network.layers[:-1]):
        assert isinstance(layer, nn.Linear)
        if number > 0:
            assert (30.0 * functional.linear(hidden, layer.weight)).std().item() == pytest.approx(1.0, rel=0.1)
        hidden = torch.sin(30.0 * layer(hidden))


def test_pixels_are_numbered_row_by_row_from_corner_to_corner() -> None:
    assert pixel_coordinates(2, 3).tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]


def test_values_are_those_of_the_state_dict() -> None:
    network = siren()
    expected = values_from(network.state_dict(), *lay_out(network))
    assert flat_values(network).numpy().tobytes() == expected.tobytes()


def test_many_are_rendered_as_each_alone() -> None:
    networks = [siren(seed, channels=3) for seed in range(4)]
    coordinates = pixel_coordinates(SIZE, SIZE)
    found = render(networks[0], torch.stack([flat_values(network) for network in networks]), coordinates)
    for network, picture in zip(networks, found, strict=True):
        assert torch.allclose(picture, network(coordinates), atol=1e-5)


def test_fitting_is_adam_on_the_mean_squared_error() -> None:
    """In double precision, 30 steps, against torch's own optimizer on each network alone."""
    networks, pictures = [siren(seed).double() for seed in range(3)], images(3).double()
    coordinates = pixel_coordinates(SIZE, SIZE).double()
    rates = torch.tensor([1e-2, 1e-3, 3e-3], dtype=torch.float64)
    endless = torch.full((3,), math.inf, dtype=torch.float64)
    fit = fit_sirens(networks, coordinates, pictures, learning_rate=rates, psnr=endless, most_steps=30)
    for network, picture, values, rate in zip(networks, pictures, fit.values, rates.tolist(), strict=True):
        stepper = torch.optim.Adam(network.parameters(), lr=rate)
        for _ in range(30):
            stepper.zero_grad()
            (network(coordinates) - picture).square().mean().backward()
            stepper.step()
        assert torch.allclose(values, flat_values(network), atol=1e-9)
    assert fit.steps.tolist() == [30, 30, 30]


def test_each_stops_at_its_psnr_and_is_the_same_alone_and_among_others() -> None:
    networks, pictures = [siren(seed) for seed in range(5)], images(5)
    coordinates = pixel_coordinates(SIZE, SIZE)
    rates, asked = torch.full((5,), 1e-2), torch.tensor([25.0, 20.0, 25.0, 30.0, 25.0], dtype=torch.float64)
    fit = fit_sirens(networks, coordinates, pictures, learning_rate=rates, psnr=asked, most_steps=400)
    assert (fit.psnr >= asked).all()
    assert len(set(fit.steps.tolist())) > 1
    assert (fit.steps < 400).all()
    errors = (render(networks[0], fit.values, coordinates) - pictures).square().flatten(1).mean(1)
    assert torch.allclose(decibels(errors).double(), fit.psnr, atol=1e-3)
    for number in (0, 3):
        only = slice(number, number + 1)
        alone = fit_sirens(
            [networks[number]], coordinates, pictures[only], learning_rate=rates[only], psnr=asked[only], most_steps=400
        )
        assert alone.steps.item() == fit.steps[number].item()
        assert torch.allclose(alone.values[0], fit.values[number], atol=1e-4)


def test_one_that_is_lost_stops_and_leaves_the_others_be() -> None:
    networks, pictures = [siren(seed) for seed in range(3)], images(3)
    torch.nn.init.constant_(networks[1].layers[0].weight, math.nan)  # pyright: ignore[reportArgumentType]
    rates, asked = torch.full((3,), 1e-2), torch.full((3,), 99.0, dtype=torch.float64)
    coordinates = pixel_coordinates(SIZE, SIZE)
    fit = fit_sirens(networks, coordinates, pictures, learning_rate=rates, psnr=asked, most_steps=50)
    assert fit.steps.tolist() == [50, 0, 50]
    assert torch.isfinite(fit.psnr).tolist() == [True, False, True]


def test_decibels_by_hand() -> None:
    """An error of a tenth of the range: 20 dB."""
    assert decibels(torch.tensor([0.04, 0.0004])).tolist() == pytest.approx([20.0, 40.0])
