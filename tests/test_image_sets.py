"""Published data sets: their formats, their checksums, and what is said about files that are not theirs."""

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline import images as images_module
from pipeline.image_files import member, read_cifar, read_idx, unzipped
from pipeline.image_sets import DATA_SETS, DataFile, DataSet, read_split
from pipeline.images import ImageSpec, load_images


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as MNIST's authors describe the format."""
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@given(arrays(np.uint8, array_shapes(max_dims=4, max_side=5)))
def test_what_is_written_as_idx_is_read(array: np.ndarray) -> None:
    assert np.array_equal(read_idx(idx_bytes(array)), array)


@given(arrays(np.uint8, array_shapes(max_dims=3, max_side=4)), st.data())
def test_an_idx_file_of_another_length_is_refused(array: np.ndarray, data: st.DataObject) -> None:
    content = idx_bytes(array)
    length = data.draw(st.integers(0, len(content) - 1))
    for wrong in (content[:length], content + b"\0"):
        with pytest.raises(ValueError, match=r"^(is no idx file|has \d+ (bytes|numbers))"):
            read_idx(wrong)


def test_an_idx_file_with_an_absurd_head_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="has 0 numbers; its head says 4294967295 x 4294967295 x 4294967295"):
        read_idx(struct.pack(">HBB", 0, 8, 3) + b"\xff" * 12)
    with pytest.raises(ValueError, match=r"is no idx file of unsigned bytes \(it starts with 00000d03\)"):
        read_idx(struct.pack(">HBB", 0, 13, 3) + bytes(12))


def cifar_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Records of a label and the three colour planes."""
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


@pytest.fixture
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, 20, dtype=np.uint8)


def test_cifar_files_are_labels_and_planes(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = read_cifar(cifar_bytes(*pictures))
    assert np.array_equal(images, pictures[0])
    assert np.array_equal(labels, pictures[1])
    with pytest.raises(ValueError, match="has 61459 bytes; expected a multiple of 3073"):
        read_cifar(cifar_bytes(*pictures)[:-1])


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"cut off")[:-9]])
def test_damaged_archives_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is no whole gzip file"):
        unzipped(content)
    with pytest.raises(ValueError, match="is no whole gzipped tar archive"):
        member(content, "data_batch_1.bin")


class TinySet:
    """A data set of idx files in a folder, 20 images for training and 10 for testing."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(1)
        self.arrays = {
            "train-images": rng.integers(0, 256, (20, 5, 5), dtype=np.uint8),
            "train-labels": rng.integers(0, 10, 20, dtype=np.uint8),
            "test-images": rng.integers(0, 256, (10, 5, 5), dtype=np.uint8),
            "test-labels": rng.integers(0, 10, 10, dtype=np.uint8),
        }
        self.folder = folder
        files = [
            DataFile(name=name, url=f"http://127.0.0.1:1/{name}.gz", md5=md5(idx_bytes(array)))
            for name, array in self.arrays.items()
        ]
        self.set = DataSet(
            name="tiny",
            format="idx",
            train=(files[0], files[1]),
            test=(files[2], files[3]),
            shape=(1, 5, 5),
            num_train=20,
            num_test=10,
        )

    def write(self, *, zipped: bool) -> None:
        for name, array in self.arrays.items():
            content = idx_bytes(array)
            (self.folder / (f"{name}.gz" if zipped else name)).write_bytes(
                gzip.compress(content) if zipped else content
            )


@pytest.fixture
def tiny(tmp_path: Path) -> TinySet:
    return TinySet(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_are_read_compressed_or_not(tiny: TinySet, zipped: bool) -> None:
    tiny.write(zipped=zipped)
    images, labels = read_split(tiny.set, "train", tiny.folder)
    assert np.array_equal(images[:, 0], tiny.arrays["train-images"])
    assert np.array_equal(labels, tiny.arrays["train-labels"])
    assert len(read_split(tiny.set, "test", tiny.folder)[0]) == 10


def test_a_missing_file_is_named(tiny: TinySet) -> None:
    with pytest.raises(ValueError, match=r"tiny: .* holds neither train-images nor train-images.gz; get it from http"):
        read_split(tiny.set, "train", tiny.folder)


def test_a_file_that_is_not_the_published_one_is_refused(tiny: TinySet) -> None:
    tiny.write(zipped=True)
    altered = tiny.arrays["train-images"].copy()
    altered[3, 2, 1] ^= 1
    (tiny.folder / "train-images.gz").write_bytes(gzip.compress(idx_bytes(altered)))
    with pytest.raises(ValueError, match=r"train-images.gz is not the published file: the MD5 of its bytes is \w+, ex"):
        read_split(tiny.set, "train", tiny.folder)
    (tiny.folder / "train-images.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"train-images.gz is no whole gzip file .*; delete it and get it again from"):
        read_split(tiny.set, "train", tiny.folder)


def test_files_known_by_their_archive_are_checked_by_it(tiny: TinySet) -> None:
    tiny.write(zipped=True)
    archive = tiny.folder / "train-images.gz"
    known = replace(tiny.set.train[0], md5=None, compressed_md5=md5(archive.read_bytes()))
    data_set = replace(tiny.set, train=(known, tiny.set.train[1]))
    assert len(read_split(data_set, "train", tiny.folder)[0]) == 20
    archive.write_bytes(gzip.compress(idx_bytes(tiny.arrays["train-images"]), compresslevel=1, mtime=7))
    with pytest.raises(ValueError, match=r"train-images.gz is not the published file"):
        read_split(data_set, "train", tiny.folder)


def test_files_of_another_shape_are_refused(tiny: TinySet) -> None:
    tiny.write(zipped=False)
    with pytest.raises(ValueError, match=r"tiny: train-images holds images \(20, 1, 5, 5\) and labels \(20,\); expec"):
        read_split(replace(tiny.set, num_train=21), "train", tiny.folder)
    with pytest.raises(ValueError, match=r"tiny: train-labels has the label 9; expected 0 to 2"):
        read_split(replace(tiny.set, num_classes=3), "train", tiny.folder)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of what lies in a folder, on this machine only."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def downloadable(tiny: TinySet, address: str) -> DataSet:
    """The tiny set with its files at an address."""

    def moved(files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
        return tuple(replace(file, url=f"{address}/{file.name}.gz") for file in files)

    return replace(tiny.set, train=moved(tiny.set.train), test=moved(tiny.set.test))


def test_files_are_downloaded_once(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = TinySet(tmp_path / "served")
    tiny.write(zipped=True)
    data_set = downloadable(tiny, server)
    first = read_split(data_set, "train", None)
    assert "100%" in capfd.readouterr().err
    (tmp_path / "served" / "train-images.gz").unlink()
    assert np.array_equal(read_split(data_set, "train", None)[0], first[0])
    assert capfd.readouterr().err == ""


def test_a_failed_download_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for address in (server, "http://127.0.0.1:1"):
        with pytest.raises(ValueError, match=r"tiny: train-images.gz cannot be downloaded from http.*--images_folder"):
            read_split(downloadable(TinySet(tmp_path), address), "train", None)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.fixture
def cifar(tmp_path: Path, pictures: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of 20 images for training, in two files, and 20 for testing, in its archive."""
    images, labels = pictures
    contents = {
        "data_batch_1.bin": cifar_bytes(images[:10], labels[:10]),
        "data_batch_2.bin": cifar_bytes(images[10:], labels[10:]),
        "test_batch.bin": cifar_bytes(images, labels),
    }
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    known = DATA_SETS["cifar10"]
    files = [
        replace(file, md5=md5(contents[file.name])) for file in (*known.train, *known.test) if file.name in contents
    ]
    small = replace(known, train=tuple(files[:2]), test=tuple(files[2:]), num_train=20, num_test=20)
    monkeypatch.setitem(images_module.DATA_SETS, "cifar10", small)
    return tmp_path


def test_colour_images_are_those_of_the_archive(cifar: Path, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    found = load_images(ImageSpec(name="cifar10"), cifar)
    order = np.random.default_rng(0).permutation(20)
    assert np.allclose(found.train_images, pictures[0][order] / 127.5 - 1, atol=1e-6)
    assert np.array_equal(found.train_labels, pictures[1][order])
    assert (found.train_images.min(), found.train_images.max()) == (-1, 1)


def test_grey_images_are_means_of_colours_and_fewer_are_the_first(cifar: Path) -> None:
    colour = load_images(ImageSpec(name="cifar10"), cifar)
    grey = load_images(ImageSpec(name="cifar10_grey", num_train=7, num_test=3, size=40), cifar)
    assert grey.train_images.shape == (7, 1, 40, 40)
    assert np.array_equal(grey.train_labels, colour.train_labels[:7])
    assert np.array_equal(grey.test_labels, colour.test_labels[:3])
    small = load_images(ImageSpec(name="cifar10_grey", num_train=7), cifar)
    assert np.allclose(small.train_images[:, 0], colour.train_images[:7].mean(axis=1), atol=1e-6)


def test_a_folder_of_unpacked_files_will_do(cifar: Path) -> None:
    expected = load_images(ImageSpec(name="cifar10"), cifar)
    with tarfile.open(cifar / "cifar-10-binary.tar.gz") as archive:
        archive.extractall(cifar, filter="data")
    (cifar / "cifar-10-binary.tar.gz").unlink()
    assert np.array_equal(load_images(ImageSpec(name="cifar10"), cifar).train_images, expected.train_images)
