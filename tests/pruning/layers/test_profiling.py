"""The count by layers is that of TensorFlow's own profiler."""

import keras
import pytest

from secateur.pruning import complexity
from secateur.pruning.layers.profiling import profiled
from tests.helpers import toys, user_models

L = keras.layers
MODELS = ("inverted_residual", "conv3d", "u_net", "vision_transformer", "siamese")


@pytest.mark.parametrize("name", MODELS)
def test_multiply_accumulates_are_those_of_the_frozen_graph(name):
    model = getattr(user_models, name)()
    assert complexity(model).macs == pytest.approx(profiled(model), rel=0.01)


@keras.saving.register_keras_serializable("tests")
class Stem(keras.layers.Layer):
    """Two convolutions, the first of which strides."""

    def __init__(self, **options):
        super().__init__(**options)
        self.a, self.b = L.Conv2D(4, 4, strides=4), L.Conv2D(6, 3, padding="same")

    def build(self, shape):
        self.a.build(shape)
        self.b.build(self.a.compute_output_shape(shape))
        self.built = True

    def call(self, x):
        return self.b(self.a(x))


def test_layers_of_layers_are_counted_by_what_they_compute():
    frames = keras.Input((3, 16, 16, 2))
    x = L.TimeDistributed(L.Conv2D(5, 3, strides=2, padding="same"))(frames)
    images = keras.Input((16, 16, 2))
    models = keras.Model(frames, x), keras.Model(images, Stem()(images))
    assert complexity(models[0]).macs == 3 * 64 * 9 * 2 * 5
    assert complexity(models[1]).macs == 16 * (16 * 2 * 4 + 9 * 4 * 6)


def test_a_loop_cannot_be_counted_and_says_so():
    words = keras.Input((6, 5))
    model = keras.Model(words, L.LSTM(4)(words))
    with pytest.raises(ValueError, match="is in no graph"):
        profiled(model)


def test_convolutions_of_groups_which_keras_compiles_by_themselves_are_counted():
    images = keras.Input((8, 8, 12))
    x = L.Conv2D(24, 3, padding="same", groups=3)(images)
    model = keras.Model(images, L.Conv2D(24, 3, groups=24)(x))
    assert profiled(model) == complexity(model).macs == 64 * 9 * 4 * 24 + 36 * 9 * 24


def test_our_net_has_the_published_count():
    model = toys.small_resnet("B")
    assert complexity(model).macs == pytest.approx(profiled(model), rel=0.01)
