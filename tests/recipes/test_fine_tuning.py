"""Fine-tuning a model of one's own is what Keras would do, batch by batch."""

import keras
import numpy as np
import pytest

from secateur.dataloader import epoch_order
from secateur.recipes.commands.images import ImageData, Scaled
from secateur.recipes.commands.options import TuningOptions
from secateur.recipes.commands.training import fine_tune, reestimate
from secateur.runs import TrainingError

COUNT, SIZE, EPOCHS = 44, 16, 2  # the last batch of an epoch has 12 images
RATE = 0.05


@pytest.fixture(scope="module")
def data() -> ImageData:
    rng = np.random.default_rng(0)
    images = Scaled(rng.integers(0, 256, (COUNT, 8, 8, 3)).astype(np.uint8), (-1.0, 1.0))
    labels = rng.integers(0, 3, COUNT).astype(np.int32)
    return ImageData((images, labels), (images, labels), 3)


def net() -> keras.Model:
    """Stock layers only: averages of BN, a penalty on a kernel, a layer that does not train."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.1))(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.Conv2D(4, 3, trainable=False, name="frozen")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def options(**more) -> TuningOptions:
    chosen = {"finetune_epochs": EPOCHS, "batch_size": SIZE, "learning_rate": RATE, "seed": 5, **more}
    return TuningOptions(**chosen)


def test_it_is_what_keras_does_with_the_same_batches(data):
    model, theirs = net(), net()
    fine_tune(model, data, options())
    steps = EPOCHS * -(-COUNT // SIZE)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss)
    images, labels = data.train
    for epoch in range(EPOCHS):
        order = epoch_order(COUNT, 5, epoch)
        for start in range(0, COUNT, SIZE):
            part = order[start : start + SIZE]
            theirs.train_on_batch(images[part], labels[part])
    for mine, other, start in zip(model.weights, theirs.weights, net().weights, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5, err_msg=mine.path)
        assert np.array_equal(mine, start) == (mine.path.startswith("frozen"))


def test_averages_of_bn_become_those_of_the_images(data):
    model = net()
    before = [np.array(w) for w in model.weights]
    assert reestimate(model, data, SIZE)
    moved = [not np.array_equal(w, old) for w, old in zip(model.weights, before, strict=True)]
    assert [w.path.split("/")[-1] for w, one in zip(model.weights, moved, strict=True) if one] == [
        "moving_mean", "moving_variance"
    ]  # fmt: skip


def test_a_rate_that_is_too_large_names_the_flag(data):
    with pytest.raises(TrainingError, match="no longer finite.*\n.*smaller --learning_rate"):
        fine_tune(net(), data, options(learning_rate=1e30))
