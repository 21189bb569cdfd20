"""Snapshots: what a network is, on disk as a pickle of plain arrays that is never executed when read.

The file is a pickled dictionary {published weight name: array} (protocol 3, so that `pickle.load` of any
project reads it) with one text entry `__secateur__`: JSON of the format, spec, plan and facts. After the
pickle's end stands its digest: b"\\nsha256:" and 64 hex digits. Published pickles have neither and load too.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from secateur.runs.errors import SnapshotError
from secateur.runs.files import MAX_BYTES, opened, to_json, write_atomic
from secateur.runs.safe_pickle import read_pickle
from secateur.runs.stubs import DTYPES, Refused
from secateur.runs.torch_files import READERS

FORMAT = "secateur/1"
HEAD = "__secateur__"
FOREIGN_EXTRAS = ("__header__", "__version__", "__globals__")  # what scipy.io.loadmat left in EKG's pickle
_MARK = b"\nsha256:"
_TRAILER = len(_MARK) + 64


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network at rest.

    Attributes:
        arrays: published weight name → array, in the order of the file; read-only after loading.
        spec: what `nets.build` needs, as JSON; None in published pickles.
        plan: the kept channels of each group, as JSON; None when nothing is pruned or known.
        facts: anything worth keeping, as JSON (accuracy, MACs, seed, step).
    """

    arrays: dict[str, np.ndarray]
    spec: dict | None = None
    plan: dict | None = None
    facts: dict = field(default_factory=dict)


def save_snapshot(path: str | os.PathLike, snapshot: Snapshot) -> str:
    """Write a snapshot atomically; return the SHA-256 of the file. Equal snapshots give equal bytes.

    Raises:
        SnapshotError: an array is not of numbers, a name starts with `__`, or all are larger than 2 GiB.
        RunFolderError: the disk is full or the folder cannot be written.
    """
    arrays = {name: _plain(name, array) for name, array in snapshot.arrays.items()}
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES - 2**24:
        raise SnapshotError(f"{path}: more than 2 GiB of arrays cannot be saved as a snapshot")
    head = to_json({"format": FORMAT, "spec": snapshot.spec, "plan": snapshot.plan, "facts": snapshot.facts})

    def write(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        for chunk in _pickled(head, arrays):
            digest.update(chunk)
            file.write(chunk)
        file.write(_MARK + digest.hexdigest().encode())

    return write_atomic(path, write)


def load_snapshot(path: str | os.PathLike) -> Snapshot:
    """Read one of our snapshots, a published pickle, or PyTorch's weights. Nothing in the file is executed.

    Files that end in `.safetensors`, `.th`, `.pth` or `.pt` come with their own names and layout.

    Raises:
        SnapshotError: missing, unreadable, truncated, changed by a single bit, or not a dictionary of arrays.
    """
    try:
        with opened(path) as (file, size):
            data = file.read(size)  # never read(MAX_BYTES): that allocates 2 GiB first
        reader = READERS.get(os.path.splitext(path)[1].lower())
        return Snapshot(_arrays(reader(data), False)) if reader else _parse(data)
    except Refused as error:
        raise SnapshotError(
            f"{os.fspath(path)} is not a usable snapshot: {error}\n"
            "copy or download it again, or give another file"
        ) from None
    except OSError as error:
        raise SnapshotError(
            f"{os.fspath(path)} cannot be read ({error.strerror})\ncheck the path of the snapshot"
        ) from None
    except MemoryError:
        raise SnapshotError(f"{os.fspath(path)} does not fit in memory\nclose other programs") from None


# --- reading -----------------------------------------------------------------------------------------------


def _parse(data: bytes) -> Snapshot:
    signed = data[-_TRAILER:-64] == _MARK
    if signed and hashlib.sha256(memoryview(data)[:-_TRAILER]).hexdigest().encode() != data[-64:]:
        raise Refused("its digest does not match, so it was damaged or changed")
    entries, end = read_pickle(data)
    if end != len(data) - (_TRAILER if signed else 0):
        raise Refused("something follows its end, so it was damaged or changed")
    if signed != (HEAD in entries):
        lost = "description" if signed else "digest"
        raise Refused(f"its {lost} is missing, so it was cut short or changed")
    head = _head(entries.pop(HEAD)) if signed else {}
    for name in () if signed else FOREIGN_EXTRAS:
        entries.pop(name, None)
    return Snapshot(_arrays(entries, signed), head.get("spec"), head.get("plan"), head.get("facts") or {})


def _head(text: Any) -> dict:
    try:
        head = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise Refused("its description is not JSON") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise Refused(f"its format is not {FORMAT}, so it was written by another version of Secateur")
    kinds = {"spec": dict | None, "plan": dict | None, "facts": dict | None}
    if any(not isinstance(head.get(key), kind) for key, kind in kinds.items()):
        raise Refused("its description is not complete")
    return head


def _arrays(entries: dict[str, Any], may_be_empty: bool) -> dict[str, np.ndarray]:
    for name, value in entries.items():
        if not isinstance(value, np.ndarray):
            raise Refused(f"entry {name[:60]!a} is no array (Received: {type(value).__name__.lower()})")
    if not entries and not may_be_empty:
        raise Refused("it holds no arrays")
    return entries


# --- writing: the opcodes themselves, so that the bytes depend on the content alone -------------------------


def _plain(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if not isinstance(name, str) or name.startswith("__"):
        raise SnapshotError(f"a snapshot cannot hold an entry of this name. Received: {name!r}")
    if _code(array) not in DTYPES:
        raise SnapshotError(
            f"{name}: only arrays of numbers can be saved; cast it to float32. Received: dtype={array.dtype}"
        )
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _code(array: np.ndarray) -> str:
    # `kind` and `itemsize` also describe foreign types such as bfloat16 (kind V), which DTYPES lacks.
    return f"{array.dtype.kind}{array.dtype.itemsize}"


def _pickled(head: str, arrays: dict[str, np.ndarray]) -> Iterator[bytes]:
    yield b"\x80\x03}(" + _text(HEAD) + _text(head)
    for name, array in arrays.items():
        yield _text(name) + _array_before(array)
        yield array.tobytes()
        yield b"tb"
    yield b"u."


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _array_before(array: np.ndarray) -> bytes:
    """Everything of an array before its bytes: `_reconstruct(ndarray, (0,), b"b")`, then its state.

    Uses the module name of NumPy 1, which every NumPy since reads.
    """
    shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in array.shape) + b"t"
    order = _text("<" if array.dtype.itemsize > 1 else "|")
    state = b"(K\x03" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n" + _text(_code(array)) + b"\x89\x88\x87R" + state
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
    return start + shape + dtype + b"\x89B" + struct.pack("<I", array.nbytes)
