"""For those who keep `model.fit`: channels that stay removed, that go little by little, and a teacher."""

from __future__ import annotations

from typing import Any, Literal

import keras

from secateur.distillation.distiller import Distiller as Distiller
from secateur.pruning.choose.ladders import Ladder, find_ladder
from secateur.pruning.choose.targets import Target
from secateur.pruning.constrain.holding import Holder
from secateur.pruning.plan import Plan
from secateur.pruning.planning import make_plan
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

__all__ = ["Distiller", "GradualPruning", "HoldPruned"]

UNITS = ("epochs", "steps")


class _Holding(keras.callbacks.Callback):
    """Holds removed channels at zero: behind every batch, and where something else has written weights."""

    holder: Holder | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Weights may have been restored."""
        if self.holder:
            self.holder.settle()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """The optimizer has moved them."""
        if self.holder:
            self.holder()

    def on_train_end(self, logs: dict | None = None) -> None:
        """An optimizer with `use_ema` has put averages in their place."""
        if self.holder:
            self.holder.settle()


class HoldPruned(_Holding):
    """Channels that a plan removes stay zero through `fit`, in stock layers and under every optimizer.

    Adam's moments or averages of weights would bring them back. Everything of such a channel is set to zero
    behind each batch: the layers that make it, its BN, and the slices that read it, so that the trained model
    computes what `pruning.compact(model, plan)` does. With `compile(steps_per_execution=n)` Keras tells of
    every n-th step only: in between, moments may move them.

    Args:
        plan: of the model that is trained, or of the student in a `Distiller`.

    It keeps no state. Raises `UsageError`, before training, for a plan of another network.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Called by Keras."""
        self.holder = Holder(network_of(self.model), self.plan)


class GradualPruning(_Holding):
    """Removes channels round by round while `fit` trains, towards a budget; those removed are held at zero.

    With the ladder "agp" the share that is gone at time t is s_t = s_f − s_f · (1 − (t − t₀) / (nΔt))³
    (Zhu & Gupta 2017, equation 1, from s_i = 0), of what the budget counts: channels, operations … In every
    round a new plan is made from the weights as they are; what is gone stays gone. In the end
    `pruning.compact(model, callback.plan)` is the small model, of the same outputs.

    Args:
        criterion: name of a registered criterion.
        keep, keep_macs, keep_params, keep_bytes: the budget, one of them; see `make_plan`.
        end: time of the last round, in units since `fit` began to count, above `begin`.
        begin: t₀, at least 0. The first round comes `every` units later.
        every: Δt, units between two rounds; a divisor of end − begin.
        unit: "epochs" or "steps". A step is a batch, and fit must know how many an epoch has.
        schedule: a name of `pruning.choose.ladders.LADDERS`, or (sparsity, rounds) → sparsity after each.
        options: further ones of `make_plan`: data for criteria that need it, allocation, round_to, ignore …

    Attributes:
        plan: what is left now; None before training.

    The log of each epoch has the ratio that it ended with under the budget's name. There is no state but
    weights: what is zero is gone. A `fit` that goes on, also by `keras.callbacks.BackupAndRestore` (put it
    behind this one), finds its place by them and by the number of the epoch. `EarlyStopping` and checkpoints
    of the best epoch should start behind `end`: weights of an earlier one belong to another plan.

    Raises `UsageError` for values that do not fit, and in the first epoch, before any step, for a budget that
    cannot be reached and for options that `make_plan` refuses.
    """

    def __init__(
        self,
        criterion: str = "l1",
        *,
        end: int,
        begin: int = 0,
        every: int = 1,
        unit: Literal["epochs", "steps"] = "epochs",
        schedule: str | Ladder = "agp",
        keep: float | None = None,
        keep_macs: float | None = None,
        keep_params: float | None = None,
        keep_bytes: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        target = Target.one_of(keep=keep, keep_macs=keep_macs, keep_params=keep_params, keep_bytes=keep_bytes)
        self.rounds = _rounds(begin, end, every)
        require(unit, UNITS, "unit", "unit")
        ladder = find_ladder(schedule) if isinstance(schedule, str) else schedule
        # The last one is the budget itself: 1 − (1 − 0.3) is not 0.3.
        left = [1 - gone for gone in ladder(1 - target.value, self.rounds)]
        self.budget, self.ratios = target.name, [1.0, *left[:-1], target.value]
        self.begin, self.every, self.unit = begin, every, unit
        self.options = {"criterion": criterion, **options}
        self.done = 0

    @property
    def plan(self) -> Plan | None:
        """What is left now."""
        return self.holder.plan if self.holder else None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Weights are looked at when the epoch begins: another callback may restore them until then."""
        if self.unit == "steps" and not (self.params or {}).get("steps"):
            raise UsageError(
                "fit does not know how many steps an epoch has. Received: unit='steps', steps=None\n"
                "give steps_per_epoch to fit, or unit='epochs'"
            )
        self.holder, self.done = None, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Finds out what is left, and where the ladder stands."""
        self.epoch = epoch
        if self.holder is None:
            self.holder = Holder(network_of(self.model))
            self._plan(self.rounds)  # raises now what the last round would
        self._reach(epoch if self.unit == "epochs" else epoch * self.params["steps"])
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """A round, if it is time for one."""
        super().on_train_batch_end(batch, logs)
        if self.unit == "steps":
            self._reach(self.epoch * self.params["steps"] + batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """A round, if it is time for one; the ratio for the log."""
        if logs is not None:
            logs[self.budget] = self.ratios[self.done]
        if self.unit == "epochs":
            self._reach(epoch + 1)

    def _reach(self, time: int) -> None:
        """Does the round that the ladder has at this time, unless it is done."""
        number = min(max(0, (time - self.begin) // self.every), self.rounds)
        if number > self.done and self.holder:
            self.done = number
            self.holder.hold_to(self._plan(number))

    def _plan(self, number: int) -> Plan:
        """What stays in a round, of what is left."""
        network, options = network_of(self.model), {self.budget: self.ratios[number], **self.options}
        if network is not self.model:
            options.setdefault("loss", self.model.loss)  # the student itself is compiled with none
        return make_plan(network, within=self.plan, **options)


def network_of(model: keras.Model) -> keras.Model:
    """What is pruned: the student of a distiller, ours or Keras', or the model itself."""
    return model.student if isinstance(model, (Distiller, keras.distillation.Distiller)) else model


def _rounds(begin: int, end: int, every: int) -> int:
    if begin < 0 or every < 1 or end <= begin or (end - begin) % every:
        raise UsageError(
            "Rounds need 0 ≤ begin < end and every ≥ 1, a divisor of end − begin. "
            f"Received: begin={begin}, end={end}, every={every}"
        )
    return (end - begin) // every
