"""Training: schedule, optimizer, teacher, and what is done to gradients and after epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
from pydantic import Field

from secateur.coding.sharing.retraining import tie
from secateur.coding.sharing.share import tied
from secateur.distillation import Lesson, for_lesson, labels_only, lesson_terms
from secateur.op_utils import RULES, Adjust
from secateur.pruning import narrow
from secateur.pruning.constrain.gradients import hold_zeros, in_turn
from secateur.recipes.engine.config_learning import LearningOptions
from secateur.recipes.engine.config_program import ProgramOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.inputs import check_batch
from secateur.recipes.engine.options import option
from secateur.recipes.engine.state import State
from secateur.recipes.engine.step import Step, step
from secateur.recipes.steps.padding import widened
from secateur.recipes.training import schedules
from secateur.recipes.training.learning import losses_in_words
from secateur.recipes.training.lessons import live_teacher, losses_of
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.reports.words import learning_text
from secateur.runs import UsageError, load_snapshot, sha256

TEACHERS = ("none", "dense", "ensemble")


@step("train")
class Train(LearningOptions, Step):
    """Trains the network as it is: fine-tuning, or from weights that were reset."""

    widens: ClassVar[bool] = True  # whether surplus channels, which are masked, disturb nothing

    epochs: int = option(40, "passes over the training images", ge=1)
    learning_rate: float = option(1e-3, "at the beginning, or at the peak of one_cycle", gt=0)
    schedule: str = option("constant", "of the learning rate")
    points: list[Annotated[float, Field(ge=0, le=1)]] = option(
        [], "parts of the training where step_decay acts"
    )
    decay: Annotated[float, Field(gt=0)] | list[Annotated[float, Field(gt=0)]] = option(
        0.1, "factor of step_decay, or one for each of its points"
    )
    cycle_momentum: bool = option(False, "with one_cycle: momentum against the rate, 0.95 → 0.85 → 0.95")
    optimizer: Literal[tuple(RULES)] = option("torch_momentum", "rule of the update")
    weight_decay: float = option(1e-4, "coupled L2 on all weights", ge=0)
    batch_size: int | None = option(None, "images per step (default: the run's --batch_size)", ge=1)
    teacher: Literal[TEACHERS] = option(
        "none", "the dense network, or an ensemble of it and all snapshots of trainings"
    )
    own_start: bool = option(True, "whether the snapshot that it starts from is in the ensemble, too")
    stretch: bool = option(False, "epochs grow as the MACs have shrunk: Scratch-B")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.check_losses(prefix=f"{self.label}.")
        if self.teacher == "none" and self.label_weight == 0:
            raise UsageError(f"Nothing to learn from: no teacher and no labels. Received: {self.label}")
        several = 2 if self.teacher == "ensemble" else 1
        losses_of(self, several, f"{self.label}.distill")  # unknown names, and what hears no ensemble
        self._check_schedule()

    def _check_schedule(self) -> None:
        schedules.SCHEDULES.find(self.schedule)
        if self.schedule == "step_decay" and not self.points:
            raise UsageError(f"step_decay needs points. Received: {self.label}.points=[]")
        if isinstance(self.decay, list) and len(self.decay) != len(self.points):
            raise UsageError(
                "step_decay needs one factor, or one for each of its points. "
                f"Received: {self.label}.points={self.points}, decay={self.decay}"
            )

    def check(self, config: ProgramOptions, images: int, replicas: int) -> None:
        """A batch of its own must be possible."""
        if self.batch_size:
            check_batch(config, images, replicas, self.batch_size, f"{self.label}.batch_size")

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network after its training."""

        def make(path: Path) -> dict:
            model, inner = widened(context, state) if self.widens else (context.load(state.network), None)
            if learning := self.learning(state):
                print(f"{state.name}: {learning_text(learning)}", flush=True)
            self.train(context, state, model, self.spec(context, state))
            facts = {"learning": learning} if learning else {}
            return context.save(path, narrow(model, inner) if inner else model, state.plan) | facts

        tuned = context.step(state.name, f"snap_{state.name}.pkl", make)
        members = state.members if self.teacher == "ensemble" else (*state.members, tuned)
        return state.after(tuned, trained=(*state.trained, tuned), members=members)

    def train(self, context: RunContext, state: State, model: keras.Model, spec: TrainingSpec) -> None:
        """Trains `model` in place, beside its teachers if it has any."""
        paths = self._teachers(state)
        if not paths:
            fit(context, model, replace(spec, **self.kept_equal(context, state, model, model)))
            return
        with context.strategy.scope():
            teacher = live_teacher(context, self, paths)
            lesson = Lesson(model, teacher, losses_of(self, len(paths)), self.label_weight)
        learnt = {
            "objective": lesson_terms,
            "terms": tuple(f"unweighted_{term}" for term in lesson.term_names),
            "preprocess": for_lesson(spec.preprocess),
        }
        hooks = self.kept_equal(context, state, model, lesson)
        fit(context, lesson, replace(spec, **learnt, **hooks), scored=lesson.learner)
        lesson.settle()

    def learning(self, state: State) -> dict | None:
        """What it learns from beside the labels, after all defaults; see `recipes.training.learning`."""
        if not (paths := self._teachers(state)):
            return None
        specs = [load_snapshot(path).spec for path in paths]
        return {
            "label_weight": self.label_weight,
            "losses": losses_in_words(self, len(paths)),
            "teachers": [
                {"file": path.name, "sha256": sha256(path), "arch": spec["arch"]}
                for path, spec in zip(paths, specs, strict=True)
            ],
        }

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

        def fasten(done: int) -> None:
            if before:
                before(done)
            shared.fasten()

        adjusts = [hooks["adjust"]] if hooks["adjust"] else []
        tie_members = tie(trained, shared, self.weight_decay)
        return hooks | {"adjust": in_turn(*adjusts, tie_members), "after_epoch": fasten}

    def held(self, state: State, model: keras.Model, trained: keras.Model, *before: Adjust) -> Adjust | None:
        """What moves gradients, and behind it what holds weights at zero that were pruned one by one."""
        adjusts = [*before, *([hold_zeros(model, trained)] if state.sparse else [])]
        return in_turn(*adjusts) if adjusts else None

    def length(self, context: RunContext, state: State) -> int:
        """Epochs, which `stretch` makes more of."""
        if not self.stretch:
            return self.epochs
        return round(self.epochs * context.cost(state.dense).macs / context.cost(state.network).macs)

    def spec(self, context: RunContext, state: State) -> TrainingSpec:
        """How to train, with labels alone."""
        config = context.config
        cycled = self.cycle_momentum and self.schedule == "one_cycle"
        return TrainingSpec(
            name=state.name,
            images=context.splits.train,
            epochs=self.length(context, state),
            learning_rates=self.rates,
            momenta=schedules.cycled_momentum if cycled else None,
            objective=labels_only,
            preprocess=context.augmented,
            weight_decay=self.weight_decay,
            seed=config.seed,
            batch_size=self.batch_size or config.batch_size,
            remedy=f"Lower the rate: --set {self.label}.learning_rate={self.learning_rate / 10:g}",
            accum=config.accum,
            optimizer=self.optimizer,
        )

    def rates(self, steps: int) -> np.ndarray:
        """The learning rate of each step, float32 (steps,)."""
        if self.schedule == "step_decay":
            return schedules.step_decay(self.learning_rate, steps, self.points, self.decay)
        return schedules.SCHEDULES.find(self.schedule)(self.learning_rate, steps)

    def _teachers(self, state: State) -> tuple[Path, ...]:
        trained = [path for path in state.members if self.own_start or path != state.network]
        known = {"none": (), "dense": (state.dense,), "ensemble": (*reversed(trained), state.dense)}
        return known[self.teacher] if self.losses else ()
