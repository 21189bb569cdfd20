"""What outputs mean, how wrong they are and how many are right, against NumPy and Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.nets.endings import logits_of
from secateur.nets.task import Task
from secateur.runs.errors import UsageError

L = keras.layers
RNG = np.random.default_rng(0)
INTEGERS = np.array([2, 0, 1, 2])
ONE_HOT = np.eye(3, dtype=np.float32)[INTEGERS]
TAGS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
NUMBERS = RNG.normal(size=(4, 3)).astype(np.float32)
PIXELS = RNG.integers(3, size=(4, 5, 5))


def net(units, activation=None, loss=None):
    images = keras.Input((5,))
    model = keras.Model(images, L.Dense(units, activation=activation, name="out")(images))
    if loss is not None:
        model.compile("sgd", loss)
    return model


def segmenter(units, activation=None, loss=None):
    images = keras.Input((5, 5, 3))
    model = keras.Model(images, L.Conv2D(units, 3, padding="same", activation=activation)(images))
    if loss is not None:
        model.compile("sgd", loss)
    return model


def outputs_of(model):
    return model(RNG.normal(size=(4, *model.input_shape[1:])).astype(np.float32)).numpy()


def log_softmax(z):
    z = z.astype(np.float64)
    return z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def binary(p, y):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


# --- which task --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "loss", "kind", "shares"),
    [
        (net(3), None, "classes", False),
        (net(3, "softmax"), None, "classes", True),
        (net(1, "sigmoid"), None, "classes", True),
        (segmenter(3), None, "maps", False),
        (segmenter(1, "sigmoid"), None, "maps", True),
        (net(3, loss="mse"), None, "numbers", False),
        (net(3, loss=keras.losses.Huber()), None, "numbers", False),
        (net(3, loss=keras.losses.mean_absolute_error), None, "numbers", False),
        (net(3, loss="mse"), "sparse_categorical_crossentropy", "classes", False),
        (net(3, loss="binary_crossentropy"), None, "labels", False),
        (net(1, loss="binary_crossentropy"), None, "classes", False),
        (segmenter(3, loss="sparse_categorical_crossentropy"), None, "maps", False),
        (segmenter(1, loss="binary_crossentropy"), None, "labels", False),
        (segmenter(2), "mape", "numbers", False),
        (net(3, loss="categorical_hinge"), None, "own", False),
        (net(3), lambda labels, outputs: outputs[:, 0], "own", False),
        (net(3, loss={"out": "log_cosh"}), None, "numbers", False),
    ],
)
def test_a_loss_or_the_graph_says_what_outputs_are(model, loss, kind, shares):
    task = Task.of(model, loss)
    assert (task.kind, task.shares) == (kind, shares)


def test_the_compiled_loss_is_saved_with_a_model(tmp_path):
    net(3, loss="mse").save(tmp_path / "net.keras")
    assert Task.of(keras.models.load_model(tmp_path / "net.keras")).kind == "numbers"
    assert Task.of(keras.models.load_model(tmp_path / "net.keras", compile=False)).kind == "classes"


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("as_object", [True, False])
def test_a_focal_loss_is_one_of_classes_by_logits_or_shares(activation, as_object):
    name = "categorical_focal_crossentropy"
    focal = keras.losses.CategoricalFocalCrossentropy(from_logits=not activation)
    task = Task.of(net(3, activation), focal if as_object else name)
    expected = getattr(keras.losses, name)(ONE_HOT, tf.nn.softmax(NUMBERS))
    outputs = tf.nn.softmax(NUMBERS) if activation else NUMBERS
    for labels in (ONE_HOT, INTEGERS):
        np.testing.assert_allclose(task.of_integers.losses(labels, outputs), expected, rtol=1e-5)
        np.testing.assert_allclose(task.bare.of_integers.losses(labels, NUMBERS), expected, rtol=1e-5)
    assert task.kind == "classes" and Task.of(net(1), "binary_focal_crossentropy").kind == "classes"


@pytest.mark.parametrize("one_hot", [True, False])
def test_which_labels_a_loss_of_ones_own_reads_is_tried(one_hot):
    def of_one_hot(labels, shares):
        return -tf.reduce_sum(labels * tf.math.log(shares), -1)

    def of_integers(labels, shares):
        return of_one_hot(tf.one_hot(tf.cast(labels, tf.int32), 3), shares)

    task = Task.of(net(3, "softmax"), of_one_hot if one_hot else of_integers)
    found = task.of_classes().of_integers
    shares = tf.nn.softmax(NUMBERS)
    np.testing.assert_allclose(found.losses(INTEGERS, shares), of_one_hot(ONE_HOT, shares), rtol=1e-5)
    assert task.kind == "own" and found.score(INTEGERS, shares) == np.mean(NUMBERS.argmax(1) == INTEGERS)
    assert Task.of(net(3), lambda labels, shares: labels["a"]).of_classes() is None


# --- how wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [INTEGERS, INTEGERS[:, None], INTEGERS.astype(np.float32), ONE_HOT])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_classes_lose_the_log_of_the_labels_share(labels, activation):
    logits = NUMBERS
    outputs = np.exp(log_softmax(logits)).astype(np.float32) if activation else logits
    task = Task.of(net(3, activation))
    expected = -log_softmax(logits)[np.arange(4), INTEGERS]
    np.testing.assert_allclose(task.losses(labels, outputs), expected, rtol=1e-5)
    assert float(task.loss(labels, outputs)) == pytest.approx(expected.mean(), rel=1e-5)
    right = np.mean(logits.argmax(1) == INTEGERS)
    assert (task.score(labels, outputs), float(task.metric(labels, outputs))) == (right, right)


@pytest.mark.parametrize("labels", [INTEGERS, INTEGERS[:, None], ONE_HOT])
def test_several_sigmoids_tell_one_class_each(labels):
    task, logits = Task.of(net(3, "sigmoid")), NUMBERS
    outputs = sigmoid(logits).astype(np.float32)
    np.testing.assert_allclose(
        task.losses(labels, outputs), binary(sigmoid(logits), ONE_HOT).mean(1), rtol=1e-5
    )
    assert task.score(labels, outputs) == np.mean(logits.argmax(1) == INTEGERS)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("labels", [np.array([0, 1, 1, 0]), np.array([[0.0], [1.0], [1.0], [0.0]])])
def test_one_output_is_a_logit_or_a_share(labels, activation):
    logits = np.array([[-2], [0.2], [-0.4], [0.9]], np.float32)
    outputs = sigmoid(logits).astype(np.float32) if activation else logits
    for loss in (None, "binary_crossentropy"):
        task = Task.of(net(1, activation), loss)
        expected = binary(sigmoid(logits), labels.reshape(-1, 1))[:, 0]
        np.testing.assert_allclose(task.losses(labels, outputs), expected, rtol=1e-5)
        assert task.score(labels, outputs) == float(task.metric(labels, outputs)) == 0.5


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_labels_are_right_one_by_one(activation):
    logits = NUMBERS
    outputs = sigmoid(logits).astype(np.float32) if activation else logits
    task = Task.of(net(3, activation, "binary_crossentropy"))
    np.testing.assert_allclose(task.losses(TAGS, outputs), binary(sigmoid(logits), TAGS).mean(1), rtol=1e-5)
    assert task.score(TAGS, outputs) == pytest.approx(np.mean((logits > 0) == TAGS))
    assert task.metric_name == "labels right"


@pytest.mark.parametrize("labels", [PIXELS, PIXELS[..., None], np.eye(3)[PIXELS]])
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_maps_are_classes_of_positions(labels, activation):
    logits = RNG.normal(size=(4, 5, 5, 3)).astype(np.float32)
    outputs = np.exp(log_softmax(logits)).astype(np.float32) if activation else logits
    task = Task.of(segmenter(3, activation))
    expected = -np.take_along_axis(log_softmax(logits), PIXELS[..., None], -1).mean((1, 2, 3))
    np.testing.assert_allclose(task.losses(labels, outputs), expected, rtol=1e-5)
    assert task.score(labels, outputs) == np.mean(logits.argmax(-1) == PIXELS)
    assert task.metric_name == "pixels right"


NAMES = ["mse", "mean_absolute_error", "mape", "msle", "huber", "log_cosh", "MeanSquaredError"]
IMAGES = RNG.normal(size=(4, 5)).astype(np.float32)


def kerases(model, labels, images=IMAGES):
    return model.evaluate(images, labels, verbose=0)


@pytest.mark.parametrize("loss", NAMES)
def test_numbers_lose_what_keras_says(loss):
    model = net(3, loss=loss)
    task, outputs = Task.of(model), model(IMAGES)
    assert float(task.loss(NUMBERS, outputs)) == pytest.approx(kerases(model, NUMBERS), rel=1e-5)
    assert task.losses(NUMBERS, outputs).shape == (4,) and task.kind == "numbers"


def own(labels, outputs):
    return keras.ops.mean(keras.ops.square(labels - outputs), -1)


class Cubes(keras.losses.Loss):
    def call(self, labels, outputs):
        return keras.ops.mean(keras.ops.abs(labels - outputs) ** 3, -1)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "labels"),
    [
        (3, "softmax", keras.losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT),
        (3, None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), INTEGERS),
        (3, "softmax", "sparse_categorical_crossentropy", INTEGERS),
        (3, "sigmoid", keras.losses.BinaryCrossentropy(label_smoothing=0.1), TAGS),
        (3, "softmax", keras.losses.CategoricalFocalCrossentropy(), ONE_HOT),
        (3, "softmax", "kl_divergence", ONE_HOT),
        (3, None, Cubes(), INTEGERS[:, None]),
        (1, None, "mse", INTEGERS),
        (1, None, own, INTEGERS),
    ],
)
def test_what_a_model_was_compiled_with_says_what_it_says_in_fit(units, activation, loss, labels):
    """Also of labels (n,) and outputs (n, 1), which broadcast to (n, n) where nobody looks."""
    model = net(units, activation, loss)
    found = Task.of(model).loss(labels, model(IMAGES))
    assert float(found) == pytest.approx(kerases(model, labels), rel=1e-5)


def test_labels_to_ignore_do_not_count():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    model, images = segmenter(3, loss=loss), RNG.normal(size=(4, 5, 5, 3)).astype(np.float32)
    labels = np.where(RNG.random((4, 5, 5)) < 0.3, 255, PIXELS)
    task, outputs = Task.of(model), model(images).numpy()
    task.check(labels, outputs.shape)
    assert float(task.loss(labels, outputs)) == pytest.approx(kerases(model, labels, images), rel=1e-5)
    right = np.mean((outputs.argmax(-1) == labels)[labels != 255])
    assert task.score(labels, outputs) == right == pytest.approx(float(task.metric(labels, outputs)))


def two_outputs(loss, **options):
    images = keras.Input((5,))
    made = {"what": L.Dense(3, name="out1")(images), "where": L.Dense(2, name="out2")(images)}
    model = keras.Model(images, made)
    model.compile("sgd", loss, **options)
    return model


def test_several_outputs_lose_together_what_they_were_compiled_with():
    where = RNG.normal(size=(4, 2)).astype(np.float32)
    what = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = two_outputs({"what": what, "where": "mse"}, loss_weights={"what": 2.0, "where": 0.5})
    labels, outputs = {"what": INTEGERS, "where": where}, model(IMAGES)
    expected = kerases(model, labels)[0]
    task = Task.of(model)
    assert float(task.loss(labels, outputs)) == pytest.approx(expected, rel=1e-5)
    assert float(task.loss(list(labels.values()), list(outputs.values()))) == pytest.approx(
        expected, rel=1e-5
    )
    assert task.score(labels, outputs) == pytest.approx(-expected, rel=1e-5)
    assert (task.kind, task.metric_name) == ("own", "−loss")


def test_a_mean_is_every_images_loss():
    task = Task.of(net(3), lambda labels, outputs: tf.reduce_mean(outputs))
    np.testing.assert_allclose(task.losses(INTEGERS, NUMBERS), [NUMBERS.mean()] * 4, rtol=1e-5)
    assert task.score(INTEGERS, NUMBERS) == pytest.approx(-NUMBERS.mean(), rel=1e-5)


def test_a_metric_of_ones_own_comes_first():
    def worst(labels, outputs):
        return -abs(labels - outputs).max()

    task = Task.of(net(3), "mse", metric=worst)
    assert task.score(NUMBERS, 0 * NUMBERS) == -np.abs(NUMBERS).max() and task.metric_name == "worst"


def test_r_squared_is_scikit_learns():
    from sklearn.metrics import r2_score

    labels = RNG.normal(size=(50, 3)) * [1, 10, 0] + 5
    outputs = labels + RNG.normal(size=(50, 3))
    task = Task.of(net(3), "mae")
    assert task.score(labels, outputs) == pytest.approx(r2_score(labels, outputs), rel=1e-9)
    assert float(task.metric(labels, outputs)) == pytest.approx(r2_score(labels, outputs), rel=1e-3)
    assert task.score(labels, labels) == 1


CASES = [
    (net(3), None, INTEGERS),
    (net(3, "softmax"), "categorical_crossentropy", ONE_HOT),
    (net(1, "sigmoid"), None, INTEGERS > 0),
    (net(3), "binary_crossentropy", TAGS),
    (net(3), "huber", NUMBERS),
    (segmenter(3), None, PIXELS),
    (net(3), own, NUMBERS),
]


@pytest.mark.parametrize(("model", "loss", "labels"), CASES)
def test_losses_and_metrics_compile_and_have_gradients(model, loss, labels):
    task, outputs = Task.of(model, loss), tf.constant(outputs_of(model))
    labels = tf.constant(labels, tf.float32 if labels.dtype.kind == "f" else tf.int32)

    @tf.function(jit_compile=True, autograph=False)
    def compiled(labels, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            losses = task.losses(labels, outputs)
        return losses, tape.gradient(losses, outputs), task.metric(labels, outputs)

    losses, gradient, metric = compiled(labels, outputs)
    np.testing.assert_allclose(losses, task.losses(labels, outputs), rtol=1e-5)
    assert losses.dtype == metric.dtype == tf.float32 and float(tf.reduce_max(abs(gradient))) > 0
    assert float(metric) == pytest.approx(task.score(labels.numpy(), outputs.numpy()), rel=1e-5)
    task.check(labels, outputs.shape)


def mean_miss(labels, outputs):
    return -np.abs(np.asarray(labels) - np.asarray(outputs)).mean()


SMOOTH = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
BARE = [
    (net(3, "softmax"), None, INTEGERS, None),
    (net(3, "softmax"), SMOOTH, ONE_HOT, None),
    (net(3, "softmax"), "sparse_categorical_crossentropy", INTEGERS, lambda y, p: np.asarray(p)[:, 0].mean()),
    (net(3, "sigmoid"), "binary_crossentropy", TAGS, None),
    (net(3, "sigmoid"), "mse", TAGS.astype(np.float32), None),
    (net(3, "sigmoid"), own, TAGS.astype(np.float32), mean_miss),
    (net(1, "sigmoid"), None, INTEGERS > 0, None),
    (segmenter(3, "softmax"), None, PIXELS, None),
    (net(3), None, INTEGERS, None),
]


@pytest.mark.parametrize(("model", "loss", "labels", "metric"), BARE)
def test_logits_are_judged_as_what_is_made_of_them(model, loss, labels, metric):
    task, images = Task.of(model, loss, metric=metric), RNG.normal(size=(4, *model.input_shape[1:]))
    bare = task.bare
    outputs, logits = (m(images.astype(np.float32)).numpy() for m in (model, logits_of(model)))
    for name in ("losses", "metric", "score"):
        expected = getattr(task, name)(labels, outputs)
        np.testing.assert_allclose(getattr(bare, name)(labels, logits), expected, rtol=1e-4)
    assert bare.bare is bare


def test_logits_of_several_outputs_are_judged_behind_the_ends_of_each():
    images = keras.Input((5,))
    made = {"what": L.Dense(3, activation="softmax")(images), "where": L.Dense(2)(images)}
    made |= {"seen": L.Dense(1, activation="sigmoid")(images)}
    model = keras.Model(images, made)
    model.compile("sgd", {name: "mse" for name in made})
    labels = {name: np.ones((4, x.shape[1]), np.float32) for name, x in made.items()}
    task = Task.of(model)
    expected = task.losses(labels, model(IMAGES))
    np.testing.assert_allclose(task.bare.losses(labels, logits_of(model)(IMAGES)), expected, rtol=1e-5)


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        (
            net(3),
            "mean_squared_eror",
            "Unknown loss. Received: loss='mean_squared_eror'. Did you mean 'mean_sq",
        ),
        (net(3), 3, "A loss is a name of keras.losses.*Received: loss=3"),
        (
            net(1),
            "sparse_categorical_crossentropy",
            "needs loss='binary_crossentropy'. Received: loss='sparse",
        ),
        (
            keras.Sequential([keras.Input((4, 4, 3)), L.Softmax(1)]),
            None,
            "Received: softmax in .* another axis",
        ),
        (two_outputs(None), None, "Give loss=.*Received: 2 outputs"),
    ],
)
def test_a_loss_that_nobody_understands(model, loss, message):
    with pytest.raises(UsageError, match=message):
        Task.of(model, loss)


@pytest.mark.parametrize(
    ("model", "loss", "labels", "message"),
    [
        (net(3), None, INTEGERS + 1, "integers 0…2. Received: 3"),
        (net(3), None, INTEGERS - 1, "integers 0…2. Received: -1"),
        (net(3), None, NUMBERS[:, 0], "integers 0…2. Received: .*; for real numbers give loss='mse'"),
        (net(3), None, NUMBERS, r"One-hot labels lie in \[0, 1\]. Received: .*loss='mse'"),
        (net(3), None, TAGS, "one class an image; .*loss='binary_crossentropy'. Received: 2 in row 0"),
        (net(3), None, np.eye(4), r"shape \(n,\) or \(n, 1\) or \(n, 3\). Received: \(4, 4\)"),
        (net(3), None, np.array(list("abca")), "Labels must be numbers. Received: labels of type <U1"),
        (net(3), "sparse_categorical_crossentropy", ONE_HOT, "reads integers. Received: one-hot labels"),
        (net(3), "sparse_categorical_crossentropy", ONE_HOT[:, :2], r"shape \(n,\) or \(n, 1\)\. Received"),
        (net(3), "categorical_crossentropy", ONE_HOT[:, :2], r"shape \(n, 3\)\. Received"),
        (net(3), "categorical_crossentropy", INTEGERS, "reads one-hot labels. Received: integers"),
        (net(1), None, INTEGERS, "Labels of two classes are 0 or 1. Received: 2"),
        (net(1), None, NUMBERS[:, 0], "0 or 1. Received: .*; for real numbers give loss='mse'"),
        (net(1), None, np.eye(2)[[0, 1, 0]], r"shape \(n, 1\) or \(n,\). Received: \(3, 2\)"),
        (net(3), "binary_crossentropy", INTEGERS, r"for labels .* shape \(n, 3\). Received: \(4,\)"),
        (net(3), "binary_crossentropy", 2 * TAGS, "each output are 0 or 1. Received: 2"),
        (net(3), "mse", NUMBERS[:, :2], r"for numbers .* shape \(n, 3\). Received: \(4, 2\)"),
        (segmenter(3), None, PIXELS + 1, "integers 0…2. Received: 3"),
        (segmenter(3), None, PIXELS[:, 0], r"\(n, 5, 5\) or .* Received: \(4, 5\)"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_named(model, loss, labels, message):
    with pytest.raises(UsageError, match=message) as error:
        Task.of(model, loss).check(labels, model.output_shape)
    assert len(str(error.value).splitlines()) <= 2


def test_classes_of_several_labels_have_no_accuracy():
    with pytest.raises(UsageError, match="loss='binary_crossentropy'. Received: 2 in row 0"):
        Task.of(net(3, "sigmoid")).score(TAGS, NUMBERS)


def test_open_sizes_fit_any():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, L.Conv2D(3, 3, padding="same")(images))
    Task.of(model).check(PIXELS, model.output_shape)
