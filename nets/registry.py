"""Families of architectures, found in the files of `nets/families`, and the names that they answer to."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from secateur.nets.spec import PADDINGS, NetSpec
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import nearest, require

_EVERYWHERE = {"shortcut": ("B",), "padding": PADDINGS, "head": (), "stem": ()}


@dataclasses.dataclass(frozen=True)
class Family:
    """Architectures of one layout.

    Attributes:
        make: spec → functional model, normalised images (b, h, w, c) → logits (b, classes).
        names: what `list_nets` shows.
        pattern: regular expression of further names; "" for none.
        choices: field of `NetSpec` → the values that this family knows, the published one first.
        dropout: whether its blocks have a rate of dropout.
    """

    make: Callable[[NetSpec], keras.Model]
    names: tuple[str, ...]
    pattern: str = ""
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dropout: bool = False


FAMILIES: Registry[Family] = Registry("family", "nets", folder="secateur.nets.families")
"""By the name of the function that builds them."""


def family(*names: str, **options: Any) -> Callable[[Callable], Callable]:
    """Decorator of a function that builds networks; `options` are the other fields of `Family`."""

    def register(make: Callable[[NetSpec], keras.Model]) -> Callable[[NetSpec], keras.Model]:
        FAMILIES.register(Family(make, names, **options), name=make.__name__, origin=make)
        return make

    return register


def list_nets(pattern: str = "*") -> list[str]:
    """Names that `build` knows, by name and size, filtered by a shell pattern without regard to case."""
    names = [name for one in FAMILIES.values() for name in one.names]
    return sorted((n for n in names if fnmatch.fnmatch(n.lower(), pattern.lower())), key=_by_size)


def family_of(arch: str) -> Family:
    """The family that an architecture belongs to. Raises `UsageError` with the nearest name."""
    for one in FAMILIES.values():
        if arch in one.names or (one.pattern and re.fullmatch(one.pattern, arch)):
            return one
    raise UsageError(f"Unknown arch. Received: arch={arch!r}. {nearest(arch, list_nets())}")


def build(arch: str | NetSpec, **options: Any) -> keras.Model:
    """Builds a network from its name and fields of `NetSpec`, or from a `NetSpec` with some fields replaced.

    Returns a functional model, normalised images (b, h, w, c) → logits (b, classes), with its spec as
    `model.spec`. Raises `UsageError` on an unknown name or option, with the nearest valid one.
    """
    spec = dataclasses.replace(arch, **options) if isinstance(arch, NetSpec) else NetSpec(arch, **options)
    found = family_of(spec.arch)
    chosen: dict[str, Any] = {name: _chosen(spec, found, name) for name in _EVERYWHERE}
    _check_dropout(spec, found)
    spec = dataclasses.replace(spec, **chosen)
    model = found.make(spec)
    model.spec = spec
    return model


def _chosen(spec: NetSpec, found: Family, name: str) -> str | None:
    """The value of an option, the published one where none is given."""
    value, valid = getattr(spec, name), found.choices.get(name, _EVERYWHERE[name])
    if value is None:
        return next(iter(valid), None)
    if not valid:
        raise UsageError(f"{spec.arch} has no choice of {name}. Received: {name}={value!r}")
    require(value, valid, name)
    return value


def _check_dropout(spec: NetSpec, found: Family) -> None:
    if spec.dropout is None:
        return
    if not found.dropout:
        raise UsageError(f"{spec.arch} has no dropout. Received: dropout={spec.dropout!r}")
    if not 0 <= spec.dropout < 1:
        raise UsageError(f"dropout must be at least 0 and below 1. Received: dropout={spec.dropout!r}")


def _by_size(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
