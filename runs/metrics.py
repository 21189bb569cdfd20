"""The numbers of a run over time: metrics.jsonl, mirrored to TensorBoard without TensorFlow."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any, Self

from secateur.runs.errors import disk_errors, warn
from secateur.runs.files import append_jsonl, ignoring_missing_fsync, read_jsonl, to_json, write_atomic

FILE = "metrics.jsonl"
LARGEST = sys.float_info.max


class MetricsLog:
    """Appends one JSON object a line to `folder`/metrics.jsonl: phase, step, time (Unix seconds), values.

    Each phase (baseline, warm-up, fine-tune) counts its own steps and is a run of its own in TensorBoard,
    under `folder`/tensorboard/.

    Args:
        folder: a `RunFolder` or a path.
        tensorboard: mirror to event files; without the package this is one warning.
    """

    def __init__(self, folder: str | os.PathLike, tensorboard: bool = True):
        self._folder = Path(folder)
        self._tensorboard = tensorboard
        self._events: dict[str, _Events] = {}
        self._told = False  # of broken lines, once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The JSONL file."""
        return self._folder / FILE

    def log(self, step: int, phase: str = "train", **values: float) -> None:
        """Append the values of a step; NaN and infinities are null in the file, for it is strict JSON."""
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        append_jsonl(self.path, {"phase": phase, "step": int(step), "time": round(time.time(), 3), **finite})
        if events := self._writer(phase):
            with disk_errors(self._folder / "tensorboard"):
                events.scalars(int(step), numbers)

    def rows(self, phase: str | None = None) -> list[dict]:
        """Return the lines logged so far, of one phase or of all; see `is_row` for what is left out."""
        rows = read_jsonl(self.path, is_row, quiet=self._told)
        self._told = True
        return [row for row in rows if phase in (None, row["phase"])]

    def truncate(self, phase: str, step: int) -> None:
        """Drop what `phase` logged after `step`, before a run goes on from there (-1 drops all of it)."""
        rows = self.rows()
        kept = [row for row in rows if row["phase"] != phase or row["step"] <= step]
        if len(kept) < len(rows):
            write_atomic(self.path, "".join(to_json(row) + "\n" for row in kept).encode())
            if events := self._writer(phase):
                events.purge(step + 1)

    def close(self) -> None:
        """Close the event files."""
        for events in self._events.values():
            events.close()
        self._events.clear()

    def _writer(self, phase: str) -> _Events | None:
        if self._tensorboard and phase not in self._events:
            try:
                import tensorboardX  # noqa: F401  (optional, and a tenth of a second)
            except ImportError:
                warn("the package tensorboardX is missing; metrics go to metrics.jsonl only")
                self._tensorboard = False
                return None
            with disk_errors(self._folder / "tensorboard"):
                self._events[phase] = _Events(self._folder / "tensorboard" / phase)
        return self._events.get(phase)


def is_row(row: dict) -> bool:
    """Whether a JSON object could be a line of `MetricsLog`: a phase, a step, and numbers or null."""
    if not isinstance(row.get("phase"), str) or type(row.get("step")) is not int:
        return False
    return all(map(_is_number, (value for name, value in row.items() if name != "phase")))


def _is_number(value: Any) -> bool:
    # No bool, which is an int; no NaN, and no integer that is too large for a float.
    return value is None or (type(value) in (int, float) and -LARGEST <= value <= LARGEST)


class _Events:
    """An event file of TensorBoard, written at once: `SummaryWriter` has a queue, which hides a full disk."""

    def __init__(self, folder: Path):
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.tfevents.*")))  # they are read in the order of their names
        self._file = EventsWriter(str(folder / "events"), f".{number:04d}")

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
        with ignoring_missing_fsync():
            self._file.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        pairs = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, summary=Summary(value=pairs))

    def purge(self, step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        # TensorBoard forgets what earlier files say from this step on.
        self._write(step, session_log=SessionLog(status=SessionLog.START))

    def close(self) -> None:
        with ignoring_missing_fsync():  # which leaves closing to the collector: all has been flushed
            self._file.close()
