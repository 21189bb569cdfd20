"""Milliseconds of a call: which model, on which program, with how many threads and images."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from secateur.exports.frozen import frozen_runner
from secateur.exports.litert import litert_runner, to_litert
from secateur.exports.signature import sample_inputs
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require


def least(calls: Mapping[str, Callable[[], object]], budget: float = 1.0) -> dict[str, float]:
    """Name → milliseconds of the fastest call; the calls take turns for about `budget` seconds, at least 5.

    What other programs of the machine add to a call is no property of it: the fastest is the least disturbed,
    and taking turns lets a slow minute hit all of them.
    """
    for call in calls.values():
        call()
    found = {name: [seconds(call)] for name, call in calls.items()}
    turns = int(np.clip(budget / max(sum(t for [t] in found.values()), 1e-9), 5, 200))
    for _ in range(turns - 1):
        for name, call in calls.items():
            found[name].append(seconds(call))
    return {name: 1e3 * min(times) for name, times in found.items()}


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processor() -> str:
    """Name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


BACKENDS = ("litert", "frozen")


@dataclass(frozen=True)
class Setup:
    """What milliseconds are measured with.

    Attributes:
        backend: "litert", or "frozen" for a TensorFlow function whose weights are constants.
        threads: processor threads of one call; 0 is the program's own choice.
        batch: images per call.
    """

    backend: str = "litert"
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        require(self.backend, BACKENDS, "backend")
        for name, least_ in (("threads", 0), ("batch", 1)):
            if getattr(self, name) < least_:
                raise UsageError(f"{name} must be at least {least_}. Received: {name}={getattr(self, name)}")

    def caller(self, model: keras.Model) -> Callable[[], object]:
        """One call of the model on made-up inputs."""
        inputs = sample_inputs(model, self.batch)
        if self.backend == "litert":
            run = litert_runner(to_litert(model), self.batch, self.threads or None)
        else:
            self.claim_threads()
            run = frozen_runner(model, self.batch)
        return lambda: run(*inputs)

    def milliseconds(self, models: Mapping[str, keras.Model], seconds: float = 1.0) -> dict[str, float]:
        """Name → milliseconds of the fastest call; all take turns for about so many seconds."""
        return least({name: self.caller(model) for name, model in models.items()}, seconds)

    def close(self) -> None:
        """Ends what it has started: nothing, where models run in this process."""

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.threads else "any threads"
        return f"{self.backend}, {threads}, batch {self.batch}"

    def claim_threads(self) -> None:
        """Tells TensorFlow its number of threads, which it takes only until it has computed something.

        Raises `UsageError` when it is too late.
        """
        threading = tf.config.threading
        own = threading.get_intra_op_parallelism_threads()
        if self.backend != "frozen" or self.threads in (0, own):
            return
        try:
            threading.set_intra_op_parallelism_threads(self.threads)
        except RuntimeError as error:
            raise UsageError(
                "TensorFlow is running already and keeps its number of threads. Received: "
                f"threads={self.threads}\nsay it before anything is computed, or threads=0"
            ) from error
