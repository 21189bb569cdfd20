"""The wheel in an environment of its own: one name, one program, run from a folder without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.runs
REPO = Path(__file__).resolve().parents[1]


def run(*command: object, **options: object) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A new environment with the wheel and nothing else; what the wheel depends on is found in this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, REPO)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    (wheel,) = folder.glob("*.whl")
    run(
        *pip, "--python", folder / "env" / "bin" / "python", "install", "-q", "--no-deps", "--no-index", wheel
    )
    return folder / "env"


def elsewhere(folder: Path) -> dict:
    """A working folder and environment variables in which only installed packages are found."""
    libraries = sysconfig.get_path("purelib")
    return {"cwd": folder, "env": os.environ | {"PYTHONPATH": libraries, "TF_CPP_MIN_LOG_LEVEL": "3"}}


def test_secateur_is_the_only_name(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    names = {path.name.partition("-")[0] for path in packages.iterdir()}
    assert names == {"secateur"}


def test_the_program_prunes_a_model_from_another_folder(installed: Path, tmp_path: Path) -> None:
    layers = [keras.layers.Conv2D(16, 3), keras.layers.Conv2D(16, 3), keras.layers.GlobalMaxPooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(10)])
    model.save(tmp_path / "model.keras")
    command = "prune model.keras --keep_macs 0.5 --criterion l1 -o small.keras".split()
    printed = run(installed / "bin" / "secateur", *command, **elsewhere(tmp_path))
    assert "small.keras" in printed
    small = keras.models.load_model(tmp_path / "small.keras")
    assert small.count_params() < 0.7 * model.count_params()


@pytest.mark.parametrize("program", ["", "prune", "train", "test", "encode", "int8"])
def test_every_program_has_help(installed: Path, tmp_path: Path, program: str) -> None:
    words = [*program.split(), "--help"]
    assert "usage: " in run(installed / "bin" / "secateur", *words, **elsewhere(tmp_path))


def test_rooms_are_parts_of_the_package_alone(installed: Path, tmp_path: Path) -> None:
    """Installed, `pruning` is not a name: somebody else's package of that name is not hidden."""
    code = (
        "import secateur.pruning, importlib.util as u; print([n for n in secateur.ROOMS if u.find_spec(n)])"
    )
    assert run(installed / "bin" / "python", "-c", code, **elsewhere(tmp_path)).strip() == "[]"
