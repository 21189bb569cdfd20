"""fit with a teacher: the user's loss and ours, each as it is by itself; all else is the student's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import Distiller, Lesson, build
from secateur.nets.task import Task
from secateur.runs import UsageError
from tests.helpers.fitting import ENTROPY, data, gated
from tests.helpers.toys import images, randomised

pytestmark = pytest.mark.runs
L = keras.layers
LOSSES = [("kd", 0.9), (build("at"), 10.0)]


def classifier(seed: int, softmax: bool = False, decay: float | None = None) -> keras.Model:
    """Two stages, BN with frozen averages, four classes."""
    x = keras.Input((8, 8, 3))
    y = L.Conv2D(
        6, 3, padding="same", activation="relu", kernel_regularizer=decay and keras.regularizers.L2(decay)
    )(x)
    y = L.BatchNormalization(trainable=False)(y)
    y = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(y)
    y = L.Dense(4, activation="softmax" if softmax else None)(L.GlobalAveragePooling2D()(y))
    return randomised(keras.Model(x, y), seed)


def compiled(model: keras.Model, loss=ENTROPY, **options) -> keras.Model:
    model.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=True, **options)
    return model


def fit(model: keras.Model, *given, **options) -> dict[str, float]:
    """One step on one batch; what it reports."""
    options = {"batch_size": 64, "verbose": 0, **options}
    return {name: values[0] for name, values in model.fit(*(given or data()), **options).history.items()}


def same(one: keras.Model, other: keras.Model, atol: float = 1e-6) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


# --- what it learns ----------------------------------------------------------------------------------------


def test_a_step_is_that_of_a_lesson():
    """With the cross-entropy as the user's loss: the same parts, the same weights behind a step of SGD."""
    student, expected, teacher = classifier(1), classifier(1), classifier(2)
    found = fit(compiled(Distiller(student, teacher, LOSSES, label_weight=0.5)))
    x, y = data()
    lesson = Lesson(expected, teacher, [(build("kd"), 0.9), (build("at"), 10.0)], 0.5)
    with tf.GradientTape() as tape:
        outputs = lesson({"images": tf.constant(x), "labels": tf.constant(y)}, training=True)
    gradients = tape.gradient(outputs["loss"], expected.trainable_variables)
    keras.optimizers.SGD(0.05).apply_gradients(zip(gradients, expected.trainable_variables, strict=True))
    same(student, expected)
    parts = [found[name] for name in ("label_loss", "kd_loss", "at_loss")]
    np.testing.assert_allclose(parts, outputs["terms"], rtol=1e-5)
    assert found["loss"] == pytest.approx(float(outputs["loss"]), rel=1e-5)


def test_a_key_has_its_published_weight():
    found = fit(compiled(Distiller(classifier(1), classifier(2), ["kd", "at"])))
    expected = found["label_loss"] + build("kd").beta * found["kd_loss"] + build("at").beta * found["at_loss"]
    assert found["loss"] == pytest.approx(expected, rel=1e-5) and build("at").beta == 1000


@pytest.mark.parametrize("softmax", [True, False])
def test_without_losses_it_is_plain_training(softmax):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    expected, student = compiled(classifier(1, softmax), loss), classifier(1, softmax)
    alone = fit(expected)["loss"]
    assert fit(compiled(Distiller(student, None, []), loss))["label_loss"] == pytest.approx(alone, rel=1e-6)
    same(student, expected)


def test_sample_and_class_weights_weigh_the_label_loss_alone():
    weights = np.random.default_rng(3).random(32)
    options = [{}, {"sample_weight": weights}, {"class_weight": {0: 1.0, 1: 2.0, 2: 0.0, 3: 5.0}}]
    found = [fit(compiled(Distiller(classifier(1), classifier(2), LOSSES)), **one) for one in options]
    alone = [fit(compiled(classifier(1)), **one)["loss"] for one in options]
    np.testing.assert_allclose([one["label_loss"] for one in found], alone, rtol=1e-5)
    assert len(set(alone)) == 3
    np.testing.assert_allclose([one["kd_loss"] for one in found], found[0]["kd_loss"], rtol=1e-6)


@pytest.mark.parametrize("label_weight", [0.0, 2.0])
def test_regularisers_keep_their_weight(label_weight):
    student = classifier(1, decay=0.1)
    penalty = 0.1 * float(np.square(student.layers[1].kernel).sum())
    found = fit(compiled(Distiller(student, classifier(2), [("kd", 3.0)], label_weight)))
    assert found["label_loss"] == pytest.approx(fit(compiled(classifier(1)))["loss"], rel=1e-4)
    expected = label_weight * found["label_loss"] + 3 * found["kd_loss"] + penalty
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_without_labels_the_teacher_alone_is_learnt():
    student, teacher = classifier(1), classifier(2)
    distiller = compiled(Distiller(student, teacher, [("kd", 1.0)]), loss=None)
    losses = [fit(distiller, images(32))["loss"] for _ in range(5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_losses_get_their_labels_in_whatever_form_the_users_loss_has_them():
    x, y = data()
    forms = {
        "sparse": (y, ENTROPY),
        "column": (y[:, None], ENTROPY),
        "one-hot": (keras.ops.one_hot(y, 4).numpy(), keras.losses.CategoricalCrossentropy(from_logits=True)),
    }
    found = [
        fit(compiled(Distiller(classifier(1), classifier(2), ["dkd"]), loss), x, labels)
        for labels, loss in forms.values()
    ]
    student, teacher = classifier(1)(x), classifier(2)(x)
    expected = float(build("dkd").compute_loss(teacher, student, labels=y))
    np.testing.assert_allclose([one["dkd_loss"] for one in found], expected, rtol=1e-5)


def test_what_a_loss_owns_trains_along():
    distiller = compiled(Distiller(classifier(1), classifier(2), ["fitnet"]))
    own = distiller.lesson.terms[0][0].trainable_variables
    before = [variable.numpy() for variable in own]
    fit(distiller)
    assert own and any(np.abs(a - v.numpy()).max() > 0 for a, v in zip(before, own, strict=True))


def test_kernels_that_a_loss_moves_are_those_that_predict_and_are_kept():
    student = gated()
    distiller = compiled(Distiller(student, randomised(gated(), 5), [("fad", 1e4)]))
    fit(distiller)
    moved = distiller.predict(images(4), verbose=0)
    assert np.abs(moved - student(images(4))).max() > 1e-3
    distiller.lesson.settle()
    np.testing.assert_allclose(student(images(4)), moved, atol=1e-5)


# --- what it reads -----------------------------------------------------------------------------------------


def pair(inputs, seed: int) -> keras.Model:
    """Two images side by side, in whatever structure."""
    left, right = keras.tree.flatten(inputs)
    y = L.Concatenate()([L.Conv2D(4, 3, activation="relu")(left), L.Conv2D(4, 3, activation="relu")(right)])
    return randomised(keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(y))), seed)


@pytest.mark.parametrize("structure", ["dict", "list", "tuple"])
@pytest.mark.parametrize("eagerly", [True, False])
def test_several_inputs_are_given_as_fit_takes_them(structure, eagerly):
    def make(seed):
        left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
        forms = {"dict": {"left": left, "right": right}, "list": [left, right], "tuple": (left, right)}
        return pair(forms[structure], seed)

    x = {"left": images(32, seed=1), "right": images(32, seed=2)}
    given = x if structure == "dict" else type(make(1).input)(x.values())
    distiller = Distiller(make(1), make(2), [("kd", 1.0), ("at", 1.0)])
    distiller.compile("sgd", ENTROPY, run_eagerly=eagerly)
    expected = build("kd").compute_loss(make(2)(given), make(1)(given))
    assert fit(distiller, given, data()[1])["kd_loss"] == pytest.approx(float(expected), rel=1e-5)


def with_heads(seed: int, *heads) -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu")(x))
    outputs = {head.name: head(y) for head in heads}
    return randomised(keras.Model(x, outputs if len(heads) > 1 else next(iter(outputs.values()))), seed)


def test_numbers_are_learnt_by_the_users_loss_and_the_teachers_numbers():
    student, teacher = (with_heads(seed, L.Dense(2, name="numbers")) for seed in (1, 2))
    distiller = Distiller(student, teacher, [("kd", 1.0)], task=Task.of(student, "mse"))
    expected = np.square(student(images(32)) - teacher(images(32))).mean()
    found = fit(compiled(distiller, "mae"), images(32), np.zeros((32, 2), np.float32))
    assert found["kd_loss"] == pytest.approx(expected, rel=1e-5)


def test_several_outputs_have_a_loss_each_and_features_of_the_teacher():
    """Also where the user's metrics go by the names of the outputs."""
    student, teacher = (
        with_heads(seed, L.Dense(2, name="numbers"), L.Dense(4, name="classes")) for seed in (1, 2)
    )
    losses = {"numbers": "mse", "classes": ENTROPY}
    task = Task.of(student, {"numbers": "mse", "classes": "sparse_categorical_crossentropy"})
    distiller = Distiller(student, teacher, [("at", 1.0)], task=task)
    compiled(distiller, losses, metrics={"classes": ["accuracy"]})
    labels = {"numbers": np.zeros((32, 2), np.float32), "classes": data()[1]}
    found = fit(distiller, images(32), labels, validation_data=(images(32), labels))
    alone = fit(
        compiled(with_heads(1, *(L.Dense(n, name=m) for m, n in (("numbers", 2), ("classes", 4)))), losses),
        images(32),
        labels,
    )
    assert found["label_loss"] == pytest.approx(alone["loss"], rel=1e-5) and found["at_loss"] > 0
    assert "val_classes_accuracy" in found


def test_a_student_with_a_model_inside_learns_features():
    def make(seed):
        inside = keras.Input((8, 8, 3))
        y = L.Conv2D(6, 3, activation="relu")(L.Conv2D(6, 3, strides=2, activation="relu")(inside))
        base, x = keras.Model(inside, y, name="base"), keras.Input((8, 8, 3))
        return randomised(
            keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(base(x)))), seed
        )

    student, start = make(1), make(1)
    found = fit(compiled(Distiller(student, make(2), ["kd", "at"]), "sparse_categorical_crossentropy"))
    assert found["at_loss"] > 0 and found["kd_loss"] > 0
    alone = fit(compiled(start, "sparse_categorical_crossentropy"))["loss"]
    assert found["label_loss"] == pytest.approx(alone, rel=1e-5)
    inner = [np.abs(a - b).max() for a, b in zip(student.get_weights(), make(1).get_weights(), strict=True)]
    assert min(inner) > 0


# --- what it is beside that --------------------------------------------------------------------------------


def test_evaluate_and_predict_are_those_of_the_student():
    distiller = compiled(Distiller(classifier(1), classifier(2), LOSSES, 0.3), metrics=["accuracy"])
    found = fit(distiller, validation_data=data())
    student = compiled(distiller.student, metrics=["accuracy"])
    expected = student.evaluate(*data(), verbose=0, return_dict=True)
    assert distiller.evaluate(*data(), verbose=0, return_dict=True) == pytest.approx(expected)
    assert {n[4:]: v for n, v in found.items() if n.startswith("val_")} == pytest.approx(expected)
    x = images(5)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), student.predict(x, verbose=0))


def test_the_student_sees_each_batch_once_and_is_saved_as_it_was_built(tmp_path):
    """BN's averages move once a step; `keras.distillation.Distiller` runs a student twice."""
    student, plain = gated(), compiled(gated())
    fit(compiled(Distiller(student, gated(), [("at", 0.0)])))
    fit(plain)
    np.testing.assert_allclose(
        student.get_layer("bn").moving_mean, plain.get_layer("bn").moving_mean, rtol=1e-6
    )
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in again.layers)
    np.testing.assert_array_equal(again(images(4)), student(images(4)))


def test_the_teacher_is_neither_changed_nor_saved(tmp_path):
    teacher, student = gated(), gated()
    before = teacher.get_weights()
    distiller = compiled(Distiller(student, teacher, ["kd", "fitnet"]))
    fit(distiller)
    assert teacher.trainable and {id(v) for v in teacher.variables}.isdisjoint(map(id, distiller.variables))
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    distiller.save_weights(tmp_path / "all.weights.h5")
    other = compiled(Distiller(gated(), teacher, ["kd", "fitnet"]))
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "all.weights.h5")
    same(other.student, student, atol=0)


def test_it_compiles_under_xla():
    found = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        distiller = Distiller(classifier(1), classifier(2), LOSSES)
        distiller.compile(keras.optimizers.SGD(0.05), ENTROPY, **options)
        found.append(fit(distiller))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_compiled_student_says_what_its_outputs_mean():
    x = keras.Input((8, 8, 3))
    student, teacher = (
        keras.Model(x, keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(x))) for _ in range(2)
    )
    with pytest.raises(UsageError, match="compile the student"):
        Distiller(student, teacher, ["kd"])
    student.compile(loss="binary_crossentropy")
    assert Distiller(student, teacher, ["kd"]).lesson.task.two


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="'kd'"):
        Distiller(classifier(1), classifier(2), ["kdd"])
    with pytest.raises(UsageError, match="teacher=None"):
        Distiller(classifier(1), None, ["kd"])
