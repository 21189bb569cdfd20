"""Small images as a few lossless WebP mosaics, so that a data set travels at half of its size."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = 8
PIECE = 4000
"""Images in a mosaic. WebP ends at 16,383 pixels a side: 500 rows of 32 pixels are within it."""


def write_mosaics(folder: Path, images: np.ndarray) -> list[Path]:
    """Writes images uint8 (n, side, side, 3) as images-00.webp …; the last row is filled with black ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, start in enumerate(range(0, len(images), PIECE)):
        paths.append(folder / f"images-{i:02d}.webp")
        paths[-1].write_bytes(_packed(images[start : start + PIECE]))
    return paths


def read_mosaics(folder: Path) -> np.ndarray:
    """The images uint8 (n, side, side, 3) of all mosaics in a folder, in the order of their names."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside of the interpreter's lock
        return np.concatenate(list(pool.map(_unpacked, sorted(folder.glob("*.webp")))))


def _packed(images: np.ndarray) -> bytes:
    rows, side = -(-len(images) // COLUMNS), images.shape[1]
    images = np.concatenate([images, np.zeros_like(images[: rows * COLUMNS - len(images)])])
    grid = images.reshape(rows, COLUMNS, side, side, 3).transpose(0, 2, 1, 3, 4)
    buffer = io.BytesIO()
    mosaic = Image.fromarray(grid.reshape(rows * side, COLUMNS * side, 3))
    mosaic.save(buffer, "WEBP", lossless=True, quality=50, method=6)
    return buffer.getvalue()


def _unpacked(path: Path) -> np.ndarray:
    with Image.open(path) as mosaic:
        grid = np.asarray(mosaic.convert("RGB"))
    side = grid.shape[1] // COLUMNS
    grid = grid.reshape(-1, side, COLUMNS, side, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
