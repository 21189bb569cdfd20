"""Programs of the project as real processes that need not import TensorFlow each time.

`Programs` starts this file once; it imports everything, computes nothing, and then forks a child for every
command. The child runs the program's own file as `__main__` with its own folder, output and exit code; it can
be killed like any other, and may divide its processor into several logical devices. A run in it that reads
test images before its report fails (`spy`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# What programs import sooner or later, half a second of each child.
IMPORTED = """
    secateur.recipes.commands.evaluate secateur.recipes.commands.prune secateur.recipes.commands.coding
    secateur.recipes.engine.run ai_edge_litert.interpreter tensorboardX sklearn.datasets sklearn.cluster
""".split()


@dataclass(frozen=True)
class Done:
    """What a shell sees of a program that has ended."""

    code: int
    out: str
    err: str


def quiet_environment() -> dict[str, str]:
    """This process's, without the log level that JAX, if TensorFlow finds it, has put there."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def shell(command: str, cwd: Path) -> Done:
    """Runs `python FILE …` as a shell would, in a folder that holds the programs."""
    words = shlex.split(command)
    assert words[0] == "python"
    command = [sys.executable, *words[1:]]
    done = subprocess.run(
        command, cwd=cwd, env=quiet_environment(), capture_output=True, text=True, timeout=600
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Programs:
    """Runs `train_cifar.py`, `test.py` and other files of Python, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._child = folder, 0
        environment = quiet_environment() | {"PYTHONPATH": str(REPO)}
        command = [sys.executable, __file__]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(
        self,
        program: str | Path,
        *arguments: object,
        cwd: Path,
        file_limit: int | None = None,
        environment: dict[str, str] | None = None,
        closed: Sequence[int] = (),
    ) -> int:
        """Starts a file of the project, or any by its whole path, and returns the process id.

        `file_limit` is the size that no file may exceed, `environment` what differs from this process's,
        `closed` the standard streams that it starts without.
        """
        if self._child:  # of a test that ran out of time
            os.kill(self._child, signal.SIGKILL)
            self.wait()
        request = {
            "argv": [str(REPO / program), *map(str, arguments)],
            "cwd": str(cwd),
            "out": str(self._folder / "out"),
            "err": str(self._folder / "err"),
            "file_limit": file_limit,
            "environment": environment or {},
            "closed": closed,
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        self._child = int(self._server.stdout.readline())
        return self._child

    def wait(self) -> Done:
        """Waits for the program that was started last."""
        status = int(self._server.stdout.readline())
        self._child = 0
        out, err = ((self._folder / name).read_text() for name in ("out", "err"))
        return Done(os.waitstatus_to_exitcode(status), out, err)

    def run(self, program: str | Path, *arguments: object, **options: object) -> Done:
        """Runs a program to its end; options as those of `start`."""
        self.start(program, *arguments, **options)
        return self.wait()

    def run_code(self, code: str, *arguments: object, **options: object) -> Done:
        """Runs lines of Python in a file of their own."""
        script = self._folder / "script.py"
        script.write_text(code)
        return self.run(script, *arguments, **options)

    def close(self) -> None:
        """Ends the server."""
        self._server.stdin.close()
        self._server.wait(30)


def _serve() -> None:
    from secateur.runs.start import start_tensorflow

    start_tensorflow()
    for name in IMPORTED:
        importlib.import_module(name)
    from secateur.recipes.engine.step import STEPS
    from secateur.reports.page import run_page

    list(STEPS)  # imports their modules
    run_page({"rows": []})  # compiles its templates
    gc.freeze()  # no child looks through what was imported, again and again
    answer = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request)
            return
        os.write(answer, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(answer, f"{status}\n".encode())


def _become(request: dict) -> None:
    import resource
    import runpy

    from tests.helpers.spy import spied

    for descriptor, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in request["closed"]:  # as Python does where it finds them closed
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    if limit := request["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = request["argv"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as `python FILE` does
    with spied():
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
