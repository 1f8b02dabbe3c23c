"""Law 9.1: values -> graph -> state dict is the identity, bit for bit, whatever the module holds."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.value_layout import lay_out, state_dict_from, values_from
from tiny_networks import TINY, traced


class Odd(nn.Module):
    """A state dict with everything that one may hold: tied and empty parameters, integers of every kind, no order to
    speak of."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(7))
        self.second = nn.Linear(3, 2, bias=False)
        self.first = nn.Linear(3, 2)
        self.first.weight = self.second.weight
        self.register_buffer("seen", torch.tensor([[True, False, True]]))
        self.register_buffer("order", torch.tensor([-(2**62), 2**62 + 1]))
        self.register_buffer("bytes", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.nothing = nn.Parameter(torch.empty(0, 3))
        self.scalar = nn.Parameter(torch.tensor(0.5))
        self.kernels = nn.Parameter(torch.randn(2, 3, 5, 5).contiguous(memory_format=torch.channels_last))


def bits(state_dict: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Everything there is to a state dict but its order."""
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        for name, tensor in state_dict.items()
    }


def round_trip(module: nn.Module) -> dict[str, Tensor]:
    tensors, integers = lay_out(module)
    return state_dict_from(values_from(module.state_dict(), tensors, integers), tensors, integers)


@pytest.mark.parametrize("name", TINY)
def test_the_graph_gives_back_the_state_dict_bit_for_bit(name: str) -> None:
    module, template = traced(name)
    graph = template.graph(module)
    assert bits(graph.state_dict()) == bits(module.state_dict())
    assert TINY[name].build().load_state_dict(graph.state_dict()).missing_keys == []
    assert np.array_equal(template.values_from(graph.state_dict()), graph.values)


def test_any_state_dict_comes_back_bit_for_bit() -> None:
    module = Odd()
    found = round_trip(module)
    assert bits(found) == bits(module.state_dict())
    assert found["first.weight"] is found["second.weight"]
    Odd().load_state_dict(found)


def test_not_a_number_and_minus_zero_come_back_with_their_bits() -> None:
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0x7FC12345, -0x80000000], [-0x3FFFFF, 1]], dtype=torch.int32).view(
        torch.float32
    )
    assert module.weight.isnan().any()
    assert bits(round_trip(module)) == bits(module.state_dict())


def test_values_are_the_floating_tensors_in_the_order_of_the_state_dict() -> None:
    """A module's own parameters, then its children's: 0, 1, 2*3*5*5 = 150, the tied 2*3 = 6 once, and 2 numbers."""
    module = Odd()
    tensors, integers = lay_out(module)
    expected = [module.scalar, module.kernels, module.first.weight, module.first.bias]
    values = values_from(module.state_dict(), tensors, integers)
    assert values.tolist() == torch.cat([tensor.detach().reshape(-1) for tensor in expected]).tolist()
    assert [(slot.names, slot.offset, slot.size) for slot in tensors] == [
        (("nothing",), 0, 0),
        (("scalar",), 0, 1),
        (("kernels",), 1, 150),
        (("second.weight", "first.weight"), 151, 6),
        (("first.bias",), 157, 2),
    ]
    assert {item.name: item.numbers for item in integers} == {
        "steps": (7,),
        "seen": (1, 0, 1),
        "order": (-(2**62), 2**62 + 1),
        "bytes": (0, 1, 2, 3, 4),
    }


def test_nothing_shares_memory_with_the_values() -> None:
    values = np.zeros(3, dtype=np.float32)
    tensors, integers = lay_out(nn.Linear(2, 1))
    state_dict = state_dict_from(values, tensors, integers)
    for tensor in state_dict.values():
        tensor.add_(1)
    assert not values.any()


def test_tensors_that_are_the_same_memory_are_tied() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = nn.Parameter(first.weight.data)
    module = nn.Sequential(first, second)
    assert [slot.names for slot in lay_out(module)[0]] == [("0.weight", "1.weight"), ("0.bias",), ("1.bias",)]


def overlapping() -> nn.Module:
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    second.weight = nn.Parameter(first.weight.data[1:])
    return nn.Sequential(first, second)


def complex_valued() -> nn.Module:
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    return module


def with_extra_state() -> nn.Module:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"epoch": 3}

    return Extra(2, 2)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Linear(2, 2).double(), "weight: found dtype float64; values are float32, so cast the module first"),
        (complex_valued(), "weight: found dtype complex64; values are float32"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).bfloat16()), "1.weight: found dtype bfloat16"),
        (overlapping(), "0.weight and 1.weight share memory without being the same tensor"),
        (with_extra_state(), "_extra_state: found dict in the state dict; expected a dense tensor with values"),
        (
            nn.Linear(2, 2, device="meta"),
            "weight: found Parameter in the state dict; expected a dense tensor with values",
        ),
    ],
    ids=["float64", "complex", "bfloat16", "overlapping", "extra state", "meta"],
)
def test_a_state_dict_that_is_no_values_is_refused(module: nn.Module, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        lay_out(module)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_module_is_refused_until_it_has_run() -> None:
    module = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="weight: found UninitializedParameter.*run the module once if it is lazy"):
        lay_out(module)
    module(torch.zeros(1, 3))
    assert lay_out(module)[0][0].shape == (2, 3)


def other_state_dicts() -> list[tuple[dict[str, Tensor], str]]:
    """State dicts that are not of a template with weights [2, 3] tied under two names, and why."""
    weight, bias = torch.randn(2, 3), torch.randn(2)
    right = {"a.weight": weight, "b.weight": weight, "b.bias": bias, "steps": torch.tensor(1)}
    without = {name: tensor for name, tensor in right.items() if name != "b.bias"}
    return [
        (without, r"b.bias: not in the state dict; the template expects a tensor of shape \(2,\)"),
        (right | {"c": bias}, "c: the template has no such tensor; if the architecture changed, trace it again"),
        (right | {"b.bias": weight}, r"b.bias: found shape \(2, 3\), torch.float32; the template expects \(2,\)"),
        (right | {"b.bias": bias.double()}, r"b.bias: found shape \(2,\), torch.float64; the template expects \(2,\)"),
        (right | {"b.weight": weight + 1}, "b.weight: its numbers differ from those of a.weight, but the template has"),
        (right | {"b.weight": bias}, r"b.weight: found shape \(2,\), torch.float32; the template expects \(2, 3\)"),
    ]


@pytest.mark.parametrize(("state_dict", "text"), other_state_dicts())
def test_a_state_dict_of_another_architecture_is_refused(state_dict: dict[str, Tensor], text: str) -> None:
    module = nn.Module()
    module.a, module.b = nn.Linear(3, 2, bias=False), nn.Linear(3, 2)
    module.a.weight = module.b.weight
    module.register_buffer("steps", torch.tensor(0))
    with pytest.raises(ValueError, match=text):
        values_from(state_dict, *lay_out(module))


def test_counters_may_differ_and_are_restored_as_the_template_has_them() -> None:
    module = Odd()
    tensors, integers = lay_out(module)
    later = module.state_dict() | {"steps": torch.tensor(8)}
    values = values_from(later, tensors, integers)
    assert state_dict_from(values, tensors, integers)["steps"] == 7


def test_values_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values have shape \(16,\), float32; this template has 17 values, float32"):
        traced("linear")[1].graph(np.zeros(16, dtype=np.float32))


def test_a_diverged_network_with_tied_weights_comes_back() -> None:
    """Not a number is not equal to itself, but its bits are."""
    module = Odd()
    module.first.weight.data.fill_(float("nan"))
    assert bits(round_trip(module)) == bits(module.state_dict())


def test_whole_numbers_that_may_act_are_those_of_the_template() -> None:
    class Permuted(nn.Linear):
        def __init__(self, *order: int) -> None:
            super().__init__(3, 2)
            self.register_buffer("order", torch.tensor(order))

    layout = lay_out(Permuted(2, 0, 1))
    values_from(Permuted(2, 0, 1).state_dict(), *layout)
    with pytest.raises(ValueError, match="order: its numbers are not those that the module had when it was traced"):
        values_from(Permuted(0, 1, 2).state_dict(), *layout)
