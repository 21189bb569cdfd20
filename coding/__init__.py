"""How to store: weights that share few values, entropy coding, and the file `.kpz` of a whole model.

Names are looked up when they are used: all but the step from and to Keras comes without TensorFlow.
"""

from secateur.runs.lazy import lazy_names

_HOME = {
    "decode": "file.model_file",
    "decode_arrays": "file.array_reader",
    "encode": "file.model_file",
    "encode_arrays": "file.array_file",
    "inspect": "file.inspection",
    "share": "sharing.share",
}
__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
