"""The run folder: one run at a time, one configuration, and a manifest of the steps that are complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from secateur.runs import checkpoints, metrics
from secateur.runs.errors import RunFolderError, warn
from secateur.runs.files import (
    TEMP_PREFIX,
    append_jsonl,
    make_atomic,
    read_json,
    sha256,
    to_json,
    write_atomic,
    write_json,
)
from secateur.runs.parts import PartFile, part_file
from secateur.runs.snapshot import Snapshot

CONFIG, MANIFEST, LOCK, MARKER = "config.json", "manifest.json", ".lock", ".lock-marker"
_LOCKLESS = {errno.ENOSYS, errno.ENOTSUP}  # what file systems without locks say; ENOLCK may pass
RESUMED = (*checkpoints.ANY, metrics.FILE)  # what a run goes on from when it finds it


class RunFolder:
    """What a run leaves behind, as a context manager that holds the folder's lock.

    A step's file is complete when it is in the manifest with its SHA-256; a run that was killed starts
    again with the first step that is not `done`.

    Args:
        path: the folder; made when absent.
        config: the options of the run, as JSON. A folder belongs to the configuration that made it.
        volatile: keys of `config` that do not change results and may differ the next time.
        defaults: values of keys that the folder of an earlier version lacks: it was run as with these.

    Raises:
        RunFolderError: on entering, when the folder is unwritable, busy, or holds another run or its remains.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        config: dict[str, Any],
        volatile: Iterable[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        self._config, self._defaults = (json.loads(to_json(values)) for values in (config, defaults or {}))
        self._volatile = frozenset(volatile)
        self._lock: BaseFileLock | None = None
        self._manifest: dict[str, Any] = {"steps": {}, "found": []}

    def __fspath__(self) -> str:
        return os.fspath(self._path)

    def __enter__(self) -> Self:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._path)
        except OSError as error:
            raise RunFolderError(
                f"{self._path} cannot be a run folder ({_reason(self._path, error)})\n"
                "free space, change permissions or choose another --train_path"
            ) from error
        try:
            self._clean()
            self._claim()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    # --- files -----------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder. `name` is a plain file name."""
        if not name or name in (".", "..") or Path(name).name != name:
            raise ValueError(f"a plain file name is needed. Received: {name!r}")
        return self._path / name

    def write(self, name: str, data: bytes | Callable[[BinaryIO], None]) -> str:
        """Write a file of the run atomically, unless it has these bytes; return its SHA-256.

        A run that is complete must need no space when it is repeated.
        """
        path = self._ours(name)
        if isinstance(data, bytes) and path.is_file() and path.read_bytes() == data:
            return hashlib.sha256(data).hexdigest()
        return write_atomic(path, data)

    def write_json(self, name: str, value: Any) -> str:
        """Write a file of the run as indented JSON, as `write` does; return its SHA-256."""
        return self.write(name, (to_json(value, indent=2) + "\n").encode())

    def append(self, name: str, row: dict) -> None:
        """Append a line to a JSONL file of the run."""
        append_jsonl(self.path(name), row)

    def _ours(self, name: str) -> Path:
        if name in self._manifest["found"]:
            raise RunFolderError(
                f"{self.path(name)} was there before this run and is not overwritten\n"
                "move it away or choose another --train_path"
            )
        return self.path(name)

    # --- steps -----------------------------------------------------------------------------------------

    def done(self, step: str) -> bool:
        """Whether `step` is recorded and its file is there, bit for bit. A damaged file warns: redo it."""
        entry = self.entry(step)
        if entry is None:
            return False
        file = self.path(entry["file"])
        if not file.is_file():
            warn(f"{file} of step {step} is gone; the step is done again")
        elif sha256(file) != entry["sha256"]:
            warn(f"{file} of step {step} was damaged or changed; the step is done again")
        else:
            return True
        return False

    def record(self, step: str, file: str, seconds: float, facts: dict | None = None) -> None:
        """Note that `step` is complete and that `file`, already written, is its result."""
        entry = {
            "file": file,
            "sha256": sha256(self.path(file)),
            "seconds": round(seconds, 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "facts": facts or {},
        }
        steps = {**self._manifest["steps"], step: entry}
        write_json(self._path / MANIFEST, {**self._manifest, "steps": steps})
        self._manifest["steps"] = steps

    def steps(self) -> list[str]:
        """Return the names of the steps that the manifest has, in the order in which they were done."""
        return list(self._manifest["steps"])

    def begun(self) -> list[str]:
        """Return the names of the steps that have checkpoints: they were under way when a run ended."""
        return checkpoints.names(self._path)

    def entry(self, step: str) -> dict | None:
        """Return what the manifest says of `step` (file, sha256, seconds, time, facts), or None."""
        return self._manifest["steps"].get(step)

    def step(self, step: str, file: str, make: Callable[[Path], dict | None]) -> Path:
        """Return the file of `step`, made first by `make(temporary path) -> facts` unless it is done."""
        if not self.done(step):
            start, facts = time.monotonic(), {}
            make_atomic(self._ours(file), lambda temp: facts.update(make(temp) or {}))
            self.record(step, file, time.monotonic() - start, facts)
        return self.path(file)

    def forget(self, steps: Iterable[str]) -> None:
        """Make `steps` undone: checkpoints and entries go, files stay until they are made again."""
        names = set(steps)
        for name in names:
            self.drop_checkpoints(name)
        kept = {step: entry for step, entry in self._manifest["steps"].items() if step not in names}
        write_json(self._path / MANIFEST, {**self._manifest, "steps": kept})
        self._manifest["steps"] = kept

    # --- checkpoints inside a step -----------------------------------------------------------------------

    def save_checkpoint(self, name: str, arrays: dict[str, np.ndarray], facts: dict) -> None:
        """Keep the state of an unfinished step; the one before stays as a reserve."""
        checkpoints.save(self._path, name, Snapshot(arrays, facts=facts))

    def load_checkpoint(self, name: str) -> Snapshot | None:
        """Return the latest sound checkpoint (arrays and facts), or None."""
        return checkpoints.load(self._path, name)

    @contextlib.contextmanager
    def part_file(self, name: str, path: Path) -> Iterator[PartFile]:
        """Write the file `path` of step `name` piece by piece, from where a killed run was."""
        saved, part = self.load_checkpoint(name), checkpoints.part(self._path, name)
        with part_file(part, saved and saved.facts, partial(self.save_checkpoint, name, {})) as file:
            yield file
        os.replace(part, path)

    def drop_checkpoints(self, name: str) -> None:
        """Remove the checkpoints of a step that is complete, and what else it has begun."""
        checkpoints.drop(self._path, name)

    # --- entering and leaving ------------------------------------------------------------------------------

    def _clean(self) -> None:
        # The lock is ours: whatever a killed run was writing will never be finished.
        for temp in self._path.glob(f"{TEMP_PREFIX}*"):
            if temp.is_file():
                temp.unlink()

    def _claim(self) -> None:
        if not (self._path / CONFIG).exists():
            self._refuse_leftovers()
            own = {CONFIG, MANIFEST, LOCK, MARKER}
            self._manifest["found"] = sorted({entry.name for entry in self._path.iterdir()} - own)
            write_json(self._path / MANIFEST, self._manifest)
            write_json(self._path / CONFIG, self._config)  # last: its presence says that the folder is ours
            return
        self._compare(read_json(self._path / CONFIG))
        if (self._path / MANIFEST).exists():
            self._manifest = _checked_manifest(self._path / MANIFEST)

    def _refuse_leftovers(self) -> None:
        # Without config.json nobody knows which options they are of: a new run must not go on from them.
        for pattern in RESUMED:
            for file in sorted(self._path.glob(pattern)):
                raise RunFolderError(
                    f"a run whose {CONFIG} is gone left this file. Received: {file}\n"
                    "move it away or choose another --train_path"
                )

    def _compare(self, stored: Any) -> None:
        stored = stored if isinstance(stored, dict) else {}
        for key in [*self._config, *(key for key in stored if key not in self._config)]:
            old = stored.get(key, self._defaults.get(key, "(absent)"))
            new = self._config.get(key, "(absent)")
            unknown = old == "(absent)" and new is None  # an option that came later, and that nobody gave
            if key not in self._volatile and old != new and not unknown:
                if isinstance(old, dict) and isinstance(new, dict):
                    differ = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
                    old, new = ({k: _short(v) for k, v in one.items() if k in differ} for one in (old, new))
                raise RunFolderError(
                    f"{self._path} holds another run: {key}={old!r} there. "
                    f"Received: {key}={new!r}\n"
                    "choose another --train_path or the same options"
                )

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def _short(value: Any) -> Any:
    """What messages show of a value: of a SHA-256 the beginning."""
    return f"{value[:8]}…" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value


def _reason(path: Path, error: OSError) -> str:
    """Why there can be no folder: the system says "File exists" of a link that leads nowhere, too."""
    if error.errno != errno.EEXIST:
        return str(error.strerror)
    return "it is a symbolic link to nothing, or to itself" if path.is_symlink() else "it is a file"


def damaged(path: str | os.PathLike, reason: str = "") -> RunFolderError:
    """What is said of a file of the folder that a run has not left as it is."""
    what = f": {reason}" if reason else ""
    return RunFolderError(f"{os.fspath(path)} is damaged{what}\nrestore it, or choose another --train_path")


def _checked_manifest(path: Path) -> dict:
    manifest = read_json(path)
    try:
        for step, entry in manifest["steps"].items():
            if not (
                re.fullmatch("[0-9a-f]{64}", entry["sha256"])
                and Path(entry["file"]).name == entry["file"]
                and isinstance(entry["facts"], dict)
                and math.isfinite(entry["seconds"])
            ):
                raise damaged(path, f"its step {step[:60]!r}")
        return {"steps": manifest["steps"], "found": [str(name) for name in manifest["found"]]}
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(path) from error


def _locked(folder: Path) -> BaseFileLock:
    """Holds the lock for as long as the process lives (the kernel frees it, also after kill -9).

    On a file system without locks it is a marker with the process on top. Of a process that is known to be
    dead it is taken over, if the file system can exchange two names.
    """
    path, own, remedy = folder / LOCK, str(os.getpid()), "choose another --train_path"
    lock: BaseFileLock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise
            path, remedy = folder / MARKER, f"remove {folder / MARKER} if that process has"
            lock = SoftFileLock(path, blocking=False)
            lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"{folder} is busy: process {' of '.join(_owner(path))} is using it\n"
            f"wait for it to end, or {remedy}"
        ) from None
    if _owner(path)[0] != own:
        with contextlib.suppress(OSError):  # a full disk; the name is there for messages alone
            path.write_text(own)
    return lock


def _owner(path: Path) -> list[str]:
    """The process that a lock names; a marker names its machine, too. It may have gone by now."""
    with contextlib.suppress(FileNotFoundError):
        words = path.read_text().split()[:2]
        return [word.partition("?")[0] for word in words] or ["unknown"]  # behind it: where its number counts
    return ["unknown"]
