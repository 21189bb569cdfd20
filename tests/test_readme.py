"""What README promises in Python is run as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras

from secateur import nets
from secateur.__main__ import CODING, parse
from secateur.distillation import get_loss, list_losses
from secateur.runs import save_snapshot

REPO = Path(__file__).resolve().parents[1]
LINES = 10


def snippet(heading: str, number: int = 0) -> str:
    """A block of Python under a heading of README.md, the first one unless told otherwise."""
    section = re.search(
        rf"^## {heading}\n(.*?)^## ", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    blocks = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    found = [block for block in blocks if block.lstrip().startswith("import ")]
    return found[number].replace("\n    ", "\n")[4:]


def test_losses_work_in_both_loops(tmp_path):
    code = snippet("Learn from trained networks")
    more = """
import numpy as np
images, labels = np.random.rand(4, 32, 32, 3).astype("float32"), np.arange(4, dtype="int32")
assert float(lesson({"images": images, "labels": labels})["loss"]) > 0
distiller.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
assert np.isfinite(distiller.fit(images, labels, verbose=0).history["distillation_loss"][0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code + more],
        cwd=tmp_path, env={"PYTHONPATH": str(REPO), "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_lesson_and_a_loss_of_ones_own_train(tmp_path):
    """A ResNet-20 learns from another; the parts of its loss are printed, plain Keras is saved."""
    code = snippet("Learn from trained networks", 1)
    teacher = tmp_path / "run" / "demo" / "snap_baseline.pkl"
    teacher.parent.mkdir(parents=True)
    save_snapshot(teacher, nets.snapshot_of(nets.build("ResNet-20")))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(REPO), "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if "'pooled_mse': " in line]
    assert len(lines) == 2 * (982 // 64) and all("'cross_entropy': " in line for line in lines)
    small = keras.models.load_model(tmp_path / "student.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)


def test_options_of_losses_are_those_that_they_take():
    section = (REPO / "README.md").read_text().partition("takes these options")[2].partition("\n## ")[0]
    said = {}
    for line in section.splitlines():
        cells = [re.findall("`(\\w+)`", cell) for cell in line.split("|")[1:-1]]
        for names, options in zip(cells[::2], cells[1::2], strict=True):
            said |= {name: options for name in names}
    ours = [
        key for key in list_losses() if get_loss(key).__module__.startswith("secateur.distillation.losses.")
    ]
    assert sorted(said) == sorted(ours)
    for key in ours:
        options = [name for name in get_loss(key).option_names() if "_layer_name" not in name]
        assert said[key] == options, key


def test_prune_your_own_model_in_ten_lines(tmp_path):
    code = snippet("Prune your own model")
    assert len(code.splitlines()) <= LINES
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(REPO), "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = map(int, done.stdout.splitlines()[-1].split(" → "))
    assert 0.45 * before < after <= 0.5 * before
    small = keras.models.load_model(tmp_path / "small.keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)
    assert small.get_layer("block_1_expand").filters % 8 == 0


def test_every_command_of_pruning_is_understood():
    readme = (REPO / "README.md").read_text()
    commands = re.findall(r"^ {4}python -m pruning (.*)$", readme, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        options = parse("prune", shlex.split(command))
        assert options.model == "model.keras" and (options.output or options.dry_run)


def test_every_command_of_coding_is_understood():
    readme = (REPO / "README.md").read_text()
    commands = re.findall(r"^ {4}python -m coding (.*)$", readme, re.MULTILINE)
    assert {command.split()[0] for command in commands} == set(CODING)
    for command in commands:
        name, *words = shlex.split(command)
        assert parse(name, words).file
