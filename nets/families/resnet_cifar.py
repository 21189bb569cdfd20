"""CIFAR ResNets (He et al. 2016a, §4.2): 6n+2 layers, three stages of n basic blocks."""

from __future__ import annotations

import keras

from secateur.nets.blocks import bn_relu, classified, conv
from secateur.nets.layers import FusedBatchNorm
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec, depth_of

STAGE_WIDTHS = (16, 32, 64)


@family(
    *(f"ResNet-{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)), choices={"shortcut": ("B", "A", "A'")}
)
def resnet(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes)."""
    blocks_per_stage = (depth_of(spec.arch) - 2) // 6
    inputs = keras.Input(spec.input_shape, name="images")
    x = bn_relu(conv(spec, inputs, "conv", STAGE_WIDTHS[0]), "bn", "relu")
    for stage, width in enumerate(STAGE_WIDTHS):
        for block in range(blocks_per_stage):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(spec, x, f"BasicBlock{stage}.{block}", width, strides)
    return classified(spec, inputs, x, depth_of(spec.arch))


def _basic_block(spec: NetSpec, x, name: str, width: int, strides: int):
    shortcut = x if strides == 1 else _shortcut(spec, x, name, width)
    gamma = "zeros" if spec.shortcut == "B" else "ones"  # EKG's net: every block starts as the identity
    y = conv(spec, x, f"{name}_conv1", width, strides=strides)
    y = bn_relu(y, f"{name}_bn1", f"{name}_relu1")
    y = conv(spec, y, f"{name}_conv2", shortcut.shape[-1])
    y = FusedBatchNorm(gamma_initializer=gamma, name=f"{name}_bn2")(y)
    y = keras.layers.Add(name=f"{name}_add")([shortcut, y])
    return keras.layers.ReLU(name=f"{name}_relu2")(y)


def _shortcut(spec: NetSpec, x, name: str, width: int):
    """Halves the resolution and brings the channels to the width of the new stage."""
    if spec.shortcut == "B":
        return FusedBatchNorm(name=f"{name}_bn3")(conv(spec, x, f"{name}_conv3", width, 1, 2))
    pool = 2 if spec.shortcut == "A" else 1
    x = keras.layers.AveragePooling2D(pool, strides=2, name=f"{name}_pool")(x)
    return _pad_channels(spec, x, f"{name}_pad", width, front=0 if spec.shortcut == "A" else None)


def _pad_channels(spec: NetSpec, x, name: str, width: int, front: int | None):
    """Zero channels in front and behind, by a plain layer: `channels_first` makes the last axis spatial."""
    width = spec.widths.get(f"{name}_width", width)
    front = spec.widths.get(name, (width - x.shape[-1]) // 2 if front is None else front)
    padding = ((0, 0), (front, width - x.shape[-1] - front))
    return keras.layers.ZeroPadding2D(padding, data_format="channels_first", name=name)(x)
