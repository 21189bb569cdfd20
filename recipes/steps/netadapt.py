"""NetAdapt: in every step each group alone pays the same price, and the best one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras
from tqdm import tqdm

from secateur.pruning import Plan
from secateur.pruning.search.netadapt import Adapted, AdaptedWidths
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import timed
from secateur.recipes.steps.searching import Searching, SearchProblem, scorer
from secateur.runs import UsageError


@step("netadapt")
class Adapt(Searching):
    """Narrows one group after another (Yang et al. 2018). BN's averages are estimated again.

    The paper trains each candidate for some steps before it measures; here training follows the search.
    """

    cost: Literal["macs", "params", "ms"] = option(
        "macs", "what the search saves; ms: for one image, on one thread of LiteRT"
    )
    share: float = option(0.05, "of the whole network's cost that one step saves", gt=0, lt=1)

    def search(self, context: RunContext, name: str, problem: SearchProblem) -> Plan:
        """The last plan; after a kill the search goes on behind its last step."""
        accuracy = scorer(context, problem.model, context.splits.search)
        folder = context.folder
        saved = folder.load_checkpoint(name)
        history = [Adapted.from_json(one) for one in saved.facts["history"]] if saved else []
        with tqdm(desc=self.label, unit="step", initial=len(history)) as bar:

            def each(done: Sequence[Adapted], most: float) -> None:
                folder.save_checkpoint(name, {}, {"history": [one.to_json() for one in done]})
                left, aim = (f"{cost / done[0].cost:.3f}" for cost in (done[-1].cost, most))
                bar.set_postfix(left=left, aim=aim, accuracy=f"{done[-1].accuracy:.4f}", refresh=False)
                bar.update()

            choose = AdaptedWidths(problem.ranking, accuracy, self.share, history, each)
            return choose.plan(problem.model, problem.analysis, problem.target)

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """Milliseconds before and behind the cut, where these were the budget."""
        if self.cost != "ms":
            return {}
        asked = min(1.0, self.ratio(context, state, model, "keep_ms", self.keep))
        return {"ms": timed(state.name, model, small, asked)}

    def check_options(self, config: RunOptions) -> None:
        """--keep_macs is no budget of milliseconds."""
        if self.cost == "ms" and config.keep_macs:
            raise UsageError(
                f"--keep_macs is no budget of {self.label}.cost=ms: leave it out, and give its ratio as "
                f"--set {self.label}.keep. Received: keep_macs={config.keep_macs}"
            )
