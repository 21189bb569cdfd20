"""The dense network that everything begins with: the given one, or trained here."""

from __future__ import annotations

import datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from secateur import nets
from secateur.dataloader.sources.memory import NAME as MEMORY
from secateur.exports.timing import seconds
from secateur.op_utils import make_forward
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, build, step
from secateur.recipes.steps.train import Train
from secateur.recipes.training.loop import TrainingSpec, done_before
from secateur.runs import UsageError


@step("dense")
class Dense(Train):
    """`--trained_param`, or a network that is trained from random weights: the steps `reset` knows both."""

    epochs: int = option(40, "passes over the images; 0: random weights", ge=0)
    keep_epoch: int | None = option(
        None, "also keep the weights after this epoch, for `reset` to = epoch", ge=1
    )
    copy_teacher: bool = option(False, "begin with the weights of the first --teacher")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.keep_epoch and self.keep_epoch > self.epochs:
            raise UsageError(
                f"It has {self.epochs} epochs. Received: {self.label}.keep_epoch={self.keep_epoch}"
            )

    def needs_labels(self, config: RunOptions) -> bool:
        """To train it, not to read it."""
        return config.from_scratch

    def trains(self, config: RunOptions) -> bool:
        """Not where a network is given, or weights are random."""
        own = (config.model or config.dataset == MEMORY) and not config.from_scratch
        return bool(self.epochs) and not own and not self.given(config)

    def check(self, start: Start) -> None:
        """It begins with one network."""
        config = start.config
        if start.subject.original is None or config.from_scratch:  # else nothing is trained here
            super().check(start)
        if config.model and config.trained_param:
            raise UsageError(
                "A run begins with one network: give --model or --trained_param. "
                f"Received: {config.model} and {config.trained_param}"
            )
        own = start.subject.original is not None  # it is its own teacher
        if self.copy_teacher and not own and (config.trained_param or not config.teacher):
            raise UsageError(
                "--copy_teacher starts from the first --teacher, so it excludes --trained_param. "
                f"Received: teacher={config.teacher}, trained_param={config.trained_param}"
            )

    def given(self, config: RunOptions) -> str | None:
        """The snapshot that it begins with; None where that is random weights, or a model of one's own."""
        return config.teacher[0] if self.copy_teacher and config.teacher else config.trained_param

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the given network, or the one that is trained here."""
        config, subject, make = context.config, context.subject, None
        if subject.original is not None and not config.from_scratch:
            start = config.model or config.trained_param or "the model"
            print(f"{state.name}: {subject.frozen_text() or f'{start}, nothing in it is frozen'}")
            make = partial(subject.working, subject.original)
        elif given := self.given(config):
            start = f"a copy of {given}" if self.copy_teacher else given
            make = partial(context.load, Path(given))
        elif self.epochs == 0:
            start, make = "random weights", partial(random_net, context)
        else:
            start = f"{self.epochs} epochs of training"
        if make:
            dense = context.step(state.name, self.result(state), lambda path: context.save(path, make()))
        else:
            dense = super().run(context, state).network
        starts = {"dense": dense} | ({"epoch": self._kept(context)} if self.keep_epoch else {})
        shown = self.shown and not (self.copy_teacher and config.teacher) and start != "random weights"
        return State(dense=dense, start=start, starts=starts).after(dense, shown)

    def begin(self, context: RunContext, state: State) -> tuple[keras.Model, None]:
        """Random weights."""
        return random_net(context), None

    def train(self, context: RunContext, state: State, model: keras.Model, spec: TrainingSpec) -> dict:
        """Says first how long it will take."""
        if spec.until is None:
            announce(context, model, spec)
        else:
            minutes = (spec.until - spec.now()) / 60
            tqdm.write(f"no --trained_param: training the {spec.name} for {minutes:.1f} minutes")
        return super().train(context, state, model, spec)

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """After `keep_epoch` its weights are kept."""

        def keep(done: int) -> None:
            if done == self.keep_epoch and not context.workers.follows:
                context.save(self._kept(context), model)

        return super().hooks(context, state, model, trained) | {"after_epoch": keep}

    def _kept(self, context: RunContext) -> Path:
        return context.folder.path(f"snap_epoch{self.keep_epoch}.pkl")


def random_net(context: RunContext, like: keras.Model | None = None, more: int = 0) -> keras.Model:
    """Random weights for the run's network, or one `like` it, from the run's seed or one `more` above it."""
    subject, seed = context.subject, context.config.seed + more
    if subject.original is not None:
        return subject.fresh(like or subject.working(subject.original), seed)
    keras.utils.set_random_seed(seed)
    return nets.build(like.spec) if like else build(context.config, context.splits.facts)


def announce(context: RunContext, model: keras.Model, spec: TrainingSpec) -> None:
    """Says how long a training takes, from measured forward passes (a step costs about three)."""
    images = spec.images.images[: spec.batch_size]
    forward = make_forward(model, context.inputs, batch_statistics=True, compile_=context.config.compile)
    forward(images, len(images))  # traces
    one_step = 3 * min(seconds(lambda: forward(images, len(images))) for _ in range(3))
    left = spec.epochs - done_before(context, spec.name)
    expected = datetime.timedelta(seconds=round(one_step * (len(spec.images) // spec.batch_size) * left))
    epochs = f"{left} epochs" if left == spec.epochs else f"the last {left} of {spec.epochs} epochs"
    tqdm.write(f"no --trained_param: training the {spec.name} for {epochs}, about {expected} (h:mm:ss)")
