"""CIFAR ResNets of the PyTorch world, in our names and layout.

Names are those of akamaster/pytorch_resnet_cifar10 and its many relatives: `conv1`, `bn1`, `layer1.0.conv1`,
…, `linear` or `fc`, maybe behind `module.`. Its shortcut without weights takes every other pixel and puts a
quarter of the new channels, zero, on either side: our A'.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from secateur.nets.names import published_name
from secateur.nets.published import spec_from_arrays
from secateur.runs.errors import SnapshotError
from secateur.runs.snapshot import Snapshot

NORMALISATION = "imagenet"  # what the networks of these names are trained with
_STATISTICS = {"running_mean": "moving_mean", "running_var": "moving_variance"}
_BN = {"weight": "gamma", "bias": "beta"} | _STATISTICS
_LINEAR = {"weight": "kernel", "bias": "bias"}
_SHORTCUT = {"0": "conv3", "1": "bn3"}
_PLACE = re.compile(r"layer([1-3])\.(\d{1,3})\.(?:(conv[12]|bn[12])|(?:shortcut|downsample)\.([01]))\.(\w+)")


def is_torch(names: Iterable[str]) -> bool:
    """Whether these are names of PyTorch's modules."""
    return any(name.removeprefix("module.") == "conv1.weight" for name in names)


def from_torch(arrays: Mapping[str, np.ndarray], label: str) -> Snapshot:
    """The same network with published names, kernels (h, w, in, out), its spec, and `normalisation`.

    Raises `SnapshotError`, naming the array, for what is no CIFAR ResNet.
    """
    ours: dict[tuple[str, str], np.ndarray] = {}
    for name, array in arrays.items():
        if not name.endswith("num_batches_tracked"):
            layer, weight = _place(name, label)
            ours[layer, weight] = _turned(name, array, weight, layer == "fc", label)
    if ("fc", "kernel") not in ours:
        raise SnapshotError(f"{label}: array 'linear.weight' is missing. Received: {len(ours)} arrays")
    named = {published_name(*place): array for place, array in ours.items()}
    spec = spec_from_arrays(named, label)
    shortcut = "A'" if spec.shortcut == "A" else spec.shortcut
    spec = dataclasses.replace(spec, shortcut=shortcut, padding="torch")
    return Snapshot(named, spec.to_json(), facts={"normalisation": NORMALISATION})


def _place(name: str, label: str) -> tuple[str, str]:
    """`layer2.0.conv1.weight` → ("BasicBlock1.0_conv1", "kernel")."""
    own = name.removeprefix("module.")
    if found := _PLACE.fullmatch(own):
        stage, block, part, shortcut, weight = found.groups()
        part = part or _SHORTCUT[shortcut]
        layer = f"BasicBlock{int(stage) - 1}.{int(block)}_{part}"
    else:
        part, _, weight = own.partition(".")
        layer = {"conv1": "conv", "bn1": "bn", "linear": "fc", "fc": "fc"}.get(part, "")
    table = _LINEAR if layer == "fc" else {"weight": "kernel"} if part.startswith("conv") else _BN
    if not layer or weight not in table:
        raise SnapshotError(
            f"{label}: no CIFAR ResNet has this weight. Received: {name[:60]!a}\n"
            "Names must be those of layer1.0.conv1.weight, …, linear.weight"
        )
    return layer, table[weight]


def _turned(name: str, array: np.ndarray, weight: str, dense: bool, label: str) -> np.ndarray:
    """Outputs come first in PyTorch and last in TensorFlow."""
    dims = (2 if dense else 4) if weight == "kernel" else 1
    if array.ndim != dims or array.dtype.kind != "f" or not array.size:
        raise SnapshotError(
            f"{label}: array {name[:60]!a} is not of {dims} dimensions of real numbers. "
            f"Received: shape={array.shape}, dtype={array.dtype}"
        )
    turned = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[dims]
    return np.ascontiguousarray(array.transpose(turned), np.float32)
