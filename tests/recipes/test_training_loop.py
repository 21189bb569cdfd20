"""The loop of one phase: checkpoints that can be continued, also after it diverged."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader, op_utils
from secateur.dataloader import batches, epoch_order
from secateur.dataloader.sources.stored import Stored
from secateur.distillation import labels_only
from secateur.op_utils import pure_gradients
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.recipe import find_recipe
from secateur.recipes.engine.step import State, make_step
from secateur.recipes.training import loop, resident
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.recipes.training.scoring import score, score_logits
from secateur.runs import MetricsLog, RunFolder, TrainingError, UsageError

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def digits() -> dataloader.Splits:
    return dataloader.load("DIGITS")


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


@contextlib.contextmanager
def run_in(folder, digits, **options) -> Iterator[RunContext]:
    config, strategy = RunOptions(dataset="DIGITS", pipeline="ekg", **options), tf.distribute.get_strategy()
    with RunFolder(folder, {}) as opened, MetricsLog(opened, tensorboard=False) as log:
        yield RunContext(config, opened, log, digits, strategy)


def constant(steps: int) -> np.ndarray:
    return np.full(steps, 0.05, np.float32)


def train(
    folder, digits, learning_rates=constant, epochs=3, images=None, micro=1, **options
) -> tuple[keras.Model, list]:
    model = network()
    with run_in(folder, digits, **options) as context:
        spec = TrainingSpec(
            name="phase",
            images=images or digits.warmup,
            epochs=epochs,
            learning_rates=learning_rates,
            objective=labels_only,
            preprocess=context.plain,
            weight_decay=5e-4,
            seed=1,
            batch_size=100,
            remedy=lambda factor: "Take smaller steps",
            accum=micro,
        )
        fit(context, model, spec)
        return model, context.log.rows()


def test_it_learns_and_logs_every_epoch(tmp_path, digits):
    model, rows = train(tmp_path, digits)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["accuracy"] > 0.8
    held = score(lambda x, n: model((x - 77.85) / np.float32(82.3)).numpy(), digits.holdout, 64)
    assert held.accuracy == pytest.approx(rows[-1]["holdout_accuracy"])
    assert held.count == len(digits.holdout)


def test_images_in_their_files_train_the_same_weights_and_averages(tmp_path, digits):
    """Bit for bit, with a hold-out whose last batch is smaller; no image is decoded before it is needed."""
    files = []
    for i, image in enumerate(digits.warmup.images):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(tf.io.encode_png(image).numpy())
    stored = dataclasses.replace(digits.warmup, images=Stored.of_files(files, (32, 32, 3)))
    (one, rows), (other, again) = (
        train(tmp_path / name, dataclasses.replace(digits, holdout=images), epochs=2, images=images)
        for name, images in (("memory", digits.warmup), ("files", stored))
    )
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert [row["holdout_loss"] for row in rows] == [row["holdout_loss"] for row in again]


def test_each_worker_of_several_reads_its_own_rows_of_a_batch(tmp_path, digits):
    images, strategy = digits.warmup, tf.distribute.get_strategy()
    spec = SimpleNamespace(images=images, batch_size=50, seed=1, balanced=False, extra=None)
    workers = [op_utils.Workers(strategy) for _ in range(2)]
    for index, worker in enumerate(workers):
        worker.several, worker.index, worker._places = True, index, ["a:1", "b:1"]
    whole = loop._stream(spec, op_utils.Workers(strategy), 1, 2)
    streams = (loop._stream(spec, worker, 1, 2) for worker in workers)
    for batch, *shares in zip(whole, *streams, strict=True):
        assert [len(share["labels"]) for share in shares] == [25, 25]
        for key in ("images", "labels"):
            assert np.array_equal(np.concatenate([share[key] for share in shares]), batch[key])
    with pytest.raises(UsageError, match="batch_size=51"):
        workers[1].rows(51)


def test_on_an_accelerator_a_batch_is_sent_as_positions(tmp_path, digits, monkeypatch):
    """With and without one the same weights; what does not fit or lies in files is sent as ever."""
    sent, stream = [], loop._stream

    def watched(*args):
        for batch in stream(*args):
            sent.append(batch["images"])
            yield batch

    monkeypatch.setattr(loop, "_stream", watched)
    here, _ = train(tmp_path / "here", digits, epochs=1)
    assert {batch.shape for batch in sent} == {(100, 32, 32, 3)}
    sent.clear()
    monkeypatch.setattr(loop, "fits_device", lambda *args: True)
    there, _ = train(tmp_path / "there", digits, epochs=1)
    assert {batch.shape for batch in sent} == {(100,)}
    for one, other in zip(here.get_weights(), there.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_kept_on_a_device(digits, monkeypatch):
    assert not resident.fits_device(digits.warmup, True)
    monkeypatch.setattr(resident, "accelerated", lambda: True)
    assert resident.fits_device(digits.warmup, True) and not resident.fits_device(digits.warmup, False)
    assert not resident.fits_device(
        dataclasses.replace(digits.warmup, images=Stored.of_files([], (1, 1, 3))), True
    )
    monkeypatch.setattr(resident, "MOST_BYTES", digits.warmup.images.nbytes - 1)
    assert not resident.fits_device(digits.warmup, True)


def test_it_goes_on_within_an_epoch_with_the_same_bits(tmp_path, digits, monkeypatch):
    """Stopped in the fourth of five steps of the second epoch, with a checkpoint behind every step."""
    whole, rows = train(tmp_path / "whole", digits)
    steps, real = itertools.count(), loop.batches

    def stopped(*args, **options):
        for batch in real(*args, **options):
            if next(steps) == 2 * (len(digits.warmup) // 100) - 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loop, "batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", digits, save_minutes=1e-9)
    seen = next(steps)
    parts, again = train(tmp_path / "parts", digits, save_minutes=1e-9)
    assert next(steps) - seen - 1 == len(digits.warmup) // 100 + 2  # of the second, and the third
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True))
    assert [row["loss"] for row in rows] == [row["loss"] for row in again]


def test_where_memory_runs_out_micro_batches_are_halved(tmp_path, digits, monkeypatch, capsys):
    """Memory for 25 images: the same bits as with four micro-batches from the start."""

    class Short(loop.Trainer):
        def train(self, *args, **options):
            for step, found in enumerate(super().train(*args, **options)):
                if 100 // self.accum > 25 and step == 2:
                    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
                yield found

    monkeypatch.setattr(loop, "Trainer", Short)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        train(tmp_path / "alone", digits, epochs=1)
    halved, _ = train(tmp_path / "halved", digits, epochs=1, auto_accum=True)
    assert "4 micro-batches" in capsys.readouterr().err
    monkeypatch.undo()
    whole, _ = train(tmp_path / "whole", digits, epochs=1, micro=4)
    assert all(np.array_equal(a, b) for a, b in zip(halved.get_weights(), whole.get_weights(), strict=True))


def test_a_phase_that_diverges_keeps_its_last_good_epoch(tmp_path, digits):
    def explode(n):
        return np.where(np.arange(n) < n // 3, 0.05, 1e30).astype(np.float32)

    named = (
        r"phase, epoch 2: The loss is no longer finite in step \d+.*; \S+ is not finite either\. "
        r"Received: loss=\w+ at learning rate 1e\+30\nTake smaller steps"
    )
    with pytest.raises(TrainingError, match=named):
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


def not_finite(monkeypatch, where: Callable[[int, float], bool]) -> None:
    """From now on the loss of steps is NaN where this is so of their number and learning rate."""

    class Poisoned(loop.Trainer):
        def __init__(self, model, preprocess, objective, **options):
            def spoilt(outputs, batch):
                loss, accuracy = objective(outputs, batch)
                return loss + tf.reduce_mean(batch["poison"]), accuracy

            super().__init__(model, preprocess, spoilt, **options)

        def train(self, batches, seeds, rates, momenta):
            for batch, seed, rate, momentum in zip(batches, seeds, rates, momenta, strict=False):
                poison = np.full(len(batch["labels"]), np.nan if where(seed[1], rate) else 0, np.float32)
                yield from super().train([batch | {"poison": poison}], [seed], [rate], [momentum])

    monkeypatch.setattr(loop, "Trainer", Poisoned)


def killed_behind(monkeypatch, steps: int) -> None:
    """Ends a training behind so many steps."""
    count = itertools.count(1)

    class Killed(loop.Trainer):
        def train(self, *args):
            for found in super().train(*args):
                yield found
                if next(count) == steps:
                    raise KeyboardInterrupt

    monkeypatch.setattr(loop, "Trainer", Killed)


def flat(rate: float, later: float, per_epoch: int) -> Callable[[int], np.ndarray]:
    """One rate in the first epoch, another one behind it."""
    return lambda steps: np.where(np.arange(steps) < per_epoch, rate, later).astype(np.float32)


BAD = {"skip": lambda step, rate: step % 5 == 2, "rewind": lambda step, rate: rate > 0.02}


@pytest.mark.parametrize("nan", BAD)
def test_with_nan_it_goes_on_and_a_kill_changes_no_bit(nan, tmp_path, digits, monkeypatch, capsys):
    """Skipped steps are in no mean; behind two rewinds the rate is a quarter, as if it had been so before."""
    per_epoch = len(digits.warmup) // 100
    rates = flat(0.01, 0.05, per_epoch)
    quarter, _ = train(tmp_path / "quarter", digits, flat(0.01, 0.0125, per_epoch))
    not_finite(monkeypatch, BAD[nan])
    whole, rows = train(tmp_path / "whole", digits, rates, nan=nan)
    skipped = [sum(step % 5 == 2 for step in range(epoch * per_epoch)) for epoch in (1, 2, 3)]
    counts = {"skip": ("skipped", skipped), "rewind": ("rewinds", [None, 2, 2])}
    name, expected = counts[nan]
    assert [row.get(name) for row in rows] == expected
    assert all(0 < row["loss"] < 3 for row in rows)
    if nan == "rewind":
        assert "rewind 2 of 5: the rate is multiplied by 0.25" in capsys.readouterr().err
        assert all(map(np.array_equal, whole.get_weights(), quarter.get_weights()))
    with monkeypatch.context() as patch:
        killed_behind(patch, per_epoch + 4)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", digits, rates, nan=nan, save_minutes=1e-9)
    parts, again = train(tmp_path / "parts", digits, rates, nan=nan, save_minutes=1e-9)
    assert all(map(np.array_equal, whole.get_weights(), parts.get_weights()))
    assert [(row["loss"], row.get(name)) for row in again] == [(row["loss"], row.get(name)) for row in rows]


@pytest.mark.parametrize(
    ("nan", "said"),
    [("skip", "2: .* in 10 steps in a row, the last is 10"), ("rewind", "1: .* no longer finite in step 1")],
)
def test_what_stays_not_finite_ends_it_all_the_same(nan, said, tmp_path, digits, monkeypatch):
    """Behind an epoch of nine steps that were all skipped, or five rewinds, the weights are those before."""
    not_finite(monkeypatch, lambda step, rate: True)
    with pytest.raises(TrainingError, match=f"phase, epoch {said}.*\nTake smaller steps$"):
        train(tmp_path, digits, epochs=9, nan=nan)
    with RunFolder(tmp_path, {}) as folder:
        saved = folder.load_checkpoint("phase")
    first = network().get_weights()
    assert all(map(np.array_equal, (saved.arrays[f"{i:04d}"] for i in range(len(first))), first))


def test_a_phase_that_diverges_in_its_very_last_step_is_not_saved(tmp_path, digits):
    """The loss of that step is still finite."""

    def at_the_end(n):
        return np.where(np.arange(n) < n - 1, 0.05, np.inf).astype(np.float32)

    with pytest.raises(
        TrainingError, match="phase, epoch 2: The weights .* is the first.*\nTake smaller steps"
    ):
        train(tmp_path, digits, at_the_end, epochs=2)
    with RunFolder(tmp_path, {}) as folder:
        assert folder.load_checkpoint("phase").facts == {"epoch": 1}


def test_scores_of_logits_by_hand():
    found = score_logits(np.float32([[0, np.log(3)], [0, 0]]), np.int32([1, 0]))
    assert found.loss == pytest.approx((np.log(4 / 3) + np.log(2)) / 2, rel=1e-6)
    assert (found.accuracy, found.count) == (1.0, 2)


def test_the_baseline_is_trained_with_plain_momentum(tmp_path, digits):
    """v ← 0.9·v − η·g, w ← w + v by hand, from the same batches; Nesterov's w would be elsewhere."""
    first = make_step(find_recipe("ekg").steps[0])
    model, few = network(), digits.train.take(np.arange(384))
    by_hand = [v.numpy() for v in model.trainable_variables]
    with run_in(tmp_path, digits) as context:
        spec = dataclasses.replace(first.spec(context, State(name="baseline")), images=few, epochs=1)
        gradients = pure_gradients(model, spec.preprocess, labels_only, weight_decay=1e-4)
        velocity, last = [np.zeros_like(p) for p in by_hand], None
        order = epoch_order(len(few), spec.seed, 0)
        for i, batch in enumerate(batches(few, 128, order, drop_remainder=True)):
            tensors = {"images": batch.images, "labels": batch.labels}
            last, _, _ = gradients(
                [tf.constant(p) for p in by_hand], [], tensors, tf.constant([spec.seed, i])
            )
            rate = (0.1, 0.1, 0.01)[i]
            velocity = [0.9 * v - rate * g.numpy() for v, g in zip(velocity, last, strict=True)]
            by_hand = [p + v for p, v in zip(by_hand, velocity, strict=True)]
        fit(context, model, spec)
    for variable, expected, v in zip(model.trainable_variables, by_hand, velocity, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)
        assert np.abs(v).max() > 1e-4  # what Nesterov would add once more, times 0.9


def test_a_split_is_scored_in_pieces_and_many_classes_by_their_best_five(monkeypatch):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(70, 120)).astype(np.float32), rng.integers(0, 120, 70)
    seen = []

    def forward(images, batch_size):
        seen.append(len(images))
        return images

    monkeypatch.setattr("secateur.recipes.training.scoring.AT_ONCE", 20)
    found = score(forward, dataloader.Images(logits, labels, np.arange(70)), 8)
    assert seen == [16, 16, 16, 22]
    whole = score_logits(logits, labels)
    assert (found.accuracy, found.count) == (pytest.approx(whole.accuracy), 70)
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    best = np.argsort(-logits, 1)[:, :5]
    assert found.top5 == pytest.approx(np.mean((best == labels[:, None]).any(1)))
    assert score_logits(logits[:, :99], labels % 99).top5 is None
