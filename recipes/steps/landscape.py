"""What the loss looks like around the network as it is: numbers, a plane and a density for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from secateur.dataloader import Images, parts_of
from secateur.distillation.tasks import task_for
from secateur.pruning.landscape import LossAt, directions, noise, plane, spectrum
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, Step, step


@step("landscape")
class Landscape(Step):
    """Condition number, change under noise, and a plane of the loss; see `pruning.landscape`.

    By default on the images that score candidates of a search. The network is not changed.
    """

    images: Literal["search", "holdout", "train"] = option("search", "that the loss is of")
    count: int = option(512, "of these at most, drawn at random", ge=1)
    statistics: Literal["moving", "batch"] = option("moving", "of BatchNorm; batch as EKG evaluates")
    eigen_steps: int = option(40, "products with the Hessian for each probe; 0 leaves eigenvalues out", ge=0)
    probes: int = option(1, "random vectors that the spectral density is the mean over", ge=1)
    noise: float = option(0.05, "length of random changes, in parts of each filter", gt=0)
    noises: int = option(10, "random changes", ge=1)
    side: int = option(15, "points along each side of the plane, made odd: the network is its middle", ge=0)
    reach: float = option(1.0, "of the plane, to all sides, in lengths of each filter", gt=0)
    seed: int = option(0, "of directions, noise and images", ge=0)

    def run(self, context: RunContext, state: State) -> State:
        """<name>.json; the report has its numbers and the page its pictures."""

        def make(path: Path) -> dict:
            found = self._measured(context, state)
            path.write_text(json.dumps(found))
            return {"landscape": found}

        context.step(state.name, f"{state.name}.json", make)
        return state

    def _measured(self, context: RunContext, state: State) -> dict[str, Any]:
        loss = self._loss(context, state)
        here, metric = loss(loss.weights)
        found: dict[str, Any] = {"images": loss.count, "loss": here, "metric": metric, "radius": self.noise}
        found["noise"] = noise(loss, self.noise, self.noises, self.seed)
        print(f"{state.name}: loss {here:.4g}, under noise ± {found['noise']:.4g}", flush=True)
        if self.eigen_steps:
            with tqdm(total=self.eigen_steps * self.probes, desc=f"{state.name}: eigenvalues") as bar:
                curvature = spectrum(loss, self.eigen_steps, self.probes, self.seed, bar.update)
            found |= curvature.to_json()
            ends = f"{curvature.smallest:.4g} … {curvature.largest:.4g}"
            print(f"{state.name}: eigenvalues {ends}, condition number {curvature.condition:.4f}", flush=True)
        if self.side:
            found |= self._plane(context, state, loss)
        return found

    def _loss(self, context: RunContext, state: State) -> LossAt:
        images: Images = getattr(context.splits, self.images)
        chosen = np.random.default_rng(self.seed).permutation(len(images))[: self.count]
        some, model = images.take(np.sort(chosen)), context.load(state.network)
        data = context.arrays(some.images), parts_of(some.labels)
        size, by_batch = context.config.val_batch_size, self.statistics == "batch"
        return LossAt(model, data, task_for(model, context.subject.task), size, by_batch)

    def _plane(self, context: RunContext, state: State, loss: LossAt) -> dict[str, Any]:
        """Row by row; after a kill it goes on behind the last whole row."""
        side = self.side + 1 - self.side % 2
        at = np.linspace(-self.reach, self.reach, side)
        saved = context.folder.load_checkpoint(state.name)
        known = [tuple(point) for point in saved.facts["points"]] if saved else []
        with tqdm(total=side * side, initial=len(known), desc=f"{state.name}: plane", unit="point") as bar:

            def keep(points: list) -> None:
                bar.update()
                if len(points) % side == 0:
                    context.checkpoint(state.name, {}, {"points": points})

            values, metrics = plane(loss, directions(loss, 2, self.seed), at, known, keep)
        return {"at": at.tolist(), "plane": values.tolist(), "metrics": metrics.tolist()}
