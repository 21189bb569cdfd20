"""What a shell sees: a documented code, one or two lines, no traceback for what the user can put right."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secateur import runs
from secateur.runs import EXIT_CODES, SecateurError, cli

REPO = Path(__file__).resolve().parents[2]
KINDS = [
    kind
    for _, kind in inspect.getmembers(runs, inspect.isclass)
    if issubclass(kind, SecateurError) and kind is not SecateurError
]


def shell(command: str, stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=REPO,
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )


def test_every_error_has_a_code_of_its_own_in_the_table():
    codes = [kind.exit_code for kind in KINDS]
    assert sorted(codes) == [2, 3, 4, 5, 6, 7, 8]
    assert set(codes) < set(EXIT_CODES)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_its_message_and_its_code(kind, capsys):
    def main():
        raise kind("rate outside (0, 1). Received: 1.5\ngive a rate between 0 and 1")

    assert cli(main) == kind.exit_code
    printed = capsys.readouterr()
    assert printed.err == "error: rate outside (0, 1). Received: 1.5\ngive a rate between 0 and 1\n"
    assert printed.out == ""


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (3, 3)])
def test_the_code_of_a_program_that_ends_by_itself(value, code):
    assert cli(lambda: value) == code


@pytest.mark.parametrize("defect", [ValueError("x"), PermissionError(13, "denied"), SystemExit(2)])
def test_a_defect_of_ours_keeps_its_traceback(defect):
    def main():
        raise defect

    with pytest.raises(type(defect)):
        cli(main)


def test_interrupt_is_130():
    # A shell's background job starts with SIGINT ignored.
    code = "import signal, sys, runs; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "sys.exit(runs.cli(lambda: signal.raise_signal(signal.SIGINT)))"
    done = shell(f'"$PYTHON" -c "{code}"')
    assert (done.returncode, done.stderr) == (130, "interrupted: run the same command again to continue\n")


def test_a_program_that_keeps_nothing_says_so_when_interrupted(capsys):
    def main():
        raise KeyboardInterrupt

    assert cli(main, interrupted="interrupted: nothing was saved") == 130
    assert capsys.readouterr().err == "interrupted: nothing was saved\n"


def test_a_closed_pipe_is_silent():
    code = "import sys; from runs import cli; sys.exit(cli(lambda: [print(n) for n in range(10**5)] and 0))"
    done = shell(f'"$PYTHON" -c "{code}" | head -n 2; exit ${{PIPESTATUS[0]}}')
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n1\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_output_to_a_full_disk_is_code_5():
    done = shell(
        '"$PYTHON" -c "import sys; from runs import cli; sys.exit(cli(lambda: print(\'x\')))" > /dev/full'
    )
    assert done.returncode == 5
    assert done.stderr.startswith("error: disk full") and "Traceback" not in done.stderr


def test_importing_runs_imports_no_framework():
    done = shell(
        '"$PYTHON" -c "import runs, sys; print([m for m in sys.modules if m.split(\'.\')[0] in '
        "('tensorflow', 'keras', 'tensorboard', 'jax', 'torch')])\""
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
