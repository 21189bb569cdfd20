"""The time that a run may take: `--minutes`, what earlier attempts have used of it, and what is left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from secateur.recipes.engine.config import RunOptions
from secateur.runs import RunFolder, read_json
from secateur.runs.folder import damaged

FILE = "clock.json"


@dataclass(frozen=True)
class Clock:
    """How much of its time a run has used.

    Attributes:
        seconds: that the whole run may take, its report included.
        began: when this attempt began, as `now` counts.
        before: seconds that attempts before it used, as far as they have noted it.
        folder: where the used seconds are kept; None: nowhere.
        now: seconds that only grow.
    """

    seconds: float
    began: float
    before: float = 0.0
    folder: RunFolder | None = None
    now: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, options: RunOptions, folder: RunFolder) -> Self | None:
        """The clock of a run that may have been killed before; None without --minutes."""
        if options.minutes is None:
            return None
        known = folder.path(FILE)
        found = read_json(known) if known.exists() else {"seconds": 0.0}
        before = found.get("seconds") if isinstance(found, dict) else None
        if type(before) not in (int, float) or not 0 <= before < math.inf:
            raise damaged(known)
        return cls(60 * options.minutes, options.given_at, before, folder)

    @property
    def used(self) -> float:
        """Seconds since the command was given, and those of earlier attempts."""
        return self.before + self.now() - self.began

    def left(self, reserve: float = 0.0) -> float:
        """Seconds until only `reserve` is left; 0 where that has passed."""
        return max(0.0, self.seconds - reserve - self.used)

    def end(self, reserve: float = 0.0) -> float:
        """When only `reserve` is left, as `now` counts; now where that has passed."""
        return self.now() + self.left(reserve)

    def note(self) -> None:
        """Keeps the used seconds: an attempt that is killed has used them."""
        if self.folder is not None:
            self.folder.write_json(FILE, {"seconds": round(self.used, 3)})
