"""VGGs with BN for CIFAR (Simonyan & Zisserman 2015; layouts of kesi, rethinking, network slimming)."""

from __future__ import annotations

import keras

from secateur.nets.blocks import bn_relu, classified, conv, fan_out, logits
from secateur.nets.layers import MaskedDense
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec, depth_of

STAGE_WIDTHS = (64, 128, 256, 512, 512)
CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
HIDDEN = 512


@family(*(f"VGG-{depth}" for depth in CONVS), choices={"head": ("hidden", "single")})
def vgg(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes).

    The last of the five poolings takes the average of what is left, 2×2 for images of 32. Head `hidden`: 512
    units with BN before the logits; `single`: the logits alone.
    """
    inputs = x = keras.Input(spec.input_shape, name="images")
    for stage, (width, convs) in enumerate(zip(STAGE_WIDTHS, CONVS[depth_of(spec.arch)], strict=True)):
        if stage:
            x = keras.layers.MaxPooling2D(2, name=f"pool{stage}")(x)
        for i in range(convs):
            x = _conv_bn_relu(spec, x, f"Conv{stage}.{i}", width)
    if spec.head == "single":
        return classified(spec, inputs, x, depth_of(spec.arch))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = MaskedDense(spec.widths.get("fc1", HIDDEN), kernel_initializer=fan_out(), name="fc1")(x)
    return logits(spec, inputs, bn_relu(x, "bn1", "relu1", _half()), depth_of(spec.arch))


def _conv_bn_relu(spec: NetSpec, x, name: str, width: int):
    return bn_relu(conv(spec, x, f"{name}_conv", width), f"{name}_bn", f"{name}_relu", _half())


def _half() -> keras.Initializer:
    return keras.initializers.Constant(0.5)  # what network slimming starts its scales from
