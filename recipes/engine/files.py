"""Files of the last network for others to run: written, and measured for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np

from secateur import coding, exports
from secateur.dataloader import Images
from secateur.exports import compare, litert_runner, to_litert
from secateur.exports.parity import TOLERANCE
from secateur.exports.signature import outputs, sample_inputs
from secateur.exports.timing import least
from secateur.pruning import compact
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.scoring import score_logits
from secateur.runs import warn

TIMED_BATCH = 128  # images of a call
PLAIN = "model.tflite"  # the network in float32


def save_compact(context: RunContext, snapshot: Path) -> Path:
    """Two steps: compact.keras (plain layers) and model.tflite (float32) from a snapshot.

    Returns the path of the second.
    """
    made = cache(lambda: compact(context.load(snapshot)))
    context.step("compact", "compact.keras", lambda path: made().save(path))
    return context.step("litert", PLAIN, lambda path: save_litert(made(), path))


def save_litert(model: keras.Model, path: Path) -> dict:
    """Writes a LiteRT file and prints how far its outputs on random images are from the model's.

    Returns {"max_difference"}. Unlike `exports.export` it keeps a file that differs and warns: it is the last
    step of a run, and the Keras model is there.
    """
    path.write_bytes(data := to_litert(model))
    inputs = sample_inputs(model, 8)
    parity = compare(outputs(model, inputs), [litert_runner(data, 8)(*inputs)])
    print(f"LiteRT and Keras compute {parity}")
    if not parity.absolute <= TOLERANCE:
        warn(f"the outputs of the LiteRT file differ by up to {parity.absolute:.2g}; use the Keras model")
    return {"max_difference": parity.absolute}


def file_rows(
    context: RunContext, files: Sequence[Path], plain: bytes, parts: Mapping[str, Images]
) -> list[dict]:
    """A row for the network's float32 LiteRT file and for each of `files`; none where there are none.

    Args:
        files: .tflite and .kpz.
        plain: the float32 file of the network that they were made of.
        parts: "holdout" and "test".
    """
    if not files:
        return []
    lite = {PLAIN: plain} | {path.name: path.read_bytes() for path in files if path.suffix == ".tflite"}
    ms = _milliseconds(context, lite, parts["test"])
    rows = [
        {"name": name, "bytes": len(data), "ms_litert": ms[name], **_lite_accuracies(context, data, parts)}
        for name, data in lite.items()
    ]
    return rows + [_decoded(context, path, parts) for path in files if path.suffix == ".kpz"]


def lite_logits(context: RunContext, data: bytes, images: Images) -> np.ndarray:
    """Logits (n, classes) float32 that a LiteRT file gives for images."""

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
