"""The loop of one phase: checkpoints that can be continued, also after it diverged."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dataloader
from distillation import labels_only
from recipes.config import Config
from recipes.training import Course, Lab, evaluate, fit, score_logits
from runs import MetricsLog, RunFolder, TrainingError


@pytest.fixture(scope="module")
def digits() -> dataloader.Splits:
    return dataloader.load("DIGITS")


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def train(folder, digits, rates=lambda n: np.full(n, 0.05, np.float32), epochs=3) -> tuple[keras.Model, list]:
    model = network()
    with RunFolder(folder, {}) as opened, MetricsLog(opened, tensorboard=False) as log:
        lab = Lab(Config(dataset="DIGITS"), opened, log, digits, tf.distribute.get_strategy())
        course = Course(
            name="phase",
            images=digits.warmup,
            epochs=epochs,
            rates=rates,
            objective=labels_only,
            preprocess=lambda x, seed: lab.inputs(x),
            weight_decay=5e-4,
            seed=1,
            batch_size=100,
        )
        try:
            fit(lab, model, course)
        finally:
            rows = log.rows()
    return model, rows


def test_it_learns_and_logs_every_epoch(tmp_path, digits):
    model, rows = train(tmp_path, digits)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["accuracy"] > 0.8
    held = evaluate(lambda x, n: model((x - 77.85) / np.float32(82.3)).numpy(), digits.holdout, 64)
    assert held.accuracy == pytest.approx(rows[-1]["holdout_accuracy"])
    assert held.count == len(digits.holdout)


def test_a_phase_that_diverges_keeps_its_last_good_epoch(tmp_path, digits):
    def explode(n):
        return np.where(np.arange(n) < n // 3, 0.05, 1e30).astype(np.float32)

    with pytest.raises(TrainingError):
        train(tmp_path, digits, explode)
    with RunFolder(tmp_path, {}) as folder:
        saved = folder.load_checkpoint("phase")
        assert saved.facts == {"epoch": 1}
        assert all(np.isfinite(array).all() for array in saved.arrays.values())
    healed, rows = train(tmp_path, digits)
    whole, expected = train(tmp_path / "other", digits)
    assert [r["loss"] for r in rows] == [r["loss"] for r in expected]
    for a, b in zip(healed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_phase_that_diverges_in_its_very_last_step_is_not_saved(tmp_path, digits):
    """The loss of that step is still finite."""

    def at_the_end(n):
        return np.where(np.arange(n) < n - 1, 0.05, np.inf).astype(np.float32)

    with pytest.raises(TrainingError):
        train(tmp_path, digits, at_the_end, epochs=2)
    with RunFolder(tmp_path, {}) as folder:
        assert folder.load_checkpoint("phase").facts == {"epoch": 1}


def test_scores_of_logits_by_hand():
    found = score_logits(np.float32([[0, np.log(3)], [0, 0]]), np.int32([1, 0]))
    assert found.loss == pytest.approx((np.log(4 / 3) + np.log(2)) / 2, rel=1e-6)
    assert (found.accuracy, found.count) == (1.0, 2)
