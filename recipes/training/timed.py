"""Rounds of a training that lasts a given time: where the schedule stands is the share that has passed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from secateur.op_utils import Trainer

if TYPE_CHECKING:
    from secateur.recipes.training.loop import TrainingSpec
    from secateur.runs.errors import Held

ROUNDS = 20
PAUSE = 0.1  # most of the time that scores and checkpoints between rounds may take
BAR = "{l_bar}{bar}| {elapsed}{postfix}"
RESOLUTION = 10_000  # points of a schedule that the clock goes through


@dataclass(frozen=True)
class Round:
    """What a round of training leaves beside the weights.

    Attributes:
        metrics: mean loss, accuracy and terms of its steps.
        learning_rate: of its last step.
        progress: more for log and checkpoint: of a timed training the steps and seconds behind it, and how
            often it has seen all images.
    """

    metrics: tuple[float, ...]
    learning_rate: float
    progress: Mapping[str, float] = field(default_factory=dict)


def curves_of(spec: TrainingSpec, steps: int) -> np.ndarray:
    """Rate and momentum of every step, float32 (2, steps)."""
    rates = spec.learning_rates(steps)
    return np.stack([rates, np.full(steps, 0.9, np.float32) if spec.momenta is None else spec.momenta(steps)])


def mean_metrics(total: np.ndarray, steps: int) -> tuple[float, ...]:
    """Mean metrics of so many steps; NaN where all were skipped."""
    return tuple((total / (steps or np.nan)).tolist())


class TimedTraining:
    """Trains until `spec.until`; `rounds` does it.

    The first step, which compiles, does not move the schedule; what happens between rounds does, and rounds
    become longer where it takes more than a tenth of the time.

    Args:
        trainer: with weights to go on from.
        spec: how to train, and until when.
        done: progress of the last checkpoint; without "steps" the training begins.
        stream: epoch and batch, both from 0 → the batches from there to the epoch's end.
        longest: seconds that a round may last, if it is no longer than its pauses want it.
        signals: one that waits ends the round.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: TrainingSpec,
        done: Mapping[str, Any],
        stream: Callable[[int, int], Iterator],
        longest: float,
        signals: Held,
    ) -> None:
        self._trainer, self._spec, self._stream = trainer, spec, stream
        self._longest, self._signals = longest, signals
        self._steps = int(done.get("steps", 0))
        self._before = done.get("seconds", 0.0)  # of the training, in attempts that were killed
        self._end, self._start = spec.until, spec.now() - self._before
        self._compiled = False
        self._curves = curves_of(spec, RESOLUTION)
        self._per_epoch = len(spec.images) // spec.batch_size

    def rounds(self) -> Iterator[Round]:
        """Trains, and yields a round for each twentieth of the time, or fewer."""
        now, pause = self._spec.now, 0.0
        with tqdm(total=100, desc=self._spec.name, unit="%", bar_format=BAR) as bar:
            while now() < self._end:
                metrics = self._round(pause)
                bar.set_postfix(loss=f"{metrics[0]:.4f}", accuracy=f"{metrics[1]:.4f}", refresh=False)
                bar.update(int(100 * self._position()) - bar.n)
                ended = now()
                yield Round(metrics, float(self._curves_now()[0]), self._progress())
                pause = now() - ended

    def _position(self) -> float:
        """Share of the time that has passed, in [0, 1]."""
        now = self._spec.now()
        return float(np.clip((now - self._start) / max(self._end - self._start, 1e-9), 0, 1))

    def _progress(self) -> dict[str, float]:
        """For log and checkpoint."""
        passed = self._spec.now() - self._start
        return {"steps": self._steps, "seconds": passed, "passes": self._steps / self._per_epoch}

    def _round(self, pause: float) -> tuple[float, ...]:
        """Steps for a twentieth of the time, or so long that `pause` is short; returns their mean metrics."""
        length = min((self._end - self._start) / ROUNDS, self._longest)
        length = max(length, pause * (1 / PAUSE - 1))
        until = self._spec.now() + length
        if self._end - until < length / 2 + pause:  # no short one behind it
            until = self._end
        total, count, before = np.zeros(2 + len(self._spec.terms)), 0, self._trainer.skipped
        seeds = ((self._spec.seed, self._steps + i) for i in itertools.count())
        rates, momenta = itertools.tee(self._curves_now() for _ in itertools.count())
        rates, momenta = (rate for rate, _ in rates), (momentum for _, momentum in momenta)
        for *metrics, steps in self._trainer.train(self._batches(until), seeds, rates, momenta):
            total += np.array(metrics) * steps
            count += steps
            self._signals.unsaved = True
            if not self._compiled:
                self._compiled, self._start = True, self._spec.now() - self._before
        self._steps += count
        return mean_metrics(total, count - (self._trainer.skipped - before))

    def _curves_now(self) -> np.ndarray:
        return self._curves[:, min(int(self._position() * RESOLUTION), RESOLUTION - 1)]

    def _batches(self, until: float) -> Iterator[dict[str, np.ndarray]]:
        """Batches from where the last round ended, at least one, until it is time."""
        epoch, first = divmod(self._steps, self._per_epoch)
        starts = itertools.chain([first], itertools.repeat(0))
        later = itertools.chain.from_iterable(map(self._stream, itertools.count(epoch), starts))
        yield next(later)
        while self._spec.now() < until and not self._signals:
            yield next(later)
