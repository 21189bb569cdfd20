"""Whether labels fit the outputs of a model; what is wrong with them in a line or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secateur.runs.errors import UsageError

if TYPE_CHECKING:
    from secateur.nets.task import Task

Shape = tuple[int | None, ...]


def check_form(task: Task, shape: Shape, dtype: np.dtype, outputs: Shape) -> None:
    """Raises `UsageError` for labels whose shape or type does not fit outputs, both with the batch axis."""
    if dtype.kind not in "biuf":
        raise UsageError(f"Labels must be numbers. Received: labels of type {dtype}")
    inner, whole = outputs[1:-1], outputs[1:]
    if task.kind == "numbers" or task.two:
        _check_shape(task, shape, (whole, inner) if outputs[-1] == 1 else (whole,))
        return
    integers, one_hot = (inner, (*inner, 1)), (whole,)
    sparse = task.loss_spec.sparse
    ambiguous = _fits(shape, integers) and _fits(shape, one_hot)  # a size is open
    if sparse and not ambiguous and _fits(shape, one_hot):
        raise UsageError(
            f"Loss {task.loss_spec.name!r} reads integers. Received: one-hot labels of shape {shape}\n"
            "give labels.argmax(-1), or loss='categorical_crossentropy'"
        )
    if sparse is False and not ambiguous and _fits(shape, integers):
        raise UsageError(
            f"Loss {task.loss_spec.name!r} reads one-hot labels. Received: integers of shape {shape}\n"
            f"give keras.utils.to_categorical(labels, {task.units}), or "
            "loss='sparse_categorical_crossentropy'"
        )
    _check_shape(task, shape, (*(() if sparse is False else integers), *(() if sparse else one_hot)))


def check_values(task: Task, labels: np.ndarray, as_outputs: bool) -> None:
    """Raises `UsageError` for labels that are no classes; `as_outputs`: they have the outputs' rank."""
    if task.two:
        _check_decisions(task, labels)
    elif task.kind != "numbers":
        one_hot = as_outputs and labels.shape[-1] == task.units
        _check_shares(task, labels) if one_hot else _check_integers(task, labels)


def check_one_class(labels: np.ndarray, units: int) -> None:
    """Raises `UsageError` where one-hot labels (n, units) hold rows of several classes or none."""
    if units > 1 and labels.ndim == 2 and labels.shape[1] == units:
        sums = labels.sum(1, dtype=np.float64)
        if len(wrong := np.flatnonzero(np.abs(sums - 1) > 1e-3)):
            raise UsageError(
                "One-hot labels have one class an image; for several of them give "
                f"loss='binary_crossentropy'. Received: {sums[wrong[0]]:g} in row {wrong[0]}"
            )


def _check_shape(task: Task, found: Shape, allowed: tuple[Shape, ...]) -> None:
    if not _fits(found, allowed):
        shapes = " or ".join(_text(shape) for shape in allowed)
        raise UsageError(
            f"Labels for {task.kind} by loss {task.loss_spec.name!r} have the shape {shapes}. "
            f"Received: {found}"
        )


def _fits(found: Shape, allowed: tuple[Shape, ...]) -> bool:
    """Whether a shape with the batch axis is one of those without, where None is any size."""
    return bool(found) and any(
        len(found) == len(shape) + 1
        and all(None in (a, b) or a == b for a, b in zip(found[1:], shape, strict=True))
        for shape in allowed
    )


def _text(shape: Shape) -> str:
    inner = "".join(f", {'?' if n is None else n}" for n in shape)
    return f"(n{inner})" if shape else "(n,)"


def _check_decisions(task: Task, labels: np.ndarray) -> None:
    """0 or 1, in floating point also what is between them where there are several: shares of labels."""
    low, high = 0, 1
    wrong = (labels < low) | (labels > high) | ~np.isfinite(labels)
    if task.kind != "labels":
        wrong |= labels != np.round(labels)
    if wrong.any():
        raise UsageError(
            f"Labels of {'two classes' if task.units == 1 else 'each output'} are 0 or 1. Received: "
            f"{labels[wrong].flat[0]:g}{_remedy(labels)}"
        )


def _check_shares(task: Task, labels: np.ndarray) -> None:
    wrong = (labels < 0) | (labels > 1) | ~np.isfinite(labels)
    if wrong.any():
        raise UsageError(
            f"One-hot labels lie in [0, 1]. Received: {labels[wrong].flat[0]:g}{_remedy(labels)}"
        )
    if not task.sigmoid:
        check_one_class(labels.reshape(-1, labels.shape[-1]), task.units)


def _check_integers(task: Task, labels: np.ndarray) -> None:
    wrong = (labels < 0) | (labels >= task.units) | ~np.isfinite(labels)
    wrong |= labels != np.floor(labels)
    if task.loss_spec.ignored is not None:
        wrong &= labels != task.loss_spec.ignored
    if wrong.any():
        value = labels[wrong].flat[0]
        raise UsageError(
            f"Labels of {task.units} classes are integers 0…{task.units - 1}. Received: "
            f"{value:g}{_remedy(labels)}"
        )


def _remedy(labels: np.ndarray) -> str:
    """Behind a message of labels that are no classes; real numbers have a loss of their own."""
    real = labels.dtype.kind == "f" and (labels != np.round(labels)).any()
    return "; for real numbers give loss='mse'" if real else ""
