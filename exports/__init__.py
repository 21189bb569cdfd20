"""A model in other programs' formats, checked number by number, and how fast it runs.

Names are looked up when they are used: importing this package does not import TensorFlow.
"""

from importlib import import_module

_HOME = {
    "FORMATS": "exports.formats",
    "Parity": "exports.parity",
    "Setup": "exports.setup",
    "compare": "exports.parity",
    "export": "exports.checked",
    "frozen_runner": "exports.frozen",
    "litert_outputs": "exports.litert",
    "litert_runner": "exports.litert",
    "least": "exports.timing",
    "require": "exports.checked",
    "to_int8": "exports.int8",
    "to_litert": "exports.litert",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'exports' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
