"""Published image files as arrays: MNIST's idx format and CIFAR-10's binary one.

Reads   the bytes of a file, uncompressed
Writes  uint8 arrays

Formats: http://yann.lecun.com/exdb/mnist (idx) and https://www.cs.toronto.edu/~kriz/cifar.html (binary version).
"""

import gzip
import io
import tarfile
import zlib

import numpy as np
from jaxtyping import UInt8

UNSIGNED_BYTES = 8
"""The type code of idx files that images and labels have."""
MOST_AXES = 4
CIFAR_RECORD = 1 + 3 * 32 * 32
"""A label, then the red, the green and the blue pixels, row by row."""


def read_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """The array of an idx file: two zero bytes, type, number of axes, their sizes as big-endian int32, numbers.

    Raises:
        ValueError: it is not such a file, or is shorter or longer than its head says.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTES or not 1 <= content[3] <= MOST_AXES:
        raise ValueError(f"is no idx file of unsigned bytes (it starts with {content[:4].hex() or 'nothing'})")
    num_axes = content[3]
    if len(content) < 4 + 4 * num_axes:
        raise ValueError(f"has {len(content)} bytes, which is less than its head")
    shape = np.frombuffer(content, ">u4", num_axes, 4).astype(np.int64).tolist()
    numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes)
    if len(numbers) != np.prod(shape, dtype=object):
        raise ValueError(f"has {len(numbers)} numbers; its head says {' x '.join(map(str, shape))}")
    return numbers.reshape(shape)


def read_cifar(content: bytes) -> tuple[UInt8[np.ndarray, "n 3 32 32"], UInt8[np.ndarray, " n"]]:
    """Images and labels of a CIFAR-10 file.

    Raises:
        ValueError: it is not a whole number of records.
    """
    if not content or len(content) % CIFAR_RECORD:
        raise ValueError(f"has {len(content)} bytes; expected a multiple of {CIFAR_RECORD}, one record an image")
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def unzipped(content: bytes) -> bytes:
    """What a gzip file holds.

    Raises:
        ValueError: it is none, or damaged.
    """
    try:
        plain = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"is no whole gzip file ({error})") from error
    if not content:
        raise ValueError("is no whole gzip file (it is empty)")
    return plain


def member(archive: bytes, name: str) -> bytes:
    """A file in a gzipped tar archive, by its last name.

    Raises:
        ValueError: the archive is damaged, or has no such file.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            for entry in files:
                file = files.extractfile(entry) if entry.isfile() and entry.name.rpartition("/")[2] == name else None
                if file is not None:
                    return file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(f"is no whole gzipped tar archive ({error})") from error
    raise ValueError(f"holds no {name}")
