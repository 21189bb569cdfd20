"""What `test.py` does: snapshots in, accuracy on the test images out."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from secateur import dataloader
from secateur.dataloader.augment import normalise
from secateur.dataloader.pipelines import Pipeline
from secateur.dataloader.views import evaluation_view
from secateur.op_utils import make_forward, make_strategy
from secateur.pruning import complexity
from secateur.recipes.engine.config import EvaluateOptions
from secateur.recipes.engine.inputs import check_names, load_fitting, normalisation_of
from secateur.recipes.training.scoring import Score, ensemble_accuracy, score_logits
from secateur.runs import load_snapshot


def run(config: EvaluateOptions) -> list[dict]:
    """Prints one line per snapshot, and one for the ensemble of several; returns the same as rows."""
    check_names(config.arch, config.dataset)
    snapshots = [load_snapshot(path) for path in config.trained_param]
    with make_strategy(config.gpu_id, config.tpu).scope():
        models = [
            load_fitting(path, snapshot, config.arch, config.dataset, config.data_path)
            for path, snapshot in zip(config.trained_param, snapshots, strict=True)
        ]
    splits, rows, outputs = {}, [], []
    for path, snapshot, model in zip(config.trained_param, snapshots, models, strict=True):
        order = normalisation_of(config.normalisation, snapshot)
        if order not in splits:
            splits[order] = dataloader.load(config.dataset, config.data_path, order)
        logits, labels = _logits(config, model, splits[order], snapshot.facts)
        outputs.append(logits)
        rows.append(_row(path, model, score_logits(logits, labels)))
        _print(rows[-1], config)
    if len(rows) > 1:
        accuracy = ensemble_accuracy(outputs, labels)
        name = f"ensemble of {len(rows)} (mean of softmax)"
        rows.append({"name": name, "accuracy": accuracy, "count": len(labels)})
        _print(rows[-1], config)
    return rows


def _logits(
    config: EvaluateOptions, model: keras.Model, splits: dataloader.Splits, known: Mapping
) -> tuple[np.ndarray, np.ndarray]:
    mean, std, test = splits.facts.mean, splits.facts.std, splits.test
    images = Pipeline(splits.facts.normalisation, crop=known.get("crop"), resize=known.get("resize"))

    def inputs(batch: tf.Tensor) -> tf.Tensor:
        return normalise(evaluation_view(batch, images), mean, std)

    forward = make_forward(model, inputs, config.bn == "batch", config.compile)
    return forward(test.images, config.val_batch_size), test.labels


def _row(path: str, model: keras.Model, found: Score) -> dict:
    cost = complexity(model)
    scores = {"accuracy": found.accuracy, "loss": found.loss, "count": found.count}
    return {"name": path, "params": cost.params, "macs": cost.macs, **scores}


def _print(row: dict, config: EvaluateOptions) -> None:
    cost = f"{row['params']:,} parameters, {row['macs']:,} MACs, " if "params" in row else ""
    statistics = (
        "moving averages" if config.bn == "moving" else f"batch statistics of {config.val_batch_size}"
    )
    accuracy = f"accuracy {100 * row['accuracy']:.2f} % on {row['count']:,} test images"
    print(f"{row['name']}: {cost}{accuracy} ({statistics})")
