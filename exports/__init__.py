"""A model in other programs' formats, checked number by number, and how fast it runs.

Names are looked up when they are used: importing this package does not import TensorFlow.
"""

from secateur.runs.lazy import lazy_names

_HOME = {
    "FORMATS": "formats",
    "Parity": "parity",
    "Setup": "setup",
    "compare": "parity",
    "export": "checked",
    "frozen_runner": "frozen",
    "litert_outputs": "litert",
    "litert_runner": "litert",
    "least": "timing",
    "require": "checked",
    "to_int8": "int8",
    "to_litert": "litert",
}
__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
