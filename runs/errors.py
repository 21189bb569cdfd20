"""Errors that a user can cause, their exit codes, and the wrapper that prints them without a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODES: dict[int, str] = {
    0: "finished",
    1: "a defect of the program (the traceback says where)",
    2: "a flag or value that cannot be used",
    3: "the data set is missing, unreadable or too small",
    4: "a snapshot or model file is missing, damaged, foreign or does not fit the network",
    5: "the run folder is unwritable, busy, full or holds another run",
    6: "training diverged (the loss is not finite)",
    7: "the memory of the machine or of its accelerator ran out",
    8: "another worker of the run has gone; the same command on all workers continues the run",
    129: "the terminal was closed (SIGHUP); the same command continues the run",
    130: "interrupted (Ctrl-C); the same command continues the run",
    141: "the reader of the output went away",
    143: "terminated (SIGTERM); the same command continues the run",
}

LOG_SECONDS = "10"  # between two states of a progress bar where it cannot be drawn over
INTERRUPTED = "interrupted: run the same command again to continue"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OUT_OF_MEMORY = {"MemoryError", "ResourceExhaustedError"}  # the latter is TensorFlow's, not imported here
_ALLOCATION_FAILED = re.compile(
    "MemoryError|Cannot allocate memory|[Ff]ailed to allocate|Resource temporarily unavailable"
)
"""In the text of an exception of `_WRAPPING` that has another in it; the last is said of threads."""
_WRAPPING = {"OpError", "RuntimeError", "ConverterError"}
_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
}


class SecateurError(Exception):
    """Something that the user can put right. `exit_code` is a key of `EXIT_CODES`.

    The message is one or two lines that name the value received and the remedy.
    """

    exit_code = 1


class UsageError(SecateurError):
    """A flag, name or value that cannot be used."""

    exit_code = 2


class DataError(SecateurError):
    """The data set is missing, unreadable, or smaller than what was asked of it."""

    exit_code = 3


class SnapshotError(SecateurError):
    """A snapshot that is missing, truncated, foreign or mutated, or whose widths do not fit."""

    exit_code = 4


class RunFolderError(SecateurError):
    """A run folder that is unwritable, busy, full, or holds another run."""

    exit_code = 5


class TrainingError(SecateurError):
    """The loss is NaN or infinite."""

    exit_code = 6


class OutOfMemoryError(SecateurError):
    """The memory of the machine or of its accelerator ran out."""

    exit_code = 7


class WorkerError(SecateurError):
    """Another worker of the same run has gone."""

    exit_code = 8


class Stopped(BaseException):  # no `Exception`: like Ctrl-C it must pass everything that handles errors
    """SIGTERM or SIGHUP; `args` has the number. The stack is unwound, so that no temporary file stays."""


def warn(message: str) -> None:
    """Print one `warning:` line on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def first_line(error: BaseException | str) -> str:
    """The first line of an exception, 240 characters of it at most; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:240]


def reason_of_keras(error: BaseException) -> str:
    """The first line of what a layer's call raises, without Keras' own words around it and its bold type."""
    text = re.sub(r"\x1b\[\d*m|^Exception encountered[^\n]*\n", "", str(error))
    return first_line(
        re.sub(r"(?s)^\s*Could not automatically infer.*?Error encountered:", "", text) or error
    )


def disk_error(error: OSError, path: object = None) -> RunFolderError | None:
    """Return what the user should read about a failed write, or None when `error` is of another kind."""
    place = path or error.filename or "output"
    if error.errno in _FULL:
        return RunFolderError(
            f"disk full ({error.strerror}). Received: path={place}\n"
            "free space and run the same command again; nothing already written is lost"
        )
    if error.errno in _UNWRITABLE:
        return RunFolderError(
            f"a file cannot be written ({error.strerror}). Received: path={place}\n"
            "choose another place or change its permissions"
        )
    return None


@contextlib.contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn the `OSError`s of writing `path` into `RunFolderError`; others pass."""
    try:
        yield
    except OSError as error:
        known = disk_error(error, path)
        if known is None:
            raise
        raise known from error


def cli(main: Callable[[], int | None], interrupted: str = INTERRUPTED) -> int:
    """Run `main` for a shell: print what the user can put right, return the exit code of `EXIT_CODES`.

    Args:
        main: the program; returns its exit code, None for 0.
        interrupted: what to print after Ctrl-C, one line.

    `sys.exit(cli(main))` is the last line of every program. Unexpected exceptions pass, with their
    traceback; so does the `SystemExit` of argparse (code 2). SIGTERM and SIGHUP unwind as Ctrl-C does,
    unless the parent has them ignored.
    """
    _replace_closed_streams()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", LOG_SECONDS)
    try:
        with _unwound_by(signal.SIGTERM, signal.SIGHUP):
            code = main() or 0
            sys.stdout.flush()
            return code
    except SecateurError as error:
        return _report(error)
    except KeyboardInterrupt:
        _say(interrupted)
        return 130
    except Stopped as stopped:
        _say(interrupted)
        return 128 + stopped.args[0]
    except BrokenPipeError:
        _silence_stdout()
        return 141
    except Exception as error:
        # Another exception that got this far is our own defect and keeps its traceback.
        if known := out_of_memory(error):
            return _report(known)
        if not isinstance(error, OSError) or error.errno not in _FULL:
            raise
        _silence_stdout()
        return _report(disk_error(error))


def out_of_memory(error: Exception) -> OutOfMemoryError | None:
    """What the user should read where an allocation failed, Python's, NumPy's or TensorFlow's; else None."""
    names = {kind.__name__ for kind in type(error).__mro__}
    wrapped = names & _WRAPPING and _ALLOCATION_FAILED.search(str(error))
    if not (names & _OUT_OF_MEMORY or wrapped or getattr(error, "errno", None) == errno.ENOMEM):
        return None
    return OutOfMemoryError(
        f"the memory ran out ({first_line(error)[:120]})\n"
        "lower --batch_size or --val_batch_size (train also has --auto_accum and --train_images), take fewer "
        "or smaller images, or close other programs"
    )


class Held:
    """Signals that wait while something is `unsaved`; true where one does."""

    def __init__(self) -> None:
        self.unsaved = False
        self._waiting: int | None = None
        self._before: dict[int, Callable] = {}

    def __bool__(self) -> bool:
        return self._waiting is not None

    def obey(self) -> None:
        """Do what the signal that waits would have done: raise."""
        number, self._waiting = self._waiting, None
        self._before[number](number, None)

    def _hear(self, number: int, frame: Any) -> None:
        if self.unsaved and not self:
            self._waiting = number
        else:  # the second one, too
            self._waiting = None
            self._before[number](number, frame)


@contextlib.contextmanager
def held_signals(active: bool = True) -> Iterator[Held]:
    """What SIGTERM, SIGHUP and Ctrl-C raise in the block comes when the block asks for it, or ends.

    See `Held`. Signals that raise nothing stay as they are, and all do where it is not `active`.
    """
    held = Held()
    free = active and threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) if free}
    held._before = {one: handler for one, handler in before.items() if callable(handler)}
    for one in held._before:
        signal.signal(one, held._hear)
    try:
        yield held
    finally:
        for one, handler in held._before.items():
            signal.signal(one, handler)
        if held:  # another exception must not make it forgotten
            held.obey()


@contextlib.contextmanager
def _unwound_by(*signals: signal.Signals) -> Iterator[None]:
    """Signals that would end the process at once raise `Stopped` inside of the block."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    free = threading.current_thread() is threading.main_thread()  # Python allows no other to set handlers
    taken = [one for one in signals if free and signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)


def _replace_closed_streams() -> None:
    """A standard stream that the parent has closed leads nowhere from here on.

    Left closed its number goes to the next file that is opened, and what native code prints goes into that.
    Characters that a stream cannot encode are escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))
        if number and getattr(getattr(sys, name), "errors", "") == "strict":
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _report(error: SecateurError) -> int:
    _say(f"error: {error}")
    return error.exit_code


def _silence_stdout() -> None:
    # Python flushes stdout once more on exit; what cannot be written must not fail a second time.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
