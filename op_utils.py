"""The only file that knows devices: strategy, compiled train and evaluation steps, accumulation.

A train step has two halves. `pure_gradients` is a pure function of tensors (parameters, statistics, batch,
seed) and is what XLA compiles. All-reduce and optimizer stay outside of it, inside `strategy.run`: a jitted
function that is handed to `strategy.run` itself does not reduce.

`pure_step` is the whole step, update included, without variables. Training does not use it: the benchmarks
export it to other runtimes, and the tests hold `Trainer` against it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader.augment import fold_seed
from secateur.dataloader.batches import in_parts
from secateur.dataloader.splits import parts_of
from secateur.runs.errors import TrainingError, UsageError, first_line, warn
from secateur.runs.peers import gone, take_sigterm_back, watched
from secateur.runs.registry import Registry

Tensors = list[tf.Tensor]
Batch = Mapping[str, tf.Tensor]
Preprocess = Callable[[Batch, tf.Tensor], Any]  # batch, seed → what the model reads
Objective = Callable[[Any, Batch], tuple[tf.Tensor, ...]]  # outputs, batch → mean loss, accuracy, *terms
Gradients = Callable[..., tuple[Tensors, Tensors, tf.Tensor]]  # see `pure_gradients`
Adjust = Callable[[Tensors, Tensors, float], Tensors]  # gradients, parameters, loss scale → gradients


# --- how weights move ---------------------------------------------------------------------------------------
#
# Two families of momentum live in the published systems. Keras' velocity includes the learning rate, v ← μ·v
# − η·g, w ← w + v: after a change of η the steps behind it still count with the old rate. PyTorch's buffer
# excludes it, u ← μ·u + g, w ← w − η·u: they count with the new rate at once. At a constant rate both are the
# same (v = −η·u). EKG is Keras' (its programs are TensorFlow). KESI, PFEC, HAP, SFP and the others are
# PyTorch's, and only that reproduces a one-cycle schedule, whose rate changes in every step.

BETA_2 = 0.999
"""Part of the mean of squared gradients that Adam keeps (Kingma & Ba 2015; PyTorch's default)."""
EPSILON = 1e-8
"""Added to Adam's divisor after its bias is corrected, as in the paper and PyTorch (Keras: 1e-7, before)."""

Slots = tuple[tf.Tensor, ...]
Update = Callable[[Slots, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, Slots]]


@dataclass(frozen=True)
class Rule:
    """One optimizer.

    Attributes:
        update: (slots, gradient, rate, momentum, step) → (what to add to the weight, new slots). Slots and
            gradient have the weight's shape; the others are float32 scalars; `step` counts from 1.
        slots: names of what a weight carries from step to step; all begin at zero.
        counts: whether `update` depends on `step`, so that a checkpoint has to hold it.
    """

    update: Update
    slots: tuple[str, ...] = ("momentum",)
    counts: bool = False


def keras_momentum(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """v ← μ·v − η·g; adds v."""
    velocity = slots[0] * momentum - gradient * rate
    return velocity, (velocity,)


def keras_nesterov(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """v ← μ·v − η·g; adds μ·v − η·g: the gradient's step from where the momentum leads."""
    velocity = slots[0] * momentum - gradient * rate
    return velocity * momentum - gradient * rate, (velocity,)


def torch_momentum(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """u ← μ·u + g; adds −η·u (`torch.optim.SGD` without dampening)."""
    total = slots[0] * momentum + gradient
    return -rate * total, (total,)


def torch_nesterov(slots: Slots, gradient, rate, momentum, step=None) -> tuple[tf.Tensor, Slots]:
    """u ← μ·u + g; adds −η·(g + μ·u) (`torch.optim.SGD` with `nesterov`)."""
    total = slots[0] * momentum + gradient
    return -rate * (gradient + momentum * total), (total,)


def adam(slots: Slots, gradient, rate, momentum, step) -> tuple[tf.Tensor, Slots]:
    """Adam with β₁ = `momentum` of this step (Kingma & Ba 2015, algorithm 1).

    m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g²; adds −η·m̂ / (√v̂ + ε). Where β₁ changes, the bias of m is
    corrected by 1 − β₁ᵗ with the β₁ of step t alone, as `torch.optim.Adam` does under a one-cycle schedule.
    """
    mean = slots[0] * momentum + gradient * (1 - momentum)
    square = slots[1] * BETA_2 + tf.square(gradient) * (1 - BETA_2)
    # expm1: 1 − 0.999 has no more than four digits left in float32.
    first = -tf.math.expm1(step * tf.math.log(momentum))
    second = -tf.math.expm1(step * math.log(BETA_2))
    return -rate / first * mean / (tf.sqrt(square / second) + EPSILON), (mean, square)


RULES: Registry[Rule] = Registry(
    "optimizer",
    "optimizers",
    {
        "nesterov": Rule(keras_nesterov),
        "momentum": Rule(keras_momentum),
        "torch_nesterov": Rule(torch_nesterov),
        "torch_momentum": Rule(torch_momentum),
        "adam": Rule(adam, ("mean", "square"), counts=True),
    },
)


# --- devices ------------------------------------------------------------------------------------------------


def make_strategy(
    gpu_ids: Sequence[int] = (0,), tpu: str | None = None, cluster: bool = False
) -> tf.distribute.Strategy:
    """The strategy for `--gpu_id`, `--tpu` and `TF_CONFIG`: several GPUs or workers mirror, one needs none.

    Args:
        gpu_ids: indexes among the visible GPUs. Without any GPU the CPU is used and one warning line says so.
            () is the first one, if there is one. Each worker of several has all that it sees.
        tpu: address of a TPU, "local" on a TPU machine, or None.
        cluster: whether this process is one of the workers that `TF_CONFIG` names, where it names several;
            it then waits for the others.

    Raises `UsageError` when the machine has GPUs but not the ones asked for, or no such TPU, and for a
    `TF_CONFIG` that says no place of this process.
    """
    if cluster and (strategy := _cluster_strategy()):
        return strategy
    if tpu:
        return _tpu_strategy(tpu)
    if not gpu_ids:
        return make_strategy((0,)) if tf.config.list_physical_devices("GPU") else tf.distribute.get_strategy()
    if min(gpu_ids) < 0 or len(set(gpu_ids)) < len(gpu_ids):
        raise UsageError(f"GPUs are counted from 0, each once. Received: gpu_id={list(gpu_ids)}")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        warn(f"no GPU on this machine, --gpu_id {' '.join(map(str, gpu_ids))} is ignored: running on the CPU")
        return tf.distribute.get_strategy()
    if max(gpu_ids) >= len(gpus):
        raise UsageError(
            f"This machine has {len(gpus)} GPUs, counted from 0. Received: gpu_id={list(gpu_ids)}"
        )
    if len(gpu_ids) > 1:
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in gpu_ids])
    return tf.distribute.OneDeviceStrategy(f"/gpu:{gpu_ids[0]}")


def _cluster_strategy() -> tf.distribute.Strategy | None:
    """Of several workers; None where `TF_CONFIG` names one, or is not there."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        jobs = resolver.cluster_spec().as_dict()
        place = resolver.task_type, resolver.task_id
    except ValueError as error:
        raise UsageError(f"TF_CONFIG is no JSON of a cluster ({first_line(error)}): unset it") from error
    count = sum(map(len, jobs.values()))
    if count < 2:
        return None
    if jobs.keys() - {"chief", "worker"} or place[1] not in range(len(jobs.get(place[0], ()))):
        raise UsageError(
            'TF_CONFIG must have jobs "chief" and "worker", and the task that this process is. '
            f"Received: jobs={sorted(jobs)}, task={place[0]} {place[1]}"
        )
    print(f"{place[0]} {place[1]} of {count} workers waits for the others", flush=True)
    try:
        strategy = _waited(lambda: tf.distribute.MultiWorkerMirroredStrategy(resolver))
    except LOST as error:
        raise gone(type(error).__name__) from error
    take_sigterm_back()
    return strategy


def _tpu_strategy(address: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = first_line(error)
        raise UsageError(f"No TPU answers there ({reason}). Received: tpu={address!r}") from error
    return tf.distribute.TPUStrategy(resolver)


LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""What is raised where a worker is waited for that has gone."""


class Workers:
    """The processes that share a run: the chief decides and writes, the others follow.

    Args:
        strategy: from `make_strategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.index, self._places = 0, [""]
        if self.several:
            resolver = strategy.cluster_resolver
            jobs = resolver.cluster_spec().as_dict()
            self._places = [*jobs.get("chief", ()), *jobs["worker"]]
            self.index = self._places.index(jobs[resolver.task_type][resolver.task_id])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._places)

    @property
    def follows(self) -> bool:
        """Whether this process is not the chief."""
        return self.index > 0

    @property
    def devices(self) -> Sequence[str | None]:
        """Those of this process that work side by side; None is the one that TensorFlow takes by itself."""
        several = self._strategy.num_replicas_in_sync > self.count
        return self._strategy.extended.worker_devices if several else (None,)

    @contextlib.contextmanager
    def own_scope(self) -> Iterator[None]:
        """Where this process computes by itself: variables that it makes live on its devices alone.

        Raises `WorkerError` where a worker is waited for in it that has gone.
        """
        if not self.several:
            with self._strategy.scope():
                yield
            return
        others = [place for i, place in enumerate(self._places) if i != self.index]
        try:
            with watched(others):
                yield
        except LOST as error:
            raise gone(type(error).__name__) from error

    def summed(self, array: np.ndarray) -> np.ndarray:
        """The sum of the workers' arrays, float64, on all of them: each waits here for the others."""
        if not self.several:
            return np.asarray(array, np.float64)
        first = self._strategy.num_replicas_in_sync // self.count * self.index

        def part(context):
            mine = context.replica_id_in_sync_group == first
            return tf.constant(array if mine else np.zeros_like(array), tf.float64)

        def total():
            parts = self._strategy.experimental_distribute_values_from_function(part)
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()

        return _waited(total)

    def chiefs(self, array: np.ndarray) -> np.ndarray:
        """The chief's array, float64, on all workers: each waits here for the others."""
        return self.summed(np.zeros_like(array) if self.follows else array)

    def agreed(self, value: float = 0.0) -> float:
        """The same of one number."""
        return float(self.chiefs(np.array(value, np.float64)))


def _waited(call: Callable[[], Any]) -> Any:
    """What a call returns that waits for others in C++; signals are heard here in the meantime."""
    return ThreadPool(1).apply_async(call).get()


def accelerated() -> bool:
    """Whether there is a GPU or a TPU."""
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def use_xla(compile_: bool | None = None) -> bool:
    """`--compile`, or by device: XLA wins on GPU and TPU and loses to oneDNN 3 to 4 times on the CPU."""
    return accelerated() if compile_ is None else compile_


def steps_per_call() -> int:
    """How many steps one call runs: a call costs about a millisecond, which only accelerators notice."""
    return 20 if accelerated() else 1


# --- fewer bits ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def computing_in(dtype: str, model: keras.Model) -> Iterator[None]:
    """`compute_in` for what is traced within; afterwards the layers are as they were."""
    before = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    try:
        compute_in(dtype, model)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def compute_in(dtype: str, model: keras.Model) -> None:
    """Layers that compute in float32 do so in `dtype`, "mixed_bfloat16" or "mixed_float16".

    Weights stay float32. So do layers that do not cast what they read, as our batch normalisation, which
    takes maps of any type. Outputs may be of few bits: `Trainer` and `make_forward` cast them.
    """
    for layer in model._flatten_layers():
        plain = layer.autocast and layer.dtype_policy.name == "float32"
        if plain and not isinstance(layer, keras.Model):  # which would round the images
            layer.dtype_policy = dtype


@contextlib.contextmanager
def synchronising(model: keras.Model) -> Iterator[None]:
    """BatchNorm of `model`, ours and Keras', takes its statistics over all replicas within."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "synchronized")]
    before = [layer.synchronized for layer in layers]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.synchronized = was


def as_float32(outputs: Any) -> Any:
    """Numbers of fewer bits as float32, in their structure; integers and truth values as they are."""
    return keras.tree.map_structure(lambda y: tf.cast(y, tf.float32) if y.dtype.is_floating else y, outputs)


# --- the step as a pure function ----------------------------------------------------------------------------


def pure_gradients(
    model: keras.Model,
    preprocess: Preprocess,
    objective: Objective,
    weight_decay: float = 0.0,
    accum: int = 1,
    loss_scale: float = 1.0,
    adjust: Adjust | None = None,
    terms: int = 0,
) -> Gradients:
    """Makes `f(parameters, statistics, batch, seed) -> (gradients, new statistics, metrics)`.

    Metrics are [loss, accuracy, *terms], float32 (2 + terms,). A fifth argument is a factor on the loss that
    gradients are divided by again: those of few bits would be rounded to zero without (see `_Scale`).

    Args:
        model: built; with logits as output, or whatever `objective` understands.
        preprocess: normalisation and augmentation; what else of the batch the model reads.
        objective: mean loss and accuracy of a batch; behind them other means to report, scalars. Penalties
            that layers of the model bring are added to the loss.
        weight_decay: coupled L2 on all trainable weights, as the published systems have it.
        accum: micro-batches that a batch is cut into; gradients and BN statistics are their means.
        loss_scale: factor on the loss before differentiation: 1 / replicas, since the optimizer sums.
        adjust: (gradients, parameters, `loss_scale`) → gradients, after decay and once a step, however many
            micro-batches it has. It multiplies what it adds by `loss_scale`, as decay is.
        terms: how many numbers `objective` returns behind loss and accuracy.
    """

    def once(params, stats, batch, seed, up):
        inputs = preprocess(batch, seed)
        with tf.GradientTape() as tape:
            tape.watch(params)
            outputs, new_stats, extra = model.stateless_call(
                params, stats, inputs, training=True, return_losses=True
            )
            loss, *others = objective(as_float32(outputs), batch)
            loss = tf.add_n([loss, *as_float32(extra)]) if extra else loss
            scaled = loss * loss_scale if up is None else loss * loss_scale * up
        grads = tape.gradient(scaled, params, unconnected_gradients="zero")
        grads = grads if up is None else [g / up for g in grads]
        return grads, new_stats, tf.stack([loss, *others])

    def accumulated(params, stats, batch, seed, up):
        def cut(v):
            return tf.reshape(v, [accum, v.shape[0] // accum, *v.shape[1:]])

        parts = keras.tree.map_structure(cut, dict(batch))

        def body(i, grads, new_stats, metrics):
            # Every micro-batch starts from the same moving averages; their mean is one update by the batch.
            part = keras.tree.map_structure(lambda v: v[i], parts)
            g, s, m = once(params, stats, part, fold_seed(seed, i), up)
            s = [a + b if b.dtype.is_floating else b for a, b in zip(new_stats, s, strict=True)]
            return i + 1, [a + b for a, b in zip(grads, g, strict=True)], s, metrics + m

        zeros = [tf.zeros_like(p) for p in params], [tf.zeros_like(s) for s in stats], tf.zeros(2 + terms)
        _, grads, total, metrics = tf.while_loop(lambda i, *_: i < accum, body, (0, *zeros))
        mean = [s / accum if s.dtype.is_floating else s for s in total]
        return [g / accum for g in grads], mean, metrics / accum

    def gradients(params, stats, batch, seed, up=None):
        params, stats = list(params), list(stats)
        grads, new_stats, metrics = (once if accum == 1 else accumulated)(params, stats, batch, seed, up)
        decay = weight_decay * loss_scale
        grads = [g + decay * p for g, p in zip(grads, params, strict=True)]
        return adjust(grads, params, loss_scale) if adjust else grads, new_stats, metrics

    return gradients


def not_finite_seen(gradients: Gradients) -> Gradients:
    """The same, with metrics that are all NaN where the loss, a gradient or a statistic is not finite."""

    def checked(params, stats, batch, seed, up=None):
        grads, new_stats, metrics = gradients(params, stats, batch, seed, up)
        numbers = [metrics[0], *grads, *(s for s in new_stats if s.dtype.is_floating)]
        sound = tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in numbers])
        return grads, new_stats, tf.where(sound, metrics, math.nan)

    return checked


def nesterov_update(
    params: Tensors,
    momenta: Tensors,
    grads: Tensors,
    learning_rate: float | tf.Tensor,
    momentum: float | tf.Tensor = 0.9,
) -> tuple[Tensors, Tensors]:
    """SGD with Nesterov momentum as Keras has it (velocity includes the rate), as a pure function."""
    changes = [keras_nesterov((m,), g, learning_rate, momentum) for m, g in zip(momenta, grads, strict=True)]
    moved = [p + change for p, (change, _) in zip(params, changes, strict=True)]
    return moved, [velocity for _, (velocity,) in changes]


def pure_step(gradients: Gradients, momentum: float | tf.Tensor = 0.9) -> Callable:
    """Makes `f(params, momenta, stats, batch, seed, rate) -> (params, momenta, stats, metrics)`.

    `gradients` comes from `pure_gradients`; the update is Nesterov's.
    """

    def step(params, momenta, stats, batch, seed, learning_rate):
        grads, new_stats, metrics = gradients(params, stats, batch, seed)
        params, momenta = nesterov_update(params, momenta, grads, learning_rate, momentum)
        return params, momenta, new_stats, metrics

    return step


# --- training -----------------------------------------------------------------------------------------------


LARGEST_SCALE = 2.0**15
SOUND = 2000  # steps behind which the scale is doubled, as in Keras and PyTorch
OVERFLOWS = 17  # in a row that are too many: the scale has fallen from the largest to 1, and it is not enough


class _Scale:
    """The factor on a loss whose gradients are of float16 (Micikevicius et al. 2018, section 3.2).

    It is halved behind each step that is not sound, down to 1, and doubled behind `SOUND` sound ones.
    """

    def __init__(self) -> None:
        self.value = keras.Variable(LARGEST_SCALE, trainable=False, name="loss_scale")
        self.steady = keras.Variable(0, dtype="int32", trainable=False, name="sound_steps")

    def follow(self, sound: tf.Tensor) -> None:
        """Behind a step, outside of replicas."""
        steady = tf.where(sound, self.steady.value + 1, 0)
        factor = tf.where(steady == SOUND, 2.0, tf.where(sound, 1.0, 0.5))
        self.value.assign(tf.clip_by_value(self.value.value * factor, 1.0, LARGEST_SCALE))
        self.steady.assign(steady % SOUND)

    def state(self) -> list[keras.Variable]:
        return [self.value, self.steady]


class _Optimizer(keras.optimizers.Optimizer):
    """A rule of `RULES` on Keras' variables, which reduces over replicas and keeps them alike.

    Rate and momentum are variables: setting them before a step retraces nothing. So is `sound`, where steps
    may be left out: such a step leaves weights, slots and the count of steps as they are.
    """

    def __init__(self, name: str, momentum: float, skips: bool = False) -> None:
        super().__init__(learning_rate=0.0)
        self.rule = RULES.find(name)
        self.momentum = keras.Variable(momentum, trainable=False, name="momentum")
        known = {"dtype": "bool", "trainable": False, "aggregation": "only_first_replica", "name": "sound"}
        self.sound = keras.Variable(True, **known) if skips else None  # the same in all replicas
        self.slots: list[list[keras.Variable]] = []

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the slots of every weight."""
        super().build(variables)
        self.slots = [self.add_optimizer_variables(variables, slot) for slot in self.rule.slots]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Moves one weight; Keras calls it."""
        slots = [slot[self._get_variable_index(variable)] for slot in self.slots]
        step = keras.ops.cast(self.iterations + 1, "float32")
        values = tuple(slot.value for slot in slots)
        rate, momentum = (keras.ops.cast(x, variable.dtype) for x in (learning_rate, self.momentum))
        change, new = self.rule.update(values, gradient, rate, momentum, step)
        for slot, value in zip(slots, new, strict=True):
            self.assign(slot, self.if_sound(value, slot))
        self.assign_add(variable, self.if_sound(change, -0.0))  # x + −0 is x, of either zero, too

    def apply(self, grads: Tensors, trainable_variables: list[keras.Variable] | None = None) -> None:
        """A step of all weights, which is counted unless it is left out."""
        super().apply(grads, trainable_variables)
        if self.sound is not None:
            self._iterations.assign_sub(keras.ops.cast(~self.sound.value, "int"))

    def if_sound(self, value: tf.Tensor, otherwise: Any) -> tf.Tensor:
        """`value`, or what stands in its place in a step that is left out."""
        return value if self.sound is None else keras.ops.where(self.sound, value, otherwise)

    def state(self) -> list[keras.Variable]:
        """What the next step depends on. Rate and momentum are not in it: every step sets them."""
        steps = [self._iterations] if self.rule.counts else []
        return [variable for slot in self.slots for variable in slot] + steps


class Trainer:
    """Runs the step of a model under a strategy. Create the model inside `strategy.scope()`.

    Args:
        model, preprocess, objective, weight_decay, accum, adjust, terms: see `pure_gradients`.
        momentum: part of the last update that the next one keeps, in [0, 1); β₁ of Adam. Steps that bring
            their own go without it.
        optimizer: a name of `RULES`: "nesterov" and "momentum" as Keras has them, "torch_nesterov"
            and "torch_momentum" (which differ from those after a change of the rate), "adam".
        strategy: from `make_strategy`; the global batch is cut evenly over its replicas.
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
        self.replicas = self.strategy.num_replicas_in_sync
        with self.strategy.scope():
            self.optimizer = _Optimizer(optimizer, momentum, skips=skip > 0)
            self.optimizer.build(model.trainable_variables)
            self._scale = _Scale() if scaled else None
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
        size = keras.tree.flatten(stacked)[0].shape[1]
        if size % (self.replicas * self.accum):
            raise UsageError(
                f"A batch must divide evenly over {self.replicas} replicas × {self.accum} micro-batches. "
                f"Received: batch_size={size}"
            )
        if self.replicas == 1:
            return keras.tree.map_structure(tf.convert_to_tensor, stacked)
        share = size // self.replicas

        def part(context):
            first = context.replica_id_in_sync_group * share
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
        seed = tf.stack([seeds[i, 0], seeds[i, 1] * self.replicas + context.replica_id_in_sync_group])
        batch = keras.tree.map_structure(lambda value: value[i], stacked)
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


def _images(batch: Mapping[str, np.ndarray]) -> int:
    return len(keras.tree.flatten(batch)[0])


def tensors(images: Any) -> Any:
    """Arrays, or `Columns` of several, as tensors in their structure."""
    return keras.tree.map_structure(tf.convert_to_tensor, parts_of(images))


def _any_number(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


# --- evaluation ---------------------------------------------------------------------------------------------


def make_forward(
    model: keras.Model, preprocess: Callable, batch_statistics: bool = False, compile_: bool | None = None
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Makes `f(images uint8 (n, h, w, c), batch size) -> logits (n, classes)`, or several outputs.

    With `batch_statistics` BN uses those of each batch (EKG evaluates so) and the moving averages stay as
    they are. The last batch is filled with the images before it: 16 left over would have statistics of 16.
    """

    @tf.function(jit_compile=use_xla(compile_), autograph=False)
    def logits(images):
        x = preprocess(images)
        if not batch_statistics:
            return as_float32(model(x, training=False))
        own = model.trainable_variables, model.non_trainable_variables
        return as_float32(model.stateless_call(*own, x, training=True)[0])

    def forward(images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        n = len(images)
        # One trace for every number of images: hold-out and test split are of two sizes.
        spec = keras.tree.map_structure(_any_number, tensors(images[:1]))
        traced = logits.get_concrete_function(spec)
        starts, rest = range(0, n, batch_size), max(0, n - batch_size)
        parts = [np.arange(min(start, rest), min(start + batch_size, n)) for start in starts]
        rows = []
        for start, index, part in zip(starts, parts, in_parts(images, parts), strict=True):
            found = traced(tensors(part))
            rows.append(keras.tree.map_structure(lambda y, skip=start - index[0]: y.numpy()[skip:], found))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *rows)

    return forward


def reestimate_batch_norm(
    model: keras.Model, preprocess: Callable, images: np.ndarray, batch_size: int = 256
) -> bool:
    """Replaces the moving averages of BN by the mean over the batches of `images`, in place.

    Returns whether there were any that move.

    Slicing channels leaves averages behind that belong to the wide net; one forward pass estimates them
    again. Layers whose averages do not move (frozen, or with momentum 1) keep them. A remainder of a batch is
    left out.

    Args:
        model: built; its own `momentum`s may be anything.
        preprocess: a batch of `images` → what the model reads.
        images: (n, …), n > 0.
        batch_size: images whose statistics are taken together.
    """
    return make_reestimator(model, preprocess)(images, batch_size)


def make_reestimator(model: keras.Model, preprocess: Callable) -> Callable[[np.ndarray, int], bool]:
    """Makes `f(images, batch size)`, which does `reestimate_batch_norm` to the weights that there are then.

    For one network with many weights after the other: it is compiled once.
    """
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean")]
    moving = [(getattr(n, name), n.momentum) for n in layers for name in ("moving_mean", "moving_variance")]
    index = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
    calls: list[int] = []  # updates of each average in a pass, whatever the weights

    @tf.function(autograph=False)
    def averages(batch, start, still):
        stats = list(model.non_trainable_variables)
        for i, (variable, _) in enumerate(moving):
            begun = tf.fill(variable.shape, start)
            stats[index[id(variable)]] = tf.where(still[i], tf.convert_to_tensor(variable), begun)
        _, new = model.stateless_call(model.trainable_variables, stats, preprocess(batch), training=True)
        return [new[index[id(variable)]] for variable, _ in moving]

    def reestimate(images: np.ndarray, batch_size: int) -> bool:
        if not moving:
            return False
        count = max(1, len(images) // batch_size)
        size = min(len(images), count * batch_size)
        edges = np.cumsum([0, *(len(part) for part in np.array_split(range(size), count))])
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        first = tensors(images[parts[0]])
        spec = keras.tree.map_structure(_any_number, first)  # one trace for batches of all sizes
        numbers = tf.TensorSpec((), tf.float32), tf.TensorSpec((len(moving),), tf.bool)
        traced = averages.get_concrete_function(spec, *numbers)
        zero, one = tf.constant(0.0), tf.constant(1.0)
        if not calls:
            # Averages that come back as they were put in are frozen. What the others leave of their start is
            # seen only with those in place: a frozen layer at 0 or 1 changes all that is behind it.
            ends = (traced(first, start, tf.zeros(len(moving), tf.bool)) for start in (zero, one))
            stays = tf.constant([not np.any(a) and np.all(b == 1) for a, b in zip(*ends, strict=True)])
            ends = zip(traced(first, zero, stays), traced(first, one, stays), stays, moving, strict=True)
            for a, b, stay, (_, momentum) in ends:
                calls.append(0 if stay else _updates(np.median(b - a), momentum))
        still = tf.constant([n == 0 for n in calls])
        total = [np.zeros(v.shape) for v, _ in moving]
        for part in parts:
            for i, found in enumerate(traced(tensors(images[part]), zero, still)):
                total[i] += found.numpy()
        for value, n, (variable, momentum) in zip(total, calls, moving, strict=True):
            if n:  # n updates of averages that began at zero leave (1 − momentumⁿ) · statistic
                variable.assign((value / (1 - momentum**n) / count).astype("float32"))
        return any(calls)

    return reestimate


def _updates(left: float, momentum: float) -> int:
    """How often averages were updated, from what is left of their start: momentumⁿ."""
    if momentum <= 0:
        return 1
    return round(np.log(left) / np.log(momentum)) if momentum < 1 and left > 0 else 0
