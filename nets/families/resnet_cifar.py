"""CIFAR ResNets (He et al. 2016, §4.2): 6n+2 layers, three stages of n basic blocks, of masked layers."""

from __future__ import annotations

import keras

from nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense
from nets.spec import NetSpec, depth_of
from runs.recursion import deep

STAGE_WIDTHS = (16, 32, 64)
NODES = 4  # of the graph for each layer with a number: convolution, BN, ReLU, addition


def resnet(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes)."""
    blocks_per_stage = (depth_of(spec.arch) - 2) // 6
    inputs = keras.Input(spec.input_shape, name="images")
    x = _conv_bn(spec, inputs, "conv", "bn", STAGE_WIDTHS[0])
    x = keras.layers.ReLU(name="relu")(x)
    for stage, width in enumerate(STAGE_WIDTHS):
        for block in range(blocks_per_stage):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(spec, x, f"BasicBlock{stage}.{block}", width, strides)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    logits = MaskedDense(spec.num_classes, kernel_initializer=initializer, name="fc")(x)
    with deep(NODES * depth_of(spec.arch)):
        return keras.Model(inputs, logits, name=spec.arch)


def _conv_bn(
    spec, x, conv: str, bn: str, width: int, kernel_size: int = 3, strides: int = 1, gamma: str = "ones"
):
    # An initializer draws its seed when it is made: here, after the run has set its own.
    fan_out = keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
    width = spec.widths.get(conv, width)
    x = MaskedConv2D(width, kernel_size, strides, kernel_initializer=fan_out, name=conv)(x)
    return FusedBatchNorm(gamma_initializer=gamma, name=bn)(x)


def _basic_block(spec: NetSpec, x, name: str, width: int, strides: int):
    shortcut = x if strides == 1 else _shortcut(spec, x, name, width)
    gamma = "zeros" if spec.shortcut == "B" else "ones"  # EKG's net: every block starts as the identity
    y = _conv_bn(spec, x, f"{name}_conv1", f"{name}_bn1", width, strides=strides)
    y = keras.layers.ReLU(name=f"{name}_relu1")(y)
    y = _conv_bn(spec, y, f"{name}_conv2", f"{name}_bn2", shortcut.shape[-1], gamma=gamma)
    y = keras.layers.Add(name=f"{name}_add")([shortcut, y])
    return keras.layers.ReLU(name=f"{name}_relu2")(y)


def _shortcut(spec: NetSpec, x, name: str, width: int):
    """Halves the resolution and brings the channels to the width of the new stage."""
    if spec.shortcut == "B":
        return _conv_bn(spec, x, f"{name}_conv3", f"{name}_bn3", width, kernel_size=1, strides=2)
    pool = 2 if spec.shortcut == "A" else 1
    x = keras.layers.AveragePooling2D(pool, strides=2, name=f"{name}_pool")(x)
    return _pad_channels(spec, x, f"{name}_pad", width, front=0 if spec.shortcut == "A" else None)


def _pad_channels(spec: NetSpec, x, name: str, width: int, front: int | None):
    """Zero channels in front and behind, by a plain layer: `channels_first` makes the last axis spatial."""
    width = spec.widths.get(f"{name}_width", width)
    front = spec.widths.get(name, (width - x.shape[-1]) // 2 if front is None else front)
    padding = ((0, 0), (front, width - x.shape[-1] - front))
    return keras.layers.ZeroPadding2D(padding, data_format="channels_first", name=name)(x)
