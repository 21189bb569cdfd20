"""What every registered loss promises; a new file in distillation/losses/ is tested by being there."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import Loss, build, get_loss, list_losses
from secateur.distillation.loss import READS
from secateur.runs import UsageError
from tests.helpers.loss_inputs import (
    BATCH,
    CLASSES,
    build_from,
    labels,
    network,
    one_voice,
    said,
    wants_labels,
)

KEYS = [key for key in list_losses() if not get_loss(key).moves_kernels]  # those have tests of their own
TEACHER, STUDENT = said(0, channels=8, blocks=6), said(1)
INPUTS = TEACHER, STUDENT, labels()
every_loss = pytest.mark.parametrize("key", KEYS)


def built(key: str) -> Loss:
    keras.utils.set_random_seed(0)
    return build_from(build(key), TEACHER, STUDENT)


def mapped(function, tensors):
    return keras.tree.map_structure(function, tensors)


@every_loss
def test_it_reads_something_known_and_is_called_by_its_key(key):
    assert build(key).key == key and build(key).reads in (*READS, "all") and build(key).beta > 0


@every_loss
def test_it_is_a_finite_scalar_not_below_zero_for_a_teacher_of_another_size(key):
    loss = built(key).compute_loss(*INPUTS)
    assert loss.shape == () and loss.dtype == tf.float32 and 0 <= float(loss) < np.inf


def value_and_gradients(loss: Loss, teacher: dict, student: dict, targets: tf.Tensor):
    """The loss, and its gradients of all that it reads of the student."""
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student, targets)
    gradients = tape.gradient(value, keras.tree.flatten(student))
    return value, [g for g in gradients if g is not None]


@every_loss
def test_it_is_finite_for_a_student_whose_maps_died(key):
    """All zero, as after a ReLU that never fires; the logits are equal. In the gradient too."""
    value, gradients = value_and_gradients(built(key), TEACHER, mapped(tf.zeros_like, STUDENT), labels())
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def dead(x):
    return tf.concat([tf.zeros_like(x[:1]), x[1:]], 0)


def constant(x):
    return tf.concat([tf.ones_like(x[:1]) * 0.3, x[1:]], 0)


def equal_pair(x):
    return tf.concat([x[:1], x[:1], x[2:]], 0)


@every_loss
@pytest.mark.parametrize("spoil", [dead, constant, equal_pair])
def test_its_gradient_stays_small_for_one_image_that_says_nothing(key, spoil):
    """A student's image of zeros, one of equal numbers, or two that are the same, beside others as ever."""
    _, gradients = value_and_gradients(built(key), TEACHER, mapped(spoil, STUDENT), labels())
    assert max(np.abs(g).max() for g in gradients) < 1e3


@pytest.mark.parametrize("key", [k for k in KEYS if get_loss(k).prepare is Loss.prepare])
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(key):
    """Zero at equality, and flat; losses with weights compare what these make of both sides, and are not."""
    value, gradients = value_and_gradients(build(key), one_voice(2), one_voice(2), labels())
    assert abs(float(value)) < 1e-6 and all(np.abs(g).max() < 1e-3 for g in gradients)


@every_loss
def test_the_order_of_the_batch_does_not_matter(key):
    loss, order = built(key), np.random.default_rng(0).permutation(BATCH)
    turned = [mapped(lambda x: tf.gather(x, order), side) for side in INPUTS]
    assert float(loss.compute_loss(*turned)) == pytest.approx(float(loss.compute_loss(*INPUTS)), rel=1e-5)


@every_loss
def test_it_compiles_under_xla_to_the_same_number_and_gradient(key):
    loss = built(key)
    compiled = tf.function(partial(value_and_gradients, loss), jit_compile=True, autograph=False)
    found, expected = compiled(*INPUTS), value_and_gradients(loss, *INPUTS)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    for f, e in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(f, e, atol=1e-4 * np.abs(e).max())


@every_loss
def test_the_gradient_reaches_the_student_and_never_the_teacher(key):
    with tf.GradientTape() as tape:
        tape.watch((TEACHER, STUDENT))
        value = built(key).compute_loss(*INPUTS)
    of_teacher, of_student = tape.gradient(value, [keras.tree.flatten(side) for side in (TEACHER, STUDENT)])
    assert all(g is None for g in of_teacher)
    assert any(np.abs(g).max() > 0 for g in of_student if g is not None)


@every_loss
def test_all_weights_of_its_own_learn(key):
    loss = built(key)
    with tf.GradientTape() as tape:
        value = loss.compute_loss(*INPUTS)
    names = [v.path for v in loss.trainable_variables]
    gradients = tape.gradient(value, [v.value for v in loss.trainable_variables])
    assert [n for n, g in zip(names, gradients, strict=True) if g is None] == []


@every_loss
def test_a_small_step_along_the_gradient_lowers_it(key):
    loss, student = built(key), mapped(tf.identity, STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(student)
        before = loss.compute_loss(TEACHER, student, labels())
    flat = keras.tree.flatten(student)
    gradients = [0.0 if g is None else g for g in tape.gradient(before, flat)]
    length = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    moved = [x - 0.02 * g / length for x, g in zip(flat, gradients, strict=True)]
    after = loss.compute_loss(TEACHER, keras.tree.pack_sequence_as(student, moved), labels())
    assert float(after) < float(before)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_as_float32(key, dtype):
    """The same number as of the rounded inputs in float32."""
    loss = built(key)
    half = [mapped(lambda x: tf.cast(x, dtype), side) for side in (TEACHER, STUDENT)]
    rounded = [mapped(lambda x: tf.cast(x, tf.float32), side) for side in half]
    found = loss.compute_loss(*half, labels())
    assert found.dtype == tf.float32
    assert float(found) == pytest.approx(float(loss.compute_loss(*rounded, labels())), rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("key", [k for k in KEYS if get_loss(k).reads in ("logits", "all")])
def test_several_teachers_teach_by_the_mean_of_their_logits_unless_a_loss_hears_each(key, count):
    """KD's divergences are averaged. As many images as classes: no wrong axis hides behind its size."""
    student, *teachers = [said(seed, batch=CLASSES) for seed in range(count + 1)]
    loss, targets = build(key), labels(batch=CLASSES)
    logits = tf.stack([side["logits"] for side in teachers], -1)

    def value(said_by_teacher):
        return float(loss.compute_loss({**teachers[0], "logits": said_by_teacher}, student, targets))

    each = [value(logits[..., k]) for k in range(count)]
    expected = np.mean(each) if loss.several else value(tf.reduce_mean(logits, -1))
    assert value(logits) == pytest.approx(expected, rel=1e-5)


@every_loss
def test_its_options_make_an_equal_loss(key):
    first = built(key)
    keras.utils.set_random_seed(0)
    again = build_from(type(first).from_config(first.get_config()), TEACHER, STUDENT)
    values = [float(loss.compute_loss(*INPUTS)) for loss in (first, again)]
    assert values[0] == values[1]


# --- keras.distillation ------------------------------------------------------------------------------------


def fit(losses, reads: str, eagerly=False, **options) -> tuple[dict, keras.distillation.Distiller]:
    """One epoch of a Distiller on 12 random images; what it reports."""
    teacher, student = network(reads, 0), network(reads, 1)
    distiller = keras.distillation.Distiller(teacher, student, losses, **options)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.1), entropy, run_eagerly=eagerly)
    rng = np.random.default_rng(0)
    images, classes = rng.random((12, 8, 8, 3), np.float32), rng.integers(0, 3, 12)
    return distiller.fit(images, classes, batch_size=6, verbose=0).history, distiller


@every_loss
def test_it_works_in_keras_distiller(key):
    """Its weights train there too. Keras hands no labels to a loss: one that needs them says so."""
    loss = build(key)
    if wants_labels(loss):
        with pytest.raises(UsageError, match="labels"):
            fit(loss, loss.reads, student_loss_weight=0.0, eagerly=True)
        return
    history, distiller = fit(loss, loss.reads, student_loss_weight=0.0, eagerly=True)
    assert np.isfinite(history["distillation_loss"]).all() and history["distillation_loss"][0] > 0
    tracked = {id(v) for v in distiller.trainable_variables}
    assert {id(v) for v in loss.trainable_variables} <= tracked


def test_keras_own_loss_works_beside_ours():
    """Theirs is KL of tempered softmaxes times T², KD's number, where it is handed an object for the KL.

    Its default, the string "kl_divergence", becomes a function in Keras 3.15 and takes no softmax.
    """
    ours = build("kd", temperature=3)
    theirs = keras.distillation.LogitsDistillation(3, keras.losses.KLDivergence())
    value = float(ours.compute_loss(TEACHER["logits"], STUDENT["logits"]))
    assert float(theirs.compute_loss(TEACHER["logits"], STUDENT["logits"])) == pytest.approx(value, rel=1e-4)
    both, _ = fit([ours, theirs], "logits", distillation_loss_weights=[0.5, 0.5])
    alone, _ = fit(build("kd", temperature=3), "logits")
    np.testing.assert_allclose(both["total_loss"], alone["total_loss"], rtol=1e-4)


# --- replicas ----------------------------------------------------------------------------------------------

REPLICAS = (
    f"KEYS = {KEYS}"
    + """
import keras, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from secateur.distillation import build
from tests.helpers.loss_inputs import build_from, labels, said
whole = said(0, 8, 6, batch=8), said(1, batch=8), labels(batch=8)
half = lambda i: keras.tree.map_structure(lambda x: tf.reshape(x, [2, 4, *x.shape[1:]])[i], whole)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    losses = {key: build_from(build(key), *whole) for key in KEYS}
every = lambda i: {key: loss.compute_loss(*half(i)) for key, loss in losses.items()}
step = lambda: every(tf.distribute.get_replica_context().replica_id_in_sync_group)
for key, values in strategy.run(step).items():
    found = [float(v) for v in strategy.experimental_local_results(values)]
    expected = [float(losses[key].compute_loss(*half(i))) for i in range(2)]
    gaps = [abs(f - e) / (abs(e) + 1e-3) for f, e in zip(found, expected, strict=True)]
    assert len(gaps) == 2 and max(gaps) < 1e-5, (key, found, expected)
"""
)


def test_each_replica_gets_the_loss_of_its_own_part_of_the_batch(programs, tmp_path):
    """Under two replicas of MirroredStrategy every loss is that of the half that the replica holds."""
    done = programs.run_code(REPLICAS, cwd=tmp_path)
    assert done.code == 0, done.err[-2000:]
