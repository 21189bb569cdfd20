"""Reading what may be damaged: every field is checked before it is used, every byte is counted."""

from __future__ import annotations

from typing import Any

from secateur.runs.stubs import Refused


class Reader:
    """Bytes, taken from the front; nothing is copied."""

    def __init__(self, data: bytes | memoryview):
        self._left = memoryview(data)

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises `Refused` where there are fewer."""
        if size > len(self._left):
            raise Refused(f"{size} bytes are announced where {len(self._left)} are left")
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def finish(self) -> None:
        """Raises `Refused` where bytes are left."""
        if len(self._left):
            raise Refused(f"{len(self._left)} bytes belong to nothing")


def whole(value: Any, most: int, least: int = 0) -> int:
    """A whole number in [least, most], or `Refused`: JSON also has 1.0, true and 10**100."""
    if type(value) is not int or not least <= value <= most:
        raise Refused(f"a size is not in {least} … {most}. Received: {str(value)[:40]}")
    return value


def field(node: Any, name: str, kind: type) -> Any:
    """An entry of a JSON object, of this type, or `Refused`."""
    if not isinstance(node, dict) or not isinstance(node.get(name), kind):
        raise Refused(f"its description lacks {name!r}")
    return node[name]


def one_of(value: Any, valid: Any) -> Any:
    """The value, which is among the valid ones, or `Refused`."""
    if not isinstance(value, str) or value not in valid:
        raise Refused(f"it uses what this version does not know. Received: {str(value)[:40]!a}")
    return value
