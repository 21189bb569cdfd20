"""Weights of ResNet-56 by shape alone, without TensorFlow."""

from collections.abc import Callable

import numpy as np

Make = Callable[[tuple[int, ...]], np.ndarray]


def resnet56(make: Make, batches_tracked: bool = False) -> dict[str, np.ndarray]:
    """Option A, 10 classes, Keras' layout; `make` fills kernels, all else counts from 0."""
    widths = [3, *[16] * 19, *[32] * 18, *[64] * 18]
    arrays = {}
    for number, (inputs, filters) in enumerate(zip(widths, widths[1:], strict=False)):
        arrays[f"conv{number}/kernel"] = make((3, 3, inputs, filters))
        for vector in ("gamma", "beta", "mean", "variance"):
            arrays[f"bn{number}/{vector}"] = np.arange(filters, dtype=np.float32)
        if batches_tracked:
            arrays[f"bn{number}/batches"] = np.array(number)
    return arrays | {"fc/kernel": make((64, 10)), "fc/bias": np.arange(10, dtype=np.float32)}


def noise(seed: int) -> Make:
    """Normal numbers."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.normal(size=shape).astype(np.float32)


def shared(seed: int, bits: int) -> Make:
    """Normal numbers, each rounded to one of 2**bits values that lie closer in the middle."""
    rng = np.random.default_rng(seed)
    table = np.sort(np.arctanh(np.linspace(-0.99, 0.99, 2**bits))).astype(np.float32)

    def make(shape: tuple[int, ...]) -> np.ndarray:
        place = np.searchsorted((table[1:] + table[:-1]) / 2, rng.normal(size=shape))
        return table[place] * np.float32(rng.uniform(0.5, 2))

    return make
