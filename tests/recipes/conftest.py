"""One run of the published commands on the digits, which several tests look at, and a model of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.__main__ import dispatch
from secateur.runs import save_snapshot
from tests.helpers.forked import REPO, Done, shell
from tests.helpers.spy import spied

SMALL = "--arch ResNet-8 --dataset DIGITS"
TRAIN = (
    f"python train_cifar.py --gpu_id 0 {SMALL} --target_rate 0.9 --train_path ../test --baseline_epoch 2"
    " --train_epoch 2 --train_images 512 --time_seconds 0.1"
)
TEST = f"python test.py --gpu_id 0 {SMALL} --trained_param ../test/trained_param.pkl"


@dataclass(frozen=True)
class Published:
    """The two published commands have been run in `cwd`; `folder` is what they left behind."""

    cwd: Path
    folder: Path
    train: Done
    test: Done


@pytest.fixture(scope="session", autouse=True)
def spy() -> Iterator[None]:
    """No run in this process reads test images before its report; nor does one in `programs`."""
    with spied():
        yield


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Published:
    """Verbatim but for network, data set, epochs, images and the seconds in which networks are timed."""
    cwd = tmp_path_factory.mktemp("published") / "Secateur"
    cwd.mkdir()
    for program in ("train_cifar.py", "test.py"):
        (cwd / program).symlink_to(REPO / program)
    train = shell(TRAIN, cwd)
    assert train.code == 0, train.err[-2000:]
    return Published(cwd, cwd.parent / "test", train, shell(TEST, cwd))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Callable[..., Path]:
    """Snapshots of networks with random weights: architecture, classes, seed → file."""

    @functools.cache
    def make(arch: str = "ResNet-8", classes: int = 10, seed: int = 0) -> Path:
        keras.utils.set_random_seed(seed)
        path = tmp_path_factory.mktemp("untrained") / f"{arch}.pkl"
        save_snapshot(path, nets.snapshot_of(nets.build(arch, num_classes=classes), {"normalisation": "rgb"}))
        return path

    return make


@pytest.fixture
def secateur(tmp_path, monkeypatch, capfd) -> Callable[..., str]:
    """`secateur WORDS …` in a folder of its own and in this process: what it prints, or its error raised."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        capfd.readouterr()
        dispatch([*map(str, words)], "secateur")
        return capfd.readouterr().out

    return run


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """Folders of PNG images with upright and with lying stripes, and a classifier of them."""
    folder, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    images, labels = [], []
    for label, name in enumerate(("lying", "upright")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(40):
            wave = 127 + 90 * np.sin(np.arange(16) * rng.uniform(1, 2) + rng.uniform(0, 6))
            image = np.broadcast_to(wave[:, None] if label == 0 else wave, (16, 16)) + rng.normal(
                0, 20, (16, 16)
            )
            images.append(np.repeat(image[..., None], 3, 2).clip(0, 255))
            labels.append(label)
            keras.utils.save_img(folder / "images" / name / f"{i:02}.png", images[-1], scale=False)
    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127, -1)(x)
    for name in ("conv2d", "conv2d_1"):
        x = layers.Conv2D(16, 3, padding="same", use_bias=False, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.GlobalMaxPooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x), name="stripes")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(np.array(images), np.array(labels), epochs=8, batch_size=16, verbose=0)
    model.save(folder / "stripes.keras")
    return folder
