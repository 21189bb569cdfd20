"""Fixtures for tests on real data. They skip, and say why, where the data is not at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur import dataloader

REPO = Path(__file__).resolve().parents[1]


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
