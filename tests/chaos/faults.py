"""Faults of runs: name → what is tried on a phase; every try says what broke, "" if nothing did."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.bench import Bench, Phase, broken, digests, first_failed, leftovers, lines, unreadable
from tests.helpers import workers
from tests.helpers.forked import Done

Fault = Callable[[Bench, Phase, int], Iterator[str]]  # bench, phase, tries → what broke, try by try
CHAIN = 5  # kills of one run before it may end
NOBODY = 65534
HANGS = 300  # seconds behind which a worker will not end by itself
ROOM = 400_000  # bytes that a disk has left at most
NATIVE = "ended by native code"
UNSPOKEN = (
    *("bad_alloc", "Resource temporarily unavailable", "Cannot allocate memory", "failed to allocate"),
    "pthread_create() failed",
)
"""What C++ says where it gets no memory or no thread, and aborts before Python can speak."""
MEMORY = 600_000_000  # bytes that a phase takes, about


def _kills(bench: Bench, phase: Phase, tries: int, die: Callable[[Path], Done]) -> Iterator[str]:
    """Kills one command again and again, each time where the last kill has left it; then lets it end."""
    while tries > 0:
        work, found = bench.fresh(phase), []
        while len(found) < min(CHAIN, tries):
            done = die(work)
            if done.code != -signal.SIGKILL:  # it was at its end
                break
            found.append(", ".join(unreadable(work)))
        start = time.monotonic()
        end = broken(phase, work, bench.run(phase.words, work))
        phase.seconds = time.monotonic() - start  # the machine may be faster now
        if not found:
            yield from [end] if end else []
        yield from (one or end for one in found)
        tries -= max(1, len(found))  # one that ended before its kill is none, and is not repeated for ever


def killed(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """SIGKILL at random instants."""

    def die(work: Path) -> Done:
        process = bench.start(phase.words, work)
        time.sleep(bench.rng.uniform(0.1, 0.95) * phase.seconds)
        _signal(process, signal.SIGKILL)
        return bench.programs.wait()

    return _kills(bench, phase, tries, die)


def killed_while_writing(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """SIGKILL up to two milliseconds behind the start of a random change of a file."""

    def die(work: Path) -> Done:
        at = bench.rng.randrange(phase.changes) + 1
        return bench.run(phase.words, work, kill=[at, bench.rng.choice([0, bench.rng.uniform(0, 0.002)])])

    return _kills(bench, phase, tries, die)


def signalled(number: signal.Signals) -> Fault:
    """A signal that unwinds: its exit code, nothing temporary left, and the same command goes on.

    Before the program listens and behind its end the signal itself ends the process; a shell sees the same.
    """

    def fault(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
        for _ in range(tries):
            work, done = bench.fresh(phase), None
            process = bench.start(phase.words, work)
            time.sleep(bench.rng.uniform(0.1, 0.95) * phase.seconds)
            _signal(process, number)
            done = bench.programs.wait()
            ends = digests(phase.before / "run") if (phase.before / "run").exists() else {}, phase.after
            outside = done.code == -number and digests(work / "run") in ends
            listened = done.code in (0, 128 + number)
            wrong = "" if listened or outside else f"exit {done.code}: {done.err[-300:]}"
            left = leftovers(work)
            wrong = wrong or (f"stays: {left}" if left else "") or ", ".join(unreadable(work))
            yield wrong or broken(phase, work, bench.run(phase.words, work))

    return fault


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def full_disk(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """A small disk that fills up at a random byte; then there is room again."""
    for _ in range(tries):
        with _disk(bench, phase) as work:
            filler = work / "filler"
            free = shutil.disk_usage(work).free
            with open(filler, "wb") as file:
                file.write(bytes(max(0, free - bench.rng.randrange(ROOM))))
            yield _refused(bench, phase, work, bench.run(phase.words, work), 5, filler.unlink)


def read_only(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """A disk that is mounted read-only; then it is not."""
    for _ in range(tries):
        with _disk(bench, phase) as work:
            _mount("-o", "remount,ro", str(work))
            done = bench.run(phase.words, work)
            free = lambda work=work: _mount("-o", "remount,rw", str(work))  # noqa: E731
            yield _refused(bench, phase, work, done, 5, free)


def no_rights(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """Another user's folder; then its owner gives the command."""
    for _ in range(tries):
        work = bench.fresh(phase)
        yield _refused(bench, phase, work, bench.run(phase.words, work, user=NOBODY), 5, lambda: None)


def little_memory(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """A cap on the address space, at random below what the phase takes; then none."""
    for _ in range(tries):
        work = bench.fresh(phase)
        done = bench.run(phase.words, work, memory=bench.rng.randrange(MEMORY))
        yield _refused(bench, phase, work, done, 7, lambda: None)


def jumping_clock(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """The time of day jumps by up to ten years whenever it is asked."""
    for _ in range(tries):
        work = bench.fresh(phase)
        yield broken(phase, work, bench.run(phase.words, work, clock=3e8))


def without_locks(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """A file system that knows neither fsync nor locks: killed there, the same command goes on."""
    for _ in range(tries):
        work = bench.fresh(phase)
        process = bench.start(phase.words, work, without_locks=True)
        time.sleep(bench.rng.uniform(0.1, 0.95) * phase.seconds)
        _signal(process, signal.SIGKILL)
        bench.programs.wait()
        wrong = ", ".join(unreadable(work))
        yield wrong or broken(phase, work, bench.run(phase.words, work, without_locks=True))


def eight_at_once(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """Eight runs in one folder: one works, seven name it."""
    import json

    for _ in range(tries):
        work = bench.fresh(phase)
        done = bench.run(phase.words, work, crowd=8)
        ends = json.loads((work / "crowd.json").read_text())
        for path in work.glob("err*"):
            path.unlink()
        refused = [end for end in ends if end["code"] == 5 and "is busy: process " in end["err"]]
        worked = [end for end in ends if end["code"] == 0]
        wrong = "" if (len(worked), len(refused)) == (1, 7) else str([end["code"] for end in ends])
        yield wrong or broken(phase, work, done)


def worker_killed(bench: Bench, phase: Phase, tries: int) -> Iterator[str]:
    """SIGKILL of one of two workers at a random instant: the other says so and ends."""
    for _ in range(tries):
        work, victim = bench.fresh(phase), bench.rng.randrange(2)
        begun = bench.together(phase.words, work)
        time.sleep(bench.rng.uniform(0.1, 0.95) * phase.seconds)
        begun[victim].kill()
        try:
            other = workers.ended(begun, HANGS)[1 - victim]
        except subprocess.TimeoutExpired:
            yield "the other worker waits"
            continue
        named = any("another worker of this run has gone" in line for line in lines(other))
        wrong = "" if other.code == 0 or (other.code == 8 and named) else f"{other.code}: {other.err[-300:]}"
        wrong = wrong or ", ".join(unreadable(work))
        yield wrong or broken(phase, work, first_failed(workers.ended(bench.together(phase.words, work))))


def _refused(bench: Bench, phase: Phase, work: Path, done: Done, code: int, free: Callable[[], None]) -> str:
    """What is wrong with a refusal by one line and this code (or a run to its end), and with what follows."""
    wrong = ""
    unspoken = any(words in done.err for words in UNSPOKEN)
    if code == 7 and (done.code == -signal.SIGSEGV or (done.code == -signal.SIGABRT and unspoken)):
        wrong = NATIVE
    elif done.code not in (0, code):
        wrong = f"exit {done.code}: {done.err[-300:]}"
    elif done.code and not (1 <= len(lines(done)) <= 2 and lines(done)[0].startswith("error: ")):
        wrong = f"not one line: {lines(done)}"
    wrong = wrong or ", ".join(unreadable(work))
    free()
    again = broken(phase, work, bench.run(phase.words, work))
    return again or wrong


@contextmanager
def _disk(bench: Bench, phase: Phase) -> Iterator[Path]:
    """The folder in which the phase begins, on a disk of its own."""
    work = bench.root / "disk"
    work.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=16m,mode=755", "chaos", str(work))
    try:
        shutil.copytree(phase.before, work, dirs_exist_ok=True)
        yield work
    finally:
        subprocess.run(["umount", "-l", str(work)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


OF_WORKERS = "kill -9 of one of two workers"
FAULTS: dict[str, Fault] = {
    "kill -9 at random instants": killed,
    "kill -9 while files are written": killed_while_writing,
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGINT": signalled(signal.SIGINT),
    "SIGHUP": signalled(signal.SIGHUP),
    "a full disk": full_disk,
    "a read-only disk": read_only,
    "a folder of another user": no_rights,
    "too little memory": little_memory,
    "a clock that jumps": jumping_clock,
    "a file system without fsync and locks": without_locks,
    "eight runs in one folder": eight_at_once,
    OF_WORKERS: worker_killed,
}
