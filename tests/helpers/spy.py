"""A spy on test images: between the start of a run and its report they are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from secateur.dataloader.splits import _LazyTest
from secateur.recipes.engine import run

READ_EARLY = "the test images are read before the report"


@contextmanager
def spied() -> Iterator[None]:
    """Inside of the block a run whose steps read test images ends in an AssertionError."""
    real = {name: getattr(run, name) for name in ("_carry_out", "finish")}
    read, hidden = _LazyTest.read, False

    def seen(self: _LazyTest) -> Any:
        assert not hidden, READ_EARLY
        return read(self)

    def hiding(name: str, hide: bool) -> Callable:
        def call(*arguments: Any) -> Any:
            nonlocal hidden
            hidden, before = hide, hidden
            try:
                return real[name](*arguments)
            finally:
                hidden = before

        return call

    run._carry_out, run.finish = hiding("_carry_out", True), hiding("finish", False)
    _LazyTest.read = seen
    try:
        yield
    finally:
        run._carry_out, run.finish = real.values()
        _LazyTest.read = read
