"""How to store: weights that share few values, entropy coding, and the file `.kpz` of a whole model.

Names are looked up when they are used: all but the step from and to Keras comes without TensorFlow.
"""

from importlib import import_module

_HOME = {
    "decode": "coding.model_file",
    "decode_arrays": "coding.array_reader",
    "encode": "coding.model_file",
    "encode_arrays": "coding.array_file",
    "inspect": "coding.inspection",
    "share": "coding.sharing",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'coding' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
