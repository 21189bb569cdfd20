"""DIGITS: 1,797 handwritten digits that come with scikit-learn. A real data set without a download."""

from __future__ import annotations

import numpy as np

from secateur.dataloader.splits import Images

SIDE = 32
MEAN = 77.85
"""Mean of all pixels of the training part, on the 0–255 scale."""
STD = 82.30
"""Standard deviation of all pixels of the training part, on the 0–255 scale."""

_TEST_SHARE = 5
_GREY_LEVELS = 16


def read(
    part: str,
    data_path: str | None = None,
    download: bool = True,
    *,
    shape: tuple[int, int, int] = (SIDE, SIDE, 3),
    stream: bool = False,
) -> Images:
    """Return the "train" or "test" digits: uint8 [n, *shape], all channels equal.

    The test part is the last fifth (rounded down) of each class in scikit-learn's order. `data_path`,
    `download` and `stream` are there for the registry: the images lie in the installed package.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    is_test = last_of_each_class(bunch.target)
    chosen = is_test if part == "test" else ~is_test
    grey = upscale(bunch.images[chosen], *shape[:2]) * (255 / _GREY_LEVELS)
    images = np.repeat(np.rint(grey).astype(np.uint8)[..., None], shape[2], axis=-1)
    labels = bunch.target[chosen].astype(np.int32)
    return Images(images, labels, np.arange(len(labels), dtype=np.int64))


def last_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Return a mask, bool [n], of the last n_c // 5 images of each class c."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[members[len(members) - len(members) // _TEST_SHARE :]] = True
    return mask


def upscale(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge grey images, [n, h, w], to [n, height, width]: bilinear with half-pixel centres."""
    return _bilinear(images.shape[1], height) @ images @ _bilinear(images.shape[2], width).T


def _bilinear(old: int, new: int) -> np.ndarray:
    """Return the [new, old] matrix that interpolates between pixel centres; each row sums to 1."""
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    left = np.minimum(centre.astype(int), old - 2)
    matrix = np.zeros((new, old))
    rows = np.arange(new)
    matrix[rows, left] = 1 - (centre - left)
    matrix[rows, left + 1] = centre - left
    return matrix
