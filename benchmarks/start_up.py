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


def commands(folder: Path) -> dict[str, tuple[list[str], bytes | None]]:
    """Name → words, and what is shown first; None for the end of the process."""
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
    model = str(folder / "run" / "compact.keras")
    return {
        REFERENCE: ([sys.executable, "-c", "import tensorflow"], None),
        "secateur --help": ([*PROGRAM, "--help"], None),
        "secateur train --help": ([*PROGRAM, "train", "--help"], None),
        "secateur train --recipe list": ([*PROGRAM, "train", "--recipe", "list"], None),
        "a wrong option": ([*PROGRAM, "train", "--archh", "ResNet-20"], None),
        "secateur report RUN": ([*PROGRAM, "report", run], None),
        "secateur train, the first bar": ([*PROGRAM, "train", *SMALL, "--train_path", "{}"], BAR),
        "secateur prune --dry_run, its table": (
            [*PROGRAM, "prune", model, "--keep_macs", "0.5", "--dry_run"],
            b"MACs",
        ),
    }


def answered(words: Sequence[str], shown: bytes | None) -> float:
    """Seconds until a new process shows something, or ends."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word.format(folder + "/run") if word == "{}" else word for word in words]
        start = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        text = b""
        while part := os.read(process.stdout.fileno(), 65536):
            text += part
            if shown and shown in text:
                break
        seconds = time.perf_counter() - start
        if shown:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if shown and shown not in text:
            raise RuntimeError(f"{words} never showed {shown}: {text[-500:].decode(errors='replace')}")
        return seconds


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start_up", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder))
        calls = {name: lambda one=one: answered(*one) for name, one in known.items()}
        rows = summary(take_turns(calls, args.turns), REFERENCE)
    print_summary("seconds until the first answer", rows, REFERENCE, "s")
    save("start_up", {"cores_used": len(os.sched_getaffinity(0)), "rows": rows})


if __name__ == "__main__":
    sys.exit(cli(main))
