"""ImageNet ResNets (He et al. 2016a, table 1), laid out as torchvision has them: four stages."""

from __future__ import annotations

import keras

from secateur.nets.blocks import block_convs, bn_relu, classified, conv, padded, post_activated
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec, depth_of

STAGE_WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
BOTTLENECKS = (50,)


@family(*(f"ResNet-{depth}" for depth in BLOCKS), choices={"stem": ("imagenet", "cifar")})
def resnet_imagenet(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes).

    Stem `imagenet`: 7×7 convolution and 3×3 max pooling, both of stride 2; `cifar`: a 3×3 convolution of
    stride 1. Bottlenecks have their stride in the 3×3 convolution.
    """
    depth = depth_of(spec.arch)
    narrow = depth in BOTTLENECKS
    inputs = keras.Input(spec.input_shape, name="images")
    x = _stem(spec, inputs)
    for stage, (width, blocks) in enumerate(zip(STAGE_WIDTHS, BLOCKS[depth], strict=True)):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            name = f"{'Bottleneck' if narrow else 'BasicBlock'}{stage}.{block}"
            project = not block and bool(stage or narrow)
            x = post_activated(spec, x, name, block_convs(width, strides, narrow), project)
    return classified(spec, inputs, x, depth)


def _stem(spec: NetSpec, inputs):
    if spec.stem == "cifar":
        return bn_relu(conv(spec, inputs, "conv", STAGE_WIDTHS[0]), "bn", "relu")
    x = bn_relu(conv(spec, inputs, "conv", STAGE_WIDTHS[0], 7, 2), "bn", "relu")
    x, padding = padded(spec, x, "maxpool", 3, 2)  # behind a ReLU, PyTorch's −∞ and zero are the same
    return keras.layers.MaxPooling2D(3, 2, padding, name="maxpool")(x)
