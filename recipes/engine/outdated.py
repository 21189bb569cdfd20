"""A run folder that goes on with other options or another recipe: what is forgotten, what stays."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from secateur.recipes.engine.config import VOLATILE, RunOptions
from secateur.recipes.engine.flags import name_of, tables_of
from secateur.recipes.engine.program import ENDING, ENGINE
from secateur.recipes.engine.recipe import are_steps
from secateur.recipes.engine.step import make_step
from secateur.runs import MetricsLog, RunFolder, RunFolderError, UsageError, read_json
from secateur.runs.folder import damaged

REPORTED = ("until", "time_seconds", "bn")  # options that change what is reported
MAY_DIFFER = (*VOLATILE, *REPORTED, "set", "flags", "program")
# What a folder was run with that has no such option yet.
DEFAULTS = {name: field.default for name, field in RunOptions.model_fields.items() if not field.is_required()}


def refuse_old(path: Path) -> None:
    """Raises `RunFolderError` where the folder has a run of another engine."""
    config = path / "config.json"
    if os.path.isfile(config) and (found := _stored(config).get("engine")) != ENGINE:
        raise RunFolderError(
            f"{path} holds a run of another version, which cannot be continued: choose another --train_path. "
            f"Received: engine={found}"
        )


def _stored(config: Path) -> dict:
    """What config.json holds. Raises `RunFolderError` where no run has written that."""
    stored = read_json(config)
    sound = isinstance(stored, dict) and isinstance(stored.get("flags", {}), dict)
    if sound and are_steps(stored.get("program", [])):
        return stored
    raise damaged(config)


def forget_changed(folder: RunFolder, log: MetricsLog, wanted: Mapping) -> None:
    """Forgets the steps that this recipe now does otherwise, says so in one line, and stores the options.

    Files stay until they are made again. The options are stored last: after a kill it begins anew.
    """
    stored = _stored(folder.path("config.json"))
    stored["program"] = [_complete(table) for table in stored.get("program", [])]
    if all(stored.get(key) == wanted[key] for key in ("program", *REPORTED)):
        return
    done = dict.fromkeys([*folder.steps(), *folder.begun(), *(row["phase"] for row in log.rows())])
    again = outdated(stored["program"], wanted["program"], done)
    folder.forget(again)
    for step in again:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    changes = ", ".join(changed(stored, wanted)) or "the recipe has changed"
    print(f"{os.fspath(folder)}: {changes}" + (f"; to be done again: {', '.join(again)}" if again else ""))


def _complete(table: dict) -> dict:
    """A step of config.json with the options that came after it: it was run as with their defaults."""
    try:
        return make_step(table).to_json()
    except UsageError:  # of a kind, or with an option, that there is no more
        return table


def outdated(stored: Sequence[Mapping], wanted: Sequence[Mapping], done: Iterable[str]) -> list[str]:
    """Those of the steps `done` that come after the last step that two versions of a recipe share."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(stored, wanted, strict=False))
    kept = {name_of(table) for pair in alike for table in tables_of([pair[1]])}
    kept |= set(ENDING[:-1]) if stored == wanted else set()
    return [name for name in done if name.partition("-")[0] not in kept]


def changed(stored: Mapping, wanted: Mapping) -> list[str]:
    """In words, what two versions of a run have in common but with other values."""
    before, now = ({key: one.get(key) for key in REPORTED} | one.get("flags", {}) for one in (stored, wanted))
    found = [f"{key}={before.get(key)} is now {now[key]}" for key in now if before.get(key) != now[key]]
    if found:
        return found
    before = {name_of(table): table for table in tables_of(stored.get("program", []))}
    for table in tables_of(wanted["program"]):
        old = before.get(name := name_of(table), table)
        found += [
            f"{name}.{key}={old.get(key)} is now {value}"
            for key, value in table.items()
            if key != "steps" and old.get(key) != value
        ]
    return found
