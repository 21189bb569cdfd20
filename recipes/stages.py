"""The steps of a run, and which of them are done again when it continues with other options. Plain Python."""

from __future__ import annotations

import dataclasses

from recipes.config import Config
from runs import MetricsLog, RunFolder, read_json

STEPS = ("baseline", "warm-up", "search", "bank", "slim", "fine-tune", "compact", "litert", "report")
_TUNED = ("fine-tune", "compact", "litert")
DEPENDENT = {"bank": ("bank", *_TUNED, "report"), "fine-tune": (*_TUNED, "report"), "report": ("report",)}
"""Stage of an option → the steps that depend on it; the first stage has the most."""
STAGE_OF = {f.name: f.metadata["stage"] for f in dataclasses.fields(Config) if "stage" in f.metadata}
"""Option → stage. What is in neither this table nor `recipes.config.VOLATILE` may not change."""


def steps_of(config: Config) -> list[str]:
    """The steps that a run with these options consists of, in their order."""
    left_out = set()
    if config.criterion != "ekg":
        left_out |= {"warm-up", "search"}
    if not config.Knowledge:
        left_out.add("bank")
    if config.searching:
        left_out.update(_TUNED)
    return [step for step in STEPS if step not in left_out]


def forget_outdated(folder: RunFolder, log: MetricsLog, config: Config) -> None:
    """Forgets the steps that were done with other options, says so in one line, and stores the options.

    Files stay until they are made again. The options are stored last: after a kill it begins anew.
    """
    stored, wanted = read_json(folder.path("config.json")), config.to_json()
    changed = [name for name in STAGE_OF if stored.get(name) != wanted[name]]
    if not changed:
        return
    stages = {STAGE_OF[name] for name in changed}
    outdated = next(steps for stage, steps in DEPENDENT.items() if stage in stages)
    folder.forget(outdated)
    for step in outdated:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    changes = ", ".join(f"{name}={stored.get(name)} is now {wanted[name]}" for name in changed)
    again = [step for step in outdated if step in steps_of(config)]
    print(f"{config.train_path}: {changes}; to be done again: {', '.join(again)}", flush=True)
