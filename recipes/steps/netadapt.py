"""NetAdapt: in every step each group alone pays the same price, and the best one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tqdm import tqdm

from secateur.pruning import Plan
from secateur.pruning.search.netadapt import Adapted, AdaptedWidths
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import step
from secateur.recipes.steps.searching import Question, Searching, scorer


@step("netadapt")
class Adapt(Searching):
    """Narrows one group after another (Yang et al. 2018). BN's averages are estimated again.

    The paper trains each candidate for some steps before it measures; here training follows the search.
    """

    cost: Literal["macs", "params", "ms"] = option(
        "macs", "what the search saves; ms: for one image, on one thread of LiteRT"
    )
    share: float = option(0.05, "of the whole network's cost that one step saves", gt=0, lt=1)

    def search(self, context: RunContext, name: str, asked: Question) -> Plan:
        """The last plan; after a kill the search goes on behind its last step."""
        accuracy = scorer(context, asked.model, context.splits.search)
        folder = context.folder
        saved = folder.load_checkpoint(name)
        history = [Adapted.from_json(one) for one in saved.facts["history"]] if saved else []
        with tqdm(desc=self.label, unit="step", initial=len(history)) as bar:

            def each(done: Sequence[Adapted]) -> None:
                folder.save_checkpoint(name, {}, {"history": [one.to_json() for one in done]})
                left, last = f"{done[-1].cost / done[0].cost:.3f}", f"{done[-1].accuracy:.4f}"
                bar.set_postfix(left=left, aim=f"{asked.target.value:.3f}", accuracy=last, refresh=False)
                bar.update()

            choose = AdaptedWidths(asked.ranking, accuracy, self.share, history, each)
            return choose.plan(asked.model, asked.analysis, asked.target)
