"""Losses on feature maps with trainable parts: their formulas in float64 NumPy, and how the parts train."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import build
from secateur.distillation.loss import OwnBatchNorm
from secateur.distillation.losses.reviewkd import hierarchical_context
from secateur.runs import UsageError
from tests.helpers.learnt_formulas import afd_by_the_paper, fitnet_by_the_paper, norm, review_by_the_paper
from tests.helpers.map_formulas import maps

WIDE = [(6, 8, 8, 4), (6, 8, 8, 4), (6, 4, 4, 6), (6, 2, 2, 6)]
SLIM = [(6, 6, 6, 3), (6, 6, 6, 3), (6, 3, 3, 5), (6, 2, 2, 5), (6, 2, 2, 5)]


def own(key: str, teacher, student, **options):
    """A loss with its weights made and none of them at 0 or 1."""
    keras.utils.set_random_seed(3)
    loss = build(key, **options)
    loss.compute_loss(teacher, student)
    rng = np.random.default_rng(5)
    for v in loss.trainable_variables:
        v.assign(v + 0.2 * rng.normal(size=v.shape))
    return loss


def weights(loss) -> dict[str, np.ndarray]:
    return {called(loss, v): np.float64(v.numpy()) for v in loss.variables}


def called(loss, variable) -> str:
    """The path within the loss."""
    return "/".join(part for part in variable.path.split("/") if part != loss.key)


CASES = {
    "afd": (WIDE, SLIM, lambda w, t, s: afd_by_the_paper(w, t, s, 16), {"units": 16}),
    "reviewkd": (WIDE[1:], SLIM[1:4], review_by_the_paper, {"most_channels": 4}),
    "fitnet": (WIDE[1:], SLIM[1:4], fitnet_by_the_paper, {}),
}
every_case = pytest.mark.parametrize("key", CASES)


def case(key: str, seed: int = 0):
    wide, slim, formula, options = CASES[key]
    teacher, student = maps(seed, *wide), maps(seed + 20, *slim)
    return own(key, teacher, student, **options), teacher, student, formula


# --- golden values and gradients ---------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_paper_says(key, seed):
    loss, teacher, student, formula = case(key, seed)
    expected = formula(weights(loss), teacher, student)
    assert expected > 1e-4
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=5e-5)


def slope(of, step=1e-5) -> float:
    return (of(step) - of(-step)) / (2 * step)


@every_case
def test_its_gradients_are_those_of_finite_differences_of_the_formula(key):
    """Of the student's maps and of every own weight, each along a random direction."""
    loss, teacher, student, formula = case(key)
    tensors, own_weights = [tf.constant(s) for s in student], loss.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value_ = loss.compute_loss(teacher, tensors)
    of_maps, of_weights = tape.gradient(value_, (tensors, [v.value for v in own_weights]))
    w, rng = weights(loss), np.random.default_rng(1)

    along = [rng.normal(size=s.shape) for s in student]
    found = sum((g.numpy() * d).sum() for g, d in zip(of_maps, along, strict=True) if g is not None)

    def with_maps(e):
        return formula(w, teacher, [s + e * d for s, d in zip(student, along, strict=True)])

    assert found == pytest.approx(slope(with_maps), rel=1e-3)
    largest = float(max(np.abs(g).max() for g in of_weights))
    for variable, gradient in zip(own_weights, of_weights, strict=True):
        name, direction = called(loss, variable), rng.normal(size=variable.shape)

        def with_weight(e, name=name, direction=direction):
            return formula(w | {name: w[name] + e * direction}, teacher, student)

        found = (gradient.numpy() * direction).sum()
        assert found == pytest.approx(slope(with_weight), rel=2e-3, abs=1e-4 * largest), name


# --- identities --------------------------------------------------------------------------------------------


def test_afd_of_one_block_of_each_is_attention_transfer():
    """One block leaves the attention no choice."""
    teacher, student = maps(0, *WIDE[:1]), maps(1, *WIDE[:1])
    expected = float(build("at").compute_loss(teacher, student))
    assert float(build("afd").compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)


def test_afd_looks_at_every_block_of_the_student_with_weights_of_sum_one():
    loss, teacher, student, _ = case("afd")
    attention = tf.nn.softmax(loss.scores([*map(tf.constant, teacher)], [*map(tf.constant, student)]), -1)
    assert attention.shape == (6, len(WIDE), len(SLIM))
    assert attention.numpy().min() > 0 and np.ptp(attention.numpy()) > 0.01


def test_a_copy_of_the_teacher_has_no_hint_to_learn_at_first():
    teacher = maps(0, *WIDE[1:])
    assert float(build("fitnet").compute_loss(teacher, teacher)) == 0


def test_hcl_of_a_constant_gap_is_its_square():
    """Every scale sees the same gap, and the weights have mean 1."""
    (x,) = maps(0, (2, 8, 8, 3))
    assert float(hierarchical_context(tf.constant(x), tf.constant(x + 0.5))) == pytest.approx(0.25, rel=1e-6)
    assert float(hierarchical_context(tf.constant(x), tf.constant(x))) == 0


@pytest.mark.parametrize("stage", [0, 1, 2, -1])
def test_fitnet_compares_the_stage_that_it_is_told(stage):
    teacher, student = maps(0, *WIDE[1:]), maps(1, *WIDE[1:])
    expected = np.mean((np.float64(teacher[stage]) - student[stage]) ** 2)
    found = build("fitnet", stage=stage).compute_loss(teacher, student)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("key", "option", "text"), [
    ("afd", {"units": 0}, "units=0"), ("reviewkd", {"most_channels": 0}, "most_channels=0"),
    ("fitnet", {"stage": 3}, "stage=3"), ("fitnet", {"stage": -4}, "stage=-4"),
])  # fmt: skip
def test_options_without_a_meaning_are_refused(key, option, text):
    with pytest.raises(UsageError, match=f"Received: {text}"):
        build(key, **option).compute_loss(maps(0, *WIDE[1:]), maps(1, *SLIM[1:4]))


def test_reviewkd_refuses_unequal_numbers_of_stages():
    with pytest.raises(UsageError, match="Received: 4 of the teacher, 3 of the student"):
        build("reviewkd").compute_loss(maps(0, *WIDE), maps(1, *SLIM[:3]))


# --- training ----------------------------------------------------------------------------------------------


class Around(keras.Model):
    """A model with a loss in its call, as `distillation.lesson.Lesson` has it."""

    def __init__(self, loss):
        super().__init__()
        self.loss_, self.built = loss, True

    def call(self, sides, training=None):
        return self.loss_.compute_loss(*sides)


def statistics(values, variables) -> dict[str, np.ndarray]:
    return {
        v.path: x if isinstance(x, np.ndarray) else x.numpy()
        for v, x in zip(variables, values, strict=True)
        if "moving" in v.path
    }


@pytest.mark.parametrize("key", ["afd", "reviewkd"])
def test_batch_norm_moves_in_training_and_rests_otherwise(key):
    """A step without state hands the new averages back and leaves the variables as they were."""
    loss, *sides, _ = case(key)
    model = Around(loss)
    rest = model.non_trainable_variables

    @tf.function(jit_compile=True, autograph=False)
    def step():
        return model.stateless_call(model.trainable_variables, rest, sides, training=True)[1]

    before, after = statistics([v.numpy() for v in rest], rest), statistics(step(), rest)
    model(sides, training=False)
    now = statistics([v.numpy() for v in rest], rest)
    assert before and all(np.abs(after[n] - before[n]).max() > 1e-3 for n in before)
    assert all((now[n] == before[n]).all() for n in before)
    model(sides, training=True)
    now = statistics([v.numpy() for v in rest], rest)
    assert all(np.allclose(now[n], after[n], atol=1e-6) for n in before)


@every_case
def test_own_parts_learn(key):
    """Thirty steps of the own weights alone, the student at rest, take a tenth off the loss at least."""
    loss, teacher, student, _ = case(key)
    sides = [[tf.constant(x) for x in side] for side in (teacher, student)]
    optimizer = keras.optimizers.Adam(0.03)
    optimizer.build(loss.trainable_variables)
    first = float(loss.compute_loss(*sides))

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            value_ = loss.compute_loss(*sides)
        optimizer.apply(tape.gradient(value_, [v.value for v in loss.trainable_variables]))

    for _ in range(30):
        step()
    assert float(loss.compute_loss(*sides)) < 0.9 * first


def test_own_batch_norm_is_training_unless_told_otherwise():
    x = np.random.default_rng(0).normal(2, 3, (64, 5)).astype(np.float32)
    layer = OwnBatchNorm(dtype="float32")
    np.testing.assert_allclose(layer(x), norm(np.float64(x), 1, 0), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean(0), rtol=1e-5)
    still = layer.moving_mean.numpy()
    expected = (x - still) / np.sqrt(layer.moving_variance.numpy() + 1e-5)
    np.testing.assert_allclose(layer(x, training=False), expected, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), still)
    assert layer(x[:, None, None]).shape == (64, 1, 1, 5)
