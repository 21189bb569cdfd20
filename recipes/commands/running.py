"""A command on a model of one's own as a run: its steps, in a folder that is a temporary one by default."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import keras

from secateur.nets.copies import flat_names
from secateur.nets.graph import trace
from secateur.pruning import Plan
from secateur.recipes.commands.options import TuningOptions
from secateur.recipes.engine.config import OwnOptions, RunOptions
from secateur.recipes.engine.files import COMPACT
from secateur.recipes.engine.recipe import RecipeFile
from secateur.recipes.engine.run import run
from secateur.recipes.engine.subject import Subject
from secateur.runs import UsageError, load_snapshot

OPTIMIZERS = {"sgd": "nesterov", "adam": "adam"}
DENSE = {"kind": "dense", "epochs": 0, "shown": True}


@contextmanager
def ran(
    options: OwnOptions, name: str, model: str, original: keras.Model, steps: Sequence[Mapping]
) -> Iterator[tuple[Path, dict]]:
    """The folder of a run that has gone through the steps, and its report; gone behind the block.

    Args:
        options: of the command.
        name: what reports call the steps.
        model: the file that `original` was read from.
        steps: tables as in a recipe file, behind the dense network.
    """
    given = {key for key in type(options).model_fields if key in RunOptions.model_fields}
    given -= {"keep_macs", "train_path", "model"}  # the budget is one of the step's
    given -= {"batch_size", "gpu_id"} - options.model_fields_set  # what nobody said is found
    shared = {key: getattr(options, key) for key in given}
    recipe = RecipeFile(name, steps=[DENSE, *steps])
    place = nullcontext(options.train_path) if options.train_path else tempfile.TemporaryDirectory()
    with place as path:
        own = {"recipe": name, "model": model, "train_path": path, "time_seconds": 1.0}
        config = RunOptions(**shared, **own)
        config._given_at = options.given_at  # minutes are those of the whole command
        yield Path(path), run(config, recipe, subject_of(options, original))


def subject_of(options: OwnOptions, model: keras.Model) -> Subject:
    """The model with its loss; without one where nobody can say what its outputs mean."""
    try:
        return Subject.own(model, options.loss, options.unfreeze)
    except UsageError:
        if options.loss:
            raise
        return Subject.unlabelled(model)


def training(options: TuningOptions) -> list[dict]:
    """The step of the fine-tuning, if there is one."""
    if not options.finetune_epochs:
        return []
    rule = {"optimizer": OPTIMIZERS[options.optimizer], "weight_decay": 0.0, "schedule": "cosine"}
    return [
        {"kind": "train", "epochs": options.finetune_epochs, "learning_rate": options.learning_rate, **rule}
    ]


def compact_of(folder: Path) -> keras.Model:
    """The plain network that a run has ended with."""
    return keras.models.load_model(folder / COMPACT, compile=False)


def plan_of(folder: Path, step: str, original: keras.Model) -> Plan:
    """The channels that a step has left, in the names of the model's own layers."""
    names = {flat: path for path, flat in flat_names(trace(original)).items()}
    return Plan.from_json(load_snapshot(folder / f"snap_{step}.pkl").plan).renamed(names)
