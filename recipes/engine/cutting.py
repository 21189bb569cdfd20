"""Which channels go: options of the step `prune` and of `secateur prune`. Plain Python."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.score.registry import NORMALISERS
from secateur.recipes.engine.options import FilePath, NameIn, Options, option
from secateur.runs.errors import UsageError

TARGETS = ("keep", "keep_macs", "keep_params", "keep_bytes", "keep_ms", "max_ms")
TIMED_BUDGETS = ("keep_ms", "max_ms")
OF_SCORES = ("criterion", "reduce", "normalise")
LIMITS = ("round_to", "min_channels", "max_drop", "ignore")
OF_WIDTHS = ("allocation", "fill", *LIMITS)


class CutOptions(Options):
    """What all steps know that remove channels."""

    criterion: str = option("l1", "which channels stay")
    preserve_norm: bool = option(False, "what stays of a kernel gets the norm of the whole, as EKG has it")


class PlanOptions(CutOptions):
    """A budget, or a plan; and how the budget becomes widths."""

    keep: float | None = option(None, "ratio of the channels of a group that stay", gt=0, le=1)
    keep_macs: float | None = option(None, "ratio of the operations to keep", gt=0, lt=1)
    keep_params: float | None = option(None, "ratio of the parameters to keep", gt=0, lt=1)
    keep_bytes: float | None = option(None, "ratio of the bytes of the weights to keep", gt=0, lt=1)
    keep_ms: float | None = option(None, "ratio of the measured milliseconds to keep", gt=0, lt=1)
    max_ms: float | None = option(None, "measured milliseconds of one call at most", gt=0)
    plan: FilePath | None = option(None, "apply this plan, a .json file, instead of a budget")

    reduce: Literal["mean", "sum", "max", "first"] = option(
        "mean", "how the members of a group share a score"
    )
    normalise: Literal[NORMALISERS] | None = option(
        None, "what scores of a group are divided by (default: the criterion's choice)"
    )
    allocation: Literal["uniform", "global", "isomorphic", "sensitivity"] | None = option(
        None,
        "how the budget is spread over groups (default: uniform; for milliseconds a rule of their own)",
    )
    sensitivity: bool = option(
        False, "measure the accuracy with each group narrowed by itself, on images that score candidates"
    )
    convention: Annotated[str, NameIn(CONVENTIONS)] = option("mac", "what is counted as an operation")
    fill: bool = option(True, "add single channels until none fits the budget")
    round_to: int = option(1, "widths are multiples of this", ge=1)
    min_channels: int = option(1, "that every group keeps", ge=1)
    max_drop: float = option(1.0, "largest ratio of its channels that a group loses", gt=0, le=1)
    ignore: list[str] = option([], "layers whose channels all stay; patterns may be used")
    channel_statistics: bool = option(
        False, "let channels go that a mean or maximum over channels reads: it is taken over what is left"
    )

    backend: Literal["litert", "frozen"] = option("litert", "what milliseconds are measured on")
    threads: int = option(1, "of the measured call; 0 is the program's own choice", ge=0)
    ms_batch: int = option(1, "images of the measured call", ge=1)
    cache: FilePath | None = option(None, "folder of measured layers (default: the user's cache folder)")

    def model_post_init(self, context: Any, /) -> None:
        """Raises `UsageError` for options that contradict each other."""
        super().model_post_init(context)
        flag, names = self.prefix(self.__dict__), (*TARGETS, "plan")
        given = [f"{flag}{name}" for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(f"{flag}{name}" for name in self.budgets)
            raise UsageError(f"Give one of {known}. Received: {' and '.join(given) or 'none'}")
        name, value = self.target
        if name in TIMED_BUDGETS and not (self.fill or self.allocation):
            raise UsageError(
                "--no-fill needs an --allocation where milliseconds are measured. "
                f"Received: {flag}{name} {value:g}"
            )
        # Scores still say which channels of a group the curves of `sensitivity` take first.
        decided = OF_WIDTHS if self.sensitivity else (*OF_SCORES, *OF_WIDTHS)
        changed = [n for n in decided if getattr(self, n) != type(self).model_fields[n].default]
        if self.plan and changed:
            raise UsageError(
                f"{flag}plan says already which channels stay. Received: {flag}plan and {flag}{changed[0]}"
            )

    @property
    def budgets(self) -> tuple[str, ...]:
        """Of which one must be given."""
        return (*TARGETS, "plan")

    @property
    def target(self) -> tuple[str, float | str]:
        """Which budget was given, and its value; "plan" and its file where that was given instead."""
        names = (*TARGETS, "plan")
        return next((name, value) for name in names if (value := getattr(self, name)) is not None)

    @property
    def curved(self) -> bool:
        """Whether curves of sensitivity are measured."""
        return self.sensitivity or self.allocation == "sensitivity"
