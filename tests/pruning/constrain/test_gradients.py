"""What adjusted gradients do over many steps: zeros stay, scales shrink."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import Lesson, build, labels_only
from secateur.nets.kernels import convolution_kernels
from secateur.op_utils import RULES, Trainer
from secateur.pruning.constrain.gradients import hold_filters, hold_zeros, in_turn, slimming
from secateur.pruning.constrain.single_weights import zero_weights
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net, small_resnet

LABELS = np.arange(16, dtype=np.int32) % 4


def train(trainer: Trainer, steps: int, rate: float = 0.01) -> None:
    batch = {"images": images(16), "labels": LABELS}
    list(trainer.train([batch] * steps, [(1, i) for i in range(steps)], [rate] * steps))


def trainer_of(model: keras.Model, adjust, optimizer: str = "nesterov", decay: float = 0.01) -> Trainer:
    options = {"weight_decay": decay, "optimizer": optimizer, "adjust": adjust}
    return Trainer(model, lambda batch, seed: batch["images"], labels_only, **options)


def kernels_of(model: keras.Model) -> list[np.ndarray]:
    return [kernel.value for kernel in convolution_kernels(model)]


@pytest.mark.parametrize("optimizer", RULES)
def test_pruned_weights_stay_exactly_zero_and_the_others_move(optimizer):
    model = plain_net()
    zero_weights(model, 0.6)
    before = kernels_of(model)
    train(trainer_of(model, hold_zeros(model), optimizer), 100)
    for old, new in zip(before, kernels_of(model), strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert (new[old != 0] != old[old != 0]).mean() > 0.9


def test_without_the_hold_zeros_are_gone_after_a_step():
    model = plain_net()
    found = zero_weights(model, 0.6)
    train(trainer_of(model, None), 1)
    assert sum((kernel == 0).sum() for kernel in kernels_of(model)) < found.zeros / 2


def with_dead_filters(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Filter 1 of the stem is zero, and of filter 2 a single weight."""
    kernel = model.get_layer("stem").kernel
    value = kernel.numpy()
    value[..., 1] = value[0, 0, 0, 2] = 0
    kernel.assign(value)
    return kernel, value


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_dead_filters_stay_dead_and_single_zeros_move(optimizer):
    model = plain_net()
    kernel, _ = with_dead_filters(model)
    train(trainer_of(model, hold_filters(model), optimizer), 30)
    assert (kernel.numpy()[..., 1] == 0).all()
    assert kernel.numpy()[0, 0, 0, 2] != 0


def test_depthwise_and_transposed_filters_are_counted_along_their_own_axes():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    deep, up = layers.DepthwiseConv2D(3, name="deep"), layers.Conv2DTranspose(4, 3, name="up")
    model = keras.Model(inputs, up(deep(inputs)))
    dead = {deep: np.s_[:, :, 1], up: np.s_[:, :, 2]}
    for layer, filter_ in dead.items():
        value = layer.kernel.numpy()
        value[filter_] = 0
        layer.kernel.assign(value)
    parameters = [v.value for v in model.trainable_variables]
    found = hold_filters(model)([tf.ones_like(p) for p in parameters], parameters, 1.0)
    for layer, filter_ in dead.items():
        (i,) = [i for i, v in enumerate(model.trainable_variables) if v is layer.kernel]
        held = found[i].numpy() == 0
        assert held[filter_].all() and held.sum() == held[filter_].size


def test_slimming_is_the_gradient_of_the_l1_norm_of_all_scales():
    model = small_resnet()
    scales = [layer.gamma for layer in model.layers if hasattr(layer, "gamma")]
    scales[0].assign(scales[0].numpy() * np.resize([1, -1, 0, 2], scales[0].shape))
    with tf.GradientTape() as tape:
        values = [scale.value + 0 for scale in scales]
        tape.watch(values)
        penalty = 0.3 * sum(tf.reduce_sum(tf.abs(value)) for value in values)
    expected = dict(zip(map(id, scales), tape.gradient(penalty, values), strict=True))
    parameters = [v.value for v in model.trainable_variables]
    found = slimming(model, 0.3)([tf.zeros_like(p) for p in parameters], parameters, 0.25)
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        wanted = 0.25 * expected[id(variable)] if id(variable) in expected else 0
        np.testing.assert_allclose(gradient, wanted + np.zeros(variable.shape), atol=1e-7)
    assert len(expected) == 9  # ResNet-8: seven convolutions and two projections


def test_slimmed_scales_end_near_zero():
    model = small_resnet()
    train(trainer_of(model, slimming(model, 0.2), decay=0.0), 40)
    slim = np.concatenate([x.gamma.numpy() for x in model.layers if hasattr(x, "gamma")])
    free = small_resnet()
    train(trainer_of(free, None, decay=0.0), 40)
    wide = np.concatenate([x.gamma.numpy() for x in free.layers if hasattr(x, "gamma")])
    assert np.abs(slim).sum() < 0.7 * np.abs(wide).sum()


def test_what_holds_comes_last():
    model = plain_net()
    kernel, _ = with_dead_filters(model)
    parameters = [v.value for v in model.trainable_variables]
    gradients = [tf.zeros_like(p) for p in parameters]
    adjust = in_turn(lambda g, p, s: [a + s for a in g], hold_filters(model))
    (i,) = [i for i, v in enumerate(model.trainable_variables) if v is kernel]
    found = adjust(gradients, parameters, 0.5)[i].numpy()
    assert (found[..., 1] == 0).all() and (np.delete(found, 1, -1) == 0.5).all()


def test_a_student_is_held_inside_of_its_lesson():
    """The lesson trains more than the student, so that places differ."""
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    zero_weights(student, 0.5)
    before = kernels_of(student)
    lesson = Lesson(student, teacher, [(build("afd"), 1.0)])
    assert len(lesson.trainable_variables) > len(student.trainable_variables)
    adjust = hold_zeros(student, trained=lesson)
    parameters = [v.value for v in lesson.trainable_variables]
    found = adjust([tf.ones_like(p) for p in parameters], parameters, 1.0)
    held = {id(v): g.numpy() == 0 for v, g in zip(lesson.trainable_variables, found, strict=True)}
    for kernel, old in zip(convolution_kernels(student), before, strict=True):
        np.testing.assert_array_equal(held.pop(id(kernel.variable)), old == 0)
    assert not any(zero.any() for zero in held.values())


@pytest.mark.parametrize("make", [hold_zeros, hold_filters, lambda m: slimming(m, 1e-4)])
def test_a_model_without_such_weights_is_refused(make):
    inputs = keras.Input((3,))
    with pytest.raises(UsageError, match="Received: 0"):
        make(keras.Model(inputs, keras.layers.Dense(2)(inputs)))


def test_a_negative_penalty_is_refused():
    with pytest.raises(UsageError, match="Received: strength=-1"):
        slimming(small_resnet(), -1)
