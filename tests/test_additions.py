"""What a user adds outside of the project, in a file or a package of his own, is used by the programs."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from secateur.runs import load_snapshot, read_json, read_jsonl

pytestmark = pytest.mark.runs
REPO = Path(__file__).resolve().parents[1]

MINE = '''
import keras
import numpy as np
import tensorflow as tf

from secateur.distillation import Loss, register
from secateur.nets.blocks import bn_relu, classified, conv
from secateur.nets.registry import family
from secateur.pruning import criterion
from secateur.recipes.training.schedules import SCHEDULES


@criterion
def later(filters):
    """The last channels of a layer stay."""
    return np.arange(len(filters))


@register
class Gap(Loss):
    key = "gap"

    def compare(self, teacher, student):
        return tf.reduce_mean(tf.square(teacher - student))


@family("TinyNet-3")
def tinynet(spec):
    inputs = x = keras.Input(spec.input_shape, name="images")
    for i in (1, 2):
        x = bn_relu(conv(spec, x, f"conv{i}", 8, strides=2), f"bn{i}", f"relu{i}")
    return classified(spec, inputs, x, 3)


@SCHEDULES.register
def saw(learning_rate, steps):
    return np.linspace(learning_rate, 0, steps, dtype=np.float32)
'''

POINTS = """
[secateur.criteria]
later = mine:later
[secateur.losses]
gap = mine:Gap
[secateur.nets]
tinynet = mine:tinynet
[secateur.schedules]
saw = mine:saw
"""

RECIPE = """
about = "a recipe of one's own"

[[steps]]
kind = "dense"
epochs = 1

[[steps]]
kind = "prune"
criterion = "later"
keep = 0.5

[[steps]]
kind = "train"
epochs = 2
schedule = "saw"
teacher = "dense"
distill = "gap"
"""

TRAIN = (
    "train_cifar.py --recipe mine.toml --arch TinyNet-3 --dataset DIGITS --train_images 128 --batch_size 64 "
    "--time_seconds 0.02 --train_path run"
)


def python(folder: Path, *words: str, path: Path | None = None) -> None:
    """Runs a program in a process of its own, with `path` where packages are installed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module", params=["file", "package"])
def run(request, tmp_path_factory):
    """Run folder of a recipe whose parts are outside of the project."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "mine.toml").write_text(RECIPE)
    site = folder / "site"
    site.mkdir()
    (site / "mine.py").write_text(MINE)
    words = [str(REPO / "train_cifar.py"), *TRAIN.split()[1:]]
    if request.param == "file":
        python(folder, *words, "--import", "site/mine.py")
        return folder / "run"
    about = site / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    python(folder, *words, path=site)
    return folder / "run"


def test_a_recipe_of_ones_own_is_run(run):
    assert list(read_json(run / "manifest.json")["steps"])[:3] == ["dense", "prune", "train"]


def test_a_net_of_ones_own_is_trained_and_pruned(run):
    assert load_snapshot(run / "snap_train.pkl").spec["arch"] == "TinyNet-3"
    assert [layer.name for layer in keras.models.load_model(run / "compact.keras").layers][1] == "conv1"


def test_a_criterion_of_ones_own_chooses_the_channels(run):
    assert load_snapshot(run / "snap_prune.pkl").plan["keep"] == {
        "conv1": [4, 5, 6, 7],
        "conv2": [4, 5, 6, 7],
    }


def test_a_loss_of_ones_own_is_learnt_from(run):
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["phase"] == "train"]
    assert rows and all(row["unweighted_gap"] > 0 for row in rows if "loss" in row)


def test_a_schedule_of_ones_own_moves_the_rate(run):
    """Two epochs of two steps: 1, 2/3, 1/3 and 0 of the rate."""
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["phase"] == "train"]
    assert [row["learning_rate"] for row in rows] == pytest.approx([2e-3 / 3, 0.0])


def test_a_file_adds_to_the_command_on_a_model_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    x = inputs = keras.Input((8, 8, 3))
    for name in ("one", "two"):
        x = keras.layers.Conv2D(6, 3, activation="relu", name=name)(x)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, outputs).save(tmp_path / "net.keras")
    words = ["net.keras", "--criterion", "later", "--keep", "0.5", "-o", "small.keras", "--import=mine.py"]
    python(tmp_path, "-m", "secateur", "prune", *words, path=REPO)
    small, whole = (keras.models.load_model(tmp_path / name) for name in ("small.keras", "net.keras"))
    expected = whole.get_layer("one").kernel.numpy()[..., 3:]
    assert (small.get_layer("one").kernel.numpy() == expected).all()
