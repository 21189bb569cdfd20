"""What the steps of a run work with, and what they share: networks in and out, accuracy, augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur import nets
from secateur.dataloader import Columns, Images, Splits
from secateur.dataloader.pipelines import Pipeline
from secateur.dataloader.views import evaluation_view, training_view
from secateur.distillation import labels_only
from secateur.op_utils import Batch, make_forward, reestimate_batch_norm
from secateur.pruning import Plan, complexity
from secateur.pruning.count.counting import Complexity
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.subject import Subject
from secateur.recipes.training.scoring import Score, score, score_logits
from secateur.runs import MetricsLog, RunFolder, save_snapshot

SCORED = 3200


@dataclass(frozen=True)
class RunContext:
    """A run: its options, the folder that it holds, its log, its data, its devices, and what it works on."""

    config: RunOptions
    folder: RunFolder
    log: MetricsLog
    splits: Splits
    strategy: tf.distribute.Strategy
    subject: Subject = Subject()

    def step(self, name: str, file: str, make: Callable[[Path], dict | None]) -> Path:
        """`RunFolder.step`; checkpoints of the step are dropped as soon as its file is complete."""
        path = self.folder.step(name, file, make)
        self.folder.drop_checkpoints(name)
        return path

    # --- networks ------------------------------------------------------------------------------------------

    def load(self, path: Path) -> keras.Model:
        """The network of a snapshot, as it is worked on."""
        model = nets.load_params(None, path)
        return model if hasattr(model, "spec") else self.subject.working(model)

    def save(self, path: Path, model: keras.Model, plan: Plan | None = None) -> dict:
        """Writes a snapshot; returns facts for the manifest."""
        facts = self.splits.facts
        known = {
            "dataset": facts.name,
            "mean": facts.mean,
            "std": facts.std,
            "normalisation": facts.normalisation,
        }
        if facts.exchanged:
            known |= {"exchanged": True}
        if not hasattr(model, "spec"):
            model = self.subject.finished(model)
        if (images := self.config.images).crop:  # who evaluates it later has to show it the same
            known |= {"crop": images.crop, "resize": images.resize}
        save_snapshot(path, nets.snapshot_of(model, known, plan.to_json() if plan else None))
        cost = complexity(model)
        return {"params": cost.params, "macs": cost.macs}

    def cost(self, path: Path) -> Complexity:
        """Parameters and MACs of the network of a snapshot."""
        return complexity(nets.load_params(None, path))

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Training images as a network reads them, and labels, for criteria that look at some.

        As many as HAP takes, drawn at random: in order, those of a folder could be of one class.
        """
        train = self.splits.train
        chosen = np.random.default_rng(self.config.seed).permutation(len(train))[:SCORED]
        return self.arrays(train.images[chosen]), train.labels[chosen]

    def accuracy(self, model: keras.Model, images: Images, batch_statistics: bool = False) -> float:
        """Accuracy in [0, 1], with moving averages or with the BN statistics of each batch."""
        forward = make_forward(model, self.inputs, batch_statistics, self.config.compile)
        return score(forward, images, self.config.val_batch_size, self.subject.task).accuracy

    def reestimate(self, model: keras.Model) -> None:
        """BN's averages from training images, in place."""
        images, size = self.splits.warmup.images, self.config.val_batch_size
        reestimate_batch_norm(model, self.inputs, images, size)

    def objective(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean loss and accuracy of a batch with "labels"; an `Objective`."""
        if (task := self.subject.task) is None:
            return labels_only(outputs, batch)
        return task.loss(batch["labels"], outputs), task.metric(batch["labels"], outputs)

    def scored(self, outputs: np.ndarray, images: Images, finished: bool = False) -> Score:
        """How good outputs for images are; `finished`: those of a network that ends as its owner has it."""
        task = self.subject.given if finished else self.subject.task
        return score_logits(outputs, images.labels, task)

    # --- images → what the network reads -------------------------------------------------------------------

    def inputs(self, images: Any) -> Any:
        """uint8 (n, h, w, c) → float32, normalised, as evaluation shows it; see `Subject.reads`."""
        if len(getattr(images, "shape", ())) == 4 and not isinstance(images, Columns):
            images = evaluation_view(images, self.config.images)
        return self.subject.reads(images, self.splits.facts)

    def arrays(self, images: Any) -> Any:
        """The same as arrays, in the structure that the network reads."""
        return keras.tree.map_structure(np.asarray, self.inputs(images))

    def plain(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """`inputs` of the batch as a `Preprocess`: nothing is drawn."""
        return self.inputs(batch["images"])

    def augmented(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Cropped and mirrored at random, as the run's system does it; a `Preprocess`."""
        return self._view(batch, seed, self.config.images)

    def two_views(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Two augmented views of every image, (2n, h, w, 3); a `Preprocess`."""
        return self._view(batch, seed, replace(self.config.images, views=2))

    def _view(self, batch: Batch, seed: tf.Tensor, pipeline: Pipeline) -> tf.Tensor:
        if self.config.augmentation == "none" and not pipeline.crop:
            return self.inputs(
                keras.tree.map_structure(lambda x: tf.concat([x] * pipeline.views, 0), batch["images"])
            )
        facts = self.splits.facts
        return self.subject.reads(training_view(batch["images"], seed, pipeline, facts), facts)
