"""Options of `python -m coding`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.coding.sharing.kernels import KINDS
from secateur.recipes.commands.prune_options import PruneOptions
from secateur.recipes.engine.options import check_ranges, option, parse_into
from secateur.runs import SnapshotError, UsageError
from secateur.runs.files import check_place
from secateur.runs.suggest import nearest

PROG = "python -m coding encode|decode|inspect|int8 FILE"
WRITES = {"encode": ".kpz", "decode": ".keras", "int8": ".tflite", "inspect": None}
SHOWN = {"data", "data_path", "pixels", "batch_size", "seed"}
TAKES = {
    "encode": {"bits", "keep_bytes", "max_loss", "layers", *SHOWN},
    "decode": set(),
    "inspect": set(),
    "int8": {"samples", "numbers", "finetune_epochs", "augment", "optimizer", "learning_rate", *SHOWN},
}
"""Command → the flags that mean something to it, beside the two files."""


def _as_in_pruning(name: str, default: Any = None) -> Any:
    """The option of that name of `python -m pruning`, so that the two programs read images alike."""
    known = next(field for field in dataclasses.fields(PruneOptions) if field.name == name)
    more = {key: value for key, value in known.metadata.items() if key != "help"}
    return option(known.default if default is None else default, known.metadata["help"], **more)


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """What to do with which file."""

    command: str = option("", "encode, decode, inspect or int8; it comes first and needs no flag")
    file: str = option(
        "",
        "what is read: a .keras file or a snapshot to encode, a .keras file for int8, else a .kpz file; "
        "it comes second",
    )
    output: str | None = option(
        None, "the file to write (also -o): .kpz of encode, .keras of decode, .tflite of int8"
    )
    bits: int | None = option(
        None,
        "of encode: share the weights of each convolution first, at most 2^bits values and 0",
        at_least=1,
        at_most=16,
    )
    keep_bytes: float | None = option(
        None,
        "of encode: choose bits for this ratio of the float32 bytes of these kernels; with --data",
        above=0,
        below=1,
    )
    max_loss: float | None = option(
        None, "of encode: choose the bits for so much more loss on images held out; with --data", above=0
    )
    layers: str = option("conv", "of encode: whose kernels share weights; all of both", choices=KINDS)
    samples: int = option(512, "of int8: training images that show how large activations become", at_least=1)
    numbers: str = option(
        "float32", "of int8: what the file reads and gives", choices=("float32", "int8", "uint8")
    )
    data: str | None = _as_in_pruning("data")
    data_path: str | None = _as_in_pruning("data_path")
    pixels: str = _as_in_pruning("pixels")
    finetune_epochs: int = _as_in_pruning("finetune_epochs")
    augment: str = _as_in_pruning("augment")
    optimizer: str = _as_in_pruning("optimizer")
    learning_rate: float = _as_in_pruning("learning_rate", default=1e-3)
    batch_size: int = _as_in_pruning("batch_size")
    seed: int = _as_in_pruning("seed")

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.command not in WRITES:
            hint = nearest(self.command, WRITES)
            raise UsageError(f"Which command? Received: command={self.command!r}. {hint}")
        if not self.file:
            raise UsageError(f"Which file? It follows the command: python -m coding {self.command} FILE")
        self._check_flags()
        self._check_output()
        self._check_budget()

    def _check_flags(self) -> None:
        own = TAKES[self.command]
        takes = ", ".join(f"--{name}" for name in sorted(own)) or "no flag but -o"
        for field in dataclasses.fields(self):
            value, known = getattr(self, field.name), own | {"command", "file", "output"}
            if field.name not in known and value != field.default:
                raise UsageError(
                    f"{self.command} takes {takes}. Received: {self.command} --{field.name} {value}"
                )

    def _check_output(self) -> None:
        suffix = WRITES[self.command]
        if suffix and not self.output:
            raise UsageError(f"Where to? Give -o NAME{suffix}. Received: {self.command} with output=None")
        if self.output and not suffix:
            raise UsageError(f"{self.command} writes no file. Received: output={self.output}")

    def _check_budget(self) -> None:
        given = [name for name in ("bits", "keep_bytes", "max_loss") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"Give one of them. Received: --{' and --'.join(given)}")
        needs = self.command if self.command == "int8" else f"--{given[0]}" if self.chooses else None
        if needs and not self.data:
            raise UsageError(f"{needs} needs images: give --data FOLDER or tfds:NAME. Received: data=None")
        if self.data and not needs:
            raise UsageError(
                f"Images choose bits: give --keep_bytes or --max_loss with --data. Received: data={self.data}"
            )

    @property
    def chooses(self) -> bool:
        """Whether the bits of each convolution are to be chosen."""
        return self.keep_bytes is not None or self.max_loss is not None


def check_places(options: CodeOptions) -> None:
    """Before any work: raises `SnapshotError` for a missing file, else as `check_place` does."""
    if not Path(options.file).is_file():
        raise SnapshotError(f"There is no such file. Received: file={options.file}")
    if options.output is not None:
        check_place(options.output, WRITES[options.command], "output")
        if os.path.realpath(options.output) == os.path.realpath(options.file):
            raise UsageError(
                f"This is the file that is read; choose another one. Received: output={options.output}"
            )


def parse(argv: Sequence[str] | None = None) -> CodeOptions:
    """Command line → `CodeOptions`. Raises `UsageError` for what cannot be understood."""
    words = ["--output" if word == "-o" else word for word in (sys.argv[1:] if argv is None else argv)]
    if words and set(words).isdisjoint({"-h", "--help"}) and any(word.startswith("-") for word in words[:2]):
        raise UsageError(f"Command and file come first: {PROG} --flag value. Received: {' '.join(words[:3])}")
    for place, flag in ((0, "--command"), (2, "--file")):
        if len(words) > place and not words[place].startswith("-"):
            words.insert(place, flag)
    description = "A Keras model in the fewest bytes: every bit of its weights kept, or in whole numbers."
    return parse_into(CodeOptions, words, prog=PROG, description=description)
