"""What one step of a recipe hands to the next: files, the channels that are left, the round of a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from secateur.pruning import Plan


@dataclass(frozen=True)
class State:
    """A run between two steps.

    Attributes:
        name: of the step under way; unique in the run folder.
        network: snapshot of the network as it is now.
        plan: channels of the dense network that are left in it; None while all are.
        dense: snapshot of the network before anything was pruned.
        starts: name → snapshot that a step `reset` can go back to: "init", "epoch" and "dense".
        trained: snapshots after each training since the dense one.
        members: those of `trained` that no ensemble has taught: with the dense one they can be an ensemble.
        turn, turns: the round of a loop, from 1, and how many it has; (1, 1) outside of one.
        sparse: whether single weights are zero, and have to stay so.
        shared: bits and layers of `coding.sharing.share.tied`, where equal weights have to stay equal.
        files: what steps have made of networks for others to run, for the report.
    """

    name: str = ""
    network: Path | None = None
    plan: Plan | None = None
    dense: Path | None = None
    starts: Mapping[str, Path] = field(default_factory=dict)
    trained: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    turn: int = 1
    turns: int = 1
    sparse: bool = False
    shared: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    def after(self, network: Path, **changes: object) -> State:
        """The same with another network."""
        return replace(self, network=network, **changes)

    def narrowed(self, plan: Plan) -> Plan:
        """`plan` of the network as it is, as a plan of the dense one."""
        return self.plan.then(plan) if self.plan else plan
