"""Trains what `benchmarks.gpu.export` wrote, on a machine that has JAX, Pillow, a GPU and no TensorFlow.

    python -m benchmarks.gpu.run EXPORT --work WORK --out OUT --probe_s 150 --deadline_s 560

With --probe_s a first process measures the device and the exported steps (`probe.py`). The next one does the
list in its order; runs that have begun come first. At the deadline it stops; the same command goes on from
its checkpoints. OUT gets epochs.jsonl (a row for each epoch), notes.jsonl (probes, compile times, first
losses, failures) and weights-0.npz …, every 20 seconds, too. It needs nothing of this project but
benchmarks/__init__.py and benchmarks/gpu/.

When a run fails, its process ends, since the device may be left in a state where nothing works any more. The
next one does not use CUDA graphs and goes on from the run's last checkpoint; after a second failure the run
waits for the next session.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.gpu.folder import Folder

CHECKPOINT_EVERY = 10  # epochs
COLLECT_EVERY = 20  # seconds
SPARE = 8  # seconds between the last epoch and the deadline
TRIES = 2
NO_GRAPHS = "--xla_gpu_enable_command_buffer="


# --- the process that trains --------------------------------------------------------------------------------


def work(folder: Folder, precision: str, deadline: float) -> None:
    """Does runs until none is left or the time is up; raises where one fails."""
    from benchmarks.gpu.course import Device

    device = Device(folder, precision)
    while run := next_run(folder, deadline - time.time()):
        folder.begin(run["name"])
        try:
            done = _train(device, run, deadline)
        except Exception as error:
            folder.note(event="failed", run=run["name"], error=f"{type(error).__name__}: {error}"[:500])
            raise
        folder.end(run["name"])
        if not done:
            return


def next_run(folder: Folder, left: float) -> dict | None:
    """One that has begun, else one that can be finished in the seconds left, else one that can begin."""
    names = {run["name"]: run for run in folder.runs}
    waiting = [run for name, run in names.items() if not folder.finished(name) and folder.tries(name) < TRIES]
    begun = [run for run in waiting if folder.checkpoint_file(run["name"]).exists()]
    fitting = [run for run in waiting if _fits(folder, run, left)]
    return next(iter([*begun, *fitting, *waiting]), None) if left >= SPARE else None


def _fits(folder: Folder, run: Mapping, left: float) -> bool:
    seconds = folder.seconds_per_epoch(run["program"])
    return seconds is None or seconds * run["epochs"] < left


def _train(device, run: Mapping, deadline: float) -> bool:
    """Trains to the end, or until the time is up; says which."""
    from benchmarks.gpu.course import Course

    course = Course(device, run)
    if device.folder.programs[run["program"]]["first_run"] == run["name"] and course.done == 0:
        course.loop.check()
    slowest, row = 0.0, {}
    while course.done < run["epochs"] and time.time() + slowest + SPARE / 2 < deadline:
        start = time.time()
        row = course.epoch()
        device.folder.add_row(run["name"], row)
        if row["epoch"] % CHECKPOINT_EVERY == 0 or row["epoch"] == 1:
            course.save_checkpoint()
        slowest = max(slowest, time.time() - start)
    finished = course.done == run["epochs"]
    course.save_result() if finished else course.save_checkpoint()
    facts = {name: round(float(value), 4) for name, value in row.items()}
    device.folder.note(event="ends", run=run["name"], **facts)
    return finished


# --- the process that starts it -----------------------------------------------------------------------------


def have_probed(folder: Folder, xla_flags: str, seconds: float) -> None:
    """Has the steps probed, for so many seconds at most; what fails there keeps no run from training."""
    words = [*_words(folder), "--probe"]
    with _process(words, xla_flags) as prober, contextlib.suppress(subprocess.TimeoutExpired):
        prober.wait(seconds)


def train(folder: Folder, out: Path, precision: str, xla_flags: str, deadline: float) -> None:
    """Has runs trained, and again after a failure; writes what travels back meanwhile and at the end."""
    folder.forget_tries()
    folder.note(
        event="session", seconds=round(deadline - time.time()), precision=precision, xla_flags=xla_flags
    )
    words = [*_words(folder), "--worker", "--precision", precision, "--deadline", str(deadline)]
    failures = 0
    while _session(folder, out, words, xla_flags, deadline):
        before, failures = failures, sum(folder.tries(run["name"]) for run in folder.runs)
        if failures == before:
            sys.exit("The process that trains ends before it trains: its last lines say why")
        if NO_GRAPHS not in xla_flags.split():
            xla_flags = f"{xla_flags} {NO_GRAPHS}".strip()
        folder.note(event="again", xla_flags=xla_flags)
    print(summary(folder))


def _words(folder: Folder) -> list[str]:
    """This program for the same folders, as a process of its own."""
    module = [sys.executable, "-u", "-m", "benchmarks.gpu.run"]
    return [*module, str(folder.export), "--work", str(folder.work)]


def _session(folder: Folder, out: Path, words: list[str], xla_flags: str, deadline: float) -> bool:
    """Whether the process that trains has failed before its time was up."""
    with _process(words, xla_flags) as worker:
        while time.time() < deadline + SPARE:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.1, min(COLLECT_EVERY, deadline + SPARE - time.time())))
                break
            folder.collect(out)
        failed = bool(worker.poll()) and time.time() < deadline
    folder.collect(out)
    return failed


@contextlib.contextmanager
def _process(words: list[str], xla_flags: str) -> Iterator[subprocess.Popen]:
    """A process that does not outlive the block."""
    settings = {"XLA_FLAGS": xla_flags, "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen(words, env=os.environ | settings)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def probed(notes: Iterable[Mapping]) -> list[str]:
    """A line for each probe: speed, an epoch, shares of the device's FLOP/s in that precision and bytes/s."""
    return [
        f"{note['program']:28} {note['precision']:8} {note['images_per_second']:.0f} images/s "
        f"{note['epoch_seconds']:.2f} s an epoch, {100 * note['of_product']:.1f} % of FLOP/s, "
        f"{100 * note['of_bandwidth']:.1f} % of bytes/s"
        for note in notes
        if note["event"] == "probe"
    ]


def summary(folder: Folder) -> str:
    """A line for each probe, and for each run that has begun."""
    lines = probed(folder.notes())
    for run in folder.runs:
        if rows := folder.log(run["name"]):
            last = rows[-1]
            lines.append(
                f"{run['name']:28} {last['epoch']:3}/{run['epochs']:<3} loss {last['loss']:.4f} "
                f"hold-out {100 * last['holdout_accuracy']:.2f} % {last['images_per_second']:.0f} images/s "
                f"{sum(row['seconds'] for row in rows):.1f} s"
            )
    return "\n".join(lines)


# --- command line -------------------------------------------------------------------------------------------


def main() -> None:
    """argv → a session, or its process that trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path, help="what benchmarks.gpu.export wrote")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and results, to go on from")
    parser.add_argument("--out", type=Path, help="what travels back (default: WORK/out)")
    parser.add_argument("--deadline_s", type=float, default=3600, help="seconds that the session may take")
    parser.add_argument(
        "--probe_s", type=float, default=0, help="seconds of these for ceilings and short probes of all steps"
    )
    parser.add_argument("--precision", choices=("tf32", "float32"), default="tf32")
    parser.add_argument("--xla_flags", default="", help="for XLA; write them behind =")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    started = time.time()
    if not (args.export / "runs.json").exists():
        parser.error(f"not a folder of benchmarks.gpu.export. Received: export={str(args.export)!r}")
    if importlib.util.find_spec("jax") is None:
        parser.error("JAX is missing: pip install 'jax[cuda13]' (without a GPU: jax)")
    folder = Folder(args.export, args.work)
    if args.probe:
        from benchmarks.gpu.probe import probe as probe_steps

        probe_steps(folder)
        return
    if args.worker:
        try:
            work(folder, args.precision, args.deadline)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        return
    out = args.out or args.work / "out"
    out.mkdir(parents=True, exist_ok=True)
    folder.decode(args.export / "images")
    if args.probe_s:
        have_probed(folder, args.xla_flags, min(args.probe_s, args.deadline_s))
    train(folder, out, args.precision, args.xla_flags, started + args.deadline_s)


if __name__ == "__main__":
    main()
