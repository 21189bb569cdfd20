"""A run folder that goes on with other options or another recipe: what is forgotten, what stays."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from secateur.dataloader import Splits, parts_of
from secateur.recipes.engine.config import VOLATILE, RunOptions
from secateur.recipes.engine.flags import name_of, tables_of
from secateur.recipes.engine.program import ENDING, ENGINE
from secateur.recipes.engine.recipe import are_steps
from secateur.recipes.engine.step import make_step
from secateur.runs import MetricsLog, RunFolder, RunFolderError, UsageError, read_json
from secateur.runs.folder import damaged

REPORTED = ("until", "time_seconds", "bn")  # options that change what is reported
IMAGES = "images"
"""Key of config.json: what the images of a run are, wherever they lie."""
MAY_DIFFER = (*VOLATILE, *REPORTED, "set", "flags", "program", IMAGES)
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

    Files stay until they are made again. The options are stored last: after a kill it begins anew. All steps
    are forgotten where other files are left out than before, for they change what is held out.

    Raises `RunFolderError` where steps were done with other images.
    """
    stored = _stored(folder.path("config.json"))
    stored["program"] = [_complete(table) for table in stored.get("program", [])]
    other = _other_images(folder, stored.get(IMAGES), wanted.get(IMAGES))
    if not other and all(stored.get(key) == wanted[key] for key in ("program", *REPORTED)):
        return
    done = dict.fromkeys([*folder.steps(), *folder.begun(), *(row["phase"] for row in log.rows())])
    again = list(done) if other else outdated(stored["program"], wanted["program"], done)
    folder.forget(again)
    for step in again:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    changes = ", ".join(changed(stored, wanted)) or other or "the recipe has changed"
    print(f"{os.fspath(folder)}: {changes}" + (f"; to be done again: {', '.join(again)}" if again else ""))


def images_of(splits: Splits) -> dict[str, Any]:
    """What says of a data set that it is the same: classes, numbers of images, and a digest of all labels."""
    parts = (splits.train, splits.holdout)
    labels = [np.ascontiguousarray(x) for part in parts for x in keras.tree.flatten(parts_of(part.labels))]
    return {
        "classes": list(splits.facts.class_names) or splits.facts.num_classes,
        "count": sum(map(len, parts)),
        "left out": splits.skipped_train,
        "labels": hashlib.sha256(b"".join(x.tobytes() for x in labels)).hexdigest()[:16],
    }


def _other_images(folder: RunFolder, before: Any, now: Any) -> str:
    """In words, how images differ from those of a folder; "" for the same, and for folders of before this."""
    if not isinstance(before, dict) or before == now:
        return ""
    count, left_out = ([one.get(key) for one in (before, now)] for key in ("count", "left out"))
    if before.get("classes") == now["classes"] and left_out[0] != left_out[1]:
        return f"{left_out[0]} images were left out, now {left_out[1]}"
    if folder.steps() or folder.begun():
        raise RunFolderError(
            f"{os.fspath(folder)} holds a run on other images, {count[0]} of {before.get('classes')}: choose "
            f"another --train_path. Received: {count[1]} of {now['classes']}"
        )
    return f"{count[0]} images are now {count[1]}"


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
