"""A program of the project under a fault: `child.py FAULT.json PROGRAM WORDS …`, in a forked process.

Keys of the fault, all optional:

    kill     [n, seconds]: SIGKILL so long after the n-th change of a file in the current folder
    memory   bytes that the process may take beyond what it has
    clock    seconds by which the time of day may jump, back and forth, each time it is asked
    user     number of a user without rights
    without_locks     true: the file system knows neither fsync nor locks
    crowd    so many processes do the same at once; their ends are written to crowd.json
    changes  file that the number of changes is written to
    report   false: the run ends behind its last step
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def is_change(event: str, arguments: tuple) -> bool:
    """Whether an event of auditing is a change of a file, which begins now."""
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def watch(folder: Path, changed: Callable[[int], None]) -> None:
    """Calls `changed` with 1, 2, … before every change of a file in the folder."""
    count, inside = 0, f"{folder}{os.sep}"

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if is_change(event, arguments) and not isinstance(arguments[0], int):
            if os.path.abspath(os.fsdecode(arguments[0])).startswith(inside):
                count += 1
                changed(count)

    sys.addaudithook(hook)


def kill(at: int, seconds: float) -> None:
    """Kills this process so long after that change."""

    def changed(count: int) -> None:
        if count == at:
            end = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
            end.daemon = True
            end.start()

    watch(Path.cwd(), changed)


def cap(more: int) -> None:
    """Limits the address space to what there is and so many bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def unsettle(most: float) -> None:
    """Lets the time of day jump."""
    real, rng = time.time, random.Random(0)
    time.time = lambda: real() + rng.uniform(-most, most)
    at = time.gmtime
    time.gmtime = lambda seconds=None: at(time.time() if seconds is None else seconds)


def count_into(path: str) -> None:
    """Writes how many changes there were so far."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    watch(Path.cwd(), lambda count: os.pwrite(out, str(count).encode(), 0))


def crowd(size: int) -> None:
    """Returns in so many processes; the first one waits for all and ends."""
    started = {}
    for i in range(size):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(f"err{i}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            return
        started[child] = i
    codes: dict[int, int] = {}
    while len(codes) < size:
        child, status = os.wait()
        codes[started[child]] = os.waitstatus_to_exitcode(status)
    ends = [{"code": codes[i], "err": Path(f"err{i}").read_text()} for i in range(size)]
    Path("crowd.json").write_text(json.dumps(ends))
    os._exit(0)


def become(user: int) -> None:
    """Gives up the rights of root."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def without_locks(on: bool) -> None:
    """Answers as file systems do that have no fsync and no locks."""
    if on:
        os.fsync = partial(_refuse, errno.EINVAL)
        fcntl.flock = partial(_refuse, errno.ENOTSUP)


def _refuse(number: int, *_: object) -> None:
    raise OSError(number, os.strerror(number))


def leave_out(report: bool) -> None:
    """Ends runs where their report, which is a phase of its own, would begin."""
    from secateur.recipes.engine import run

    run.finish = run.finish if report else lambda *arguments: {}


ACTS = {
    "report": leave_out,
    "changes": count_into,
    "clock": unsettle,
    "user": become,
    "without_locks": without_locks,
    "crowd": crowd,
    "memory": cap,
}


def main() -> None:
    """Puts the fault in force, then is the program."""
    fault = json.loads(Path(sys.argv[1]).read_text())
    sys.argv = [str(REPO / sys.argv[2]), *sys.argv[3:]]
    sys.path[0] = str(REPO)  # as `python FILE` does
    if "kill" in fault:
        kill(*fault["kill"])
    for name, act in ACTS.items():
        if name in fault:
            act(fault[name])
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
