"""Measured layers, on disk: one JSON file per processor, setup and versions of the programs."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable
from pathlib import Path

import keras
import platformdirs

from secateur.exports.timing import Setup, processor
from secateur.runs import RunFolderError, read_json, warn, write_json
from secateur.runs.errors import first_line

SECONDS = 0.03  # for the calls of one layer; at least 5 are made
EVERY = 25  # new entries after which the file is written
PROGRAMS = ("tensorflow", "ai-edge-litert")  # whose versions change times


def cache_folder() -> Path:
    """`$SECATEUR_CACHE`, else `secateur` in the user's cache folder."""
    if own := os.environ.get("SECATEUR_CACHE"):
        return Path(own)
    return platformdirs.user_cache_path("secateur")


class Table:
    """Milliseconds by key, measured when they are first asked for.

    Args:
        setup: what they are measured with.
        folder: where the file lies; None is `cache_folder()`. Made when it is missing.

    Every version of TensorFlow and LiteRT has its own file. One that is damaged, or whose content belongs to
    something else than its name says, is measured anew.
    """

    def __init__(self, setup: Setup, folder: str | os.PathLike | None = None) -> None:
        self.setup = setup
        folder = Path(folder) if folder else cache_folder()
        versions = {name: importlib.metadata.version(name) for name in PROGRAMS}
        self._about = {"processor": processor(), "setup": str(setup), **versions}
        machine = re.sub(r"\W+", "-", processor()).strip("-").lower()
        named = (machine, setup.backend, setup.threads, setup.batch, *versions.values())
        self.path = folder / f"{'-'.join(map(str, named))}.json"
        self._known = self._read()
        self._new = 0

    def __len__(self) -> int:
        return len(self._known)

    def milliseconds(self, key: str, make: Callable[[], keras.Model]) -> float:
        """The entry `key`; where it is missing, that of the model that `make` gives."""
        if key not in self._known:
            self._known[key] = self.setup.milliseconds({key: make()}, SECONDS)[key]
            self._new += 1
            if self._new >= EVERY:
                self.save()
        return self._known[key]

    def save(self) -> None:
        """Writes what is new, beside what other processes have written meanwhile."""
        if self._new:
            self._known = self._read() | self._known
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, {**self._about, "ms": self._known})
            except (RunFolderError, OSError) as error:
                warn(f"measured times are not kept: {first_line(error)}")
            self._new = 0

    def _read(self) -> dict[str, float]:
        try:
            found = read_json(self.path)
            same = all(found.get(name) == value for name, value in self._about.items())
            return {str(key): float(ms) for key, ms in found["ms"].items()} if same else {}
        except FileNotFoundError:
            return {}
        except (RunFolderError, OSError, AttributeError, KeyError, TypeError, ValueError):
            warn(f"{self.path} is damaged; its layers are measured again")
            return {}
