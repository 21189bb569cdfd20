"""Files of a session on a GPU: the export, what goes on next time, what travels back. NumPy alone."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.gpu.images import read_mosaics

LARGEST = 15 * 2**20
"""Bytes of a file that travels back."""


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file as a whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
    partial.rename(path)


class Folder:
    """An export, and a work folder beside it that a later session goes on from."""

    def __init__(self, export: Path, work: Path) -> None:
        self.export, self.work = export, work
        contents = json.loads((export / "runs.json").read_text())
        self.runs = contents["runs"]
        self.programs, self.networks = contents["programs"], contents["networks"]
        self.teachers = contents["teachers"]
        for name in ("checkpoints", "results", "logs", "tries"):
            (work / name).mkdir(parents=True, exist_ok=True)

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Start weights, curves, labels and the images of each part."""
        with np.load(self.export / "values.npz") as file:
            return dict(file)

    def bank_file(self, name: str) -> Path:
        """Logits of teachers on all images, once they have been asked."""
        return self.work / f"{name}.npy"

    @property
    def images_file(self) -> Path:
        """All images, decoded."""
        return self.work / "images.npy"

    def decode(self, mosaics: Path) -> None:
        """Unpacks the mosaics once."""
        if not self.images_file.exists():
            images = read_mosaics(mosaics)
            if len(images) < len(self.values["labels"]):
                raise ValueError(f"{len(images)} images for {len(self.values['labels'])} labels in {mosaics}")
            np.save(self.images_file, images[: len(self.values["labels"])])

    # --- runs -----------------------------------------------------------------------------------------------

    def finished(self, name: str) -> bool:
        """Whether a run has its result."""
        return self.result_file(name).exists()

    def result_file(self, name: str) -> Path:
        """Weights of a run that is finished."""
        return self.work / "results" / f"{name}.npz"

    def checkpoint_file(self, name: str) -> Path:
        """State of a run that is not."""
        return self.work / "checkpoints" / f"{name}.npz"

    def checkpoint(self, name: str) -> dict[str, np.ndarray] | None:
        """The last state of a run; its log is cut back to it."""
        path = self.checkpoint_file(name)
        saved = dict(np.load(path)) if path.exists() else None
        done = int(saved["epoch"]) if saved else 0
        rows = [row for row in self.log(name) if row["epoch"] <= done]
        self._log_file(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return saved

    # --- tries: those of this session that have not ended in order ------------------------------------------

    def begin(self, name: str) -> None:
        """One more try; a process that dies leaves it behind."""
        with open(self._tries_file(name), "a") as file:
            file.write("x")

    def end(self, name: str) -> None:
        """The try has ended as it should."""
        self._tries_file(name).unlink()

    def tries(self, name: str) -> int:
        """How often a run has failed."""
        path = self._tries_file(name)
        return path.stat().st_size if path.exists() else 0

    def forget_tries(self) -> None:
        """A new session tries everything again."""
        for path in (self.work / "tries").iterdir():
            path.unlink()

    def _tries_file(self, name: str) -> Path:
        return self.work / "tries" / name

    # --- logs -----------------------------------------------------------------------------------------------

    def _log_file(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.jsonl"

    def log(self, name: str) -> list[dict]:
        """Rows of a run, one for each epoch."""
        path = self._log_file(name)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add_row(self, name: str, row: Mapping) -> None:
        """One more epoch of a run."""
        with open(self._log_file(name), "a") as file:
            file.write(json.dumps({"run": name, **row}) + "\n")

    def seconds_per_epoch(self, program: str) -> float | None:
        """What the latest epochs of a program took, whichever run they belong to; None if none is known."""
        rows = [self.log(run["name"])[-3:] for run in self.runs if run["program"] == program]
        seconds = [row["seconds"] for part in rows for row in part]
        return float(np.median(seconds)) if seconds else None

    def note(self, **facts) -> None:
        """A line for the notes of the session, which is printed too."""
        line = json.dumps({"time": round(time.time(), 1), **facts})
        print(line, flush=True)
        with open(self.work / "notes.jsonl", "a") as file:
            file.write(line + "\n")

    def notes(self) -> list[dict]:
        """Those of all sessions; a process that was killed may leave a part of a line."""
        found = []
        for line in (self.work / "notes.jsonl").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    # --- what travels back ----------------------------------------------------------------------------------

    def collect(self, out: Path) -> None:
        """Writes logs, notes and the weights of all runs, finished or not, as few files."""
        rows = [row for run in self.runs for row in self.log(run["name"])]
        (out / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (out / "notes.jsonl").write_bytes((self.work / "notes.jsonl").read_bytes())
        part, size, number = {}, 0, 0
        for name, arrays in self._weights():
            more = sum(array.nbytes + 300 for array in arrays.values())
            if part and size + more > LARGEST:
                write_npz(out / f"weights-{number}.npz", part)
                part, size, number = {}, 0, number + 1
            part |= {f"{name}/{key}": array for key, array in arrays.items()}
            size += more
        if part:
            write_npz(out / f"weights-{number}.npz", part)

    def _weights(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """("run@epochs", weights) of every run that has got somewhere, in the order of the list."""
        for run in self.runs:
            if self.finished(run["name"]):
                yield f"{run['name']}@{run['epochs']}", dict(np.load(self.result_file(run["name"])))
            elif self.checkpoint_file(run["name"]).exists():
                saved = dict(np.load(self.checkpoint_file(run["name"])))
                yield f"{run['name']}@{saved.pop('epoch')}", self._without_momenta(run, saved)

    def _without_momenta(self, run: Mapping, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        n = self.networks[run["network"]]["parameters"]
        kept = [state[name] for i, name in enumerate(sorted(state)) if not n <= i < 2 * n]
        return {f"{i:04d}": array for i, array in enumerate(kept)}
