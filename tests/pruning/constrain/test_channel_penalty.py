"""Penalties on whole channels: gradients of what they say they are, and channels that shrink."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import Lesson, build, labels_only
from secateur.op_utils import Trainer
from secateur.pruning.constrain.channel_penalty import (
    Growing,
    group_sparse,
    group_weights,
    smallness,
    squared_norms_of,
)
from secateur.pruning.score.scores import score_groups
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net, small_resnet

LABELS = np.arange(16, dtype=np.int32) % 4


def added(adjust, model, scale=1.0):
    """Path of each trainable weight → what the penalty adds to its gradient."""
    parameters = [v.value for v in model.trainable_variables]
    found = adjust([tf.zeros_like(p) for p in parameters], parameters, scale)
    return {v.path: g.numpy() for v, g in zip(model.trainable_variables, found, strict=True)}


def by_hand(model):
    """‖w_k‖² of the channels of `plain_net`, without biases and shifts."""
    w = {v.path: v.numpy().astype(np.float64) ** 2 for v in model.trainable_variables}
    dense = w["hidden/kernel"].sum(1).reshape(-1, 6).sum(0)  # every pixel of a channel
    return {
        "stem": w["stem/kernel"].sum((0, 1, 2)) + w["outer/kernel"].sum((0, 1, 2)) + w["stem_bn/gamma"]
        + w["inner/kernel"].sum((0, 1, 3)) + dense,
        "inner": w["inner/kernel"].sum((0, 1, 2)) + w["outer/kernel"].sum((0, 1, 3)),
        "hidden": w["hidden/kernel"].sum(0) + w["logits/kernel"].sum(1),
    }  # fmt: skip


def test_a_channel_is_what_makes_scales_and_reads_it():
    model = plain_net()
    expected = by_hand(model)
    for group, squared_norms in zip(group_weights(model), expected.values(), strict=True):
        np.testing.assert_allclose(squared_norms_of(group), squared_norms, rtol=1e-5)


def test_these_are_the_scores_of_depgraph():
    """`group_l2` adds up the same weights."""
    model = small_resnet()
    scores = score_groups(model, "group_l2", reduce="sum", normalise="none")
    for group, expected in zip(group_weights(model), scores.values(), strict=True):
        np.testing.assert_allclose(squared_norms_of(group), expected, rtol=1e-5)


def test_group_sparse_adds_the_gradient_of_its_penalty():
    model, strength, alpha, scale = plain_net(), 0.3, 3.0, 0.25
    found = added(group_sparse(model, strength, alpha), model, scale)
    lam = {
        name: strength * 2 ** (alpha * (e.max() - e) / (e.max() - e.min()))
        for name, e in by_hand(model).items()
    }
    weights = {v.path: v.numpy() for v in model.trainable_variables}
    ones = np.ones(16)[:, None]  # 4 × 4 pixels behind the pooling
    expected = {
        "stem/kernel": lam["stem"],
        "stem_bn/gamma": lam["stem"],
        "inner/kernel": lam["inner"] + lam["stem"][:, None],
        "outer/kernel": lam["stem"] + lam["inner"][:, None],
        "hidden/kernel": lam["hidden"] + (ones * lam["stem"]).reshape(-1, 1),
        "logits/kernel": lam["hidden"][:, None],
    }
    assert {path for path, g in found.items() if g.any()} == expected.keys()
    for path, factor in expected.items():
        np.testing.assert_allclose(found[path], scale * factor * weights[path], rtol=1e-4)


def test_the_smallest_channel_is_pressed_two_to_the_alpha_times_as_hard():
    squared_norms = tf.constant([3.0, 1.0, 2.0])
    np.testing.assert_allclose(2 ** (4 * smallness(squared_norms)), [1, 16, 4])
    np.testing.assert_array_equal(smallness(tf.ones(3)), np.zeros(3))  # nothing to tell apart


def test_alpha_0_is_weight_decay_on_channels():
    model = plain_net()
    found = added(group_sparse(model, 0.1, 0.0), model)
    np.testing.assert_allclose(found["stem/kernel"], 0.1 * model.get_layer("stem").kernel.numpy(), rtol=1e-5)


def test_channels_of_a_scaled_network_are_pressed_alike():
    model, large = plain_net(), plain_net()
    for variable in large.trainable_variables:
        variable.assign(3 * variable.numpy())
    small, other = (added(group_sparse(m, 0.1), m) for m in (model, large))
    for path in small:
        np.testing.assert_allclose(other[path], 3 * small[path], rtol=1e-4, atol=1e-7)


def test_growing_adds_what_has_grown_to_the_chosen_channels():
    model = plain_net()
    growing = Growing.of(model, 0.0, sparsity=0.5)
    squared_norms = by_hand(model)
    for name, chosen in zip(squared_norms, growing.chosen, strict=True):
        n = len(chosen)
        assert set(np.flatnonzero(chosen)) == set(np.argsort(squared_norms[name])[: n // 2])
    assert not any(g.any() for g in added(growing.adjust(model), model).values())  # nothing yet
    grow = growing.grow(0.2, ceiling=0.5)
    for done, strength in ((1, 0.2), (2, 0.4), (3, 0.5), (4, 0.5)):
        grow(done)
        for chosen, found in zip(growing.chosen, growing.strengths, strict=True):
            np.testing.assert_allclose(found.numpy(), strength * chosen, rtol=1e-6)
    gradient = added(growing.adjust(model), model)["logits/kernel"]
    weights = model.get_layer("logits").kernel.numpy()
    np.testing.assert_allclose(gradient, 0.5 * growing.chosen[2][:, None] * weights, rtol=1e-5)


def test_without_a_choice_all_grow_as_small_as_they_are():
    model = plain_net()
    growing = Growing.of(model, 0.1)
    growing.grow(0.4)(1)
    for squared_norms, found in zip(by_hand(model).values(), growing.strengths, strict=True):
        expected = 0.1 + 0.4 * (squared_norms.max() - squared_norms) / (
            squared_norms.max() - squared_norms.min()
        )
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def train(model, adjust, steps, after):
    def read(batch, seed):
        return batch["images"]

    trainer = Trainer(model, read, labels_only, weight_decay=0.0, optimizer="momentum", adjust=adjust)
    batch = {"images": images(16), "labels": LABELS}
    for epoch in range(4):
        list(trainer.train([batch] * steps, [(1, i) for i in range(steps)], [0.02] * steps))
        after(epoch + 1)


def test_chosen_channels_end_near_zero_and_the_others_do_not():
    model = plain_net()
    growing = Growing.of(model, 0.0, sparsity=0.5)
    before = [squared_norms_of(group).numpy() for group in growing.groups]
    train(model, growing.adjust(model), 8, growing.grow(1.0, ceiling=2.0))
    for old, group, chosen in zip(before, growing.groups, growing.chosen, strict=True):
        left = squared_norms_of(group).numpy() / old
        assert left[chosen == 1].max() < 0.2 * left[chosen == 0].min()


def test_training_tells_small_channels_from_large_ones():
    model, free = plain_net(), plain_net()
    train(model, group_sparse(model, 0.05), 8, lambda done: None)
    train(free, None, 8, lambda done: None)
    pressed, wide = (np.concatenate([squared_norms_of(g) for g in group_weights(m)]) for m in (model, free))
    assert pressed.sum() < 0.9 * wide.sum()
    assert np.median(pressed / wide) < 0.7


def test_a_student_is_pressed_inside_of_its_lesson():
    student, teacher = small_resnet(seed=1), small_resnet(seed=2)
    lesson = Lesson(student, teacher, [(build("afd"), 1.0)])
    alone, inside = group_sparse(student, 0.1), group_sparse(student, 0.1, trained=lesson)
    expected = added(alone, student)
    parameters = [v.value for v in lesson.trainable_variables]
    found = inside([tf.zeros_like(p) for p in parameters], parameters, 1.0)
    student_of = {id(v): v.path for v in student.trainable_variables}
    for variable, gradient in zip(lesson.trainable_variables, found, strict=True):
        wanted = expected[student_of[id(variable)]] if id(variable) in student_of else 0
        np.testing.assert_allclose(gradient, wanted + np.zeros(variable.shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda m: group_sparse(m, -1), "strength=-1"),
        (lambda m: group_sparse(m, 1, -2.0), "alpha=-2.0"),
        (lambda m: Growing.of(m, -0.5), "strength=-0.5"),
        (lambda m: Growing.of(m, 0, sparsity=1.0), "sparsity=1.0"),
        (lambda m: Growing.of(m).grow(-1), "growth=-1"),
        (lambda m: Growing.of(m).grow(1, ceiling=-1), "ceiling=-1"),
    ],
)
def test_what_is_no_penalty(make, received):
    with pytest.raises(UsageError, match=f"Received: {received}"):
        make(plain_net())


def test_a_model_without_channels_is_refused():
    inputs = keras.Input((3,))
    with pytest.raises(UsageError, match="Received: 0 groups"):
        group_sparse(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 1e-4)


def test_biases_of_attention_are_left_alone():
    x = inputs = keras.Input((5, 8))
    x = keras.layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    paths = {part.variable.path for group in group_weights(model) for part in group.parts}
    assert "mha/value/kernel" in paths and not any("bias" in path for path in paths)
