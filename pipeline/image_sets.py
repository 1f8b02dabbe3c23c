"""The published image data sets: what their files are called, hold and weigh, and where they are.

Reads   files of a folder, compressed or not, or of the data set's own server
Writes  what is downloaded, once, into the folder of downloads

Checksums are of the uncompressed bytes, since mirrors compress them again. They are MD5, as they are known publicly;
they guard against damage, not against malice. Only KMNIST is known by its compressed files alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from pipeline.image_files import member, read_cifar, read_idx, unzipped

Result = TypeVar("Result")
DataSetName = Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar10_grey"]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of a data set."""

    name: str
    """Uncompressed; what is downloaded is called as the end of ``url``."""
    url: str
    md5: str | None = None
    """Of the uncompressed bytes, in hexadecimal."""
    compressed_md5: str | None = None
    """Of the file at ``url``, where nothing else is known."""

    @property
    def archive(self) -> str:
        """The name of the compressed file, which holds one or several."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A published data set of ten classes."""

    name: str
    format: Literal["idx", "cifar"]
    train: tuple[DataFile, ...]
    """Of idx, the images' file and the labels'; of cifar, one file after another."""
    test: tuple[DataFile, ...]
    shape: tuple[int, int, int]
    """Of one image: channels, height, width."""
    num_train: int
    num_test: int
    num_classes: int = 10


def idx_set(name: str, folder_url: str, md5: Sequence[str | None], compressed: Sequence[str | None] = ()) -> DataSet:
    """A data set in the files of MNIST; checksums in the order of the files."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    files = tuple(
        DataFile(name=file, url=f"{folder_url}/{file}.gz", md5=plain, compressed_md5=zipped)
        for file, plain, zipped in zip(names, md5, compressed or [None] * 4, strict=True)
    )
    shape = (1, 28, 28)
    return DataSet(
        name=name, format="idx", train=files[:2], test=files[2:], shape=shape, num_train=60_000, num_test=10_000
    )


CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
CIFAR10_FILES = tuple(DataFile(name=name, url=CIFAR10_URL, md5=md5) for name, md5 in CIFAR10_MD5.items())

DATA_SETS: dict[str, DataSet] = {
    "mnist": idx_set(
        "mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion_mnist": idx_set(
        "fashion_mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    "kmnist": idx_set(
        "kmnist",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
        (None, None, None, None),
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
    "cifar10": DataSet(
        name="cifar10",
        format="cifar",
        train=CIFAR10_FILES[:5],
        test=CIFAR10_FILES[5:],
        shape=(3, 32, 32),
        num_train=50_000,
        num_test=10_000,
    ),
}
"""By name; ``cifar10_grey`` is ``cifar10`` with the mean of its colours."""


def read_split(
    data_set: DataSet, split: Literal["train", "test"], folder: Path | None
) -> tuple[UInt8[np.ndarray, "n C H W"], UInt8[np.ndarray, " n"]]:
    """Images and labels of one split, from a folder or downloaded.

    Args:
        folder: where the files lie, compressed or not; if not given, they are downloaded once.

    Raises:
        ValueError: a file is missing, damaged, not the published one, or not of the shape it should have.
    """
    files = data_set.train if split == "train" else data_set.test
    contents = [_content(data_set, file, folder) for file in files]
    if data_set.format == "idx":
        images, labels = (_read(read_idx, file, content) for file, content in zip(files, contents, strict=True))
        images = images[:, None] if images.ndim == 3 else images
    else:
        pairs = [_read(read_cifar, file, content) for file, content in zip(files, contents, strict=True)]
        images, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    count = data_set.num_train if split == "train" else data_set.num_test
    if images.shape != (count, *data_set.shape) or labels.shape != (count,):
        raise ValueError(
            f"{data_set.name}: {files[0].name} holds images {images.shape} and labels {labels.shape}; expected "
            f"{(count, *data_set.shape)} and {(count,)}"
        )
    if int(labels.max()) >= data_set.num_classes:
        raise ValueError(
            f"{data_set.name}: {files[-1].name} has the label {labels.max()}; expected 0 to {data_set.num_classes - 1}"
        )
    return images, labels


def _read(read: Callable[[bytes], Result], file: DataFile, content: bytes) -> Result:
    """What a file holds; errors name the file."""
    try:
        return read(content)
    except ValueError as error:
        raise ValueError(f"{file.name} {error}") from error


def _content(data_set: DataSet, file: DataFile, folder: Path | None) -> bytes:
    """The uncompressed bytes of a file, checked."""
    path = _download(data_set, file) if folder is None else _find(data_set, file, folder)
    content = path.read_bytes()
    if path.name != file.name:
        if file.compressed_md5 is not None and file.md5 is None:
            _check(path, content, file.compressed_md5)
        try:
            content = member(content, file.name) if path.name.endswith(".tar.gz") else unzipped(content)
        except ValueError as error:
            raise ValueError(f"{path} {error}; delete it and get it again from {file.url}") from error
    if file.md5 is not None:
        _check(path, content, file.md5)
    return content


def _check(path: Path, content: bytes, expected: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the published file: the MD5 of its bytes is {found}, expected {expected}; "
            "delete it and get it again"
        )


def _find(data_set: DataSet, file: DataFile, folder: Path) -> Path:
    """A file of a folder, or of the folder its archive unpacks to; uncompressed if it is there so."""
    for path in (folder / file.name, *sorted(folder.glob(f"*/{file.name}")), folder / file.archive):
        if path.is_file():
            return path
    raise ValueError(
        f"{data_set.name}: {folder} holds neither {file.name} nor {file.archive}; get it from {file.url}, or leave "
        "the folder away to have it downloaded"
    )


def _download(data_set: DataSet, file: DataFile) -> Path:
    """The archive of a file in the folder of downloads; fetched if it is not there."""
    import pooch  # imports requests, and files at hand do without
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")
    folder = Path(pooch.os_cache("metazoo")) / data_set.name
    known = f"md5:{file.compressed_md5}" if file.compressed_md5 else None
    path = folder / file.archive
    try:
        if not path.is_file():
            pooch.retrieve(file.url, known_hash=known, fname=file.archive, path=folder, progressbar=True)
    except (RequestException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{data_set.name}: {file.archive} cannot be downloaded from {file.url} ({type(error).__name__}: {reason}); "
            "get it elsewhere and give its folder as --images_folder"
        ) from error
    return path
