"""The training loop: rounds, progress, metrics, one checkpoint per round from which a killed run goes on.

A round is an epoch, or, where a training lasts a given time, a part of that time (`timed`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from secateur.dataloader import Images, balanced_order, batches, epoch_order, parts_of
from secateur.op_utils import Adjust, Objective, Preprocess, Trainer, Workers, make_forward
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.resident import fits_device, on_device
from secateur.recipes.training.scoring import score
from secateur.recipes.training.timed import Round, TimedTraining, curves_of, mean_metrics
from secateur.runs import RunFolderError, TrainingError, warn
from secateur.runs.errors import Held, first_line, held_signals

IN_A_ROW = 10
"""Steps that are not finite, one after the other, after which --nan skip gives up."""
REWINDS = 5
"""How often a training goes back to its last checkpoint; its rate is then a thirty-second."""


@dataclass(frozen=True)
class TrainingSpec:
    """How to train.

    Attributes:
        name: of the phase: in checkpoints, metrics and progress bars.
        images: to train on; a remainder smaller than a batch waits for the next epoch's order.
        epochs: passes over `images`.
        learning_rates: number of steps → one learning rate per step, float32 (steps,).
        momenta: number of steps → one momentum (of Adam: β₁) per step, float32 (steps,); None: 0.9 always.
        objective, preprocess, weight_decay, accum, optimizer, adjust: see `op_utils.Trainer`.
        seed: of the order of the images and of their augmentation.
        batch_size: images per step.
        remedy: factor on the rate → what the user can do when the loss stops being finite, one line.
        extra: image ids (b,) → more arrays for the objective, first axis b.
        after_epoch: number of epochs done, from 1 → None: changes weights, or `kept`, in place, before the
            checkpoint of the epoch is taken and the holdout is scored.
        kept: variables beside the model's that `after_epoch` changes, for the checkpoints.
        balanced: whether every class comes equally often, see `dataloader.balanced_order`.
        terms: names of what the objective returns behind loss and accuracy, for the log.
        until: when the training ends, in place of `epochs`; its schedule then follows the clock.
        now: that clock: seconds that only grow.
    """

    name: str
    images: Images
    epochs: int
    learning_rates: Callable[[int], np.ndarray]
    objective: Objective
    preprocess: Preprocess
    weight_decay: float
    seed: int
    batch_size: int
    remedy: Callable[[float], str]
    accum: int = 1
    optimizer: str = "nesterov"
    momenta: Callable[[int], np.ndarray] | None = None
    extra: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    adjust: Adjust | None = None
    after_epoch: Callable[[int], None] | None = None
    kept: Sequence[keras.Variable] = ()
    terms: tuple[str, ...] = ()
    balanced: bool = False
    until: float | None = None
    now: Callable[[], float] = time.monotonic


def lower_rate(label: str, rate: float) -> Callable[[float], str]:
    """`TrainingSpec.remedy` of a step that has a learning rate."""
    return lambda factor: f"Lower the rate: --set {label}.learning_rate={rate * factor:g}"


def fit(
    context: RunContext, model: keras.Model, spec: TrainingSpec, scored: keras.Model | None = None
) -> dict[str, int]:
    """Trains in place; returns how many steps were "skipped" and how many "rewinds" there were, if any.

    Every round ends in a checkpoint. An epoch has some within, every --save_minutes and where a signal ends
    it; a timed round is no longer than that, and ends with a signal.

    After a kill it goes on from the last one, with the same bits. So it does with --auto_accum where memory
    runs out, in micro-batches half as large. `scored` is the network that the holdout is shown, where `model`
    is more than that. Raises `TrainingError`, which names phase, epoch and remedy, when loss or weights stop
    being finite, and --nan, `IN_A_ROW` and `REWINDS` do not let it go on.
    """
    if fits_device(spec.images, context.config.compile):
        images, preprocess = on_device(spec.images, spec.preprocess, context.strategy)
        spec = replace(spec, images=images, preprocess=preprocess)
    while True:
        try:
            return _fit(context, model, spec, scored)
        except tf.errors.ResourceExhaustedError:
            accum = 2 * spec.accum
            devices = context.strategy.num_replicas_in_sync
            if not context.config.auto_accum or spec.batch_size % (accum * devices):
                raise
            warn(f"{spec.name}: the memory ran out; it goes on in {accum} micro-batches for each step")
            spec = replace(spec, accum=accum)


def _fit(
    context: RunContext, model: keras.Model, spec: TrainingSpec, scored: keras.Model | None = None
) -> dict[str, int]:
    config = context.config
    trainer = _trainer(context, model, spec)
    begun = _resume(context, trainer, spec)
    if (config.auto_accum or config.nan == "rewind") and not begun["epoch"]:  # what a step that fails changes
        context.checkpoint(spec.name, _state(trainer, spec), begun)
    forward = make_forward(scored or model, context.inputs, compile_=config.compile)
    while True:
        try:
            # One of several workers must not leave the others in the middle of a sum.
            with held_signals(not context.workers.several) as signals:
                return _rounds(context, trainer, forward, spec, begun, signals)
        except TrainingError as error:
            begun = _rewound(context, trainer, spec, begun, error)


def _rounds(
    context: RunContext,
    trainer: Trainer,
    forward: Callable,
    spec: TrainingSpec,
    begun: dict,
    signals: Held,
) -> dict[str, int]:
    """From the progress `begun` to the end of the training."""
    rewinds, number = begun.get("rewinds", 0), begun["epoch"]
    spec = replace(spec, learning_rates=lambda steps, whole=spec.learning_rates: whole(steps) / 2**rewinds)
    if spec.until is None:
        rounds = _epochs(context, trainer, spec, begun, signals)
    else:
        longest, stream = 60 * context.config.save_minutes, partial(_stream, spec, context.workers)
        rounds = TimedTraining(trainer, spec, begun, stream, longest, signals).rounds()
    while True:
        with _diverging(context, spec, number):
            if (one := next(rounds, None)) is None:
                return _trouble(trainer, rewinds)
            number += 1
            state = _finished(trainer, spec, number)
        held = score(forward, context.splits.holdout, context.config.val_batch_size, context.subject.task)
        loss, accuracy, *terms = one.metrics
        context.log.log(
            number,
            phase=spec.name,
            loss=loss,
            accuracy=accuracy,
            holdout_loss=held.loss,
            holdout_accuracy=held.accuracy,
            learning_rate=one.learning_rate,
            **dict(zip(spec.terms, terms, strict=True)),
            **one.progress,
            **_trouble(trainer, rewinds),
        )
        facts = {"epoch": number, **one.progress, **_trouble(trainer, rewinds, trainer.in_a_row)}
        context.checkpoint(spec.name, state, facts)
        _saved(signals)


def _saved(signals: Held) -> None:
    """A signal that has waited for the checkpoint ends the training here."""
    signals.unsaved = False
    if signals:
        signals.obey()


def _rewound(
    context: RunContext, trainer: Trainer, spec: TrainingSpec, begun: dict, error: TrainingError
) -> dict:
    """Back to the last checkpoint with half the rate; raises `error` where that is not wanted, or in vain."""
    rewinds = begun.get("rewinds", 0) + 1
    if context.config.nan != "rewind" or rewinds > REWINDS:
        raise error
    warn(f"{first_line(error)}; rewind {rewinds} of {REWINDS}: the rate is multiplied by {0.5**rewinds:g}")
    return _resume(context, trainer, spec) | {"rewinds": rewinds}


def _trouble(trainer: Trainer, rewinds: int, in_a_row: int = 0) -> dict[str, int]:
    found = {"skipped": trainer.skipped, "rewinds": rewinds, "in_a_row": in_a_row}
    return {name: count for name, count in found.items() if count}


def done_before(context: RunContext, name: str, what: str = "epoch") -> float:
    """Epochs, or "seconds" of a timed one, that a phase's checkpoint has behind it; 0 without one."""
    saved = context.folder.load_checkpoint(name)
    return saved.facts.get(what, 0) if saved else 0


def _epochs(
    context: RunContext, trainer: Trainer, spec: TrainingSpec, begun: dict, signals: Held
) -> Iterator[Round]:
    per_epoch = len(spec.images) // spec.batch_size
    curves = curves_of(spec, per_epoch * spec.epochs)
    for epoch in range(begun["epoch"], spec.epochs):
        metrics = _epoch(context, trainer, spec, begun | {"epoch": epoch}, per_epoch, curves, signals)
        begun = {"rewinds": begun.get("rewinds", 0)}
        yield Round(metrics, float(curves[0, (epoch + 1) * per_epoch - 1]))


def _trainer(context: RunContext, model: keras.Model, spec: TrainingSpec) -> Trainer:
    return Trainer(
        model,
        spec.preprocess,
        spec.objective,
        weight_decay=spec.weight_decay,
        optimizer=spec.optimizer,
        accum=spec.accum,
        strategy=context.strategy,
        compile_=context.config.compile,
        adjust=spec.adjust,
        terms=len(spec.terms),
        scaled=context.config.dtype == "mixed_float16",
        skip=IN_A_ROW if context.config.nan == "skip" else 0,
    )


def _resume(context: RunContext, trainer: Trainer, spec: TrainingSpec) -> dict:
    """Facts of the last checkpoint, whose state is put back: "epoch" and what a `Round` says of progress."""
    saved = context.folder.load_checkpoint(spec.name)
    done = saved.facts["epoch"] if saved else 0
    if saved:
        trainer.restore(saved.arrays)
        for name, variable in _kept(spec).items():
            variable.assign(saved.arrays[name])
        trainer.skipped, trainer.in_a_row = (saved.facts.get(key, 0) for key in ("skipped", "in_a_row"))
        within = f", step {saved.facts['step']}" if "step" in saved.facts else ""
        tqdm.write(f"{spec.name}: continuing after epoch {done}{within}")
    for number in (done, saved.facts.get("step", 0) if saved else 0):
        if context.workers.agreed(number) != number:
            raise RunFolderError(
                f"{spec.name}: this worker does not see the checkpoint that the first one does: all need one "
                f"folder. Received: epoch {done} in train_path={context.config.train_path}"
            )
    context.log.truncate(spec.name, done)
    return dict(saved.facts) if saved else {"epoch": 0}


def _finished(trainer: Trainer, spec: TrainingSpec, done: int) -> dict[str, np.ndarray]:
    """The state of a checkpoint, after `after_epoch`, which is never shown weights that are not finite."""
    state = _state(trainer, spec)
    if spec.after_epoch:
        spec.after_epoch(done)
        state = _state(trainer, spec)
    return state


def _state(trainer: Trainer, spec: TrainingSpec) -> dict[str, np.ndarray]:
    return trainer.state() | {name: keras.ops.convert_to_numpy(v) for name, v in _kept(spec).items()}


def _kept(spec: TrainingSpec) -> Mapping[str, keras.Variable]:
    return {f"kept{i:04d}": variable for i, variable in enumerate(spec.kept)}


@contextlib.contextmanager
def _diverging(context: RunContext, spec: TrainingSpec, epoch: int) -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        more = ", or --nan rewind, or --nan skip" if context.config.nan == "stop" else ""
        tried = 0.5**REWINDS if context.config.nan == "rewind" else 1.0
        lines = f"{spec.name}, epoch {epoch + 1}: {error}\n{spec.remedy(0.1 * tried)}{more}"
        raise TrainingError(lines) from error


def _epoch(
    context: RunContext,
    trainer: Trainer,
    spec: TrainingSpec,
    begun: Mapping,
    per_epoch: int,
    curves: np.ndarray,
    signals: Held,
) -> tuple[float, ...]:
    """Mean metrics of an epoch; `begun` has its number, and within it "step", "total" and "left_out".

    The last one is how many of these steps were skipped.
    """
    epoch, count, config = begun["epoch"], begun.get("step", 0), context.config
    total, first = np.array(begun.get("total", np.zeros(2 + len(spec.terms)))), epoch * per_epoch
    seeds = ((spec.seed, step) for step in range(first + count, first + per_epoch))
    label, saved = f"{spec.name} {epoch + 1}/{spec.epochs}", time.monotonic()
    stream, before = _stream(spec, context.workers, epoch, count), trainer.skipped - begun.get("left_out", 0)
    with tqdm(total=per_epoch, initial=count, desc=label, unit="step", miniters=1, dynamic_ncols=True) as bar:
        for *metrics, steps in trainer.train(stream, seeds, *curves[:, first + count :]):
            total += np.array(metrics) * steps
            count += steps
            left_out = trainer.skipped - before
            if count % config.do_log < steps or count >= per_epoch:
                loss, accuracy, *_ = mean_metrics(total, count - left_out)
                skips = {"skipped": left_out} if left_out else {}
                bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.4f}", **skips, refresh=False)
            bar.update(steps)
            signals.unsaved = True
            if count < per_epoch and (signals or time.monotonic() - saved > 60 * config.save_minutes):
                trouble = _trouble(trainer, begun.get("rewinds", 0), trainer.in_a_row)
                facts = {"epoch": epoch, "step": count, "total": total.tolist(), "left_out": left_out}
                context.checkpoint(spec.name, _state(trainer, spec), facts | trouble)
                saved = time.monotonic()
                _saved(signals)
    return mean_metrics(total, count - left_out)


def _stream(
    spec: TrainingSpec, workers: Workers, epoch: int, first: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """This worker's rows of the batches of an epoch, from number `first` on."""
    labels, size = spec.images.labels, spec.batch_size
    if spec.balanced:
        order = balanced_order(labels, spec.seed, epoch)
    else:
        order = epoch_order(len(labels), spec.seed, epoch)
    order = order[first * size :]
    if workers.several:
        order = order[: len(order) // size * size].reshape(-1, size)[:, workers.rows(size)].ravel()
        size //= workers.count
    for batch in batches(spec.images, size, order, drop_remainder=True):
        more = spec.extra(batch.ids) if spec.extra else {}
        yield {"images": parts_of(batch.images), "labels": parts_of(batch.labels), **more}
