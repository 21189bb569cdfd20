"""Checkpoints inside a step: numbered snapshots, of which the two latest are kept."""

from __future__ import annotations

import re
from pathlib import Path

from secateur.runs.errors import SnapshotError, first_line, warn
from secateur.runs.snapshot import Snapshot, load_snapshot, save_snapshot

KEPT = 2
ANY = "checkpoint_*.pkl", "checkpoint_*.part"  # as globs


def save(folder: Path, name: str, state: Snapshot) -> Path:
    """Write the next checkpoint of `name`, then remove all but the two latest. Return its path."""
    numbers = _numbers(folder, name)
    path = _path(folder, name, max(numbers, default=0) + 1)
    save_snapshot(path, state)
    for number in sorted(numbers)[: -KEPT + 1]:
        _path(folder, name, number).unlink(missing_ok=True)
    return path


def load(folder: Path, name: str, clean: bool = True) -> Snapshot | None:
    """Return the latest checkpoint that is sound; warn about each that is not; None when there is none.

    Those that are not are removed, unless the folder is another's: `clean=False`.
    """
    for number in sorted(_numbers(folder, name), reverse=True):
        try:
            return load_snapshot(_path(folder, name, number))
        except SnapshotError as error:
            warn(f"{first_line(error)}; the checkpoint before it is used")
            if clean:  # a damaged file must not count as one of the two that are kept
                _path(folder, name, number).unlink(missing_ok=True)
    return None


def names(folder: Path) -> list[str]:
    """Return the names that have checkpoints."""
    matches = (re.fullmatch(r"checkpoint_(.+)-\d+\.pkl", entry.name) for entry in folder.iterdir())
    return sorted({match[1] for match in matches if match})


def drop(folder: Path, name: str) -> None:
    """Remove all checkpoints of `name`, and the file that it was writing."""
    for number in _numbers(folder, name):
        _path(folder, name, number).unlink(missing_ok=True)
    part(folder, name).unlink(missing_ok=True)


def part(folder: Path, name: str) -> Path:
    """Return the path of a file that a step writes piece by piece, noted in its checkpoints."""
    return folder / f"checkpoint_{name}.part"


def _path(folder: Path, name: str, number: int) -> Path:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"a checkpoint's name has letters, digits, '.', '_' and '-'. Received: {name!r}")
    return folder / f"checkpoint_{name}-{number:06d}.pkl"


def _numbers(folder: Path, name: str) -> list[int]:
    pattern = re.compile(rf"checkpoint_{re.escape(name)}-(\d+)\.pkl")
    matches = (pattern.fullmatch(entry.name) for entry in folder.iterdir())
    return [int(match[1]) for match in matches if match]
