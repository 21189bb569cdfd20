"""Losses of logits and of pooled vectors: their papers' formulas, and identities of DKD and DIST."""

import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import build
from secateur.distillation.losses.dist import correlation
from secateur.distillation.losses.dkd import decoupled
from secateur.distillation.losses.kd_std import standardise
from tests.helpers.logit_formulas import case, dist, dkd, gradient_of, kd, kd_std, kl, loss_of, rkd, softmax

FORMULAS = {"kd": kd, "kd_std": kd_std, "dkd": dkd, "dist": dist, "rkd": rkd}
every_formula = pytest.mark.parametrize("key", FORMULAS)


@every_formula
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_papers_formula(key, seed):
    teacher, student, labels = case(seed)
    assert loss_of(build(key), teacher, student, labels) == pytest.approx(
        FORMULAS[key](teacher, student, labels), rel=1e-5
    )


@every_formula
@pytest.mark.parametrize("seed", range(3))
def test_its_gradient_agrees_with_finite_differences_of_the_formula(key, seed):
    teacher, student, labels = case(seed)
    expected = np.zeros_like(student)
    for at in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[at] = 1e-5
        up, down = (FORMULAS[key](teacher, student + sign * step, labels) for sign in (1, -1))
        expected[at] = (up - down) / 2e-5
    found = gradient_of(build(key), teacher, student, labels)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# --- identities ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_sum_of_its_decoupled_parts(temperature):
    """Zhao et al. 2022, eq. 5: KL = TCKD + (1 − p(label)) · NCKD, sample by sample."""
    teacher, student, labels = case(7, batch=16)
    target, others = decoupled(*(np.float32(z) for z in (teacher, student)), labels, temperature)
    p = softmax(teacher / temperature)
    whole = kl(p, softmax(student / temperature))
    np.testing.assert_allclose(target + (1 - p[range(16), labels]) * others, whole, rtol=1e-4, atol=1e-6)


def test_a_sure_teacher_still_teaches_about_the_other_classes():
    """1 − p(label) underflows in float32; NCKD is that of the other logits all the same."""
    teacher, student = np.float32([[400, 1, 2, 3]]), np.float32([[0, 3, 2, 1]])
    _, others = decoupled(teacher, student, [0], 1.0)
    assert float(others[0]) == pytest.approx(kl(softmax(teacher[0, 1:]), softmax(student[0, 1:])), rel=1e-5)
    assert np.isfinite(gradient_of(build("dkd"), teacher, student, [0])).all()


def test_decoupled_weights_are_linear():
    teacher, student, labels = case(8)
    expected = dkd(teacher, student, labels, 0.5, 3.0)
    found = loss_of(build("dkd", target=0.5, others=3.0), teacher, student, labels)
    assert found == pytest.approx(expected, rel=1e-5)


def test_standardised_logits_forget_shift_and_scale():
    teacher, student, _ = case(9)
    loss = build("kd_std")
    assert loss_of(loss, 7 * teacher - 3, 0.2 * student + 5) == pytest.approx(
        loss_of(loss, teacher, student), rel=1e-4
    )
    z = standardise(tf.constant(teacher, tf.float32)).numpy()
    np.testing.assert_allclose([z.mean(1), z.std(1)], [np.zeros(4), np.ones(4)], atol=1e-6)


def test_equal_logits_stay_finite_when_standardised():
    assert np.isfinite(gradient_of(build("kd_std"), np.ones((2, 3)), np.ones((2, 3)))).all()


def test_correlation_is_pearsons_and_forgets_shift_and_scale():
    a, b, _ = case(10)
    a, b = np.float32(a), np.float32(b)
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(correlation(a, b), expected, atol=1e-6)
    np.testing.assert_allclose(correlation(3 * a + 2, 0.1 * b - 1), expected, atol=1e-5)
    np.testing.assert_allclose(correlation(a, -2 * a), -np.ones(4), atol=1e-6)


def test_one_image_has_no_relation_within_its_classes():
    """Of a batch of 1 each column is constant: intra counts 1, and has no gradient."""
    teacher, student, _ = case(11, batch=1)
    assert loss_of(build("dist", inter=0.0), teacher, student) == pytest.approx(32)
    assert not gradient_of(build("dist", inter=0.0), teacher, student).any()
