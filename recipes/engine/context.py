"""What the steps of a run work with, and what they share: networks in and out, accuracy, augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur import nets
from secateur.dataloader import Images, Splits, parts_of
from secateur.dataloader.pipelines import Pipeline
from secateur.dataloader.views import evaluation_view, training_view
from secateur.distillation import labels_only
from secateur.nets.twins import hand_over, training_twin
from secateur.op_utils import Batch, Workers, compute_in, make_forward, make_reestimator
from secateur.pruning import Plan, complexity
from secateur.pruning.count.counting import Complexity
from secateur.recipes.engine.clock import Clock
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.subject import Subject
from secateur.recipes.training.scoring import Score, score, score_logits
from secateur.runs import MetricsLog, RunFolder, save_snapshot
from secateur.runs.followed import FollowedFolder

SCORED = 3200
MADE, MAKING = 0.0, 1.0  # what the chief of several workers says of a step
SHIFT = 8  # images are shifted by up to this part of their smaller side, where the user asks for it


@dataclass(frozen=True)
class Sliced:
    """Images that look like an array of what a network reads, and become one where they are sliced.

    Attributes:
        images: (n, h, w, c) uint8.
        read: some of them → float32.
    """

    images: np.ndarray
    read: Callable[[Any], tf.Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …) as the network reads them."""
        return (len(self), *self[:1].shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        return self.read(self.images[part]).numpy()


@dataclass(frozen=True)
class RunContext:
    """A run: its options, the folder that it holds, its log, its data, its devices, and what it works on.

    `clock` is there where its minutes are counted.
    """

    config: RunOptions
    folder: RunFolder
    log: MetricsLog
    splits: Splits
    strategy: tf.distribute.Strategy
    subject: Subject = Subject()
    clock: Clock | None = None

    @cached_property
    def workers(self) -> Workers:
        """The processes that share this run."""
        return Workers(self.strategy)

    @property
    def pipeline(self) -> Pipeline:
        """What is done to images before the network reads them."""
        return self.subject.shown(self.config.images, self.splits.facts.shape)

    def step(self, name: str, file: str, make: Callable[[Path], dict | None]) -> Path:
        """`RunFolder.step`; checkpoints of the step are dropped as soon as its file is complete.

        Of several workers the chief makes the file and the others wait for it, or, of what is made
        `together`, do the same beside it.
        """
        if isinstance(self.folder, FollowedFolder):
            while self.workers.agreed() == MAKING:
                self.folder.discard(file, make)
            self.folder.read()
            return self.folder.path(file)
        before = self.folder.entry(name)
        path = self.folder.step(name, file, make)
        self.folder.drop_checkpoints(name)
        if self.folder.entry(name) is not before:  # a repetition that does nothing writes nothing
            self.note_time()
        self.workers.agreed(MADE)
        return path

    def together(self, make: Callable[[Path], dict | None]) -> Callable[[Path], dict | None]:
        """What all devices of all workers take part in: variables that are made in it live on each."""

        def made(path: Path) -> dict | None:
            if not self.workers.follows:
                self.workers.agreed(MAKING)
            with self.strategy.scope():
                return make(path)

        return made

    def checkpoint(self, name: str, arrays: dict[str, np.ndarray], facts: dict) -> None:
        """Keeps the state of an unfinished step, and how much time the run has used."""
        self.folder.save_checkpoint(name, arrays, facts)
        self.note_time()

    def note_time(self) -> None:
        """A run that is killed has used the time until here."""
        if self.clock:
            self.clock.note()

    # --- networks ------------------------------------------------------------------------------------------

    def load(self, path: Path) -> keras.Model:
        """The network of a snapshot, as it is worked on."""
        model = nets.load_params(None, path)
        return model if hasattr(model, "spec") else self.subject.working(model)

    def teacher(self, path: Path) -> keras.Model:
        """The same, to be listened to: it computes in the run's type."""
        model = self.load(path)
        compute_in(self.config.dtype, model)
        return model

    def save(self, path: Path, model: keras.Model, plan: Plan | None = None) -> dict:
        """Writes a snapshot; returns facts for the manifest."""
        facts = self.splits.facts
        known = {"dataset": facts.name} | {n: getattr(facts, n) for n in ("mean", "std", "normalisation")}
        known |= {"class_names": facts.class_names} if facts.class_names else {}
        if not hasattr(model, "spec"):
            model = self.subject.finished(model)
            known |= self.subject.judged
        if (images := self.pipeline).crop:  # who evaluates it later has to show it the same
            known |= {"crop": images.crop, "resize": images.resize}
        save_snapshot(path, nets.snapshot_of(model, known, plan.to_json() if plan else None))
        cost = complexity(model)
        return {"params": cost.params, "macs": cost.macs}

    def cost(self, path: Path) -> Complexity:
        """Parameters and MACs of the network of a snapshot."""
        return complexity(nets.load_params(None, path))

    def sample(self) -> tuple[Any, np.ndarray]:
        """Training images as a network reads them, and labels, for criteria that look at some.

        As many as HAP takes, drawn at random: in order, those of a folder could be of one class.
        """
        order = np.random.default_rng(self.config.seed).permutation(len(self.splits.train))
        return self.shown(self.splits.train.take(order[:SCORED]))

    def shown(self, images: Images) -> tuple[Any, np.ndarray]:
        """Images as a network reads them, which bytes become where they are sliced, and labels."""
        if getattr(images.images, "dtype", None) == np.uint8 and len(self.subject.input_shapes) < 2:
            return Sliced(images.images, self.inputs), parts_of(images.labels)
        return self.arrays(images.images), parts_of(images.labels)

    def accuracy(self, model: keras.Model, images: Images, batch_statistics: bool = False) -> float | None:
        """Accuracy in [0, 1], with moving averages or with the BN statistics of each batch.

        None where images have no labels.
        """
        if not self.splits.facts.labelled:
            return None
        forward = make_forward(model, self.inputs, batch_statistics, self.config.compile)
        return score(forward, images, self.config.val_batch_size, self.subject.task).accuracy

    def reestimate(self, model: keras.Model, frozen: bool = True) -> bool:
        """BN's averages from training images, in place; whether there are any that move."""
        return self.reestimator(model, frozen)(self.splits.warmup.images, self.config.val_batch_size)

    def reestimator(self, model: keras.Model, frozen: bool = True) -> Callable[[Any, int], bool]:
        """`make_reestimator`; averages of `frozen` layers move, too, since a cut changes what they see."""
        if self.subject.original is None or self.subject.thaw or not frozen:
            return make_reestimator(model, self.inputs)
        free = training_twin(model)
        again = make_reestimator(free, self.inputs)

        def reestimate(images: Any, batch_size: int) -> bool:
            hand_over(model, free)
            moved = again(images, batch_size)
            hand_over(free, model, ("moving_mean", "moving_variance"))
            return moved

        return reestimate

    def objective(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean loss and accuracy of a batch with "labels"; an `Objective`."""
        if (task := self.subject.task) is None:
            return labels_only(outputs, batch)
        return task.loss(batch["labels"], outputs), task.metric(batch["labels"], outputs)

    def scored(self, outputs: np.ndarray, images: Images, finished: bool = False) -> Score:
        """How good outputs for images are; `finished`: those of a network that ends as its owner has it."""
        if not self.splits.facts.labelled:
            return Score(None, None, len(images))
        task = self.subject.given if finished else self.subject.task
        return score_logits(outputs, images.labels, task)

    # --- images → what the network reads -------------------------------------------------------------------

    def inputs(self, images: Any) -> Any:
        """uint8 (n, h, w, c) → float32, normalised, as evaluation shows it; see `Subject.reads`."""
        return self.subject.reads(images, self.splits.facts, self.pipeline)

    def arrays(self, images: Any) -> Any:
        """The same as arrays, in the structure that the network reads, made in parts of a batch."""
        size = self.config.val_batch_size
        parts = [self.inputs(images[i : i + size]) for i in range(0, max(1, len(images)), size)]
        return keras.tree.map_structure(lambda *some: np.concatenate(some), *parts)

    def plain(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """`inputs` of the batch as a `Preprocess`: nothing is drawn."""
        return self.inputs(batch["images"])

    def augmented(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Cropped and mirrored at random, as the run's system does it; a `Preprocess`."""
        return self._view(batch, seed, self.pipeline)

    def two_views(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Two augmented views of every image, (2n, h, w, 3); a `Preprocess`."""
        return self._view(batch, seed, replace(self.pipeline, views=2))

    def _view(self, batch: Batch, seed: tf.Tensor, pipeline: Pipeline) -> tf.Tensor:
        images, facts = batch["images"], self.splits.facts
        if self.config.augmentation == "none":
            return self.inputs(keras.tree.map_structure(lambda x: tf.concat([x] * pipeline.views, 0), images))
        if self.config.augmentation != "recipe":  # of what evaluation shows
            images = evaluation_view(images, pipeline)
            pad = min(images.shape[1:3]) // SHIFT if pipeline.pad else 0  # of 32 pixels the published 4
            pipeline = replace(pipeline, pad=pad, crop=None)
        return self.subject.reads(training_view(images, seed, pipeline, facts), facts)
