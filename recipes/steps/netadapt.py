"""NetAdapt: in every step each group alone pays the same price, and the best one does."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from tqdm import tqdm

from pruning import Plan
from pruning.netadapt import Adapted, NetAdapt
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.searching import Searching
from recipes.steps.state import State
from recipes.steps.step import step


@step("netadapt")
@dataclass(frozen=True, kw_only=True)
class Adapt(Searching):
    """Narrows one group after another (Yang et al. 2018). Networks are measured with BN's averages mended.

    The paper trains each candidate for some steps before it measures; here training follows the search.
    """

    share: float = option(0.05, "of the whole network's cost that one step saves", above=0, below=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """The last plan; after a kill the search goes on behind its last step."""
        search = NetAdapt(self.space(context, state, model), self.scorer(context, model), self.share)
        folder = context.folder
        saved = folder.load_checkpoint(state.name)
        history = [Adapted.from_json(one) for one in saved.facts["history"]] if saved else []
        with tqdm(desc=self.label, unit="step", initial=len(history)) as bar:
            for one in search.run(history):
                history.append(one)
                folder.save_checkpoint(state.name, {}, {"history": [each.to_json() for each in history]})
                bar.set_postfix(cost=f"{one.cost:.3g}", accuracy=f"{one.accuracy:.4f}", refresh=False)
                bar.update()
        return history[-1].plan
