"""The one place that writes files: complete or not at all, also when the process is killed half-way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from secateur.runs.errors import RunFolderError, UsageError, disk_errors, warn
from secateur.runs.stubs import Refused

TEMP_PREFIX = ".tmp-"
MAX_BYTES = 2**31  # of a file with arrays
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}  # what file systems without fsync say


def temporary(target: Path, suffix: str = "") -> Path:
    """A name beside `target` that nothing has. Raises `RunFolderError` where there is no such folder."""
    if not os.path.isdir(target.parent):
        raise RunFolderError(
            f"the folder of a file to write does not exist. Received: path={target}\nmake the folder first"
        )
    return target.with_name(f"{TEMP_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def make_atomic(path: str | os.PathLike, make: Callable[[Path], None]) -> str:
    """Let `make` write a temporary file, then put it in the place of `path`; return its SHA-256 in hex.

    The temporary file lies in the same folder and keeps the suffix (Keras reads it). The order is write,
    fsync, rename, fsync of the folder: at any moment `path` is the old file or the new one, whole. When
    anything fails the temporary file is removed. A symbolic link is followed, not replaced.

    Raises:
        RunFolderError: the disk is full, or the folder is missing or cannot be written.
    """
    target = Path(os.path.realpath(path))
    temp = temporary(target, target.suffix)
    with disk_errors(path):
        try:
            make(temp)
            _fsync(temp)
            digest = sha256(temp)
            os.replace(temp, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        _fsync(target.parent)
    return digest


def write_atomic(path: str | os.PathLike, data: bytes | memoryview | Callable[[BinaryIO], None]) -> str:
    """Write bytes, or what a function writes to a binary file, as `make_atomic` does; return the SHA-256."""

    def make(temp: Path) -> None:
        with open(temp, "xb") as file:
            data(file) if callable(data) else file.write(data)

    return make_atomic(path, make)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        to_disk(handle)
    finally:
        os.close(handle)


def to_disk(handle: int) -> None:
    """Wait until an open file is on the disk, where the file system can say so."""
    with ignoring_missing_fsync():
        os.fsync(handle)


@contextlib.contextmanager
def ignoring_missing_fsync() -> Iterator[None]:
    """Ignores that a file system knows no fsync: it keeps files as it can."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """A file that may be foreign, and its size. Raises `Refused` for one that is not regular or too large."""
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise Refused("it is not a regular file")
        if info.st_size > MAX_BYTES:
            raise Refused(f"it has {info.st_size} bytes, more than 2 GiB")
        yield file, info.st_size


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON text; NumPy scalars and arrays become numbers and lists, paths become strings."""
    return json.dumps(value, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"not JSON. Received: {type(value).__name__}")


def write_json(path: str | os.PathLike, value: Any) -> str:
    """Write `value` as indented JSON atomically; return the SHA-256."""
    return write_atomic(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file. Raises RunFolderError when it is not JSON (`write_json` never leaves such a file)."""
    try:
        with opened(path) as (file, size):
            return json.loads(file.read(size))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(
            f"{path} is damaged: {str(error)[:80]}\nrestore it, or choose another --train_path"
        ) from None


def append_jsonl(path: str | os.PathLike, row: dict) -> None:
    """Append one JSON object as a line.

    A line that a killed process left unfinished is closed first, so that it cannot swallow this one.
    """
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        _write_all(file, start + to_json(row).encode() + b"\n")


def _write_all(file: io.FileIO, data: bytes) -> None:
    # An unbuffered write may stop short on a disk that fills up: the next call then raises ENOSPC.
    while data:
        data = data[file.write(data) :]


def read_jsonl(
    path: str | os.PathLike, is_row: Callable[[dict], bool] | None = None, quiet: bool = False
) -> list[dict]:
    """Return the rows of a JSONL file, [] when it is absent.

    Lines cut short by a kill, and those that `is_row` does not take, are left out with a warning, unless
    `quiet`.
    """
    if not os.path.exists(path):
        return []
    rows, broken = [], []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and (is_row is None or is_row(row)):
            rows.append(row)
        else:
            broken.append(number)
    if broken and not quiet:
        more = f" and {len(broken) - 1} more are" if broken[1:] else " is"
        warn(f"{path}, line {broken[0]}{more} incomplete or no row, and left out")
    return rows


def check_place(path: str | os.PathLike, suffix: str, name: str) -> None:
    """Raises `UsageError` for a file of another ending, `RunFolderError` for a place that takes none."""
    if Path(path).suffix != suffix:
        raise UsageError(f"The file needs the ending {suffix}. Received: {name}={path}")
    if os.path.isdir(path):
        raise RunFolderError(f"This is a folder; choose another file. Received: {name}={path}")
    if os.path.islink(os.path.realpath(path)):
        raise RunFolderError(f"This symbolic link leads to itself. Received: {name}={path}")
    folder = Path(path).absolute().parent
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise RunFolderError(
            f"There is no such folder, or nothing may be written there. Received: {name}={path}"
        )
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise RunFolderError(f"No file can be there ({error.strerror}). Received: {name}={path}") from error
