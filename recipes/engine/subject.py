"""What a run works on: a net of `--arch`, a snapshot, or somebody's own Keras model."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from secateur import nets
from secateur.dataloader import Facts, parts_of
from secateur.dataloader.pipelines import Pipeline
from secateur.dataloader.registry import find_dataset
from secateur.dataloader.sources import folders
from secateur.dataloader.views import as_read, evaluation_view
from secateur.nets.endings import logits_of, with_ending
from secateur.nets.functional import functional
from secateur.nets.graph import has_graph
from secateur.nets.losses import CROSS_ENTROPY, Loss
from secateur.nets.snapshots import GRAPH, check_finite_model
from secateur.nets.task import Task
from secateur.nets.twins import flags_of, frozen, training_twin
from secateur.pruning import compact
from secateur.pruning.layers import find_installed
from secateur.recipes.engine.config import MODELS, RunOptions
from secateur.runs import Snapshot, SnapshotError, UsageError, warn
from secateur.runs.errors import first_line
from secateur.runs.hdf5 import check_heaps
from secateur.runs.stubs import Refused
from secateur.runs.text import few

Shape = tuple[int, int, int]
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)
UNREADABLE = (
    *OUT_OF_MEMORY, ValueError, TypeError, OSError, KeyError, ImportError, AttributeError, IndexError,
    OverflowError, RecursionError, NotImplementedError, RuntimeError, tf.errors.OpError,
)  # fmt: skip
"""What Keras and TensorFlow raise of files that they cannot read, and of models that they cannot build."""
SIZES = {"filters", "units", "kernel_size", "input_dim", "output_dim", "key_dim", "value_dim", "num_heads"}
"""Keys of layers in a file, each of which has at least as many weights."""
FEW = 2**24  # weights, or bytes, that do no harm
PACKED = 100
"""How often a part of a file may be larger than what it is packed into; zeros are packed a thousand times."""


@dataclass(frozen=True)
class Subject:
    """A network and how it is worked on.

    Attributes:
        original: the model as its owner made it; None for a net of this project.
        task: what its outputs mean, as logits; None: classes, as those of every net of this project.
        given: the same of outputs as its owner has them.
        thaw: whether layers train that its owner froze.
    """

    original: keras.Model | None = None
    task: Task | None = None
    given: Task | None = None
    thaw: bool = True

    @classmethod
    def of(cls, options: RunOptions, begins: Snapshot | None) -> Subject:
        """Reads `--model`; or takes the model in the snapshot that the run begins with.

        Raises `SnapshotError` for a file that cannot be read, `UsageError` for a model that cannot be used.
        """
        if options.model:
            original = load_model(options.model)
        elif begins and begins.spec and GRAPH in begins.spec:
            original = nets.load_params(None, begins, options.trained_param or "snapshot")
            return cls.of_snapshot(original, options.loss, begins.facts, options.unfreeze)
        else:
            return cls()
        return cls.own(original, options.loss, options.unfreeze)

    @classmethod
    def of_snapshot(
        cls, model: keras.Model, loss: str | None, facts: Mapping[str, Any], thaw: bool = True
    ) -> Subject:
        """The model of a snapshot, with that loss, or the one that its facts name.

        Where Keras knows none of that name, classes are judged by their cross-entropy, other outputs by none.
        Raises as `own` does.
        """
        name = facts.get("loss")
        if loss or not name:
            return cls.own(model, loss, thaw)
        with contextlib.suppress(UsageError):
            return cls.own(model, name, thaw)
        if facts.get("task") != "classes":
            return cls.unlabelled(model)
        if name != CROSS_ENTROPY:
            warn(
                f"the snapshot's loss {name} is not known here: cross-entropy stands in, --loss names another"
            )
        return cls.own(model, None, thaw)

    @classmethod
    def own(cls, model: keras.Model, loss: Loss | None = None, thaw: bool = True) -> Subject:
        """Somebody's own model, made functional. `loss`, and what is raised, are as in `Task.of`."""
        model = functional(model)
        given = Task.of(model, loss)
        return cls._of(model, given, thaw)

    @classmethod
    def _of(cls, model: keras.Model, given: Task, thaw: bool) -> Subject:
        return cls(model, given.bare.of_integers, given.of_integers, thaw)

    @classmethod
    def unlabelled(cls, model: keras.Model) -> Subject:
        """One that is shown images alone, whatever its outputs mean."""
        return cls(functional(model))

    def classifying(self, classes: int, one_hot: bool | None = None) -> Subject:
        """The same where a loss of its owner's is one of so many classes, as `Task.of_classes` finds it."""
        if self.given is None or self.given.kind != "own" or not self.gives(classes):
            return self
        given = self.given.of_classes(one_hot)
        return self._of(self.original, given, self.thaw) if given else self

    @property
    def shape(self) -> Shape | None:
        """(height, width, channels) of the images that it reads; None for the data set's own.

        Raises `UsageError` for inputs that are no images of a fixed size.
        """
        if self.original is None:
            return None
        shapes = self.input_shapes
        if any(len(shape) != 3 or shape[2] not in (1, 3) or None in shape for shape in shapes):
            raise UsageError(f"Images go into inputs (height, width, 1 or 3). Received: inputs {shapes}")
        return max(shapes, key=lambda shape: (shape[2], shape[0] * shape[1]))

    def shown(self, images: Pipeline, stored: tuple[int, ...] = ()) -> Pipeline:
        """How images are prepared for it: crops for one's own model have its side.

        `stored` is the shape that they come in. Those of the model's own size are evaluated whole, as is
        everything that goes into several inputs, or into one that is no square.
        """
        if self.original is None or not images.crop:
            return images
        (shape, *others), whole = self.input_shapes, replace(images, crop=None, resize=None)
        if others or len(shape) != 3 or shape[0] is None or shape[0] != shape[1]:
            return whole
        side, around = shape[0], (images.resize or images.crop) / images.crop
        same = tuple(stored[:2]) == shape[:2]
        return replace(images, crop=side, resize=side if same else round(side * around))

    def loaded(self, images: Pipeline, dataset: str) -> Shape | None:
        """(height, width, channels) that images are brought to when they are read; None: the data set's own.

        Where crops are taken of them that is what the data set is known to have, or room for the crops: of
        any data set for one's own model, of a folder for a net of this project. Raises as `shape` does.
        """
        shape, shown = self.shape, self.shown(images)
        if not shown.crop or (shape is None and dataset != folders.NAME):
            return shape
        side = shown.resize or shown.crop
        return (*(find_dataset(dataset).shape or (side, side))[:2], shape[2] if shape else 3)

    @property
    def input_shapes(self) -> list[tuple[int | None, ...]]:
        """Of one's own model, without the number of images; none for a net of this project."""
        return [] if self.original is None else [tuple(tensor.shape[1:]) for tensor in self.original.inputs]

    @property
    def classifies(self) -> bool:
        """Whether the classes of a data set can be labels of its outputs."""
        return self.original is None or (self.task is not None and self.task.kind == "classes")

    def check_classes(self, classes: int, data: str, names: Sequence[str] = ()) -> None:
        """Raises `UsageError` where the outputs are not so many classes.

        It says `data`, a folder or the name of a data set, and the `names` of the classes.
        """
        if self.original is None or not self.classifies:
            return
        if not self.gives(classes):
            shapes = [tuple(tensor.shape[1:]) for tensor in self.original.outputs]
            known = f" ({few(tuple(names))})" if names else ""
            raise UsageError(
                f"The model has outputs {shapes}, the data {classes} classes{known}: give the data that it "
                f"was trained on. Received: data={data}"
            )

    def gives(self, classes: int) -> bool:
        """Whether its outputs can be those of so many classes."""
        if self.original is None:
            return True
        shapes = [tuple(tensor.shape[1:]) for tensor in self.original.outputs]
        return shapes == [(classes,)] or (shapes == [(1,)] and classes == 2)

    def reads(self, images: Any, facts: Facts, view: Pipeline | None = None) -> Any:
        """What the network reads of images on the 0–255 scale: each of several inputs at its own size.

        `view` makes of them what evaluation shows; without it they are prepared already.
        What is no batch of images, or one array for each input (`Columns`), is read as it is.
        """
        images = parts_of(images)
        if not hasattr(images, "shape") or len(images.shape) != 4:
            return keras.tree.map_structure(lambda x: tf.cast(x, tf.float32), images)
        images = as_read(evaluation_view(images, view) if view else images, facts)
        if self.original is None or len(self.original.inputs) == 1:
            return images
        return [_fitted(images, tensor.shape[1:]) for tensor in self.original.inputs]

    def working(self, model: keras.Model) -> keras.Model:
        """A model of its owner's form as it is worked on: of logits, flat, fast to train, thawed."""
        return training_twin(logits_of(model), self.thaw)

    def finished(self, model: keras.Model) -> keras.Model:
        """A network that was worked on in its owner's form: plain layers, with end and flags as they came.

        A net of this project is made plain, too.
        """
        small = self.ended(compact(model))
        for layer in small.layers:
            for name, value in self._flags.get(layer.name, {}).items():
                setattr(layer, name, value)
        return small

    def ended(self, model: keras.Model) -> keras.Model:
        """A network of logits with the softmax or sigmoid that its owner has behind them."""
        return model if self.original is None else with_ending(model, self.original)

    def bare(self, model: keras.Model) -> keras.Model:
        """A network in its owner's form without that end."""
        return model if self.original is None else logits_of(model)

    @property
    def loss_name(self) -> str:
        """Of what its outputs are judged by, for messages."""
        if self.given:
            return self.given.loss_spec.name
        return CROSS_ENTROPY if self.original is None else "unknown"

    @property
    def judged(self) -> dict[str, str]:
        """What a snapshot says of outputs that its graph cannot: their kind, and the loss by its name."""
        return {"task": self.given.kind, "loss": self.loss_name} if self.given else {}

    @property
    def metric_name(self) -> str:
        """What is said of outputs; larger is better."""
        return self.task.metric_name if self.task else "accuracy"

    def fresh(self, model: keras.Model, seed: int) -> keras.Model:
        """The same network with new weights, drawn as its layers say."""
        keras.utils.set_random_seed(seed)
        return type(model).from_config(model.get_config())

    def frozen_text(self) -> str:
        """In words, which layers its owner froze and what becomes of them; "" where there are none."""
        still = frozen(self.original) if self.original is not None else []
        if not still:
            return ""
        fate = "train here, and are frozen in the file" if self.thaw else "do not train; --unfreeze lets them"
        return f"{len(still)} layers of the model are frozen ({still[0]}, …): they {fate}"

    @cached_property
    def _flags(self) -> Mapping[str, Mapping]:
        return {} if self.original is None else flags_of(self.original)


def load_model(path: str) -> keras.Model:
    """A saved model, with the loss that it was compiled with where that is known.

    A subclassed model comes as a functional one. Raises `SnapshotError` for a file that Keras cannot read, or
    whose weights are not finite, `UsageError` for a model that cannot be made functional.
    """
    if not os.path.isfile(path):
        raise SnapshotError(f"There is no such file. Received: model={path}")
    if Path(path).suffix not in MODELS:
        raise UsageError(f"A model is a .keras or .h5 file. Received: model={path}")
    if Path(path).suffix == ".keras" and not zipfile.is_zipfile(path):
        raise SnapshotError(f"This is no Keras file, or a damaged one. Received: model={path}")
    find_installed()
    try:
        if Path(path).suffix == ".keras":
            _check_sizes(path)
        check_heaps(path)
        model = _read(path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SnapshotError(
            f"This Keras file is damaged ({error}). Received: model={path}\ncopy or save it again"
        ) from error
    except UNREADABLE as error:
        reason, remedy = _unread(error)
        raise SnapshotError(
            f"Keras cannot read this model ({reason}). Received: model={path}{remedy}"
        ) from error
    check_finite_model(model, path)
    return model if has_graph(model) else functional(model)


def _unread(error: Exception) -> tuple[str, str]:
    """Why Keras cannot read a file, and behind a line break what to do, where that is known."""
    if unknown := re.search(r"Could not locate \w+ '[^']+'", str(error)):
        return unknown[0], "\ngive --import FILE.py with its layers, and secateur.register_layer for each"
    if isinstance(error, OUT_OF_MEMORY):
        return "its weights do not fit in memory", ""
    if "`Lambda`" in str(error):
        remedy = "\nsave secateur.functional(model) where it was made: keras.ops stand there for Lambdas"
        return "a Lambda runs code", remedy
    return first_line(error), ""


def _read(path: str) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # That its optimizer's state does not fit: a training here begins with one of its own.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return keras.models.load_model(path)
    except OUT_OF_MEMORY:
        raise
    except Exception as error:  # of a loss or optimizer of one's own, which is not needed
        model = keras.models.load_model(path, compile=False)
        warn(f"how {path} was compiled cannot be read ({first_line(error)}): its loss is not known")
        return model


def _check_sizes(path: str) -> None:
    """Raises `Refused` for a layer that would have more weights than the file has bytes, and for a zip bomb.

    Keras makes the weights that a file asks for before it looks whether they are there.
    """
    with zipfile.ZipFile(path) as parts:
        size = sum(part.file_size for part in parts.infolist())
        if size > PACKED * os.path.getsize(path) + FEW:
            raise Refused(f"{os.path.getsize(path)} bytes that unpack to {size}")
        for part in parts.infolist():
            if part.filename.endswith(".json") and part.file_size > FEW:
                raise Refused(f"{part.filename} of {part.file_size} bytes")
        waiting = [json.loads(parts.read("config.json"))] if "config.json" in parts.namelist() else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in SIZES & value.keys():
                sides = value[key] if isinstance(value[key], list) else [value[key]]
                if math.prod(side for side in sides if isinstance(side, int)) > max(size, FEW):
                    raise Refused(f"{key}={value[key]} in a file of {size} bytes")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _fitted(images: tf.Tensor, shape: Shape) -> tf.Tensor:
    height, width, channels = shape
    if images.shape[1:3] != (height, width):
        images = tf.image.resize(images, (height, width), antialias=True)
    return tf.reduce_mean(images, -1, keepdims=True) if channels < images.shape[-1] else images
