"""What is imported is declared and pinned, the pins fit together, no file names the machine it is from."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
SCRIPTS = ("train_cifar.py", "test.py", "op_utils.py")
ROOMS = tuple("coding compute dataloader distillation exports nets pruning recipes reports runs".split())
OURS = (*SCRIPTS, *ROOMS, "secateur")
OWN = {"secateur", "benchmarks", "tests"}
NAMES = {"modelopt": "nvidia-modelopt"}  # of what is not installed with the tests
NEEDED_BY_OTHERS = {"importlib-resources": "tensorflow_datasets"}
FOREIGN_PATHS = re.compile(r"(?<![\w.])/[w]ork/|/tmp/[v]\b|/opt/[p]ypi|[p]ypi\.org|[p]ythonhosted\.org")
DATA_BESIDE_THE_PROJECT = re.compile(r"\.\./[s]hared")
MAY_NAME_THE_DATA = {"README.md", "tests/conftest.py"}


def requirements(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml declares, by canonical name."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins(*files: str) -> dict[str, str]:
    """Canonical name → version of lock files; anything but `name==version` and comments fails."""
    found = {}
    for file in files:
        for line in (REPO / file).read_text().splitlines():
            if not line.startswith("#"):
                match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)", line)
                assert match, f"{file}: {line!r} is not name==version"
                found[canonicalize_name(match[1])] = match[2]
    return found


def sources(*places: str) -> list[Path]:
    found = [file for place in places for file in sorted((REPO / place).rglob("*.py"))]
    return found + [REPO / place for place in places if place.endswith(".py")]


def foreign_imports(files: list[Path]) -> set[str]:
    """Distributions that the files import, wherever in the file."""
    modules = {module.split(".")[0] for file in files for module in imported(ast.parse(file.read_text()))}
    known = importlib.metadata.packages_distributions()
    foreign = modules - OWN - set(sys.stdlib_module_names)
    return {canonicalize_name(known.get(module, [NAMES.get(module, module)])[0]) for module in foreign}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def tracked() -> list[str]:
    """Files of the project as git lists them, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name and (REPO / name).is_file()]


def test_the_product_declares_exactly_what_it_imports() -> None:
    assert foreign_imports(sources(*SCRIPTS, *ROOMS, "secateur")) | set(NEEDED_BY_OTHERS) == set(
        requirements()
    )


@pytest.mark.parametrize(("place", "extra"), [("tests", "test"), ("benchmarks", "bench")])
def test_tests_and_benchmarks_declare_what_they_import(place: str, extra: str) -> None:
    optional = {"jax", "jaxlib", "torch"} if place == "tests" else set()  # tests of those skip without them
    assert foreign_imports(sources(place)) <= set(requirements(extra)) | optional | {"packaging"}


LOCK, BENCH_LOCK = "requirements.lock", "requirements-bench.lock"


@pytest.mark.parametrize(("files", "extras"), [([LOCK], ["test"]), ([LOCK, BENCH_LOCK], ["test", "bench"])])
def test_pins_lie_in_the_declared_ranges(files: list[str], extras: list[str]) -> None:
    pinned, declared = pins(*files), requirements(*extras)
    assert declared.keys() <= pinned.keys()
    assert not [str(r) for name, r in declared.items() if not r.specifier.contains(pinned[name])]


def test_the_lock_needs_nothing_that_it_does_not_pin() -> None:
    pinned = pins("requirements.lock")
    assert missing(pinned) == []


def missing(pinned: dict[str, str]) -> list[str]:
    """Requirements of pinned and installed distributions that the pins do not meet (extras included)."""
    wanted, seen, problems = [(name, "") for name in pinned], set(), []
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            target = canonicalize_name(requirement.name)
            if target not in pinned or not requirement.specifier.contains(pinned[target]):
                problems.append(f"{name} needs {requirement}")
                continue
            wanted += [(target, more) for more in requirement.extras]
    return problems


def test_the_lock_has_no_gpu_frameworks() -> None:
    """PyTorch and JAX are for benchmarks; their default builds bring gigabytes."""
    assert not [name for name in pins(LOCK) if re.match("torch|jax|nvidia|cuda|triton", name)]


def test_this_python_is_a_supported_one() -> None:
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        ".".join(map(str, sys.version_info[:3]))
    )


def test_every_room_is_packaged() -> None:
    wheel = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {name: f"secateur/{name}" for name in sorted((*ROOMS, "op_utils.py"))}
    packages = {path.parent.name for path in REPO.glob("*/__init__.py")} - OWN
    assert packages == set(ROOMS)


def test_ci_checks_rules_and_runs_the_tests() -> None:
    script = REPO / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert all(command in text for command in ("make lint", "make test\n", "make test-runs"))


@pytest.mark.parametrize("target", ["demo", "test", "test-runs", "bench", "lint"])
def test_every_target_builds_the_environment_first(target: str, tmp_path: Path) -> None:
    """`make -n` in a folder without .venv: the installation comes before the target's own command."""
    for name in ("Makefile", "requirements.lock", "requirements-bench.lock"):
        (tmp_path / name).write_bytes((REPO / name).read_bytes())
    done = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, own = done.stdout.find("-m venv .venv"), done.stdout.rfind(".venv/bin/")
    assert 0 <= first < done.stdout.find("-r requirements.lock") < own


def test_no_file_names_the_machine_it_was_made_on() -> None:
    found = []
    for name in tracked():
        text = (REPO / name).read_bytes().decode("utf-8", "replace")
        pattern = FOREIGN_PATHS.search(text)
        if pattern is None and name not in MAY_NAME_THE_DATA:
            pattern = DATA_BESIDE_THE_PROJECT.search(text)
        if pattern:
            found.append(f"{name}: {pattern[0]}")
    assert not found


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one worker has all tests")
def test_the_tests_of_a_file_go_to_one_worker(request) -> None:
    assert request.node.nodeid.endswith("@tests/test_packaging.py")
