"""What `test.py` does: snapshots in, accuracy on the test images out."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur import dataloader
from secateur.dataloader.pipelines import Pipeline
from secateur.nets.snapshots import GRAPH
from secateur.op_utils import make_forward, make_strategy
from secateur.pruning import complexity
from secateur.recipes.engine.config import EvaluateOptions
from secateur.recipes.engine.inputs import check_names, constants_of, load_fitting, normalisation_of
from secateur.recipes.engine.report import ensemble_of, measured
from secateur.recipes.engine.subject import Subject
from secateur.recipes.training.scoring import Score, ensemble_accuracy, score_logits
from secateur.runs import Snapshot, UsageError, load_snapshot


def run(config: EvaluateOptions) -> list[dict]:
    """Prints one line per snapshot, and one for the ensemble of several; returns the same as rows."""
    snapshots = [load_snapshot(path) for path in config.trained_param]
    own = all(GRAPH in (snapshot.spec or {}) for snapshot in snapshots)
    check_names(None if own else config.arch, config.dataset)
    rows, outputs = [], []
    with make_strategy(config.devices, config.tpu).scope():
        read = [_Read.of(config, *one) for one in zip(config.trained_param, snapshots, strict=True)]
        for one in read:
            logits, labels = one.logits(config)
            outputs.append(logits)
            rows.append(_row(one.path, one.model, score_logits(logits, labels, one.subject.task)))
            _print(rows[-1], config, one.subject.metric_name)
    if len(rows) > 1:
        subject = read[0].subject
        accuracy = ensemble_accuracy(outputs, labels, subject.task)
        name = ensemble_of(len(rows), subject.metric_name)
        rows.append({"name": name, "accuracy": accuracy, "count": len(labels)})
        _print(rows[-1], config, subject.metric_name)
    return rows


@dataclass(frozen=True)
class _Read:
    """A snapshot with the images that it is shown."""

    path: str
    model: keras.Model
    subject: Subject
    splits: dataloader.Splits
    images: Pipeline

    @classmethod
    def of(cls, config: EvaluateOptions, path: str, snapshot: Snapshot) -> _Read:
        known = snapshot.facts
        crop = known.get("crop")
        model = load_fitting(path, snapshot, config.arch, config.dataset, config.data_path, crop)
        subject = Subject() if hasattr(model, "spec") else Subject.of_snapshot(model, config.loss, known)
        name = normalisation_of(config.normalisation, snapshot)
        constants = constants_of(config, name, snapshot)
        asked = config.stream, config.skip_bad
        view = Pipeline(name, crop=crop, resize=known.get("resize"))
        shape = subject.loaded(view, config.dataset)
        splits = _splits(config.dataset, config.data_path, name, shape, constants, *asked)
        subject = subject.classifying(splits.facts.num_classes)
        if not subject.classifies:
            raise UsageError(
                f"Test images have classes, and this network gives something else. Received: {path}, "
                f"loss={config.loss or known.get('loss', 'unknown')}\n"
                "--loss categorical_crossentropy takes one output for classes"
            )
        names = splits.facts.class_names or ()
        subject.check_classes(splits.facts.num_classes, config.data or config.dataset, names)
        view = subject.shown(view, splits.facts.shape)
        return cls(path, subject.bare(model), subject, splits, view)

    def logits(self, config: EvaluateOptions) -> tuple[np.ndarray, np.ndarray]:
        """Those of the test images, and their labels."""
        test = self.splits.test

        def inputs(batch: tf.Tensor) -> Any:
            return self.subject.reads(batch, self.splits.facts, self.images)

        forward = make_forward(self.model, inputs, config.bn == "batch", config.compile)
        return forward(test.images, config.val_batch_size), test.labels


@functools.lru_cache(maxsize=4)
def _splits(
    dataset: str, data_path: str | None, normalisation: str, shape, constants, stream: bool, skip_bad: bool
) -> dataloader.Splits:
    """Read once for all snapshots that are shown the same."""
    asked = {"stream": stream, "skip_bad": skip_bad}
    return dataloader.load(dataset, data_path, normalisation, shape=shape, constants=constants, **asked)


def _row(path: str, model: keras.Model, found: Score) -> dict:
    cost = complexity(model)
    scores = {"accuracy": found.accuracy, "loss": found.loss, "count": found.count}
    scores |= {} if found.top5 is None else {"top5": found.top5}
    return {"name": path, "params": cost.params, "macs": cost.macs, **scores}


def _print(row: dict, config: EvaluateOptions, metric: str) -> None:
    cost = f"{row['params']:,} parameters, {row['macs']:,} MACs, " if "params" in row else ""
    statistics = (
        "moving averages" if config.bn == "moving" else f"batch statistics of {config.val_batch_size}"
    )
    top5 = f", top-5 {100 * row['top5']:.2f} %" if "top5" in row else ""
    accuracy = f"{metric} {measured(row['accuracy'], metric)}{top5} on {row['count']:,} test images"
    print(f"{row['name']}: {cost}{accuracy} ({statistics})")
