"""How to store: weights that share few values, entropy coding, and the file `.kpz` of a whole model.

Names are imported when they are used: all but the step from and to Keras comes without TensorFlow.
"""

from typing import TYPE_CHECKING

from secateur.runs.lazy import lazy_names

if TYPE_CHECKING:
    from secateur.coding.file.array_file import encode_arrays as encode_arrays
    from secateur.coding.file.array_reader import decode_arrays as decode_arrays
    from secateur.coding.file.inspection import inspect as inspect
    from secateur.coding.file.model_file import decode as decode
    from secateur.coding.file.model_file import encode as encode
    from secateur.coding.sharing.share import share as share

__getattr__, __all__ = lazy_names(__name__, __file__)
