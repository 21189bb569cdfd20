"""Every kind of file that is read: how a sound one is made, how a program reads it, how it is made worse."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.runs import Snapshot, load_snapshot, read_json, save_snapshot
from tests.chaos.mutations import any_bytes, any_value, in_archive, worse_images, worse_keras

Mutate = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffix: of its name.
        make: a path → writes a sound file there.
        read: reads such a file as a program would.
        mutate: changes its bytes at random.
        crafted: the sound bytes → worse ones.
        every: of so many mutations one is tried: some files take long to read.
    """

    suffix: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    mutate: Mutate
    crafted: Callable[[bytes], list[bytes]] = lambda data: []
    every: int = 1


ARRAYS = {"conv/kernel:0": np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4), "fc/biases:0": np.zeros(2, "f4")}


def _pickle(protocol: int) -> Kind:
    def make(path: Path) -> None:
        path.write_bytes(pickle.dumps(ARRAYS, protocol))

    return Kind(".pkl", make, load_snapshot, any_bytes)


def _snapshot(path: Path) -> None:
    save_snapshot(path, Snapshot(ARRAYS, {}, None, {}))


def _plan(path: Path) -> None:
    path.write_text(json.dumps({"keep": {"a": [0, 2], "b": [1]}, "sizes": {"a": 3, "b": 2}}))


def _model() -> Any:
    import keras

    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(x))


def _read_model(path: Path) -> Any:
    import keras

    from secateur.recipes.engine.subject import load_model

    keras.backend.clear_session()
    return load_model(str(path))


def _decode(path: Path) -> Any:
    import keras

    from secateur import coding

    keras.backend.clear_session()
    return coding.decode(path)


def _encode(path: Path) -> None:
    from secateur import coding

    coding.encode(_model(), path)


def _read_recipe(path: Path) -> Any:
    from secateur.recipes.engine.config import RunOptions
    from secateur.recipes.engine.program import program_of

    return program_of(RunOptions(recipe=str(path), train_path="run"))


def _read_plan(path: Path) -> Any:
    from secateur.pruning import Plan

    return Plan.from_json(read_json(path))


def _recipe(path: Path) -> None:
    published = Path(__file__).resolve().parents[2] / "recipes" / "published"
    path.write_text((published / "ekg.toml").read_text())


def _image(form: str) -> Kind:
    def make(path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
        path.write_bytes({"png": _png, "jpg": _jpeg}[form](pixels))

    return Kind(f".{form}", make, _read_image, any_bytes, worse_images, every=20)


def _png(pixels: np.ndarray) -> bytes:
    import tensorflow as tf

    return tf.io.encode_png(pixels).numpy()


def _jpeg(pixels: np.ndarray) -> bytes:
    import tensorflow as tf

    return tf.io.encode_jpeg(pixels).numpy()


def _read_image(path: Path) -> Any:
    from secateur.dataloader.sources.decoding import decode_files

    return decode_files([path], (8, 8, 3))


def _safetensors(path: Path) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(ARRAYS))


def _of_tfds(pattern: str, mutate: Mutate, stream: bool = False) -> Kind:
    """One of the files of a prepared data set of tensorflow-datasets; the others stay sound."""

    def make(path: Path) -> None:
        from benchmarks.photos import store

        pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
        store(path.parent, NAME, 2, {"train": [(_jpeg(image), i % 2) for i, image in enumerate(pixels)]})
        path.write_bytes(part(path).read_bytes())

    def part(path: Path) -> Path:
        return max((path.parent / NAME / "1.0.0").glob(pattern), key=lambda file: file.stat().st_size)

    def read(path: Path) -> Any:
        from secateur.dataloader.sources import tfds

        own = part(path)
        sound = own.read_bytes()
        own.write_bytes(path.read_bytes())
        try:
            images = tfds.read(NAME, "train", str(path.parent), shape=(8, 8, 3), stream=stream)
            return images.images[np.arange(len(images))]
        finally:
            own.write_bytes(sound)

    return Kind(".part", make, read, mutate, every=20)


NAME = "hostile_photos"
KINDS: dict[str, Kind] = {
    **{f"pickle, protocol {protocol}": _pickle(protocol) for protocol in range(6)},
    "snapshot": Kind(".pkl", _snapshot, load_snapshot, any_bytes),
    "safetensors": Kind(".safetensors", _safetensors, load_snapshot, any_bytes),
    "plan": Kind(".json", _plan, _read_plan, any_value),
    "recipe": Kind(".toml", _recipe, _read_recipe, any_value, every=4),
    "png": _image("png"),
    "jpg": _image("jpg"),
    "kpz": Kind(".kpz", _encode, _decode, any_bytes, every=4),
    "keras": Kind(".keras", lambda path: _model().save(path), _read_model, in_archive, worse_keras, every=10),
    "h5": Kind(".h5", lambda path: _model().save(path), _read_model, any_bytes, every=10),
    "tfds, records": _of_tfds("*.tfrecord*", any_bytes),
    "tfds, records streamed": _of_tfds("*.tfrecord*", any_bytes, stream=True),
    "tfds, info": _of_tfds("dataset_info.json", any_value),
    "tfds, features": _of_tfds("features.json", any_value),
}
