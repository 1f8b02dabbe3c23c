"""Other people's checkpoints: what is read, what is refused, and that no file runs code or breaks its reader."""

import collections
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from upath import UPath

from pipeline.state_dict_files import StateDictFile, read_state_dict
from pipeline.value_layout import lay_out


class Counting(nn.Module):
    """Weights, an index that is part of the template, and a counter that may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("index", torch.tensor([2, 0, 1]))


NETWORK = Counting()
TENSORS, INTEGERS = lay_out(NETWORK)


def saved(content: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def plain() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in NETWORK.state_dict().items()}


def values() -> bytes:
    floats = [tensor.reshape(-1) for tensor in plain().values() if tensor.is_floating_point()]
    return torch.cat(floats).numpy().tobytes()


def state_dict_file(path: Path | UPath, **settings: Any) -> StateDictFile:
    return StateDictFile(path=path, tensors=TENSORS, integers=INTEGERS, **settings)


def refusal(path: Path, content: bytes | None = None, **settings: Any) -> str:
    """The error that a file gives: one line that begins with its path."""
    if content is not None:
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="^[^\n]+$") as caught:
            state_dict_file(path, **settings).read()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    assert "weights_only" not in text, "no advice to switch the protection off"
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("last.pt", saved),
        ("last.bin", lambda content: saved(content, _use_new_zipfile_serialization=False)),
        ("last.safetensors", save_safetensors),
    ],
)
def test_every_format_gives_the_values_bit_for_bit(
    tmp_path: Path, name: str, write: Callable[[dict[str, Tensor]], bytes]
) -> None:
    path = tmp_path / name
    path.write_bytes(write(plain()))
    assert state_dict_file(path).read().tobytes() == values()


def test_an_object_store_is_a_place_too() -> None:
    path = UPath("memory://state_dict_files/last.pt")
    path.write_bytes(saved(plain()))
    assert state_dict_file(path).read().tobytes() == values()
    missing = path.with_name("first.pt")
    with pytest.raises(ValueError, match="cannot be read \\(FileNotFoundError\\)"):
        read_state_dict(missing, None)


@pytest.mark.parametrize("key", ["state_dict", "networks.student", "dotted.name"])
def test_a_key_names_the_entry_even_within_entries(tmp_path: Path, key: str) -> None:
    path = tmp_path / "lightning.ckpt"
    path.write_bytes(
        saved({"epoch": 3, "state_dict": plain(), "networks": {"student": plain()}, "dotted.name": plain()})
    )
    assert state_dict_file(path, key=key).read().tobytes() == values()


def test_a_prefix_is_taken_from_every_name_or_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pt"
    wrapped = {f"module.{name}": tensor for name, tensor in plain().items()}
    path.write_bytes(saved(wrapped))
    assert state_dict_file(path, prefix="module.").read().tobytes() == values()
    assert refusal(path, saved(wrapped | {"loss": torch.ones(1)}), prefix="module.").startswith(
        "loss: does not begin with 'module.'"
    )
    assert refusal(path, saved(wrapped)).startswith(
        "module.index: the network has no such tensor, but 'first.weight', 'first"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_cast_if_that_is_asked_for_and_refused_otherwise(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "other.pt"
    other = plain() | {"first.weight": NETWORK.first.weight.detach().to(dtype)}
    path.write_bytes(saved(other))
    found = state_dict_file(path, cast=True).read()
    assert found[:6].tobytes() == other["first.weight"].float().numpy().tobytes()
    assert refusal(path).startswith(f"first.weight: found {str(dtype).removeprefix('torch.')}; values are float32")


@given(st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_a_cast_of_float64_rounds_as_numpy_does_or_is_refused(numbers: list[float]) -> None:
    path = UPath("memory://state_dict_files/cast.pt")
    path.write_bytes(saved(plain() | {"first.weight": torch.tensor(numbers, dtype=torch.float64).reshape(3, 2)}))
    with np.errstate(over="ignore"):
        expected = np.array(numbers).astype(np.float32)
    if np.isfinite(expected).all():
        assert state_dict_file(path, cast=True).read()[:6].tobytes() == expected.tobytes()
    else:
        with pytest.raises(ValueError, match="first.weight: has numbers that float32 cannot hold"):
            state_dict_file(path, cast=True).read()


def test_float8_is_refused_even_where_a_cast_is_asked_for(tmp_path: Path) -> None:
    weight = NETWORK.first.weight.detach().to(torch.float8_e4m3fn)
    content = saved(plain() | {"first.weight": weight})
    assert refusal(tmp_path / "small.pt", content, cast=True).startswith("first.weight: found float8_e4m3fn; expected")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_by_the_name_of_the_tensor(tmp_path: Path, number: float) -> None:
    broken = plain()
    broken["norm.running_var"][1] = number
    assert refusal(tmp_path / "x.pt", saved(broken)).startswith("norm.running_var: has NaN or infinite numbers")


def test_a_counter_may_have_gone_on_and_an_index_may_not_differ(tmp_path: Path) -> None:
    path = tmp_path / "later.pt"
    path.write_bytes(saved(plain() | {"norm.num_batches_tracked": torch.tensor(77)}))
    assert state_dict_file(path).read().tobytes() == values()
    assert refusal(path, saved(plain() | {"index": torch.tensor([0, 1, 2])})).startswith("index: its numbers are not")


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("suffix", ["pt", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("write", [saved, pickle.dumps, lambda evil: saved({"a": torch.ones(1), "b": evil})])
def test_code_in_a_file_is_never_run(tmp_path: Path, suffix: str, write: Callable[[Evil], bytes]) -> None:
    evil = Evil(tmp_path / "it_ran")
    message = refusal(tmp_path / f"evil.{suffix}", write(evil))
    assert suffix == "safetensors" or "nothing is loaded but tensors" in message or "is no file that torch" in message
    assert not evil.path.exists()
    pickle.loads(pickle.dumps(evil))  # noqa: S301  # the attack works on a reader that trusts
    assert evil.path.exists()


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    message = refusal(tmp_path / "whole.pt", saved(nn.Linear(2, 3)))
    assert "holds torch.nn.modules.linear.Linear, and nothing is loaded but tensors" in message
    assert message.endswith("save plain tensors: torch.save(network.state_dict(), path)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes); expected a file that holds a state dict"),
        (b"abc", "is no file that torch.save wrote, or damaged (IndexError"),
        (saved(plain())[:-40], "is damaged or cut short"),
        (saved(plain())[:100], "is damaged or cut short"),
        (saved(plain(), _use_new_zipfile_serialization=False)[:-3], "is no file that torch.save wrote, or damaged"),
        (saved([torch.ones(3)]), "holds a list; expected a state dict"),
        (saved(torch.ones(3)), "holds a Tensor; expected a state dict"),
        (saved({}), "holds a state dict without entries"),
        (saved({"epoch": 3}), "'epoch': found int; expected tensors by name only; save plain tensors"),
        (saved({3: torch.ones(3)}), "3: found Tensor; expected tensors by name only"),
        (saved({"epoch": 3, "state_dict": plain()}), "the state dict may be in 'state_dict': name it as key"),
        (saved(plain() | {"first.weight": torch.ones(3, 2).to_sparse()}), "first.weight: is sparse, quantized or"),
        (saved(plain() | {"first.weight": torch.ones(3, 2, device="meta")}), "first.weight: is without numbers"),
        (saved(plain() | {"first.weight": torch.ones(2, 3)}), "first.weight: found shape (2, 3); the template expects"),
        (
            saved(plain() | {"first.weight": torch.ones(3, 2).to(torch.complex64)}),
            "first.weight: found complex64; expe",
        ),
        (saved(plain() | {"first.weight": torch.ones(3, 2).long()}), "first.weight: found int64; expected float32"),
        (saved(plain() | {"more": torch.ones(1)}), "more: the network has no such tensor, but 'first.weight'"),
        (
            saved({name: tensor for name, tensor in plain().items() if name != "first.bias"}),
            "first.bias: not in the st",
        ),
        (saved(plain() | {"first.weight": torch.ones(1, 1).expand(2**40, 2**20)}), "first.weight: found shape (10995"),
        (saved(plain() | {"index": torch.ones(1).long().expand(2**60)}), "index: found shape (11529"),
    ],
)
def test_what_is_no_state_dict_of_the_network_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path / "x.pt", content)


def header(entries: Any, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"abc",
        struct.pack("<Q", 2**62) + b"{}",
        header([]),
        header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, b"12345678"),
        header({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "XX", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
        header({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"1"),
        save_safetensors(plain())[:-1],
    ],
)
def test_a_safetensors_file_that_lies_about_itself_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path / "x.safetensors", content).startswith("is no whole .safetensors file (")


def test_an_archive_that_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10**7))
    assert "would unpack to 10,000,000" in refusal(path)


def test_tensors_of_a_device_that_is_not_here_are_read(tmp_path: Path) -> None:
    """Where torch wrote that a tensor was on the processor, this file says an Intel GPU."""
    content = saved(plain(), _use_new_zipfile_serialization=False)
    elsewhere = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00xpu")
    assert elsewhere != content
    path = tmp_path / "x.pt"
    path.write_bytes(elsewhere)
    assert state_dict_file(path).read().tobytes() == values()


def test_warnings_of_torch_do_not_leak(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = saved({"first.weight": torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8)})
    assert refusal(tmp_path / "x.pt", content).startswith("first.weight: is sparse, quantized or nested")


def test_a_key_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    content = saved({"model": plain(), "epoch": 3})
    assert "'state_dict' is looked for, and there is 'model', 'epoch'" in refusal(
        tmp_path / "x.pt", content, key="state_dict"
    )
    assert "'net' is looked for, and there is a int" in refusal(tmp_path / "x.pt", content, key="epoch.net")


def test_what_is_no_ordinary_file_is_refused_without_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "broken.pt").symlink_to("nowhere.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    assert refusal(tmp_path / "folder.pt").startswith("is a folder; expected a file")
    assert refusal(tmp_path / "loop.pt").startswith("is a link that leads nowhere, or no ordinary file")
    assert refusal(tmp_path / "broken.pt").startswith("is a link that leads nowhere")
    assert refusal(tmp_path / "pipe.pt").startswith("is a link that leads nowhere, or no ordinary file")
    assert refusal(tmp_path / "missing.pt").startswith("is not there; expected a file")
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(2**33)  # a hole: no byte on the disk
    assert refusal(tmp_path / "huge.pt").startswith("has 8,589,934,592 bytes; at most")

    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "mine.pt").write_bytes(saved(plain()))
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert refusal(tmp_path / "mine.pt").startswith("cannot be read (PermissionError)")


def test_a_disk_that_fails_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    (tmp_path / "mine.pt").write_bytes(saved(plain()))
    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match="Input/output error"):
        state_dict_file(tmp_path / "mine.pt").read()


@given(st.data())
def test_a_file_with_any_byte_altered_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    write = data.draw(
        st.sampled_from([saved, save_safetensors, lambda d: saved(d, _use_new_zipfile_serialization=False)])
    )
    content = bytearray(write(plain()))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = UPath(f"memory://state_dict_files/altered{'.safetensors' if write is save_safetensors else '.pt'}")
    path.write_bytes(bytes(content))
    found, refused = None, ""
    try:
        found = state_dict_file(path).read()
    except ValueError as error:
        refused = str(error)
    assert np.isfinite(found).all() if found is not None else refused.startswith(f"{path}: ")
    assert len(refused.splitlines()) <= 1


def test_ordered_dicts_and_parameters_are_state_dicts_too(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(saved(collections.OrderedDict(NETWORK.state_dict(keep_vars=True))))
    assert state_dict_file(path).read().tobytes() == values()
