"""Architectures built from masked layers, and the names of published checkpoints."""

from secateur.nets.endings import logits_of, with_ending
from secateur.nets.functional import functional
from secateur.nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense, MaskedDepthwiseConv2D
from secateur.nets.names import layer_and_weight, published_name, variables
from secateur.nets.published import spec_from_arrays
from secateur.nets.registry import build, family_of, list_nets
from secateur.nets.snapshots import load_params, snapshot_of
from secateur.nets.spec import NetSpec
from secateur.nets.task import Task

__all__ = [
    "FusedBatchNorm",
    "MaskedConv2D",
    "MaskedDense",
    "MaskedDepthwiseConv2D",
    "NetSpec",
    "Task",
    "build",
    "family_of",
    "functional",
    "layer_and_weight",
    "list_nets",
    "load_params",
    "logits_of",
    "published_name",
    "snapshot_of",
    "spec_from_arrays",
    "variables",
    "with_ending",
]
