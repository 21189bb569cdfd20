"""Competitors as processes of their own, which take turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

PAUSE = 0.3  # seconds in which the threads of the last process stop spinning
READY = "ready"


class Worker:
    """`python -m MODULE --worker NAME`, which answers every line that it gets with a line."""

    def __init__(self, module: str, name: str) -> None:
        self.name = name
        command = [sys.executable, "-m", module, "--worker", name]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet
        )
        if (line := self._answer()) != READY:
            raise RuntimeError(f"the process of {self.name!r} did not start. Received: {line!r}")

    def ask(self, line: str) -> str:
        """Its answer, after a pause in which the process that ran before goes to sleep."""
        time.sleep(PAUSE)
        print(line, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the process of {self.name!r} ended early. Received: {line!r}")
        return line

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(answer: Callable[[str], object]) -> None:
    """The other side: says that it is ready and answers lines until there are no more."""
    print(READY, flush=True)
    for line in sys.stdin:
        print(answer(line.strip()), flush=True)
