"""The one program: its table, its usage lines, and what it does before TensorFlow is there."""

import subprocess
import sys

import pytest

from secateur.__main__ import COMMANDS, dispatch
from secateur.runs import UsageError
from tests.helpers.forked import REPO

HELP = """
import sys
from secateur.__main__ import COMMANDS, dispatch
for name in COMMANDS:
    try: dispatch([name, "--help"], "secateur")
    except SystemExit as end: assert end.code == 0
assert not {"tensorflow", "keras", "sklearn"} & set(sys.modules)
"""


def shell(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)


def test_help_is_the_table_with_a_line_for_each_command():
    done = shell("-m", "secateur", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("usage: secateur ")
    for name, command in COMMANDS.items():
        assert sum(line.split() == [name, *command.about.split()] for line in lines) == 1
    assert max(map(len, lines)) <= 100


def test_help_of_every_command_imports_no_tensorflow_and_names_the_program_that_was_called():
    done = shell("-c", HELP)
    assert (done.returncode, done.stderr) == (0, "")
    usages = [line for line in done.stdout.splitlines() if line.startswith("usage: ")]
    assert [line.split()[1:3] for line in usages] == [["secateur", name] for name in COMMANDS]


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("-m pruning", "python -m pruning MODEL.keras"),
        ("-m coding encode", "python -m coding encode FILE"),
        ("train_cifar.py", "train_cifar.py"),
        ("test.py", "test.py"),
    ],
)
def test_the_programs_of_before_name_themselves(words, usage):
    done = shell(*words.split(), "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {usage} [--flag value …]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prun m.keras", "Received: prun. Did you mean 'prune'?"),
        ("encoed net.keras", "Did you mean 'encode'?"),
        ("", "Received: None. Valid: prune, train, test"),
        ("prune", "It comes first: secateur prune MODEL.keras --flag value"),
        ("prune m.keras --keep 0.5 --outptu s.keras", "See secateur prune --help"),
        ("decode a.kpz", "Give --output: the .keras file to write. Received: output=None"),
        ("encode a.keras -o a.kpz --numbers int8", "unrecognized arguments: --numbers int8"),
        ("test", "Which snapshot? Give --trained_param FILE.pkl"),
    ],
)
def test_what_cannot_be_understood_is_code_2_and_says_what_can(words, said):
    with pytest.raises(UsageError) as caught:
        dispatch(words.split(), "secateur")
    assert said in str(caught.value) and len(str(caught.value).splitlines()) <= 2


def test_the_shell_sees_code_2():
    done = shell("-m", "secateur", "trian")
    assert (done.returncode, done.stdout) == (2, "") and "Did you mean 'train'" in done.stderr
