"""Seconds from a command to its first answer, beside what TensorFlow alone takes to be imported.

    python -m benchmarks.start_up

A process each. Commands that read nothing but files of runs end; what trains or prunes is over with the first
bar or table that it shows.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import print_summary, save, summary, take_turns
from secateur.runs import cli

PROGRAM = [sys.executable, "-m", "secateur"]
REFERENCE = "import tensorflow"
BAR = b"step/s]"
SMALL = ["--arch", "ResNet-20", "--dataset", "DIGITS", "--recipe", "baseline"]


def trained(folder: Path) -> str:
    """A run folder with a small network in it."""
    run = str(folder / "run")
    once = [
        *PROGRAM,
        "train",
        *SMALL,
        "--train_images",
        "256",
        "--batch_size",
        "32",
        "--set",
        "dense.epochs=1",
        "--train_path",
        run,
    ]
    subprocess.run(once, check=True, capture_output=True)
    return run


def commands(run: str) -> dict[str, tuple[list[str], bytes | int]]:
    """Name → words, and what is shown first, or the exit code of a process that ends by itself."""
    return {
        REFERENCE: ([sys.executable, "-c", "import tensorflow"], 0),
        "secateur --help": ([*PROGRAM, "--help"], 0),
        "secateur train --help": ([*PROGRAM, "train", "--help"], 0),
        "secateur train --recipe list": ([*PROGRAM, "train", "--recipe", "list"], 0),
        "a wrong option": ([*PROGRAM, "train", "--archh", "ResNet-20"], 2),
        "secateur report RUN/report.json": ([*PROGRAM, "report", f"{run}/report.json"], 0),
        "secateur train, the first bar": ([*PROGRAM, "train", *SMALL, "--train_path", "{}"], BAR),
        "secateur prune --dry_run, its table": (
            [*PROGRAM, "prune", f"{run}/compact.keras", "--keep_macs", "0.5", "--dry_run"],
            b"MACs",
        ),
    }


def answered(words: Sequence[str], awaited: bytes | int) -> float:
    """Seconds until a new process shows something, or ends with a code."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"{folder}/run" if word == "{}" else word for word in words]
        start = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        text, ends = b"", False
        while part := os.read(process.stdout.fileno(), 65536):
            text += part
            if ends := isinstance(awaited, bytes) and awaited in text:
                break
        seconds = time.perf_counter() - start
        if ends:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not ends and process.returncode != awaited:
            raise RuntimeError(f"{words} ended otherwise: {text[-500:].decode(errors='replace')}")
        return seconds


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start_up", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = commands(trained(Path(folder)))
        calls = {name: lambda one=one: answered(*one) for name, one in known.items()}
        rows = summary(take_turns(calls, args.turns), REFERENCE)
    print_summary("seconds until the first answer", rows, REFERENCE, "s")
    save("start_up", {"cores_used": len(os.sched_getaffinity(0)), "rows": rows})


if __name__ == "__main__":
    sys.exit(cli(main))
