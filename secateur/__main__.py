"""The one program: python -m secateur COMMAND, or `secateur COMMAND`. Its table is what --help prints."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateur.runs.errors import INTERRUPTED, UsageError, cli
from secateur.runs.suggest import nearest

IMPORT = "--import"  # of every command
COMMANDS_OF = "secateur.recipes.commands"


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Attributes:
        about: a line for --help.
        options: a class of options, or a function (words, program) → options, None where
            nothing is left to do; as "module:name". Neither imports TensorFlow.
        run: function of the options, as "module:name".
        tensorflow: whether `run` needs it.
        interrupted: what Ctrl-C leaves behind, one line.
    """

    about: str
    options: str
    run: str
    tensorflow: bool = True
    interrupted: str = "interrupted: no file was written; start it again"


COMMANDS = {
    "prune": Command(
        "makes a saved Keras model smaller",
        f"{COMMANDS_OF}.options:PruneOptions",
        f"{COMMANDS_OF}.prune:run",
        interrupted="interrupted: the model was not written; start it again, with --train_path it goes on",
    ),
    "train": Command(
        "trains, prunes and distils a network by a recipe",
        "secateur.recipes.engine.command:choose",
        "secateur.recipes.engine.run:run",
        interrupted=INTERRUPTED,
    ),
    "test": Command(
        "evaluates snapshots on the test images",
        "secateur.recipes.engine.config:EvaluateOptions",
        f"{COMMANDS_OF}.evaluate:run",
        interrupted="interrupted: nothing was saved; start it again",
    ),
    "encode": Command(
        "writes a model in the fewest bytes",
        f"{COMMANDS_OF}.options:EncodeOptions",
        f"{COMMANDS_OF}.coding:encode",
    ),
    "decode": Command(
        "makes a Keras model of a .kpz file, bit for bit",
        f"{COMMANDS_OF}.options:DecodeOptions",
        f"{COMMANDS_OF}.coding:decode",
    ),
    "inspect": Command(
        "prints what a .kpz file holds, and where its bytes go",
        f"{COMMANDS_OF}.options:InspectOptions",
        f"{COMMANDS_OF}.coding:inspect",
        tensorflow=False,
    ),
    "int8": Command(
        "writes a model as a LiteRT file of whole numbers of 8 bits",
        f"{COMMANDS_OF}.options:Int8Options",
        f"{COMMANDS_OF}.coding:int8",
    ),
    "landscape": Command(
        "measures how smooth the loss is around a network",
        "secateur.recipes.engine.command:of_landscape",
        "secateur.recipes.engine.run:run",
        interrupted=INTERRUPTED,
    ),
    "report": Command(
        "writes the page of a report.json again, or one of its pictures as SVG",
        f"{COMMANDS_OF}.options:ReportOptions",
        "secateur.reports.command:run",
        tensorflow=False,
    ),
}

CODING = ("encode", "decode", "inspect", "int8")


def main(prog: str = "secateur", names: Sequence[str] = tuple(COMMANDS)) -> int:
    """A program whose first word is one of the commands `names`; returns its exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    interrupted = COMMANDS[name].interrupted if name in names else INTERRUPTED
    return cli(lambda: dispatch(sys.argv[1:], prog, names), interrupted)


def alone(name: str, prog: str) -> int:
    """A program that is one command; returns its exit code."""
    return cli(lambda: call(name, sys.argv[1:], prog), COMMANDS[name].interrupted)


def dispatch(words: Sequence[str], prog: str, names: Sequence[str] = tuple(COMMANDS)) -> None:
    """Does what the first word says with the others, or prints what there is. Raises `SecateurError`."""
    name, *rest = words or [""]
    if name in ("-h", "--help"):
        print(f"usage: {prog} COMMAND …\n\ncommands, each with its own --help:")
        print("\n".join(f"  {name:11}{COMMANDS[name].about}" for name in names))
    elif name in names:
        call(name, rest, f"{prog} {name}")
    else:
        raise UsageError(f"Which command? Received: {name or None}. {nearest(name, names)}")


def parse(name: str, words: Sequence[str], prog: str = "secateur") -> Any:
    """The options of a command; None where nothing is left to do. `prog` is what messages call the program.

    Raises `UsageError` for what cannot be understood.
    """
    from secateur.recipes.engine.options import parse_into

    options = _named(COMMANDS[name].options)
    return parse_into(options, words, prog) if isinstance(options, type) else options(words, prog)


def call(name: str, words: Sequence[str], prog: str) -> None:
    """Does a command. Raises `SecateurError`."""
    if (options := parse(name, _without_imports(words), prog)) is None:
        return
    command = COMMANDS[name]
    if command.tensorflow:
        from secateur.runs.start import start_tensorflow

        start_tensorflow()
    _named(command.run)(options)


def _without_imports(words: Sequence[str]) -> list[str]:
    """The words but `--import FILE`: such files are run first, what they register is found by name."""
    rest: list[str] = []
    left = iter(words)
    for word in left:
        flag, equals, file = word.partition("=")
        if flag != IMPORT:
            rest.append(word)
            continue
        from secateur.runs.registry import import_file
        from secateur.runs.start import start_tensorflow

        start_tensorflow()  # silently, before the file does
        import_file(file if equals else next(left, ""))
    return rest


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())
