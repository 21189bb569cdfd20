"""What papers count as an operation and as a parameter."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.runs.registry import Registry


@dataclass(frozen=True)
class Convention:
    """Operations per multiply-accumulate and per element of the cheap layers; parameters per BN channel."""

    mac: int = 1
    bias: int = 0  # per output element of a layer with a bias
    norm: int = 0  # per output element of a normalisation
    relu: int = 0  # per output element
    pool: str = ""  # "window": elements read per output; "input": elements of the input
    norm_params: int = 2


CONVENTIONS: Registry[Convention] = Registry(
    "convention",
    "conventions",
    {
        "mac": Convention(),  # convolutions and dense layers only: PFEC, SFP, FPGM, HRank
        "ekg": Convention(norm=2, norm_params=4),  # moving statistics count as parameters
        "rethinking": Convention(mac=2, bias=1, norm=2, relu=1, pool="window"),
        "ptflops": Convention(norm=2, relu=1, pool="input"),
    },
)
