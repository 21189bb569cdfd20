"""Rounding in training: what TensorFlow rounds to, what LiteRT computes, and gradients that pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from secateur.coding.int8.fake_quant import RoundedTensor, fake_quantised, round_kernel, round_tensor
from secateur.distillation import labels_only
from secateur.exports import litert_runner, to_int8
from secateur.nets.folding import fold_batch_norm
from secateur.op_utils import Trainer
from secateur.pruning import compact
from tests.helpers.toys import images, plain_net, small_resnet

pytestmark = pytest.mark.runs
LABELS = np.arange(16, dtype=np.int32) % 4


@pytest.mark.parametrize("seed", range(5))
def test_kernels_are_rounded_as_tensorflow_rounds_them(seed):
    kernel = np.random.default_rng(seed).normal(size=(3, 3, 4, 5)).astype(np.float32)
    most = np.abs(kernel).max((0, 1, 2))
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -most, most, narrow_range=True
    )
    np.testing.assert_allclose(round_kernel(kernel, (-1,)), expected, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 2.0, -7.0])
def test_tensors_are_rounded_as_tensorflow_rounds_them(shift):
    x = np.random.default_rng(1).normal(shift, size=(64, 9)).astype(np.float32)
    low, high = min(x.min(), 0), max(x.max(), 0)
    expected = tf.quantization.fake_quant_with_min_max_vars(x, low, high)
    found = np.asarray(round_tensor(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(np.unique(found)) <= 256


def test_zeros_stay_zeros():
    """Pruned weights and padding: 0 is one of the numbers. And nothing at all is no division by 0."""
    x = np.random.default_rng(2).normal(3, size=200).astype(np.float32)
    x[::2] = 0
    assert (np.asarray(round_tensor(x))[::2] == 0).all()
    kernel = np.zeros((3, 3, 2, 2), np.float32)
    assert (np.asarray(round_kernel(kernel, (-1,))) == 0).all()
    assert (np.asarray(round_tensor(kernel)) == 0).all()


def test_gradients_pass_as_if_nothing_were_rounded():
    x = tf.Variable(np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32))
    factors = np.random.default_rng(4).normal(size=(4, 6)).astype(np.float32)
    for rounded in (round_tensor, lambda t: round_kernel(t, (-1,))):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(rounded(x) * factors)
        np.testing.assert_array_equal(tape.gradient(total, x), factors)


def one_block() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(x), x])
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(layers.MaxPooling2D()(layers.ReLU()(y)))))


NETS = {
    "block": one_block,
    "ResNet": lambda: fold_batch_norm(compact(small_resnet())),
}


@pytest.mark.parametrize("name", NETS)
def test_litert_rounds_where_the_training_rounds(name):
    """Tensors between layers with a scale of their own; poolings and reshapes hand theirs on."""
    model = NETS[name]()
    side = model.input_shape[1]
    interpreter = Interpreter(model_content=to_int8(model, [[images(16, side)]]))
    interpreter.allocate_tensors()
    scales = {
        (tuple(about["scales"]), tuple(about["zero_points"]))
        for tensor in interpreter.get_tensor_details()
        for about in [tensor["quantization_parameters"]]
        if tensor["dtype"] is np.int8 and len(about["scales"]) == 1
    }
    rounded = [layer for layer in fake_quantised(model).layers if isinstance(layer, RoundedTensor)]
    assert len(rounded) == len(scales)


def test_litert_computes_what_the_training_saw():
    """Calibrated on the batch itself: apart by some steps of 1/255."""
    keras.utils.set_random_seed(1)
    model, batch = one_block(), images(64)
    seen = np.asarray(fake_quantised(model)(batch, training=True))
    written = litert_runner(to_int8(model, [[batch]]), 64)(batch)
    assert np.abs(seen - written).max() <= 3 / 255 * np.ptp(np.asarray(model(batch)))


def test_weights_are_those_of_the_network_and_move():
    folded = fold_batch_norm(compact(small_resnet()))
    rounded = fake_quantised(folded)
    assert {id(v) for v in rounded.variables} == {id(v) for v in folded.variables}
    before = np.asarray(folded(images(16)))
    trainer = Trainer(rounded, lambda batch, seed: batch["images"], labels_only, optimizer="torch_momentum")
    batch = {"images": images(16), "labels": LABELS}
    losses = [loss for loss, *_ in trainer.train([batch] * 40, [(1, i) for i in range(40)], [0.01] * 40)]
    assert losses[-1] < losses[0] / 2
    assert np.abs(np.asarray(folded(images(16))) - before).max() > 0.1


def test_xla_trains_to_the_same_weights():
    found = []
    for compiled in (False, True):
        model = plain_net()
        rounded = fake_quantised(model)
        trainer = Trainer(rounded, lambda batch, seed: batch["images"], labels_only, compile_=compiled)
        batch = {"images": images(16), "labels": LABELS}
        list(trainer.train([batch] * 2, [(1, i) for i in range(2)], [0.01] * 2))
        found.append([v.numpy() for v in model.trainable_variables])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def with_products() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(6, 3, padding="same")(inputs * 0.5)
    x = layers.ReLU(max_value=3.0)(keras.ops.relu(x) * keras.ops.hard_sigmoid(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


def test_products_with_numbers_and_separable_kernels_are_rounded():
    model, batch = with_products(), images(8)
    rounded = fake_quantised(model)
    whole, seen = (np.asarray(m(batch)) for m in (model, rounded))
    assert 0 < np.abs(whole - seen).max() < 0.05
    layer = next(one for one in model.layers if isinstance(one, layers.SeparableConv2D))
    for variable in (layer.depthwise_kernel, layer.pointwise_kernel):
        axes = (-2, -1) if variable is layer.depthwise_kernel else (-1,)
        variable.assign(round_kernel(variable.value, axes))
    dense = model.layers[-1].kernel
    dense.assign(round_kernel(dense.value, (-1,)))
    np.testing.assert_allclose(np.asarray(rounded(batch)), seen, atol=1e-5)  # rounded already


def test_an_application_of_keras_is_rounded():
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3), classes=4)
    rounded = fake_quantised(fold_batch_norm(compact(model)))
    assert np.isfinite(np.asarray(rounded(images(2, 32)))).all()
