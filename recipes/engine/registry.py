"""The recipes of `train_cifar.py --recipe NAME`: options, defaults and flags as data. Plain Python."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from secateur.recipes.engine.flags import HAP_FLAGS, Ours, translate
from secateur.recipes.engine.listing import listing
from secateur.recipes.engine.options import parse_into
from secateur.recipes.engine.recipe import find_recipe, name_of, published_recipes, tables_of
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

PROG = "train_cifar.py"
FLAG = "--recipe"


@dataclass(frozen=True)
class Recipe:
    """A system from beginning to end.

    Attributes:
        about: a line for `--recipe list` and `--help`.
        options: class of the options, as "module:name".
        run: function of the options, as "module:name".
        defaults: option → value, where it is not the class's own.
        flags: a published flag → ours (see `recipes.engine.flags`).
    """

    about: str
    options: str
    run: str
    defaults: Mapping[str, object] = field(default_factory=dict)
    flags: Mapping[str, Ours] = field(default_factory=dict)

    def start(self, options: object) -> object:
        """Runs it."""
        return _named(self.run)(options)


RECIPES = {
    "ekg": Recipe(
        "sub-network search guided by an ensemble of its own interim networks (Lee & Song 2022)",
        "secateur.recipes.engine.config:Config",
        "secateur.recipes.ekg:run",
    ),
    "distill": Recipe(
        "a network learns from trained ones: any loss, any number of teachers, pruned before or not",
        "secateur.recipes.engine.config_distill:DistillConfig",
        "secateur.recipes.distill:run",
    ),
    "hap": Recipe(
        "filters pruned by NGGM, then attention-preserving self-distillation from the whole network",
        "secateur.recipes.engine.config_distill:DistillConfig",
        "secateur.recipes.distill:run",
        {
            "copy_teacher": True,
            "criterion": "nggm",
            "keep": 0.6,
            "distill": "kd+hap",
            "train_epoch": 200,
        },
        HAP_FLAGS,
    ),
}


PROGRAM = ("secateur.recipes.engine.config_program:ProgramOptions", "secateur.recipes.engine.run:run")
"""What every recipe file is: options and function."""


def parse(words: Sequence[str], prog: str) -> tuple[Recipe, object] | None:
    """Command line → the recipe and its options; None once `--recipe list` has been answered."""
    recipe, options = choose(words, prog)
    return recipe and (recipe, options)


def start(chosen: tuple[Recipe, object]) -> None:
    """Runs what `parse` has understood."""
    recipe, options = chosen
    recipe.start(options)


def choose(argv: Sequence[str] | None = None, prog: str = PROG) -> tuple[Recipe | None, object]:
    """Command line → the recipe and its options; (None, None) once `--recipe list` has been answered.

    Raises `UsageError` for what cannot be understood, with the nearest valid name.
    """
    name, words = _split(list(sys.argv[1:] if argv is None else argv))
    if name == "list":
        print(listing(RECIPES))
        return None, None
    recipe = RECIPES.get(name) or _from_file(name)
    about = f"{recipe.about}. Other recipes: {FLAG} list"
    words = translate(words, recipe.flags)
    kind = _named(recipe.options)
    try:
        return recipe, parse_into(kind, words, prog=prog, description=about, defaults=recipe.defaults)
    except UsageError as error:
        raise _hinted(error, recipe) from None


def _hinted(error: UsageError, recipe: Recipe) -> UsageError:
    """Behind a flag that a recipe of steps does not have: where its steps are changed."""
    text = str(error)
    if recipe.options != PROGRAM[0] or not text.startswith("unrecognized arguments"):
        return error
    return UsageError(f"{text.splitlines()[0]}\n--set STEP.KEY=VALUE changes a step; --help names the steps")


def _from_file(name: str) -> Recipe:
    if (found := find_recipe(name)) is None:
        valid = nearest(name, [*RECIPES, *published_recipes(), "list"])
        raise UsageError(f"Unknown recipe. Received: recipe={name!r}. {valid}, or FILE.toml")
    known = [name for name in _named(PROGRAM[0]).model_fields if name not in ("recipe", "set")]
    for key in found.options:
        if key not in known:
            raise UsageError(f"Unknown option. Received: {name}: {key}. {nearest(key, known)}")
    steps = ", ".join(dict.fromkeys(name_of(table) for table in tables_of(found.steps)))
    return Recipe(f"{found.about}. Steps: {steps}", *PROGRAM, defaults={**found.options, "recipe": name})


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The name behind the last `--recipe`, and the other words."""
    name, rest = "ekg", []
    while words:
        word = words.pop(0)
        if word == FLAG and not words:
            raise UsageError(f"Which recipe? {FLAG} list prints them. Received: {FLAG} without a name")
        if word == FLAG:
            name = words.pop(0)
        elif word.startswith(f"{FLAG}="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
    return name, rest


def _named(path: str) -> Callable:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
