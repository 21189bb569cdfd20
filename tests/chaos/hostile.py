"""Mutated and crafted files of every kind that is read: they load or are refused, and nothing else happens.

Coverage guides: a file that reaches lines of the project which none before it has reached is mutated further,
and kept in `corpus/`, from which the next attack begins.

This file is run as a program of its own, in a process that was forked: `hostile.py KIND COUNT SEED`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from secateur.runs import SecateurError
from tests.chaos.bench import Bench
from tests.chaos.child import is_change
from tests.chaos.kinds import KINDS, Kind
from tests.helpers.forked import REPO

SECONDS = 20  # of processor time that a file may take
MEGABYTES = 600  # by which the process may grow over all files of a kind
RUNS = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen"),
)
"""Events of auditing that no file may cause."""
CORPUS = Path(__file__).with_name("corpus")
SMALL = 2000  # bytes of a file that is kept
FOREIGN = tuple(f"{REPO}{os.sep}{name}{os.sep}" for name in (".venv", "tests"))


def attack(bench: Bench, kind: str, count: int, keep: bool = False) -> Iterator[str]:
    """Reads mutations of a kind of file, and what is crafted, in a process of their own; what broke, each.

    With `keep` the corpus is replaced by what has reached new lines in this attack.
    """
    work = bench.root / "files"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "temporary").mkdir()
    environment = {"TMPDIR": str(work / "temporary"), "HOME": str(work)}
    done = bench.programs.run(
        __file__, kind, count, bench.rng.randrange(2**31), cwd=work, environment=environment
    )
    ends = [json.loads(line) for line in (work / "ends.jsonl").read_text().splitlines()]
    yield from ends
    if done.code:
        yield f"the process ended with {done.code}: {done.err[-300:]}"
    found = [path.read_bytes() for path in sorted((work / "kept").iterdir())]
    if keep and found and not done.code:
        CORPUS.mkdir(exist_ok=True)
        with zipfile.ZipFile(_kept_in(kind), "w", zipfile.ZIP_DEFLATED) as archive:
            for number, data in enumerate(found):
                archive.writestr(zipfile.ZipInfo(f"{number:04}"), data, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Writes a line for each try."""
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tempfile.tempdir = os.environ["TMPDIR"]
    kind, rng = KINDS[name], np.random.default_rng(seed)
    sound = Path(f"sound{kind.suffix}").absolute()
    kind.make(sound)
    data, path = sound.read_bytes(), Path(f"evil{kind.suffix}").absolute()
    with contextlib.suppress(SecateurError):  # of the oldest protocols, which are refused
        kind.read(sound)
    happened = _watched(Path.cwd())
    signal.signal(signal.SIGPROF, _too_long)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = [*kind.crafted(data), data]
    given = [*made, *corpus(name)]
    pool, lines = [data], Lines()
    Path("kept").mkdir()
    with open("ends.jsonl", "w") as ends:
        for number in range(len(given) + max(1, count // kind.every)):
            changed = (
                given[number] if number < len(given) else kind.mutate(pool[rng.integers(len(pool))], rng)
            )
            path.write_bytes(changed)
            happened.clear()
            with lines:
                end = _end(kind, path)
            end = end or ", ".join(happened)
            if lines.new and len(changed) <= max(SMALL, len(data)):
                pool.append(changed)
                if len(made) <= number and len(changed) <= SMALL:
                    Path("kept", f"{number:06}").write_bytes(changed)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            if grown > MEGABYTES:
                end, before = end or f"grew by {grown} MB", before + 1024 * grown
            if end:
                shutil.copy(path, f"broken{number}{kind.suffix}")
            ends.write(json.dumps(end and f"{number}: {end}") + "\n")
            ends.flush()


def corpus(kind: str) -> list[bytes]:
    """Files that earlier attacks have kept."""
    if not (path := _kept_in(kind)).exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _kept_in(kind: str) -> Path:
    return CORPUS / f"{kind.replace(', ', '_').replace(' ', '_')}.zip"


class Lines:
    """Lines of the project that run while it is entered; `new`: whether the last time brought any."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, int]] = set()
        self.new, self._before = False, 0

    def __enter__(self) -> None:
        self._before = len(self._seen)
        sys.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.new = len(self._seen) > self._before

    def _called(self, frame: FrameType, event: str, value: Any) -> Any:
        file = frame.f_code.co_filename
        return self._ran if file.startswith(f"{REPO}{os.sep}") and not file.startswith(FOREIGN) else None

    def _ran(self, frame: FrameType, event: str, value: Any) -> Any:
        self._seen.add((frame.f_code, frame.f_lineno))
        return self._ran


def _end(kind: Kind, path: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    used, hard = time.process_time(), resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 3 * SECONDS, hard))  # native code hears no timer
    try:
        kind.read(path)
    except SecateurError as error:
        return "" if len(str(error).splitlines()) <= 2 else f"{len(str(error).splitlines())} lines"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _watched(folder: Path) -> list[str]:
    """Becomes a list of what files cause that none may: programs, connections, changes outside the folder."""
    happened: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in RUNS:
            happened.append(f"{event} {str(arguments)[:100]}")
        elif is_change(event, arguments) and not isinstance(arguments[0], int):
            place = os.path.abspath(os.fsdecode(arguments[0]))
            if not place.startswith((f"{folder}{os.sep}", os.devnull)):
                happened.append(f"{event} {place}")

    sys.addaudithook(hook)
    return happened


if __name__ == "__main__":
    main()
