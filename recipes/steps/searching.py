"""What searches over widths share: the space, the accuracy of a plan, and how a killed search goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from secateur.dataloader import Images, parts_of
from secateur.dataloader.splits import equidistant
from secateur.op_utils import Workers
from secateur.pruning import Plan
from secateur.pruning.choose.ranking import Ranking, check_prunable
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.ekg import Searcher
from secateur.pruning.search.rewards import Reward
from secateur.pruning.search.settings import SearchSettings
from secateur.pruning.search.space import CAPPED
from secateur.pruning.search.trial import PlanScorer
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State
from secateur.recipes.steps.narrowing import Narrowing

MOST_BYTES = 2**28  # of scored images as float32
REESTIMATED = 4  # batches of training images behind BN's averages


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """A network, its groups, the order in which their channels go, and what it may cost in the end."""

    model: keras.Model
    analysis: Analysis
    ranking: Ranking
    target: Target


class Searching(Narrowing):
    """Removes channels where a search finds that they cost least accuracy on training images."""

    keep: float = option(0.5, "ratio of the dense network's cost that stays", gt=0, lt=1)
    cost: Literal["macs", "params"] = option("macs", "what the search saves")

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`: all of it where the budget is met already."""
        analysis = analyse(model)
        check_prunable(analysis, model.name)
        macs = context.config.keep_macs
        budget, keep = ("keep_macs", macs) if macs else (f"keep_{self.cost}", self.keep)
        if (ratio := self.ratio(context, state, model, budget, keep)) >= 1:
            return Plan.full(analysis.groups)
        scores = score_groups(model, self.criterion, analysis=analysis, **self.scoring(context))
        ranking = Ranking.of(analysis, scores, CAPPED)
        return self.search(
            context, state.name, SearchProblem(model, analysis, ranking, Target(budget, ratio))
        )

    def search(self, context: RunContext, name: str, problem: SearchProblem) -> Plan:
        """The plan. The checkpoint `name` has what is found, for a search that goes on behind a kill."""
        raise NotImplementedError(type(self).__name__)


def scorer(context: RunContext, model: keras.Model, images: Images, batches: int = REESTIMATED) -> PlanScorer:
    """Plan → accuracy on images, or what else the task counts, with BN's averages estimated anew.

    `batches` of training images say what those averages are.
    """
    size = context.config.val_batch_size
    warmup = context.splits.warmup.images[: batches * size]

    def prepare(copy: keras.Model) -> Callable[[], None]:
        again = context.reestimator(copy)
        return lambda: again(warmup, size)

    some = images.take(equidistant(len(images), _fitting(context, images)))
    data = context.arrays(some.images), parts_of(some.labels)
    task = context.subject.task
    return PlanScorer(model, data, prepare=prepare, metric=task.score if task else None)


def ekg_search(
    context: RunContext, model: keras.Model, settings: SearchSettings, workers: Workers | None = None
) -> Searcher:
    """EKG's search over a network: by the images that score candidates, 1 GiB at most, and by the task."""
    images, reward = context.splits.search, Reward.of_task(context.subject.task)
    images = images.take(np.arange(min(len(images), 4 * _fitting(context, images))))  # they are shuffled
    arrays, labels = context.arrays(images.images), parts_of(images.labels)
    return Searcher(model, arrays, labels, settings, reward, workers)


def _fitting(context: RunContext, images: Images) -> int:
    """How many of the images may be in memory as a network reads them."""
    one = keras.tree.flatten(context.inputs(images.images[:1]))
    return max(1, MOST_BYTES // sum(4 * int(np.prod(x.shape)) for x in one))
