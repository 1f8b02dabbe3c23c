"""The images that zoos are trained and tested on, as arrays.

Reads   the digits bundled with scikit-learn; nothing is downloaded
Writes  nothing

Pixels are scaled to [-1, 1]. A seeded permutation, the same on every machine, decides which images are for training.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch.nn.functional import interpolate

NUM_DIGITS = 1797
DIGITS_SIZE = 8
LARGEST_SIZE = 256  # 471 MB; digits carry nothing that more pixels would show
DIGITS_WHITE = 16  # a pixel of these digits counts the inked ones of a 4x4 block: 0 to 16


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Which images, at which size, and how many of them are for training."""

    name: Literal["digits"]
    """The data set: scikit-learn's 1,797 handwritten digits, 8x8, one channel, ten classes."""
    size: int = 16
    """Height and width in pixels, 8 to 256; more than 8 are interpolated bilinearly."""
    num_train: int = 1000
    """Images for training, at least 1; the rest, at least 1, are for testing."""
    seed: int = 0
    """Of the permutation that decides which images are for training; not stratified by class."""

    def __post_init__(self) -> None:
        if self.name != "digits":
            raise ValueError(f"images: name is {self.name!r}; expected 'digits'")
        if self.size < DIGITS_SIZE:
            raise ValueError(f"images: size is {self.size}; digits are {DIGITS_SIZE} pixels wide and only enlarged")
        if self.size > LARGEST_SIZE:
            raise ValueError(f"images: size is {self.size}; expected at most {LARGEST_SIZE}")
        if not 1 <= self.num_train < NUM_DIGITS:
            raise ValueError(
                f"images: num_train is {self.num_train}; digits has {NUM_DIGITS} images, so it must be 1 to "
                f"{NUM_DIGITS - 1}, and the rest are for testing"
            )
        if self.seed < 0:
            raise ValueError(f"images: seed is {self.seed}; expected 0 or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return 1, self.size, self.size

    @property
    def num_test(self) -> int:
        """Images for testing."""
        return NUM_DIGITS - self.num_train

    @property
    def num_classes(self) -> int:
        """Classes, labelled from 0."""
        return 10


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


def load_images(spec: ImageSpec) -> Images:
    """The images a specification asks for; the same arrays every time."""
    from sklearn.datasets import load_digits  # seconds to import, and commands that load no images do without

    pixels, targets = load_digits(return_X_y=True)
    small = pixels.reshape(NUM_DIGITS, 1, DIGITS_SIZE, DIGITS_SIZE) / DIGITS_WHITE * 2 - 1
    images, labels = enlarge(small.astype(np.float32), spec.size), targets.astype(np.int64)
    order = np.random.default_rng(spec.seed).permutation(NUM_DIGITS)
    train, test = order[: spec.num_train], order[spec.num_train :]
    return Images(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=spec.num_classes,
    )


def enlarge(images: Float32[np.ndarray, "n C h w"], size: int) -> Float32[np.ndarray, "n C H W"]:
    """Square images at a larger size, by bilinear interpolation between pixel centres (corners are not aligned)."""
    return interpolate(torch.from_numpy(images), size=(size, size), mode="bilinear", align_corners=False).numpy()
