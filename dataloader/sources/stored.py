"""Images that stay in their files: what does not fit in memory, and looks like an array that does."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from secateur.dataloader.sources.decoding import Shape, fitted
from secateur.runs.errors import DataError, first_line, out_of_memory

WHOLE = -1
"""Length of a piece that goes to the end of its file."""
_AT_ONCE = 64
"""Images whose bytes one call reads."""
_AHEAD = 2**27
"""Bytes that wait for their use; left alone tf.data takes half of the memory that it finds."""


@dataclass(frozen=True, eq=False)
class Stored:
    """uint8 (n, *one), decoded by `tf.data` where it is sliced; no more of it is ever in memory.

    Attributes:
        files: where encoded images lie, PNG, JPEG, BMP or GIF.
        pieces: int64 (n, 3): number of the file, first byte, number of bytes or `WHOLE`.
        one: (height, width, 1 or 3) that images are brought to.
        middle: whether their middle is taken, see `decoding.fitted`.
    """

    files: Sequence[Path]
    pieces: np.ndarray
    one: Shape
    middle: bool = False

    dtype = np.dtype(np.uint8)

    @classmethod
    def of_files(cls, files: Sequence[Path], one: Shape) -> Stored:
        """An image a file."""
        numbers = np.arange(len(files), dtype=np.int64)
        return cls(files, np.stack([numbers, 0 * numbers, 0 * numbers + WHOLE], axis=1), one)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.one)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        chosen = self.take(index)
        found, done = np.empty(chosen.shape, np.uint8), 0
        for part in chosen.walk(_AT_ONCE):
            found[done : done + len(part)] = part
            done += len(part)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.uint8, copy=False)

    def take(self, index: slice | np.ndarray) -> Stored:
        """Return the images at `index`, still in their files."""
        return replace(self, pieces=self.pieces[index])

    def walk(self, size: int) -> Iterator[np.ndarray]:
        """Yield all images in their order, `size` at a time, decoded on all cores ahead of their use.

        Raises `DataError` with the name of the file that cannot be read or decoded.
        """
        import tensorflow as tf

        if not len(self):
            return
        rows = tf.data.Dataset.from_tensor_slices(self.pieces).batch(_AT_ONCE)
        rows = rows.map(lambda part: tf.numpy_function(self._encoded, [part], tf.string), tf.data.AUTOTUNE)
        rows = rows.unbatch().map(self._decoded, tf.data.AUTOTUNE)
        options, done = tf.data.Options(), 0
        options.autotune.ram_budget = _AHEAD
        try:
            for part in rows.batch(size).prefetch(2).with_options(options).as_numpy_iterator():
                yield part
                done += len(part)
        except tf.errors.ResourceExhaustedError:  # no fault of the data
            raise
        except tf.errors.OpError as error:
            # Files are read so many at a time: one behind this batch may have failed.
            end = -(-(done + size) // _AT_ONCE) * _AT_ONCE
            if (bad := self.take(slice(done, end))._first_bad()) is None:
                if out_of_memory(error):
                    raise
                first = self.files[self.pieces[done, 0]]
                raise DataError(
                    f"Images cannot be read together, but one by one ({first_line(error)}). "
                    f"Received: {end - done} of them, from {first} on"
                ) from error
            raise DataError(
                "An image cannot be read or decoded: replace or remove it, or leave it out with --skip_bad. "
                f"Received: {bad}"
            ) from error

    def _decoded(self, encoded):
        return fitted(encoded, self.one, self.middle)

    def _encoded(self, pieces: np.ndarray) -> np.ndarray:
        """Bytes of some images, object (k,)."""
        found = np.empty(len(pieces), object)
        for i, (number, start, length) in enumerate(pieces):
            with open(self.files[number], "rb", buffering=0) as file:
                file.seek(start)
                found[i] = file.read(length)
        return found

    def _first_bad(self) -> str | None:
        """Name the file of the first image that fails alone, too, and not for want of memory."""
        import tensorflow as tf

        for piece in self.pieces:
            name = f"{self.files[piece[0]]}" + (f", byte {piece[1]}" if piece[2] != WHOLE else "")
            try:
                self._decoded(self._encoded(piece[None])[0])
            except tf.errors.ResourceExhaustedError:
                return None
            except (tf.errors.OpError, OSError, ValueError) as error:
                return None if getattr(error, "errno", None) == errno.ENOMEM else name
        return None
