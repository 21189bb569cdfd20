"""What README promises in Python is run as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras

from recipes.prune_options import parse

REPO = Path(__file__).resolve().parents[1]
LINES = 10


def snippet(heading: str) -> str:
    """The first block of Python under a heading of README.md."""
    section = re.search(
        rf"^## {heading}\n(.*?)^## ", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    blocks = re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    return next(block for block in blocks if block.lstrip().startswith("import ")).replace("\n    ", "\n")[4:]


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
        options = parse(shlex.split(command))
        assert options.model == "model.keras" and (options.output or options.dry_run)
