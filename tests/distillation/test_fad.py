"""FAD against float64 NumPy from its formula, and what it leaves alone."""

import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import build, get_loss
from secateur.distillation.losses.fad import FAD
from secateur.runs import UsageError
from tests.helpers.lessons import network

STUDENT, TEACHER = [(3, 3, 2, 5), (1, 1, 5, 4)], [(3, 3, 4, 7), (3, 3, 7, 6)]


def kernels(shapes, seed: int) -> list[tf.Tensor]:
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]


@pytest.fixture
def fad() -> FAD:
    """With no weight at 0, and an effect that can be seen."""
    layer, rng = FAD(units=8, scale=0.5), np.random.default_rng(2)
    layer.build(STUDENT, TEACHER)
    for v in layer.trainable_variables:
        v.assign(rng.normal(size=v.shape) * 0.5)
    return layer


def by_the_formula(w, index: int, student, teacher, scale: float) -> np.ndarray:
    """Filter by filter: k + scale · Σ_t softmax_t(leaky([key, query]·a)) · value_t."""
    w = {name.rpartition("_")[0]: array for name, array in w.items() if name.endswith(f"_{index}")}
    result = np.float64(student)
    queries = [teacher[..., t].ravel() @ w["queries"] + w["queries_bias"] for t in range(teacher.shape[-1])]
    values = [q @ w["values"] + w["values_bias"] for q in queries]
    a = np.concatenate([w["of_keys"], w["of_queries"]])[:, 0]
    for s in range(student.shape[-1]):
        key = student[..., s].ravel() @ w["keys"] + w["keys_bias"]
        scores = np.array([np.concatenate([key, q]) @ a for q in queries])
        scores = np.exp(np.where(scores > 0, scores, 0.2 * scores))
        mean = sum(share * value for share, value in zip(scores / scores.sum(), values, strict=True))
        result[..., s] += scale * mean.reshape(student.shape[:-1])
    return result


def test_it_is_what_the_formula_says_eager_and_compiled(fad):
    student, teacher = kernels(STUDENT, 0), kernels(TEACHER, 1)
    w = {v.name: np.float64(v.numpy()) for v in fad.variables}
    for adapt in (fad.adapt, tf.function(fad.adapt, jit_compile=True, autograph=False)):
        for i, found in enumerate(adapt(student, teacher)):
            expected = by_the_formula(w, i, student[i].numpy(), teacher[i].numpy(), 0.5)
            assert np.abs(expected - student[i]).max() > 0.1
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_filters(fad):
    """That of the teacher does not matter; the student's is kept."""
    student, teacher = kernels(STUDENT, 0), kernels(TEACHER, 1)
    before = fad.adapt(student, teacher)
    other = fad.adapt(student, [t[..., ::-1] for t in teacher])
    turned = fad.adapt([s[..., ::-1] for s in student], teacher)
    for b, o, t in zip(before, other, turned, strict=True):
        np.testing.assert_allclose(o, b, atol=1e-5)
        np.testing.assert_allclose(t[..., ::-1], b, atol=1e-5)


def test_published_scale_changes_little_and_none_changes_nothing():
    student, teacher = kernels(STUDENT, 0), kernels(TEACHER, 1)
    changes = {}
    for scale in (0.0, 1e-3):
        found = FAD(scale=scale).adapt(student, teacher)
        changes[scale] = max(np.abs(f - s).max() for f, s in zip(found, student, strict=True))
    assert changes[0.0] == 0 < changes[1e-3] < 0.05


def test_gradients_reach_student_and_own_weights_but_not_the_teacher(fad):
    student, teacher = kernels(STUDENT, 0), kernels(TEACHER, 1)
    with tf.GradientTape() as tape:
        tape.watch((student, teacher))
        loss = sum(tf.reduce_sum(k**3) for k in fad.adapt(student, teacher))
    own = [v.value for v in fad.trainable_variables]
    of_student, of_teacher, of_own = tape.gradient(loss, (student, teacher, own))
    assert len(own) == 2 * 8 and of_teacher == [None, None]
    assert all(np.abs(g).max() > 0 for g in of_student + of_own)


def test_it_is_found_by_name_and_refuses_to_compare_outputs():
    teacher, student = network(2), network(1)
    assert isinstance(build("fad", scale=0.1), FAD) and get_loss("fad").moves_kernels
    for compare in (build("fad").compute_loss, build("fad").validate_model_compatibility):
        with pytest.raises(UsageError, match="changes the student's kernels.*\n.*distillation.Lesson"):
            compare(*((teacher, student) if compare.__name__.startswith("validate") else ([0.0], [0.0])))


def test_errors_name_the_remedy():
    with pytest.raises(UsageError, match="as many of each. Received: 2 of the student, 1 of the teacher"):
        FAD().adapt(kernels(STUDENT, 0), kernels(TEACHER[:1], 1))
    with pytest.raises(UsageError, match="Received: units=0"):
        FAD(units=0)
