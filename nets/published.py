"""What a published CIFAR ResNet is, read off its arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from secateur.nets.names import layer_and_weight, published_name
from secateur.nets.spec import NetSpec
from secateur.runs.errors import SnapshotError


def spec_from_arrays(arrays: Mapping[str, np.ndarray], label: str = "snapshot") -> NetSpec:
    """Reads architecture, classes, shortcut and widths off the shapes of a published ResNet checkpoint.

    Raises `SnapshotError`, naming the array, for another network and for widths that contradict each other.
    """
    layers = {layer_and_weight(name): array for name, array in arrays.items()}
    kernels = {layer: a for (layer, weight), a in layers.items() if weight == "kernel" and a.ndim == 4}
    blocks = {m.groups() for name in kernels if (m := re.match(r"BasicBlock(\d)\.(\d+)_", name))}
    if not blocks or np.ndim(layers.get(("fc", "kernel"), 0)) != 2 or "conv" not in kernels:
        raise SnapshotError(
            f"{label}: not a ResNet checkpoint: its names are not of the form BasicBlock0.0/conv1/kernel:0. "
            f"Received: {', '.join(sorted(arrays)[:3]) or 'no arrays'}"
        )
    if len({stage for stage, _ in blocks}) != 3 or len(blocks) % 3:
        raise SnapshotError(
            f"{label}: a CIFAR ResNet has three stages of equal depth. Received: {len(blocks)} blocks"
        )
    dense = layers["fc", "kernel"][None, None]  # as a convolution of one pixel
    _check_widths(kernels | {"fc": dense}, len(blocks) // 3, label)
    return NetSpec(
        arch=f"ResNet-{2 * len(blocks) + 2}",
        num_classes=int(layers["fc", "kernel"].shape[-1]),
        shortcut="B" if "BasicBlock1.0_conv3" in kernels else "A",
        widths={name: int(kernel.shape[-1]) for name, kernel in kernels.items()},
    )


def _check_widths(kernels: Mapping[str, np.ndarray], depth: int, label: str) -> None:
    """Each kernel reads what the one before makes: else the network could be far larger than its file."""
    for name, source, size in _reads(depth):
        own = published_name(name, "kernel")
        if name not in kernels:
            if name.endswith("conv3"):
                continue
            raise SnapshotError(f"{label}: array {own!r} is missing. Is this a CIFAR ResNet?")
        found, expected = kernels[name].shape[:3], (size, size, kernels[source].shape[3] if source else 3)
        if found != expected:
            raise SnapshotError(
                f"{label}: array {own!r} does not fit the layer before it. "
                f"Received: shape={kernels[name].shape}, expected {expected} and the channels that it makes"
            )


def _reads(depth: int) -> Iterator[tuple[str, str, int]]:
    """(layer, the one whose channels it reads or "", kernel size) from the images on."""
    stream = "conv"
    yield stream, "", 3
    for name in (f"BasicBlock{stage}.{block}" for stage in range(3) for block in range(depth)):
        yield from ((f"{name}_conv1", stream, 3), (f"{name}_conv2", f"{name}_conv1", 3))
        yield f"{name}_conv3", stream, 1
        stream = f"{name}_conv2"
    yield "fc", stream, 1
