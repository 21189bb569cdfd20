"""Lessons of labels, numbers, maps and own losses; models with several inputs; models inside of models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import (
    Lesson,
    Live,
    Loss,
    build,
    ensemble,
    for_lesson,
    lesson_objective,
    list_losses,
    view,
)
from secateur.distillation.loss import get_loss
from secateur.nets.task import Task
from secateur.op_utils import Trainer
from secateur.runs.errors import UsageError
from tests.helpers import toys

L = keras.layers
RNG = np.random.default_rng(0)
N = 8
IMAGES = toys.images(N)
LABELS = {
    "labels": (RNG.random((N, 4)) < 0.4).astype(np.float32),
    "numbers": RNG.normal(size=(N, 4)).astype(np.float32),
    "maps": (IMAGES[..., 0] > 0) + 2 * (IMAGES[..., 1] > 0),
    "two": np.arange(N) % 2,
}
SAID = {"labels": "binary_crossentropy", "numbers": "mse", "maps": None, "two": "binary_crossentropy"}
ENDS = {"labels": "sigmoid", "numbers": None, "maps": "softmax", "two": "sigmoid"}


def net(kind, activation=None, width=6, seed=0):
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(width, 3, padding="same", activation="relu", name="conv")(images)
    if kind == "maps":
        end = L.Conv2D(4, 1, activation=activation, name="out")(x)
    else:
        end = L.Dense(1 if kind == "two" else 4, activation=activation, name="out")(
            L.GlobalAveragePooling2D()(x)
        )
    return toys.randomised(keras.Model(images, end), seed)


def lesson(kind, losses, label_weight=0.0, activation=None):
    student, teacher = net(kind, activation), net(kind, activation, 9, seed=1)
    found = Lesson(student, teacher, losses, label_weight, task=Task.of(student, SAID[kind]))
    return found, student, teacher


def inputs(kind):
    return {"images": tf.constant(IMAGES), "labels": tf.constant(LABELS[kind])}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(kind, teacher, student, temperature):
    """By NumPy, without a factor of T."""
    t, s = (z.astype(np.float64) / temperature for z in (teacher, student))
    if kind == "maps":
        p, q = softmax(t), softmax(s)
        return (p * np.log(p / q)).sum(-1).mean()
    p, q = sigmoid(t), sigmoid(s)
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(-1).mean()


@pytest.mark.parametrize("factor", ["T2", "1"])
@pytest.mark.parametrize("kind", ["labels", "maps", "two"])
def test_kd_is_the_mean_divergence_of_what_is_decided(kind, factor):
    found, student, teacher = lesson(kind, [(build("kd", temperature=3.0, factor=factor), 2.0)])
    logits = [m(IMAGES).numpy() for m in (teacher, student)]
    expected = 2 * divergence(kind, *logits, 3.0) * (9 if factor == "T2" else 1)
    assert float(found(inputs(kind))["loss"]) == pytest.approx(expected, rel=1e-4) and expected > 1e-3


def test_kd_of_numbers_is_their_mean_squared_difference_at_any_temperature():
    for temperature in (1.0, 7.0):
        found, student, teacher = lesson("numbers", [(build("kd", temperature=temperature), 1.0)])
        expected = np.mean((teacher(IMAGES) - student(IMAGES)) ** 2)
        assert float(found(inputs("numbers"))["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_shares_and_their_logits_teach_alike(kind):
    terms = [(build("kd"), 1.0)]
    logits, *_ = lesson(kind, terms, 1.0)
    shares, student, _ = lesson(kind, terms, 1.0, ENDS[kind])
    found, expected = shares(inputs(kind)), logits(inputs(kind))
    assert student.layers[-1].activation is keras.activations.get(ENDS[kind])  # as it was
    for name in ("loss", "logits", "metric"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", LABELS)
def test_the_label_loss_and_the_metric_are_the_tasks(kind):
    found, student, _ = lesson(kind, [], 0.5)
    task, outputs = Task.of(student, SAID[kind]), student(IMAGES)
    made = found(inputs(kind))
    assert float(made["loss"]) == pytest.approx(0.5 * float(task.loss(LABELS[kind], outputs)), rel=1e-5)
    assert float(made["metric"]) == pytest.approx(task.score(LABELS[kind], outputs), rel=1e-4)
    assert lesson_objective(made, {}) == (made["loss"], made["metric"])


def test_a_loss_of_shares_is_that_of_shares_in_a_lesson_too():
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.2)
    student = net("labels", "sigmoid")
    found = Lesson(student, None, [], task=Task.of(student, loss))(inputs("labels"))
    assert float(found["loss"]) == pytest.approx(float(loss(LABELS["labels"], student(IMAGES))), rel=1e-4)


def test_a_segmenter_needs_no_task():
    terms = [(build("kd"), 1.0)]
    expected, student, teacher = lesson("maps", terms, 1.0)
    found = Lesson(student, teacher, terms)(inputs("maps"))
    assert float(found["loss"]) == float(expected(inputs("maps"))["loss"])


@pytest.mark.parametrize("kind", ["labels", "numbers", "maps"])
def test_a_lesson_trains_compiled_by_xla(kind):
    found, student, teacher = lesson(kind, [(build("kd"), 0.3), (build("at"), 1.0)], 1.0)
    before = [v.numpy() for v in teacher.variables]
    read = for_lesson(lambda batch, seed: batch["images"])
    trainer = Trainer(found, read, lesson_objective, optimizer="adam", compile_=True)
    batch = {"images": IMAGES, "labels": LABELS[kind]}
    steps = list(trainer.train([batch] * 20, [(1, i) for i in range(20)], [0.05] * 20))
    again = float(found(inputs(kind))["loss"])
    assert again < 0.8 * steps[0][0]
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, teacher.variables, strict=True))


# --- inputs and outputs of any structure -------------------------------------------------------------------


def pair(structure, seed=0):
    """Reads two images, and says a class and a place."""
    given = {"left": keras.Input((8, 8, 3), name="left"), "right": keras.Input((8, 8, 3), name="right")}
    tower = L.Conv2D(5, 3, activation="relu", name="conv")
    x = L.GlobalAveragePooling2D()(L.Add()([tower(given["left"]), tower(given["right"])]))
    given = given if structure is dict else list(given.values())
    made = {"class": L.Dense(3, name="class")(x), "place": L.Dense(2, name="place")(x)}
    return toys.randomised(keras.Model(given, made), seed)


@pytest.mark.parametrize("structure", [dict, list])
def test_several_inputs_and_outputs_learn_by_an_own_loss(structure):
    def loss(labels, outputs):
        return tf.reduce_mean((labels["place"] - outputs["place"]) ** 2, -1)

    student, teacher = pair(structure), pair(structure, seed=1)
    right = toys.images(N, seed=2)
    given = {"left": IMAGES, "right": right} if structure is dict else [IMAGES, right]
    labels = {"place": RNG.normal(size=(N, 2)).astype(np.float32)}
    terms = [(build("at"), 3.0)]
    made = Lesson(student, teacher, terms, task=Task.of(student, loss))({"images": given, "labels": labels})
    outputs = student(given)
    place = np.mean((labels["place"] - outputs["place"]) ** 2)
    np.testing.assert_allclose(made["logits"]["class"], outputs["class"], atol=1e-6)
    assert float(made["terms"][0]) == pytest.approx(place, rel=1e-5)
    assert float(made["loss"]) == pytest.approx(place + 3 * float(made["terms"][1]), rel=1e-5)
    assert float(made["metric"]) == pytest.approx(-place, rel=1e-5)


# --- models inside -----------------------------------------------------------------------------------------


def transfer(sizes=(16, 16), nested=True, seed=0):
    """A backbone of two stages, called with training=False, or the same of one piece."""
    inside = keras.Input((*sizes, 3))
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(inside)
    x = L.ReLU(name="relu1")(L.BatchNormalization(name="bn1")(x))
    x = L.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="conv2")(x)
    backbone = keras.Model(inside, x, name="backbone")
    images = keras.Input((16, 16, 3)) if nested else inside
    x = backbone(images, training=False) if nested else x
    x = L.Dense(4, activation="softmax", name="out")(L.GlobalAveragePooling2D(name="pool")(x))
    return toys.randomised(keras.Model(images, x), seed)


@pytest.mark.parametrize("sizes", [(16, 16), (None, None)])
def test_features_inside_of_a_model_are_those_of_one_piece(sizes):
    """Also where the model inside leaves its sizes open."""
    model, flat = transfer(sizes), transfer(nested=False)
    flat.set_weights(model.get_weights())
    images = toys.images(3, 16)
    seen = view(model, ["all"])
    found, expected = seen(images), view(flat, ["all"])(images)
    assert [x.shape[1:] for x in found["stages"]] == [(16, 16, 4), (8, 8, 6)]
    for ours, theirs in zip(*map(keras.tree.flatten, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    shapes = [tuple(x.shape[1:]) for x in keras.tree.flatten(seen.output)]
    assert shapes == [tuple(x.shape[1:]) for x in keras.tree.flatten(found)]
    assert {id(v) for v in seen.variables} == {id(v) for v in model.variables}
    assert model.get_layer("out").output is model.output  # nobody called its layers again


def test_a_layer_inside_of_a_model_may_be_named():
    model, images = transfer(), toys.images(2, 16)
    found = view(model, [], {"stages": ["backbone/conv2"]}, more=["pool"])(images)
    inner = model.get_layer("backbone")(images, training=False)
    np.testing.assert_allclose(found["stages"][0], inner, atol=1e-6)
    np.testing.assert_allclose(found["pool"], inner.numpy().mean((1, 2)), atol=1e-6)


def test_a_teacher_with_a_model_inside_teaches_by_its_features():
    teacher, flat = transfer(seed=1), transfer(nested=False)
    flat.set_weights(teacher.get_weights())
    given = {"images": toys.images(N, 16), "labels": np.arange(N) % 4}
    for key in ("at", "hap", "rkd", "kd", "fitnet"):
        losses = []
        for one in (teacher, flat):
            keras.utils.set_random_seed(0)
            student = transfer(nested=False, seed=2)
            losses.append(float(Lesson(student, one, [(build(key), 1.0)], 0.0)(given)["loss"]))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 0


def test_a_student_with_a_model_inside_trains():
    student, teacher = transfer(seed=2), transfer(seed=1)
    found = Lesson(student, teacher, [(build("at"), 100.0), (build("kd"), 1.0)])
    read = for_lesson(lambda batch, seed: batch["images"])
    trainer = Trainer(found, read, lesson_objective, compile_=True)
    batch = {"images": toys.images(N, 16), "labels": np.arange(N) % 4}
    start = [v.numpy() for v in student.trainable_variables]
    steps = list(trainer.train([batch] * 10, [(1, i) for i in range(10)], [0.01] * 10))
    moved = [np.abs(a - v.numpy()).max() for a, v in zip(start, student.trainable_variables, strict=True)]
    assert np.isfinite([s[0] for s in steps]).all() and min(moved) > 0


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [k for k in list_losses() if build(k).of_outputs and k != "kd"])
@pytest.mark.parametrize("kind", ["labels", "numbers", "maps"])
def test_losses_of_class_logits_refuse_other_tasks(key, kind):
    with pytest.raises(
        UsageError, match=f"'{key}' compares outputs of classes. Received: a task of '{kind}'"
    ):
        lesson(kind, [(build(key), 1.0)])


def test_losses_that_are_known_to_compare_class_logits():
    assert {"kd", "kd_std", "dkd", "dist", "lsp"} <= {k for k in list_losses() if build(k).of_outputs}
    assert get_loss("kd").kinds == ("classes", "labels", "numbers", "maps")


CLASSES = net("labels")


@pytest.mark.parametrize(
    ("student", "teacher", "labels", "task", "message"),
    [
        (CLASSES, net("two"), np.arange(N) % 4, None, r"same outputs. Received: \(None, 1\) of the teacher"),
        (CLASSES, CLASSES, np.eye(4)[np.arange(N) % 4], None, r"integers \(b,\). Received: shape \(8, 4\)"),
        (CLASSES, CLASSES, RNG.random(N), None, "integers .*type float64"),
        (net("two"), net("two"), np.arange(N) % 2, None, "one output for two classes learn.*\\n.*task="),
        (pair(dict), pair(dict), np.arange(N), None, "2 outputs learn.*\\n.*task="),
        (CLASSES, CLASSES, np.arange(N), "binary_crossentropy", r"labels .*\(n, 4\). Received: \(8,\)"),
        (CLASSES, CLASSES, RNG.random((N, 3)), "mse", r"numbers .* shape \(n, 4\). Received: \(8, 3\)"),
        (net("maps"), net("maps"), np.zeros((N, 8)), None, r"maps .*Received: \(8, 8\)"),
        (net("maps"), CLASSES, np.zeros((N, 8, 8)), None, r"same outputs. Received: \(None, 4\) of the"),
        (CLASSES, CLASSES, RNG.random(N), lambda y, z: z, "'kd' compares .*Received: a loss of your own"),
        (net("labels", "sigmoid"), CLASSES, np.arange(N), None, "has no logits.*\n.*task="),
        (CLASSES, Live(CLASSES, kind="labels"), np.zeros((N, 8)), "mse", r"Received: \(8, 8\)"),
    ],
)  # fmt: skip
def test_what_a_lesson_cannot_be_of_is_named(student, teacher, labels, task, message):
    with pytest.raises(UsageError, match=message) as error:
        task = task and Task.of(student, task)
        found = Lesson(student, teacher, [(build("kd"), 1.0)], task=task)
        found({"images": IMAGES, "labels": labels})
    assert len(str(error.value).splitlines()) <= 2


class Distance(Loss):
    """A loss of one's own, of numbers, which compares with one teacher."""

    kinds = ("numbers",)

    def compare(self, teacher, student):
        assert len(teacher.shape) == len(student.shape)
        return tf.reduce_mean(tf.square(teacher - student))


@pytest.mark.parametrize(
    "loss",
    [Distance(), keras.distillation.LogitsDistillation(1.0, keras.losses.MeanSquaredError())],
)
def test_several_teachers_of_numbers_have_one_voice_for_who_does_not_tell_them_apart(loss):
    student, *teachers = (net("numbers", seed=seed) for seed in range(3))
    task = Task.of(student, "mse")
    both = ensemble(teachers, kind="numbers")
    found = Lesson(student, both, [(loss, 1.0)], 0.0, task=task)(inputs("numbers"))["loss"]
    mean = np.mean([teacher(IMAGES) for teacher in teachers], 0)
    np.testing.assert_allclose(found, np.mean((mean - student(IMAGES)) ** 2), rtol=1e-5)


@pytest.mark.parametrize("kind", ["labels", "numbers", "maps"])
def test_several_teachers_are_as_far_as_each_alone_in_the_mean(kind):
    student, *teachers = (net(kind, seed=seed) for seed in range(3))
    task = Task.of(student, SAID[kind])
    kd = build("kd", weights=[1.0, 3.0])
    both = Lesson(student, ensemble(teachers, kind=kind), [(kd, 1.0)], 0.0, task=task)(inputs(kind))["loss"]
    alone = [Lesson(student, t, [(build("kd"), 1.0)], 0.0, task=task)(inputs(kind))["loss"] for t in teachers]
    np.testing.assert_allclose(both, np.average(alone, weights=[1, 3]), rtol=1e-5)
