"""Losses on feature maps without weights of their own, against float64 NumPy written from the formulas."""

import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import build
from secateur.distillation.losses.lsp2 import windows
from secateur.distillation.losses.mat import strided_windows
from secateur.distillation.maps import adaptive_pool
from secateur.runs import UsageError
from tests.helpers.map_formulas import by_the_formula, frozen_mat, maps, pooled

KEYS = ("at", "sp", "asp", "hap", "lsp2", "mat")


def teacher_maps(seed=0) -> list[np.ndarray]:
    return maps(seed, (5, 7, 7, 4), (5, 7, 7, 4), (5, 4, 4, 6), (5, 4, 4, 6))


def student_maps(seed=1) -> list[np.ndarray]:
    return maps(seed, (5, 6, 6, 3), (5, 6, 6, 3), (5, 3, 3, 5), (5, 3, 3, 5))


def loss_of(key, teacher, student, **options) -> float:
    return float(build(key, **options).compute_loss(teacher, student))


# --- golden values and gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_formula_says(key, seed):
    teacher, student = teacher_maps(seed), student_maps(seed + 10)
    expected = by_the_formula(key, teacher, student)
    assert expected > 1e-5
    assert loss_of(key, teacher, student) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("key", KEYS)
def test_its_gradient_is_that_of_finite_differences_of_the_formula(key):
    """Along a random direction. MAT's weights are constants, so its formula is frozen at the point."""
    teacher, student = teacher_maps(), student_maps()
    tensors = [tf.constant(s) for s in student]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = build(key).compute_loss(teacher, tensors)
    gradients = [0 if g is None else g.numpy() for g in tape.gradient(loss, tensors)]
    directions = [np.float64(d) - 0.5 for d in maps(7, *[s.shape for s in student])]
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    def formula(step):
        moved = [s + step * d for s, d in zip(student, directions, strict=True)]
        return frozen_mat(teacher, moved, student) if key == "mat" else by_the_formula(key, teacher, moved)

    assert found == pytest.approx((formula(1e-4) - formula(-1e-4)) / 2e-4, rel=1e-4)


# --- identities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_it_does_not_see_the_scale_of_either_side(key):
    teacher, student = teacher_maps(), student_maps()
    scaled = [2.5 * s for s in student], [0.3 * t for t in teacher]
    assert loss_of(key, scaled[1], scaled[0]) == pytest.approx(loss_of(key, teacher, student), rel=1e-4)


@pytest.mark.parametrize("key", KEYS)
def test_it_does_not_see_the_order_of_channels(key):
    teacher, student = teacher_maps(), student_maps()
    turned = [s[..., np.random.default_rng(3).permutation(s.shape[-1])] for s in student]
    assert loss_of(key, teacher, turned) == pytest.approx(loss_of(key, teacher, student), rel=1e-5)


@pytest.mark.parametrize("key", KEYS)
def test_only_attention_transfer_sees_where_things_are(key):
    """Gram matrices over positions do not change when all maps are mirrored the same way."""
    teacher, student = teacher_maps(), student_maps()
    mirrored = [s[:, ::-1] for s in student]
    before, after = loss_of(key, teacher, student), loss_of(key, teacher, mirrored)
    assert (abs(after - before) > 1e-3 * before) == (key in ("at", "mat"))


@pytest.mark.parametrize("key", ["at", "sp", "asp"])
def test_it_is_zero_at_equality(key):
    assert loss_of(key, teacher_maps(), teacher_maps()) == 0


@pytest.mark.parametrize("key", ["hap", "lsp2", "mat"])
def test_it_is_zero_where_every_block_is_the_same_block(key):
    """HAP: 0 when the student's blocks are the teacher's last three, these being one map repeated."""
    block = maps(4, (5, 4, 4, 6))
    assert loss_of(key, block * 3, block * 5) < 1e-12


def test_hap_takes_the_last_blocks_of_the_teacher_and_all_of_the_student():
    teacher, student = teacher_maps(), student_maps()
    assert loss_of("hap", teacher, student, teacher_blocks=1) == loss_of("hap", teacher[-1:], student)
    assert loss_of("hap", teacher, student) == loss_of("hap", teacher[1:], student)
    assert loss_of("hap", teacher, student, teacher_blocks=9) == loss_of(
        "hap", teacher * 3, student, teacher_blocks=4
    )
    alone = [loss_of("hap", teacher, [s]) for s in student]
    assert loss_of("hap", teacher, student) == pytest.approx(np.mean(alone), rel=1e-5)


def test_a_window_of_all_is_hap_of_all():
    """Which is what HAP's program does by default."""
    teacher, student = teacher_maps(), student_maps()[:3]
    expected = loss_of("hap", teacher, student, teacher_blocks=4)
    assert loss_of("lsp2", teacher, student) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_window_of_three_is_what_the_formula_says(seed):
    teacher, student = teacher_maps(seed), student_maps(seed + 10)
    expected = by_the_formula("lsp2", teacher, student, window=3)
    assert loss_of("lsp2", teacher, student, window=3) == pytest.approx(expected, rel=2e-5)


def test_mat_of_one_teacher_is_attention_transfer():
    teacher, student = maps(5, (5, 3, 3, 6)), maps(6, (5, 6, 6, 3))
    assert loss_of("mat", teacher, student) == pytest.approx(loss_of("at", teacher, student), rel=1e-5)


def test_at_of_the_last_stages():
    teacher, student = teacher_maps(), student_maps()
    assert loss_of("at", teacher, student, stages=2) == loss_of("at", teacher[2:], student[2:])
    assert loss_of("at", teacher[1:], student, stages=1) == loss_of("at", teacher[-1], student[-1])


# --- windows and pooling -----------------------------------------------------------------------------------


def test_windows_by_hand():
    third, half = 1 / 3, 0.5
    expected = [
        [third, third, third, 0],
        [third, third, third, 0],
        [0, third, third, third],
        [0, 0, half, half],
    ]
    np.testing.assert_allclose(windows(4, 4, 3), expected, rtol=1e-6)
    np.testing.assert_array_equal(strided_windows(2, 4, 1), [[1, 0, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(strided_windows(2, 4, 3), [[1, 1, 1, 0], [0, 0, 1, 1]])


@pytest.mark.parametrize("size", [1, 2, 5, None])
@pytest.mark.parametrize(("students", "teachers"), [(1, 9), (9, 1), (9, 27), (27, 9), (7, 5)])
def test_every_student_looks_at_somebody(students, teachers, size):
    assert strided_windows(students, teachers, size).any(1).all()
    np.testing.assert_allclose(windows(students, teachers, size).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 5), (7, 6), (9, 8), (14, 12)])
def test_adaptive_pooling_is_that_of_the_manual(size):
    (x,) = maps(8, (2, 7, 6, 3))
    np.testing.assert_allclose(adaptive_pool(tf.constant(x), *size), pooled(x, *size), atol=1e-6)
    compiled = tf.function(adaptive_pool, jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(x), *size), pooled(x, *size), atol=1e-6)


# --- errors ------------------------------------------------------------------------------------------------


OPTIONS = {"at": "stages", "hap": "teacher_blocks", "lsp2": "window", "mat": "window"}


@pytest.mark.parametrize(("key", "option"), OPTIONS.items())
def test_nothing_to_compare_is_refused(key, option):
    with pytest.raises(UsageError, match=f"Received: {option}=0"):
        build(key, **{option: 0})


def test_at_refuses_unequal_numbers_of_stages_and_says_the_remedy():
    with pytest.raises(UsageError, match="stages=1 .*Received: 4 of the teacher, 3 of the student"):
        loss_of("at", teacher_maps(), student_maps()[1:])
