"""Other people's checkpoints: a state dict from a file, without trusting it.

Reads   .safetensors, and whatever ``torch.save`` wrote, at any place    `read_state_dict`
Writes  nothing

A pickle may hold any code. None is ever run: ``weights_only`` reads tensors and plain containers. A file may be
broken, or made to break its reader: what it says of its sizes is compared with its own length before anything is read,
and shapes are compared with the template's before any number is.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from pipeline.places import Place, is_local
from pipeline.value_layout import IntegerTensor, TensorSlot, values_from

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""Of files that may hold a state dict."""
MOST_BYTES = 2**32
"""Of a file: the most values a template may have, as float64, four times (an optimizer keeps copies)."""
CASTS = (torch.float16, torch.bfloat16, torch.float64)
"""What is cast to float32 if that is asked for; anything else was no weight of a network that ran in float32."""
SAVE = "save plain tensors: torch.save(network.state_dict(), path)"
NUM_NAMES = 5
"""Most names told in an error."""


@dataclass(frozen=True, kw_only=True)
class StateDictFile:
    """A file that holds the state dict of one network, and what its template says (a `ValueFile`)."""

    path: Place
    key: str | None = None
    """See `read_state_dict`."""
    prefix: str = ""
    """What every name in the file begins with, and those of the template do not."""
    cast: bool = False
    """Cast float16, bfloat16 and float64 to float32; else they are refused, since float64 loses digits."""
    tensors: tuple[TensorSlot, ...]
    integers: tuple[IntegerTensor, ...]

    def read(self) -> Float32[np.ndarray, " num_floats"]:
        """The values of the network.

        Raises:
            ValueError: the file holds no state dict, it does not fit the template, or a number is not finite; in one
                line that begins with the path.
        """
        state_dict = read_state_dict(self.path, self.key)
        try:
            state_dict = without_prefix(state_dict, self.prefix)
            _check_fits(state_dict, self.tensors, self.integers)
            names = [name for slot in self.tensors for name in slot.names if name in state_dict]
            floats = {name: _float32(name, state_dict[name], self.cast) for name in names}
            return values_from(state_dict | floats, self.tensors, self.integers)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def read_state_dict(path: Place, key: str | None) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Args:
        key: the entry that holds the state dict (of Lightning "state_dict"), or the entries on the way to it, joined by
            dots; none where the file itself is one.

    Raises:
        ValueError: the file cannot be read or holds something else; in one line that begins with the path.
    """
    content = _read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated formats, which are read all the same
            loaded = _load_safetensors(content) if path.suffix == ".safetensors" else _load_torch(content)
            return _tensors_of(loaded if key is None else _entry(loaded, key))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def without_prefix(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The state dict, a prefix taken from every name.

    Raises:
        ValueError: a name does not begin with it.
    """
    if other := [name for name in state_dict if not name.startswith(prefix)]:
        raise ValueError(
            f"{other[0]}: does not begin with {prefix!r}; every name must, so give the prefix that all have"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}


def _read_bytes(path: Place) -> bytes:
    """The content of a file. A disk or network that fails is an OSError, which says nothing of the file."""
    try:
        if is_local(path):  # elsewhere each of these is a request, and nothing else than files has bytes
            if not path.is_file():
                kind = "a folder" if path.is_dir() else "a link that leads nowhere, or no ordinary file"
                raise ValueError(
                    f"{path}: is {kind if path.is_symlink() or path.exists() else 'not there'}; {_EXPECTED}"
                )
            if (size := path.stat().st_size) > MOST_BYTES:
                raise ValueError(f"{path}: has {size:,} bytes; at most {MOST_BYTES:,} are read")
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}); {_EXPECTED}") from error
    if not content:
        raise ValueError(f"{path}: is empty (0 bytes); {_EXPECTED}")
    return content


_EXPECTED = "expected a file that holds a state dict"


def _load_safetensors(content: bytes) -> Any:
    try:
        return safetensors.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise ValueError(f"is no whole .safetensors file ({_line(error)}); copy or download it again") from error


def _load_torch(content: bytes) -> Any:
    """What ``torch.save`` wrote, as far as it is tensors, plain containers, numbers and texts."""
    if content[:2] == b"PK":
        _check_sizes(content)
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        # torch's own advice is to switch the protection off.
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"holds {found[1]}, and nothing is loaded but tensors and plain containers, since anything else may "
                f"run code; {SAVE}"
            ) from error
        raise ValueError(f"is no file that torch.save wrote, or damaged; {SAVE}") from error
    except Exception as error:  # anything can be wrong with bytes of anybody's
        if "TorchScript" in str(error):
            raise ValueError(f"is a TorchScript archive; expected a state dict: {SAVE}") from error
        raise ValueError(
            f"is no file that torch.save wrote, or damaged ({_line(error)}); copy or download it again"
        ) from error


def _check_sizes(content: bytes) -> None:
    """Refuse an archive that would unpack to more than it is: torch writes without compression."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise ValueError(f"is damaged or cut short ({_line(error)}); copy or download it again") from error
    if size > len(content):
        raise ValueError(
            f"has {len(content):,} bytes and would unpack to {size:,}; torch.save does not compress, so it "
            "did not write this"
        )


def _entry(loaded: Any, key: str) -> Any:
    """The entry of this name, or on the way that its parts describe."""
    if isinstance(loaded, Mapping) and key in loaded:
        return loaded[key]
    for part in key.split("."):
        if not isinstance(loaded, Mapping) or part not in loaded:
            there = _names(loaded) if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
            raise ValueError(f"has no entry {key!r}; {part!r} is looked for, and there is {there}; give another key")
        loaded = loaded[part]
    return loaded


def _tensors_of(loaded: Any) -> dict[str, Tensor]:
    """The loaded object, if it is a state dict of ordinary tensors."""
    if not isinstance(loaded, Mapping):
        raise ValueError(f"holds a {type(loaded).__name__}; expected a state dict, tensors by name: {SAVE}")
    if not loaded:
        raise ValueError("holds a state dict without entries; expected tensors by name")
    for name, entry in loaded.items():
        if not isinstance(name, str) or not isinstance(entry, Tensor):
            inner = [key for key, value in loaded.items() if isinstance(value, Mapping)]
            hint = f"the state dict may be in {_names(inner)}: name it as key" if inner else SAVE
            raise ValueError(f"{name!r}: found {type(entry).__name__}; expected tensors by name only; {hint}")
        if entry.layout != torch.strided or entry.is_meta or entry.is_quantized or entry.is_nested:
            kind = "without numbers (on the meta device)" if entry.is_meta else "sparse, quantized or nested"
            raise ValueError(f"{name}: is {kind}; expected a dense tensor: {SAVE}")
    return dict(loaded)


def _check_fits(
    state_dict: Mapping[str, Tensor], tensors: tuple[TensorSlot, ...], integers: tuple[IntegerTensor, ...]
) -> None:
    """Before any number is read: a tensor of few bytes may say that it has the shape of many."""
    shapes = {name: slot.shape for slot in tensors for name in slot.names}
    shapes |= {integer.name: integer.shape for integer in integers}
    if unknown := [name for name in state_dict if name not in shapes]:
        raise ValueError(
            f"{unknown[0]}: the network has no such tensor, but {_names(shapes)}; give what the names begin with as "
            "prefix, or another factory"
        )
    for name, shape in shapes.items():
        if name in state_dict and tuple(state_dict[name].shape) != shape:
            raise ValueError(
                f"{name}: found shape {tuple(state_dict[name].shape)}; the template expects {shape}; if the file is of "
                "another architecture, import it with another factory or other arguments"
            )


def _float32(name: str, tensor: Tensor, cast: bool) -> Tensor:
    """The tensor as float32, every number finite."""
    found = tensor.detach().resolve_neg()
    if found.dtype != torch.float32:
        dtype = str(found.dtype).removeprefix("torch.")
        if found.dtype not in CASTS:
            raise ValueError(f"{name}: found {dtype}; expected float32")
        if not cast:
            raise ValueError(f"{name}: found {dtype}; values are float32: ask for a cast if rounding does no harm")
    if not bool(found.isfinite().all()):
        raise ValueError(f"{name}: has NaN or infinite numbers; expected finite ones, so leave this network out")
    single = found.to(torch.float32)
    if not bool(single.isfinite().all()):
        raise ValueError(f"{name}: has numbers that float32 cannot hold (beyond 3.4e38); leave this network out")
    return single


def _names(names: Any) -> str:
    """Some names, for an error."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:NUM_NAMES]) + (f" and {len(listed) - NUM_NAMES} more" if len(listed) > NUM_NAMES else "")


def _line(error: BaseException) -> str:
    """The first sentence of an error, in a line."""
    text = " ".join(str(error).split()).partition(". ")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
