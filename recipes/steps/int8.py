"""The network in whole numbers of 8 bits: a LiteRT file, fine-tuned where rounding costs too much."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import keras
import numpy as np

from secateur.coding.int8.fake_quant import fake_quantised
from secateur.exports.int8 import NUMBERS, left_in_float, to_int8
from secateur.nets.folding import fold_batch_norm
from secateur.pruning import compact
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import ending_seconds, lite_accuracy, lite_outputs
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, Step, step
from secateur.recipes.training.loop import TrainingSpec, fit, lower_rate
from secateur.recipes.training.schedules import cosine
from secateur.reports.words import percent
from secateur.runs import warn

SHOWN = 64  # images that calibration sees at a time


@step("int8")
class Int8(Step):
    """Rounds weights and activations to 8 bits (Jacob et al. 2018). The network itself stays as it is.

    Where the holdout loses more than `tolerance`, a copy is trained with the rounding in its way; the better
    one on the holdout is kept.
    """

    samples: int = option(512, "training images that show how large activations become", ge=1)
    tolerance: float = option(0.005, "accuracy on the holdout that may be lost untrained", ge=0)
    epochs: int = option(2, "of that training; 0: none", ge=0)
    learning_rate: float = option(1e-3, "of that training, falling to 0 along a cosine", gt=0)
    writes: ClassVar[bool] = True

    numbers: Literal[tuple(NUMBERS)] = option("float32", "of inputs and outputs of the file")

    def needs_labels(self, config: RunOptions) -> bool:
        """Calibration needs images alone; without accuracies nothing is trained."""
        return False

    def run(self, context: RunContext, state: State) -> State:
        """<name>.tflite; the manifest has the holdout's accuracy before and after."""

        def make(path: Path) -> dict:
            model = fold_batch_norm(compact(context.load(state.network)))
            facts = {"float32": context.accuracy(model, context.splits.holdout)}
            data = self.converted(context, model)
            facts["rounded"] = self.accuracy(context, data)
            labelled, trouble = context.splits.facts.labelled, {}
            lost = facts["float32"] - facts["rounded"] if labelled and self.epochs else 0.0
            if context.workers.agreed(lost) > self.tolerance:
                trouble = self.train(context, state, model)
                tuned = self.converted(context, model)
                facts["trained"] = self.accuracy(context, tuned)
                data = tuned if facts["trained"] > facts["rounded"] else data
            if left := left_in_float(data):
                warn(f"{state.name}: {len(left)} tensors stay in float32; the first is {left[0]}")
            path.write_bytes(data)
            text = ", ".join(f"{name} {percent(value)}" for name, value in facts.items()) if labelled else ""
            facts |= {"apart": self.apart(context, model, data)} | trouble
            text = text or f"outputs {percent(facts['apart'])} of their range away from float32's, on average"
            print(f"{state.name}: {len(data):,} bytes; hold-out: {text}", flush=True)
            return facts

        path = context.step(state.name, f"{state.name}.tflite", context.together(make))
        return replace(state, files=(*state.files, path))

    def converted(self, context: RunContext, model: keras.Model) -> bytes:
        """The file, calibrated with training images."""
        train = context.splits.train
        chosen = np.random.default_rng(context.config.seed).permutation(len(train))[: self.samples]
        parts = np.split(chosen, range(SHOWN, len(chosen), SHOWN))
        shown = (keras.tree.flatten(context.arrays(train.images[part])) for part in parts)
        return to_int8(context.subject.ended(model), shown, self.numbers)

    def accuracy(self, context: RunContext, data: bytes) -> float:
        """Of a file on the holdout."""
        return lite_accuracy(context, data, context.splits.holdout)

    def apart(self, context: RunContext, model: keras.Model, data: bytes) -> float:
        """Mean distance on the holdout of a file's first output from the network's, by the range of that."""
        images, network = context.splits.holdout, context.subject.ended(model)
        rows = [
            keras.tree.flatten(network(context.arrays(images.images[at : at + SHOWN]), training=False))[0]
            for at in range(0, len(images), SHOWN)
        ]
        exact = np.concatenate([keras.ops.convert_to_numpy(some) for some in rows])
        return float(np.abs(lite_outputs(context, data, images) - exact).mean() / (np.ptp(exact) or 1.0))

    def train(self, context: RunContext, state: State, model: keras.Model) -> dict[str, int]:
        """Trains in place, in rounded numbers; where minutes are counted, as long as some are left."""
        config, clock = context.config, context.clock
        rounded = fake_quantised(model)
        spec = TrainingSpec(
            name=state.name,
            images=context.splits.train,
            epochs=self.epochs,
            learning_rates=partial(cosine, self.learning_rate),
            objective=context.objective,
            preprocess=context.augmented,
            weight_decay=0.0,
            seed=config.seed,
            batch_size=config.batch_size,
            balanced=config.balanced,
            remedy=lower_rate(self.label, self.learning_rate),
            accum=config.accum,
            optimizer="torch_momentum",
        )
        if clock:
            agreed, until = context.workers.agreed, clock.end(ending_seconds(context, state))
            spec = replace(spec, until=agreed(until), now=lambda: agreed(clock.now()))
        return fit(context, rounded, spec)
