"""The processes that share a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import tensorflow as tf

from secateur.runs.errors import UsageError
from secateur.runs.peers import gone, watched

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
            self._places, self.index = places_of(strategy.cluster_resolver)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._places)

    @property
    def follows(self) -> bool:
        """Whether this process is not the chief."""
        return self.index > 0

    def rows(self, size: int) -> slice:
        """Those of a batch of `size` that this process's devices share.

        Raises `UsageError` where it cannot be divided.
        """
        if size % self.count:
            raise UsageError(
                f"A batch must divide evenly over {self.count} workers. Received: batch_size={size}"
            )
        share = size // self.count
        return slice(self.index * share, (self.index + 1) * share)

    @property
    def devices(self) -> Sequence[str | None]:
        """Those of this process that work side by side; None is the one that TensorFlow takes by itself."""
        one = isinstance(self._strategy, tf.distribute.OneDeviceStrategy)  # of which threads know nothing
        several = self._strategy.num_replicas_in_sync > self.count
        return self._strategy.extended.worker_devices if one or several else (None,)

    def spread(self, call: Callable[[Any], Any], items: Sequence, threads: int = 1) -> list:
        """What `call` makes of each item, in order: the devices of this process take them in turn.

        `threads` are at work even on one device.
        """
        devices = self.devices

        def on_device(number: int) -> Any:
            device = devices[number % len(devices)]
            with tf.device(device) if device else contextlib.nullcontext():
                return call(items[number])

        if len(devices) == threads == 1:
            return [on_device(number) for number in range(len(items))]
        with ThreadPoolExecutor(max(threads, len(devices))) as pool:
            return list(pool.map(on_device, range(len(items))))

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

        return waited(total)

    def chiefs(self, array: np.ndarray) -> np.ndarray:
        """The chief's array, float64, on all workers: each waits here for the others."""
        return self.summed(np.zeros_like(array) if self.follows else array)

    def agreed(self, value: float = 0.0) -> float:
        """The same of one number."""
        return float(self.chiefs(np.array(value, np.float64)))


def places_of(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> tuple[list[str], int]:
    """All workers as "host:port", the chief first, and which one this process is."""
    jobs = resolver.cluster_spec().as_dict()
    before = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return [*jobs.get("chief", ()), *jobs.get("worker", ())], before + resolver.task_id


def waited(call: Callable[[], Any]) -> Any:
    """What a call returns that waits for others in C++; signals are heard here in the meantime."""
    return ThreadPool(1).apply_async(call).get()
