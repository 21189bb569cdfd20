"""Images in memory: arrays, tf.data and PyDataset give the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.dataloader import Columns
from secateur.dataloader.sources.memory import images_of
from secateur.runs.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(10, 4, 4, 3)), np.arange(10)[:, None] % 3


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4], None


def rows(**batch):
    found = tf.data.Dataset.from_tensor_slices((X, Y[:, 0]))
    return found.batch(4) if batch else found


@pytest.mark.parametrize(
    "data", [(X, Y), rows(), rows(batched=True), Sequence()], ids=["arrays", "rows", "batches", "PyDataset"]
)
def test_all_ways_give_the_same_images(data):
    found = images_of(data)
    assert found.images.dtype == np.float32 and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.images, X.astype("float32"))
    assert found.labels.tolist() == Y[:, 0].tolist() and found.ids.tolist() == [*range(10)]


@pytest.mark.parametrize("make", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_several_inputs_are_sliced_together(make):
    found = images_of((make([X, X[:, :2] + 1]), Y))
    assert isinstance(found.images, Columns) and found.images.shape == X.shape
    part = found.take(np.array([3, 1])).images.parts
    first, second = part.values() if isinstance(part, dict) else part
    np.testing.assert_array_equal(first, X[[3, 1]].astype("float32"))
    np.testing.assert_array_equal(second, (X[[3, 1], :2] + 1).astype("float32"))


def test_bytes_stay_bytes_and_labels_what_they_are():
    pixels, several = np.zeros((2, 4, 4, 3), np.uint8), np.array([[1.0, 0.5], [0.0, 2.0]])
    found = images_of((pixels, several))
    assert found.images.dtype == np.uint8 and found.labels.dtype == np.float32
    assert found.labels.tolist() == several.tolist()


def test_labels_of_several_outputs_stay_apart_and_rows_in_a_list_are_one_array():
    found = images_of((X, [Y, X[:, 0, 0]]))
    assert isinstance(found.labels, Columns) and len(found) == len(X)
    first, second = found.take(np.array([3, 1])).labels.parts
    assert first.tolist() == Y[[3, 1], 0].tolist() and second.dtype == np.float32
    masks = [image[..., 0] > 0 for image in X]
    np.testing.assert_array_equal(images_of((X, masks)).labels, np.array(masks))


@pytest.mark.parametrize(
    "data, said",
    [
        ((X, Y[:4]), r"As many images as labels.*\[10\] and .4"),
        ((X, []), r"As many images as labels.*\[10\] and"),
        ((X, {}), r"As many images as labels.*\[10\] and"),
        (rows().repeat(), "no end"),
        (tf.data.Dataset.from_tensor_slices(X), "Pairs of images and labels"),
        ((X, Y, np.ones(10)), "Weights of samples are not used.*balanced=True.*3 parts"),
        (tf.data.Dataset.from_tensor_slices((X, Y, np.ones(10))), "Weights of samples are not used"),
        ([X[:4], X[4:]], "Pairs of images and labels"),
        (7, "tf.data.Dataset.*int"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(data, said):
    with pytest.raises(DataError, match=said):
        images_of(data)
