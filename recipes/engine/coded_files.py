"""The files that a run makes of its last network, beside that network as float32: bytes, accuracy, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from secateur import coding, exports
from secateur.dataloader import Images
from secateur.exports.timing import least
from secateur.pruning import compact
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.scoring import score_logits

TIMED_BATCH = 128
PLAIN = "model.tflite"


def file_rows(
    context: RunContext, files: Sequence[Path], network: keras.Model, parts: Mapping[str, Images]
) -> list[dict]:
    """A row for the network's float32 LiteRT file and for each of `files`; none where there are none.

    Args:
        files: .tflite and .kpz.
        network: what they were made of.
        parts: "holdout" and "test".
    """
    if not files:
        return []
    lite = {PLAIN: exports.to_litert(compact(network))}
    lite |= {path.name: path.read_bytes() for path in files if path.suffix == ".tflite"}
    ms = _milliseconds(context, lite, parts["test"])
    rows = [
        {"name": name, "bytes": len(data), "ms_litert": ms[name], **_lite_accuracies(context, data, parts)}
        for name, data in lite.items()
    ]
    return rows + [_decoded(context, path, parts) for path in files if path.suffix == ".kpz"]


def lite_logits(context: RunContext, data: bytes, images: Images) -> np.ndarray:
    """(n, classes) float32: what a LiteRT file says of images."""

    def read(part: slice) -> np.ndarray:
        return context.inputs(images.images[part]).numpy()

    return exports.litert_outputs(data, read, len(images), TIMED_BATCH)


def _milliseconds(context: RunContext, lite: Mapping[str, bytes], images: Images) -> dict[str, float]:
    batch = np.asarray(context.inputs(images.images[:TIMED_BATCH]))
    calls = {name: partial(exports.litert_runner(data, len(batch)), batch) for name, data in lite.items()}
    return least(calls, context.config.time_seconds)


def _lite_accuracies(context: RunContext, data: bytes, parts: Mapping[str, Images]) -> dict[str, float]:
    return {
        f"{name}_accuracy": score_logits(lite_logits(context, data, part), part.labels).accuracy
        for name, part in parts.items()
    }


def _decoded(context: RunContext, path: Path, parts: Mapping[str, Images]) -> dict:
    model = coding.decode(path)
    found = {f"{name}_accuracy": context.accuracy(model, part) for name, part in parts.items()}
    return {"name": path.name, "bytes": path.stat().st_size, "ms_litert": None, **found}
