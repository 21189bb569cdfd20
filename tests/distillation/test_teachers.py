"""Teachers: networks, ensembles, stored logits, and filters among them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import nets
from secateur.distillation import (
    Banked,
    Ensemble,
    Filtered,
    Live,
    build,
    ensemble,
    kept_per_sample,
    kept_teachers,
)
from secateur.distillation.basics import mean_of
from secateur.runs import UsageError, save_snapshot

CLASSES, SHAPE = 5, (8, 8, 3)


def network(seed: int, classes: int = CLASSES) -> keras.Model:
    """A convolution with BatchNorm, whose averages are not those of any batch, and a classifier."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU(name="map")(x))
    return keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer="random_normal")(x))


def batch(size: int = 6, teachers: int = 4, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.0, 2.0, teachers)
    bank = rng.normal(size=(size, CLASSES, 1)) * 3 + rng.normal(size=(size, CLASSES, teachers)) * spread
    images = rng.normal(size=(size, *SHAPE))
    return {"images": tf.constant(images, tf.float32), "bank": tf.constant(bank, tf.float32)}


def student_of(inputs, distance: float, seed: int = 1) -> np.ndarray:
    best = inputs["bank"][..., 0].numpy()
    return (best + distance * np.random.default_rng(seed).normal(size=best.shape)).astype(np.float32)


# --- networks ----------------------------------------------------------------------------------------------


def test_a_live_teacher_says_what_the_network_infers():
    model, inputs = network(1), batch()
    found = Live(model, ["stages"])(inputs)
    np.testing.assert_array_equal(found["logits"], model(inputs["images"], training=False))
    assert np.abs(found["logits"] - model(inputs["images"], training=True)).max() > 1e-3
    assert [value.shape[1:] for value in found["stages"]] == [(6, 6, 4)]


def test_an_ensemble_of_one_is_the_model():
    model, inputs = network(1), batch()
    logits = ensemble([model])(inputs)["logits"]
    assert logits.shape == (6, CLASSES, 1)
    np.testing.assert_array_equal(logits[..., 0], model(inputs["images"], training=False))


def test_an_ensemble_stands_side_by_side_with_the_features_of_the_first():
    models, inputs = [network(s) for s in (1, 2)], batch()
    live = [Live(m, ["blocks"]) for m in models]
    found = Ensemble([*live, Banked()])(inputs)
    expected = [m(inputs["images"], training=False)[..., None] for m in models]
    np.testing.assert_array_equal(found["logits"], np.concatenate([*expected, inputs["bank"]], -1))
    np.testing.assert_array_equal(found["blocks"][0], live[0](inputs)["blocks"][0])


def test_members_may_be_snapshots_paths_and_of_another_architecture(tmp_path):
    models = [nets.build(arch, input_shape=SHAPE) for arch in ("ResNet-20", "ResNet-32")]
    save_snapshot(tmp_path / "a.pkl", nets.snapshot_of(models[0]))
    teacher = ensemble([str(tmp_path / "a.pkl"), nets.snapshot_of(models[1])], reads=["pooled"])
    found, images = teacher(batch()), batch()["images"]
    for k, model in enumerate(models):
        np.testing.assert_allclose(found["logits"][..., k], model(images), atol=1e-5)
    assert found["pooled"].shape == (6, 64)


def test_networks_of_other_classes_are_no_ensemble():
    with pytest.raises(UsageError, match=r"\(5,\), \(7,\)"):
        ensemble([network(1), network(2, classes=7)])
    with pytest.raises(UsageError, match="needs a member"):
        ensemble([])


def test_stored_logits_are_handed_out_as_float32():
    inputs = batch()
    half = {"bank": tf.cast(inputs["bank"], tf.float16)}
    logits = Banked()(half)["logits"]
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, inputs["bank"], rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="inputs=\\['images'\\]\nAdd 'bank'"):
        Banked()({"images": inputs["images"]})


def test_a_mean_of_divergences_pulls_as_the_tempered_mean_does():
    """KESI: the two losses differ by a constant, so that their gradients are equal."""
    inputs = batch()
    student = tf.constant(student_of(inputs, 2.0))

    def gradient(**options):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = build("kd", temperature=5.0, **options).compute_loss(Banked()(inputs), {"logits": student})
        return tape.gradient(loss, student).numpy()

    expected = gradient(mean="kl")
    np.testing.assert_allclose(gradient(mean="tempered"), expected, atol=1e-6)
    assert np.abs(gradient(mean="softmax") - expected).max() > 1e-3


# --- filters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_by_sample_is_by_batch_on_batches_of_one(seed):
    inputs = batch(seed=seed)
    student = student_of(inputs, 1.0, seed)
    bank, single = inputs["bank"], [slice(i, i + 1) for i in range(6)]
    expected = np.stack([kept_teachers(bank[i], student[i], 4.0) for i in single])
    np.testing.assert_array_equal(kept_per_sample(bank, student, 4.0), expected)


def test_those_cases_keep_some_and_drop_some():
    masks = [kept_per_sample(batch(seed=s)["bank"], student_of(batch(seed=s), 1.0, s), 4.0) for s in range(5)]
    assert set(np.ravel([m[:, 1:] for m in masks])) == {0.0, 1.0} and np.min([m[:, 0] for m in masks]) == 1


@pytest.mark.parametrize("by", ["batch", "sample"])
def test_a_student_as_good_as_the_best_hears_that_one_alone(by):
    inputs = batch()
    found = Filtered(Banked(), by)(inputs, inputs["bank"][..., 0])["logits"]
    np.testing.assert_allclose(found, inputs["bank"][..., 0], atol=1e-6)


@pytest.mark.parametrize("by", ["batch", "sample"])
def test_a_distant_student_hears_the_mean_of_all(by):
    inputs = batch()
    found = Filtered(Banked(), by)(inputs, -20 * inputs["bank"][..., 0])["logits"]
    np.testing.assert_allclose(found, tf.reduce_mean(inputs["bank"], -1), atol=1e-5)


@pytest.mark.parametrize("by", ["batch", "sample"])
def test_views_are_compared_by_their_mean(by):
    inputs, shift = batch(), np.random.default_rng(3).normal(size=(6, CLASSES)).astype(np.float32)
    student = student_of(inputs, 0.7)
    views = tf.concat([student + 5 * shift, student - 5 * shift], 0)
    filtered = Filtered(Banked(), by)
    expected = filtered(inputs, tf.constant(student))["logits"]
    np.testing.assert_allclose(filtered(inputs, views)["logits"], expected, atol=1e-5)


def test_a_filter_by_data_set_is_fixed():
    inputs = batch()
    teacher = Filtered(Banked(), "dataset", kept=[1, 0, 1, 0])
    expected = (inputs["bank"][..., 0] + inputs["bank"][..., 2]) / 2
    np.testing.assert_allclose(teacher(inputs)["logits"], expected, atol=1e-6)


@pytest.mark.parametrize("mean", ["logits", "softmax", "tempered"])
def test_means_of_the_kept_by_hand(mean):
    bank, kept, t = batch()["bank"], np.float32([[1, 1, 0, 1]] * 3 + [[1, 0, 0, 0]] * 3), 4.0
    found = mean_of(bank, tf.constant(kept / kept.sum(1, keepdims=True)), mean, t).numpy()
    say = {
        "logits": lambda z: z,
        "softmax": lambda z: tf.nn.softmax(z).numpy(),
        "tempered": lambda z: tf.nn.softmax(z / t).numpy(),
    }[mean]
    for row in range(6):
        heard = [k for k in range(4) if kept[row, k]]
        expected = np.mean([say(bank[row, :, k]) for k in heard], 0)
        np.testing.assert_allclose(say(found[row]), expected, atol=1e-5)


def test_no_gradient_reaches_the_student_through_a_filter():
    inputs = batch()
    student = tf.constant(student_of(inputs, 1.0))
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = tf.reduce_sum(Filtered(Banked(), "sample")(inputs, student)["logits"])
    assert tape.gradient(loss, student) is None


def test_wrong_options_say_what_is_right():
    for options, message in (
        ({"by": "bach"}, "by='bach'.*'batch'"),
        ({"mean": "logit"}, "mean='logit'.*'logits'"),
        ({"by": "dataset"}, "needs kept=.*kept=None\nPass kept_teachers"),
    ):
        with pytest.raises(UsageError, match=message):
            Filtered(Banked(), **options)
    with pytest.raises(UsageError, match=r"several teachers. Received: logits of shape \(None, 5\)"):
        Filtered(Live(network(1)))
    with pytest.raises(UsageError, match="student=None"):
        Filtered(Banked())(batch())
