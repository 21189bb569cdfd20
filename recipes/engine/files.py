"""Files of the last network for others to run: written, measured for the report, and how long that takes."""

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
from secateur.exports.timing import least, seconds
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.step import State
from secateur.runs import UsageError, warn
from secateur.runs.errors import first_line

TIMED_BATCH = 128  # images of a call
PLAIN = "model.tflite"  # the network in float32
COMPACT = "compact.keras"  # its plain layers, as its owner has them
PAGE = 4.0  # seconds that pictures and page take
NETWORKS = 2  # in the report: the dense one and the last


def save_compact(context: RunContext, snapshot: Path) -> Path | None:
    """Two steps: compact.keras, and model.tflite, whose path it returns, unless LiteRT cannot run it."""
    finished = cache(lambda: context.subject.finished(context.load(snapshot)))
    context.step("compact", COMPACT, lambda path: finished().save(path))
    try:
        return context.step("litert", PLAIN, lambda path: save_litert(finished(), path))
    except UsageError as error:
        warn(f"there is no LiteRT file: {first_line(error)}")
        return None


def save_litert(model: keras.Model, path: Path) -> dict:
    """Writes a LiteRT file and prints how far its outputs on random images are from the model's.

    Returns {"max_difference"}. Unlike `exports.export` it keeps a file that differs and warns: it is the last
    step of a run, and the Keras model is there.
    """
    path.write_bytes(data := to_litert(model))
    inputs = sample_inputs(model, 8)
    parity = compare(outputs(model, inputs), keras.tree.flatten(litert_runner(data, 8)(*inputs)))
    print(f"LiteRT and Keras compute {parity}")
    if not parity.relative <= TOLERANCE:
        warn(f"the outputs of the LiteRT file differ by up to {parity.absolute:.2g}; use the Keras model")
    return {"max_difference": parity.absolute}


def lite_files(networks: Mapping[str, keras.Model], written: Path | None) -> dict[str, bytes]:
    """A LiteRT file of each; none where LiteRT cannot run them, which `save_compact` has said.

    `written` is that of the last one, if there is one.
    """
    *others, last = networks
    made = {last: written.read_bytes()} if written else {}
    try:
        return {name: made.get(name) or to_litert(networks[name]) for name in (*others, last)}
    except UsageError:
        return {}


def file_rows(
    context: RunContext, files: Sequence[Path], plain: bytes | None, parts: Mapping[str, Images]
) -> list[dict]:
    """A row for the network's float32 LiteRT file and for each of `files`; none where there are none.

    Args:
        files: .tflite and .kpz.
        plain: the float32 file of what they were made of; None where LiteRT cannot run it.
        parts: "holdout", and "test" where there is one.
    """
    if not files:
        return []
    lite = {PLAIN: plain} if plain else {}
    lite |= {path.name: path.read_bytes() for path in files if path.suffix == ".tflite"}
    ms = _milliseconds(context, lite, parts)
    rows = [
        {"name": name, "bytes": len(data), "ms_litert": ms[name]}
        | {f"{part}_accuracy": lite_accuracy(context, data, images) for part, images in parts.items()}
        for name, data in lite.items()
    ]
    return rows + [_decoded(context, path, parts) for path in files if path.suffix == ".kpz"]


def lite_accuracy(context: RunContext, data: bytes, images: Images) -> float | None:
    """Of a LiteRT file, which ends as the network's owner has it; None where images have no labels."""
    if not context.splits.facts.labelled:
        return None
    return context.scored(lite_outputs(context, data, images), images, finished=True).accuracy


def lite_outputs(context: RunContext, data: bytes, images: Images) -> np.ndarray:
    """(images, …): the first output of a LiteRT file."""

    def read(part: slice) -> list[np.ndarray]:
        return keras.tree.flatten(context.arrays(images.images[part]))

    return exports.litert_outputs(data, read, len(images), TIMED_BATCH)


def timed_batch(context: RunContext, parts: Mapping[str, Images]) -> list[np.ndarray]:
    """Images of a timed call, as the network reads them."""
    return keras.tree.flatten(context.arrays([*parts.values()][-1].images[:TIMED_BATCH]))


def _milliseconds(
    context: RunContext, lite: Mapping[str, bytes], parts: Mapping[str, Images]
) -> dict[str, float]:
    batch = timed_batch(context, parts)
    calls = {name: partial(exports.litert_runner(data, len(batch[0])), *batch) for name, data in lite.items()}
    return least(calls, context.config.time_seconds)


def _decoded(context: RunContext, path: Path, parts: Mapping[str, Images]) -> dict:
    model = context.subject.bare(coding.decode(path))
    found = {f"{name}_accuracy": context.accuracy(model, part) for name, part in parts.items()}
    return {"name": path.name, "bytes": path.stat().st_size, "ms_litert": None, **found}


def ending_seconds(context: RunContext, state: State) -> float:
    """Seconds that files and report will take, from one evaluation and one conversion of the network.

    The network is the dense one where there is one: the last one takes no longer. Test images are fetched
    here, since that takes its time, too.
    """
    if (snapshot := state.dense) is None:
        return PAGE + 2 * context.config.time_seconds
    model, holdout = context.load(snapshot), context.splits.holdout
    scale = context.splits.measured_count / len(holdout)
    evaluated = seconds(lambda: context.accuracy(model, holdout))
    converted = seconds(lambda: to_litert(context.subject.finished(model)))
    report = NETWORKS * (scale * evaluated + 2 * converted)
    return report + 2 * converted + 2 * context.config.time_seconds + PAGE
