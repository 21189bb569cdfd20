"""EKG's losses against float64 NumPy, and their gradients against finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import (
    Banked,
    Filtered,
    Lesson,
    build,
    cross_entropy,
    kept_teachers,
    kl_divergence,
    labels_only,
)
from secateur.distillation.basics import temperature_for


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def divergence(teacher, student, temperature: float) -> np.ndarray:
    """KL of the softened distributions, per sample, as the textbook has it."""
    p, q = log_softmax(np.asarray(teacher) / temperature), log_softmax(np.asarray(student) / temperature)
    return (np.exp(p) * (p - q)).sum(-1)


def mask_by_the_text(bank: np.ndarray, student: np.ndarray, temperature: float) -> list[float]:
    """EKG, literally: D(x, y) = T·KL; k stays iff Σ D(M₀, M_k) < Σ D(M₀, student); teacher 0 stays."""
    d_s = (temperature * divergence(bank[:, :, 0], student, temperature)).sum()
    kept = [1.0]
    for k in range(1, bank.shape[2]):
        d_k = (temperature * divergence(bank[:, :, 0], bank[:, :, k], temperature)).sum()
        kept.append(1.0 if d_k < d_s else 0.0)
    return kept


def knowledge_by_the_text(bank, first, second, labels, temperature: float) -> float:
    """EKG: ½·Σ_views [CE(y, z) + T·KL(M̄ ‖ z)], mean over the batch."""
    kept = np.flatnonzero(mask_by_the_text(bank, (first + second) / 2, temperature))
    target = bank[:, :, kept].astype(np.float64).mean(-1)
    total = 0.0
    for view in (first, second):
        total += -log_softmax(view)[np.arange(len(labels)), labels].mean()
        total += temperature * divergence(target, view, temperature).mean()
    return total / 2


def case(seed: int, batch=6, classes=5, teachers=4, spread=2.0):
    """A bank whose teachers stray ever further from the first, two views, labels."""
    rng = np.random.default_rng(seed)
    best = rng.normal(size=(batch, classes, 1)) * 3
    stray = rng.normal(size=(batch, classes, teachers)) * np.linspace(0, spread, teachers)
    views = [best[..., 0] + rng.normal(size=(batch, classes)) for _ in range(2)]
    labels = rng.integers(0, classes, batch).astype(np.int32)
    return (best + stray).astype(np.float32), *(v.astype(np.float32) for v in views), labels


def taught(bank, first, second, labels) -> dict[str, tf.Tensor]:
    """EKG's lesson, of a student whose logits are what it reads."""
    student = keras.Sequential([keras.Input((bank.shape[1],)), keras.layers.Activation("linear")])
    lesson = Lesson(student, Filtered(Banked()), [(build("kd", factor="T"), 1.0)])
    return lesson({"images": tf.concat([first, second], 0), "labels": labels, "bank": bank})


def loss_of(*arguments) -> tf.Tensor:
    return taught(*arguments)["loss"]


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_kl_divergence_is_the_textbooks(temperature):
    rng = np.random.default_rng(int(temperature))
    teacher, student = rng.normal(size=(2, 9, 7)).astype(np.float32) * 6
    found = kl_divergence(teacher, student, temperature).numpy()
    np.testing.assert_allclose(found, divergence(teacher, student, temperature), atol=2e-6)
    assert (found > 0).all()
    np.testing.assert_allclose(kl_divergence(teacher, teacher, temperature), 0, atol=1e-6)


def test_kl_divergence_of_extreme_logits_is_finite():
    teacher, student = np.float32([[1e4, -1e4, 0]]), np.float32([[-1e4, 1e4, 0]])
    np.testing.assert_allclose(kl_divergence(teacher, student, 4.0), [5000.0], rtol=1e-6)


def test_cross_entropy_is_minus_the_log_of_the_right_class():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = -log_softmax(logits)[range(5), [0, 1, 2, 3, 0]]
    np.testing.assert_allclose(cross_entropy(np.int32([0, 1, 2, 3, 0]), logits), expected, atol=1e-6)
    np.testing.assert_allclose(
        cross_entropy(np.int32([2]), np.zeros((1, 10), np.float32)), np.log(10), atol=1e-6
    )


def test_labels_only_is_mean_cross_entropy_and_accuracy():
    logits = np.float32([[2, 0], [0, 3], [1, 0]])
    loss, accuracy = labels_only(tf.constant(logits), {"labels": np.int32([0, 1, 1])})
    assert float(loss) == pytest.approx(np.log1p(np.exp([-2.0, -3.0, 1.0])).mean(), abs=1e-6)
    assert float(accuracy) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("classes", "expected"), [(10, 4.0), (100, 4.0), (999, 4.0), (1000, 10.0)])
def test_temperatures_are_the_published_ones(classes, expected):
    assert temperature_for(classes) == expected


# --- the filter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_filter_is_the_one_of_the_text(seed):
    bank, first, second, _ = case(seed)
    student = (first + second) / 2
    assert kept_teachers(bank, student, 4.0).numpy().tolist() == mask_by_the_text(bank, student, 4.0)


def test_the_cases_above_keep_some_and_drop_some():
    masks = [mask_by_the_text(b, (f + s) / 2, 4.0) for b, f, s, _ in map(case, range(20))]
    assert {0.0, 1.0} <= {m for mask in masks for m in mask[1:]} and all(mask[0] == 1 for mask in masks)


def test_a_student_equal_to_the_best_teacher_keeps_that_one_alone():
    bank = case(1)[0]
    assert kept_teachers(bank, bank[:, :, 0], 4.0).numpy().tolist() == [1, 0, 0, 0]


def test_a_distant_student_keeps_all():
    bank = case(2)[0]
    assert kept_teachers(bank, -20 * bank[:, :, 0], 4.0).numpy().tolist() == [1, 1, 1, 1]


# --- the loss of the fine-tuning ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_the_loss_of_two_views_is_the_formula_of_the_text(seed):
    arguments = case(seed)
    assert float(loss_of(*arguments)) == pytest.approx(knowledge_by_the_text(*arguments, 4.0), rel=1e-5)


def test_it_compiles_under_xla_to_the_same_number():
    arguments = [tf.constant(a) for a in case(3)]
    compiled = tf.function(loss_of, jit_compile=True, autograph=False)
    assert float(compiled(*arguments)) == pytest.approx(float(loss_of(*arguments)), rel=1e-5)


@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_identical_teachers_teach_like_one(teachers):
    bank, *rest = case(4, teachers=1)
    alone = float(loss_of(bank, *rest))
    assert float(loss_of(np.repeat(bank, teachers, -1), *rest)) == pytest.approx(alone, rel=1e-6)


def test_views_may_change_places():
    bank, first, second, labels = case(5)
    assert float(loss_of(bank, first, second, labels)) == pytest.approx(
        float(loss_of(bank, second, first, labels)), rel=1e-6
    )


def test_accuracy_is_over_both_views():
    bank, _, _, labels = case(6)
    right = np.eye(5, dtype=np.float32)[labels]
    assert float(taught(bank, right, -right, labels)["metric"]) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_agrees_with_finite_differences(seed):
    """Of the NumPy formula in float64: the two share nothing but the text. The filter is held where it is."""
    bank, first, second, labels = case(seed, spread=3.0)
    views = tf.stack([first, second])
    with tf.GradientTape() as tape:
        tape.watch(views)
        loss = loss_of(bank, views[0], views[1], labels)
    gradient, step = tape.gradient(loss, views).numpy(), 1e-5
    rng = np.random.default_rng(seed)
    for _ in range(12):
        place = tuple(rng.integers(0, n) for n in gradient.shape)
        moved = np.zeros(gradient.shape)
        moved[place] = step
        at = [
            knowledge_by_the_text(bank, first + sign * moved[0], second + sign * moved[1], labels, 4.0)
            for sign in (1, -1)
        ]
        assert (at[0] - at[1]) / (2 * step) == pytest.approx(gradient[place], abs=2e-6)


def test_no_gradient_reaches_the_teachers():
    bank, first, second, labels = case(7)
    bank = tf.constant(bank)
    student = tf.constant((first + second) / 2)
    with tf.GradientTape() as tape:
        tape.watch([bank, student])
        kept = tf.reduce_sum(kept_teachers(bank, student, 4.0))
    assert tape.gradient(kept, [bank, student]) == [None, None]
