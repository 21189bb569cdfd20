"""What computes: GPUs, a TPU, workers or the CPU; and whether XLA compiles for it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from secateur.compute.workers import LOST, places_of, waited
from secateur.runs.errors import UsageError, first_line, warn
from secateur.runs.peers import gone, meet, take_sigterm_back


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
            'TF_CONFIG must have a job "worker", perhaps "chief", and the task that this process is. '
            f"Received: jobs={sorted(jobs)}, task={place[0]} {place[1]}"
        )
    places, own = places_of(resolver)
    print(f"worker {own + 1} of {count}, {places[own]}", flush=True)
    meet(places[own], [*places[:own], *places[own + 1 :]])
    try:
        strategy = waited(lambda: tf.distribute.MultiWorkerMirroredStrategy(resolver))
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


def accelerated() -> bool:
    """Whether there is a GPU or a TPU."""
    return bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


def use_xla(compile_: bool | None = None) -> bool:
    """`--compile`, or by device: XLA wins on GPU and TPU and loses to oneDNN 3 to 4 times on the CPU."""
    return accelerated() if compile_ is None else compile_


def steps_per_call() -> int:
    """How many steps one call runs: a call costs about a millisecond, which only accelerators notice."""
    return 20 if accelerated() else 1
