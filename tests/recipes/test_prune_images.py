"""Images for pruning stay bytes; what the model reads is made batch by batch, in the range that it wants."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.dataloader.augment import crop_and_flip
from secateur.pruning import make_plan
from secateur.recipes.commands.images import ImageData, Scaled, load_images
from secateur.recipes.commands.options import ImageOptions
from secateur.recipes.commands.training import accuracy, augmented
from secateur.runs import DataError

BYTES = (0.0, 255.0)


def images_of(data: str, data_path: str | None = None, pixels: str = "0..255") -> ImageOptions:
    return ImageOptions(data=data, data_path=data_path, pixels=pixels)


@pytest.fixture(scope="module")
def pixels():
    """30 images of 16×16 whose pixels all tell them apart."""
    return np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def classifier():
    """14×14 pixels in colour → 10 classes."""
    x = inputs = keras.Input((14, 14, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A data_dir with 4 images for each digit as tensorflow-datasets' emnist/mnist."""
    import tensorflow_datasets as tfds

    folder, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28, 1)).astype(np.uint8)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="emnist",
        config="mnist",
        version="3.1.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={
            "train": tf.data.Dataset.from_tensor_slices({"image": images, "label": np.arange(40) % 10})
        },
        data_dir=folder,
    )
    [facts] = folder.rglob("dataset_info.json")  # files of a published data set say what its labels are
    keys = {"supervisedKeys": {"input": "image", "output": "label"}}
    facts.write_text(json.dumps(json.loads(facts.read_text()) | keys))
    return folder


@pytest.mark.parametrize("range_", [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)])
def test_slices_are_pixels_in_the_range(pixels, range_):
    images, (low, high) = Scaled(pixels, range_), range_
    assert images.shape == pixels.shape and len(images) == 30
    found = images[3:7]
    assert found.dtype == np.float32 and found.min() >= low and found.max() <= high
    np.testing.assert_allclose(found, low + (high - low) * (pixels[3:7] / 255.0), atol=3e-5)


def epoch(pixels: np.ndarray, augmentation: str) -> np.ndarray:
    """The images as training sees them once."""
    preprocess = augmented(Scaled(pixels, BYTES), augmentation)
    return preprocess({"images": tf.constant(pixels)}, tf.constant([1, 0])).numpy()


def test_a_mirrored_epoch_has_images_and_mirror_images_only(pixels):
    images = epoch(pixels, "flip")
    plain = (images == pixels).all((1, 2, 3))
    mirrored = (images == pixels[:, :, ::-1]).all((1, 2, 3))
    assert (plain ^ mirrored).all() and 5 < mirrored.sum() < 25


def test_a_cropped_epoch_shifts_by_an_eighth_at_most(pixels):
    moves = [(d, r, f) for d in range(5) for r in range(5) for f in (False, True)]  # 16 / 8 to either side
    down, right, flip = (np.array(x) for x in zip(*moves, strict=True))
    seen = set()
    for image, plain in zip(epoch(pixels, "flip+crop"), pixels, strict=True):
        options = crop_and_flip(np.repeat(plain[None], 50, 0), down, right, flip, 2).numpy()
        [*found] = np.flatnonzero((options == image).all((1, 2, 3)))
        assert found
        seen.add(moves[found[0]])
    assert len(seen) > 10


def test_training_without_augmentation_sees_the_images(pixels):
    assert np.array_equal(epoch(pixels, "none"), pixels)


@pytest.mark.parametrize("criterion", ["taylor", "apoz"])
def test_criteria_say_of_bytes_what_they_say_of_numbers(classifier, pixels, criterion):
    labels = np.arange(30) % 10
    small = pixels[:, :14, :14]
    plans = [
        make_plan(classifier, criterion, keep=0.5, data=(images, labels))
        for images in (Scaled(small, (-1.0, 1.0)), Scaled(small, (-1.0, 1.0))[:])
    ]
    assert plans[0] == plans[1]


def test_some_images_are_a_bounded_draw_with_their_labels(pixels):
    train = (Scaled(pixels, BYTES), np.arange(30))
    images, labels = ImageData(train, train, 30).some(12, seed=3)
    assert len(images) == len(set(labels.tolist())) == 12
    assert np.array_equal(images.pixels, pixels[labels]) and labels.tolist() != list(range(12))


class Sizes(keras.layers.Layer):
    """Hands its input on and notes how many images come at a time."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, x):
        self.seen.append(x.shape[0])
        return x


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, {3, 2}), (5, {5, 3}), (64, {8})])
def test_accuracy_runs_no_more_images_at_a_time_than_it_may(classifier, pixels, batch_size, sizes):
    holdout = (Scaled(pixels[:8, :14, :14], BYTES), np.arange(8))
    x, layer = keras.Input((14, 14, 3)), Sizes()
    found = accuracy(keras.Model(x, classifier(layer(x))), ImageData(holdout, holdout, 10), batch_size)
    assert set(layer.seen) - {None} == sizes
    assert found == np.mean(classifier(holdout[0][:]).numpy().argmax(1) == holdout[1])


@pytest.mark.parametrize("name", ["emnist/mnist", "emnist/mnist:3.1.0"])
def test_a_configuration_and_a_version_of_tfds_are_read(classifier, letters, name):
    data = load_images(images_of(f"tfds:{name}", str(letters), "0..1"), classifier)
    images, labels = data.train
    assert images.pixels.dtype == np.uint8 and images.shape == (30, 14, 14, 3)
    assert np.bincount(labels).tolist() == [3] * 10 and np.bincount(data.holdout[1]).tolist() == [1] * 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("emnist/mnits", "no such configuration.*Did you mean 'mnist'"),
        ("mnist/plain", "It has none"),
        ("emnits/mnist", "Did you mean tfds:emnist"),
        ("emnist/mnist:9.9.9", "mnist:9.9.9 in .* cannot be read"),
    ],
)
def test_other_names_of_tfds_are_data_errors(classifier, letters, name, said):
    with pytest.raises(DataError, match=said):
        load_images(images_of(f"tfds:{name}", str(letters)), classifier)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((3, 1, 4), "1 of class 'b'"),
        ((1, 3, 1), "1 of class 'a' and too few of 1 more"),
        ((2, 0, 2), r"no image in .* \['b'\]"),
    ],
)
def test_a_class_with_too_few_images_is_named(classifier, tmp_path, counts, said):
    for name, count in zip("abc", counts, strict=True):
        (tmp_path / name).mkdir()
        for i in range(count):
            keras.utils.save_img(tmp_path / name / f"{i}.png", np.zeros((4, 4, 3)), scale=False)
    with pytest.raises(DataError, match=said):
        load_images(images_of(str(tmp_path)), classifier)
