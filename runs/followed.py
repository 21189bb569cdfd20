"""A run folder as a follower sees it, a worker beside the one that writes: it reads, and writes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from secateur.runs import checkpoints
from secateur.runs.errors import RunFolderError
from secateur.runs.folder import CONFIG, RunFolder
from secateur.runs.metrics import MetricsLog
from secateur.runs.snapshot import Snapshot


class FollowedFolder(RunFolder):
    """The folder that the chief of several workers holds; arguments are those of `RunFolder`."""

    def __enter__(self) -> Self:
        return self

    def read(self) -> None:
        """Takes in what the chief has recorded.

        Raises `RunFolderError` where its files are not here, or belong to other options than this worker's.
        """
        if not self.path(CONFIG).exists():
            raise RunFolderError(
                "the files of the first worker are not here: all workers need one folder, on a disk that "
                f"they share. Received: train_path={self._path}"
            )
        self._claim()

    def discard(self, file: str, make: Callable[[Path], Any]) -> None:
        """Makes what the chief makes, and keeps nothing of it."""
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / file)

    def write(self, name: str, data: bytes | Callable[[BinaryIO], None]) -> str:
        return ""

    def append(self, name: str, row: dict) -> None:
        return None

    def save_checkpoint(self, name: str, arrays: dict[str, np.ndarray], facts: dict) -> None:
        return None

    def load_checkpoint(self, name: str) -> Snapshot | None:
        return checkpoints.load(self._path, name, clean=False)

    def drop_checkpoints(self, name: str) -> None:
        return None

    def forget(self, steps: Iterable[str]) -> None:
        return None


class FollowedLog(MetricsLog):
    """The log that the chief writes."""

    def log(self, step: int, phase: str = "train", **values: float) -> None:
        return None

    def truncate(self, phase: str, step: int) -> None:
        return None
