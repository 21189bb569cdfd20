"""Update rules against NumPy implementations of PyTorch's, and in the trainer: cycled, resumed, traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.distillation import labels_only
from secateur.op_utils import RULES, Trainer, pure_gradients
from secateur.recipes.training.schedules import cycled_momentum, one_cycle
from secateur.runs import UsageError
from tests.helpers.replicated_training import data, network, read

STEPS = 12
RATES = np.float32([0.1, 0.1, 0.02, 0.02, 0.5, 0.5, 0.05, 0.01, 0.3, 0.0, 0.2, 0.1])
MOMENTA = np.float32([0.95, 0.95, 0.85, 0.9, 0.9, 0.0, 0.7, 0.8, 0.9, 0.9, 0.99, 0.9])


def torch_sgd(start, gradients, rates, momenta, nesterov):
    """`torch.optim.SGD` as its documentation states the algorithm, in float64."""
    weight, buffer = start.astype(np.float64), None
    for g, rate, momentum in zip(gradients, rates.astype(float), momenta.astype(float), strict=True):
        buffer = g.astype(np.float64) if buffer is None else momentum * buffer + g
        weight = weight - rate * (g + momentum * buffer if nesterov else buffer)
    return weight


def torch_adam(start, gradients, rates, betas):
    """`torch.optim.Adam` as its documentation states the algorithm, in float64; β₁ set before each step."""
    weight, m, v = start.astype(np.float64), 0.0, 0.0
    for t, (g, rate, beta) in enumerate(
        zip(gradients, rates.astype(float), betas.astype(float), strict=True), 1
    ):
        m, v = beta * m + (1 - beta) * g, 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        weight = weight - rate * (m / (1 - beta**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return weight


def walk(name, start, gradients, rates=RATES, momenta=MOMENTA):
    rule = RULES.find(name)
    weight, slots = tf.constant(start), tuple(tf.zeros_like(start) for _ in rule.slots)
    for t, (g, rate, momentum) in enumerate(zip(gradients, rates, momenta, strict=True), 1):
        step = tf.constant(t, tf.float32)
        change, slots = rule.update(slots, tf.constant(g), tf.constant(rate), tf.constant(momentum), step)
        weight += change
    return weight.numpy()


@pytest.fixture
def descent():
    rng = np.random.default_rng(4)
    start = rng.normal(size=(7, 3)).astype(np.float32)
    return start, rng.normal(size=(STEPS, 7, 3)).astype(np.float32)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_momentum_is_pytorchs_whatever_rate_and_momentum_do(descent, nesterov):
    name = "torch_nesterov" if nesterov else "torch_momentum"
    expected = torch_sgd(*descent, RATES, MOMENTA, nesterov)
    np.testing.assert_allclose(walk(name, *descent), expected, atol=2e-6)


def test_adam_is_pytorchs_whatever_rate_and_beta_do(descent):
    np.testing.assert_allclose(walk("adam", *descent), torch_adam(*descent, RATES, MOMENTA), atol=1e-5)


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradients_size():
    start = np.zeros(4, np.float32)
    moved = walk("adam", start, [np.float32([1e-3, -5, 1e4, 0])], RATES[:1], MOMENTA[:1])
    np.testing.assert_allclose(moved, [-0.1, 0.1, -0.1, 0], rtol=1e-4)


@pytest.mark.parametrize("kind", ["momentum", "nesterov"])
def test_both_families_agree_at_a_constant_rate_and_differ_after_a_change(descent, kind):
    constant = np.full(STEPS, 0.05, np.float32)
    ours, theirs = (walk(n, *descent, constant, MOMENTA) for n in (kind, f"torch_{kind}"))
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    # The step after a drop to a hundredth: Keras' velocity still has the old rate in it, PyTorch's not.
    start, gradients = np.zeros(1, np.float32), np.ones((2, 1), np.float32)
    drop, nine = np.float32([1, 0.01]), np.float32([0.9, 0.9])
    extra = {"momentum": (-1.91, -1.019), "nesterov": (-1.9 - 0.829, -1.9 - 0.0271)}[kind]
    found = [float(walk(name, start, gradients, drop, nine)[0]) for name in (kind, f"torch_{kind}")]
    assert found == pytest.approx(extra, abs=1e-5)


def test_an_unknown_optimizer_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="optimizer='nestrov'. Did you mean 'nesterov'"):
        Trainer(network("frozen"), read, labels_only, optimizer="nestrov")


# --- in the trainer ----------------------------------------------------------------------------------------


def trainer_of(optimizer: str, **options) -> Trainer:
    return Trainer(network("live"), read, labels_only, optimizer=optimizer, weight_decay=5e-4, **options)


def cycle(steps: int = STEPS):
    return one_cycle(0.1, steps, share=0.5), cycled_momentum(steps, share=0.5)


def train(trainer, batches, first=0):
    seeds = [(1, first + i) for i in range(len(batches))]
    return list(trainer.train(batches, seeds, *(curve[first:] for curve in cycle())))


@pytest.mark.parametrize("optimizer", RULES)
def test_the_trainer_steps_by_its_rule_with_the_momentum_of_each_step(optimizer):
    """Gradients from `pure_gradients`, moved by `walk` above: an independent loop."""
    trainer, batches = trainer_of(optimizer), data(STEPS)
    model, rule = network("live"), RULES.find(optimizer)
    gradients = pure_gradients(model, read, labels_only, 5e-4)
    weights = [tf.constant(v.numpy()) for v in model.trainable_variables]
    stats = [tf.constant(v.numpy()) for v in model.non_trainable_variables]
    slots = [tuple(tf.zeros_like(w) for _ in rule.slots) for w in weights]
    for t, (batch, rate, momentum) in enumerate(zip(batches, *cycle(), strict=True)):
        grads, stats, _ = gradients(weights, stats, batch, tf.constant([1, t]))
        numbers = [tf.constant(x, tf.float32) for x in (rate, momentum, t + 1)]
        moved = [rule.update(s, g, *numbers) for s, g in zip(slots, grads, strict=True)]
        weights = [w + change for w, (change, _) in zip(weights, moved, strict=True)]
        slots = [new for _, new in moved]
    train(trainer, batches)
    for variable, expected in zip(trainer.model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("optimizer", ["torch_momentum", "adam"])
def test_a_restored_trainer_goes_on_bit_for_bit_in_the_middle_of_a_cycle(optimizer):
    batches = data(STEPS)
    whole, first, second = (trainer_of(optimizer) for _ in range(3))
    train(whole, batches)
    train(first, batches[:5])
    train(second, data(3, seed=9))
    second.restore(first.state())
    train(second, batches[5:], first=5)
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_the_state_of_adam_holds_both_moments_and_the_count_of_steps():
    plain, adam = trainer_of("momentum"), trainer_of("adam")
    train(adam, data(3))
    weights = len(adam.model.trainable_variables)
    assert len(adam.state()) == len(plain.state()) + weights + 1
    assert adam.state()[max(adam.state())] == 3


def test_changing_rate_and_momentum_traces_the_step_once():
    trainer = trainer_of("adam")
    train(trainer, data(STEPS))
    assert trainer._run.experimental_get_tracing_count() == 1
    assert trainer._gradients.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("nesterov", [False, True])
def test_keras_own_sgd_moves_weights_to_the_same_bits(nesterov):
    """So the networks of earlier runs come out as they did."""
    model, batches = network("live"), data(3)
    theirs = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=nesterov)
    theirs.build(model.trainable_variables)
    gradients = tf.function(pure_gradients(model, read, labels_only, 5e-4), autograph=False)
    trainer = trainer_of("nesterov" if nesterov else "momentum")
    for t, batch in enumerate(batches):
        batch = {name: tf.constant(value) for name, value in batch.items()}
        params = [v.value + 0 for v in model.trainable_variables]
        stats = [v.value + 0 for v in trainer.model.non_trainable_variables]
        theirs.apply(gradients(params, stats, batch, tf.constant([1, t]))[0], model.trainable_variables)
        list(trainer.train([batch], [(1, t)], [0.05]))
    for own, variable in zip(trainer.model.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(own.numpy(), variable.numpy())
