"""What the families are made of: convolutions with their BN, blocks of either order, the classifier."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from secateur.nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense
from secateur.nets.spec import NetSpec
from secateur.runs.recursion import deep

NODES = 4  # of the graph for each layer with a number: convolution, BN, ReLU, addition
EXPANSION = 4  # channels that a bottleneck makes, over those inside of it
Conv = tuple[int, int, int]  # kernel size, output channels, stride


def fan_out() -> keras.Initializer:
    """Normal with variance 2 / (k²·n_out), fresh: an initializer draws its seed when it is made."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def padded(spec: NetSpec, x, name: str, kernel_size: int, strides: int):
    """The tensor with PyTorch's zeros where the spec wants them, and the `padding` of the layer behind."""
    if spec.padding == "same" or strides == 1 or kernel_size == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x), "valid"


def conv(spec: NetSpec, x, name: str, width: int, kernel_size: int = 3, strides: int = 1):
    """Convolution without bias; its width is the spec's where that names it."""
    x, padding = padded(spec, x, name, kernel_size, strides)
    width = spec.widths.get(name, width)
    return MaskedConv2D(width, kernel_size, strides, padding, kernel_initializer=fan_out(), name=name)(x)


def bn_relu(x, bn: str, relu: str, gamma: str | keras.Initializer = "ones"):
    """Batch normalisation, then ReLU."""
    return keras.layers.ReLU(name=relu)(FusedBatchNorm(gamma_initializer=gamma, name=bn)(x))


def block_convs(width: int, strides: int, bottleneck: bool) -> list[Conv]:
    """The convolutions of a basic block or of a bottleneck, the stride at the first of 3×3."""
    if bottleneck:
        return [(1, width, 1), (3, width, strides), (1, EXPANSION * width, 1)]
    return [(3, width, strides), (3, width, 1)]


def post_activated(spec: NetSpec, x, name: str, convs: Sequence[Conv], project: bool):
    """Residual block of He et al. 2016a: conv-BN-ReLU …, BN without ReLU before the sum, ReLU behind it.

    The layers are `conv1`, `bn1`, `relu1`, …; the projection's are numbered after the last convolution's.
    """
    last = len(convs)
    shortcut = x
    if project:
        strides = max(stride for *_, stride in convs)
        shortcut = conv(spec, x, f"{name}_conv{last + 1}", convs[-1][1], 1, strides)
        shortcut = FusedBatchNorm(name=f"{name}_bn{last + 1}")(shortcut)
    for i, (size, width, strides) in enumerate(convs, 1):
        width = shortcut.shape[-1] if i == last else width
        x = conv(spec, x, f"{name}_conv{i}", width, size, strides)
        if i < last:
            x = bn_relu(x, f"{name}_bn{i}", f"{name}_relu{i}")
    x = FusedBatchNorm(name=f"{name}_bn{last}")(x)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu{last}")(x)


def pre_activated(
    spec: NetSpec, x, name: str, convs: Sequence[Conv], project: str = "", dropout: float = 0.0
):
    """Residual block of He et al. 2016b: BN-ReLU-conv …; nothing behind the sum.

    Args:
        spec: names widths and padding.
        x: tensor (b, h, w, c).
        name: prefix of its layers.
        convs: (kernel size, channels, stride) of each convolution.
        project: "" for the identity; "raw" or "activated": what a bare 1×1 convolution makes the shortcut of.
        dropout: rate before the last convolution.
    """
    last, strides = len(convs), max(stride for *_, stride in convs)
    shortcut = x
    for i, (size, width, stride) in enumerate(convs, 1):
        x = bn_relu(x, f"{name}_bn{i}", f"{name}_relu{i}")
        if i == 1 and project:
            source = shortcut if project == "raw" else x
            shortcut = conv(spec, source, f"{name}_conv{last + 1}", convs[-1][1], 1, strides)
        if i == last and dropout:
            x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
        width = shortcut.shape[-1] if i == last else width
        x = conv(spec, x, f"{name}_conv{i}", width, size, stride)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def classified(spec: NetSpec, inputs, x, depth: int) -> keras.Model:
    """The model: global average pooling and a dense layer behind the last map (b, h, w, c)."""
    return logits(spec, inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x), depth)


def logits(spec: NetSpec, inputs, x, depth: int) -> keras.Model:
    """The model: a dense layer behind a vector (b, c). `depth` is the number of layers with weights."""
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    outputs = MaskedDense(spec.num_classes, kernel_initializer=initializer, name="fc")(x)
    with deep(NODES * depth):
        return keras.Model(inputs, outputs, name=spec.arch)
