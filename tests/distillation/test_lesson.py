"""A student, a teacher and losses as one model, in the trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import (
    Banked,
    Ensemble,
    Filtered,
    Lesson,
    Live,
    build,
    get_loss,
    lesson_objective,
    lesson_terms,
    list_losses,
)
from secateur.op_utils import Trainer, computing_in
from secateur.runs import UsageError
from tests.helpers.lessons import batches, lesson, network, read

pytestmark = pytest.mark.runs


def inputs_of(batch) -> dict[str, tf.Tensor]:
    return {k: tf.convert_to_tensor(v) for k, v in read(batch, None).items()}


# --- what it computes --------------------------------------------------------------------------------------


def test_without_losses_it_is_cross_entropy():
    student, inputs = network(1), inputs_of(batches(1)[0])
    found = Lesson(student, None, [])(inputs)
    logits = student(inputs["images"]).numpy().astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -log_p[np.arange(len(logits)), inputs["labels"]].mean()
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-6)


def test_networks_of_fewer_bits_are_compared_in_float32():
    """Every loss that is added, to bfloat16's eight bits; a layer of a loss keeps its type."""
    keys = [key for key in list_losses() if not get_loss(key).moves_kernels]
    student, teacher, inputs, found = network(1), network(2), inputs_of(batches(1)[0]), []
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        both = Lesson(student, teacher, [(build(key), 1.0) for key in keys])
        with computing_in(dtype, student), computing_in(dtype, teacher):
            found.append(both(inputs))
    assert {value.dtype for value in found[1].values()} == {tf.float32}
    assert 0 < np.abs(found[1]["logits"] - found[0]["logits"]).max() < 0.05
    for key, one, other in zip(both.term_names, *(x["terms"].numpy() for x in found), strict=True):
        assert other == pytest.approx(one, rel=0.1, abs=1e-2), key


def test_the_loss_is_the_weighted_sum_of_its_parts():
    student, teacher, inputs = network(1), network(2), inputs_of(batches(1)[0])
    terms = [(build("kd"), 0.9), (build("at"), 1000.0), (build("sp"), 3000.0)]

    def loss(losses, label_weight=0.0):
        return float(Lesson(student, teacher, losses, label_weight)(inputs)["loss"])

    parts = sum(loss([term]) for term in terms) + 0.5 * loss([], 1.0)
    assert loss(terms, 0.5) == pytest.approx(parts, rel=1e-5)
    assert all(loss([term]) > 0 for term in terms)


def test_parts_of_the_loss_are_told_apart_by_name_and_before_their_weights():
    student, teacher, inputs = network(1), network(2), inputs_of(batches(1)[0])
    theirs = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
    losses = [(build("kd"), 0.9), (theirs, 0.0), (build("kd", temperature=2.0), 3.0), (build("fad"), 1.0)]
    both = Lesson(student, teacher, losses, label_weight=0.5)
    assert both.term_names == ("cross_entropy", "kd", "LogitsDistillation", "kd_2")
    outputs = both(inputs)
    loss, accuracy, *terms = lesson_terms(outputs, inputs)
    assert (loss, accuracy) == lesson_objective(outputs, inputs)
    assert float(loss) == pytest.approx(np.array([0.5, 0.9, 0.0, 3.0]) @ terms, rel=1e-6)
    assert all(float(term) > 0 for term in terms)


def test_parts_of_the_loss_cost_no_second_trace():
    both = Lesson(network(1), network(2), [(build("kd"), 0.9)])
    trainer = Trainer(both, read, lesson_terms, compile_=False, terms=2)
    found = list(trainer.train(batches(3), [(1, i) for i in range(3)], [0.1, 0.05, 0.01]))
    assert [len(step) for step in found] == [5, 5, 5]
    assert trainer._run.experimental_get_tracing_count() == 1
    assert trainer._gradients.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("key", ["kd", "at", "sp"])
def test_nobody_learns_from_himself(key):
    """Loss and gradient are zero; the averages of BN are in use on both sides."""
    model, inputs = network(1), inputs_of(batches(1)[0])
    lesson = Lesson(model, model, [(build(key), 1.0)], label_weight=0.0)
    with tf.GradientTape() as tape:
        loss = lesson(inputs, training=False)["loss"]
    gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert max(float(tf.reduce_max(tf.abs(g))) for g in gradients) < 1e-5


@pytest.mark.parametrize("by", ["batch", "sample"])
@pytest.mark.parametrize("views", [1, 2])
def test_a_batch_whose_size_is_unknown_beforehand_is_one_like_any_other(by, views):
    """As `Model.fit` has it, whose last batch may be smaller: 16 rows, then 6, by one trace."""
    found = Lesson(network(1), Filtered(Banked(), by), [(build("kd"), 0.9)])
    rng = np.random.default_rng(0)
    bank = {size: rng.normal(size=(size, 4, 3)).astype(np.float32) for size in (16, 6)}
    given = {size: inputs_of({**batches(1, size)[0], "bank": bank[size]}) for size in bank}
    for one in given.values():
        one["images"] = tf.concat([one["images"], one["images"][:, ::-1]][:views], 0)
    specs = {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in given[16].items()}
    traced = tf.function(lambda one: lesson_objective(found(one), one), [specs], autograph=False)
    for one in given.values():
        np.testing.assert_allclose(traced(one), lesson_objective(found(one), one), rtol=1e-5)


def test_a_lesson_tells_its_losses_how_many_images_its_views_are_of():
    student, inputs, crd = network(1), inputs_of(batches(1)[0]), build("crd")
    views = tf.concat([inputs["images"], inputs["images"][:, ::-1]], 0)
    found = Lesson(student, network(2), [(crd, 1.0)], 0.0)({**inputs, "images": views})["loss"]
    pooled = [keras.Model(m.inputs[0], m.get_layer("pool").output)(views) for m in (network(2), student)]
    assert float(found) == pytest.approx(float(crd.compute_loss(*pooled, images=16)), rel=1e-5)
    assert float(found) < 0.99 * float(crd.compute_loss(*pooled))


def test_losses_of_keras_are_losses_of_a_lesson():
    student, teacher, inputs = network(1), network(2), inputs_of(batches(1)[0])
    feature = keras.distillation.FeatureDistillation("mse", "pool", "pool")
    logits = keras.distillation.LogitsDistillation(3.0, keras.losses.KLDivergence())
    pooled = [
        keras.Model(m.inputs[0], m.get_layer("pool").output)(inputs["images"]) for m in (student, teacher)
    ]
    expected = np.square(pooled[0] - pooled[1]).mean()
    found = Lesson(student, teacher, [(feature, 2.0)], label_weight=0.0)(inputs)["loss"]
    assert float(found) == pytest.approx(2 * expected, rel=1e-5)
    ours = Lesson(student, teacher, [(build("kd", temperature=3.0), 1.0)], label_weight=0.0)(inputs)["loss"]
    theirs = Lesson(student, teacher, [(logits, 1.0)], label_weight=0.0)(inputs)["loss"]
    assert float(theirs) == pytest.approx(float(ours), rel=1e-3)
    with pytest.raises(UsageError, match=r"^A loss reads layer 'pool', which the teacher does not give"):
        Lesson(student, Live(teacher), [(feature, 1.0)])


def test_a_student_in_bfloat16_has_a_float32_loss_near_that_of_float32():
    inputs, teacher = inputs_of(batches(1)[0]), network(2)

    def found(dtype):
        student = network(1, dtype=dtype)
        assert student.layers[-1].compute_dtype == ("float32" if dtype == "float32" else "bfloat16")
        return Lesson(student, teacher, [(build("kd"), 1.0), (build("at"), 1.0)])(inputs, training=True)

    half, full = found("mixed_bfloat16"), found("float32")
    assert half["loss"].dtype == half["logits"].dtype == tf.float32
    assert float(half["loss"]) == pytest.approx(float(full["loss"]), rel=0.03)
    assert float(half["loss"]) != float(full["loss"])


# --- what it trains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accum", "compiled"), [(1, False), (3, True)])
def test_the_teacher_is_never_touched(accum, compiled):
    """Not by the gradient, not by the decay, not by rounding of BN's averages over three micro-batches."""
    teacher = network(2)
    before = teacher.get_weights()
    student = network(1)
    start = [v.numpy() for v in student.trainable_variables]
    both = Lesson(student, Live(teacher, ["logits", "stages"]), [(build("kd"), 1.0), (build("at"), 10.0)])
    trainer = Trainer(both, read, lesson_objective, weight_decay=5e-4, accum=accum, compile_=compiled)
    list(trainer.train(batches(2, 12), [(1, 0), (1, 1)], [0.1, 0.1]))
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    moved = zip(start, student.trainable_variables, strict=True)
    assert all(np.abs(a - v.numpy()).max() > 0 for a, v in moved)


def test_checkpoints_hold_the_student_and_what_losses_own_but_no_teacher():
    both = lesson(network(1), network(2))
    afd = both.terms[-1][0]
    own = [*both.student.variables, *afd.variables]
    assert afd.trainable_variables and {id(v) for v in both.variables} == {id(v) for v in own}
    trainer = Trainer(both, read, lesson_objective, compile_=False)
    assert len(trainer.state()) == len(own) + len(both.trainable_variables)


def test_what_a_loss_owns_trains_along():
    both = lesson(network(1), network(2))
    before = [v.numpy() for v in both.terms[-1][0].trainable_variables]
    trainer = Trainer(both, read, lesson_objective, compile_=False)
    list(trainer.train(batches(2), [(1, 0), (1, 1)], [0.1, 0.1]))
    moved = zip(before, both.terms[-1][0].trainable_variables, strict=True)
    assert any(np.abs(a - v.numpy()).max() > 0 for a, v in moved)


def test_a_restored_lesson_goes_on_in_the_same_bits():
    def fresh():
        return Trainer(lesson(network(1), network(2)), read, lesson_objective, compile_=False)

    data, seeds, rates = batches(3), [(1, i) for i in range(3)], [0.1] * 3
    whole, second = fresh(), fresh()
    whole_run = whole.train(data, seeds, rates)
    next(whole_run)
    second.restore(whole.state())
    assert list(second.train(data[1:], seeds[1:], rates[1:])) == list(whole_run)


# --- divided -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def divided(programs, tmp_path_factory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("lessons")
    done = programs.run("tests/helpers/lessons.py", "found.npz", cwd=folder)
    assert done.code == 0, done.err[-2000:]
    return dict(np.load(folder / "found.npz"))


@pytest.mark.parametrize("way", ["1/4/True", "2/1/True", "2/2/False"])
def test_a_lesson_may_be_divided_in_any_way(divided, way):
    """Means over samples only, and BN frozen: replicas, micro-batches and XLA change nothing but rounding."""
    expected = {k: v for k, v in divided.items() if k.startswith("1/1/False/")}
    for key, value in expected.items():
        np.testing.assert_allclose(divided[key.replace("1/1/False", way)], value, atol=4e-6, rtol=0)


@pytest.mark.parametrize("way", ["1/4/True", "2/1/True", "2/2/False"])
def test_parts_of_the_loss_are_means_over_the_whole_batch_however_it_is_divided(divided, way):
    """Each step: loss, accuracy, cross-entropy, kd, at, and the number of steps."""
    expected = divided["metrics/1/1/False"]
    assert expected.shape == (2, 6)
    np.testing.assert_allclose(divided[f"metrics/{way}"], expected, rtol=2e-6, atol=4e-6)
    loss, _, *terms = expected.T[:-1]
    np.testing.assert_allclose(np.array([1.0, 0.9, 10.0]) @ terms, loss, rtol=1e-6)


def test_those_weights_have_moved(divided):
    start = network(1, trainable_norm=False).get_layer("conv").kernel.numpy()
    assert np.abs(divided["1/1/False/0000"] - start).max() > 1e-3


def test_losses_with_weights_of_their_own_train_on_two_replicas(divided):
    """Their BN and Gram matrices are those of a replica; the teacher is as it was, on both."""
    assert np.isfinite(divided["own/metrics"]).all()
    assert divided["own/teacher moved"] == 0 and divided["own/loss moved"] > 0


# --- errors ------------------------------------------------------------------------------------------------


def test_losses_need_a_teacher_that_gives_what_they_read():
    with pytest.raises(UsageError, match="teacher=None"):
        Lesson(network(1), None, [(build("kd"), 1.0)])
    with pytest.raises(UsageError, match=r"'at' reads stages. Received: teacher gives \['logits'\]"):
        Lesson(network(1), Live(network(2)), [(build("at"), 1.0)])
    feature = keras.distillation.FeatureDistillation("mse", "pool", "pool")
    with pytest.raises(UsageError, match=r"layer 'pool'.*\n.*more=\['pool'\]"):
        Lesson(network(1), Live(network(2)), [(feature, 1.0)])(inputs_of(batches(1)[0]))


def test_a_teacher_of_an_older_protocol_and_missing_logits_are_one_line():
    class Older:
        variables, convolutions = (), ()
        symbols = {"logits": keras.KerasTensor((None, 10))}

        def __call__(self, inputs, student=None):
            return {"logits": inputs["old"]}

    student, losses = network(1), [(build("kd"), 1.0)]
    for wrap in (lambda t: Lesson(student, t, losses), Filtered, lambda t: Ensemble([t])):
        with pytest.raises(UsageError, match="Received: Older without several$"):
            wrap(Older())
    inputs = inputs_of(batches(1)[0])
    with pytest.raises(
        UsageError, match=r"^The stored logits are missing. Received: inputs=\['images', 'labels'\]"
    ):
        Lesson(student, Filtered(Ensemble([Banked(), Banked()])), losses)(
            {name: inputs[name] for name in ("images", "labels")}
        )
