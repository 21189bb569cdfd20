"""Weights become equal to few values in each kernel, and stay so: the first half of storing them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from tqdm import tqdm

from secateur.coding.sharing.by_rate import share_by_rate
from secateur.coding.sharing.kernels import KINDS, MOST_BITS
from secateur.coding.sharing.share import Shared, share
from secateur.dataloader import Images
from secateur.dataloader.splits import equidistant
from secateur.op_utils import make_forward
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import NetworkStep, State, step
from secateur.recipes.training.scoring import score
from secateur.runs import UsageError, warn

MEASURED = 2000  # holdout images behind a choice by rate: ResNet-56 is shown them once for each kernel
USUAL_BITS = 5
AT_ONCE = 2**24  # numbers of outputs in memory: of maps fewer images are shown


@step("share")
class Share(NetworkStep):
    """Gives each kernel few values (Han et al. 2016; HAP), which later trainings keep equal.

    At most 2^bits beside 0; with a budget the rate of their code decides how many, and which weights become
    0, kernel by kernel.
    """

    bits: int | dict = option(
        0,
        f"1 to {MOST_BITS}; or a table from conv, dense, layers or patterns of layers to bits (default: "
        f"{USUAL_BITS} where no budget decides)",
    )
    layers: Literal[KINDS] = option("conv", "whose kernels; all of both")
    linear: bool = option(
        False, "HAP's clustering, from values at equal distances, instead of the optimal one"
    )
    keep_bytes: float = option(
        0.0,
        "values by rate: ratio of these kernels' float32 bytes that is to stay, estimated; 0: no such budget",
        ge=0,
        lt=1,
    )
    max_loss: float = option(
        0.0,
        "values by rate: what sharing may add to the holdout's loss before the training; 0: no such budget",
        ge=0,
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        own = self.bits.values() if isinstance(self.bits, dict) else [self.bits] if self.bits else []
        if wrong := [n for n in own if not (type(n) is int and 1 <= n <= MOST_BITS)]:
            raise UsageError(f"Bits are 1 to {MOST_BITS}. Received: {self.label}.bits={wrong[0]}")
        given = [name for name in ("keep_bytes", "max_loss") if getattr(self, name)]
        others = [name for name in ("bits", "linear") if getattr(self, name)]
        if len(given) > 1 or (given and others):
            values = ", ".join(f"{self.label}.{name}={getattr(self, name)}" for name in (*given, *others))
            raise UsageError(
                "One budget alone chooses the values of all kernels. "
                f"Received: {values}\n--set {self.label}.{given[0]}=0 takes the budget away"
            )

    def needs_labels(self, config: RunOptions) -> bool:
        """For a budget of loss."""
        return bool(self.max_loss)

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network with shared weights; the manifest has a row for each kernel."""

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            if self.keep_bytes or self.max_loss:
                shared = self.by_rate(context, model)
            else:
                shared = share(model, self.bits or USUAL_BITS, self.layers, self.linear)
            if shared.emptied:
                warn(f"nothing but zeros is left of {', '.join(shared.emptied)}: a larger budget keeps them")
            facts["holdout_after"] = context.accuracy(model, context.splits.holdout)
            return context.save(path, model, state.plan) | facts | {"kernels": shared.facts()}

        path = context.step(state.name, self.result(state), make)
        return state.after(path, self.shown, shared={"bits": self.bits or USUAL_BITS, "layers": self.layers})

    def by_rate(self, context: RunContext, model: keras.Model) -> Shared:
        """Within the budget, by outputs and loss on the holdout, or on some of it at equal distances."""
        forward = make_forward(model, context.inputs, compile_=context.config.compile)
        size, held = context.config.val_batch_size, context.splits.holdout

        def some(count: int) -> Images:
            return held.take(equidistant(len(held), count))

        def outputs_of(images: Images) -> list[np.ndarray]:
            return keras.tree.flatten(forward(images.images, size))

        numbers = sum(output[0].size for output in outputs_of(some(1)))
        seen, scored = some(max(1, min(MEASURED, AT_ONCE // numbers))), some(MEASURED)

        def loss() -> float:
            return score(forward, scored, size, context.subject.task).loss

        budget = {"keep_bytes": self.keep_bytes} if self.keep_bytes else {"max_loss": self.max_loss}
        each = partial(tqdm, desc=self.label, unit="kernel")
        outputs = partial(outputs_of, seen)
        shared = share_by_rate(model, outputs, **budget, loss=loss, layers=self.layers, each=each)
        print(shared, flush=True)
        return shared
