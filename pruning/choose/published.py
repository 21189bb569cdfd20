"""Plans that papers fix by hand: which share of its channels each inner layer of a network loses.

Inner channels are those that no shortcut carries: of the first convolution of a basic block, of the first two
of a bottleneck, of every convolution of a VGG. Block outputs, shortcuts and stems stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.pruning.rounding import removed
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest, require

if TYPE_CHECKING:
    import keras

    from secateur.pruning.groups.analysis import Analysis

INNER = re.compile(r"(?:BasicBlock(\d+)\.(\d+)_conv1|Bottleneck(\d+)\.(\d+)_conv[12]|Conv(\d+)\.(\d+)_conv)")


@dataclass(frozen=True)
class Shares:
    """What a plan takes from a network.

    Attributes:
        stages: share of its current channels that an inner layer loses, by stage.
        whole: blocks, as "stage.block" counted from 0 as in the names of layers, that lose nothing.
    """

    stages: tuple[float, ...]
    whole: tuple[str, ...] = ()

    def of(self, stage: int, block: int) -> float:
        """The share of one block."""
        return 0.0 if f"{stage}.{block}" in self.whole or stage >= len(self.stages) else self.stages[stage]


_THREE, _FOUR = (0.1, 0.2, 0.3), (0.1, 0.1, 0.2, 0.3)
_KESI_VGG = Shares((0.25, 0, 0, 0.25, 0.25), ("0.1",))

# name → architecture → shares; the paper's own plans
PUBLISHED: dict[str, dict[str, Shares]] = {
    # Le et al. 2020, Paying more Attention to Snapshots of Iterative Pruning (KESI): five such rounds
    "kesi": {
        "ResNet-56": Shares(_THREE, ("0.7", "1.0", "2.0", "2.8")),
        "ResNet-110": Shares(_THREE, ("0.17", "1.0", "2.0")),
        "PreResNet-164": Shares(_THREE, ("0.17", "1.0", "2.0")),
        "WRN-16-8": Shares(_THREE),
        "WRN-28-10": Shares(_THREE),
        "VGG-16": _KESI_VGG,
        "ResNet-18": Shares(_FOUR),
        "ResNet-34": Shares(_FOUR),
    },
    # Li et al. 2017, Pruning Filters for Efficient ConvNets, table 1 and section 4: one round
    "pfec_a": {
        "ResNet-56": Shares((0.1, 0.1, 0.1), ("0.7", "1.0", "2.0", "2.8")),
        "ResNet-110": Shares((0.5, 0, 0), ("0.17",)),
        "VGG-16": Shares((0.5, 0, 0, 0.5, 0.5), ("0.1",)),
    },
    "pfec_b": {
        "ResNet-56": Shares((0.6, 0.3, 0.1), ("0.7", "0.8", "1.0", "1.7", "2.0", "2.8")),
        "ResNet-110": Shares((0.5, 0.4, 0.3), ("0.17", "1.0", "2.0")),
    },
}

# name → pattern of further architectures → shares; ours, not the paper's
FALLBACK: dict[str, dict[str, Shares]] = {
    "kesi": {
        r"ResNet-50": Shares(_FOUR),
        r"(Pre)?ResNet-\d+|WRN-\d+-\d+": Shares(_THREE),
        r"VGG-\d+": _KESI_VGG,
    },
}


def find_shares(name: str, arch: str) -> Shares:
    """The shares of a published plan for an architecture.

    Where the paper has none, "kesi" gives other ResNets, wide ResNets and VGGs the shares of its family by
    stage and leaves no block whole: our choice, no published figure belongs to it. Raises `UsageError` for
    an unknown plan, with the nearest one, and for an architecture without this plan, with those that have it.
    """
    require(name, PUBLISHED, "published plan", "name")
    if arch in PUBLISHED[name]:
        return PUBLISHED[name][arch]
    for pattern, shares in FALLBACK.get(name, {}).items():
        if re.fullmatch(pattern, arch):
            return shares
    raise UsageError(
        f"Plan {name!r} is not published for this network. Received: arch={arch!r}. "
        f"{nearest(arch, PUBLISHED[name])}"
    )


def next_widths(name: str, arch: str, widths: Mapping[str, int]) -> dict[str, int]:
    """What one round of a published plan leaves of the widths that it finds: those that it names.

    Args:
        name: "kesi", "pfec_a" or "pfec_b".
        arch: architecture.
        widths: current channels by group; the stream's among them are passed over.

    A group keeps floor(n · (1 − share)) channels, at least one. Errors are those of `find_shares`.
    """
    shares, found = find_shares(name, arch), {}
    for group, width in widths.items():
        if place := INNER.fullmatch(group):
            stage, block = (int(n) for n in place.groups() if n is not None)
            if share := shares.of(stage, block):
                found[group] = width - removed(width, share, "floor_kept")
    return found


def published_widths(name: str, model: keras.Model, *, analysis: Analysis | None = None) -> dict[str, int]:
    """Group → width after one round of a published plan on one of our networks, as wide as it is now.

    Args:
        name: "kesi", "pfec_a" or "pfec_b".
        model: from `nets.build`, or what `compact` or `narrow` made of such a one.
        analysis: of the model, if it is there already.

    Groups that lose nothing are not named: `plan_of_widths` leaves them whole. For networks that the paper
    does not have, see `find_shares`. Raises `UsageError` for another plan, network or model.
    """
    if not hasattr(model, "spec"):
        raise UsageError(
            f"Published plans are for networks of nets.build. Received: model {model.name!r} without a spec"
        )
    from secateur.pruning.groups.analysis import analyse  # brings TensorFlow; the table comes without

    groups = (analysis or analyse(model)).groups
    return next_widths(name, model.spec.arch, {group.name: group.size for group in groups})
