"""A lesson whose loss moves the student's kernels: what it computes, trains, shows and leaves behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import Banked, Ensemble, Lesson, Live, build, lesson_objective
from secateur.distillation.moving import call_with
from secateur.distillation.pairing import convolutions, partners
from secateur.nets import MaskedConv2D
from secateur.op_utils import Trainer
from secateur.runs import UsageError
from tests.helpers.lessons import batches, network, read

pytestmark = pytest.mark.runs
SCALE = 0.3  # an effect that can be seen


def with_fad(student, teacher, weight: float = 1.0) -> Lesson:
    """KD and FAD, FAD's weights the same each time."""
    fad = build("fad", units=8, scale=SCALE)
    keras.utils.set_random_seed(5)
    return Lesson(student, teacher, [(build("kd"), 0.9), (fad, weight)])


def fad_of(lesson: Lesson):
    return lesson.changes.losses[0][0]


def inputs() -> dict[str, tf.Tensor]:
    return {k: tf.convert_to_tensor(v) for k, v in read(batches(1)[0], None).items()}


def values(variables) -> list[np.ndarray]:
    return [v.numpy() for v in variables]


def rewritten(lesson: Lesson) -> keras.Model:
    """A second student, its kernels replaced by hand by those that FAD makes of the first and the teacher."""
    copy, convs = network(1), [convolutions(m) for m in (lesson.student, lesson.teacher.view)]
    copy.set_weights(lesson.student.get_weights())
    own, taught = ([tf.constant(layer.kernel.numpy()) for layer in side] for side in convs)
    for layer, kernel in zip(convolutions(copy), fad_of(lesson).adapt(own, taught), strict=True):
        layer.kernel.assign(kernel)
    return copy


# --- which of the teacher's --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([3, 3, 1, 3], [3, 3, 1, 3], [0, 1, 2, 3]),
        ([3, 1, 3], [1, 3, 3], [1, 0, 2]),
        ([3, 3, 3], [3] * 7, [0, 3, 6]),
        ([3] * 5, [3, 3], [0, 0, 0, 1, 1]),
        ([3], [3, 3, 3], [0]),
        ([5, 5, 3], [3, 1, 3], [0, 2, 0]),
    ],
)
def test_partners_are_of_the_same_size_in_order_or_at_the_same_relative_depth(student, teacher, expected):
    assert partners([(n, n) for n in student], [(n, n) for n in teacher]) == expected


def test_convolutions_come_in_order_also_from_a_model_within_and_without_depthwise_ones():
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(5, 1)])
    image = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3)(MaskedConv2D(6, 3)(inner(image)))
    found = convolutions(keras.Model(image, keras.layers.Conv2DTranspose(2, 3)(x)))
    assert [tuple(layer.kernel.shape) for layer in found] == [(3, 3, 3, 4), (1, 1, 4, 5), (3, 3, 5, 6)]


# --- computing with other values ---------------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True])
def test_a_call_with_other_kernels_updates_averages_and_nothing_else(within):
    """As a model that has these kernels, also where an outer scope holds all values."""
    model, other, images = network(1), network(2), inputs()["images"]
    other.set_weights(model.get_weights())
    before, trained = values(model.variables), values(model.trainable_variables)
    kernels = [(layer.kernel, layer.kernel.value * 1.5) for layer in convolutions(model)]
    for (_, value), layer in zip(kernels, convolutions(other), strict=True):
        layer.kernel.assign(value)
    expected = other(images, training=True)
    if within:
        scope = keras.StatelessScope([(v, v.value) for v in model.variables])
        with scope:
            found = call_with(model, kernels, images, training=True)
        assert all(np.array_equal(a, b) for a, b in zip(before, values(model.variables), strict=True))
        after = [scope.get_current_value(v).numpy() for v in model.non_trainable_variables]
    else:
        found = call_with(model, kernels, images, training=True)
        after = values(model.non_trainable_variables)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for a, b in zip(after, values(other.non_trainable_variables), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    kept = zip(trained, values(model.trainable_variables), strict=True)
    assert all(np.array_equal(a, b) for a, b in kept)


# --- lessons -----------------------------------------------------------------------------------------------


def test_a_step_computes_with_the_kernels_that_fad_makes_and_averages_follow():
    lesson = with_fad(network(1), network(2))
    copy = rewritten(lesson)
    plain = Lesson(copy, lesson.teacher, [(build("kd"), 0.9)])
    params, stats = (
        [v.value for v in vs] for vs in (lesson.trainable_variables, lesson.non_trainable_variables)
    )
    found, new = lesson.stateless_call(params, stats, inputs(), training=True)
    expected = plain(inputs(), training=True)
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)
    after = {v.path: s for v, s in zip(lesson.non_trainable_variables, new, strict=True)}
    for own, other in zip(lesson.student.non_trainable_variables, copy.non_trainable_variables, strict=True):
        np.testing.assert_allclose(after[own.path], other.numpy(), atol=1e-5)
    assert np.abs(found["logits"] - lesson.student(inputs()["images"], training=True)).max() > 1e-2


def train(lesson: Lesson, **options) -> list:
    trainer = Trainer(lesson, read, lesson_objective, weight_decay=5e-4, **options)
    return list(trainer.train(batches(2), [(1, 0), (1, 1)], [0.1, 0.1]))


@pytest.mark.parametrize("options", [{"compile_": True}, {"compile_": False, "accum": 4}])
def test_student_and_fad_train_and_the_teacher_stays(options):
    teacher = network(2)
    lesson = with_fad(network(1), teacher)
    taught, start = teacher.get_weights(), values(lesson.trainable_variables)
    assert {id(v) for v in fad_of(lesson).variables} <= {id(v) for v in lesson.trainable_variables}
    assert np.isfinite(train(lesson, **options)).all()
    for name, a, v in zip(
        [v.path for v in lesson.trainable_variables], start, lesson.trainable_variables, strict=True
    ):
        assert np.abs(a - v.numpy()).max() > 0, name
    assert all(np.array_equal(a, b) for a, b in zip(taught, teacher.get_weights(), strict=True))


@pytest.mark.parametrize(("weight", "same"), [(0.0, True), (1.0, False)])
def test_with_weight_0_nothing_changes(weight, same):
    found = []
    for lesson in (
        with_fad(network(1), network(2), weight),
        Lesson(network(1), network(2), [(build("kd"), 0.9)]),
    ):
        train(lesson, compile_=False)
        lesson.settle()
        found.append(lesson.student.get_weights())
    gap = max(np.abs(a - b).max() for a, b in zip(*found, strict=True))
    assert (gap < 1e-5) == same


def test_settling_leaves_what_was_shown_on_the_way_and_happens_once():
    lesson = with_fad(network(1), network(2))
    train(lesson, compile_=False)
    images = inputs()["images"]
    before, shown = lesson(inputs(), training=False)["logits"], lesson.learner(images, training=False)
    np.testing.assert_allclose(shown, before, atol=1e-5)
    assert np.abs(lesson.student(images) - shown).max() > 1e-2
    for _ in range(2):
        lesson.settle()
        np.testing.assert_allclose(lesson.student(images), shown, atol=1e-5)
        np.testing.assert_allclose(lesson(inputs(), training=False)["logits"], shown, atol=1e-5)
    assert lesson.learner is lesson.student


def test_settling_without_such_a_loss_does_nothing():
    lesson = Lesson(network(1), network(2), [(build("kd"), 0.9)])
    before = lesson.student.get_weights()
    lesson.settle()
    assert lesson.learner is lesson.student
    assert all(np.array_equal(a, b) for a, b in zip(before, lesson.student.get_weights(), strict=True))


def test_filters_that_are_off_stay_off_and_a_teachers_count_as_zero():
    def masked(seed, filters):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [keras.Input((8, 8, 3)), MaskedConv2D(filters), keras.layers.Flatten(), keras.layers.Dense(4)]
        )
        model.layers[0].mask.assign([1.0] * (filters - 1) + [0.0])
        return model

    student, teacher = masked(1, 5), masked(2, 6)
    lesson = with_fad(student, teacher)
    before = lesson(inputs())["logits"]
    kernel = teacher.layers[0].kernel
    kernel.assign(kernel.numpy() * teacher.layers[0].mask.numpy())
    np.testing.assert_array_equal(lesson(inputs())["logits"], before)
    lesson.settle()
    kernel = student.layers[0].kernel.numpy()
    assert np.abs(kernel[..., -1]).max() == 0 < np.abs(kernel[..., :-1]).max()


def test_frozen_kernels_stay_and_an_ensemble_lends_the_first_ones():
    student = network(1)
    first, *rest = convolutions(student)
    first.trainable = False
    lesson = with_fad(student, Ensemble([Live(network(2)), Live(network(3))]))
    alone = with_fad(student, Live(network(2)))
    assert [v.path for v, _ in lesson.changes.kernels()] == [layer.kernel.path for layer in rest]
    for (_, a), (_, b) in zip(lesson.changes.kernels(), alone.changes.kernels(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_stored_logits_have_no_kernels():
    with pytest.raises(UsageError, match="live teacher's. Received: 4 that train, 0 of the teacher"):
        with_fad(network(1), Banked())
