"""The train step under a strategy, with accumulation.

A step has two halves. `pure_gradients` is a pure function of tensors and is what XLA compiles. All-reduce and
optimizer stay outside of it, inside `strategy.run`: a jitted function that is handed to `strategy.run` itself
does not reduce.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.compute.devices import steps_per_call, use_xla
from secateur.compute.gradients import Adjust, Objective, Preprocess, Tensors, not_finite_seen, pure_gradients
from secateur.compute.optimizer import Optimizer
from secateur.compute.precision import OVERFLOWS, LossScale
from secateur.compute.workers import Workers
from secateur.dataloader.augment import seed_of_part
from secateur.runs.errors import TrainingError, UsageError


class Trainer:
    """Runs the step of a model under a strategy. Create the model inside `strategy.scope()`.

    Args:
        model, preprocess, objective, weight_decay, accum, adjust, terms: see `pure_gradients`.
        momentum: part of the last update that the next one keeps, in [0, 1); β₁ of Adam. Steps that bring
            their own go without it.
        optimizer: a name of `RULES`: "nesterov" and "momentum" as Keras has them, "torch_nesterov"
            and "torch_momentum" (which differ from those after a change of the rate), "adam".
        strategy: from `make_strategy`; the global batch is cut evenly over its replicas. Each worker of
            several is given its own rows of it, see `Workers.rows`.
        compile_: True or False forces XLA on or off, None decides by device.
        skip: a step whose loss, gradient or statistics are not finite changes nothing, and `skipped` counts
            it; so many in a row are too many. 0: the first such loss ends the training.
        scaled: whether gradients are of float16: the loss has a factor, and a step that overflows is skipped.
    """

    def __init__(
        self,
        model: keras.Model,
        preprocess: Preprocess,
        objective: Objective,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        optimizer: str = "nesterov",
        accum: int = 1,
        strategy: tf.distribute.Strategy | None = None,
        compile_: bool | None = None,
        adjust: Adjust | None = None,
        terms: int = 0,
        skip: int = 0,
        scaled: bool = False,
    ) -> None:
        skip = max(skip, OVERFLOWS) if scaled else skip
        self.skip, self.skipped, self.in_a_row = skip, 0, 0
        self.model, self.accum, self.momentum, self.terms = model, accum, momentum, terms
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas, self._workers = self.strategy.num_replicas_in_sync, Workers(self.strategy).count
        with self.strategy.scope():
            self.optimizer = Optimizer(optimizer, momentum, skips=skip > 0)
            self.optimizer.build(model.trainable_variables)
            self._scale = LossScale() if scaled else None
        own = {id(variable) for variable in model.variables}  # a Lesson reads its teacher's, too
        self._moving = [i for i, v in enumerate(model.non_trainable_variables) if id(v) in own]
        scale = 1 / self.replicas
        gradients = pure_gradients(model, preprocess, objective, weight_decay, accum, scale, adjust, terms)
        gradients = not_finite_seen(gradients) if skip else gradients
        # Where replicas exchange statistics in the middle of it, it cannot be compiled by itself.
        whole = tf.function(gradients, jit_compile=use_xla(compile_), autograph=False)
        self._gradients = gradients if self._synchronised() else whole
        self._run = tf.function(self._many, autograph=False)  # to convert the source is a fifth of a trace

    def _synchronised(self) -> bool:
        """Raises `UsageError` for micro-batches, whose statistics would be theirs."""
        layers = self.model._flatten_layers()
        found = self.replicas > 1 and any(getattr(layer, "synchronized", False) for layer in layers)
        if found and self.accum > 1:
            raise UsageError(
                f"--sync_bn needs whole batches: leave out --accum. Received: accum={self.accum}"
            )
        return found

    def train(
        self,
        batches: Iterable[Mapping[str, np.ndarray]],
        seeds: Iterable[tuple[int, int]],
        learning_rates: Iterable[float],
        momenta: Iterable[float] | None = None,
    ) -> Iterator[tuple[float, ...]]:
        """Runs steps as (batch, seed, rate, momentum); each call yields (loss, accuracy, *terms, steps).

        Each batch maps names to arrays, or structures of them, with the same first axis; "images" is uint8
        (b, h, w, c), or what `preprocess` understands. A call runs
        `steps_per_call` steps, or fewer before a batch of another size; all but their number are means over
        them, in which a step that is left out counts as 0. A seed is two integers ≥ 0. Without
        `momenta` every step has the trainer's own.
        Raises `TrainingError` when the loss stops being finite, or does so `skip` times in a row.
        """
        size, waiting = steps_per_call(), []
        momenta = itertools.repeat(self.momentum) if momenta is None else momenta
        # The shortest ends it: a list of learning rates may go on with those of later epochs.
        for item in zip(batches, seeds, learning_rates, momenta, strict=False):
            if waiting and _images(item[0]) != _images(waiting[0][0]):
                yield self._flush(waiting)
                waiting = []
            waiting.append(item)
            if len(waiting) == size:
                yield self._flush(waiting)
                waiting = []
        if waiting:
            yield self._flush(waiting)

    def _flush(self, waiting: list) -> tuple[float, ...]:
        batches, seeds, learning_rates, momenta = zip(*waiting, strict=True)
        stacked = keras.tree.map_structure(lambda *parts: np.stack(parts), *map(dict, batches))
        rates = tf.constant([learning_rates, momenta], tf.float32)
        rows = self._run(self._shard(stacked), tf.constant(seeds, tf.int32), rates).numpy()
        finite = np.isfinite(rows[:, 0])
        for row, sound, seed, rate in zip(rows, finite, seeds, learning_rates, strict=True):
            self.in_a_row = 0 if sound else self.in_a_row + 1
            self.skipped += int(not sound and self.skip > 0)
            if self.in_a_row > 0 and self.in_a_row >= self.skip:
                raise self._not_finite(seed[1] + 1, float(row[0]), rate)
        total = np.where(finite[:, None], rows, np.float32(0)).sum(0)
        return *(total / np.float32(len(rows))).tolist(), len(rows)

    def _not_finite(self, step: int, loss: float, rate: float) -> TrainingError:
        weight = f"; {name} is not finite either" if (name := self._diverged()) else ""
        if not self.skip:
            what = f"The loss is no longer finite in step {step}"
        else:
            what = f"Loss or gradient are not finite in {self.in_a_row} steps in a row, the last is {step}"
        return TrainingError(f"{what}{weight}. Received: loss={loss} at learning rate {rate:g}")

    def _shard(self, stacked: Mapping[str, np.ndarray]):
        size = keras.tree.flatten(stacked)[0].shape[1] * self._workers
        if size % (self.replicas * self.accum):
            raise UsageError(
                f"A batch must divide evenly over {self.replicas} replicas × {self.accum} micro-batches. "
                f"Received: batch_size={size}"
            )
        if self.replicas == 1:
            return keras.tree.map_structure(tf.convert_to_tensor, stacked)
        share, here = size // self.replicas, self.replicas // self._workers

        def part(context):
            first = context.replica_id_in_sync_group % here * share
            return keras.tree.map_structure(
                lambda v: tf.convert_to_tensor(v[:, first : first + share]), stacked
            )

        return self.strategy.experimental_distribute_values_from_function(part)

    def _many(self, stacked, seeds, rates):
        count = tf.shape(seeds)[0]

        def step(i, rows):
            self.optimizer.learning_rate.assign(rates[0, i])
            self.optimizer.momentum.assign(rates[1, i])
            found = self.strategy.run(self._replica_step, args=(stacked, seeds, i))
            metrics, *states = (self.strategy.experimental_local_results(value)[0] for value in found)
            for place, value in zip(self._moving, states, strict=True):
                state = self.model.non_trainable_variables[place].value
                state.assign(self.optimizer.if_sound(value, state))
            if self._scale:
                self._scale.follow(self.optimizer.sound.value)
            return i + 1, rows.write(i, metrics)

        rows = tf.TensorArray(tf.float32, count, element_shape=[2 + self.terms])
        return tf.while_loop(lambda i, _: i < count, step, (0, rows))[1].stack()

    def _replica_step(self, stacked, seeds, i):
        context = tf.distribute.get_replica_context()
        batch = keras.tree.map_structure(lambda value: value[i], stacked)
        seed = seed_of_part(seeds[i], context.replica_id_in_sync_group * _images(batch))
        # `+ 0` makes tensors of the variables: what is compiled stays a function of values, the one that is
        # exported and tested, and not one of resources that the optimizer assigns to.
        params = [v.value + 0 for v in self.model.trainable_variables]
        stats = [v.value + 0 for v in self.model.non_trainable_variables]
        up = [self._scale.value.value + 0] if self._scale else []
        grads, new_stats, metrics = self._gradients(params, stats, batch, seed, *up)
        if self.skip:  # in all replicas, or in none
            loss = context.all_reduce(tf.distribute.ReduceOp.SUM, metrics[0])
            self.optimizer.sound.assign(tf.math.is_finite(loss))
        self.optimizer.apply(grads, self.model.trainable_variables)
        return self._reduced(context, metrics, [(stats[k], new_stats[k]) for k in self._moving])

    def _reduced(
        self, context: tf.distribute.ReplicaContext, metrics: tf.Tensor, states: list[tuple]
    ) -> Tensors:
        """Metrics and new states of the whole batch; states are pairs of the old one and the replica's own.

        Averages move by the mean of what they would on each replica: what stands still does so to the bit.
        """
        if self.replicas == 1:
            return [metrics, *(new for _, new in states)]
        moves = [new - old for old, new in states if new.dtype.is_floating]
        metrics, *moves = context.all_reduce(tf.distribute.ReduceOp.MEAN, [metrics, *moves])
        means = iter(moves)
        return [metrics, *(old + next(means) if new.dtype.is_floating else new for old, new in states)]

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, by name; `restore` takes it back.

        Raises `TrainingError` when a weight is no longer finite: the last step of an epoch can diverge after
        its loss was measured, and a checkpoint of that could never be continued.
        """
        if name := self._diverged():
            raise TrainingError(f"The weights are no longer finite, {name} is the first; they are not saved")
        arrays = [np.asarray(keras.ops.convert_to_numpy(v)) for v in self._variables()]
        return {f"{i:04d}": array for i, array in enumerate(arrays)}

    def _diverged(self) -> str | None:
        """The path of the first weight, or value of the optimizer, that is not finite."""
        for variable in self._variables():
            if not np.isfinite(np.asarray(keras.ops.convert_to_numpy(variable))).all():
                return variable.path
        return None

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Puts the weights, momenta or moments, and Adam's count of steps of `state` back."""
        for i, variable in enumerate(self._variables()):
            variable.assign(state[f"{i:04d}"])

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.variables, *self.optimizer.state(), *(self._scale.state() if self._scale else ())]


def _images(batch: Mapping[str, Any]) -> int:
    return keras.tree.flatten(batch)[0].shape[0]
