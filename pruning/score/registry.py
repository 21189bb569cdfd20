"""The registry of criteria. A criterion names what it looks at by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import nearest, require

# What a criterion may ask for, n channels at a time → (where it is read off, its shape)
INPUTS = {
    "filters": ("weights", "(n, weights): the weights that make each channel"),
    "gradients": ("weights", "(n, weights): of the mean loss of a batch by those weights"),
    "fisher": ("weights", "(n, weights): mean over images of the squared gradient of each one's loss"),
    "hessian": ("weights", "(n, weights): diagonal of the Hessian of the mean loss, estimated"),
    "jacobian": ("weights", "(n, weights): mean over images of Σ_outputs (∂output/∂w)², estimated"),
    "gamma": ("scales", "(n,): the scale of each channel in a normalisation"),
    "activations": ("activations", "(images, positions, n): behind the non-linearity"),
    "activation_gradients": ("activations", "(images, positions, n): of the mean loss by the activations"),
    "rng": ("", "a NumPy generator"),
}
OF_LOSS = ("gradients", "fisher", "hessian", "activation_gradients")
OF_DATA = (*OF_LOSS, "jacobian", "activations")
NORMALISERS = ("none", "mean", "max", "sum")
BATCHES = ("all", "sum", "mean")
OPTIONS = ("batches", "normalise", "roles")


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Attributes:
        name: what `make_plan` calls it.
        score: arrays by the names in `inputs` → scores (n,), larger = keep.
        inputs: some of `INPUTS`.
        batches: of data: "all" sees gradients of the mean loss of all images; "sum" and "mean" score every
            batch by itself and put the scores together.
        normalise: how the scores of a group are scaled when groups are compared, unless the user says it.
        roles: the members of a group whose weights it looks at.
    """

    name: str
    score: Callable[..., np.ndarray]
    inputs: tuple[str, ...]
    batches: str = "all"
    normalise: str = "mean"
    roles: tuple[str, ...] = ("producer",)

    @property
    def source(self) -> str:
        """Where its channels are: "weights", "scales" or "activations"."""
        return next(source for source in map(source_of, self.inputs) if source)

    @property
    def needs_data(self) -> bool:
        """Whether images must be run through the model."""
        return not set(OF_DATA).isdisjoint(self.inputs)

    @property
    def needs_labels(self) -> bool:
        """Whether a loss must be computed."""
        return not set(OF_LOSS).isdisjoint(self.inputs)


def source_of(name: str) -> str:
    """The first half of an entry of `INPUTS`."""
    return INPUTS[name][0]


def criterion(function: Callable | None = None, /, *, name: str = "", **options: Any) -> Any:
    """Registers a function of any of `INPUTS` → scores (n,) under its name: `@criterion` does.

    Options are `batches`, `normalise` and `roles` of `Criterion`. The function itself stays as it is. Raises
    `UsageError` for a parameter or an option that does not exist, for arrays that do not belong to the same
    channels, and for the name of another criterion.
    """
    if function is None:
        return lambda f: criterion(f, name=name, **options)
    if strange := next((option for option in options if option not in OPTIONS), None):
        raise UsageError(
            f"Unknown option. Received: {strange}={options[strange]!r}. {nearest(strange, OPTIONS)}"
        )
    inputs = tuple(inspect.signature(function).parameters)
    found = Criterion(name or function.__name__, function, inputs, **options)
    _check(found)
    CRITERIA.register(found, name=found.name, origin=function)
    return function


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    "criteria",
    folder="secateur.pruning.score.criteria",
    accept=lambda function, name: criterion(function, name=name),
)


def _check(found: Criterion) -> None:
    if strange := next((i for i in found.inputs if i not in INPUTS), None):
        raise UsageError(
            f"Criterion {found.name!r} has an unknown parameter. Received: {strange!r}. "
            f"{nearest(strange, INPUTS)}"
        )
    if len({source_of(i) for i in found.inputs} - {""}) != 1:
        raise UsageError(
            f"Criterion {found.name!r} needs arrays of one kind: weights, gamma, or activations. "
            f"Received: {', '.join(found.inputs) or 'no parameter'}"
        )
    if found.source == "activations" and found.batches == "all":
        raise UsageError(
            f"Criterion {found.name!r} looks at activations, which are there for one batch at a time: "
            "batches must be 'sum' or 'mean'. Received: batches='all'"
        )
    for option, valid in (("batches", BATCHES), ("normalise", NORMALISERS)):
        require(getattr(found, option), valid, option)


def get_criterion(name: str) -> Criterion:
    """A registered criterion. Raises `UsageError` with the nearest valid name."""
    return CRITERIA.find(name)


def list_criteria() -> list[str]:
    """Names that `make_plan` accepts."""
    return sorted(CRITERIA)
