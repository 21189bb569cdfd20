"""The command line: published flags with their published defaults, and what is refused at once."""

import argparse
import subprocess
import sys

import pytest

from secateur.__main__ import parse as parse_command
from secateur.dataloader import Facts
from secateur.pruning import complexity
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.config import VOLATILE, RunOptions
from secateur.recipes.engine.outdated import MAY_DIFFER
from secateur.recipes.engine.program import Program, program_of
from secateur.recipes.engine.recipe import find_recipe
from secateur.recipes.engine.step import build
from secateur.runs import UsageError
from tests.helpers.forked import REPO

PUBLISHED = {
    "train_path": "../test",
    "data_path": None,
    "arch": "ResNet-56",
    "dataset": "CIFAR10",
    "trained_param": None,
    "num_teacher": 5,
    "learning_rate": 1e-2,
    "decay_points": [0.3, 0.6, 0.8],
    "decay_rate": 0.2,
    "weight_decay": 5e-4,
    "batch_size": 128,
    "val_batch_size": 256,
    "train_epoch": 100,
    "searching": False,
    "search_target_rate": 0.45,
    "search_step": 0.2,
    "search_batch_size": 256,
    "search_seed": 1,
    "gpu_id": [0],
    "seed": 1,
    "accum": 1,
    "do_log": 200,
    "compile": None,
    "setting": None,
}
OTHERS = {
    "train_path": "runs/a",
    "data_path": "/data",
    "arch": "ResNet-20",
    "dataset": "DIGITS",
    "trained_param": "a.pkl",
    "num_teacher": 3,
    "learning_rate": 0.5,
    "decay_points": [0.25, 1.0],
    "decay_rate": 0.1,
    "weight_decay": 0.0,
    "batch_size": 64,
    "val_batch_size": 32,
    "train_epoch": 1,
    "searching": True,
    "search_target_rate": 0.3,
    "search_step": 1.0,
    "search_batch_size": 2,
    "search_seed": 0,
    "gpu_id": [1, 2],
    "seed": 7,
    "accum": 4,
    "do_log": 1,
    "compile": True,
    "setting": "night",
}


def parse(argv) -> Program:
    """What `train_cifar.py` would do without --recipe."""
    return program_of(choose(argv))


def value(argv, name: str):
    """What a flag is set to, an option of every run or one of EKG's own."""
    program = parse(argv)
    return (vars(program.options) | program.flags)[name]


def arguments(name: str, value) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_flag_has_its_published_default_and_can_be_set(name):
    assert value([], name) == PUBLISHED[name]
    assert value(arguments(name, OTHERS[name]), name) == OTHERS[name]


def test_the_published_commands_are_understood():
    line = "--gpu_id 0 --arch ResNet-56 --dataset CIFAR10 --target_rate 0.45 --train_path ../test"
    published, bare = parse(line.split()), parse([])
    assert (published.steps, published.flags) == (bare.steps, bare.flags)
    assert published.options.train_path == bare.options.train_path == "../test"
    line = "--gpu_id 0 --arch ResNet-56 --dataset CIFAR10 --trained_param ../test/trained_param.pkl"
    assert parse_command("test", line.split()).trained_param == ["../test/trained_param.pkl"]


def test_the_readme_of_ekg_calls_the_target_by_another_name():
    one, other = (parse([f"--{name}", "0.3"]) for name in ("target_rate", "search_target_rate"))
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", True),
        ("--Knowledge", True),
        ("--no-Knowledge", False),
        ("--criterion l1", False),
        ("--criterion random --no-Knowledge", False),
    ],
)
def test_knowledge_is_the_method_unless_there_was_no_search(line, expected):
    program = parse(line.split())
    assert (program.steps[-1].teacher == "bank") is expected
    assert ("bank" in [step.kind for step in program.steps]) is expected


@pytest.mark.parametrize(("line", "expected"), [("", None), ("--compile", True), ("--no-compile", False)])
def test_compile_is_by_device_unless_forced(line, expected):
    assert parse(line.split()).options.compile is expected


BAD = [
    *((f"--target_rate {rate}", f"target_rate={rate}") for rate in ("0", "1", "1.5", "-1", "nan")),
    *((f"--search_step {step}", f"search_step={step}") for step in ("0", "1.5", "nan")),
    *((f"--learning_rate {rate}", f"learning_rate={rate}") for rate in ("nan", "inf", "-0.1")),
    ("--accum 3", "accum=3"),
    ("--accum 0", "accum=0"),
    ("--batch_size 0", "batch_size=0"),
    ("--train_epoch 0", "train_epoch=0"),
    ("--weight_decay -1", "weight_decay=-1.0"),
    ("--decay_points 0.3 1.5", "decay_points=[0.3, 1.5]"),
    ("--decay_points nan", "decay_points=[nan]"),
    ("--seed -1", "seed=-1"),
    ("--search_seed 4294967296", "search_seed=4294967296"),
    ("--decay_rate 0", "decay_rate=0.0"),
    ("--num_teacher 0", "num_teacher=0"),
    ("--val_batch_size 0", "val_batch_size=0"),
    ("--round_to 0", "round_to=0"),
    ("--search_batch_size 1", "search_batch_size=1"),
    ("--Knowledge --criterion l1", "--Knowledge with --criterion l1"),
]


@pytest.mark.parametrize(("line", "named"), BAD)
def test_a_bad_value_is_named(line, named):
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    message = str(caught.value)
    assert f"Received: {named}" in message.replace("search_target_rate", "target_rate")
    assert len(message.splitlines()) <= 2 and caught.value.exit_code == 2


def test_the_message_says_the_whole_range():
    """inf is positive: a message that asked for no more would puzzle."""
    with pytest.raises(
        UsageError, match="--learning_rate must be finite and above 0. Received: learning_rate=inf"
    ):
        parse(["--learning_rate", "inf"])
    with pytest.raises(UsageError, match="--seed must be at least 0 and below 2147483648. Received: seed=-1"):
        parse(["--seed", "-1"])


WRONG = [
    ("train_cifar.py --arhc ResNet-56", "Did you mean '--arch'?"),
    ("train_cifar.py --target-rate=0.3", "Did you mean '--target_rate'?"),
    ("train_cifar.py --train_epochs 3", "Did you mean '--train_epoch'?"),
    ("train_cifar.py --batch_size many", "invalid int value: 'many'"),
    ("train_cifar.py --criterion l7", "invalid choice: 'l7'"),
    ("train_cifar.py --seed", "expected one argument"),
    ("train_cifar.py --target_rate 1.5", "Received: target_rate=1.5"),
    ("train_cifar.py model.keras stray", "unrecognized arguments: stray"),
    ("test.py --trained_parm a.pkl", "Did you mean '--trained_param'?"),
    ("test.py", "Which snapshot? Give --trained_param FILE.pkl"),
    ("test.py --trained_param a.pkl --val_batch_size 0", "Received: val_batch_size=0"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_the_shell_sees_code_2_and_two_lines(line, said):
    program, *options = line.split()
    command = [sys.executable, str(REPO / program), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["train_cifar.py", "test.py"])
def test_help_names_every_flag_and_imports_no_tensorflow(program):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{program!r}, '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    known = PUBLISHED if program == "train_cifar.py" else ("trained_param", "arch", "dataset", "bn", "gpu_id")
    assert all(f"--{name}" in done.stdout for name in known)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_options_that_change_results_bind_the_run_folder():
    """Teachers and re-estimated averages take BN statistics over --val_batch_size images."""
    names = set(RunOptions.model_fields)
    assert set(VOLATILE) < names
    assert not {"val_batch_size", "seed", "accum", "batch_size", "dataset", "arch", "teacher"} & set(
        MAY_DIFFER
    )


def test_no_flag_of_a_recipe_is_also_an_option_of_every_run():
    names = set(RunOptions.model_fields)
    for recipe in ("ekg", "distill", "hap"):
        both = names & set(find_recipe(recipe).flags)
        assert both <= {"mean"}, "which goes by --pixel_mean there"


def test_a_run_stops_behind_the_step_that_until_names():
    assert [step.label for step in parse(["--until", "search_ekg"]).steps][-1] == "search_ekg"
    with pytest.raises(UsageError, match="Did you mean 'fine_tune'"):
        parse(["--until", "fine_tuning"])


def test_the_parser_takes_no_abbreviations():
    with pytest.raises((UsageError, argparse.ArgumentError), match="--sea"):
        parse(["--sea", "1"])


def test_a_net_for_large_images_has_the_published_stem(tmp_path):
    """MobileNet-v2 of 300 M multiply-adds (table 4 of its paper), not of maps 16 times as large."""
    facts = Facts("IMAGENET@256", 1000, (256, 256, 3), (0.0,), (1.0,))
    options = RunOptions(train_path=str(tmp_path), arch="MobileNet-v2", pipeline="imagenet")
    assert complexity(build(options, facts)).macs == 300_774_272
    small = RunOptions(train_path=str(tmp_path), arch="MobileNet-v2", pipeline="ekg")
    tiny = Facts("CIFAR10", 10, (32, 32, 3), (0.0,), (1.0,))
    assert (
        complexity(build(small, tiny)).macs
        > complexity(build(small.model_copy(update={"stem": "imagenet"}), tiny)).macs
    )
