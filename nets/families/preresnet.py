"""Pre-activation ResNets for CIFAR (He et al. 2016b): 6n+2 layers of basic blocks, 9n+2 of bottlenecks."""

from __future__ import annotations

import keras

from secateur.nets.blocks import block_convs, bn_relu, classified, conv, pre_activated
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec, depth_of

STAGE_WIDTHS = (16, 32, 64)
BASIC = tuple(f"PreResNet-{depth}" for depth in (20, 56, 110))
BOTTLENECK = tuple(f"PreResNet-{depth}" for depth in (164,))


@family(*BASIC, *BOTTLENECK)
def preresnet(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes).

    Nothing follows the stem, BN and ReLU precede the pooling, projections are bare and read the block's raw
    input; the bottlenecks' first stage widens 16 channels to 64 and so has one as well.
    """
    narrow, depth = spec.arch in BOTTLENECK, depth_of(spec.arch)
    inputs = keras.Input(spec.input_shape, name="images")
    x = conv(spec, inputs, "conv", STAGE_WIDTHS[0])
    for stage, width in enumerate(STAGE_WIDTHS):
        for block in range((depth - 2) // (9 if narrow else 6)):
            strides = 2 if stage and not block else 1
            name = f"{'Bottleneck' if narrow else 'BasicBlock'}{stage}.{block}"
            project = "raw" if not block and (stage or narrow) else ""
            x = pre_activated(spec, x, name, block_convs(width, strides, narrow), project)
    return classified(spec, inputs, bn_relu(x, "bn", "relu"), depth)
