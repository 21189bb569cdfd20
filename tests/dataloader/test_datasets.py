"""The registry, the digits, and what importing the package costs."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from secateur import dataloader
from secateur.dataloader.sources import digits
from secateur.runs.errors import DataError, UsageError


@pytest.fixture(scope="module")
def digit_splits() -> dataloader.Splits:
    return dataloader.load("DIGITS")


def test_importing_loads_neither_tensorflow_nor_pruning():
    program = (
        "import sys; from secateur import dataloader; dataloader.load('DIGITS')\n"
        "rooms = {name.removeprefix('secateur.').split('.')[0] for name in sys.modules}\n"
        "print(sorted(rooms & {'tensorflow', 'tensorflow_datasets', 'keras', 'pruning', 'nets', 'op_utils'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TYPOS = [("cifar-10", "CIFAR10"), ("CIFAR_100", "CIFAR100"), ("digit", "DIGITS")]


@pytest.mark.parametrize("typo, meant", TYPOS)
def test_an_unknown_name_is_answered_with_the_nearest(typo, meant):
    with pytest.raises(UsageError) as caught:
        dataloader.load(typo)
    message = str(caught.value)
    assert "\n" not in message and typo in message and f"Did you mean {meant!r}" in message
    assert all(name in message for name in dataloader.DATASETS)


def test_an_unknown_normalisation_is_answered_with_the_valid_ones():
    with pytest.raises(UsageError, match="normalisation='rbg'.*rgb, bgr"):
        dataloader.load("DIGITS", normalisation="rbg")


@pytest.mark.parametrize("name", dataloader.DATASETS)
def test_the_registry_offers_ekgs_exchanged_constants(name):
    entry = dataloader.DATASETS[name]
    for of_rgb, of_bgr in zip(entry.normalisations["rgb"], entry.normalisations["bgr"], strict=True):
        assert of_rgb == of_bgr[::-1]
        assert all(20 < value < 150 for value in of_rgb), "constants are on the 0–255 scale"


def test_a_missing_class_is_noticed(monkeypatch):
    """A data set with labels 0–8 behind an entry of ten classes."""
    entry = dataloader.DATASETS["DIGITS"]

    def without_nines(part, data_path, download, **options):
        images = entry.read(part, data_path, download, **options)
        return images.take(np.flatnonzero(images.labels != 9))

    nine = dataloader.Dataset(10, entry.shape, without_nines, entry.normalisations)
    monkeypatch.setitem(dataloader.DATASETS._entries, "NINE", nine)
    with pytest.raises(DataError, match="NINE has 10 classes. Received: images of 9 classes"):
        dataloader.load("NINE")


def test_digits_have_their_published_counts(digit_splits):
    """1,797 digits; a fifth of each class (35 or 36) is the test part."""
    parts = [digit_splits.train, digit_splits.search, digit_splits.holdout, digit_splits.test]
    assert sum(map(len, parts)) == 1797
    assert [len(part) for part in parts] == [982, 320, 140, 355]
    for part in parts:
        assert part.images.shape[1:] == digit_splits.facts.shape == (32, 32, 3)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int32 and part.ids.dtype == np.int64
        assert set(part.labels) == set(range(10))


def test_no_test_digit_is_a_training_digit(digit_splits):
    """scikit-learn's digits are all different; so are the four parts."""
    parts = [digit_splits.train, digit_splits.search, digit_splits.holdout, digit_splits.test]
    assert len({image.tobytes() for part in parts for image in part.images}) == 1797


def test_digits_keep_scikit_learns_order():
    """Of each class the last fifth is for the test, the others follow each other as published."""
    target = load_digits().target
    is_test = digits.last_of_each_class(target)
    for label in range(10):
        of_class = is_test[target == label]
        assert of_class.sum() == len(of_class) // 5 and of_class[len(of_class) - of_class.sum() :].all()
    assert np.array_equal(digits.read("train").labels, target[~is_test])


def test_upscaling_equals_tensorflows_bilinear_resize():
    images = load_digits().images[:50]
    expected = tf.image.resize(images[..., None], [32, 32]).numpy()[..., 0]
    np.testing.assert_allclose(digits.upscale(images, 32, 32), expected, atol=1e-5)


def test_the_constants_of_the_digits_are_those_of_their_training_part():
    pixels = digits.read("train").images.astype(np.float64)
    assert abs(pixels.mean() - digits.MEAN) < 0.005
    assert abs(pixels.std() - digits.STD) < 0.005


def test_reads_of_the_test_part_are_counted():
    splits = dataloader.load("DIGITS")
    assert splits.test_reads == 0
    first, second = splits.test, splits.test
    assert first is second
    assert splits.test_reads == 2
