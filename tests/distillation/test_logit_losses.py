"""Losses of logits and of pooled vectors: by the papers' formulas in float64 NumPy, one pair at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from distillation import build
from distillation.losses.dist import correlation
from distillation.losses.dkd import decoupled
from distillation.losses.kd_std import standardise
from runs import UsageError

# --- the formulas ------------------------------------------------------------------------------------------


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def kd(t, s, labels=None, temperature=4.0):
    return temperature**2 * kl(softmax(t / temperature), softmax(s / temperature)).mean()


def kd_std(t, s, labels=None):
    z = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) for x in (t, s)]
    return kd(*z, temperature=2.0)


def dkd(t, s, labels, alpha=1.0, beta=8.0):
    total = 0.0
    for row_t, row_s, y in zip(t, s, labels, strict=True):
        p, q = softmax(row_t / 4), softmax(row_s / 4)
        tckd = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        nckd = kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))
        total += 16 * (alpha * tckd + beta * nckd) / len(t)
    return total


def dist(t, s, labels=None):
    p, q = softmax(t / 4), softmax(s / 4)
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return 16 * (2 * rows + 2 * columns)


def rkd(t, s, labels=None):
    def far(x):
        d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return d / d[d > 0].mean()

    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / norms if norms else 0.0

    def huber(d):
        return np.where(abs(d) <= 1, d * d / 2, abs(d) - 0.5).mean()

    n = range(len(t))
    angle = np.array([cosine(t, i, j, k) - cosine(s, i, j, k) for i in n for j in n for k in n])
    return 25 * huber(far(t) - far(s)) + 50 * huber(angle)


FORMULAS = {"kd": kd, "kd_std": kd_std, "dkd": dkd, "dist": dist, "rkd": rkd}
every_formula = pytest.mark.parametrize("key", FORMULAS)


def case(seed: int, batch=4, classes=5, teachers=None, scale=3.0):
    """Teacher (b, classes) or (b, classes, teachers), student and labels, in float64."""
    rng = np.random.default_rng(seed)
    shape = (batch, classes) if teachers is None else (batch, classes, teachers)
    return (
        rng.normal(size=shape) * scale,
        rng.normal(size=(batch, classes)) * scale,
        rng.integers(0, classes, batch),
    )


def loss_of(loss, teacher, student, labels=None) -> float:
    return float(loss.compute_loss(tf.constant(teacher), tf.constant(student), labels))


def gradient_of(loss, teacher, student, labels=None) -> np.ndarray:
    student = tf.constant(student, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(tf.constant(teacher, tf.float32), student, labels)
    return tape.gradient(value, student).numpy()


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


# --- KD: factors and several teachers ----------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "times"), [("T2", 25), ("T", 5), ("1", 1)])
@pytest.mark.parametrize("over_classes", [False, True])
def test_factors_are_those_of_hinton_ekg_and_kesi(factor, times, over_classes):
    """KESI: T² and the mean over classes too; EKG: T once."""
    teacher, student, _ = case(0)
    plain = kl(softmax(teacher / 5), softmax(student / 5)).mean()
    loss = build("kd", temperature=5, factor=factor, over_classes=over_classes)
    assert loss_of(loss, teacher, student) == pytest.approx(
        times * plain / (5 if over_classes else 1), rel=1e-5
    )


WEIGHTS = pytest.mark.parametrize("weights", [None, (1, 1, 1), (5, 2, 0), (0.1, 0.3, 0.2)])


def shares(weights):
    return np.ones(3) / 3 if weights is None else np.array(weights) / sum(weights)


def said_together(mean: str, teachers, weights, temperature: float):
    """Logits of the weighted mean of three teachers."""
    each, w = np.moveaxis(teachers, -1, 0), shares(weights)
    if mean == "logits":
        return np.tensordot(w, each, 1)
    scale = temperature if mean == "tempered" else 1
    return scale * np.log(np.tensordot(w, softmax(each / scale), 1))


@WEIGHTS
@pytest.mark.parametrize("mean", ["logits", "softmax", "tempered"])
def test_a_mean_of_teachers_teaches_like_one_that_says_the_mean(mean, weights):
    teachers, student, _ = case(1, teachers=3)
    alone = kd(said_together(mean, teachers, weights, 4.0), student)
    assert loss_of(build("kd", mean=mean, weights=weights), teachers, student) == pytest.approx(
        alone, rel=1e-5
    )


@WEIGHTS
def test_the_mean_of_divergences_is_the_weighted_sum_over_teachers(weights):
    teachers, student, _ = case(2, teachers=3)
    expected = sum(w * kd(teachers[..., k], student) for k, w in enumerate(shares(weights)))
    assert loss_of(build("kd", weights=weights), teachers, student) == pytest.approx(expected, rel=1e-5)


@WEIGHTS
def test_mean_of_divergences_has_the_gradient_of_divergence_to_the_mean_of_tempered_softmaxes(weights):
    teachers, student, _ = case(3, teachers=3)
    found = [gradient_of(build("kd", mean=m, weights=weights), teachers, student) for m in ("kl", "tempered")]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert np.abs(found[0]).max() > 0.1


@pytest.mark.parametrize("key", ["kd", "kd_std"])
@pytest.mark.parametrize("mean", ["kl", "logits", "softmax", "tempered"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_teachers_teach_like_one(key, mean, count):
    teacher, student, _ = case(4)
    several = np.repeat(teacher[..., None], count, -1)
    assert loss_of(build(key, mean=mean), several, student) == pytest.approx(
        loss_of(build(key), teacher, student), rel=1e-5
    )


def test_confident_teachers_stay_finite():
    """Softmaxes that underflow in float32, and a teacher without weight that says something else."""
    teachers = 500 * np.float32([[[1, -1], [-1, 1], [0, 0]]])
    for mean in ("kl", "logits", "softmax", "tempered"):
        assert np.isfinite(
            gradient_of(build("kd", mean=mean, weights=(1, 0)), teachers, np.zeros((1, 3)))
        ).all()


def test_a_high_temperature_compares_logits():
    """Hinton et al. 2015, eq. 4: T²·KL → ‖Δz‖² / 2·classes for logits of zero mean."""
    t, s, _ = case(5)
    t, s = (z - z.mean(1, keepdims=True) for z in (t, s))
    squares = ((t - s) ** 2).sum(1).mean() / 2 / t.shape[1]
    assert loss_of(build("kd", temperature=300), t, s) == pytest.approx(squares, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=0), dict(temperature=float("nan")), dict(factor="T3"), dict(mean="median"),
        dict(weights=()), dict(weights=(0, 0)), dict(weights=(1, -1)), dict(weights=(1, float("nan"))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["kd", "kd_std"])
def test_options_out_of_range_are_refused(key, options):
    with pytest.raises(UsageError, match="Received"):
        build(key, **options)


def test_as_many_weights_as_teachers():
    teachers, student, _ = case(6, teachers=3)
    with pytest.raises(UsageError, match="3 teachers"):
        build("kd", weights=(1, 2)).compute_loss(teachers, student)


# --- identities of the others ------------------------------------------------------------------------------


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


def crd(t, s, temperature, ratio) -> float:
    """Tian et al. 2020: −log h(i, i) − Σ_{j ≠ i} log(1 − h(i, j)), by the definition of h."""
    total = 0.0
    for i, own in enumerate(s):
        for j, other in enumerate(t):
            e = np.exp(own @ other / np.linalg.norm(own) / np.linalg.norm(other) / temperature)
            total -= np.log(e / (e + ratio)) if i == j else np.log(ratio / (e + ratio))
    return total / len(t)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("temperature", "ratio"), [(0.07, 16_384 / 50_000), (0.5, 2.0)])
def test_crd_is_the_papers_critic_on_the_batch(batch, temperature, ratio):
    loss = build("crd", temperature=temperature, size=7, ratio=ratio)
    teacher, student = case(14, batch, classes=6)[0], case(15, batch, classes=3)[1]
    found = loss_of(loss, teacher, student)
    projected = [
        values @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()
        for values, layer in ((teacher, loss.of_teacher), (student, loss.of_student))
    ]
    assert found == pytest.approx(crd(*projected, temperature, ratio), rel=1e-4)


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
