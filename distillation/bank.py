"""Memory banks: what teachers say of un-augmented images, looked up by image id. Plain NumPy."""

from __future__ import annotations

import io
import itertools
import tokenize  # NumPy reads the header of a file with it
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from secateur.dataloader.batches import piece_edges
from secateur.runs.errors import DataError, UsageError, first_line
from secateur.runs.files import make_atomic
from secateur.runs.parts import PartFile, part_file
from secateur.runs.suggest import require


def choose_teachers(losses: Sequence[float], count: int = 5) -> list[int]:
    """Picks interim networks whose validation losses are spread evenly, lowest first (EKG, poster and code).

    Args:
        losses: cross-entropy on the search images of every interim network, the unpruned one included and the
            final one left out.
        count: K. The targets are min + (max − min)·j/K for j = 0 … K−1; each takes the closest unused
            network.

    Returns at most `count` different indexes, the best network first.
    """
    low, high = min(losses), max(losses)
    unused, chosen = list(range(len(losses))), []
    for j in range(min(count, len(losses))):
        target = low + (high - low) * j / count
        nearest = min(unused, key=lambda i: (abs(losses[i] - target), i))
        unused.remove(nearest)
        chosen.append(nearest)
    return chosen


DTYPES = ("float32", "float16")


PIECE, PIECE_BYTES = 2**11, 2**27
"""Images, and bytes of images, of which every teacher says something before it is written."""


def write_bank(
    path: str | Path,
    forwards: Sequence[Callable[[np.ndarray], np.ndarray]],
    images: np.ndarray,
    ids: np.ndarray,
    dtype: str = "float32",
    rank: int = 2,
) -> str:
    """Writes a file by `bank_into`, all or nothing of it; returns its SHA-256."""

    def make(temp: Path) -> None:
        with part_file(temp, None, lambda noted: None) as file:
            bank_into(file, forwards, images, ids, dtype, rank)

    return make_atomic(path, make)


def bank_into(
    file: PartFile,
    forwards: Sequence[Callable[[np.ndarray], np.ndarray]],
    images: np.ndarray,
    ids: np.ndarray,
    dtype: str = "float32",
    rank: int = 2,
    batch_size: int = 1,
) -> None:
    """Runs every teacher once on all images and writes what they say, piece by piece.

    It is a `.npy` of the logits (n, classes, teachers), as EKG's is, with a second one behind it for the ids
    of its rows. Of maps the logits are (n, h, w, classes, teachers), and so on.

    Args:
        file: to write to; it goes on behind the images that it holds, and notes every piece.
        forwards: images uint8 (n, h, w, c) → logits (n, classes), or (n, classes, several), in the order in
            which they are to be found; see `op_utils.make_forward`.
        images: un-augmented.
        ids: (n,) different integers ≥ 0.
        dtype: of the logits on disk; "float16" halves the file and rounds to 3 digits.
        rank: axes of one teacher's logits, that of images included.
        batch_size: of the teachers, where they use the statistics of batches: no piece ends within one.

    Raises `UsageError` for another type or for ids that do not fit, `DataError` for logits out of its range.
    """
    require(dtype, DTYPES, "type of a bank", "dtype")
    if len(ids) != len(images) or len(np.unique(ids)) < len(ids):
        raise UsageError(f"Each of {len(images)} images needs an id of its own. Received: {len(ids)} ids")
    most = min(PIECE, PIECE_BYTES // max(1, images[:1].nbytes))
    edges = [file.done + edge for edge in piece_edges(len(ids) - file.done, most, batch_size)]
    pieces = [(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
    whole = pieces == [(0, len(ids))]
    with tqdm(total=len(forwards) * len(pieces), desc="memory bank", unit="teacher") as bar:
        for start, stop in pieces:
            logits = _asked(forwards, images if whole else images[start:stop], dtype, rank, bar.update)
            if start == 0:
                shape = (len(ids), *logits.shape[1:])
                head = {"descr": logits.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, head)
            file.write(logits.tobytes())  # NumPy's own writer hides that the disk is full
            if not whole:
                file.note(stop)
    rows = io.BytesIO()
    np.save(rows, np.asarray(ids, np.int64))
    file.write(rows.getbuffer())


def _asked(
    forwards: Sequence[Callable[[np.ndarray], np.ndarray]],
    images: np.ndarray,
    dtype: str,
    rank: int,
    tick: Callable[[], object],
) -> np.ndarray:
    """(n, …, teachers)."""
    columns = []
    for forward in forwards:
        logits = np.asarray(forward(images))
        if logits.ndim not in (rank, rank + 1):
            raise UsageError(
                f"Logits of a teacher have {rank} axes, of several ones {rank + 1}: give rank. "
                f"Received: shape={logits.shape}, rank={rank}"
            )
        columns.append(_within(logits if logits.ndim > rank else logits[..., None], dtype))
        tick()
    return np.concatenate(columns, -1)


def _within(logits: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = logits.astype(dtype)
    if not np.isfinite(stored).all():
        largest = float(np.abs(logits).max())
        remedy = "Store them as float32" if np.isfinite(largest) else "Look at the teacher's weights"
        raise DataError(f"Logits do not fit into {dtype}. Received: up to {largest:g}\n{remedy}")
    return stored


@dataclass(frozen=True)
class MemoryBank:
    """Teachers' logits on un-augmented training images.

    Attributes:
        logits: float32 or float16 (n, classes, teachers), memory-mapped when read from disk.
        row_of_id: int64; image id → row of `logits`, −1 where the image has none.
    """

    logits: np.ndarray
    row_of_id: np.ndarray

    @classmethod
    def open(cls, path: str | Path, ids: np.ndarray) -> MemoryBank:
        """Maps a file of `write_bank`, or a bare `.npy` whose rows belong to `ids` (n,) in that order.

        Raises `DataError` when it is missing, damaged, of another shape or type, or of other images.
        """
        try:
            logits = np.lib.format.open_memmap(path, mode="r")  # unlike np.load it reads nothing but .npy
            own = _ids_behind(path, logits)
        except (OSError, ValueError, OverflowError, MemoryError, SyntaxError, tokenize.TokenError) as error:
            reason = first_line(error)
            raise DataError(
                f"{path} is not a memory bank ({reason})\nDelete it and run the same command again"
            ) from error
        fits = logits.ndim > 2 and len(logits) == len(ids) and logits.dtype.name in DTYPES
        if not fits or not (own is None or np.array_equal(np.sort(own), np.sort(ids))):
            raise DataError(
                f"{path} does not belong to this training set of {len(ids)} images. "
                f"Received: shape={logits.shape}, dtype={logits.dtype}\n"
                "Delete it and run the same command again"
            )
        row_of_id = np.full(int(np.max(ids, initial=-1)) + 1, -1, np.int64)
        row_of_id[ids if own is None else own] = np.arange(len(ids))
        return cls(logits, row_of_id)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Logits float32 (b, classes, teachers) by the images' ids (b,); `IndexError` if one has none."""
        rows = self.row_of_id[ids]
        if np.min(rows, initial=0) < 0:
            raise IndexError(f"The memory bank has no row for image {np.asarray(ids)[rows < 0][0]}")
        return np.asarray(self.logits[rows], np.float32)


def _ids_behind(path: str | Path, logits: np.memmap) -> np.ndarray | None:
    """The ids of the rows, from behind the logits; None in files that hold logits alone."""
    with open(path, "rb") as file:
        file.seek(logits.offset + logits.nbytes)
        if not file.read(1):
            return None
        file.seek(-1, io.SEEK_CUR)
        ids = np.lib.format.read_array(file, allow_pickle=False)
    if ids.shape != logits.shape[:1] or ids.dtype != np.int64:
        raise ValueError(f"ids of shape {ids.shape}, {ids.dtype}")
    return ids
