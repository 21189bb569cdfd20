"""Train step, evaluation step and devices: the door to `compute`, the only room that knows them."""

from secateur.compute.batch_norm import make_reestimator, reestimate_batch_norm, synchronising
from secateur.compute.devices import accelerated, make_strategy, use_xla
from secateur.compute.evaluation import make_forward, tensors
from secateur.compute.gradients import (
    Adjust,
    Batch,
    Objective,
    Preprocess,
    Tensors,
    nesterov_update,
    pure_gradients,
    pure_step,
)
from secateur.compute.precision import as_float32, compute_in, computing_in
from secateur.compute.rules import RULES, Rule
from secateur.compute.trainer import Trainer
from secateur.compute.workers import Workers

__all__ = [
    "RULES",
    "Adjust",
    "Batch",
    "Objective",
    "Preprocess",
    "Rule",
    "Tensors",
    "Trainer",
    "Workers",
    "accelerated",
    "as_float32",
    "compute_in",
    "computing_in",
    "make_forward",
    "make_reestimator",
    "make_strategy",
    "nesterov_update",
    "pure_gradients",
    "pure_step",
    "reestimate_batch_norm",
    "synchronising",
    "tensors",
    "use_xla",
]
