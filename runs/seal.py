"""JSON objects that nobody has changed since they were written: they hold a digest of all else in them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from secateur.runs.files import to_json

SEAL = "seal"


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The same object with its digest."""
    return value | {SEAL: _digest(value)}


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether nobody has changed it since."""
    return value.get(SEAL) == _digest(value)


def _digest(value: dict[str, Any]) -> str:
    plain = json.loads(to_json({key: own for key, own in value.items() if key != SEAL}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
