"""The network in the fewest bytes: a `.kpz` file that is decoded to just what was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from secateur import coding
from secateur.coding.sharing.kernels import VECTOR_BITS
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, Step, step
from secateur.runs import load_snapshot


@step("encode")
class Encode(Step):
    """Writes the network, entropy-coded and verified; best after `share` and a training."""

    writes: ClassVar[bool] = True

    vector_bits: int | None = option(
        None,
        "round biases, vectors of normalisations and shared values to so many bits",
        ge=VECTOR_BITS[0],
        le=VECTOR_BITS[-1],
    )

    def needs_labels(self, config: RunOptions) -> bool:
        """It reads weights alone."""
        return False

    def run(self, context: RunContext, state: State) -> State:
        """<name>.kpz: a plain Keras model; the manifest has the bytes before and after."""

        def make(path: Path) -> dict:
            snapshot = load_snapshot(state.network)
            facts = {"plan": snapshot.plan, **snapshot.facts}
            if context.subject.original is None:  # of one's own model the file has the graph already
                facts["spec"] = snapshot.spec
            model = context.subject.finished(context.load(state.network))
            done = coding.encode(model, path, vector_bits=self.vector_bits, facts=facts)
            print(f"{state.name}: {done}", flush=True)
            return {"weights": done.arrays, "bytes": done.file}

        path = context.step(state.name, f"{state.name}.kpz", make)
        return replace(state, files=(*state.files, path))
