"""Architectures built from masked layers, and the names of published checkpoints."""

from nets.depthwise import MaskedDepthwiseConv2D
from nets.features import features
from nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense
from nets.names import layer_and_weight, published_name, variables
from nets.published import spec_from_arrays
from nets.registry import build, family_of, list_nets
from nets.snapshots import load_params, snapshot_of
from nets.spec import NetSpec

__all__ = [
    "FusedBatchNorm",
    "MaskedConv2D",
    "MaskedDense",
    "MaskedDepthwiseConv2D",
    "NetSpec",
    "build",
    "family_of",
    "features",
    "layer_and_weight",
    "list_nets",
    "load_params",
    "published_name",
    "snapshot_of",
    "spec_from_arrays",
    "variables",
]
