"""What happens between epochs is in checkpoints and scores: a killed run ends in the same bits."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader
from secateur.distillation import labels_only
from secateur.pruning import make_plan
from secateur.pruning.constrain.gradients import hold_filters
from secateur.pruning.constrain.soft import soft_pruning
from secateur.pruning.constrain.splitting import Splitting, admm, updating
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.recipes.training.scoring import score
from secateur.runs import MetricsLog, RunFolder, TrainingError

pytestmark = pytest.mark.runs
EPOCHS = 3


@pytest.fixture(scope="module")
def digits() -> dataloader.Splits:
    return dataloader.load("DIGITS")


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(layers.AveragePooling2D(4)(inputs))
    x = layers.Conv2D(8, 3, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


@contextlib.contextmanager
def run_in(folder, digits) -> Iterator[RunContext]:
    config, strategy = RunOptions(dataset="DIGITS", pipeline="ekg"), tf.distribute.get_strategy()
    with RunFolder(folder, {}) as opened, MetricsLog(opened, tensorboard=False) as log:
        yield RunContext(config, opened, log, digits, strategy)


def soft(model: keras.Model) -> dict:
    return {"after_epoch": soft_pruning(model, lambda m: make_plan(m, "l2", keep=0.5))}


def held(model: keras.Model) -> dict:
    return soft(model) | {"adjust": hold_filters(model)}


def split(model: keras.Model) -> dict:
    splitting = Splitting.of(model)
    adjust, renew = admm(model, splitting, rho=0.1), updating(splitting, 0.5)
    return {"after_epoch": renew, "adjust": adjust, "kept": splitting.kept}


def killed(done: int) -> None:
    raise KeyboardInterrupt


def train(folder, digits, method, stop: int | None = None) -> tuple[list[np.ndarray], list[dict]]:
    """Weights, and what is kept beside them, after `EPOCHS`; with `stop` killed in the epoch after that."""
    model = network()
    with run_in(folder, digits) as context:
        spec = TrainingSpec(
            name="phase",
            images=digits.warmup.take(np.arange(300)),
            epochs=EPOCHS,
            objective=labels_only,
            preprocess=context.plain,
            weight_decay=5e-4,
            seed=1,
            batch_size=100,
            remedy=lambda factor: "Take smaller steps",
            **({"learning_rates": lambda n: np.full(n, 0.02, np.float32)} | method(model)),
        )
        if stop is not None:
            after = spec.after_epoch
            spec = replace(spec, after_epoch=lambda done: (after(done), done > stop and killed(done)))
        with contextlib.suppress(KeyboardInterrupt):
            fit(context, model, spec)
        arrays = [*model.get_weights(), *(v.numpy() for v in spec.kept)]
        return arrays, [{k: v for k, v in row.items() if k != "time"} for row in context.log.rows()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits) -> dict:
    """Method → folder, arrays and rows of a run that was never killed."""
    folders = {method: tmp_path_factory.mktemp(method.__name__) for method in (soft, held, split)}
    return {method: (folder, *train(folder, digits, method)) for method, folder in folders.items()}


@pytest.mark.parametrize("method", [soft, held, split])
def test_a_run_killed_between_two_epochs_ends_in_the_same_bits(tmp_path, digits, whole, method):
    _, arrays, rows = whole[method]
    _, seen = train(tmp_path, digits, method, stop=1)
    assert seen == rows[:1]
    again, found = train(tmp_path, digits, method)
    assert found == rows and len(again) == len(arrays)
    for a, b in zip(again, arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_pruned_network_is_what_the_holdout_sees_and_the_checkpoint_holds(digits, whole):
    path, arrays, rows = whole[soft]
    model = network()
    model.set_weights(arrays)
    norms = np.abs(model.get_layer("conv").kernel.numpy()).sum((0, 1, 2))
    assert (norms == 0).sum() == 4
    seen = score(lambda x, n: model((x - 77.85) / np.float32(82.3)).numpy(), digits.holdout, 64)
    assert seen.accuracy == pytest.approx(rows[-1]["holdout_accuracy"])
    assert seen.loss == pytest.approx(rows[-1]["holdout_loss"], rel=1e-4)
    with RunFolder(path, {}) as folder:
        saved = folder.load_checkpoint("phase").arrays
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(saved[f"{i:04d}"], array)


def test_sparse_copies_and_duals_move_and_are_in_the_checkpoint(whole):
    path, arrays, _ = whole[split]
    count = len(network().get_weights())
    with RunFolder(path, {}) as folder:
        saved = folder.load_checkpoint("phase").arrays
    for i, array in enumerate(arrays[count:]):
        np.testing.assert_array_equal(saved[f"kept{i:04d}"], array)
    sparse, duals = arrays[count : count + 2], arrays[count + 2 :]
    assert all((np.abs(z).sum((0, 1, 2)) == 0).sum() == 4 for z in sparse)
    assert all(np.abs(u).max() > 0 for u in duals)


def test_after_epoch_is_told_the_epochs_done_and_never_sees_weights_that_are_not_finite(tmp_path, digits):
    told = []

    def explode(model: keras.Model) -> dict:
        """In the last step of the last epoch, whose loss is still finite."""
        rates = {"learning_rates": lambda n: np.where(np.arange(n) < n - 1, 0.02, np.inf).astype(np.float32)}
        return rates | {"after_epoch": told.append}

    with pytest.raises(TrainingError, match="phase, epoch 3: The weights"):
        train(tmp_path, digits, explode)
    assert told == [1, 2]
