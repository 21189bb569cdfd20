"""Programs as schedulers start and stop them: without standard streams, by SIGTERM, on little memory."""

import errno
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from secateur.runs import EXIT_CODES, RunFolder, TrainingError, cli, write_atomic
from secateur.runs.errors import held_signals
from tests.runs.test_exit_codes import shell

WORDS = '"$PYTHON" -m secateur --help'
PRINTS = """"$PYTHON" -c "
import sys
from runs import UsageError, cli
def main():
    print('fine')
    with open('$FILE', 'w') as file: file.write(str(file.fileno()))
    raise UsageError('no. Received: x=1')
sys.exit(cli(main))" """


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere_and_no_file_takes_its_number(tmp_path, closed):
    done = shell(f"export FILE={tmp_path}/file; {PRINTS} {closed}")
    assert done.returncode == 2
    assert done.stdout == ("fine\n" if ">&-" not in closed.replace("2>&-", "") else "")
    assert done.stderr == ("error: no. Received: x=1\n" if "2>&-" not in closed else "")
    assert int((tmp_path / "file").read_text()) > 2


def test_a_stream_that_has_no_such_letters_gets_them_escaped():
    done = shell("PYTHONIOENCODING=ascii " + WORDS)
    assert done.returncode == 0 and "COMMAND \\u2026" in done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_so_that_no_temporary_file_stays(tmp_path, capsys, number):
    def main():
        with RunFolder(tmp_path / "run", {}) as folder:
            folder.write("whole", b"1")
            write_atomic(tmp_path / "model.keras", lambda file: os.kill(os.getpid(), number))

    assert cli(main, "interrupted: start it again") == 128 + number
    assert 128 + number in EXIT_CODES and capsys.readouterr().err == "interrupted: start it again\n"
    assert sorted(os.listdir(tmp_path)) == ["run"]
    assert signal.getsignal(number) is signal.SIG_DFL  # for who calls `cli` and goes on


@pytest.fixture
def ctrl_c():
    """Raises `KeyboardInterrupt`, also in a background job, which shells start with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_waits_while_something_is_unsaved(tmp_path):
    with pytest.raises(KeyboardInterrupt), held_signals() as signals:
        signals.unsaved = True
        signal.raise_signal(signal.SIGINT)
        assert signals
        (tmp_path / "saved").touch()
        signals.obey()
    assert (tmp_path / "saved").exists()


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_that_waits_outlives_another_exception():
    with pytest.raises(KeyboardInterrupt), held_signals() as signals:
        signals.unsaved = True
        signal.raise_signal(signal.SIGINT)
        raise TrainingError("diverged")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("active", "unsaved", "times"), [(True, False, 1), (True, True, 2), (False, True, 1)]
)
def test_a_signal_does_not_wait_for_nothing_nor_the_second_one(active, unsaved, times):
    with pytest.raises(KeyboardInterrupt), held_signals(active) as signals:
        signals.unsaved = unsaved
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        pytest.fail("nothing was raised")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_the_parent_ignores_is_ignored():
    code = (
        "from runs import cli; import os, signal; cli(lambda: os.kill(os.getpid(), signal.SIGHUP)); print(1)"
    )
    assert shell(f"""trap '' HUP; "$PYTHON" -c "{code}" """).stdout == "1\n"


def numpy_fails():
    np.empty(2**60, np.uint8)


def python_fails():
    bytearray(2**60)


def tensorflow_fails():
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]\nmore")


def python_within_tensorflow_fails():
    def read(number):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    list(tf.data.Dataset.range(1).map(lambda i: tf.numpy_function(read, [i], tf.int64)))


@pytest.mark.parametrize(
    "main", [numpy_fails, python_fails, tensorflow_fails, python_within_tensorflow_fails]
)
def test_memory_that_runs_out_has_a_code_and_says_what_to_lower(main, capsys):
    assert cli(main) == 7 and "memory" in EXIT_CODES[7]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: the memory ran out (")
    assert all(
        flag in lines[1] for flag in ("--batch_size", "--val_batch_size", "--auto_accum", "--train_images")
    )
