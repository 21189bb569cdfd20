"""Steps that are done in rounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, Step, make_step, step
from secateur.runs import UsageError


@step("repeat")
class Repeat(Step):
    """Does its steps so many times, or until the network is small enough."""

    times: int = option(5, "rounds at most", ge=1)
    until_macs: float | None = option(
        None, "stop when no more than this ratio of the dense network's MACs is left", gt=0, lt=1
    )
    steps: list[dict] = option([], "tables of the steps of a round")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        for one in self.made:
            if one.writes or getattr(one, "file", ""):
                raise UsageError(
                    f"Files are written behind a loop, not in it. Received: {one.label} in {self.label}"
                )
            if one.kind == self.kind:
                raise UsageError(
                    f"A loop cannot stand in a loop: multiply its rounds. Received: {self.label} with repeat"
                )

    @property
    def made(self) -> list[Step]:
        """The steps of a round."""
        made = [make_step(table) for table in self.steps]
        return [one for one in made if not one.idle]

    @property
    def asks_bank(self) -> tuple[str, ...]:
        return tuple(kind for one in self.made for kind in one.asks_bank)

    def needs_labels(self, config: RunOptions) -> bool:
        return any(one.needs_labels(config) for one in self.made)

    def check_options(self, config: RunOptions) -> None:
        for one in self.made:
            one.check_options(config)

    def check(self, start: Start) -> None:
        for one in self.made:
            one.check(start)

    def run(self, context: RunContext, state: State) -> State:
        """All rounds; the steps of the second are called NAME-2."""
        steps = self.made
        for turn in range(1, self.times + 1):
            if self._reached(context, state):
                break
            state = replace(state, turn=turn, turns=self.times)
            for one in steps:
                state = one.run(context, replace(state, name=f"{one.label}-{turn}"))
        return replace(state, turn=1, turns=1)

    def _reached(self, context: RunContext, state: State) -> bool:
        if self.until_macs is None:
            return False
        goal = context.config.keep_macs or self.until_macs
        return context.cost(state.network).macs <= goal * context.cost(state.dense).macs

    def to_json(self) -> dict:
        """Plain types, with the defaults of its steps."""
        return super().to_json() | {"steps": [make_step(table).to_json() for table in self.steps]}
