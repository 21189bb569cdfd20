"""KD's factors, and its several teachers."""

import numpy as np
import pytest

from secateur.distillation import build
from secateur.runs import UsageError
from tests.helpers.logit_formulas import case, gradient_of, kd, kl, loss_of, softmax


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
