"""Real data, which tests skip without, saying why; programs as processes; which tests share a worker."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur import dataloader
from secateur.runs.start import prefer_onednn
from tests.helpers.forked import Programs

prefer_onednn()  # as the commands do that tests compare with
REPO = Path(__file__).resolve().parents[1]
PUBLISHED = "published"  # the published commands have been run, and tests look at what they left
COSTLY = (PUBLISHED, "stripes")  # session's fixtures that take seconds: made in one worker only
LONGEST = "recipes"  # whole runs, of which the most lie in one file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file goes to one worker of pytest-xdist, and all files that use a costly fixture go to one.

    What takes longest begins first, so that both workers end at about the same time. A test that starts a
    program is among the `runs`, unless its file looks at the published commands.
    """
    items.sort(key=lambda item: (item.path.stem != "test_programs", LONGEST not in item.path.parts))
    shared = {item.path: name for item in items for name in COSTLY if name in item.fixturenames}
    for item in items:
        group = shared.get(item.path, str(item.path.relative_to(REPO)))
        item.add_marker(pytest.mark.xdist_group(group))
        if "programs" in item.fixturenames and group != PUBLISHED:
            item.add_marker(pytest.mark.runs)


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Iterator[Programs]:
    """Runs programs without importing TensorFlow anew."""
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with `tfds/` (prepared data sets) and `weights/` (published snapshots), maybe read-only."""
    folder = Path(os.environ.get("SECATEUR_DATA", REPO / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set SECATEUR_DATA to a folder that holds tfds/ and weights/")
    return folder


@pytest.fixture(scope="session")
def cifar10(data_dir: Path) -> dataloader.Splits:
    """Real CIFAR-10. Do not read `.test` to decide anything."""
    folder = data_dir / "tfds"
    if not (folder / "cifar10").is_dir():
        pytest.skip(f"no prepared cifar10 in {folder}")
    return dataloader.load("CIFAR10", str(folder), download=False)
