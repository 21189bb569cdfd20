"""Weights from the PyTorch world: `.safetensors`, and `.th`, `.pth`, `.pt` where PyTorch is installed."""

from __future__ import annotations

import importlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from secateur.runs.stubs import MAX_DIMS, MAX_SIDE, Allowance, Refused, short

# what safetensors calls a type → what NumPy calls it
_SAFETENSORS = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip
_STATES = ("state_dict", "model", "net")  # where training scripts keep the weights beside other things


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Arrays by name, read-only. Raises Refused for a header that is damaged or lies about the data."""
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise Refused(f"its header is damaged or does not fit its data ({str(error)[:80]!a})") from None
    return {name: _array(name, **entry) for name, entry in entries}


def read_torch(data: bytes) -> dict[str, np.ndarray]:
    """Arrays by name from what `torch.save` wrote, without executing it: weights only.

    Raises Refused without PyTorch, and for anything but a dictionary of tensors that the file really holds.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise Refused("it needs PyTorch, which is not installed; convert it to .safetensors") from None
    _check_archive(data)
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds for a damaged file: any means that it cannot be read
        raise Refused(f"PyTorch cannot read its weights ({type(error).__name__})") from None
    return _tensors(found, torch.Tensor, Allowance(len(data)))


READERS: dict[str, Callable[[bytes], dict[str, np.ndarray]]] = {
    ".safetensors": read_safetensors,
    ".th": read_torch,
    ".pth": read_torch,
    ".pt": read_torch,
}


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in _SAFETENSORS:
        raise Refused(f"array {short(name)} has dtype {dtype}; convert it to F32")
    if len(shape) > MAX_DIMS or max(shape, default=0) > MAX_SIDE:
        raise Refused(f"array {short(name)} has an impossible shape")
    kind = np.dtype(_SAFETENSORS[dtype])
    if math.prod(shape) * kind.itemsize != len(data):
        raise Refused(f"array {short(name)} of shape {tuple(shape)} cannot have {len(data)} bytes")
    return np.frombuffer(bytes(data), kind).reshape(shape)


def _check_archive(data: bytes) -> None:
    """PyTorch compresses nothing: an archive that grows is a bomb."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return
    try:
        size = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(data)).infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise Refused("its archive is damaged") from None
    if size > len(data):
        raise Refused("its archive is compressed, which PyTorch's own are not")


def _tensors(found: Any, tensor: type, allowance: Allowance) -> dict[str, np.ndarray]:
    for key in _STATES:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise Refused(f"it holds no dictionary of weights (Received: {type(found).__name__.lower()})")
    arrays = {}
    for name, value in found.items():
        if type(name) is not str or not isinstance(value, tensor) or value.is_complex():
            raise Refused(f"entry {short(name)} is no array (Received: {short(value)})")
        allowance.spend(value.numel() * value.element_size())  # strides may spread a few bytes over a shape
        arrays[name] = _copied(name, value)
    return arrays


def _copied(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value.detach().cpu().numpy())
    except (TypeError, RuntimeError, ValueError):  # bfloat16, sparse, quantised
        raise Refused(f"array {short(name)} is not of plain numbers; convert it to float32") from None
