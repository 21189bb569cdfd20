"""What to build: a frozen description of a network that fits into JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

PADDINGS = ("same", "torch")


@dataclass(frozen=True)
class NetSpec:
    """A network of this project.

    Attributes:
        arch: name such as `ResNet-56`.
        num_classes: size of the logits.
        input_shape: (height, width, channels).
        shortcut: `B` (1×1 convolution + BN), `A` (2×2 average pool, zero channels) or `A'` (sub-sampling,
            zero channels); networks other than the CIFAR ResNets have their own one only, called `B`.
        widths: output channels by the name of a convolution or a hidden dense layer; what is not named has
            the published width; for the zero padding of shortcuts A and A', the channels put in front.
        head: of a VGG: `hidden` (512 units with BN before the logits) or `single`; None: the published one.
        stem: of networks that exist for both: `imagenet` (quarters the resolution) or `cifar` (keeps it);
            None: the family's.
        dropout: rate between the convolutions of a wide ResNet's block, in [0, 1); None: the published one.
        padding: where the zeros of a convolution with stride 2 stand: `same` (TensorFlow: one more behind
            than in front) or `torch` (as many on either side), for weights that were trained so.
    """

    arch: str
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (32, 32, 3)
    shortcut: str = "B"
    widths: Mapping[str, int] = field(default_factory=dict)
    head: str | None = None
    stem: str | None = None
    dropout: float | None = None
    padding: str = "same"

    def to_json(self) -> dict:
        """Plain types only; `from_json` gives an equal spec."""
        return asdict(self) | {"input_shape": list(self.input_shape), "widths": dict(self.widths)}

    @classmethod
    def from_json(cls, data: Mapping) -> NetSpec:
        """Inverse of `to_json`; fields of younger versions may be missing.

        Raises KeyError or TypeError on anything else.
        """
        return cls(**{**data, "input_shape": tuple(data["input_shape"]), "widths": dict(data["widths"])})


def depth_of(arch: str) -> int:
    """The number in the name: `ResNet-56` → 56; 0 when there is none."""
    found = re.search(r"-(\d+)$", arch)
    return int(found.group(1)) if found else 0
