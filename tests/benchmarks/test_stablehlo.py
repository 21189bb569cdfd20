"""The exported train step under JAX does what the TensorFlow loop does, on a machine without TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.stablehlo import Course, export
from secateur import nets
from secateur.dataloader import Facts, Images, Splits, batches, epoch_order
from secateur.dataloader.augment import augment, normalise
from secateur.distillation import labels_only
from secateur.op_utils import Trainer
from secateur.recipes.training.schedules import step_decay
from secateur.runs import load_snapshot

REPO = Path(__file__).resolve().parents[2]
STEPS = 20
COURSE = Course(train_epoch=1, batch_size=16, val_batch_size=32, learning_rate=0.005)
FACTS = Facts("DIGITS", 10, (16, 16, 3), (125.3, 123.0, 113.9), (63.0, 62.1, 66.7))

# Importing TensorFlow or Keras raises ImportError in this process.
WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
sys.argv = ["run_stablehlo", sys.argv[1]]
runpy.run_module("benchmarks.run_stablehlo", run_name="__main__")
"""


def _images(n: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *FACTS.shape), np.uint8)
    return Images(images, rng.integers(0, 10, n).astype(np.int32), np.arange(n))


def _network() -> keras.Model:
    keras.utils.set_random_seed(7)
    # Shortcut A': no residual branch starts at zero, so that every weight moves from the first step on.
    return nets.build("ResNet-20", input_shape=FACTS.shape, shortcut="A'")


def _train_with_tensorflow(model: keras.Model, train: Images) -> np.ndarray:
    def preprocess(batch, seed):
        return normalise(augment(batch["images"], seed), FACTS.mean, FACTS.std)

    trainer = Trainer(model, preprocess, labels_only, weight_decay=COURSE.weight_decay, compile_=False)
    rates = step_decay(COURSE.learning_rate, STEPS, COURSE.decay_points, COURSE.decay_rate)
    order = epoch_order(len(train), COURSE.seed, 0)
    stream = ({"images": b.images, "labels": b.labels} for b in batches(train, 16, order, True))
    return np.array(
        [loss for loss, _, _ in trainer.train(stream, ((COURSE.seed, i) for i in range(STEPS)), rates)]
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[np.ndarray, keras.Model, np.ndarray, Path]:
    """Losses and network after 20 steps in TensorFlow; losses and folder of the same steps in JAX."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed: pip install jax (a development dependency)")
    folder = tmp_path_factory.mktemp("export")
    train, holdout = _images(16 * STEPS, 1), _images(50, 2)
    model = _network()
    splits = Splits(train, train, train, holdout, FACTS, None)
    export(folder, model, splits, COURSE)
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(folder)]
    done = subprocess.run(command, cwd=REPO, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return _train_with_tensorflow(model, train), model, np.array(row["step_losses"]), folder


def test_first_losses_agree_to_1e_5(both):
    ours, _, theirs, _ = both
    np.testing.assert_allclose(theirs[:3], ours[:3], rtol=0, atol=1e-5)


def test_losses_of_20_steps_agree_to_1e_3(both):
    ours, _, theirs, _ = both
    assert len(theirs) == STEPS
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-3)


def test_weights_after_20_steps_agree_to_1e_3(both):
    _, model, _, folder = both
    arrays = load_snapshot(folder / "trained_param.pkl").arrays
    before = nets.variables(_network())
    moved = 0.0
    for name, variable in nets.variables(model).items():
        np.testing.assert_allclose(arrays[name], variable.numpy(), rtol=0, atol=1e-3, err_msg=name)
        moved = max(moved, float(np.abs(arrays[name] - before[name].numpy()).max()))
    assert moved > 0.01  # or the agreement would say nothing
