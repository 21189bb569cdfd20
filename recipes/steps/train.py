"""Training: schedule, optimizer, teacher, and what is done to gradients and after epochs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
from pydantic import Field

from secateur.coding.sharing.retraining import tie
from secateur.coding.sharing.share import tied
from secateur.dataloader.sources.memory import NAME as MEMORY
from secateur.distillation import for_lesson, lesson_terms
from secateur.distillation.tasks import check_losses, kind_of_logits
from secateur.op_utils import RULES, Adjust, Objective, computing_in, synchronising
from secateur.pruning import narrow
from secateur.pruning.constrain.gradients import hold_zeros, in_turn
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import ending_seconds
from secateur.recipes.engine.inputs import check_batch
from secateur.recipes.engine.options import NameIn, option
from secateur.recipes.engine.step import NetworkStep, Start, State, step
from secateur.recipes.steps.narrowing import widened
from secateur.recipes.training.learning import BANKS, LearningOptions, losses_of
from secateur.recipes.training.lessons import taught
from secateur.recipes.training.loop import TrainingSpec, done_before, fit, lower_rate
from secateur.recipes.training.schedules import SCHEDULES, cycled_momentum, step_decay
from secateur.reports.words import UNWEIGHTED
from secateur.runs import UsageError, warn


@step("train")
class Train(LearningOptions, NetworkStep):
    """Trains the network as it is: fine-tuning, or from weights that were reset."""

    widens: ClassVar[bool] = True  # whether surplus channels, which are masked, disturb nothing

    shown: bool = option(True, "whether the report has a row for it")
    epochs: int = option(40, "passes over the images", ge=1)
    time_share: float | None = option(
        None, "of what --minutes leaves before the report, in place of epochs", gt=0, le=1
    )
    images: Literal["train", "warmup"] = option(
        "train", "all training images, or the up to 256 a class that warm up"
    )
    augment: bool = option(True, "crop and mirror at random")
    views: int = option(1, "of every image; two have jittered colours, too (EKG)", ge=1, le=2)
    learning_rate: float = option(1e-3, "at the beginning, or at the peak of one_cycle", gt=0)
    schedule: Annotated[str, NameIn(SCHEDULES)] = option("constant", "of the learning rate")
    points: list[Annotated[float, Field(ge=0, le=1)]] = option(
        [], "parts of the training where step_decay acts"
    )
    decay: Annotated[float, Field(gt=0)] | list[Annotated[float, Field(gt=0)]] = option(
        0.1, "factor of step_decay, or one for each of its points"
    )
    cycle_momentum: bool = option(False, "with one_cycle: momentum against the rate, 0.95 → 0.85 → 0.95")
    optimizer: Annotated[str, NameIn(RULES)] = option("torch_momentum", "rule of the update")
    weight_decay: float = option(1e-4, "coupled L2 on all weights", ge=0)
    batch_size: int | None = option(None, "images per step (default: the run's --batch_size)", ge=1)
    seed: int | None = option(None, "of this training (default: the run's --seed)", ge=0, lt=2**31)
    stretch: bool = option(False, "epochs grow as the MACs have shrunk: Scratch-B")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.check_learning(self.label)
        if self.views > 1 and (self.teacher == "none" or not self.augment):
            raise UsageError(
                f"Two views are augmented and have a teacher. Received: {self.label}.views={self.views}"
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule == "step_decay" and not self.points:
            raise UsageError(f"step_decay needs points. Received: {self.label}.points=[]")
        if isinstance(self.decay, list) and len(self.decay) != len(self.points):
            raise UsageError(
                "step_decay needs one factor, or one for each of its points. "
                f"Received: {self.label}.points={self.points}, decay={self.decay}"
            )

    def trains(self, config: RunOptions) -> bool:
        """That is what it is for."""
        return True

    def check_options(self, config: RunOptions) -> None:
        """Teachers must be given where it learns from their files."""
        if config.teacher or not (config.model or config.dataset == MEMORY):  # else the model itself teaches
            self.check_files(config.teacher, self.label)

    def check(self, start: Start) -> None:
        """A batch of its own must be possible, and its losses must compare what the network gives."""
        if self.teacher != "none" and (task := start.subject.task):
            losses = losses_of(self.settled(start.splits.facts.num_classes), 1, self.label)
            try:
                check_losses([loss for loss, _ in losses], kind_of_logits(task))
            except UsageError as error:
                values = ["teacher=none", "label_weight=1", *(["views=1"] if self.views > 1 else [])]
                alone = f"--set {' '.join(f'{self.label}.{value}' for value in values)}"
                raise UsageError(
                    f"{error}\nTake a loss of features, as at, or labels alone: {alone}"
                ) from None
        if self.batch_size and self.images == "train":
            images = len(start.splits.train)
            check_batch(start.config, images, start.replicas, self.batch_size, f"{self.label}.batch_size")

    @property
    def stores(self) -> bool:
        """Whether a bank can answer for files: images never change, and losses look at logits alone."""
        return self.teacher == "files" and bool(self.losses) and self.logits_alone and not self.augment

    @property
    def asks_bank(self) -> tuple[str, ...]:
        """Any bank as its teacher; of files where these are and the images or the filter allow it."""
        if self.teacher == "bank":
            return BANKS
        return ("files",) if self.needs_bank or self.stores else ()

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network after its training."""

        def make(path: Path) -> dict:
            model, inner = self.begin(context, state)
            spec = self.spec(context, state)
            facts = self.train(context, state, model, spec)
            if context.subject.original is not None:  # a short training leaves averages that lag
                if facts.setdefault("reestimated", context.reestimate(model, frozen=False)):
                    print(f"{state.name}: averages of BN re-estimated behind the last epoch", flush=True)
            trained = narrow(model, inner) if inner else model
            if spec.until is not None:
                trained, compared = self.better(context, state, trained)
                facts |= compared
            return context.save(path, trained, state.plan) | facts

        tuned = context.step(state.name, self.result(state), context.together(make))
        members = state.members if self.teacher == "ensemble" else (*state.members, tuned)
        return state.after(tuned, self.shown, members=members)

    def better(self, context: RunContext, state: State, trained: keras.Model) -> tuple[keras.Model, dict]:
        """The better one on the holdout of the trained network and the one before; the accuracies of both.

        Little time may be too little: what a training has not repaired yet it may have broken.
        """
        if state.network is None:
            return trained, {}
        before, holdout = context.load(state.network), context.splits.holdout
        found = {
            "holdout_untrained": context.accuracy(before, holdout),
            "holdout_trained": context.accuracy(trained, holdout),
        }
        if found["holdout_trained"] >= found["holdout_untrained"]:
            return trained, found
        print(f"{state.name}: the time was too short for the training; the network before it stays")
        return before, found

    def begin(self, context: RunContext, state: State) -> tuple[keras.Model, Any]:
        """The network before its training, and the plan that cuts surplus channels off again, if any."""
        return widened(context, state) if self.widens else (context.load(state.network), None)

    def train(self, context: RunContext, state: State, model: keras.Model, spec: TrainingSpec) -> dict:
        """Trains `model` in place, beside its teachers if it has any; returns facts on these."""
        whole = synchronising(model) if context.config.sync_bn else nullcontext()
        with computing_in(context.config.dtype, model), whole:
            return self._trained(context, state, model, spec)

    def _trained(self, context: RunContext, state: State, model: keras.Model, spec: TrainingSpec) -> dict:
        if self.teacher == "none":
            return fit(context, model, replace(spec, **self.kept_equal(context, state, model, model)))
        found = taught(context, self, state, model, self.stores)
        lesson, bank = found.lesson, found.bank
        learnt = {
            "objective": lesson_terms,
            "terms": tuple(f"{UNWEIGHTED}{term}" for term in lesson.term_names),
            "preprocess": for_lesson(spec.preprocess),
            "extra": (lambda ids: {"bank": np.asarray(bank(ids))}) if bank else None,
        }
        hooks = self.kept_equal(context, state, model, lesson)
        trouble = fit(context, lesson, replace(spec, **learnt, **hooks), scored=lesson.learner)
        lesson.settle()
        return {"learning": found.facts} | trouble

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """Fields of `TrainingSpec`: what the loop does to gradients and after epochs.

        `trained` is what the loop moves: `model`, or a lesson around it.
        """
        return {"adjust": self.held(state, model, trained)}

    def kept_equal(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """The hooks, and behind them what keeps shared weights equal."""
        hooks = self.hooks(context, state, model, trained)
        if not state.shared:
            return hooks
        shared, before = tied(model, **state.shared), hooks.get("after_epoch")

        def equalise(done: int) -> None:
            if before:
                before(done)
            shared.equalise()

        adjusts = [hooks["adjust"]] if hooks["adjust"] else []
        tie_members = tie(trained, shared, self.weight_decay)
        return hooks | {"adjust": in_turn(*adjusts, tie_members), "after_epoch": equalise}

    def held(self, state: State, model: keras.Model, trained: keras.Model, *before: Adjust) -> Adjust | None:
        """What moves gradients, and behind it what holds weights at zero that were pruned one by one."""
        adjusts = [*before, *([hold_zeros(model, trained)] if state.sparse else [])]
        return in_turn(*adjusts) if adjusts else None

    def length(self, context: RunContext, state: State) -> int:
        """Epochs, which `stretch` makes more of, and --shorten less."""
        epochs = max(1, round(self.epochs * context.config.shorten)) if state.dense else self.epochs
        if not self.stretch:
            return epochs
        return round(epochs * context.cost(state.dense).macs / context.cost(state.network).macs)

    def spec(self, context: RunContext, state: State) -> TrainingSpec:
        """How to train, with labels alone."""
        config, images = context.config, getattr(context.splits, self.images)
        size = self.batch_size or config.batch_size
        cycled = self.cycle_momentum and self.schedule == "one_cycle"
        augmented = context.two_views if self.views == 2 else context.augmented
        return TrainingSpec(
            name=state.name,
            images=images,
            epochs=self.length(context, state),
            learning_rates=self.rates,
            momenta=cycled_momentum if cycled else None,
            objective=scaled(context.objective, self.label_weight),
            preprocess=augmented if self.augment else context.plain,
            weight_decay=self.weight_decay,
            seed=config.seed if self.seed is None else self.seed,
            batch_size=size if self.images == "train" else min(size, len(images)),
            remedy=lower_rate(self.label, self.learning_rate),
            accum=config.accum,
            balanced=config.balanced,
            optimizer=self.optimizer,
            **self.ending(context, state),
        )

    def ending(self, context: RunContext, state: State) -> dict[str, Any]:
        """Fields of `TrainingSpec`: when it ends, by the run's clock; none where it has epochs."""
        if self.time_share is None or (clock := context.clock) is None:
            return {}
        left, done = clock.left(ending_seconds(context, state)), done_before(context, state.name, "seconds")
        if left == 0:
            warn(f"--minutes {clock.seconds / 60:g} leave no time for {state.name}: the report takes it")
        until = clock.now() + max(0.0, self.time_share * (left + done) - done)
        agreed = context.workers.agreed
        return {"until": agreed(until), "now": lambda: agreed(clock.now())}

    def rates(self, steps: int) -> np.ndarray:
        """The learning rate of each step, float32 (steps,)."""
        if self.schedule == "step_decay":
            return step_decay(self.learning_rate, steps, self.points, self.decay)
        return SCHEDULES.find(self.schedule)(self.learning_rate, steps)


def scaled(objective: Objective, factor: float) -> Objective:
    """An objective whose loss is multiplied by `factor`."""

    def multiplied(logits, batch):
        loss, accuracy = objective(logits, batch)
        return factor * loss, accuracy

    return objective if factor == 1 else multiplied
