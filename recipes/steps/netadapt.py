"""NetAdapt: in every step each group alone pays the same price, and the best one does."""

from __future__ import annotations

import keras
from tqdm import tqdm

from secateur.pruning import Plan
from secateur.pruning.search.netadapt import Adapted, NetAdapt
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.searching import Searching, scorer


@step("netadapt")
class Adapt(Searching):
    """Narrows one group after another (Yang et al. 2018). BN's averages are estimated again.

    The paper trains each candidate for some steps before it measures; here training follows the search.
    """

    share: float = option(0.05, "of the whole network's cost that one step saves", gt=0, lt=1)

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """The last plan; after a kill the search goes on behind its last step."""
        accuracy = scorer(context, model, context.splits.search)
        search = NetAdapt(self.space(context, state, model), accuracy, self.share)
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
