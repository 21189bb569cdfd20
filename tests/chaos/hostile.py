"""Mutated and crafted files of every kind that is read: they load or are refused, and nothing else happens.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from secateur.runs import SecateurError
from tests.chaos.bench import Bench
from tests.chaos.child import is_change
from tests.chaos.kinds import KINDS, Kind

SECONDS = 20  # of processor time that a file may take
MEGABYTES = 600  # by which the process may grow over all files of a kind
RUNS = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen"),
)
"""Events of auditing that no file may cause."""


def attack(bench: Bench, kind: str, count: int) -> Iterator[str]:
    """Reads mutations of a kind of file, and what is crafted, in a process of their own; what broke, each."""
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
    tried = [*kind.crafted(data), *(kind.mutate(data, rng) for _ in range(max(1, count // kind.every)))]
    with open("ends.jsonl", "w") as ends:
        for number, changed in enumerate(tried):
            path.write_bytes(changed)
            happened.clear()
            end = _end(kind, path) or ", ".join(happened)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            if grown > MEGABYTES:
                end, before = end or f"grew by {grown} MB", before + 1024 * grown
            if end:
                shutil.copy(path, f"broken{number}{kind.suffix}")
            ends.write(json.dumps(end and f"{number}: {end}") + "\n")
            ends.flush()


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
