"""The steps of a run, and which of them are done again when it continues with other options. Plain Python."""

from __future__ import annotations

from secateur.recipes.engine.config import RunOptions
from secateur.runs import MetricsLog, RunFolder, read_json


def stages(kind: type[RunOptions]) -> dict[str, str]:
    """Option → the first step that depends on it.

    What is neither here nor in `recipes.engine.config.VOLATILE` may not change.
    """
    return {
        name: field.json_schema_extra["stage"]
        for name, field in kind.model_fields.items()
        if "stage" in (field.json_schema_extra or {})
    }


def forget_outdated(folder: RunFolder, log: MetricsLog, config: RunOptions) -> None:
    """Forgets the steps that were done with other options, says so in one line, and stores the options.

    Files stay until they are made again. The options are stored last: after a kill it begins anew.
    """
    stored, wanted = read_json(folder.path("config.json")), config.to_json()
    changed = {
        name: stage for name, stage in stages(type(config)).items() if stored.get(name) != wanted[name]
    }
    if not changed:
        return
    outdated = config.STEPS[min(map(config.STEPS.index, changed.values())) :]
    folder.forget(outdated)
    for step in outdated:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    changes = ", ".join(f"{name}={stored.get(name)} is now {wanted[name]}" for name in changed)
    again = [step for step in outdated if step in config.steps]
    print(f"{config.train_path}: {changes}; to be done again: {', '.join(again)}", flush=True)
