"""Wide ResNets for CIFAR (Zagoruyko & Komodakis 2016): WRN-d-k has d = 6n+4 layers, k times as wide."""

from __future__ import annotations

import keras

from secateur.nets.blocks import bn_relu, classified, conv, pre_activated
from secateur.nets.registry import family
from secateur.nets.spec import NetSpec
from secateur.runs.errors import UsageError

STEM_WIDTH, STAGE_WIDTHS = 16, (16, 32, 64)
DROPOUT = {"WRN-28-10": 0.3}  # the published rate; the others are published without
NAMES = ("WRN-16-2", "WRN-16-8", "WRN-28-10", "WRN-40-1", "WRN-40-2")


@family(*NAMES, pattern=r"WRN-\d{2,3}-\d{1,2}", dropout=True)
def wrn(spec: NetSpec) -> keras.Model:
    """Builds the network: images (b, h, w, c), normalised → logits (b, classes).

    Where a block widens, its activated input feeds both the first convolution and the bare projection.
    Raises `UsageError` for a depth that is not 6n+4.
    """
    depth, factor = _depth_and_factor(spec.arch)
    rate = DROPOUT.get(spec.arch, 0.0) if spec.dropout is None else spec.dropout
    inputs = keras.Input(spec.input_shape, name="images")
    x = conv(spec, inputs, "conv", STEM_WIDTH)
    for stage, base in enumerate(STAGE_WIDTHS):
        for block in range((depth - 4) // 6):
            width, strides = base * factor, 2 if stage and not block else 1
            project = "activated" if not block and (stage or factor > 1) else ""
            convs = [(3, width, strides), (3, width, 1)]
            x = pre_activated(spec, x, f"BasicBlock{stage}.{block}", convs, project, rate)
    return classified(spec, inputs, bn_relu(x, "bn", "relu"), depth)


def _depth_and_factor(arch: str) -> tuple[int, int]:
    _, depth, factor = arch.split("-")
    if int(depth) < 10 or (int(depth) - 4) % 6 or int(factor) < 1:
        raise UsageError(
            f"A wide ResNet has 6n+4 layers (10, 16, 22, …) and is at least 1 wide. Received: arch={arch!r}"
        )
    return int(depth), int(factor)
