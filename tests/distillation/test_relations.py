"""Losses of what images are to each other: RKD, HAP's LSP, CRD."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import build
from secateur.runs import UsageError
from tests.helpers.logit_formulas import case, gradient_of, loss_of


def test_relations_forget_rotation_shift_and_scale():
    """Park et al. 2019: ψ_D and ψ_A see the shape of the cloud alone, whatever the number of channels."""
    teacher, _, _ = case(12, batch=6)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 5)))[0]
    assert loss_of(build("rkd"), teacher, 0.3 * teacher @ rotation.T + 2) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_images_at_one_place_stay_finite(count):
    """Equal vectors have neither a distance nor a direction, in value and gradient."""
    teacher = case(13, batch=count)[0]
    assert np.isfinite(gradient_of(build("rkd"), teacher, np.ones((count, 3)))).all()
    assert np.isfinite(gradient_of(build("rkd"), np.ones((count, 3)), teacher)).all()


# --- LSP: blocks and logits at once ------------------------------------------------------------------------


def similar(rows):
    gram = rows @ rows.T
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)


def attended(maps):
    rows = (maps**2).mean(-1).reshape(len(maps), -1)
    return similar(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def network(seed: int, blocks: int):
    rng = np.random.default_rng(seed)
    return {"blocks": [rng.random((4, 3, 3, 2)) for _ in range(blocks)], "logits": rng.normal(size=(4, 5))}


@pytest.mark.parametrize("last", [1, 3])
def test_lsp_sums_over_the_teachers_last_blocks_and_logits(last):
    teacher, student = network(0, 5), network(1, 2)
    of_logits = similar(teacher["logits"])
    total = np.mean((similar(student["logits"]) - of_logits) ** 2)
    for block in student["blocks"]:
        for target in [attended(t) for t in teacher["blocks"][-last:]] + [of_logits]:
            total += np.mean((attended(block) - target) ** 2)
    found = float(build("lsp", teacher_blocks=last).compute_loss(teacher, student))
    assert found == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("missing", ["blocks", "logits"])
def test_lsp_says_what_it_misses(missing):
    teacher, student = network(0, 3), network(1, 3)
    del student[missing]
    with pytest.raises(UsageError, match=f"no {missing}"):
        build("lsp").compute_loss(teacher, student)
    with pytest.raises(UsageError, match="by name"):
        build("lsp").compute_loss(teacher, student.popitem()[1])


# --- CRD: projections of its own ---------------------------------------------------------------------------


def crd(t, s, temperature, ratio, images=99) -> float:
    """Tian et al. 2020: −log h(i, i) − Σ_{j ≠ i} log(1 − h(i, j)), j of another image."""
    total = 0.0
    for i, own in enumerate(s):
        for j, other in enumerate(t):
            e = np.exp(own @ other / np.linalg.norm(own) / np.linalg.norm(other) / temperature)
            if i == j or i % images != j % images:
                total -= np.log(e / (e + ratio)) if i == j else np.log(ratio / (e + ratio))
    return total / len(t)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("temperature", "ratio"), [(0.07, 16_384 / 50_000), (0.5, 2.0)])
def test_crd_is_the_papers_critic_on_the_batch(batch, temperature, ratio):
    loss = build("crd", temperature=temperature, size=7, ratio=ratio)
    teacher, student = case(14, batch, classes=6)[0], case(15, batch, classes=3)[1]
    found = loss_of(loss, teacher, student)
    assert found == pytest.approx(crd(*projected(loss, teacher, student), temperature, ratio), rel=1e-4)


def projected(loss, teacher, student):
    return [
        values @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()
        for values, layer in ((teacher, loss.of_teacher), (student, loss.of_student))
    ]


@pytest.mark.parametrize("images", [2, 3, 6])
def test_crd_holds_no_view_of_an_image_against_another(images):
    loss, teacher, student = build("crd", size=7), *case(17, 6, classes=4)[:2]
    found = float(loss.compute_loss(teacher, student, images=images))
    expected = crd(*projected(loss, teacher, student), 0.07, 16_384 / 50_000, images)
    assert found == pytest.approx(expected, rel=1e-4)


def test_crd_trains_its_projections_until_each_image_meets_itself():
    """Teacher and student of unrelated vectors: after 60 steps the nearest is the one of the same image."""
    teacher, student, _ = (tf.constant(x, tf.float32) for x in case(16, batch=6, classes=12))
    loss, adam = build("crd", size=16), keras.optimizers.Adam(0.02)
    before = loss_of(loss, teacher, student)
    for _ in range(60):
        with tf.GradientTape() as tape:
            value = loss.compute_loss(teacher, student)
        own = loss.trainable_variables
        adam.apply(tape.gradient(value, [v.value for v in own]), own)
    assert loss_of(loss, teacher, student) < before / 2
    t, s = (tf.nn.l2_normalize(f(x), -1) for f, x in ((loss.of_teacher, teacher), (loss.of_student, student)))
    assert np.argmax(s @ tf.transpose(t), 1).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("option", ["temperature", "size", "ratio"])
def test_crd_refuses_options_out_of_range(option):
    with pytest.raises(UsageError, match=f"Received: {option}=0"):
        build("crd", **{option: 0})
