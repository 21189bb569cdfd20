"""A model in other programs' formats, checked number by number, and how fast it runs.

Names are imported when they are used: importing this package does not import TensorFlow.
"""

from typing import TYPE_CHECKING

from secateur.runs.lazy import lazy_names

if TYPE_CHECKING:
    from secateur.exports.checked import check_replaceable as check_replaceable
    from secateur.exports.checked import export as export
    from secateur.exports.checked import require as require
    from secateur.exports.formats import FORMATS as FORMATS
    from secateur.exports.frozen import frozen_runner as frozen_runner
    from secateur.exports.int8 import to_int8 as to_int8
    from secateur.exports.litert import litert_outputs as litert_outputs
    from secateur.exports.litert import litert_runner as litert_runner
    from secateur.exports.litert import to_litert as to_litert
    from secateur.exports.parity import Parity as Parity
    from secateur.exports.parity import compare as compare
    from secateur.exports.timing import Setup as Setup
    from secateur.exports.timing import least as least

__getattr__, __all__ = lazy_names(__name__, __file__)
