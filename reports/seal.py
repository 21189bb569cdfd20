"""Which reports a run has written as they are: they hold a digest of all else in them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from secateur.runs.files import to_json

SEAL = "seal"


def sealed(report: dict[str, Any]) -> dict[str, Any]:
    """The same report with its digest."""
    return report | {SEAL: _digest(report)}


def is_sealed(report: dict[str, Any]) -> bool:
    """Whether nobody has changed it since."""
    return report.get(SEAL) == _digest(report)


def _digest(report: dict[str, Any]) -> str:
    plain = json.loads(to_json({key: value for key, value in report.items() if key != SEAL}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
