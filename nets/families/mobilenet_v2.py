"""MobileNet-v2 (Sandler et al. 2018, table 2) for CIFAR and ImageNet."""

from __future__ import annotations

import keras

from secateur.nets.blocks import classified, conv, fan_out, padded
from secateur.nets.layers import FusedBatchNorm, MaskedDepthwiseConv2D
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec

STEM_WIDTH, LAST_WIDTH = 32, 1280
# expansion, output channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
          (6, 320, 1, 1))  # fmt: skip
DEPTH = 53


@family("MobileNet-v2", choices={"stem": ("cifar", "imagenet")})
def mobilenet_v2(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes).

    Stem `imagenet` is the published network; `cifar` keeps the resolution in the stem and in the second
    stage, as nets for images of 32 do: the same parameters, maps of 4×4 at the end.
    """
    first = 1 if spec.stem == "cifar" else 2
    inputs = keras.Input(spec.input_shape, name="images")
    x, width = _conv_bn(spec, inputs, "conv", "bn", STEM_WIDTH, 3, first), STEM_WIDTH
    x = _relu6("relu")(x)
    for stage, (factor, out, blocks, strides) in enumerate(STAGES):
        for block in range(blocks):
            stride = 1 if block else first if stage == 1 else strides
            name, inner = f"Inverted{stage}.{block}", width * factor if factor > 1 else 0
            residual = stride == 1 and width == out
            x, width = _block(spec, x, name, inner, out, stride, residual), out
    x = _relu6("relu_last")(_conv_bn(spec, x, "conv_last", "bn_last", LAST_WIDTH, 1))
    return classified(spec, inputs, x, DEPTH)


def _block(spec: NetSpec, x, name: str, inner: int, out: int, strides: int, residual: bool):
    """Expand (1×1; not for `inner` 0), filter each channel (3×3), project without a non-linearity (1×1)."""
    y = x
    if inner:
        y = _relu6(f"{name}_relu1")(_conv_bn(spec, y, f"{name}_conv1", f"{name}_bn1", inner, 1))
    y, padding = padded(spec, y, f"{name}_depthwise", 3, strides)
    layer = MaskedDepthwiseConv2D(3, strides, padding, kernel_initializer=fan_out(), name=f"{name}_depthwise")
    y = _relu6(f"{name}_relu2")(FusedBatchNorm(name=f"{name}_bn2")(layer(y)))
    y = _conv_bn(spec, y, f"{name}_conv3", f"{name}_bn3", x.shape[-1] if residual else out, 1)
    return keras.layers.Add(name=f"{name}_add")([x, y]) if residual else y


def _conv_bn(spec: NetSpec, x, name: str, bn: str, width: int, kernel_size: int, strides: int = 1):
    return FusedBatchNorm(name=bn)(conv(spec, x, name, width, kernel_size, strides))


def _relu6(name: str) -> keras.layers.ReLU:
    return keras.layers.ReLU(max_value=6.0, name=name)
