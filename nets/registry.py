"""Names of architectures → functions that build them."""

from __future__ import annotations

import dataclasses
import fnmatch

import keras

from nets.resnet import resnet
from nets.spec import SHORTCUTS, NetSpec
from runs.errors import UsageError
from runs.suggest import nearest

_NETS = {f"ResNet-{depth}": resnet for depth in (20, 32, 44, 56, 110)}


def list_nets(pattern: str = "*") -> list[str]:
    """Names that `build` knows, filtered by a shell pattern without regard to case."""
    return [name for name in _NETS if fnmatch.fnmatch(name.lower(), pattern.lower())]


def build(arch: str | NetSpec, **options) -> keras.Model:
    """Builds a network from its name and fields of `NetSpec`, or from a `NetSpec` with some fields replaced.

    Returns a functional model, normalised images (b, h, w, c) → logits (b, classes), with its spec as
    `model.spec`. Raises `UsageError` on an unknown name or shortcut, with the nearest valid one.
    """
    spec = dataclasses.replace(arch, **options) if isinstance(arch, NetSpec) else NetSpec(arch, **options)
    if spec.arch not in _NETS:
        raise UsageError(f"Unknown arch. Received: arch={spec.arch!r}. {nearest(spec.arch, _NETS)}")
    if spec.shortcut not in SHORTCUTS:
        raise UsageError(
            f"Unknown shortcut. Received: shortcut={spec.shortcut!r}. {nearest(spec.shortcut, SHORTCUTS)}"
        )
    model = _NETS[spec.arch](spec)
    model.spec = spec
    return model
