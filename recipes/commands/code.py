"""`python -m coding`: models to `.kpz` files and back, and what is in such a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secateur import coding
from secateur.recipes.commands.code_options import CodeOptions, check_places
from secateur.runs import UsageError, load_snapshot, make_atomic


def run(options: CodeOptions) -> None:
    """Does what the command line says and prints it. Raises the errors of `coding` and of `check_places`."""
    check_places(options)
    {"encode": _encode, "decode": _decode, "inspect": _inspect, "int8": _int8}[options.command](options)


def _bar(parts: Iterable, title: str) -> Iterable:
    """Progress on stderr, a tensor at a time; none where nobody looks and the work is short."""
    return tqdm(parts, desc=title, unit="tensor", dynamic_ncols=True, leave=False, delay=1, file=sys.stderr)


def _encode(options: CodeOptions) -> None:
    if options.chooses and Path(options.file).suffix != ".keras":
        raise UsageError(
            f"Bits are chosen for a .keras file. Received: file={options.file}\nfor a snapshot: python "
            "train_cifar.py --recipe fewest_bytes --trained_param SNAPSHOT.pkl --set share.keep_bytes=0.1"
        )
    model, facts = _plain(options.file)
    bits = _chosen(model, options) if options.chooses else options.bits
    share, each = partial(coding.share, layers=options.layers), partial(_bar, title="encode")
    done = coding.encode(model, options.output, bits, share=share, facts=facts, each=each)
    ratio = f"{done.arrays / done.file:.2f} times smaller"
    print(f"{options.output}: {done.file:,} bytes for weights of {done.arrays:,}, {ratio}")
    print(f"decoded, and every bit compared; SHA-256 {done.sha256}")


def _chosen(model: Any, options: CodeOptions) -> dict[str, int]:
    from secateur.recipes.commands.bits import chosen

    return chosen(model, options)


def _plain(path: str) -> tuple:
    """A model of plain Keras layers, from a .keras file or a snapshot, and what the latter says of it."""
    from secateur import nets
    from secateur.pruning import compact
    from secateur.recipes.commands.subject import load

    if Path(path).suffix != ".keras":
        snapshot = load_snapshot(path)
        facts = {"spec": snapshot.spec, "plan": snapshot.plan, **snapshot.facts}
        return compact(nets.load_params(None, snapshot, path)), facts
    model = load(path)
    foreign = any(type(layer).__module__.startswith("secateur.") for layer in model.layers)
    return (compact(model) if foreign else model), {}


def _decode(options: CodeOptions) -> None:
    model = coding.decode(options.file, each=partial(_bar, title="decode"))
    make_atomic(options.output, model.save)
    count = f"{model.count_params():,} weights"
    print(f"{options.output}: {model.name}, {count}, bit for bit those of {options.file}")


def _int8(options: CodeOptions) -> None:
    from secateur.recipes.commands import int8 as code_int8

    code_int8.run(options)


def _inspect(options: CodeOptions) -> None:
    print(coding.inspect(options.file, each=partial(_bar, title="inspect")))
