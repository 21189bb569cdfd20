"""Options of `python -m coding`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.options import check_ranges, option, parse_into
from runs import RunFolderError, SnapshotError, UsageError
from runs.suggest import nearest

PROG = "python -m coding encode|decode|inspect FILE"
COMMANDS = ("encode", "decode", "inspect")
WRITES = {"encode": ".kpz", "decode": ".keras"}


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """What to do with which file."""

    command: str = option("", "encode, decode or inspect; it comes first and needs no flag")
    file: str = option(
        "", "what is read: a .keras file or a snapshot to encode, else a .kpz file; it comes second"
    )
    output: str | None = option(None, "the file to write (also -o): .kpz of encode, .keras of decode")
    bits: int | None = option(
        None,
        "share the weights of each convolution first: at most 2^bits values, and 0",
        at_least=1,
        at_most=16,
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.command not in COMMANDS:
            hint = nearest(self.command, COMMANDS)
            raise UsageError(f"Encode, decode or inspect? Received: command={self.command!r}. {hint}")
        if not self.file:
            raise UsageError(f"Which file? It follows the command: python -m coding {self.command} FILE")
        if self.bits is not None and self.command != "encode":
            raise UsageError(f"Only encode shares weights. Received: --bits {self.bits} with {self.command}")
        if (self.command in WRITES) != (self.output is not None):
            need = (
                f"Where to? Give -o NAME{WRITES.get(self.command)}"
                if self.output is None
                else "No file is written"
            )
            raise UsageError(f"{need}. Received: {self.command} with output={self.output}")


def check_places(options: CodeOptions) -> None:
    """Before any work: raises `SnapshotError` for a missing file, `RunFolderError` for a bad place."""
    if not Path(options.file).is_file():
        raise SnapshotError(f"There is no such file. Received: file={options.file}")
    if options.output is None:
        return
    suffix = WRITES[options.command]
    if Path(options.output).suffix != suffix:
        raise RunFolderError(f"The file needs the ending {suffix}. Received: output={options.output}")
    folder = Path(options.output).absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise RunFolderError(
            f"There is no such folder, or nothing may be written there. Received: output={options.output}"
        )


def parse(argv: Sequence[str] | None = None) -> CodeOptions:
    """Command line → `CodeOptions`. Raises `UsageError` for what cannot be understood."""
    words = ["--output" if word == "-o" else word for word in (sys.argv[1:] if argv is None else argv)]
    for place, flag in ((0, "--command"), (2, "--file")):
        if len(words) > place and not words[place].startswith("-"):
            words.insert(place, flag)
    description = "A Keras model in the fewest bytes, every bit of its weights kept."
    return parse_into(CodeOptions, words, prog=PROG, description=description)
