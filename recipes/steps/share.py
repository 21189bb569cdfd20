"""Weights become equal to few values in each kernel, and stay so: the first half of storing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
from tqdm import tqdm

from secateur.coding.sharing.allocation import calls_of_loss, choose_bits
from secateur.coding.sharing.kernels import KINDS, MOST_BITS, Bits
from secateur.coding.sharing.share import share
from secateur.dataloader.splits import equidistant
from secateur.op_utils import make_forward
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import NetworkStep, State, step
from secateur.recipes.training.scoring import score
from secateur.runs import UsageError, warn
from secateur.runs.text import table

MEASURED = 2000  # holdout images behind a choice of bits: ResNet-56 is shown them 386 times


@step("share")
class Share(NetworkStep):
    """Gives each kernel at most 2^bits values beside 0 (Han et al. 2016; HAP); later trainings keep them.

    With a budget the kernels get different bits, so that the holdout's loss suffers least.
    """

    bits: int | dict = option(
        5, f"1 to {MOST_BITS}; or a table from conv, dense, layers or patterns of layers to bits"
    )
    layers: Literal[KINDS] = option("conv", "whose kernels; all of both")
    linear: bool = option(
        False, "HAP's clustering, from values at equal distances, instead of the optimal one"
    )
    keep_bytes: float | None = option(
        None,
        "choose bits: ratio of these kernels' float32 bytes that is to stay, estimated",
        gt=0,
        lt=1,
    )
    max_loss: float | None = option(
        None,
        "choose bits: what sharing may add to the holdout's loss before the training, estimated",
        gt=0,
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        own = self.bits.values() if isinstance(self.bits, dict) else [self.bits]
        if wrong := [n for n in own if not (type(n) is int and 1 <= n <= MOST_BITS)]:
            raise UsageError(f"Bits are 1 to {MOST_BITS}. Received: {self.label}.bits={wrong[0]}")
        if isinstance(self.bits, dict) and (self.keep_bytes or self.max_loss):
            raise UsageError(
                f"A budget chooses the bits of all kernels. Received: {self.label}.bits={self.bits}"
            )
        if self.keep_bytes and self.max_loss:
            raise UsageError(
                f"Give {self.label}.keep_bytes or {self.label}.max_loss. "
                f"Received: {self.keep_bytes} and {self.max_loss}"
            )

    def needs_labels(self, config: RunOptions) -> bool:
        """For losses that choose bits."""
        return bool(self.keep_bytes or self.max_loss)

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network with shared weights; the manifest has a row for each kernel."""

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            automatic = self.keep_bytes or self.max_loss
            loss = self.measure(context, model) if automatic else None
            bits = self.chosen(model, loss) if automatic else self.bits
            before = loss and loss()
            shared = share(model, bits, self.layers, self.linear)
            if loss:
                self.check_loss(before, loss())
            facts["holdout_after"] = context.accuracy(model, context.splits.holdout)
            return context.save(path, model, state.plan) | facts | {"kernels": shared.facts()}

        path = context.step(state.name, self.result(state), make)
        return state.after(path, self.shown, shared={"bits": self.bits, "layers": self.layers})

    def measure(self, context: RunContext, model: keras.Model) -> Callable[[], float]:
        """The loss on the holdout, or on some of it at equal distances, of the model as it is then."""
        held = context.splits.holdout
        held = held.take(equidistant(len(held), MEASURED))
        forward = make_forward(model, context.inputs, compile_=context.config.compile)
        return lambda: score(forward, held, context.config.val_batch_size, context.subject.task).loss

    def chosen(self, model: keras.Model, loss: Callable[[], float]) -> Bits:
        """Kernel → bits within the budget, from losses with one kernel shared at a time; prints them."""
        with tqdm(total=calls_of_loss(model, self.layers), desc=self.label, unit="score") as bar:

            def counted() -> float:
                bar.update()
                return loss()

            bits = choose_bits(model, counted, self.keep_bytes, self.max_loss, self.layers, self.linear)
        print(table(("kernel", "bits"), [(name, str(own)) for name, own in bits.items()]))
        return bits

    def check_loss(self, before: float, after: float) -> None:
        """Prints what all bits cost together, which the choice has only estimated."""
        print(f"{self.label}: loss {before:.4f} → {after:.4f} on the hold-out")
        if self.max_loss and after - before > self.max_loss:
            warn(f"together the bits add {after - before:.4f} to the loss: lower max_loss")
