"""The command line of `train`: which recipe, the options of every run, and the recipe's own flags.

Plain Python: a word that cannot be understood is answered before TensorFlow is imported; a value of a
recipe's flag that is out of range, by the step whose key it sets.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.flags import Flag, name_of, tables_of, together, translate
from secateur.recipes.engine.options import METAVARS, Parser, add_options, described, joined, with_default
from secateur.recipes.engine.recipe import (
    RecipeFile,
    find_recipe,
    listing,
    published_recipes,
    written,
)
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

FLAG, KEYS = "--recipe", "--keys"
OF_NETS = ("arch", "head", "stem", "shortcut", "dropout")  # options that a model of one's own has no use for
USUAL, TIMED_RECIPE = "ekg", "auto"  # without --recipe, and without it but with --minutes
SNAPSHOTS = (".pkl", ".safetensors", ".pth", ".th")
WIDTH = 110  # of what `--keys` prints
LOSSES = "{losses}"  # in a flag's help: all losses with their published weights


def choose(words: Sequence[str], prog: str = "train_cifar.py") -> RunOptions | None:
    """Command line → the options of a run; None once `--recipe list` or `--keys` has been answered.

    Raises `UsageError` for what cannot be understood, with the nearest valid name.
    """
    name, words = _split(list(words))
    if name == "list":
        print(listing())
        return None
    recipe = _recipe(name)
    if words and not words[0].startswith("-"):
        words = ["--model", *words]
    words = joined(translate(words, recipe.published_flags))
    try:
        given = vars(_parser(prog, recipe, "--help" in words or "-h" in words).parse_args(words))
    except UsageError as error:
        raise _hinted(error, recipe) from None
    chosen = {flag: given.pop(flag) for flag in recipe.flags if flag in given}
    asked = given.pop("keys", False)
    options = _together(recipe, name, chosen, given)
    if asked:
        print(_keys(recipe.changed(options.set)))
        return None
    return options


def of_landscape(words: Sequence[str], prog: str) -> RunOptions | None:
    """The same for `secateur landscape`: a recipe; its first word may be a snapshot, or one's own model."""
    start = ["--trained_param"] if words and Path(words[0]).suffix in SNAPSHOTS else []
    return choose([FLAG, "landscape", *start, *words], prog)


def options_of(recipe: str | None, **given: Any) -> RunOptions:
    """The options of a run from values: those of every run, and flags of the recipe by their names.

    Without a recipe it is `auto` where there are minutes, else `ekg`. Raises `UsageError` for an unknown
    recipe or option, with the nearest valid name.
    """
    recipe = recipe or (TIMED_RECIPE if given.get("minutes") else USUAL)
    file = _recipe(recipe)
    names = {one: name for name, flag in file.flags.items() for one in (name, flag.alias) if one}
    chosen = {names[name]: value for name, value in given.items() if name in names}
    rest = {name: value for name, value in given.items() if name not in names}
    if strange := [name for name in rest if name not in RunOptions.model_fields]:
        # what the caller has said stands in an argument of another name
        valid = nearest(strange[0], [*names, *(one for one in RunOptions.model_fields if one not in given)])
        steps = ", ".join(dict.fromkeys(name_of(table) for table in tables_of(file.steps)))
        raise UsageError(
            f"Recipe {recipe!r} has no such option. Received: {strange[0]}={rest[strange[0]]!r}. {valid}\n"
            f"set=['STEP.KEY=VALUE'] changes a step of {steps}"
        )
    return _together(file, recipe, chosen, rest)


def _recipe(name: str) -> RecipeFile:
    if (recipe := find_recipe(name)) is None:
        valid = nearest(name, [*published_recipes(), "list"])
        raise UsageError(f"Unknown recipe. Received: recipe={name!r}. {valid}, or FILE.toml")
    return recipe


def _together(
    recipe: RecipeFile, name: str, chosen: Mapping[str, Any], given: Mapping[str, Any]
) -> RunOptions:
    """Flags of the recipe (`chosen`) and options of every run as one."""
    settings = together(chosen, recipe.flags)
    steps = [f"{target}={written(value)}" for target, value in settings.items() if "." in target]
    options = {target: value for target, value in settings.items() if "." not in target}
    every = {**given, "set": [*steps, *given.get("set", [])]}
    unused = [*(OF_NETS if given.get("model") else ()), *(["dataset"] if given.get("data") else ())]
    usual = {key: value for key, value in recipe.options.items() if key not in unused}
    return RunOptions(**{**usual, **options, **every, "recipe": name})


def _parser(prog: str, recipe: RecipeFile, asked: bool) -> Parser:
    """`asked`: for help, which has the weights of all losses and therefore imports them."""
    steps = [name_of(table) for table in tables_of(recipe.steps) if not table.get("skip")]
    steps = ", ".join(dict.fromkeys(steps))
    more = f"Other recipes: {FLAG} list"
    parser = Parser(prog, description=f"{recipe.about}. Steps: {steps}. {more}")
    parser.add_argument(
        KEYS, action="store_true", help="print the keys of all steps, and what --set may change"
    )
    add_options(parser, RunOptions, recipe.options, taken=recipe.flags)
    for name, flag in recipe.flags.items():
        text = flag.help.replace(LOSSES, _losses()) if asked and LOSSES in flag.help else flag.help
        try:
            _add(parser, name, flag, text, flag.standing(recipe.steps, recipe.options))
        except argparse.ArgumentError as error:
            raise UsageError(f"Two flags of one name ({error}). Received: flags.{name}") from None
    return parser


def _keys(steps: Sequence[Mapping[str, Any]]) -> str:
    """For each step its keys, what stands in them, and what may: `STEP.KEY=VALUE` as `--set` takes it."""
    from secateur.runs.start import start_tensorflow

    start_tensorflow()  # silently, before the steps bring it
    from secateur.recipes.engine.step import make_step

    lines = []
    for table in tables_of(steps):
        own = make_step(table)
        if own.skip:
            lines += ["", f"{own.label}: left out, --set {own.label}.skip=false"]
            continue
        lines += ["", f"{own.label}: {inspect.getdoc(type(own)).splitlines()[0]}"]
        for key, words in described(type(own)).items():
            if key not in ("name", "steps"):
                value = getattr(own, key)
                stands = "not set" if value is None else written(value)
                line = f"  {own.label}.{key}={stands}  {words}"
                lines.append(textwrap.fill(line, WIDTH, subsequent_indent=" " * 6))
    return "\n".join(lines[1:])


def _losses() -> str:
    """kd 0.9, kd_std 9, …"""
    from secateur.distillation import get_loss, list_losses

    return ", ".join(f"{name} {get_loss(name).beta:g}" for name in list_losses())


def _add(parser: Parser, name: str, flag: Flag, text: str, default: Any) -> None:
    """One flag; the type of its value is that of its default, which stands in the recipe."""
    names = [f"--{one}" for one in (name, flag.alias) if one]
    options: dict[str, Any] = {"dest": name, "help": with_default(text, default)}
    if isinstance(default, bool):
        options["action"] = argparse.BooleanOptionalAction
    elif flag.values:
        options["choices"] = tuple(flag.values)
    else:
        kind = float if isinstance(default, list) else type(default)
        options |= {"type": kind, "metavar": METAVARS[kind]}
        options |= {"nargs": "+"} if isinstance(default, list) else {}
    parser.add_argument(*names, **options)


def _hinted(error: UsageError, recipe: RecipeFile) -> UsageError:
    """Behind a flag that a recipe without flags does not have: where its steps are changed."""
    text = str(error)
    if recipe.flags or not text.startswith("unrecognized arguments"):
        return error
    return UsageError(f"{text.splitlines()[0]}\n--set STEP.KEY=VALUE changes a step; --keys prints them")


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The name behind the last `--recipe`, and the other words."""
    timed = any(word.partition("=")[0] == "--minutes" for word in words)
    name, rest = TIMED_RECIPE if timed else USUAL, []
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
