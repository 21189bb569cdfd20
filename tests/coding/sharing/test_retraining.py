"""Shared weights in training: sums of gradients, and not one value more after many steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.coding.sharing.retraining import tie
from secateur.coding.sharing.share import Shared, share, tied
from secateur.distillation import Lesson, build, labels_only
from secateur.op_utils import Trainer
from secateur.pruning.constrain.gradients import hold_zeros, in_turn
from secateur.pruning.constrain.single_weights import zero_weights
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net, small_resnet

pytestmark = pytest.mark.runs
LABELS = np.arange(16, dtype=np.int32) % 4
DECAY = 0.01


def sparse_net(bits: int = 3) -> tuple[keras.Model, Shared]:
    model = plain_net()
    zero_weights(model, 0.3)
    return model, share(model, bits)


def train(model: keras.Model, adjust, steps: int = 30, **options) -> None:
    """On one batch; with momentum and decay."""
    trainer = Trainer(
        model, lambda batch, seed: batch["images"], labels_only, weight_decay=DECAY, adjust=adjust, **options
    )
    batch = {"images": images(16), "labels": LABELS}
    list(trainer.train([batch] * steps, [(1, i) for i in range(steps)], [1e-3] * steps))


def test_gradients_are_the_sums_of_members_and_decay_counts_once():
    model, shared = sparse_net()
    rng = np.random.default_rng(0)
    parameters = [v.numpy() for v in model.trainable_variables]
    losses = [rng.normal(size=p.shape).astype(np.float32) for p in parameters]
    scale = 0.5  # of a step on two replicas
    given = [tf.constant(g + DECAY * scale * p) for g, p in zip(losses, parameters, strict=True)]
    found = tie(model, shared, DECAY)(given, [tf.constant(p) for p in parameters], scale)
    kernels = {id(kernel.variable) for kernel in shared.kernels}
    for variable, loss, whole, result in zip(model.trainable_variables, losses, given, found, strict=True):
        value, expected = variable.numpy(), np.array(whole)
        if id(variable) in kernels:
            for one in np.unique(value):
                members = value == one
                expected[members] = (loss[members].astype(np.float64).sum() + DECAY * scale * one) * (
                    one != 0
                )
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_the_sum_is_the_gradient_by_the_codebook():
    """What TensorFlow says of a loss whose kernel is looked up in the codebook."""
    _, shared = sparse_net()
    kernel = shared.kernels[0]
    inputs, weights = tf.constant(images(4)), tf.constant(kernel.variable.numpy())
    codebook = tf.constant(kernel.codebook)
    with tf.GradientTape() as tape:
        tape.watch([codebook, weights])
        looked_up = tf.tensordot(tf.one_hot(kernel.labels, len(codebook)), codebook, 1)  # −1: all zeros
        losses = [tf.reduce_sum(tf.nn.conv2d(inputs, w, 1, "SAME") ** 2) for w in (looked_up, weights)]
    by_codebook, by_weight = tape.gradient(losses, [codebook, weights])
    layer = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(6, 3, use_bias=False)])
    layer.layers[0].kernel.assign(weights)
    (found,) = tie(layer, tied(layer))([by_weight], [weights], 1.0)
    for i in range(len(kernel.codebook)):
        np.testing.assert_allclose(found.numpy()[kernel.labels == i], by_codebook[i], rtol=1e-4)


@pytest.mark.parametrize(("optimizer", "accum", "compiled"), [
    ("nesterov", 1, False), ("adam", 1, False), ("torch_nesterov", 2, False), ("torch_nesterov", 1, True),
])  # fmt: skip
def test_shared_weights_stay_shared_bit_for_bit(optimizer, accum, compiled):
    model, shared = sparse_net()
    before = [kernel.values for kernel in shared.kernels]
    train(model, tie(model, shared, DECAY), optimizer=optimizer, accum=accum, compile_=compiled)
    for kernel, old in zip(shared.kernels, before, strict=True):
        new = kernel.variable.numpy()
        np.testing.assert_array_equal(new == 0, old == 0)
        assert len(np.unique(new[new != 0])) <= 8
        for value in np.unique(old[old != 0]):
            assert len(np.unique(new[old == value])) == 1
        assert (new[old != 0] != old[old != 0]).mean() > 0.9
        held = kernel.variable.numpy()
    shared.equalise()
    np.testing.assert_array_equal(held, kernel.variable.numpy())


def test_without_the_tie_every_weight_goes_its_own_way():
    model, shared = sparse_net()
    train(model, None, steps=1)
    assert all(len(np.unique(kernel.variable.numpy())) > 16 for kernel in shared.kernels)


def test_retraining_wins_back_what_sharing_cost():
    model, shared = sparse_net(bits=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = float(loss(LABELS, model(images(16))))
    train(model, tie(model, shared, DECAY))
    assert float(loss(LABELS, model(images(16)))) < 0.8 * before


def test_a_kernel_that_was_skipped_trains_as_ever():
    """One cluster for each of its different values: every sum has one term."""
    model = plain_net()
    shared = share(model, 10)
    assert all(row["skipped"] for row in shared.facts())
    parameters = [tf.constant(v.numpy()) for v in model.trainable_variables]
    given = [tf.constant(np.random.default_rng(1).normal(size=p.shape), tf.float32) for p in parameters]
    for a, b in zip(given, tie(model, shared)(given, parameters, 1.0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_student_stays_shared_inside_of_its_lesson_behind_held_zeros():
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    zero_weights(student, 0.5)
    shared = share(student, 4)
    lesson = Lesson(student, teacher, [(build("afd"), 1.0)])
    adjust = in_turn(hold_zeros(student, lesson), tie(lesson, shared, DECAY))
    parameters = [v.value for v in lesson.trainable_variables]
    found = adjust([tf.ones_like(p) + DECAY * p for p in parameters], parameters, 1.0)
    gradients = {id(v): g.numpy() for v, g in zip(lesson.trainable_variables, found, strict=True)}
    for kernel in shared.kernels:
        gradient = gradients.pop(id(kernel.variable))
        for i, value in enumerate(kernel.codebook):
            members = kernel.labels == i
            np.testing.assert_allclose(gradient[members], members.sum() + DECAY * value, rtol=1e-5)
        assert (gradient[kernel.labels < 0] == 0).all()


def test_a_model_that_does_not_train_the_kernels_is_refused():
    model, shared = sparse_net()
    model.trainable = False
    with pytest.raises(UsageError, match="Received: 3 kernels"):
        tie(model, shared)
