"""The images zoos are trained on: what is promised about their values, their split and their enlargement."""

from typing import Any

import numpy as np
import pytest

from pipeline.images import Images, ImageSpec, enlarge, load_images


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images(ImageSpec(name="digits", size=17, num_train=1009))


def test_every_digit_is_for_training_or_for_testing_and_none_is_for_both(images: Images) -> None:
    small = ImageSpec(name="digits", size=8, num_train=1009)
    kept = load_images(small)
    assert kept.train_images.shape == (1009, 1, 8, 8)
    assert kept.test_images.shape == (788, 1, 8, 8) == (small.num_test_images, *small.shape)
    everything = load_images(ImageSpec(name="digits", size=8, num_train=1796, seed=3))

    def pixels(images: Images) -> list[bytes]:
        return sorted(image.tobytes() for image in np.concatenate([images.train_images, images.test_images]))

    assert pixels(kept) == pixels(everything)
    assert len(images.train_labels) + len(images.test_labels) == 1797


def test_pixels_fill_the_range_from_minus_one_to_one_also_when_enlarged(images: Images) -> None:
    pixels = load_images(ImageSpec(name="digits", size=8, num_train=1009)).train_images
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert np.abs(images.train_images).max() <= 1 + 1e-6  # a few roundings of float32


def test_labels_stay_with_their_images(images: Images) -> None:
    """A nearest-mean classifier gets most digits right (about 0.9), which shuffled labels would not allow (0.1)."""
    means = np.stack([images.train_images[images.train_labels == label].mean(axis=0) for label in range(10)])
    distances = ((images.test_images[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == images.test_labels).mean() > 0.8


def test_the_same_specification_gives_the_same_images_and_another_seed_another_split(images: Images) -> None:
    again = load_images(ImageSpec(name="digits", size=17, num_train=1009))
    other = load_images(ImageSpec(name="digits", size=17, num_train=1009, seed=1))
    assert np.array_equal(images.test_images, again.test_images)
    assert not np.array_equal(images.test_labels, other.test_labels)


def test_doubling_a_ramp_interpolates_between_pixel_centres() -> None:
    """Centres of the new pixels lie at -1/4, 1/4, 3/4, 5/4 of the old ones, 0 and 1; the border is repeated."""
    ramp = np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32)[None, None]
    assert enlarge(ramp, 4)[0, 0].tolist() == [[0.0, 0.25, 0.75, 1.0]] * 4


def test_digits_at_their_own_size_are_not_changed() -> None:
    pixels = load_images(ImageSpec(name="digits", size=8, num_train=1)).train_images
    assert set(np.unique((pixels + 1) * 8)) <= set(range(17))  # whole counts of inked pixels, 0 to 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 1797}, "images: num_train is 1797; expected 1 to 1796, as digits has it"),
        ({"num_train": 0}, "images: num_train is 0; expected 1 to 1796"),
        ({"num_test": 798}, "images: num_test is 798; expected 1 to 797"),
        ({"name": "mnist", "num_train": 60_001}, "images: num_train is 60001; expected 1 to 60000, as mnist has it"),
        ({"name": "cifar10_grey", "size": 28}, "images: size is 28; expected 32 to 256, as cifar10_grey has it"),
        ({"size": 7}, "images: size is 7; expected 8 to 256, as digits has it"),
        ({"size": 100_000}, "images: size is 100000; expected 8 to 256"),
        ({"seed": -1}, "images: seed is -1; expected 0 or more"),
    ],
)
def test_impossible_images_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSpec(**{"name": "digits", **changes})


def test_sizes_and_counts_that_are_not_given_are_those_of_the_data_set() -> None:
    digits, fashion = ImageSpec(name="digits"), ImageSpec(name="fashion_mnist")
    assert (digits.shape, digits.num_train_images, digits.num_test_images) == ((1, 16, 16), 1000, 797)
    assert (fashion.shape, fashion.num_train_images, fashion.num_test_images) == ((1, 28, 28), 60_000, 10_000)
    assert ImageSpec(name="cifar10").shape == (3, 32, 32)
