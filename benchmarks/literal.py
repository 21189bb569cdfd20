"""EKG's search as it is written down: masks instead of narrow nets, whole forward passes, nothing kept."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import timed
from secateur.pruning import Plan
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.search.ekg import Searcher
from secateur.pruning.shrink.surgery import channel_paddings
from secateur.pruning.shrink.weights import apply, weights_of, zero


class Literal:
    """The same work as the algorithm is written down, for single score passes and candidates."""

    def __init__(
        self, model: keras.Model, searcher: Searcher, images: np.ndarray, labels: np.ndarray, batch_size: int
    ) -> None:
        self._model, self._searcher, self._dense = model, searcher, weights_of(model)
        self._variables = [(layer.name, v) for layer in model.layers for v in layer.variables]
        pads = channel_paddings(analyse(model), searcher.full.masks())
        self._pads = {name: {"pad": np.array(pad, np.int32)} for name, pad in pads.items()}
        parts = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
        self._batches = [(tf.constant(images[p]), tf.constant(labels[p], tf.int32)) for p in parts]
        self._forward = tf.function(self._logits, autograph=False, reduce_retracing=True)
        self.score: list[float] = []
        self.candidate: list[float] = []

    def _logits(self, x):
        model = self._model
        return model.stateless_call(
            model.trainable_variables, model.non_trainable_variables, x, training=True
        )[0]

    def measure(self, plan: Plan) -> None:
        """Times one score pass of a network and one candidate."""
        weights = self._masked(plan)
        if not self.score:  # tracing is not what is measured
            self._score_pass(weights)
            self._evaluate(plan)
        self.score.append(timed(lambda: self._score_pass(weights)))
        self.candidate.append(timed(lambda: self._evaluate(plan)))

    def _masked(self, plan: Plan) -> dict:
        groups = self._searcher.groups.values()
        return apply(self._dense, groups, plan.masks(), zero, preserve_norm=True)

    def _score_pass(self, weights: dict) -> None:
        tensors = self._searcher.chain.tensors({**weights, **self._pads})
        for x, labels in self._batches:
            teacher = np.zeros((len(labels), self._model.output_shape[-1]), np.float32)
            self._searcher.chain.score(tensors, [x], labels, teacher)

    def _evaluate(self, plan: Plan) -> None:
        weights = self._masked(plan)
        for layer, variable in self._variables:
            variable.assign(weights[layer][variable.name])
        for x, _ in self._batches:
            self._forward(x).numpy()
        self._forward(self._batches[0][0][:1]).numpy()
        self._searcher.counter.macs(plan.masks())
