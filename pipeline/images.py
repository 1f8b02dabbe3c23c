"""The images that zoos are trained and tested on, as arrays.

Reads   the digits bundled with scikit-learn, or the files of a published data set (`pipeline.image_sets`)
Writes  nothing; what is downloaded, `pipeline.image_sets` keeps

Pixels are scaled to [-1, 1]. A seeded permutation, the same on every machine, decides which images are for training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch.nn.functional import interpolate

from pipeline.image_sets import DATA_SETS, DataSetName, read_split

NUM_DIGITS = 1797
DIGITS_SIZE = 8
LARGEST_SIZE = 256  # 471 MB of digits, which carry nothing that more pixels would show
DIGITS_WHITE = 16  # a pixel of these digits counts the inked ones of a 4x4 block: 0 to 16
WHITE = 255
DIGITS_ENLARGED = 16
DIGITS_TRAIN = 1000


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Which images, at which size, and how many of them are for training."""

    name: Literal["digits"] | DataSetName
    """The data set, of ten classes. digits: scikit-learn's 1,797 handwritten digits, 8x8, one channel, no files.
    mnist, fashion_mnist, kmnist: 60,000 and 10,000 images, 28x28, one channel. cifar10: 50,000 and 10,000, 32x32, three
    channels; cifar10_grey: their mean."""
    size: int | None = None
    """Height and width in pixels, up to 256; more than the images' own are interpolated bilinearly. Their own if not
    given, of digits 16."""
    num_train: int | None = None
    """Images for training, at least 1; if not given, all, of digits 1,000. Of digits the rest, at least 1, are for
    testing."""
    num_test: int | None = None
    """Images for testing, at least 1; all of the test set if not given."""
    seed: int = 0
    """Of the permutations that decide which images are taken; not stratified by class."""

    def __post_init__(self) -> None:
        names = ("digits", *get_args(DataSetName))
        if self.name not in names:
            raise ValueError(f"images: name is {self.name!r}; expected {', '.join(names[:-1])} or {names[-1]}")
        for field, found, least, most in (
            ("size", self.shape[1], self._own_shape[1], LARGEST_SIZE),
            ("num_train", self.num_train_images, 1, self._most_train),
            ("num_test", self.num_test_images, 1, self._most_test),
        ):
            if not least <= found <= most:
                raise ValueError(f"images: {field} is {found}; expected {least} to {most}, as {self.name} has it")
        if self.seed < 0:
            raise ValueError(f"images: seed is {self.seed}; expected 0 or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        channels, own, _ = self._own_shape
        size = self.size or (DIGITS_ENLARGED if self.name == "digits" else own)
        return channels, size, size

    @property
    def num_train_images(self) -> int:
        """Images for training."""
        if self.num_train is not None:
            return self.num_train
        return DIGITS_TRAIN if self.name == "digits" else self._most_train

    @property
    def num_test_images(self) -> int:
        """Images for testing."""
        return self._most_test if self.num_test is None else self.num_test

    @property
    def num_classes(self) -> int:
        """Classes, labelled from 0."""
        return 10

    @property
    def _own_shape(self) -> tuple[int, int, int]:
        match self.name:
            case "digits":
                return 1, DIGITS_SIZE, DIGITS_SIZE
            case "cifar10_grey":
                return 1, *DATA_SETS["cifar10"].shape[1:]
        return DATA_SETS[self.name].shape

    @property
    def _most_train(self) -> int:
        return NUM_DIGITS - 1 if self.name == "digits" else DATA_SETS[files_of(self.name)].num_train

    @property
    def _most_test(self) -> int:
        return NUM_DIGITS - self.num_train_images if self.name == "digits" else DATA_SETS[files_of(self.name)].num_test


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images for training and for testing; C, H, W are channels, height, width.

    Pixels lie in [-1, 1], up to rounding.
    """

    train_images: Float32[np.ndarray, "num_train C H W"]
    train_labels: Int64[np.ndarray, " num_train"]
    test_images: Float32[np.ndarray, "num_test C H W"]
    test_labels: Int64[np.ndarray, " num_test"]
    num_classes: int
    """Labels run from 0 to ``num_classes - 1``."""


def load_images(spec: ImageSpec, folder: Path | None = None) -> Images:
    """The images a specification asks for; the same arrays every time.

    Args:
        folder: where the files of a data set lie; if not given, they are downloaded once. Digits have none.

    Raises:
        ValueError: a file is missing, damaged or not the published one, or cannot be downloaded.
    """
    (train_images, train_labels), (test_images, test_labels) = (
        digits(spec) if spec.name == "digits" else published(spec, folder)
    )
    return Images(
        train_images=enlarge(train_images, spec.shape[1]),
        train_labels=train_labels.astype(np.int64),
        test_images=enlarge(test_images, spec.shape[1]),
        test_labels=test_labels.astype(np.int64),
        num_classes=spec.num_classes,
    )


Labelled = tuple[np.ndarray, np.ndarray]
"""Images ``[n, C, h, w]`` in float32, and their labels ``[n]``."""


def digits(spec: ImageSpec) -> tuple[Labelled, Labelled]:
    """For training and for testing, at their own size: one permutation, cut in two."""
    from sklearn.datasets import load_digits  # seconds to import, and commands that load no images do without

    pixels, labels = load_digits(return_X_y=True)
    images = scaled(pixels.reshape(NUM_DIGITS, 1, DIGITS_SIZE, DIGITS_SIZE), DIGITS_WHITE)
    train, test = places(spec)
    return (images[train], labels[train]), (images[test], labels[test])


def published(spec: ImageSpec, folder: Path | None) -> tuple[Labelled, Labelled]:
    """For training and for testing, at their own size: the first of a permutation of each split."""

    def chosen(split: Literal["train", "test"], some: Int64[np.ndarray, " n"]) -> Labelled:
        images, labels = read_split(DATA_SETS[files_of(spec.name)], split, folder)
        pixels = images[some].mean(axis=1, keepdims=True) if spec.name == "cifar10_grey" else images[some]
        return scaled(pixels, WHITE), labels[some]

    train, test = places(spec)
    return chosen("train", train), chosen("test", test)


def places(spec: ImageSpec) -> tuple[Int64[np.ndarray, " num_train"], Int64[np.ndarray, " num_test"]]:
    """Where in the files of its data set each image stands: for training and for testing."""
    generator, num_train, num_test = np.random.default_rng(spec.seed), spec.num_train_images, spec.num_test_images
    if spec.name == "digits":  # one set, cut in two
        train, test, _ = np.split(generator.permutation(NUM_DIGITS), [num_train, num_train + num_test])
        return train, test
    files = DATA_SETS[files_of(spec.name)]
    return generator.permutation(files.num_train)[:num_train], generator.permutation(files.num_test)[:num_test]


def image_names(spec: ImageSpec) -> list[str]:
    """A name for each image, training images first, by its place in the files: the same under every specification."""
    train, test = places(spec)
    if spec.name == "digits":
        return [f"digits-{place:04d}" for place in (*train, *test)]
    files = files_of(spec.name)
    return [f"{files}-train-{place:05d}" for place in train] + [f"{files}-test-{place:05d}" for place in test]


def files_of(name: str) -> str:
    """The data set whose files hold these images."""
    return "cifar10" if name == "cifar10_grey" else name


def scaled(pixels: np.ndarray, white: int) -> Float32[np.ndarray, "n C h w"]:
    """From 0 to white, to -1 to 1."""
    return pixels.astype(np.float32) / np.float32(white) * 2 - 1


def enlarge(images: Float32[np.ndarray, "n C h w"], size: int) -> Float32[np.ndarray, "n C H W"]:
    """Square images at a larger size, by bilinear interpolation between pixel centres (corners are not aligned)."""
    if size == images.shape[-1]:
        return images
    return interpolate(torch.from_numpy(images), size=(size, size), mode="bilinear", align_corners=False).numpy()
