"""What one step of a recipe hands to the next: files, the channels that are left, the round of a loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pruning import Plan


@dataclass(frozen=True)
class State:
    """A run between two steps.

    Attributes:
        network: snapshot of the network as it is now.
        plan: channels of the dense network that are left in it; None while all are.
        dense: snapshot of the network before anything was pruned.
        starts: name → snapshot that a step `reset` can go back to: "init", "epoch" and "dense".
        trained: snapshots after each training since the dense one, which ensembles are made of.
        turn, turns: the round of a loop, from 1, and how many it has; (1, 1) outside of one.
        ratios: group → ratio of its channels to keep, as a step that allocates has found them.
    """

    network: Path | None = None
    plan: Plan | None = None
    dense: Path | None = None
    starts: dict[str, Path] = None
    trained: tuple[Path, ...] = ()
    turn: int = 1
    turns: int = 1
    ratios: dict[str, float] | None = None

    def after(self, network: Path, **changes: object) -> State:
        """The same with another network."""
        return replace(self, network=network, **changes)

    def narrowed(self, plan: Plan) -> Plan:
        """`plan` of the network as it is, as a plan of the dense one."""
        return self.plan.then(plan) if self.plan else plan
