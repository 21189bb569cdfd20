"""What the steps of a run work with, and what they share: networks in and out, accuracy, augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

import nets
from dataloader import Images, Splits
from dataloader.augment import augment, normalise, two_views
from op_utils import Batch, make_forward
from pruning import Plan, complexity
from recipes.config import TrainingOptions
from recipes.scoring import score
from runs import MetricsLog, RunFolder, save_snapshot


@dataclass(frozen=True)
class RunContext:
    """A run: its options, the folder that it holds, its log, its data and its devices."""

    config: TrainingOptions
    folder: RunFolder
    log: MetricsLog
    splits: Splits
    strategy: tf.distribute.Strategy

    def step(self, name: str, file: str, make: Callable[[Path], dict | None]) -> Path:
        """`RunFolder.step`; checkpoints of the step are dropped as soon as its file is complete."""
        path = self.folder.step(name, file, make)
        self.folder.drop_checkpoints(name)
        return path

    # --- networks ------------------------------------------------------------------------------------------

    def load(self, path: Path) -> keras.Model:
        """The network of a snapshot, on the devices of the run."""
        with self.strategy.scope():
            return nets.load_params(None, path)

    def save(self, path: Path, model: keras.Model, plan: Plan | None = None) -> dict:
        """Writes a snapshot; returns facts for the manifest."""
        facts = self.splits.facts
        known = {
            "dataset": facts.name,
            "mean": facts.mean,
            "std": facts.std,
            "normalisation": facts.normalisation,
        }
        save_snapshot(path, nets.snapshot_of(model, known, plan.to_json() if plan else None))
        cost = complexity(model)
        return {"params": cost.params, "macs": cost.macs}

    def accuracy(self, model: keras.Model, images: Images, batch_statistics: bool = False) -> float:
        """Accuracy in [0, 1], with moving averages or with the BN statistics of each batch."""
        forward = make_forward(model, self.inputs, batch_statistics, self.config.compile)
        return score(forward, images, self.config.val_batch_size).accuracy

    # --- images → what the network reads -------------------------------------------------------------------

    def inputs(self, images: tf.Tensor) -> tf.Tensor:
        """uint8 (n, h, w, 3) → float32, normalised."""
        return normalise(images, self.splits.facts.mean, self.splits.facts.std)

    def plain(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """`inputs` of the batch as a `Preprocess`: nothing is drawn."""
        return self.inputs(batch["images"])

    def augmented(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Cropped and mirrored at random; a `Preprocess`."""
        return self.inputs(augment(batch["images"], seed, **self._augmentation()))

    def two_views(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Two augmented views of every image, (2n, h, w, 3); a `Preprocess`."""
        return self.inputs(two_views(batch["images"], seed, **self._augmentation()))

    def _augmentation(self) -> dict[str, bool]:
        return {"per_batch_crop": self.config.per_batch_crop, "flip": self.splits.facts.flip}
