"""One run of the published commands on the digits, which several tests look at, and programs to run more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import REPO, Done, Programs, shell

SMALL = "--arch ResNet-20 --dataset DIGITS --target_rate 0.9"
TRAIN = f"python train_cifar.py --gpu_id 0 {SMALL} --train_path ../test --baseline_epoch 2 --train_epoch 2"
TEST = "python test.py --gpu_id 0 --arch ResNet-20 --dataset DIGITS --trained_param ../test/trained_param.pkl"


@dataclass(frozen=True)
class Published:
    """The two published commands have been run in `cwd`; `folder` is what they left behind."""

    cwd: Path
    folder: Path
    train: Done
    test: Done


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Published:
    """Verbatim but for the network, the data set and the epochs."""
    cwd = tmp_path_factory.mktemp("published") / "Secateur"
    cwd.mkdir()
    for program in ("train_cifar.py", "test.py"):
        (cwd / program).symlink_to(REPO / program)
    train = shell(TRAIN, cwd)
    assert train.code == 0, train.err[-2000:]
    return Published(cwd, cwd.parent / "test", train, shell(TEST, cwd))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Runs programs without importing TensorFlow anew."""
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()
