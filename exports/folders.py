"""A folder in one step: written beside its place, then moved there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from secateur.runs.errors import disk_errors
from secateur.runs.files import temporary


def make_folder(path: str | os.PathLike, make: Callable[[Path], None]) -> None:
    """`make_atomic` for a folder: what is there is moved aside, since renaming replaces no folder.

    When anything fails it is moved back.
    """
    target = Path(path)
    temp = temporary(target)
    old = temp.with_name(f"{temp.name}.old")
    with disk_errors(path):
        try:
            make(temp)
            if target.exists():
                os.replace(target, old)
            os.replace(temp, target)
        except BaseException:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(temp, ignore_errors=True)
            raise
    _remove(old)


def _remove(path: Path) -> None:
    """A folder, or a file that stood in a folder's place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
