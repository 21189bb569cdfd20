"""mypy over the public API: `python -m tests.typing`, part of `make lint`.

mypy cannot follow the path that `secateur/__init__.py` extends in a checkout. It reads a folder of links that
looks like an installed package: the wheel's own table says what lies where.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CACHE = REPO / ".mypy_cache"
USES = REPO / "tests" / "typing" / "public_api.py"


def lay_out(root: Path) -> None:
    """Links as the wheel has files: root/secateur/nets → nets."""
    shutil.rmtree(root, ignore_errors=True)
    wheel = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    own = {str(path.relative_to(REPO)): f"secateur/{path.name}" for path in (REPO / "secateur").glob("*.py")}
    for source, place in {**own, **wheel["force-include"]}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(REPO / source)
    (root / USES.name).symlink_to(USES)


def public_modules() -> Iterator[str]:
    """Modules behind the names that rooms offer, and the rooms themselves."""
    yield "secateur.callbacks"
    for room in ("coding", "dataloader", "distillation", "exports", "nets", "pruning"):
        yield f"secateur.{room}"
        tree = ast.parse((REPO / room / "__init__.py").read_text())
        yield from (
            node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        )


def main() -> None:
    """Becomes mypy, whose exit code counts."""
    root = CACHE / "layout"
    lay_out(root)
    modules = sorted({name for name in public_modules() if name.startswith("secateur.")})
    command = ["-m", "mypy", "--config-file", str(REPO / "pyproject.toml"), "--cache-dir", str(CACHE)]
    words = [word for name in ("secateur", *modules) for word in ("-m", name)]
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, *command, *words, "-m", "public_api"])


if __name__ == "__main__":
    main()
