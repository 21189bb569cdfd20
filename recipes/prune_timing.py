"""Milliseconds on a frozen function, with few threads, in a process that trains with all of them."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import keras

from exports.setup import Setup
from runs.quiet import start_tensorflow


@dataclass(frozen=True)
class Apart(Setup):
    """A setup whose models are timed in a process of its own.

    TensorFlow has one pool of threads for all that a process computes. What is timed on one thread is
    therefore handed, as a file, to a child that has claimed it; training here keeps every processor. The
    child waits between measurements and ends with this process.
    """

    backend: str = field(default="frozen")

    def milliseconds(self, models: Mapping[str, keras.Model], seconds: float = 1.0) -> dict[str, float]:
        """Name → milliseconds of the fastest call; all take turns for about so many seconds."""
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / f"{i}.keras") for i, name in enumerate(models)}
            for name, model in models.items():
                model.save(files[name])
            setup = (self.backend, self.threads, self.batch)
            return self._child.submit(_timed, setup, files, seconds).result()

    @cached_property
    def _child(self) -> Executor:
        # The initializer comes from a module without TensorFlow, which would speak before it is silenced.
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_tensorflow)


def setup_for(backend: str, threads: int, batch: int) -> Setup:
    """What milliseconds are measured with; `Apart` where it needs another number of threads than training."""
    return (Apart if backend == "frozen" and threads else Setup)(backend, threads, batch)


def _timed(setup: tuple[str, int, int], files: dict[str, str], seconds: float) -> dict[str, float]:
    """In the child, which claims its threads before anything is computed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the child
    own = Setup(*setup)
    own.claim_threads()
    models = {name: keras.models.load_model(file, compile=False) for name, file in files.items()}
    return own.milliseconds(models, seconds)
