"""What to build: a frozen description of a network that fits into JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

SHORTCUTS = ("A", "A'", "B")


@dataclass(frozen=True)
class NetSpec:
    """A network of this project.

    Attributes:
        arch: name such as `ResNet-56`.
        num_classes: size of the logits.
        input_shape: (height, width, channels).
        shortcut: `B` (1×1 convolution + BN), `A` (2×2 average pool, zero channels) or `A'` (sub-sampling,
            zero channels).
        widths: output channels by convolution name; what is not named has the published width; for the zero
            padding of shortcuts A and A', the channels put in front.
    """

    arch: str
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (32, 32, 3)
    shortcut: str = "B"
    widths: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain types only; `from_json` gives an equal spec."""
        return asdict(self) | {"input_shape": list(self.input_shape), "widths": dict(self.widths)}

    @classmethod
    def from_json(cls, data: Mapping) -> NetSpec:
        """Inverse of `to_json`. Raises KeyError or TypeError on anything else."""
        return cls(**{**data, "input_shape": tuple(data["input_shape"]), "widths": dict(data["widths"])})


def depth_of(arch: str) -> int:
    """The number in the name: `ResNet-56` → 56; 0 when there is none."""
    found = re.search(r"-(\d+)$", arch)
    return int(found.group(1)) if found else 0
