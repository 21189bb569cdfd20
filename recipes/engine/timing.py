"""Milliseconds on a frozen function, with few threads, in a process that trains with all of them."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import keras

import secateur.nets.layers  # noqa: F401 - for the child, which reads our own nets from files: Keras must know them
from secateur.exports.timing import Setup
from secateur.runs.errors import UsageError, first_line
from secateur.runs.start import start_worker


@dataclass(frozen=True)
class Apart(Setup):
    """A setup whose models are timed in a process of its own.

    TensorFlow has one pool of threads for all that a process computes. What is timed on one thread is
    therefore handed, as a file, to a child that has claimed it; training here keeps every processor. The
    child waits between measurements and ends with this process, however that ends.
    """

    backend: str = field(default="frozen")

    def milliseconds(self, models: Mapping[str, keras.Model], seconds: float = 1.0) -> dict[str, float]:
        """Name → milliseconds of the fastest call; all take turns for about so many seconds.

        Raises `UsageError` for a model that the child cannot read from a file, and when the child dies.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder) / f"{i}.keras") for i, name in enumerate(models)}
            for name, model in models.items():
                model.save(files[name])
            setup = (self.backend, self.threads, self.batch)
            try:
                return self._child.submit(_timed, setup, files, seconds).result()
            except BrokenProcessPool as error:
                raise UsageError(
                    f"The process that times models has died; is there memory for it? Received: {self}\n"
                    "run it again, or give --threads 0, which needs no other process"
                ) from error

    def close(self) -> None:
        """Ends the child, if there is one: when Python ends, its pipes may be closed too early."""
        if "_child" in vars(self):
            self._child.shutdown()

    @cached_property
    def _child(self) -> Executor:
        # The initializer comes from a module without TensorFlow, which would speak before it is silenced.
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_worker)


def setup_for(backend: str, threads: int, batch: int) -> Setup:
    """What milliseconds are measured with; `Apart` where it needs another number of threads than training."""
    return (Apart if backend == "frozen" and threads else Setup)(backend, threads, batch)


def _timed(setup: tuple[str, int, int], files: dict[str, str], seconds: float) -> dict[str, float]:
    """In the child, which claims its threads before anything is computed."""
    own = Setup(*setup)
    own.claim_threads()
    return own.milliseconds({name: _load(file, own) for name, file in files.items()}, seconds)


def _load(file: str, setup: Setup) -> keras.Model:
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # whatever a layer's own code raises: it was saved a moment ago
        raise UsageError(
            f"The process that times models cannot read this one ({first_line(error)}). Received: {setup}\n"
            "give --threads 0, which needs no other process, or --backend litert"
        ) from error
